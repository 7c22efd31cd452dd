"""The start of a relaxation and its document, for every optimiser that makes the steps between them."""

from dataclasses import dataclass, field, replace

import numpy as np
from ase import Atoms
from ase.constraints import FixSymmetry
from ase.spacegroup.symmetrize import refine_symmetry

from esen_flows.errors import NotConvergedError, StructureError, SymmetryBrokenError
from esen_flows.forcefield.contract import Evaluation
from esen_flows.physics.frechet import CellFreedom
from esen_flows.physics.symmetry import operation_count, space_group_number
from esen_flows.physics.symmetry_lock import SymmetryLock
from esen_flows.schemas.atom_properties import AtomProperties, properties_of
from esen_flows.schemas.documents import RelaxOutput, StructureData
from esen_flows.schemas.protocol_types import Deformation
from esen_flows.schemas.protocols import RelaxProtocol
from esen_flows.structures.checks import check_relaxation, check_size

# Angles (rad) between the axes of a crystal and those of a mask of strains that still count as parallel.
FIX_TOLERANCE, LOCK_TOLERANCE = 1e-3, 1e-6


@dataclass(frozen=True)
class RelaxationStart:
    """A checked structure to be relaxed.

    Attributes
    ----------
    atoms
        The structure, exactly on its symmetry where that is kept.
    reference_cell
        (3, 3) undeformed cell in Angstrom.
    lock
        The space group that is kept by projection, or None.
    fixed
        ASE's constraint that keeps the space group, or None.
    free_directions
        (atoms, 3, 3) projectors on the directions in which each atom may move, or None without fixed coordinates.
    """

    atoms: Atoms
    reference_cell: np.ndarray
    lock: SymmetryLock | None = None
    fixed: FixSymmetry | None = None
    free_directions: np.ndarray | None = None


@dataclass
class RelaxationTrajectory:
    """The steps of a relaxation so far.

    Attributes
    ----------
    atoms
        The present structure.
    reference_cell
        (3, 3) undeformed cell in Angstrom.
    evaluation
        Energy, forces and stress of the present structure; None before the relaxation ends.
    fmax
        Largest generalised force of the present structure, in eV/Angstrom.
    converged
        Whether that is small enough.
    energies
        Energy of the start and after each step, in eV.
    positions
        Positions (atoms, 3) in Angstrom with each energy, where the protocol wants a trajectory.
    cells
        Cells (3, 3) in Angstrom with each energy, where the protocol wants a trajectory.
    """

    atoms: Atoms
    reference_cell: np.ndarray
    evaluation: Evaluation | None = None
    fmax: float = np.inf
    converged: bool = False
    energies: list[float] = field(default_factory=list)
    positions: list[np.ndarray] = field(default_factory=list)
    cells: list[np.ndarray] = field(default_factory=list)

    @property
    def n_steps(self) -> int:
        """Number of steps."""
        return len(self.energies) - 1

    def record(self, energy: float, fmax: float, protocol: RelaxProtocol) -> None:
        """Append the present structure.

        Parameters
        ----------
        energy
            Its energy in eV.
        fmax
            Its largest generalised force in eV/Angstrom.
        protocol
            Protocol that says whether positions and cells are wanted.
        """
        self.energies.append(energy)
        self.fmax = fmax
        if protocol.trajectory:
            self.positions.append(self.atoms.positions.copy())
            self.cells.append(self.atoms.cell.array.copy())

    def after(self, earlier: "RelaxationTrajectory") -> "RelaxationTrajectory":
        """The trajectory of two stages as one.

        Parameters
        ----------
        earlier
            Trajectory whose last structure is the first one here.

        Returns
        -------
        RelaxationTrajectory
            The earlier trajectory continued by this one.
        """
        return replace(
            self,
            energies=earlier.energies + self.energies[1:],
            positions=earlier.positions + self.positions[1:],
            cells=earlier.cells + self.cells[1:],
        )


def start_of(atoms: Atoms, protocol: RelaxProtocol) -> RelaxationStart:
    """Check a structure and put a copy of it on the symmetry that is to be kept.

    Parameters
    ----------
    atoms
        Structure to be relaxed; it is not changed.
    protocol
        Protocol of the relaxation.

    Returns
    -------
    RelaxationStart
        The start, without constraints and calculator of `atoms`.

    Raises
    ------
    StructureError
        The structure has no atoms, has NaN or is beyond all bounds, a cell to be relaxed has one or two periodic
        directions, no volume or fixed atoms, its symmetry is not found, or the protocol's mask of strains does not
        respect that symmetry.
    """
    _check(atoms, protocol)
    work = Atoms(atoms.numbers, positions=atoms.positions, cell=atoms.cell, pbc=atoms.pbc)
    work.info.update({name: atoms.info[name] for name in ("charge", "spin") if name in atoms.info})
    properties = properties_of(atoms)
    properties.attach(work)
    if protocol.symmetry == "free" or not work.pbc.all():  # slabs and molecules have no space group to keep
        return RelaxationStart(work, work.cell.array, free_directions=free_directions(properties, work.cell.array))
    fix, freedom = protocol.symmetry == "fix", freedom_of(protocol)
    lock = SymmetryLock(work, protocol.symprec_angstrom)
    if freedom is not None:
        # FixSymmetry would undo at every step what such a mask leaves free, but it tolerates axes rounded as in files.
        lock.check_freedom(freedom, FIX_TOLERANCE if fix else LOCK_TOLERANCE)
    if fix:
        # FixSymmetry keeps deviations that the start already has, and later steps look for symmetry more strictly.
        refine_symmetry(work, symprec=protocol.symprec_angstrom)
        return RelaxationStart(work, work.cell.array, fixed=FixSymmetry(work, symprec=protocol.symprec_angstrom))
    refined = lock.refined()
    return RelaxationStart(refined, refined.cell.array, lock=lock)


def deformed(atoms: Atoms, deformation: Deformation | np.ndarray | None) -> Atoms:
    """A structure after a homogeneous deformation.

    Parameters
    ----------
    atoms
        The structure; it is not changed.
    deformation
        (3, 3) deformation gradient; None for none.

    Returns
    -------
    Atoms
        The same object without a deformation, otherwise a copy with its constraints, masses, charge and spin.
    """
    if deformation is None:
        return atoms
    changed = atoms.copy()
    changed.info.update(atoms.info)
    gradient = np.array(deformation)
    changed.set_cell(atoms.cell.array @ gradient.T, scale_atoms=False)
    changed.set_positions(atoms.positions @ gradient.T, apply_constraint=False)
    return changed


def _check(atoms: Atoms, protocol: RelaxProtocol) -> None:
    if len(atoms) == 0:
        raise StructureError("the structure has no atoms; give at least one")
    check_size(atoms, atoms.get_chemical_formula())
    check_relaxation(atoms, atoms.get_chemical_formula(), protocol)
    if protocol.relax_cell and atoms.pbc.all() and abs(atoms.cell.volume) < 1e-6:
        raise StructureError(f"{atoms.get_chemical_formula()} has a cell without volume; give its lattice vectors")


def free_directions(properties: AtomProperties, cell: np.ndarray) -> np.ndarray | None:
    """Projectors on the directions in which atoms with fixed coordinates may move.

    An atom with a fixed fractional coordinate moves in the plane of the other two lattice vectors, and so on.

    Parameters
    ----------
    properties
        Fixed coordinates of the atoms.
    cell
        (3, 3) lattice vectors in Angstrom, as rows.

    Returns
    -------
    np.ndarray | None
        (atoms, 3, 3) symmetric projectors; None where no coordinate is fixed.
    """
    if not properties.is_constrained:
        return None
    one, fixed = np.eye(3), (properties.fixed_cartesian, properties.fixed_fractional)
    count = next(len(mask) for mask in fixed if mask is not None)
    cartesian, fractional = (np.zeros((count, 3), dtype=bool) if mask is None else mask for mask in fixed)
    # A fractional coordinate changes along its reciprocal vector alone: the columns of the inverse of the cell.
    normals = np.linalg.inv(cell) if fractional.any() else one
    projectors = np.empty((count, 3, 3))
    for atom in range(count):
        forbidden = np.hstack([one[:, cartesian[atom]], normals[:, fractional[atom]]])
        basis = np.linalg.svd(forbidden)[0][:, : np.linalg.matrix_rank(forbidden)] if forbidden.size else forbidden
        projectors[atom] = one - basis @ basis.T
    return projectors


def freedom_of(protocol: RelaxProtocol) -> CellFreedom | None:
    """How the cell of a crystal may deform.

    Parameters
    ----------
    protocol
        Protocol of the relaxation.

    Returns
    -------
    CellFreedom | None
        None where the cell stays as it is.
    """
    if not protocol.relax_cell:
        return None
    return CellFreedom(protocol.cell_mask, protocol.hydrostatic, protocol.constant_volume)


def output_of(
    atoms: Atoms, trajectory: RelaxationTrajectory, protocol: RelaxProtocol, redirected: bool | None = None
) -> RelaxOutput:
    """The document of a relaxation.

    Parameters
    ----------
    atoms
        Structure from which it started.
    trajectory
        Its steps.
    protocol
        Its protocol.
    redirected
        Whether a free second stage was discarded; None: there was none.

    Returns
    -------
    RelaxOutput
        The document.

    Raises
    ------
    NotConvergedError
        The largest force is still too large, and the protocol does not keep such structures.
    SymmetryBrokenError
        The symmetry that had to be kept is lower at the end.
    """
    if not trajectory.converged and not protocol.keep_unconverged:
        raise NotConvergedError(
            f"the relaxation of {atoms.get_chemical_formula()} stopped after {trajectory.n_steps} steps with a largest "
            f"force of {trajectory.fmax:.2e} eV/Angstrom, wanted {protocol.fmax_ev_per_angstrom:.2e}; raise max_steps, "
            "raise fmax_ev_per_angstrom, or start from a better structure"
        )
    evaluation, last = trajectory.evaluation, trajectory.atoms
    assert evaluation is not None  # every relaxation ends with one
    _check_symmetry(atoms, last, protocol)
    volume = float(last.get_volume()) if last.cell.rank == 3 else np.nan
    return RelaxOutput(
        structure=StructureData.from_atoms(last),
        energy_ev=evaluation.energy,
        energy_per_atom_ev=evaluation.energy / len(last),
        forces_ev_per_angstrom=evaluation.forces,
        stress_ev_per_angstrom3=evaluation.stress,
        n_steps=trajectory.n_steps,
        converged=trajectory.converged,
        fmax_ev_per_angstrom=trajectory.fmax,
        volume_per_atom_angstrom3=volume / len(last),
        space_group_initial=space_group_number(atoms, protocol.symprec_angstrom),
        space_group_final=space_group_number(last, protocol.symprec_angstrom),
        energies_ev=np.array(trajectory.energies),
        positions_path_angstrom=np.array(trajectory.positions) if protocol.trajectory else None,
        cells_path_angstrom=np.array(trajectory.cells) if protocol.trajectory else None,
        redirected=redirected,
        orientation_spread=evaluation.spread,
    )


def _check_symmetry(first: Atoms, last: Atoms, protocol: RelaxProtocol) -> None:
    """Refuse a result whose symmetry rounding errors have lowered in spite of the constraint."""
    if protocol.symmetry == "free":
        return
    before, after = (operation_count(atoms, protocol.symprec_angstrom) for atoms in (first, last))
    if after < before:
        raise SymmetryBrokenError(
            f"{first.get_chemical_formula()} had {before} symmetry operations within {protocol.symprec_angstrom} "
            f"Angstrom and has {after} after a relaxation with symmetry={protocol.symmetry}; relax with symmetry=lock, "
            "which cannot lower the symmetry, or start from an exactly symmetric structure"
        )
