"""One structure on ASE's own optimiser and filter, with ASE's FixSymmetry: what published protocols did."""

from collections.abc import Callable

import numpy as np
from ase.filters import FrechetCellFilter
from ase.optimize import FIRE, LBFGS

from esen_flows.forcefield.ase_calculator import ForceFieldCalculator
from esen_flows.forcefield.contract import Evaluation, ForceField
from esen_flows.physics.relax_start import RelaxationStart, RelaxationTrajectory
from esen_flows.schemas.protocols import RelaxProtocol


def descend_by_ase(
    start: RelaxationStart, force_field: ForceField, protocol: RelaxProtocol, watch: Callable[[int, float], None]
) -> RelaxationTrajectory:
    """The path to the minimum, or to `max_steps`.

    Parameters
    ----------
    watch
        called with the number of steps done and the largest generalised force (eV/Angstrom).

    Raises
    ------
    StructureError, UnknownElementError, EvaluationError, InsufficientMemoryError
        from the force field.
    """
    work = start.atoms.copy()
    work.info.update(start.atoms.info)
    if start.fixed is not None:
        work.set_constraint(start.fixed)
    work.calc = ForceFieldCalculator(force_field)
    target = work
    if protocol.relax_cell and work.pbc.all():
        target = FrechetCellFilter(
            work,
            mask=list(protocol.cell_mask),
            hydrostatic_strain=protocol.hydrostatic,
            constant_volume=protocol.constant_volume,
        )
    optimizer = (FIRE if protocol.optimizer == "fire" else LBFGS)(target, logfile=None)
    nothing_yet = Evaluation(np.nan, np.full((len(work), 3), np.nan), np.full((3, 3), np.nan))
    path = RelaxationTrajectory(work, start.reference_cell, nothing_yet, np.inf, converged=False)

    def record() -> None:
        path.energies.append(float(work.get_potential_energy()))
        path.fmax = float(np.linalg.norm(target.get_forces(), axis=1).max())
        if protocol.trajectory:
            path.positions.append(work.positions.copy())
            path.cells.append(work.cell.array.copy())
        watch(optimizer.nsteps, path.fmax)

    optimizer.attach(record, interval=1)
    path.converged = bool(optimizer.run(fmax=protocol.fmax_ev_per_angstrom, steps=protocol.max_steps))
    stress = work.get_stress(voigt=False, apply_constraint=False) if work.cell.rank == 3 else np.full((3, 3), np.nan)
    path.evaluation = Evaluation(path.energies[-1], work.get_forces(apply_constraint=False), stress)
    work.calc = None
    work.set_constraint()
    return path
