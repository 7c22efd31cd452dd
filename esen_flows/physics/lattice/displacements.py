"""Forces of displaced supercells, evaluated in batches: the only force calls of phonons and their transport.

Supercell matrices refer to the standard conventional cell, whichever cell is given. With a protocol's `setting`
"canonical", its axes, origin and order of atoms depend on the crystal alone (`physics.canonical`), so that another way
to write it gives the same displacements; with "as_given", equivalent ones. Unless forces are linear in displacements,
equivalent ones differ: kappa of CuPt by 2 %, with displacements of 0.03 Angstrom.

Where both orders have the same supercell, the
single displacements of the third order serve the second order too.

Residual forces of the undisplaced crystal are not subtracted, which is the convention of phonopy, of phono3py and of
the published reference data.

With a protocol's `force_constants` "autodiff", forces are those of `linear_response`: the same document in the limit of
small displacements, from exact Hessians. The displacement then matters for the third order alone, as the step between
two Hessians. With `fc_average` more than one supercell is evaluated for each displacement, see `force_averages`.
"""

import time
from collections.abc import Callable
from functools import partial

import numpy as np
from ase import Atoms

from esen_flows.errors import InputError
from esen_flows.forcefield.contract import ForceField, require_conservative, require_differentiable
from esen_flows.forcefield.direct import with_forces
from esen_flows.forcefield.symmetrized import needs_inversion
from esen_flows.physics.canonical import canonical_cell
from esen_flows.physics.force_symmetry import along, symmetrized
from esen_flows.physics.lattice.adapter import plan_displacements
from esen_flows.physics.lattice.datasets import (
    Dataset,
    DisplacementPlan,
    DisplacementPlans,
    first_order,
    zeros_beyond_cutoff,
)
from esen_flows.physics.lattice.force_averages import AveragedPlans
from esen_flows.physics.lattice.linear_response import linear_forces
from esen_flows.physics.symmetry import atoms_in_primitive, centring, conventional_cell
from esen_flows.schemas.documents import StructureData
from esen_flows.schemas.lattice_documents import ForcesOutput
from esen_flows.schemas.protocol_types import Matrix3
from esen_flows.schemas.protocols import DisplacementProtocol
from esen_flows.structures.checks import check_all_free, check_size

Progress = Callable[[int, int], None]
# Called with the forces (n_atoms, 3) in eV/Angstrom of all atoms of the supercells that are done.
OnForces = Callable[[np.ndarray], None]
# Forces of a plan; its argument `report` is called with the number of supercells that were done since the last call.
_Forces = Callable[..., np.ndarray]

# Lattice parameters are known to about this precision: a vector that is shorter by less counts as long enough.
LENGTH_TOLERANCE_ANGSTROM = 1e-3
MOST_SUPERCELL_ATOMS = 100_000  # force constants of more atoms exceed the memory of any machine


def displaced_forces(
    atoms: Atoms,
    force_field: ForceField,
    protocol: DisplacementProtocol,
    progress: Progress | None = None,
    *,
    atoms_per_batch: int | None = None,
    known: np.ndarray | None = None,
    on_forces: OnForces | None = None,
) -> ForcesOutput:
    """Forces of the symmetry-reduced displaced supercells of a crystal, for the second (and third) order.

    Relax tightly first: residual forces are not subtracted. The module describes cells and methods.

    Parameters
    ----------
    atoms
        A relaxed crystal.
    force_field
        Conservative force field.
    protocol
        Order, supercells, length of the displacements, and method.
    progress
        Called after each batch with the number of supercells done and the number of all.
    atoms_per_batch
        Supercells are evaluated together up to this many atoms (twice as many with parity averaging); None: as many as
        the force field asks for. A supercell is never split.
    known
        Forces that an earlier call with equal arguments gave to its `on_forces`; the work continues after them.
    on_forces
        Called after each batch with the forces of all supercells so far, one after the other, (n_atoms, 3) in
        eV/Angstrom. An exception that it raises ends the work. Not called with "autodiff".

    Returns
    -------
    ForcesOutput
        Displacements and forces (n_displacements, n_atoms, 3) in eV/Angstrom of each order.

    Raises
    ------
    StructureError
        The structure is not a crystal (not periodic in three directions), has fixed atoms, is beyond all bounds, or no
        symmetry is found.
    NotConservativeError
        The force field does not declare forces that are the gradient of an energy, and the protocol does not accept
        others.
    NotDifferentiableError
        The method is "autodiff", and the force field does not declare exact second derivatives.
    UnknownElementError, EvaluationError
        The force field refuses a structure or fails.
    """
    start, calls_before = time.perf_counter(), force_field.force_evaluations
    if protocol.forces == "conservative":  # the protocol has accepted others
        require_conservative(force_field, "lattice dynamics")
    check_size(atoms, atoms.get_chemical_formula())
    check_all_free(atoms, atoms.get_chemical_formula(), "lattice dynamics")
    if protocol.force_constants == "autodiff":
        require_differentiable(force_field, "force_constants=autodiff")
    length, symprec = protocol.displacement_angstrom, protocol.symprec_angstrom
    unitcell, primitive_matrix = _unitcell(atoms, protocol)
    matrices = supercell_matrices(unitcell, protocol)
    plans = plan_displacements(
        unitcell, *matrices, length, symprec, protocol.fc3_pair_cutoff_angstrom, primitive_matrix
    )
    chosen = with_forces(force_field, protocol.forces)
    averaged = along(symmetrized(chosen, protocol.parity, protocol.force_symmetry), unitcell)
    spreads: list[np.ndarray] = []
    averages = AveragedPlans(plans, protocol)
    if protocol.force_constants == "autodiff":
        forces: _Forces = partial(linear_forces, force_field=averaged)
    else:
        resumed = _ResumedForces(averages.evaluated, known, on_forces)
        evaluate = partial(
            _evaluate_plan, force_field=averaged, atoms_per_batch=atoms_per_batch, resumed=resumed, spreads=spreads
        )
        forces = partial(averages.forces, evaluate=evaluate)
    fc2, fc3 = _both_orders(averages.evaluated, forces, progress)
    return ForcesOutput(
        unitcell=StructureData.from_atoms(unitcell),
        supercell_matrix_fc3=matrices[1],
        supercell_matrix_fc2=matrices[0],
        primitive_matrix=plans.primitive_matrix,
        displacement_angstrom=length,
        force_constants=protocol.force_constants,
        symprec_angstrom=symprec,
        parity=protocol.parity,
        parity_averaged=needs_inversion(chosen, protocol.parity),
        displacements_fc3=fc3[0] if fc3 else None,
        forces_fc3=fc3[1] if fc3 else None,
        displacements_fc2=fc2[0],
        forces_fc2=fc2[1],
        n_evaluations=force_field.force_evaluations - calls_before,
        seconds=time.perf_counter() - start,
        given_to_primitive=atoms_in_primitive(atoms, plans.primitive),
        orientation_spread=np.sqrt(np.mean(np.square(spreads), axis=0)) if spreads else None,
        fc_average=protocol.fc_average,
        **averages.fields(),
    )


def _unitcell(atoms: Atoms, protocol: DisplacementProtocol) -> tuple[Atoms, str]:
    """The conventional cell in the setting of the protocol, and its primitive matrix for phonopy."""
    if protocol.setting == "as_given":
        return conventional_cell(atoms, protocol.symprec_angstrom), "auto"
    cell = canonical_cell(atoms, protocol.symprec_angstrom)
    # phonopy's own search would choose among equivalent axes by the noise of the cell.
    return cell, centring(cell, protocol.symprec_angstrom)


def supercell_matrices(unitcell: Atoms, protocol: DisplacementProtocol) -> tuple[np.ndarray, np.ndarray | None]:
    """Supercell matrices of the second and third order.

    A matrix that the protocol does not give is the smallest diagonal one with which every lattice vector has at least
    the protocol's length.

    Parameters
    ----------
    unitcell
        Conventional cell.
    protocol
        Protocol with matrices or minimal lengths.

    Returns
    -------
    tuple[np.ndarray, np.ndarray | None]
        Matrices (3, 3) of the second and of the third order; None where there is no third order.

    Raises
    ------
    InputError
        A supercell has more atoms than can be computed.
    """
    fc2 = _matrix(unitcell, protocol.fc2_supercell, protocol.fc2_min_length_angstrom)
    if protocol.order == 2:
        return fc2, None
    return fc2, _matrix(unitcell, protocol.fc3_supercell, protocol.fc3_min_length_angstrom)


def _matrix(unitcell: Atoms, given: Matrix3 | None, min_length: float) -> np.ndarray:
    lengths = unitcell.cell.lengths() + LENGTH_TOLERANCE_ANGSTROM
    diagonal = np.diag(np.ceil(min_length / lengths).astype(np.int64))
    matrix = diagonal if given is None else np.array(given, dtype=np.int64)
    n_atoms = len(unitcell) * abs(round(float(np.linalg.det(matrix))))
    if n_atoms > MOST_SUPERCELL_ATOMS:
        raise InputError(
            f"the supercell {matrix.tolist()} of {unitcell.get_chemical_formula()} has {n_atoms} atoms, more than the "
            f"{MOST_SUPERCELL_ATOMS} that are computed; lower the supercell or its minimal length"
        )
    return matrix


def _both_orders(
    plans: DisplacementPlans, forces: _Forces, progress: Progress | None
) -> tuple[tuple[Dataset, np.ndarray], tuple[Dataset, np.ndarray] | None]:
    """Datasets and forces of the second and the third order."""
    done, total = 0, sum(len(plan.supercells) for plan in plans.in_order)

    def report(count: int) -> None:
        nonlocal done
        done += count
        if progress is not None:
            progress(done, total)

    report(0)
    fc3 = None
    if plans.fc3 is not None:
        fc3 = plans.fc3.dataset, zeros_beyond_cutoff(plans.fc3.dataset, forces(plans.fc3, report=report))
    if plans.fc2 is not None:
        return (plans.fc2.dataset, forces(plans.fc2, report=report)), fc3
    assert fc3 is not None  # a plan has at least one order
    return first_order(*fc3), fc3


class _ResumedForces:
    """The forces of all supercells that are done, in the order in which they are evaluated."""

    def __init__(self, plans: DisplacementPlans, known: np.ndarray | None, on_forces: OnForces | None) -> None:
        sizes = [len(cell) for plan in plans.in_order for cell in plan.supercells]
        self._forces = np.empty((sum(sizes), 3))
        self._known = 0 if known is None else len(known)  # number of atoms whose forces are known
        if known is not None:
            self._forces[: len(known)] = known
        self._end = 0  # number of atoms whose forces were taken or added
        self._on_forces = on_forces

    def take(self, plan: DisplacementPlan) -> list[np.ndarray]:
        """Known forces of the first supercells of the next plan."""
        size = len(plan.supercells[0])
        count = min(len(plan.supercells), (self._known - self._end) // size)
        begin, self._end = self._end, self._end + count * size
        return list(self._forces[begin : self._end].reshape(count, size, 3))

    def add(self, forces: list[np.ndarray]) -> None:
        """Append the forces of the next supercells, and hand all forces over."""
        begin, self._end = self._end, self._end + sum(len(each) for each in forces)
        self._forces[begin : self._end] = np.concatenate(forces)
        self._known = self._end
        if self._on_forces is not None:
            self._on_forces(self._forces[: self._end])


def _evaluate_plan(
    plan: DisplacementPlan,
    force_field: ForceField,
    atoms_per_batch: int | None,
    resumed: _ResumedForces,
    spreads: list[np.ndarray],
    report: Callable[[int], None],
) -> np.ndarray:
    """Forces (n_supercells, n_atoms, 3) in eV/Angstrom, batch by batch."""
    forces = resumed.take(plan)
    if forces:
        report(len(forces))
    if len(forces) == len(plan.supercells):
        return np.array(forces)
    first_cell = plan.supercells[0]
    size = max(1, (atoms_per_batch or force_field.atoms_at_once(first_cell)) // len(first_cell))
    for first in range(len(forces), len(plan.supercells), size):
        results = force_field.evaluate_forces(plan.supercells[first : first + size])
        spreads += [result.spread for result in results if result.spread is not None]
        found = [result.forces for result in results]
        forces += found
        resumed.add(found)
        report(len(found))
    return np.array(forces)
