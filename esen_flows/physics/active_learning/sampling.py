"""Dynamics of the force field that is being trained: its trajectories, what they conserve, and their frames.

Trajectories that fail are kept up to their last frames: these show where the force field is wrong.
"""

import json
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from shutil import rmtree

import numpy as np
from ase import Atoms

from esen_flows.errors import EsenFlowsError, ExplosionError, InputError, StructureError
from esen_flows.files import written_whole
from esen_flows.forcefield.contract import ForceField
from esen_flows.physics.conservation.nve import LEAST_FRAMES
from esen_flows.physics.md.dynamics import molecular_dynamics_many
from esen_flows.schemas.active_learning import ActiveLearningSpec, TrajectoryRecord
from esen_flows.schemas.md import MDProtocol
from esen_flows.schemas.md_output import MDOutput
from esen_flows.structures.checks import check_structure

RECORDS_NAME, POSITIONS_NAME, UNFINISHED_NAME = "dynamics.json", "trajectories.npz", "running"
SAVE_EVERY_SECONDS = 30.0
Watch = Callable[[int, int], None]


@dataclass(frozen=True)
class Sample:
    """The frames of the trajectories of one round.

    Attributes
    ----------
    records
        The trajectories.
    frames
        Their frames without the starts, one trajectory after the other; `info["group"]` names the trajectory.
    last
        Indices of the last frames of trajectories that failed.
    refused
        Number of frames that are left out, by reason.
    """

    records: tuple[TrajectoryRecord, ...]
    frames: list[Atoms]
    last: tuple[int, ...]
    refused: dict[str, int]


def sample(
    force_field: ForceField,
    structures: Sequence[Atoms],
    spec: ActiveLearningSpec,
    number: int,
    folder: Path,
    watch: Watch | None = None,
) -> Sample:
    """Run the dynamics of a round, or read them if they have been run.

    Parameters
    ----------
    force_field
        Decides where the atoms go.
    structures
        Structures to start from.
    spec
        Temperatures, length and seed.
    number
        Number of the round.
    folder
        Keeps the trajectories, and the unfinished ones after an interruption.
    watch
        Called after every step with the steps of all trajectories so far and their number. What it raises interrupts
        the dynamics, which the same call continues.

    Returns
    -------
    Sample
        Trajectories and frames.

    Raises
    ------
    InputError
        The trajectories are too short for a drift, or all of them fail at their start.
    """
    runs = [(index, kelvin) for index in range(len(structures)) for kelvin in spec.temperatures_kelvin]
    if not (folder / RECORDS_NAME).is_file():
        _run(force_field, structures, runs, spec, number, folder, watch)
    records = [TrajectoryRecord(**one) for one in json.loads((folder / RECORDS_NAME).read_text(encoding="utf-8"))]
    with np.load(folder / POSITIONS_NAME) as arrays:
        positions = [arrays[str(place)] for place in range(len(runs))]
    frames: list[Atoms] = []
    last: list[int] = []
    refused = Counter[str]()
    for (index, kelvin), record, places in zip(runs, records, positions, strict=True):
        before = len(frames)
        for place in places[1:]:
            frame = structures[index].copy()
            frame.set_positions(place, apply_constraint=False)
            frame.info["group"] = f"{record.structure}, {kelvin:g} K"
            if (reason := _fault(frame)) is None:
                frames.append(frame)
            else:
                refused[reason] += 1
        if record.failure is not None and len(frames) > before:
            last.append(len(frames) - 1)
    if not frames:
        raise InputError(
            f"no trajectory of round {number} has a frame that can be used, the first one because: "
            f"{records[0].failure or next(iter(refused))}; lower frame_interval_steps or the temperatures, or start "
            "from a better student"
        )
    return Sample(tuple(records), frames, tuple(last), dict(refused))


def _fault(frame: Atoms) -> str | None:
    try:
        check_structure(frame, "frame")
    except StructureError:
        return "atoms overlap, or positions are not finite"
    return None


def _run(
    force_field: ForceField,
    structures: Sequence[Atoms],
    runs: Sequence[tuple[int, float]],
    spec: ActiveLearningSpec,
    number: int,
    folder: Path,
    watch: Watch | None,
) -> None:
    """Run the trajectories, and write their records and positions."""
    starts = [structures[index] for index, _ in runs]
    protocols = [
        protocol_of(spec, structures[index], kelvin, spec.seed + 1000 * number + place)
        for place, (index, kelvin) in enumerate(runs)
    ]
    done, total = [0] * len(runs), sum(one.n_steps for one in protocols)

    def advanced(place: int, steps: int, kelvin: float) -> None:
        done[place] = steps
        if watch is not None:
            watch(sum(done), total)

    unfinished = folder / UNFINISHED_NAME
    unfinished.mkdir(parents=True, exist_ok=True)
    pieces = [_Pieces(unfinished, place) for place in range(len(runs))]
    outcomes = dict(
        molecular_dynamics_many(starts, force_field, protocols, watch=advanced, checkpoints=pieces.__getitem__)
    )
    positions = [_positions(outcomes[place], start) for place, start in enumerate(starts)]
    records = [
        _record(f"{index} {structures[index].get_chemical_formula()}", kelvin, outcomes[place], len(positions[place]))
        for place, (index, kelvin) in enumerate(runs)
    ]
    with written_whole(folder / POSITIONS_NAME, durable=True) as temporary:
        np.savez(temporary, **{str(place): one for place, one in enumerate(positions)})  # type: ignore[arg-type]
    with written_whole(folder / RECORDS_NAME, durable=True) as temporary:
        temporary.write_text(json.dumps([one.model_dump() for one in records], indent=1) + "\n", encoding="utf-8")
    rmtree(unfinished)


def protocol_of(spec: ActiveLearningSpec, atoms: Atoms, kelvin: float, seed: int) -> MDProtocol:
    """Protocol of the dynamics of one structure.

    Parameters
    ----------
    spec
        Ensemble, length and steps.
    atoms
        The structure, whose elements decide the time step where `spec` does not.
    kelvin
        Temperature of the initial velocities.
    seed
        Seed of the initial velocities.

    Returns
    -------
    MDProtocol
        The protocol.

    Raises
    ------
    InputError
        The trajectory is too short for a drift.
    """
    protocol = MDProtocol(
        ensemble=spec.ensemble, time_step=spec.time_step_fs, temperature=kelvin, mb_velocity_seed=seed
    )
    step = protocol.time_step_fs(atoms.numbers)
    n_steps = round(1000 * spec.duration_ps / step)
    if n_steps < (LEAST_FRAMES - 1) * spec.frame_interval_steps:
        raise InputError(
            f"a drift needs at least {LEAST_FRAMES} frames, but {spec.duration_ps:g} ps of {step:g} fs have "
            f"{n_steps // spec.frame_interval_steps + 1} with frame_interval_steps {spec.frame_interval_steps}; raise "
            "duration_ps, or lower frame_interval_steps"
        )
    return protocol.model_copy(update={"n_steps": n_steps, "traj_interval": spec.frame_interval_steps})


def _record(name: str, kelvin: float, outcome: MDOutput | EsenFlowsError, frames: int) -> TrajectoryRecord:
    if isinstance(outcome, ExplosionError):
        return TrajectoryRecord(structure=name, temperature_kelvin=kelvin, frames=frames, failure=str(outcome))
    if isinstance(outcome, EsenFlowsError):  # of the input or of this machine, and not of what was learned
        raise outcome
    assert outcome.drift is not None  # there are enough frames
    return TrajectoryRecord(
        structure=name,
        temperature_kelvin=kelvin,
        frames=frames,
        slope_mev_per_atom_ps=outcome.drift.slope_mev_per_atom_ps,
        slope_interval_mev_per_atom_ps=outcome.drift.slope_interval_mev_per_atom_ps,
    )


def _positions(outcome: MDOutput | EsenFlowsError, start: Atoms) -> np.ndarray:
    positions: np.ndarray | None = getattr(outcome, "positions_angstrom", None)
    return start.positions[None] if positions is None else positions


@dataclass
class _Pieces:
    """A checkpoint of one trajectory in numbered files, written every half minute."""

    folder: Path
    place: int
    written_at: float = field(default_factory=time.monotonic)

    def _files(self) -> list[Path]:
        return sorted(self.folder.glob(f"{self.place:04d}-*.npy"))

    def load(self) -> list[np.ndarray]:
        return [np.load(path) for path in self._files()]

    def due(self, n_bytes: int) -> bool:
        return time.monotonic() - self.written_at > SAVE_EVERY_SECONDS

    def append(self, piece: np.ndarray) -> bool:
        number = len(self._files())
        with written_whole(self.folder / f"{self.place:04d}-{number:06d}.npy") as temporary:
            np.save(temporary, piece)
        self.written_at = time.monotonic()
        return True
