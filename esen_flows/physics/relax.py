"""Relaxation of positions and cell: FIRE on the Frechet cell filter, with or without the symmetry kept."""

from collections.abc import Callable

import numpy as np
from ase import Atoms
from ase.constraints import FixSymmetry
from ase.filters import FrechetCellFilter
from ase.optimize import FIRE
from ase.spacegroup.symmetrize import refine_symmetry

from esen_flows.errors import NotConvergedError, StructureError
from esen_flows.forcefield.ase_calculator import ForceFieldCalculator
from esen_flows.forcefield.contract import ForceField
from esen_flows.forcefield.symmetrized import with_parity
from esen_flows.physics.symmetry import space_group_number
from esen_flows.schemas.documents import RelaxOutput, StructureData
from esen_flows.schemas.protocols import RelaxProtocol

Progress = Callable[[int, float], None]


def relax(
    atoms: Atoms, force_field: ForceField, protocol: RelaxProtocol, progress: Progress | None = None
) -> RelaxOutput:
    """The nearest minimum of the energy, in positions and (for a crystal) in the cell.

    A molecule (no periodic direction) has no cell to relax: its positions are relaxed. With `symmetry="fix"` the
    crystal is first put exactly on the symmetry found within `symprec_angstrom`, and stays there.

    Parameters
    ----------
    atoms : the starting structure; it is not changed, and its constraints and calculator are ignored.
    progress : called with the number of steps done and the largest generalised force (eV/Angstrom).

    Returns
    -------
    The relaxed structure; `fmax_ev_per_angstrom` is the largest force on an atom or on the cell (as FIRE sees it),
    `forces_ev_per_angstrom` and `stress_ev_per_angstrom3` (NaN without a cell) are those of the force field itself.

    Raises
    ------
    StructureError : no atoms, NaN, a cell to be relaxed with one or two periodic directions, symmetry not found.
    NotConvergedError : the largest force is still above `fmax_ev_per_angstrom` after `max_steps`.
    UnknownElementError, EvaluationError : from the force field.
    """
    _check(atoms, protocol)
    work = Atoms(atoms.numbers, positions=atoms.positions, cell=atoms.cell, pbc=atoms.pbc)
    work.info.update({name: atoms.info[name] for name in ("charge", "spin") if name in atoms.info})
    initial_group = space_group_number(work, protocol.symprec_angstrom)
    if protocol.symmetry == "fix" and initial_group is not None:
        # FixSymmetry keeps deviations that are there already; what follows looks for symmetry more strictly.
        refine_symmetry(work, symprec=protocol.symprec_angstrom)
        work.set_constraint(FixSymmetry(work, symprec=protocol.symprec_angstrom))
    work.calc = ForceFieldCalculator(with_parity(force_field, protocol.parity))
    energies, n_steps, fmax = _descend(work, protocol, progress)
    return _output(work, protocol, initial_group, energies, n_steps, fmax)


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


def _descend(work: Atoms, protocol: RelaxProtocol, progress: Progress | None) -> tuple[list[float], int, float]:
    """Run FIRE in place; energies along the path, number of steps, largest generalised force."""
    with_cell = protocol.relax_cell and work.pbc.all()
    target = FrechetCellFilter(work, mask=list(protocol.cell_mask)) if with_cell else work
    optimizer = FIRE(target, logfile=None)
    energies: list[float] = []

    def record() -> None:
        energies.append(float(work.get_potential_energy()))
        if progress is not None:
            progress(optimizer.nsteps, _largest(target.get_forces()))

    optimizer.attach(record, interval=1)
    converged = optimizer.run(fmax=protocol.fmax_ev_per_angstrom, steps=protocol.max_steps)
    fmax = _largest(target.get_forces())
    if not converged:
        raise NotConvergedError(
            f"the relaxation of {work.get_chemical_formula()} stopped after {protocol.max_steps} steps with a largest "
            f"force of {fmax:.2e} eV/Angstrom, wanted {protocol.fmax_ev_per_angstrom:.2e}; raise max_steps, raise "
            "fmax_ev_per_angstrom, or start from a better structure"
        )
    return energies, optimizer.nsteps, fmax


def _largest(forces: np.ndarray) -> float:
    return float(np.linalg.norm(forces, axis=1).max())


def _output(
    work: Atoms, protocol: RelaxProtocol, initial_group: int | None, energies: list[float], n_steps: int, fmax: float
) -> RelaxOutput:
    stress, volume = np.full((3, 3), np.nan), np.nan  # what has no cell has neither
    if work.cell.rank == 3:
        stress, volume = work.get_stress(voigt=False, apply_constraint=False), float(work.get_volume())
    energy = float(work.get_potential_energy())
    return RelaxOutput(
        structure=StructureData.from_atoms(work),
        energy_ev=energy,
        energy_per_atom_ev=energy / len(work),
        forces_ev_per_angstrom=work.get_forces(apply_constraint=False),
        stress_ev_per_angstrom3=stress,
        n_steps=n_steps,
        converged=True,
        fmax_ev_per_angstrom=fmax,
        volume_per_atom_angstrom3=volume / len(work),
        space_group_initial=initial_group,
        space_group_final=space_group_number(work, protocol.symprec_angstrom),
        energies_ev=np.array(energies),
    )
