"""Predicted cost of a campaign's members, in edge evaluations: pairs within the cutoff times structures evaluated.

A force call takes time and memory in proportion to its edges, so that the costs of members of any size and property can
be added. Numbers of steps and displacements are predicted from measurements (benchmarks/campaign_cost.py). Seconds
follow from stored timings; without any, the seconds are unknown.
"""

import warnings
from dataclasses import dataclass
from math import log10, pi
from typing import Any, Literal

import numpy as np
import spglib
from ase import Atoms

from esen_flows.errors import ModelError
from esen_flows.schemas.card import ModelReference, checkpoint_path
from esen_flows.schemas.checkpoint_header import read_header
from esen_flows.schemas.diatomics import DiatomicsProtocol
from esen_flows.schemas.force_symmetry import ForceSymmetry
from esen_flows.schemas.frozen import Frozen
from esen_flows.schemas.md import MDProtocol
from esen_flows.schemas.property_entry import Step
from esen_flows.schemas.property_lookup import entry_of, kind_of
from esen_flows.schemas.protocol_types import Matrix3
from esen_flows.schemas.protocols import DisplacementProtocol, RelaxProtocol
from esen_flows.store.results import Store
from esen_flows.store.timings import seconds_per_cost, seconds_per_edge

USUAL_CUTOFF_ANGSTROM = 6.0  # of the published eSEN and most general force fields, for those that do not say another
# All from benchmarks/results/campaign_cost.json. CHGNet, FIRE, 24 crystals of WBM rattled by 0.02 A: 19 steps
# in the mean to 0.05 eV/A, 31 to 0.02, 91 to 1e-3, 138 to 1e-4, which is this line in the logarithm.
STEPS_AT_1_EV_PER_ANGSTROM, STEPS_PER_DECADE = -43.7, 45.1
# 100 crystals of WBM: displaced supercells of second order over 6 x primitive atoms, of third order over 36 x primitive
# atoms x atoms of the supercell, as powers of the order of the point group; they scatter by 29 % and 14 %.
FC2_FACTOR, FC2_EXPONENT = 0.864, -0.638
FC3_FACTOR, FC3_EXPONENT = 1.011, -0.848
_LENGTH_TOLERANCE_ANGSTROM = 1e-3  # as esen_flows.physics.lattice.displacements


@dataclass(frozen=True)
class CostModel:
    """What the cost of all members with one force field depends on.

    Attributes
    ----------
    cutoff_angstrom
        Cutoff radius of the force field, in Angstrom.
    mirrored
        Whether averaging with the mirror image takes a second evaluation.
    """

    cutoff_angstrom: float
    mirrored: bool

    @classmethod
    def of(cls, model: ModelReference) -> "CostModel":
        """Cost model of a force field, which is not loaded.

        Parameters
        ----------
        model
            Force field.

        Returns
        -------
        CostModel
            Its cost model.
        """
        return cls(cutoff_of(model), model.equivariance != "O3")


def cutoff_of(model: ModelReference) -> float:
    """Cutoff radius of a force field, by the header of its checkpoint or by its card.

    Parameters
    ----------
    model
        Force field.

    Returns
    -------
    float
        Radius in Angstrom; 6 if neither says one.
    """
    architecture: dict[str, Any] = {} if model.card is None else dict(model.card.architecture)
    try:
        path = model.location if model.card is None else checkpoint_path(model.card)
        architecture |= read_header(path).get("architecture", {})
    except ModelError:
        pass  # a force field of another package has no header of ours
    return float(architecture.get("cutoff_angstrom", USUAL_CUTOFF_ANGSTROM))


def member_cost(atoms: Atoms, protocol: Frozen, model: CostModel) -> float:
    """Predicted cost of all steps of a member.

    Parameters
    ----------
    atoms
        Input structure; empty for a property of a force field.
    protocol
        Protocol of the member.
    model
        Cost model of the force field.

    Returns
    -------
    float
        Edge evaluations.

    Examples
    --------
    >>> from ase.build import bulk
    >>> from esen_flows.schemas.protocols import RelaxProtocol
    >>> model = CostModel(cutoff_angstrom=6.0, mirrored=False)
    >>> f"{member_cost(bulk('Cu'), RelaxProtocol(fmax_ev_per_angstrom=0.05), model):.0f}"
    '1229'
    """
    volume = abs(float(np.linalg.det(atoms.cell.array))) if atoms.pbc.all() else 0.0
    edges = edge_count(len(atoms), volume, model.cutoff_angstrom)
    return sum(_step_cost(step, atoms, edges, model) for step in entry_of(kind_of(protocol)).steps(protocol))


def _step_cost(step: Step, atoms: Atoms, edges: float, model: CostModel) -> float:
    """Edge evaluations of one step, from the edges of the input structure."""
    if entry_of(step.kind).category == "cpu":
        return 0.0
    protocol = step.protocol
    if isinstance(protocol, DiatomicsProtocol):
        return 2.0 * protocol.points * len(protocol.symbols)
    times = _times(protocol, model)
    if isinstance(protocol, DisplacementProtocol):
        return float(times * _displaced_edges(atoms, protocol, model.cutoff_angstrom))
    if isinstance(protocol, MDProtocol):
        return times * edges * (protocol.n_steps + (relax_evaluations(protocol.relax) if protocol.relax else 1.0))
    return times * edges * (relax_evaluations(protocol) if isinstance(protocol, RelaxProtocol) else 1.0)


def edge_count(n_atoms: float, volume_angstrom3: float, cutoff_angstrom: float) -> float:
    """Expected number of pairs within the cutoff, both directions counted.

    Parameters
    ----------
    n_atoms
        Number of atoms.
    volume_angstrom3
        Volume in Angstrom^3, from which the density follows; 0 for a molecule, of which all pairs are counted.
    cutoff_angstrom
        Cutoff radius in Angstrom.

    Returns
    -------
    float
        Number of pairs.
    """
    if volume_angstrom3 <= 0:
        return n_atoms * max(n_atoms - 1.0, 1.0)
    return n_atoms * max(4.0 / 3.0 * pi * cutoff_angstrom**3 * n_atoms / volume_angstrom3, 1.0)


def relax_evaluations(protocol: RelaxProtocol) -> float:
    """Expected number of structures that a relaxation evaluates.

    Parameters
    ----------
    protocol
        Protocol of the relaxation.

    Returns
    -------
    float
        Number of structures, the start included.
    """
    steps = STEPS_AT_1_EV_PER_ANGSTROM - STEPS_PER_DECADE * log10(protocol.fmax_ev_per_angstrom)
    return 1.0 + min(max(steps, 1.0), protocol.max_steps) * (2.0 if protocol.then_free else 1.0)


def seconds_per_unit(
    store: Store, model_key: str, device_kind: str, cutoff_angstrom: float, dtype: str | None = None
) -> float | None:
    """Measured duration of one edge evaluation.

    Members of earlier campaigns count first, because they include what the predictions get wrong; then relaxations.

    Parameters
    ----------
    store
        Store with earlier results.
    model_key
        Key of the force field.
    device_kind
        One of `esen_flows.store.timings.DEVICE_KINDS`.
    cutoff_angstrom
        Cutoff radius of the force field in Angstrom.
    dtype
        Precision of the results that count; None: any.

    Returns
    -------
    float | None
        Seconds; None if nothing was measured.
    """
    measured = seconds_per_cost(store, model_key, device_kind, dtype)
    if measured is not None:
        return measured
    return seconds_per_edge(store, model_key, device_kind, cutoff_angstrom, dtype)


def _times(protocol: Frozen, model: CostModel) -> float:
    """Evaluations of one structure, without what its own symmetry saves."""
    symmetry: ForceSymmetry | None = getattr(protocol, "force_symmetry", None)
    mirrored = getattr(protocol, "parity", "as_is") == "average" and model.mirrored
    count = 1 if symmetry is None else symmetry.count
    return 2.0 * count if mirrored and not (symmetry and symmetry.inversion) else float(count)


def _displaced_edges(atoms: Atoms, protocol: DisplacementProtocol, cutoff: float) -> float:
    """Edges of all displaced supercells of a crystal."""
    density = len(atoms) / abs(float(np.linalg.det(atoms.cell.array)))
    per_atom = max(4.0 / 3.0 * pi * cutoff**3 * density, 1.0)
    return per_atom * sum(each.count * each.atoms for each in displaced_supercells(atoms, protocol))


@dataclass(frozen=True)
class DisplacedSupercells:
    """Predicted displaced supercells of one order.

    Attributes
    ----------
    order
        2 or 3.
    count
        Expected number of supercells.
    atoms
        Number of atoms of each.
    """

    order: Literal[2, 3]
    count: float
    atoms: float


def displaced_supercells(atoms: Atoms, protocol: DisplacementProtocol) -> list[DisplacedSupercells]:
    """Predicted displaced supercells of a crystal, without making any of them.

    Parameters
    ----------
    atoms
        The crystal.
    protocol
        Protocol of the displacements.

    Returns
    -------
    list[DisplacedSupercells]
        One entry per order; empty if no symmetry is found, because the crystal will fail without a force call.

    Examples
    --------
    >>> from ase.build import bulk
    >>> from esen_flows.schemas.protocols import DisplacementProtocol
    >>> [each.atoms for each in displaced_supercells(bulk("Si"), DisplacementProtocol(order=3))]
    [216.0, 64.0]
    """
    cell = (atoms.cell.array, atoms.get_scaled_positions(), atoms.numbers)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # spglib announces that it will raise instead of None
        try:
            found = spglib.get_symmetry_dataset(cell, symprec=protocol.symprec_angstrom)
        except spglib.SpglibError:
            found = None
    if found is None:
        return []
    order = len(np.unique(found.rotations, axis=0))
    primitive = len(np.unique(found.mapping_to_primitive))
    lengths, unit = np.linalg.norm(found.std_lattice, axis=1), len(found.std_types)
    density = unit / abs(float(np.linalg.det(found.std_lattice)))
    size = unit * _cells(lengths, protocol.fc2_supercell, protocol.fc2_min_length_angstrom)
    # Of the images of a displacement, few equal one another by symmetry.
    images = {"none": 1.0, "equivalents": order / 2, "rotations": float(protocol.fc_frames)}[protocol.fc_average]
    second = DisplacedSupercells(2, images * 6.0 * primitive * FC2_FACTOR * order**FC2_EXPONENT, size)
    if protocol.order == 2:
        return [second]
    size = unit * _cells(lengths, protocol.fc3_supercell, protocol.fc3_min_length_angstrom)
    reach = protocol.fc3_pair_cutoff_angstrom
    partners = size if reach is None else min(size, 4.0 / 3.0 * pi * reach**3 * density)
    return [
        second,
        DisplacedSupercells(3, images * 36.0 * primitive * partners * FC3_FACTOR * order**FC3_EXPONENT, size),
    ]


def _cells(lengths: np.ndarray, given: Matrix3 | None, min_length: float) -> float:
    """Number of conventional cells in a supercell."""
    if given is not None:
        return abs(float(np.linalg.det(np.array(given, dtype=float))))
    return float(np.prod(np.ceil(min_length / (lengths + _LENGTH_TOLERANCE_ANGSTROM))))
