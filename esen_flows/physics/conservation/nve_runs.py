"""Constant-energy dynamics of all systems of an audit, in one batch, as one document."""

from collections.abc import Callable, Collection
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from esen_flows.errors import EsenFlowsError, InsufficientMemoryError
from esen_flows.forcefield.contract import ForceField
from esen_flows.physics.conservation.nve import LAMBENCH_WORST
from esen_flows.physics.conservation.nve_systems import NveSystem, nve_systems
from esen_flows.physics.md.dynamics import Checkpoint, molecular_dynamics_many
from esen_flows.schemas.md import MDProtocol
from esen_flows.schemas.md_output import MDOutput
from esen_flows.schemas.nve import NveOutput, NveProtocol, NveRun

Progress = Callable[[int, int, str], None]
_LEAST_FRAMES, _INTERVAL = 100, 10  # eSEN's authors record every tenth step


@dataclass(frozen=True)
class _Planned:
    """A trajectory to be run."""

    system: NveSystem
    protocol: MDProtocol
    halved: bool


def nve_runs(
    force_field: ForceField,
    protocol: NveProtocol,
    *,
    chemical_systems: Collection[str] | None = None,
    root: Path | None = None,
    progress: Progress | None = None,
    checkpoints: Callable[[int], Checkpoint | None] | None = None,
) -> NveOutput:
    """Run all systems of a protocol at constant energy.

    Parameters
    ----------
    force_field
        Force field, averaged over the inversion or not as it is to be judged.
    protocol
        Systems, lengths and seeds.
    chemical_systems
        Exact sets of elements of the training structures, see `nve_systems.nve_systems`.
    root
        Folder of reference sets, likewise.
    progress
        Called after every step of a system with the steps of all systems so far, their number, and a remark.
    checkpoints
        Where the unfinished trajectory with some number is kept; None keeps nothing.

    Returns
    -------
    NveOutput
        One entry for each trajectory, those that failed included.

    Raises
    ------
    InputError
        The force field knows the elements of none of the systems.
    """
    systems = nve_systems(protocol.systems, force_field.declaration.elements, chemical_systems, root)
    planned = _planned(systems, protocol)
    total, done = sum(one.protocol.n_steps for one in planned), [0] * len(planned)

    def watch(index: int, steps: int, kelvin: float) -> None:
        done[index] = steps
        if progress is not None:
            progress(sum(done), total, f"{planned[index].system.name}, {kelvin:.0f} K")

    outcomes = dict(
        molecular_dynamics_many(
            (one.system.atoms for one in planned), force_field, [one.protocol for one in planned],
            watch=watch, checkpoints=checkpoints,
        )
    )  # fmt: skip
    runs = [_run(one, outcomes[number]) for number, one in enumerate(planned)]
    return _summarised(runs, planned)


def _planned(systems: list[NveSystem], protocol: NveProtocol) -> list[_Planned]:
    found = []
    for halved in (False, True) if protocol.half_step_ps > 0.0 else (False,):
        for seed in protocol.seeds:
            for system in systems:
                step = system.protocol.time_step_fs(system.atoms.numbers) / (2.0 if halved else 1.0)
                length = 1000.0 * (protocol.half_step_ps if halved else protocol.duration_ps)
                n_steps = max(round(length / step), _LEAST_FRAMES)
                own = system.protocol.model_copy(
                    update={
                        "n_steps": n_steps,
                        "time_step": step,
                        "traj_interval": max(min(_INTERVAL, n_steps // _LEAST_FRAMES), 1),
                        "mb_velocity_seed": seed,
                    }
                )
                found.append(_Planned(system, own, halved))
    return found


def _run(one: _Planned, outcome: MDOutput | EsenFlowsError) -> NveRun:
    if isinstance(outcome, InsufficientMemoryError):  # this machine's fault, not the force field's
        raise outcome
    atoms, protocol = one.system.atoms, one.protocol
    step, nothing = protocol.time_step_fs(atoms.numbers), np.zeros(0)
    output = outcome if isinstance(outcome, MDOutput) else None
    return NveRun(
        system=one.system.name,
        benchmark=one.system.benchmark,
        start=one.system.start,
        formula=atoms.get_chemical_formula(),
        n_atoms=len(atoms),
        temperature_kelvin=protocol.temperature_kelvin(atoms.numbers),
        time_step_fs=step,
        duration_ps=protocol.n_steps * step / 1000.0,
        seed=protocol.mb_velocity_seed,
        drift=output.drift if output else None,
        failure=None if output else f"{type(outcome).__name__}: {outcome}",
        times_ps=output.times_ps if output else nothing,
        total_energies_ev=output.conserved_energies_ev if output else nothing,
        kinetic_energies_ev=output.kinetic_energies_ev if output else nothing,
    )


def _summarised(runs: list[NveRun], planned: list[_Planned]) -> NveOutput:
    whole = [run for run, one in zip(runs, planned, strict=True) if not one.halved]
    fairchem: dict[str, list[float]] = {}
    for run in whole:
        if run.drift is not None:
            fairchem.setdefault(run.benchmark, []).append(run.drift.fairchem_mev_per_atom_ps)
    slopes = [abs(run.drift.slope_mev_per_atom_ps) / 1000.0 for run in whole if run.drift is not None]
    scores = [LAMBENCH_WORST if run.drift is None else run.drift.lambench_score for run in whole]
    return NveOutput(
        runs=runs,
        fairchem_mev_per_atom_ps={name: float(np.mean(values)) for name, values in fairchem.items()},
        lambench_score=float(np.mean(scores)),
        largest_slope_ev_per_atom_ps=max(slopes, default=None),
        failures=sum(run.drift is None for run in runs),
    )
