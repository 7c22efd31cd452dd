"""Labelling, training and evaluation as jobflow jobs, and the chain of them.

A dataset is named by its key in the store (`store.datasets.store_dataset` gives it) or by the output of a LabelMaker's
job; a training by its result key or the output of a TrainMaker's job. What a training made is a force field like any
other one: `RelaxMaker(force_field_name=trained_force_field(key))`.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, TypeAlias

from ase import Atoms
from jobflow import Flow, Job, Maker, OutputReference, job

from esen_flows.errors import InputError
from esen_flows.makers.core import PropertyMaker, keyed
from esen_flows.makers.labelling_jobs import labelling_job, structures_key
from esen_flows.makers.training_jobs import evaluation_job, finished_training, training_job
from esen_flows.schemas.card import card_path, read_card, resolve_model
from esen_flows.schemas.requests import ResultRequest, labelling_request, training_request
from esen_flows.schemas.training import EvaluationProtocol, LabellingProtocol, Split, TrainingProtocol
from esen_flows.store.connection import open_store
from esen_flows.store.trained_models import trained_model
from esen_flows.structures.conversion import as_atoms, atoms_to_json
from esen_flows.training.config import TrainingConfig, config_from_dict, read_config

if TYPE_CHECKING:
    from pymatgen.core import Structure

Data: TypeAlias = str | OutputReference  # a dataset
Stage: TypeAlias = str | OutputReference  # a training
# A job's arguments travel in a document of at most 16 MB.
MOST_JOB_BYTES = 8_000_000


@dataclass
class LabelMaker(PropertyMaker):
    """Label structures by a force field into a stored dataset: distillation.

    Attributes
    ----------
    average_inversion
        average labels with those of the mirror image, unless the labeller is O(3)-equivariant.
    dataset_name
        what people call the dataset.
    """

    name: str = "label"
    average_inversion: bool = True
    dataset_name: str = "labelled"

    def make(self, structures: "Mapping[str, Any] | Sequence[Atoms | Structure]", prev_dir: str | None = None) -> Job:
        """The job, whose output names the dataset.

        Parameters
        ----------
        structures
            the content of a recipe file (`yaml.safe_load`), or structures, of which `info` may name a group
            and a material.
        prev_dir
            accepted as in atomate2 and unused.

        Raises
        ------
        InputError
            no structures, or more than a job can carry.
        """
        content = _carried(structures)
        model = resolve_model(self.force_field_name)
        request = labelling_request(
            structures_key(content),
            model.key,
            LabellingProtocol(average_inversion=self.average_inversion),
            self.numeric,
        )
        licence = "; ".join(f"{part}: {text}" for part, text in model.card.licence.items()) if model.card else ""
        labeller = {
            "location": model.location, "label": model.label, "device": self.device, "licence": licence,
            "material_ids": list(self.material_ids), "tags": list(self.tags),
        }  # fmt: skip
        work = job(labelling_job)(content, request.model_dump(mode="json"), labeller, self.dataset_name)
        return keyed(work, request, self.name)


@dataclass
class TrainMaker(Maker):
    """Train one stage.

    Attributes
    ----------
    name
        of the job, and of the force field for people.
    config
        the stage.
    split
        what is held out of each dataset for validation.
    initial
        card or checkpoint to start from instead of random weights, where `make` is given no training.
    device
        a torch device; not part of the key.
    launcher
        starts one process per core or GPU, on one node or several, in front of "-m module": ("torchrun",
        "--nproc-per-node=4"), or ("srun", "--ntasks=8", "--gpus-per-task=1", "python"); (): the job's own process. Not
        part of the key: sums are rounded otherwise, the batches are the same.
    max_seconds
        of one job; then it saves and puts itself in its own place. In a queue: the walltime less what it
        takes to save. None: the job trains to the end, and one that is stopped goes on when it is run again.
    tags
        noted in the document, for queries.
    """

    name: str = "train"
    config: TrainingConfig | Mapping[str, Any] = field(default_factory=dict)
    split: Split = field(default_factory=Split)
    initial: str | None = None
    device: str = "cpu"
    launcher: tuple[str, ...] = ()
    max_seconds: float | None = None
    tags: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if isinstance(self.config, TrainingConfig):
            self.config = self.config.to_dict()  # flat, as it travels in JSON

    def make(
        self, data: Data | Sequence[tuple[Data, int]], start: Stage | None = None, prev_dir: str | None = None
    ) -> Job:
        """The job, whose output names the training and the force field.

        Parameters
        ----------
        data
            a dataset, or several with how often an epoch sees each: [(salex, 1), (mptrj, 8)].
        start
            the training whose network this one starts from.
        prev_dir
            accepted as in atomate2 and unused: nothing is handed over in folders.

        Raises
        ------
        InputError
            settings that cannot be used, or both `initial` and `start`.
        """
        if self.initial is not None and start is not None:
            raise InputError(
                f"{self.name} is to start from {self.initial!r} and from another training; give one of them"
            )
        model = None if self.initial is None else resolve_model(self.initial)
        initial = None if model is None else {"location": model.location, "label": model.label, "key": model.key}
        run = {
            "name": self.name, "device": self.device, "launcher": list(self.launcher), "tags": list(self.tags),
            "max_seconds": self.max_seconds,
        }  # fmt: skip
        datasets = [list(pair) for pair in _shares(data)]
        split = self.split.model_dump(mode="json")
        work = job(training_job)(self._settings(), datasets, split, run, initial, start)
        work.name = self.name
        work.update_metadata({"kind": "training"})
        request = None if start is not None else self.request(data)
        return work if request is None else keyed(work, request, self.name)

    def request(
        self, data: Data | Sequence[tuple[Data, int]], start: ResultRequest | None = None
    ) -> ResultRequest | None:
        """What is asked for, before anything is computed; None where a dataset is yet to be labelled.

        Parameters
        ----------
        data
            as in `make`.
        start
            the request of the training whose network this one starts from.
        """
        datasets = _shares(data)
        known = [(key, repeats) for key, repeats in datasets if isinstance(key, str)]
        if len(known) < len(datasets):
            return None
        protocol = TrainingProtocol(config=self._settings(), datasets=tuple(known), split=self.split)
        parent = None if start is None else (start.key, start.model_key)
        initial = None if self.initial is None else resolve_model(self.initial).key
        return training_request(protocol, parent=parent, initial_model_key=initial)

    def _settings(self) -> dict[str, Any]:
        assert isinstance(self.config, Mapping)
        complete = config_from_dict(self.config, self.name).to_dict()
        settings: dict[str, Any] = json.loads(json.dumps(complete))  # lists for tuples, as a database has them
        return settings


@dataclass
class EvaluateMaker(PropertyMaker):
    """Errors of a force field on a dataset, by group, in meV/atom, meV/Angstrom and meV/Angstrom^3.

    Attributes
    ----------
    held_out
        evaluate what a training with this split does not see; None: all of the dataset.
    """

    name: str = "evaluate"
    held_out: Split | None = None

    def make(self, data: Data, training: Stage | None = None, prev_dir: str | None = None) -> Job:
        """The job.

        Parameters
        ----------
        data
            a dataset.
        training
            evaluate what it made, instead of `force_field_name`.
        prev_dir
            accepted as in atomate2 and unused.
        """
        model: dict[str, Any] = {
            "device": self.device, "material_ids": list(self.material_ids), "tags": list(self.tags),
        }  # fmt: skip
        if training is None:
            found = resolve_model(self.force_field_name)
            model |= {"location": found.location, "label": found.label, "key": found.key}
        protocol = EvaluationProtocol(held_out=self.held_out).model_dump(mode="json")
        work = job(evaluation_job)(data, protocol, self.numeric.model_dump(mode="json"), model, training)
        work.name = self.name
        work.update_metadata({"kind": "evaluation"})
        return work


@dataclass
class PretrainFinetuneFlow(Maker):
    """Label if asked to, pre-train, fine-tune what that made, evaluate; each a job with a result of its own.

    Attributes
    ----------
    pretrain
        direct forces, with DeNS.
    finetune
        conservative; starts from the pre-trained network.
    evaluate
        of the fine-tuned force field on what is held out of its data; None: not.
    label
        labels what `make` is given; None: that is a dataset already.
    """

    name: str = "pretrain-finetune"
    pretrain: TrainMaker = field(default_factory=lambda: TrainMaker(name="pretrain"))
    finetune: TrainMaker = field(default_factory=lambda: TrainMaker(name="finetune"))
    evaluate: EvaluateMaker | None = field(default_factory=EvaluateMaker)
    label: LabelMaker | None = None

    def make(
        self,
        data: Any,
        finetune_data: Data | Sequence[tuple[Data, int]] | None = None,
        prev_dir: str | None = None,
    ) -> Flow:
        """The flow; its output is that of the fine-tuning, and of the evaluations, one for each of its datasets.

        Parameters
        ----------
        data
            for pre-training: as `TrainMaker.make` takes it, or with `label` as `LabelMaker.make` does.
        finetune_data
            for fine-tuning; None: the same.
        prev_dir
            accepted as in atomate2 and unused.
        """
        labelling = [] if self.label is None else [self.label.make(data)]
        if labelling:
            data = labelling[0].output
        last_data = data if finetune_data is None else finetune_data
        stages = chained([(self.pretrain, data), (self.finetune, last_data)])
        judges = _judges(self.evaluate, self.finetune.split, last_data, stages[-1])
        return _flow([*labelling, *stages], judges, self.name)


@dataclass
class RecipeFlow(Maker):
    """All stages of a published recipe, as its card has them, and an evaluation.

    Attributes
    ----------
    card
        of a model with recipes, such as esen_30m_mp.
    recipe
        which of them; None: its first.
    stage
        what all stages share: split, device, launcher, max_seconds, tags.
    evaluate
        of the last stage's force field on what is held out of its data; None: not.
    """

    name: str = "recipe"
    card: str = "esen_30m_mp"
    recipe: str | None = None
    stage: TrainMaker = field(default_factory=TrainMaker)
    evaluate: EvaluateMaker | None = field(default_factory=EvaluateMaker)

    def make(self, data: Mapping[str, Data], prev_dir: str | None = None) -> Flow:
        """The flow; its output is that of the last stage, and of the evaluations.

        Parameters
        ----------
        data
            dataset by the name that the recipe gives it: {"sAlex": key, "MPtrj": key}.
        prev_dir
            accepted as in atomate2 and unused.

        Raises
        ------
        InputError
            no such recipe, or data that it needs and was not given.
        """
        card = read_card(self.card)
        chosen = self.recipe or next(iter(card.recipes), "")
        if chosen not in card.recipes:
            raise InputError(f"card {self.card!r} has no recipe {chosen!r}; it has {sorted(card.recipes) or 'none'}")
        needed = {source.name for stage in card.recipes[chosen] for source in stage.data}
        if missing := sorted(needed - set(data)):
            raise InputError(f"recipe {chosen!r} of {self.card!r} needs {sorted(needed)}; {missing} were not given")
        stages: list[tuple[TrainMaker, list[tuple[Data, int]]]] = []
        for number, stage in enumerate(card.recipes[chosen], start=1):
            path = card_path(self.card).parent / stage.file
            name = f"{self.card} {number} {path.stem}"
            maker = replace(self.stage, name=name, config=read_config(path))
            stages.append((maker, [(data[source.name], source.repeats) for source in stage.data]))
        jobs = chained(stages)
        judges = _judges(self.evaluate, self.stage.split, stages[-1][1], jobs[-1])
        return _flow(jobs, judges, f"{self.card} {chosen}")


def chained(stages: "Sequence[tuple[TrainMaker, Data | Sequence[tuple[Data, int]]]]") -> list[Job]:
    """A job for each stage, which starts from the network of the one before it; keyed where all data are known.

    Parameters
    ----------
    stages
        the Maker of each stage, and its data as `TrainMaker.make` takes them.
    """
    jobs: list[Job] = []
    request: ResultRequest | None = None
    for number, (maker, data) in enumerate(stages):
        work = maker.make(data, start=jobs[-1].output if jobs else None)
        request = maker.request(data, request) if number == 0 or request is not None else None
        jobs.append(work if request is None else keyed(work, request, maker.name))
    return jobs


def _judges(
    evaluate: EvaluateMaker | None, split: Split, data: Data | Sequence[tuple[Data, int]], training: Job
) -> list[Job]:
    """Evaluations of what a training made on what is held out of each of its datasets."""
    if evaluate is None:
        return []
    judge = replace(evaluate, held_out=split)
    return [judge.make(part, training=training.output) for part, _ in _shares(data)]


def _flow(jobs: list[Job], judges: list[Job], name: str) -> Flow:
    output = {"training": jobs[-1].output, "evaluations": [judge.output for judge in judges]}
    return Flow([*jobs, *judges], output=output, name=name)


def trained_force_field(training: str) -> str:
    """The force field of a stored training, by its result key, as the other Makers' `force_field_name`.

    Raises
    ------
    InputError
        no such training. EsenFlowsError : it failed.
    """
    store = open_store()
    return str(trained_model(store, str(finished_training(store, training).summary["model_key"])))


def _shares(data: Data | Sequence[tuple[Data, int]]) -> list[tuple[Data, int]]:
    return [(data, 1)] if isinstance(data, str | OutputReference) else list(data)


def _carried(structures: "Mapping[str, Any] | Sequence[Atoms | Structure]") -> dict[str, Any]:
    """Structures as the job carries them."""
    if isinstance(structures, Mapping):
        return {"recipe": dict(structures)}
    items = []
    for structure in structures:
        atoms = as_atoms(structure)
        names = {name: str(atoms.info.get(name, "")) for name in ("group", "material")}
        items.append({**atoms_to_json(atoms), **names})
    if not items:
        raise InputError("no structures to label; give a recipe or a list of structures")
    size = len(json.dumps(items))
    if size > MOST_JOB_BYTES:
        raise InputError(
            f"{len(items)} structures take {size / 1e6:.0f} MB, more than a job carries; give a recipe that makes "
            "them, or label them with `esen-flows label` and store the dataset"
        )
    return {"structures": items}
