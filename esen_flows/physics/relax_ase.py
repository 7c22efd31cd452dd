"""Relaxation of one structure by ASE's own optimiser, filter and FixSymmetry, as published protocols did."""

from collections.abc import Callable

import numpy as np
from ase.filters import FrechetCellFilter
from ase.optimize import FIRE, LBFGS

from esen_flows.data.labelled import can_have_stress
from esen_flows.forcefield.ase_calculator import ForceFieldCalculator
from esen_flows.forcefield.contract import Evaluation, ForceField
from esen_flows.physics.relax_start import RelaxationStart, RelaxationTrajectory
from esen_flows.schemas.protocols import RelaxProtocol


def relax_by_ase(
    start: RelaxationStart, force_field: ForceField, protocol: RelaxProtocol, watch: Callable[[int, float], None]
) -> RelaxationTrajectory:
    """The trajectory to the minimum, or to `max_steps`.

    Parameters
    ----------
    start
        Structure and constraint.
    force_field
        Force field.
    protocol
        Protocol of the relaxation.
    watch
        Called with the number of steps and the largest generalised force (eV/Angstrom).

    Returns
    -------
    RelaxationTrajectory
        The trajectory.

    Raises
    ------
    StructureError, UnknownElementError, EvaluationError, InsufficientMemoryError
        The force field refuses the structure or fails.
    """
    work = start.atoms.copy()
    work.info.update(start.atoms.info)
    fixed_atoms = list(work.constraints)  # of slabs and molecules; crystals have none, or no symmetry to keep
    if start.fixed is not None:
        work.set_constraint(start.fixed)
    work.calc = calculator = ForceFieldCalculator(force_field)
    target = work
    if protocol.relax_cell and work.pbc.all():
        target = FrechetCellFilter(
            work,
            mask=list(protocol.cell_mask),
            hydrostatic_strain=protocol.hydrostatic,
            constant_volume=protocol.constant_volume,
        )
    optimizer = (FIRE if protocol.optimizer == "fire" else LBFGS)(target, logfile=None)
    trajectory = RelaxationTrajectory(work, start.reference_cell)

    def record() -> None:
        fmax = float(np.linalg.norm(target.get_forces(), axis=1).max())
        trajectory.record(float(work.get_potential_energy()), fmax, protocol)
        watch(optimizer.nsteps, fmax)

    optimizer.attach(record, interval=1)
    trajectory.converged = bool(optimizer.run(fmax=protocol.fmax_ev_per_angstrom, steps=protocol.max_steps))
    # Without the constraint's projection: documents hold the forces and the stress of the force field.
    stress = work.get_stress(voigt=False, apply_constraint=False) if can_have_stress(work) else np.full((3, 3), np.nan)
    energy, forces = trajectory.energies[-1], work.get_forces(apply_constraint=False)
    trajectory.evaluation = Evaluation(energy, forces, stress, spread=calculator.spread)
    work.calc = None
    work.set_constraint(fixed_atoms)
    return trajectory
