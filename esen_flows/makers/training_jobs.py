"""The bodies of the jobs of training and evaluation; see `jobs`.

Their datasets and trainings may be made by the flow that they are in, so their requests are known when they begin, not
before. A dataset is named by its content, wherever it came from.
"""

import shutil
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from jobflow import CURRENT_JOB, Job, Response, job

from esen_flows import progress
from esen_flows.errors import EsenFlowsError, ModelError
from esen_flows.makers.compute import Context, Meter, Summary, compute_once
from esen_flows.makers.force_fields import requested_force_field
from esen_flows.makers.labelling_jobs import NOT_STORED
from esen_flows.makers.step_inputs import Json, Reference, context_of, protocol_of, reference_to
from esen_flows.makers.summaries import evaluation_summary, training_summary
from esen_flows.makers.training_task import TrainingTask, carry_out, launch, split_dataset
from esen_flows.makers.trainings import finished_training
from esen_flows.schemas.audit import PASSED
from esen_flows.schemas.card import checkpoint_path, resolve_model
from esen_flows.schemas.documents import ResultDocument
from esen_flows.schemas.protocols import NumericSettings
from esen_flows.schemas.requests import ResultRequest, evaluation_request, training_request
from esen_flows.schemas.training import (
    RANDOM_WEIGHTS_LABEL,
    EvaluationOutput,
    EvaluationProtocol,
    TrainingOutput,
    TrainingProtocol,
    errors_as_rows,
)
from esen_flows.schemas.verified_checkpoints import verified_header
from esen_flows.settings import get_settings
from esen_flows.store.connection import open_store
from esen_flows.store.datasets import dataset_document, dataset_folder, fetch_dataset
from esen_flows.store.results import Store
from esen_flows.store.trained_models import trained_model
from esen_flows.structures.identity import identify_dataset


def training_job(
    config: Json,
    datasets: Sequence[Sequence[Any]],
    split: Json,
    run: Json,
    initial: Json | None = None,
    parent: Reference | str | None = None,
) -> Reference | Response[Any]:
    """Train one stage, in a folder of this machine from which a later job with the same request resumes it.

    A training that stops before its end (a signal, the end of `max_seconds`) leaves an unfinished result in the store.
    With `max_seconds` the job then replaces itself: `run_locally` resumes it at once, and FireWorks makes a firework of
    it, which runs in the next allocation and for which later jobs wait.

    Parameters
    ----------
    config, split
        `TrainingConfig.to_dict()`, and the `Split` of each dataset.
    datasets
        (dataset, repeats) each; a dataset is its key or the output of a labelling job.
    run
        name, device, launcher, tags, max_seconds.
    initial
        Location, label and key of the force field to start from.
    parent
        The training to start from: its result key or the output of its job.

    Returns
    -------
    Reference | Response[Any]
        kind, key and summary of the result; `summary["model_key"]` is the key of the force field.
    """
    began, store = time.monotonic(), open_store()
    origin = None if parent is None else finished_training(store, parent)
    known = [(_dataset_key(dataset), repeats) for dataset, repeats in datasets]
    request = training_request(
        TrainingProtocol.model_validate({"config": config, "datasets": known, "split": split}),
        parent=None if origin is None else (origin.key, origin.model_key),
        initial_model_key=None if initial is None else initial["key"],
    )
    stage = _Stage(request, run, initial, origin)
    folder = get_settings().data_dir / "training" / request.key

    def compute(meter: Meter) -> tuple[TrainingOutput, Summary]:
        output = stage.train(store, folder, began)
        return output, training_summary(run["name"], output)

    try:
        document = compute_once(store, request, stage.context(store), compute, not_stored=NOT_STORED)
    except EsenFlowsError as error:
        from esen_flows.training.train import TrainingInterrupted

        if not isinstance(error, TrainingInterrupted) or run["max_seconds"] is None:
            raise
        return Response(replace=_again(config, datasets, split, run, initial, parent))
    store.note_models([(str(document.summary["model_key"]), run["name"])])
    shutil.rmtree(folder, ignore_errors=True)
    return reference_to(document)


def _again(*arguments: Any) -> Job:
    """The same job once more; a job of an earlier version has no Maker."""
    current = CURRENT_JOB.job
    body = training_job if current is None or current.maker is None else current.maker.make
    names = ("config", "datasets", "split", "run", "initial", "parent")
    work = job(body)(**dict(zip(names, arguments, strict=True)))
    work.name = arguments[3]["name"]
    return work


@dataclass(frozen=True)
class _Stage:
    """A stage as its job is asked for it.

    Attributes
    ----------
    request
        Settings, data and key.
    run, initial
        The job's arguments.
    origin
        The training that this one starts from.
    """

    request: ResultRequest
    run: Json
    initial: Json | None
    origin: ResultDocument | None

    @property
    def protocol(self) -> TrainingProtocol:
        return protocol_of(self.request, TrainingProtocol)

    def context(self, store: Store) -> Context:
        """What the result document repeats of the data and of the force field that the stage starts from."""
        known = [dataset_document(store, key) for key, _ in self.protocol.datasets]
        elements = sorted({symbol for document in known for symbol in document.elements})
        label = RANDOM_WEIGHTS_LABEL if self.initial is None else self.initial["label"]
        if self.origin is not None:
            label = self.origin.model_label
        identity = identify_dataset(elements)
        return Context(identity, label, self.run["device"], tags=tuple(self.run["tags"]))

    def train(self, store: Store, folder: Path, began: float) -> TrainingOutput:
        """Train in this process, or in those that the launcher starts, within the time since `began`."""
        import torch

        from esen_flows.training.distributed import World

        run, limit = self.run, self.run["max_seconds"]
        start = None if self.initial is None else _resolved_checkpoint(self.initial)
        if self.origin is not None:
            start = trained_model(store, str(self.origin.summary["model_key"]))
        datasets, split = self.protocol.datasets, self.protocol.split.model_dump(mode="json")
        task = TrainingTask(
            config=self.protocol.config,
            datasets=[(str(dataset_folder(store, key, _cached_dataset(key))), repeats) for key, repeats in datasets],
            split=split,
            initial=None if start is None else str(start),
            provenance={"result_key": self.request.key, "datasets": datasets, "split": split},
            device=run["device"],
            max_seconds=None if limit is None else max(0.0, limit - (time.monotonic() - began)),
        )

        def show(row: Mapping[str, float]) -> None:
            remark = f"epoch {row['epoch'] + 1:.0f}, loss {row['loss']:.4g}"
            progress.report("training", int(row["step"]), int(row["total_steps"]), remark)

        if run["launcher"]:
            path = launch(task, folder, run["launcher"])
        else:
            # Not `joined`: a worker may itself be one of many processes that srun started.
            path = carry_out(task, folder, World(device=torch.device(task.device)), show)
        return _training_output(path, folder, None if self.origin is None else self.origin.key)


def _training_output(path: Path, folder: Path, parent: str | None) -> TrainingOutput:
    """The result of a training from its checkpoint and its table of errors."""
    from esen_flows.training.metrics import HISTORY_NAME, read_rows

    header = verified_header(path)
    record = dict(header["training"])
    return TrainingOutput(
        model_key=header["model_key"],
        parent_training=parent,
        training_structures=record["provenance"]["training_structures"],
        validation_structures=record["provenance"]["validation_structures"],
        steps=record["steps"],
        training_seconds=record["seconds"],
        history=[dict(row) for row in read_rows(folder / HISTORY_NAME)],
        errors=errors_as_rows(record.pop("validation")),
        record=record,
        checkpoint=np.frombuffer(path.read_bytes(), dtype=np.uint8),
    )


def evaluation_job(
    dataset: Reference | str,
    protocol: Json,
    numeric: Json,
    model: Json,
    training: Reference | str | None = None,
) -> Reference:
    """Measure the errors of a force field on a dataset.

    Parameters
    ----------
    dataset
        Its key, or the output of a labelling job.
    protocol, numeric
        `EvaluationProtocol` and `NumericSettings`.
    model
        Device, material ids and tags; location, label and key of the force field unless `training` is given.
    training
        The training whose force field is evaluated: its result key, or the output of its job.

    Returns
    -------
    Reference
        kind, key and summary of the result.
    """
    store = open_store()
    if training is not None:
        made = finished_training(store, training).summary
        key = str(made["model_key"])
        model = {**model, "location": str(trained_model(store, key)), "label": made["name"], "key": key}
    data_key, settings = _dataset_key(dataset), EvaluationProtocol.model_validate(protocol)
    request = evaluation_request(data_key, model["key"], settings, NumericSettings.model_validate(numeric))
    known = dataset_document(store, data_key)

    def compute(meter: Meter) -> tuple[EvaluationOutput, Summary]:
        from esen_flows.training.evaluate import evaluate_dataset

        data = fetch_dataset(store, data_key, _cached_dataset(data_key))
        if settings.held_out is not None:
            data = split_dataset(data, settings.held_out)[1]
        progress.report("evaluation", 0, len(data))
        force_field = meter.watch(requested_force_field(model, request))
        output = EvaluationOutput(structures=len(data), errors=errors_as_rows(evaluate_dataset(force_field, data)))
        return output, evaluation_summary(known.names[0], output)

    context = context_of(identify_dataset(known.elements), model)
    return reference_to(compute_once(store, request, context, compute, not_stored=NOT_STORED))


def gate_job(audit: Reference, training: Reference) -> Response[Any]:
    """Hand on a training whose force field passed its audit, and otherwise stop the jobs that wait for it.

    Parameters
    ----------
    audit
        Output of the audit.
    training
        Output of the training.

    Returns
    -------
    Response[Any]
        The output of the training. The children of this job are stopped unless the audit has passed.
    """
    return Response(output=training, stop_children=audit["summary"]["verdict"] != PASSED)


def _dataset_key(dataset: Reference | str) -> str:
    """The key of a dataset, given as such or as the output of the labelling job that made it."""
    return dataset if isinstance(dataset, str) else str(dataset["summary"]["dataset_key"])


def _cached_dataset(key: str) -> Path:
    """Folder in which this machine keeps a dataset of the store, for later jobs."""
    return get_settings().data_dir / "datasets" / key


def _resolved_checkpoint(initial: Mapping[str, Any]) -> Path:
    """The checkpoint on this machine of the force field that a training starts from."""
    model = resolve_model(initial["location"])
    if model.card is not None and not model.card.is_network:
        raise ModelError(f"a training cannot start from {model.label!r}: it is not a network of this package")
    if model.key != initial["key"]:
        raise ModelError(
            f"{model.location} has model key {model.key[:12]} here, the request names {initial['key'][:12]}; "
            "give both machines the same checkpoint"
        )
    return Path(model.location) if model.card is None else checkpoint_path(model.card)
