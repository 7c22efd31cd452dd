"""Rounds of dynamics, labels and training: the data grow where the force field that is trained goes and errs.

In the folder of a run, `round-000` is the student as it was given and `round-00N` the one after N rounds. Each holds

- `student/`: its training (of round 0: a copy of the checkpoint), and `student-1/` and so on for a committee;
- `dynamics.json`, `trajectories.npz`: its trajectories and their drifts;
- `plan.json`: numbers of the frames that are labelled, judged and learned;
- `own.xyz`: frames of them with the teacher's labels and their provenance;
- `chosen.xyz`: those of them that the next round trains on;
- `round.json`: the record of the round.

A part that is there is not computed again, and one that was interrupted continues where it was.
"""

import json
import math
import signal
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import numpy as np
import torch
from ase import Atoms
from ase.data import chemical_symbols

from esen_flows.data.dataset import Dataset, mixture, subset
from esen_flows.data.extxyz import read_provenance, write_labelled
from esen_flows.data.importing import read_dataset
from esen_flows.data.screening import ANY_FORCE
from esen_flows.errors import EsenFlowsError, InputError
from esen_flows.files import only_process_in, written_whole
from esen_flows.forcefield.checkpoint import Checkpoint, load, save
from esen_flows.forcefield.contract import ForceField
from esen_flows.forcefield.network import NetworkForceField
from esen_flows.physics.active_learning.choosing import committee_spread, force_difference, largest
from esen_flows.physics.active_learning.sampling import Sample, protocol_of, sample
from esen_flows.schemas.active_learning import ActiveLearningSpec, RoundRecord
from esen_flows.schemas.keys import atoms_key, sha256_of
from esen_flows.stopping import SIGNALS, Allocation, handling
from esen_flows.training.config import TrainingConfig, config_from_dict
from esen_flows.training.distributed import World
from esen_flows.training.evaluate import AT_ONCE, evaluate_dataset, evaluated
from esen_flows.training.finetune import finetune_config
from esen_flows.training.initial import check_initial
from esen_flows.training.label import label
from esen_flows.training.train import CHECKPOINT_NAME, train

IDENTITY_NAME, RECORD_NAME, PLAN_NAME = "run.json", "round.json", "plan.json"
OWN_NAME, CHOSEN_NAME = "own.xyz", "chosen.xyz"
LABELS_AT_ONCE = 16  # frames that a killed labelling repeats at most
# (number of the round, what is done, done, total)
Progress = Callable[[int, str, int, int], None]


class ActiveLearningInterrupted(EsenFlowsError):
    """A run was asked to stop, or its time was up. The same call continues it."""

    exit_code = 75  # EX_TEMPFAIL of sysexits.h: run it again


@dataclass(frozen=True)
class Materials:
    """What a run works with.

    Attributes
    ----------
    students
        Force fields to train: the one whose dynamics are run, and its committee.
    teacher
        Force field that labels.
    structures
        Structures from which dynamics start.
    data
        Labelled structures to begin with.
    validation
        Held-out labelled structures.
    stage
        Settings of the training of a round; None: those of fine-tuning.
    """

    students: Sequence[Checkpoint]
    teacher: ForceField
    structures: Sequence[Atoms]
    data: Dataset
    validation: Dataset
    stage: TrainingConfig | None = None


def active_learning(
    spec: ActiveLearningSpec,
    materials: Materials,
    folder: str | Path,
    *,
    device: str = "cpu",
    progress: Progress | None = None,
    max_seconds: float | None = None,
) -> list[RoundRecord]:
    """Train a force field in rounds on frames of its own dynamics, until it meets the criteria or the rounds are over.

    Parameters
    ----------
    spec
        Dynamics, choice of frames, criteria.
    materials
        Students, teacher, structures and data.
    folder
        Receives all parts of all rounds; given again, it is continued.
    device
        torch device of the students.
    progress
        Called during each part.
    max_seconds
        Wall time of this call; None: no limit.

    Returns
    -------
    list[RoundRecord]
        The student as it was given, and after each round.

    Raises
    ------
    InputError
        The folder holds another run, the stage does not fit the student, or its dynamics have no usable frame.
    FolderInUseError
        Another process runs in the folder.
    ActiveLearningInterrupted, TrainingInterrupted
        A signal came, or the time was up; the same call continues.
    TrainingDivergedError, EvaluationError
        A training, or the teacher, gave NaN or infinity.
    """
    folder = Path(folder)
    time_of_call = Allocation(None if max_seconds is None else time.monotonic() + max_seconds)
    run = _Run(spec, materials, folder, device, progress or (lambda *_: None), time_of_call)
    run.check()
    records: list[RoundRecord] = []
    folder.mkdir(parents=True, exist_ok=True)
    with only_process_in(folder), handling((*SIGNALS, signal.SIGINT), time_of_call.request_stop):
        run.claim_folder()
        for number in range(spec.rounds + 1):
            run.prepare(number)
            records.append(run.record(number))
            if not records[-1].unmet and spec.force_mae_mev_per_angstrom is not None:
                break
            if number < spec.rounds:
                run.choose(number)
    return records


@dataclass(frozen=True)
class _Run:
    """One call of `active_learning`."""

    spec: ActiveLearningSpec
    materials: Materials
    folder: Path
    device: str
    progress: Progress
    time_of_call: Allocation

    def check(self) -> None:
        """Refuse what cannot be run, before anything is computed."""
        given = self.materials
        for member, student in enumerate(given.students if self.spec.rounds else ()):
            check_initial(student, self._stage(student, given.data, member), given.data)
        if len({student.model_key for student in given.students}) < len(given.students):
            raise InputError("two students are the same network and never disagree; train them with different seeds")
        known = {"the teacher": given.teacher.declaration.elements, "the student": set(given.students[0].elements)}
        for place, atoms in enumerate(given.structures):
            protocol_of(self.spec, atoms, self.spec.temperatures_kelvin[0], self.spec.seed)
            for name, elements in known.items():
                if elements is not None and (unknown := set(atoms.numbers.tolist()) - set(elements)):
                    symbols = ", ".join(chemical_symbols[z] for z in sorted(unknown))
                    raise InputError(
                        f"structure {place} ({atoms.get_chemical_formula()}) has elements that {name} does not know: "
                        f"{symbols}; leave it out, or give another force field"
                    )

    def claim_folder(self) -> None:
        """Write into the folder which run it holds, or refuse it if it holds another one."""
        given = self.materials
        identity = {
            **self.spec.of_rounds,  # below, contents take the place of names
            "students": [one.model_key for one in given.students],
            "teacher": given.teacher.key,
            "structures": sha256_of([atoms_key(atoms) for atoms in given.structures]),
            "data": given.data.key,
            "validation": given.validation.key,
            "stage": None if given.stage is None else sha256_of(given.stage.to_dict()),
        }
        file = self.folder / IDENTITY_NAME
        if file.is_file():
            before = json.loads(file.read_text(encoding="utf-8"))
            if changed := [name for name in identity if before.get(name) != identity[name]]:
                raise InputError(
                    f"{self.folder} holds a run with other {', '.join(changed)}; use a new folder, or its former values"
                )
            return
        with written_whole(file, durable=True) as temporary:
            temporary.write_text(json.dumps(identity, indent=1) + "\n", encoding="utf-8")

    def place(self, number: int) -> Path:
        """Folder of a round."""
        return self.folder / f"round-{number:03d}"

    def checkpoint(self, number: int, member: int = 0) -> Path:
        """Checkpoint of a student after a round."""
        return self.place(number) / ("student" if member == 0 else f"student-{member}") / CHECKPOINT_NAME

    def force_field(self, number: int, member: int = 0) -> NetworkForceField:
        """A student after a round, in double precision, as an audit has it."""
        return NetworkForceField(load(self.checkpoint(number, member)), device=self.device, dtype="float64")

    def watch(self, number: int, part: str, done: int, total: int) -> None:
        """Tell how far a part is, and interrupt it if the process has to stop."""
        self.progress(number, part, done, total)
        if self.time_of_call.is_stopping:
            raise ActiveLearningInterrupted(
                f"stopped in round {number} ({part}: {done} of {total}); the same call continues from there"
            )

    def prepare(self, number: int) -> None:
        """Train the students of a round, or copy those that were given."""
        for member, given in enumerate(self.materials.students):
            path = self.checkpoint(number, member)
            if (self.place(number) / RECORD_NAME).is_file():
                continue
            if number == 0:
                path.parent.mkdir(parents=True, exist_ok=True)
                save(path, given)
            else:
                self._train(number, member)

    def _train(self, number: int, member: int) -> None:
        parent, data = load(self.checkpoint(number - 1, member)), self.data_of(number)
        config = self._stage(parent, data, member)
        left = None if self.time_of_call.deadline is None else self.time_of_call.seconds_left
        train(
            config, data, self.materials.validation, self.checkpoint(number, member).parent, initial=parent,
            provenance={"data": data.provenance, "round": number}, world=World(device=torch.device(self.device)),
            progress=lambda row: self.progress(number, "training", int(row["step"]), int(row["total_steps"])),
            max_seconds=left,
        )  # fmt: skip
        self.watch(number, "training", 1, 1)

    def _stage(self, parent: Checkpoint, data: Dataset, member: int) -> TrainingConfig:
        """Settings of a training; members of a committee differ in their seed."""
        changes = dict(self.spec.settings)
        if self.materials.stage is not None:
            config = config_from_dict({**self.materials.stage.to_dict(), **changes}, "stage")
        elif parent.network.config.conservative:
            config = finetune_config(parent, data, changes)
        else:
            raise InputError("the student predicts forces directly; give `stage`, a training file with its network")
        return replace(config, seed=config.seed + member)

    def data_of(self, number: int) -> Dataset:
        """The data of a round: those of the beginning, and the frames that were chosen in the rounds before."""
        grown = [_read(self.place(before) / CHOSEN_NAME) for before in range(number)]
        return mixture([(self.materials.data, 1), *((one, self.spec.repeats) for one in grown)])

    def record(self, number: int) -> RoundRecord:
        """Judge the student of a round on its own dynamics and on the held-out data."""
        file = self.place(number) / RECORD_NAME
        if file.is_file():
            record = RoundRecord.model_validate_json(file.read_text(encoding="utf-8"))
            return record.model_copy(update={"unmet": self._unmet(record)})  # the criteria may have changed
        began = time.monotonic()
        student = self.force_field(number)
        watch = partial(self.watch, number, "dynamics")
        sampled = sample(student, self.materials.structures, self.spec, number, self.place(number), watch)
        plan = self._plan(number, sampled, student)
        labelled = self._labels(number, [sampled.frames[index] for index in plan["label"]])
        usable, judged = self._usable(labelled), set(plan["judged"])
        own = [place for place, index in enumerate(plan["label"]) if usable[place] and index in judged]
        if not own:
            raise InputError(
                f"the teacher's forces on all frames of round {number} are above most_force_ev_per_angstrom "
                f"{self.spec.most_force_ev_per_angstrom:g}; raise it, lower the temperatures, or give a better student"
            )
        refused = sampled.refused
        if not usable.all():
            refused = {**refused, "forces of the teacher too large": int(np.count_nonzero(~usable))}
        record = RoundRecord(
            round=number,
            model_key=student.key,
            checkpoint=str(self.checkpoint(number).relative_to(self.folder)),
            training_structures=0 if number == 0 else len(self.data_of(number)),
            frames_added=0 if number == 0 else len(_read(self.place(number - 1) / CHOSEN_NAME)),
            trajectories=sampled.records,
            labelled=len(labelled),
            refused=refused,
            own=_errors(student, subset(labelled, own)),
            held_out=_errors(student, self.materials.validation),
            unmet=(),
            seconds=round(time.monotonic() - began, 1),
        )
        record = record.model_copy(update={"unmet": self._unmet(record)})
        with written_whole(file, durable=True) as temporary:
            temporary.write_text(record.model_dump_json(indent=1) + "\n", encoding="utf-8")
        return record

    def _plan(self, number: int, sampled: Sample, student: ForceField) -> dict[str, list[int]]:
        """Which frames the teacher labels, on which of them the student is judged, and of which it learns."""
        file = self.place(number) / PLAN_NAME
        if not file.is_file():  # kept, because forces on GPUs, and so the choice, differ in their last digits
            everything, count = list(range(len(sampled.frames))), self.spec.frames_per_round
            random = np.random.default_rng([self.spec.seed, number])
            some = sorted(random.permutation(len(everything))[:count].tolist())
            if self.spec.choose == "teacher":
                plan = {"label": everything, "judged": everything, "learn": everything, "last": list(sampled.last)}
            elif self.spec.choose == "random":
                plan = {"label": some, "judged": some, "learn": some, "last": []}
            else:
                best = largest(self._spreads(number, sampled.frames, student), count, sampled.last)
                plan = {"label": sorted({*best, *some}), "judged": some, "learn": best, "last": list(sampled.last)}
            with written_whole(file, durable=True) as temporary:
                temporary.write_text(json.dumps(plan) + "\n", encoding="utf-8")
        found: dict[str, list[int]] = json.loads(file.read_text(encoding="utf-8"))
        return found

    def _spreads(self, number: int, frames: Sequence[Atoms], student: ForceField) -> np.ndarray:
        """(frames,) spread of the forces of the committee."""
        members = [student, *(self.force_field(number, one) for one in range(1, len(self.materials.students)))]
        found: list[float] = []
        for start in range(0, len(frames), AT_ONCE):
            part = list(frames[start : start + AT_ONCE])
            results = zip(*(member.evaluate(part) for member in members), strict=True)
            found += [committee_spread([one.forces for one in same]) for same in results]
            self.watch(number, "committee", len(found), len(frames))
        return np.array(found)

    def _labels(self, number: int, frames: Sequence[Atoms]) -> Dataset:
        """Frames with the teacher's labels."""
        path = self.place(number) / OWN_NAME
        if not path.is_file():
            label(
                frames, self.materials.teacher, path, average_inversion=self.spec.average_inversion,
                progress=partial(self.watch, number, "labels"), batch_size=LABELS_AT_ONCE,
            )  # fmt: skip
        return _read(path)

    def _usable(self, labelled: Dataset) -> np.ndarray:
        """(frames,) whether the teacher's forces are small enough to be trusted and learned."""
        most = self.spec.most_force_ev_per_angstrom
        return np.array([np.linalg.norm(item.forces, axis=1).max() <= most for item in labelled])

    def choose(self, number: int) -> None:
        """Write the frames of a round that the next one trains on."""
        path = self.place(number) / CHOSEN_NAME
        if path.is_file():
            return
        plan = json.loads((self.place(number) / PLAN_NAME).read_text(encoding="utf-8"))
        labelled = _read(self.place(number) / OWN_NAME)
        learns = self._usable(labelled) & np.isin(plan["label"], plan["learn"])
        differences = np.where(learns, 0.0, np.nan)
        if self.spec.choose == "teacher":
            for place, item, result in evaluated(self.force_field(number), labelled, range(len(labelled))):
                if learns[place]:
                    differences[place] = force_difference(result.forces, item.forces)
        always = np.flatnonzero(np.isin(plan["label"], plan["last"])).tolist()
        indices = largest(differences, self.spec.frames_per_round, always)
        if not indices:
            raise InputError(f"no frame of round {number} can be trained on; raise most_force_ev_per_angstrom")
        provenance = {**read_provenance(self.place(number) / OWN_NAME), "chosen": self.spec.choose, "frames": indices}
        own = subset(labelled, indices)
        write_labelled(path, own, provenance, without_stress=not self._gives_stress)

    @property
    def _gives_stress(self) -> bool:
        return "stress" in self.materials.teacher.declaration.outputs

    def _unmet(self, record: RoundRecord) -> tuple[str, ...]:
        """Criteria that a student does not meet."""
        found = []
        if record.failures:
            found.append(f"{record.failures} of {len(record.trajectories)} trajectories failed")
        most = self.spec.drift_mev_per_atom_ps
        if (slope := record.largest_slope) is not None and not sum(slope) <= most:
            found.append(f"drift {slope[0]:.2g} +- {slope[1]:.1g}, not within {most:g} meV/atom/ps")
        if record.refused:
            found.append(f"{sum(record.refused.values())} frames refused ({', '.join(record.refused)})")
        error, limit = record.own["force_mae_mev_per_angstrom"], self.spec.force_mae_mev_per_angstrom
        if limit is not None and not error <= limit:
            found.append(f"force error {error:.3g} above {limit:g} meV/Angstrom")
        return tuple(found)


def _errors(student: ForceField, data: Dataset) -> dict[str, float]:
    """Errors on all data; none of stresses where there are no labels of them, for which JSON has no number."""
    return {name: value for name, value in evaluate_dataset(student, data)["all"].items() if not math.isnan(value)}


def _read(path: Path) -> Dataset:
    """Frames with labels of any size: those that are too large are counted, and not learned (`_Run._usable`)."""
    return read_dataset(path, limits=ANY_FORCE)
