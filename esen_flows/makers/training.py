"""Labelling, training and evaluation as jobflow jobs.

A dataset is given by its key in the store (from `store.datasets.store_dataset`) or by the output of a LabelMaker's job;
a training by its result key or by the output of a TrainMaker's job. Other Makers use the force field of a training
like any other: `RelaxMaker(force_field_name=train.output)` in the same flow, `trained_force_field(key)` afterwards.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, TypeAlias

from jobflow import Job, Maker, OutputReference, job

from esen_flows.errors import InputError
from esen_flows.makers.core import PropertyMaker
from esen_flows.makers.keyed import keyed_job, noted
from esen_flows.makers.labelling_jobs import carried_structures, labelling_job, structures_key
from esen_flows.makers.references import carried, delivered, in_place_of_this_job, is_reference
from esen_flows.makers.training_jobs import evaluation_job, training_job
from esen_flows.makers.trainings import trained_force_field as trained_force_field
from esen_flows.schemas.card import resolve_model
from esen_flows.schemas.requests import ResultRequest, labelling_request, training_request
from esen_flows.schemas.training import EvaluationProtocol, LabellingProtocol, Split, TrainingProtocol
from esen_flows.training.config import TrainingConfig, config_from_dict

if TYPE_CHECKING:
    from esen_flows.structures.inputs import AnyStructures

Data: TypeAlias = str | OutputReference  # a dataset
Datasets: TypeAlias = Data | Sequence[tuple[Data, int]]  # one, or several, each with how often an epoch sees it
Stage: TypeAlias = str | OutputReference  # a training


@dataclass
class LabelMaker(PropertyMaker):
    """Label structures with a force field into a stored dataset: distillation.

    Parameters
    ----------
    name, force_field_name, numeric, device, material_ids, tags
        As in `PropertyMaker`; the force field is the labeller.
    average_inversion
        Whether to average labels with those of the mirror image, unless the labeller is O(3)-equivariant.
    dataset_name
        Name of the dataset for people.
    """

    name: str = "label"
    average_inversion: bool = True
    dataset_name: str = "labelled"

    def make(
        self, structures: "Mapping[str, Any] | AnyStructures | OutputReference", prev_dir: str | None = None
    ) -> Job:
        """Make the labelling job.

        Parameters
        ----------
        structures
            Content of a recipe file (`yaml.safe_load`), or structures, whose `info` may have a group and a material:
            ASE Atoms, pymatgen structures, paths of structure files and outputs of other jobs, one or many.
        prev_dir
            Accepted as in atomate2, and unused.

        Returns
        -------
        Job
            Its output refers to the dataset.

        Raises
        ------
        InputError
            There are no structures, or more than a job can carry.
        """
        if is_reference(structures) or is_reference(self.force_field_name):
            training = carried(self.force_field_name) if is_reference(self.force_field_name) else None
            given = structures if isinstance(structures, Mapping) else carried(structures)
            return noted(self.make_when_known(given, training), self.name, "labelling", None)
        content, model = carried_structures(structures), resolve_model(self.force_field_name)
        protocol = LabellingProtocol(average_inversion=self.average_inversion)
        request = labelling_request(structures_key(content), model.key, protocol, self.numeric)
        licence = "; ".join(f"{part}: {text}" for part, text in model.card.licence.items()) if model.card else ""
        labeller = self._model_argument(model, licence=licence)
        arguments = {
            "structures": content, "request": request.model_dump(mode="json"), "model": labeller,
            "dataset_name": self.dataset_name,
        }  # fmt: skip
        return keyed_job(self, labelling_job, arguments, name=self.name, kind="labelling", request=request)

    @job
    def make_when_known(self, structures: Any, training: Any = None) -> Any:
        """Make the labelling job, in the place of the job that this is, once references have values.

        Parameters
        ----------
        structures
            A recipe, or `references.carried` structures.
        training
            Output of the training whose force field labels; None: `force_field_name` says it.

        Returns
        -------
        Any
            The labelling job.
        """
        return in_place_of_this_job(self._with_force_field(training).make(delivered(structures)))


@dataclass
class TrainMaker(Maker):
    """Train one stage.

    Parameters
    ----------
    name
        Name of the job, and of the force field for people.
    config
        Settings of the stage.
    split
        Part of each dataset that is held out for validation.
    initial
        Card or checkpoint to start from instead of random weights, where `make` is given no training.
    device
        A torch device; not part of the key.
    launcher
        Starts one process per core or GPU, on one node or several, in front of "-m module": ("torchrun",
        "--nproc-per-node=4"), or ("srun", "--ntasks=8", "--gpus-per-task=1", "python"); (): the job's own process. Not
        part of the key: the batches are the same, and only sums are rounded differently.
    max_seconds
        Time of one job, after which it saves and replaces itself. In a queue: the walltime less the time to save. None:
        the job trains to the end; one that was stopped resumes when it is run again.
    tags
        Noted in the document, for queries.
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

    def make(self, data: Datasets, start: Stage | None = None, prev_dir: str | None = None) -> Job:
        """Make the training job.

        Parameters
        ----------
        data
            A dataset, or several, each with how often an epoch sees it: [(salex, 1), (mptrj, 8)].
        start
            The training whose network this one starts from.
        prev_dir
            Accepted as in atomate2, and unused: nothing is handed over in folders.

        Returns
        -------
        Job
            Its output refers to the training and its force field.

        Raises
        ------
        InputError
            The settings cannot be used, or both `initial` and `start` are given.
        """
        if self.initial is not None and start is not None:
            raise InputError(f"{self.name} starts from {self.initial!r} and from another training; give one of them")
        model = None if self.initial is None else resolve_model(self.initial)
        initial = None if model is None else {"location": model.location, "label": model.label, "key": model.key}
        run = {
            "name": self.name, "device": self.device, "launcher": list(self.launcher), "tags": list(self.tags),
            "max_seconds": self.max_seconds,
        }  # fmt: skip
        datasets = [list(pair) for pair in repeated(data)]
        split = self.split.model_dump(mode="json")
        arguments = {
            "config": self._settings(), "datasets": datasets, "split": split, "run": run, "initial": initial,
            "parent": start,
        }  # fmt: skip
        request = None if start is not None else self.request(data)
        return keyed_job(self, training_job, arguments, name=self.name, kind="training", request=request)

    def request(self, data: Datasets, start: ResultRequest | None = None) -> ResultRequest | None:
        """The request of this training, known before anything is computed.

        Parameters
        ----------
        data
            As in `make`.
        start
            The request of the training whose network this one starts from.

        Returns
        -------
        ResultRequest | None
            None where a dataset is yet to be labelled.
        """
        datasets = repeated(data)
        known = [(key, repeats) for key, repeats in datasets if isinstance(key, str)]
        if len(known) < len(datasets):
            return None
        protocol = TrainingProtocol(config=self._settings(), datasets=tuple(known), split=self.split)
        parent = None if start is None else (start.key, start.model_key)
        initial = None if self.initial is None else resolve_model(self.initial).key
        return training_request(protocol, parent=parent, initial_model_key=initial)

    def _settings(self) -> dict[str, Any]:
        """All settings of the stage as JSON has them: lists in the place of tuples."""
        assert isinstance(self.config, Mapping)
        settings: dict[str, Any] = json.loads(json.dumps(config_from_dict(self.config, self.name).to_dict()))
        return settings


@dataclass
class EvaluateMaker(PropertyMaker):
    """Measure the errors of a force field on a dataset, by group, in meV/atom, meV/Angstrom and meV/Angstrom^3.

    Parameters
    ----------
    name, force_field_name, numeric, device, material_ids, tags
        As in `PropertyMaker`; the force field is not used where `make` is given a training.
    held_out
        Evaluate only the part that a training with this split does not see; None: all of the dataset.
    """

    name: str = "evaluate"
    held_out: Split | None = None

    def make(self, data: Data, training: Stage | None = None, prev_dir: str | None = None) -> Job:
        """Make the evaluation job.

        Parameters
        ----------
        data
            A dataset.
        training
            Evaluate the force field of this training instead of `force_field_name`.
        prev_dir
            Accepted as in atomate2, and unused.

        Returns
        -------
        Job
            Its output refers to the errors.
        """
        if training is None and is_reference(self.force_field_name):
            training = self.force_field_name
        found = None if training is not None else resolve_model(self.force_field_name)
        model = self._model_argument(found, **({} if found is None else {"key": found.key}))
        arguments = {
            "dataset": data, "protocol": EvaluationProtocol(held_out=self.held_out).model_dump(mode="json"),
            "numeric": self.numeric.model_dump(mode="json"), "model": model, "training": training,
        }  # fmt: skip
        return keyed_job(self, evaluation_job, arguments, name=self.name, kind="evaluation", request=None)


def repeated(data: Datasets) -> list[tuple[Data, int]]:
    """Datasets, each with how often an epoch sees it.

    Parameters
    ----------
    data
        As in `TrainMaker.make`.

    Returns
    -------
    list[tuple[Data, int]]
        Pairs; a single dataset is seen once.
    """
    return [(data, 1)] if isinstance(data, str | OutputReference) else list(data)
