"""Where a relaxation begins and what it ends with, whoever takes the steps between."""

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
from esen_flows.schemas.documents import RelaxOutput, StructureData
from esen_flows.schemas.protocols import RelaxProtocol

# Angles (rad) by which the axes of a crystal may miss those of a mask of strains.
FIX_TOLERANCE, LOCK_TOLERANCE = 1e-3, 1e-6


@dataclass(frozen=True)
class RelaxationStart:
    """A checked structure.

    Attributes
    ----------
    atoms
        what moves; exactly on its symmetry where that is kept.
    reference_cell
        (3, 3) Angstrom, which deformations are counted from.
    lock
        the space group to stay in, or None.
    fixed
        the same as ASE's constraint, or None.
    """

    atoms: Atoms
    reference_cell: np.ndarray
    lock: SymmetryLock | None = None
    fixed: FixSymmetry | None = None


@dataclass
class RelaxationTrajectory:
    """What a relaxation went through.

    Attributes
    ----------
    atoms
        the last structure; evaluation : of it.
    reference_cell
        (3, 3) Angstrom, which its deformation was counted from.
    fmax
        its largest generalised force, eV/Angstrom.
    energies
        eV, one more than steps; positions, cells : of every step, where they are asked for.
    """

    atoms: Atoms
    reference_cell: np.ndarray
    evaluation: Evaluation
    fmax: float
    converged: bool
    energies: list[float] = field(default_factory=list)
    positions: list[np.ndarray] = field(default_factory=list)
    cells: list[np.ndarray] = field(default_factory=list)

    @property
    def n_steps(self) -> int:
        """Steps taken."""
        return len(self.energies) - 1

    def after(self, before: "RelaxationTrajectory") -> "RelaxationTrajectory":
        """This path as the continuation of another one, whose last structure is its first."""
        return replace(
            self,
            energies=before.energies + self.energies[1:],
            positions=before.positions + self.positions[1:],
            cells=before.cells + self.cells[1:],
        )


def start_of(atoms: Atoms, protocol: RelaxProtocol) -> RelaxationStart:
    """Check a structure and put it on the symmetry that it is to keep; it is not changed.

    Raises
    ------
    StructureError
        no atoms, NaN, a cell to be relaxed with one or two periodic directions, symmetry not found, or
        not one that the protocol's mask of strains leaves as it is.
    """
    _check(atoms, protocol)
    work = Atoms(atoms.numbers, positions=atoms.positions, cell=atoms.cell, pbc=atoms.pbc)
    work.info.update({name: atoms.info[name] for name in ("charge", "spin") if name in atoms.info})
    if protocol.symmetry == "free" or not work.pbc.all():  # slabs and molecules have no space group to keep
        return RelaxationStart(work, work.cell.array)
    fix, freedom = protocol.symmetry == "fix", freedom_of(protocol)
    lock = SymmetryLock(work, protocol.symprec_angstrom)
    if freedom is not None:
        # FixSymmetry undoes at every step what such a mask leaves, but bears with axes as files round them.
        lock.check_freedom(freedom, FIX_TOLERANCE if fix else LOCK_TOLERANCE)
    if fix:
        # FixSymmetry keeps deviations that are there already; what follows looks for symmetry more strictly.
        refine_symmetry(work, symprec=protocol.symprec_angstrom)
        return RelaxationStart(work, work.cell.array, fixed=FixSymmetry(work, symprec=protocol.symprec_angstrom))
    refined = lock.refined()
    return RelaxationStart(refined, refined.cell.array, lock=lock)


def _check(atoms: Atoms, protocol: RelaxProtocol) -> None:
    if len(atoms) == 0:
        raise StructureError("the structure has no atoms; give at least one")
    if not (np.isfinite(atoms.positions).all() and np.isfinite(atoms.cell.array).all()):
        raise StructureError(f"{atoms.get_chemical_formula()} has NaN or infinite positions or cell vectors")
    if protocol.relax_cell and atoms.pbc.any() and not atoms.pbc.all():
        raise StructureError(
            f"{atoms.get_chemical_formula()} is periodic in {int(atoms.pbc.sum())} of 3 directions: its cell cannot be "
            "relaxed in all of them; set relax_cell=false"
        )
    if protocol.relax_cell and atoms.pbc.all() and abs(atoms.cell.volume) < 1e-6:
        raise StructureError(f"{atoms.get_chemical_formula()} has a cell without volume; give its lattice vectors")


def freedom_of(protocol: RelaxProtocol) -> CellFreedom | None:
    """How the cell of a crystal may deform; None: not at all."""
    if not protocol.relax_cell:
        return None
    return CellFreedom(protocol.cell_mask, protocol.hydrostatic, protocol.constant_volume)


def output_of(
    atoms: Atoms, path: RelaxationTrajectory, protocol: RelaxProtocol, redirected: bool | None = None
) -> RelaxOutput:
    """The document of a relaxation that began with `atoms`.

    Raises
    ------
    NotConvergedError
        the largest force is still too large, and the protocol does not keep what is not converged.
    SymmetryBrokenError
        the symmetry that had to be kept is lower at the end.
    """
    if not path.converged and not protocol.keep_unconverged:
        raise NotConvergedError(
            f"the relaxation of {atoms.get_chemical_formula()} stopped after {path.n_steps} steps with a largest "
            f"force of {path.fmax:.2e} eV/Angstrom, wanted {protocol.fmax_ev_per_angstrom:.2e}; raise max_steps, raise "
            "fmax_ev_per_angstrom, or start from a better structure"
        )
    evaluation, last = path.evaluation, path.atoms
    _check_symmetry(atoms, last, protocol)
    volume = float(last.get_volume()) if last.cell.rank == 3 else np.nan
    return RelaxOutput(
        structure=StructureData.from_atoms(last),
        energy_ev=evaluation.energy,
        energy_per_atom_ev=evaluation.energy / len(last),
        forces_ev_per_angstrom=evaluation.forces,
        stress_ev_per_angstrom3=evaluation.stress,
        n_steps=path.n_steps,
        converged=path.converged,
        fmax_ev_per_angstrom=path.fmax,
        volume_per_atom_angstrom3=volume / len(last),
        space_group_initial=space_group_number(atoms, protocol.symprec_angstrom),
        space_group_final=space_group_number(last, protocol.symprec_angstrom),
        energies_ev=np.array(path.energies),
        positions_path_angstrom=np.array(path.positions) if protocol.trajectory else None,
        cells_path_angstrom=np.array(path.cells) if protocol.trajectory else None,
        redirected=redirected,
    )


def _check_symmetry(first: Atoms, last: Atoms, protocol: RelaxProtocol) -> None:
    """A constraint that rounding errors have worn out must not pass for a result."""
    if protocol.symmetry == "free":
        return
    before, after = (operation_count(atoms, protocol.symprec_angstrom) for atoms in (first, last))
    if after < before:
        raise SymmetryBrokenError(
            f"{first.get_chemical_formula()} had {before} symmetry operations within {protocol.symprec_angstrom} "
            f"Angstrom and has {after} after a relaxation with symmetry={protocol.symmetry}; relax with symmetry=lock, "
            "which cannot leave them, or from a structure that is exactly symmetric"
        )
