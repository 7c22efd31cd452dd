"""Forces of displaced supercells: all that phonons and conductivity ask of a force field, in batches."""

import time
from collections.abc import Callable

import numpy as np
from ase import Atoms

from esen_flows.forcefield.contract import ForceField, require_conservative, require_differentiable
from esen_flows.forcefield.symmetrized import with_parity
from esen_flows.physics.lattice.adapter import plan_displacements
from esen_flows.physics.lattice.datasets import Dataset, DisplacementPlan, Plans, first_order, zeros_beyond_cutoff
from esen_flows.physics.lattice.linear_response import linear_forces
from esen_flows.physics.symmetry import conventional_cell
from esen_flows.schemas.documents import StructureData
from esen_flows.schemas.lattice_documents import ForcesOutput
from esen_flows.schemas.protocols import DisplacementProtocol, Matrix3

Progress = Callable[[int, int], None]
OnForces = Callable[[np.ndarray], None]  # (n_atoms, 3) in eV/Angstrom, of all atoms of the supercells that are done
Forces = Callable[[DisplacementPlan, Callable[[int], None]], np.ndarray]  # and how to tell what is done

# About 0.1-0.5 GB of activations for a small model; a batch never splits a supercell.
ATOMS_PER_BATCH = 2048
# A lattice parameter is known to about this: a vector that is short by less counts as long enough.
LENGTH_TOLERANCE_ANGSTROM = 1e-3


def displaced_forces(
    atoms: Atoms,
    force_field: ForceField,
    protocol: DisplacementProtocol,
    progress: Progress | None = None,
    *,
    atoms_per_batch: int = ATOMS_PER_BATCH,
    known: np.ndarray | None = None,
    on_forces: OnForces | None = None,
) -> ForcesOutput:
    """Forces of the symmetry-reduced displaced supercells of a crystal, for second (and third) order.

    Supercell matrices count the standard conventional cell (`physics.symmetry.conventional_cell`), whichever cell is
    given, so that the same crystal written differently gives the same forces. Where both orders have the same
    supercell, the single displacements of the third order serve the second order too.

    Forces are kept as they are: residual forces of the undisplaced crystal are not subtracted (phonopy's and
    phono3py's convention, and that of the published reference data). Relax tightly first.

    With the protocol's `force_constants` "autodiff" they are instead those of `linear_response`: the same document in
    the limit of small displacements, from exact Hessians. Its displacement then matters for the third order alone, as
    the step between two Hessians.

    Parameters
    ----------
    atoms
        a relaxed crystal.
    progress
        called with the number of supercells done and their total, after each batch.
    atoms_per_batch
        supercells are evaluated together up to this many atoms (twice as many with parity averaging).
    known
        what an earlier call with equal arguments has handed to its `on_forces`, to go on from there.
    on_forces
        called after each batch with the forces of all supercells so far, one after the other, (n_atoms, 3) in
        eV/Angstrom; what it raises ends the work. Not with "autodiff".

    Raises
    ------
    StructureError
        not a crystal (not periodic in three directions), or no symmetry found.
    NotConservativeError
        the force field does not declare forces that are the gradient of an energy.
    NotDifferentiableError
        "autodiff", and the force field does not declare exact second derivatives.
    UnknownElementError, EvaluationError
        from the force field.
    """
    start = time.perf_counter()
    require_conservative(force_field, "lattice dynamics")
    exact = protocol.force_constants == "autodiff"
    if exact:
        require_differentiable(force_field, "force_constants=autodiff")
    unitcell = conventional_cell(atoms, protocol.symprec_angstrom)
    fc2_matrix, fc3_matrix = supercell_matrices(unitcell, protocol)
    plans = plan_displacements(
        unitcell,
        fc2_matrix,
        fc3_matrix,
        protocol.displacement_angstrom,
        protocol.symprec_angstrom,
        protocol.fc3_pair_cutoff_angstrom,
    )
    averaged = with_parity(force_field, protocol.parity)
    before = force_field.force_evaluations
    so_far = _SoFar(plans, known, on_forces)

    def forces(plan: DisplacementPlan, report: Callable[[int], None]) -> np.ndarray:
        if exact:
            return linear_forces(plan, averaged, report)
        return _forces(plan, averaged, atoms_per_batch, so_far, report)

    fc2, fc3 = _evaluate(plans, forces, progress)
    return ForcesOutput(
        unitcell=StructureData.from_atoms(unitcell),
        supercell_matrix_fc3=fc3_matrix,
        supercell_matrix_fc2=fc2_matrix,
        primitive_matrix=plans.primitive_matrix,
        displacement_angstrom=protocol.displacement_angstrom,
        force_constants=protocol.force_constants,
        symprec_angstrom=protocol.symprec_angstrom,
        parity=protocol.parity,
        parity_averaged=averaged is not force_field,
        displacements_fc3=fc3[0] if fc3 else None,
        forces_fc3=fc3[1] if fc3 else None,
        displacements_fc2=fc2[0],
        forces_fc2=fc2[1],
        n_evaluations=force_field.force_evaluations - before,
        seconds=time.perf_counter() - start,
    )


def supercell_matrices(unitcell: Atoms, protocol: DisplacementProtocol) -> tuple[np.ndarray, np.ndarray | None]:
    """Second- and third-order supercell matrices (3, 3) of a conventional cell; None where there is no third order.

    A matrix that is not given is the smallest diagonal one whose every lattice vector has the protocol's length.
    """
    fc2 = _matrix(unitcell, protocol.fc2_supercell, protocol.fc2_min_length_angstrom)
    if protocol.order == 2:
        return fc2, None
    return fc2, _matrix(unitcell, protocol.fc3_supercell, protocol.fc3_min_length_angstrom)


def _matrix(unitcell: Atoms, given: Matrix3 | None, min_length: float) -> np.ndarray:
    if given is None:
        lengths = unitcell.cell.lengths() + LENGTH_TOLERANCE_ANGSTROM
        return np.diag(np.ceil(min_length / lengths).astype(np.int64))
    return np.array(given, dtype=np.int64)


def _evaluate(
    plans: Plans, forces: Forces, progress: Progress | None
) -> tuple[tuple[Dataset, np.ndarray], tuple[Dataset, np.ndarray] | None]:
    """Datasets and forces of the second and the third order."""
    done, total = 0, sum(len(plan.supercells) for plan in (plans.fc3, plans.fc2) if plan is not None)

    def report(count: int) -> None:
        nonlocal done
        done += count
        if progress is not None:
            progress(done, total)

    fc3 = None
    if plans.fc3 is not None:
        fc3 = plans.fc3.dataset, zeros_beyond_cutoff(plans.fc3.dataset, forces(plans.fc3, report))
    if plans.fc2 is not None:
        return (plans.fc2.dataset, forces(plans.fc2, report)), fc3
    assert fc3 is not None  # a plan has at least one order
    return first_order(*fc3), fc3


class _SoFar:
    """The forces of all supercells that are done, in the order in which they are evaluated."""

    def __init__(self, plans: Plans, known: np.ndarray | None, on_forces: OnForces | None) -> None:
        sizes = [len(cell) for plan in (plans.fc3, plans.fc2) if plan is not None for cell in plan.supercells]
        self._forces = np.empty((sum(sizes), 3))
        self._known = 0 if known is None else len(known)
        if known is not None:
            self._forces[: len(known)] = known
        self._end = 0  # of what the plans have taken up
        self._on_forces = on_forces

    def take(self, plan: DisplacementPlan) -> list[np.ndarray]:
        """Forces of those supercells of the next plan that are known from before."""
        size = len(plan.supercells[0])
        count = min(len(plan.supercells), (self._known - self._end) // size)
        begin, self._end = self._end, self._end + count * size
        return list(self._forces[begin : self._end].reshape(count, size, 3))

    def add(self, forces: list[np.ndarray]) -> None:
        """Forces of the next supercells."""
        begin, self._end = self._end, self._end + sum(len(each) for each in forces)
        self._forces[begin : self._end] = np.concatenate(forces)
        self._known = self._end
        if self._on_forces is not None:
            self._on_forces(self._forces[: self._end])


def _forces(
    plan: DisplacementPlan,
    force_field: ForceField,
    atoms_per_batch: int,
    so_far: _SoFar,
    report: Callable[[int], None],
) -> np.ndarray:
    """Forces (n_supercells, n_atoms, 3) in eV/Angstrom, batch by batch."""
    size = max(1, atoms_per_batch // len(plan.supercells[0]))
    forces = so_far.take(plan)
    if forces:
        report(len(forces))
    for first in range(len(forces), len(plan.supercells), size):
        found = [result.forces for result in force_field.evaluate(plan.supercells[first : first + size])]
        forces += found
        so_far.add(found)
        report(len(found))
    return np.array(forces)
