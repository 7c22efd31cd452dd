"""The way out of imaginary modes: a locked relaxation, followed by branches of lower symmetry and energy.

At each depth the modes of the lowest structure are computed in a small supercell. The lowest imaginary one is followed
along its directions of high symmetry, one branch each; higher ones only where those before them gave no lower energy.
The search ends at a structure without imaginary modes, at the largest depth, or where no branch lowers the energy.
Instabilities against a homogeneous strain alone are not looked for: where a mode of short wavelength is imaginary too,
the cell follows it in the subgroup.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from ase import Atoms

from esen_flows.errors import EsenFlowsError, InputError, InsufficientMemoryError, ModelError, StoreError
from esen_flows.forcefield.contract import ForceField
from esen_flows.physics.branches import ENERGY_TOLERANCE_EV, relax_branch
from esen_flows.physics.lattice.displacements import displaced_forces
from esen_flows.physics.lattice.soft_modes import SoftMode, soft_modes
from esen_flows.physics.relax import relax
from esen_flows.physics.symmetry import conventional_lengths
from esen_flows.schemas.branch_documents import BranchOutput
from esen_flows.schemas.branches import BranchProtocol
from esen_flows.schemas.documents import RelaxOutput
from esen_flows.schemas.exploration import Branch, ExplorationProtocol
from esen_flows.schemas.lattice_documents import ForcesOutput
from esen_flows.schemas.protocols import DisplacementProtocol, RelaxProtocol
from esen_flows.structures.identity import identify

# Failures of one branch that say nothing about the others; anything else ends the exploration.
_ENDS = (ModelError, StoreError, InsufficientMemoryError)
Notice = Callable[[str], None]


@dataclass(frozen=True)
class Found:
    """A relaxed structure of an exploration.

    Attributes
    ----------
    output
        The relaxed structure.
    key
        Key of its result; empty where nothing is stored.
    """

    output: RelaxOutput
    key: str = ""


class Steps:
    """The computations of an exploration, made in memory. A subclass keeps each of them in a store.

    Parameters
    ----------
    force_field
        Force field.
    """

    def __init__(self, force_field: ForceField) -> None:
        self.force_field = force_field

    def locked(self, atoms: Atoms, protocol: RelaxProtocol) -> Found:
        """The relaxation with all symmetry of the start.

        Parameters
        ----------
        atoms
            The start.
        protocol
            Relaxation with symmetry="lock".

        Returns
        -------
        Found
            The relaxed structure.
        """
        return Found(relax(atoms, self.force_field, protocol))

    def forces(self, found: Found, protocol: DisplacementProtocol) -> tuple[ForcesOutput, str]:
        """Displaced forces of a structure, and the key of their result.

        Parameters
        ----------
        found
            The structure.
        protocol
            Its supercell and displacements.

        Returns
        -------
        tuple[ForcesOutput, str]
            The forces and their key, empty where nothing is stored.
        """
        return displaced_forces(found.output.structure.to_atoms(), self.force_field, protocol), ""

    def branch(self, found: Found, forces_key: str, mode: SoftMode, protocol: BranchProtocol) -> Found:
        """A branch of a structure.

        Parameters
        ----------
        found
            The structure.
        forces_key
            Key of its displaced forces.
        mode
            The mode that the protocol names.
        protocol
            The protocol of the branch.

        Returns
        -------
        Found
            The relaxed structure, whose output is a BranchOutput.
        """
        return Found(relax_branch(mode, self.force_field, protocol))

    def key_of(self, found: Found, forces_key: str, protocol: BranchProtocol) -> str:
        """Key under which a branch is stored, its failure too.

        Parameters
        ----------
        found
            The structure.
        forces_key
            Key of its displaced forces.
        protocol
            The protocol of the branch.

        Returns
        -------
        str
            The key; empty where nothing is stored.
        """
        return ""


def explore(atoms: Atoms, steps: Steps, protocol: RelaxProtocol, notice: Notice | None = None) -> RelaxOutput:
    """Relax a crystal with its symmetry, and follow its imaginary modes to a stable structure.

    Parameters
    ----------
    atoms
        Starting structure.
    steps
        What computes the steps; `Steps(force_field)` in a script.
    protocol
        Relaxation with symmetry="explore".
    notice
        Called with words about what is done next.

    Returns
    -------
    RelaxOutput
        The structure of lowest energy, which is that of the locked relaxation if nothing is lower. `branches` has all
        structures that were found.

    Raises
    ------
    InputError
        The structure is not a crystal.
    EsenFlowsError
        The locked relaxation, or the displaced forces of a structure, fail. A branch that fails is noted in `branches`.

    Examples
    --------
    >>> from ase.build import bulk
    >>> from esen_flows.forcefield.load import load_force_field
    >>> found = explore(bulk("Cu"), Steps(load_force_field("emt")), RelaxProtocol(symmetry="explore"))
    >>> found.space_group_final, [branch.verdict for branch in found.branches]
    (225, ['stable'])
    """
    if not atoms.pbc.all():
        raise InputError(f"{atoms.get_chemical_formula()} is not a crystal; only crystals are relaxed with explore")
    say = notice or (lambda words: None)
    say("locked relaxation")
    root = current = steps.locked(atoms, _locked(protocol))
    branches, place = [_branch_of(root, None, 0)], 0
    for depth in range(protocol.exploration.max_depth + 1):
        say(f"modes of structure {place}")
        forces, forces_key = steps.forces(current, displacements_for(current.output, protocol))
        modes, lowest = soft_modes(forces, protocol.exploration.imaginary_tolerance_thz)
        branches[place].lowest_frequency_thz = lowest
        branches[place].verdict = "unstable" if modes else "stable"
        if not modes or depth == protocol.exploration.max_depth:
            break
        parent = _Parent(current, place, depth, forces_key)
        below = _followed(parent, modes, steps, protocol, branches, say)
        if below is None:
            break
        current, place = below
    return _answer(root.output, current.output, branches)


def displacements_for(output: RelaxOutput, protocol: RelaxProtocol) -> DisplacementProtocol:
    """The displaced supercells in which modes of a structure are looked for.

    Parameters
    ----------
    output
        The structure.
    protocol
        Relaxation with symmetry="explore".

    Returns
    -------
    DisplacementProtocol
        The protocol of its displaced forces.
    """
    wanted = DisplacementProtocol(
        displacement_angstrom=protocol.exploration.displacement_angstrom,
        parity=protocol.parity,
        force_symmetry=protocol.force_symmetry,
    )
    lengths = conventional_lengths(output.structure.to_atoms(), wanted.symprec_angstrom)
    assert lengths is not None  # a locked relaxation ends exactly on its space group
    least = protocol.exploration.min_length_angstrom
    counts = [1 if length >= least else 2 * int(np.ceil(least / (2 * length))) for length in lengths]
    return DisplacementProtocol.model_validate(wanted.model_dump() | {"fc2_supercell": counts})


@dataclass(frozen=True)
class _Parent:
    """The structure whose branches are looked for: its place in the list, its depth, and the key of its forces."""

    found: Found
    place: int
    depth: int
    forces_key: str


def _followed(
    parent: _Parent,
    modes: list[SoftMode],
    steps: Steps,
    relaxation: RelaxProtocol,
    branches: list[Branch],
    say: Notice,
) -> tuple[Found, int] | None:
    """The lowest branch of a structure and its place, if it is lower than that; all are appended to `branches`."""
    depth = parent.depth + 1
    for number, mode in enumerate(modes):
        lowest: tuple[Found, int] | None = None
        for protocol in _protocols(number, mode, relaxation):
            say(f"structure {len(branches)}: {mode.frequency_thz:.2f} THz of structure {parent.place}, depth {depth}")
            try:
                found = steps.branch(parent.found, parent.forces_key, mode, protocol)
            except _ENDS:
                raise
            except EsenFlowsError as error:
                key = steps.key_of(parent.found, parent.forces_key, protocol)
                failure = f"{type(error).__name__}: {error}"
                branches.append(Branch(key=key, parent=parent.place, depth=depth, verdict="failed", failure=failure))
                continue
            branches.append(_branch_of(found, parent.place, depth))
            if lowest is None or _energy(found) < _energy(lowest[0]):
                lowest = found, len(branches) - 1
        if lowest is not None and _energy(lowest[0]) < _energy(parent.found) - ENERGY_TOLERANCE_EV:
            return lowest
    return None


def _protocols(number: int, mode: SoftMode, relaxation: RelaxProtocol) -> Iterator[BranchProtocol]:
    lock = _locked(relaxation).model_copy(update={"deformation": None})  # the parent is deformed already
    amplitudes = relaxation.exploration.amplitudes_angstrom
    for direction, one in enumerate(mode.directions[: relaxation.exploration.max_directions]):
        for side in ("lower", "higher") if one.two_sided else ("lower",):
            yield BranchProtocol(
                mode=number, direction=direction, side=side, relax=lock, amplitudes_angstrom=amplitudes
            )


def _locked(relaxation: RelaxProtocol) -> RelaxProtocol:
    """The locked relaxation of an exploration, which has the key of one without an exploration."""
    return relaxation.model_copy(update={"symmetry": "lock", "exploration": ExplorationProtocol()})


def _energy(found: Found) -> float:
    return found.output.energy_per_atom_ev


def _branch_of(found: Found, parent: int | None, depth: int) -> Branch:
    output = found.output
    made: dict[str, Any] = {}
    if isinstance(output, BranchOutput):
        made = {
            "frequency_thz": output.frequency_thz,
            "q_point": tuple(float(component) for component in output.q_point),
            "subgroup": output.subgroup,
            "snapped": output.snapped,
        }
    return Branch(
        key=found.key,
        parent=parent,
        depth=depth,
        atoms=len(output.structure.numbers),
        space_group=output.space_group_final,
        space_group_symbol=identify(output.structure.to_atoms())["space_group_symbol"],
        energy_per_atom_ev=output.energy_per_atom_ev,
        **made,
    )


def _answer(root: RelaxOutput, lowest: RelaxOutput, branches: list[Branch]) -> RelaxOutput:
    fields = {name: getattr(lowest, name) for name in RelaxOutput.model_fields}
    return RelaxOutput(**(fields | {"space_group_initial": root.space_group_initial, "branches": branches}))
