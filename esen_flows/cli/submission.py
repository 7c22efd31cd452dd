"""`--submit`: add the work to the launchpad instead of running it, and print how to run it from there."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import typer
from jobflow import Flow, Job

from esen_flows.cli.property_request import PropertyRequest
from esen_flows.cli.run_or_load import build_flow
from esen_flows.cli.store import open_store
from esen_flows.cli.training_data import DataSource, HeldOut
from esen_flows.errors import EsenFlowsError
from esen_flows.makers.audit import AuditMaker
from esen_flows.makers.training import TrainMaker
from esen_flows.makers.training_flows import Finished, chained
from esen_flows.queue.submit import Submission, submit
from esen_flows.schemas.requests import property_requests
from esen_flows.schemas.training import Split
from esen_flows.settings import get_settings
from esen_flows.store.launchpad import pending_fireworks
from esen_flows.store.results import Store

if TYPE_CHECKING:
    from esen_flows.training.config import TrainingConfig

# Settings that decide which store a process opens; a worker needs the same ones.
_STORE_SETTINGS = ("mongo_uri", "mongo_uri_file", "database", "data_dir")
_KEY_DIGITS = 12


def submit_work(work: Flow | Job, store: Store) -> None:
    """Submit a flow, and print what to do next.

    Parameters
    ----------
    work
        Flow or job.
    store
        Store of the results, whose database has the launchpad.

    Raises
    ------
    EsenFlowsError
        The flow cannot be submitted; see `queue.submit.submit`.
    """
    submission = submit(work, store=store)
    typer.echo(submission)
    _print_next_steps(submission, store)
    key = submission.result_keys[-1]
    typer.echo(f"to see the result: esen-flows show {key[:_KEY_DIGITS]}\nkey      {key}")


def submit_requests(requests: Sequence[PropertyRequest]) -> None:
    """Submit the flow of each request, and print what to do next.

    Steps that flows share are in each of them; the first one that runs computes the step.

    Parameters
    ----------
    requests
        Requests with the same result key count once. Those that failed for good before are printed and left out.

    Raises
    ------
    EsenFlowsError
        A flow cannot be submitted for another reason; see `queue.submit.submit`.
    """
    store = open_store()
    added: list[int] = []
    pending: dict[int, str] = {}
    points = {request.steps[-1].key: request for request in requests}
    for key, request in points.items():
        try:
            submission = submit(build_flow(request), store=store)
        except EsenFlowsError as error:
            if not error.final:
                raise
            typer.echo(f"{key[:_KEY_DIGITS]}: failed before: {type(error).__name__}: {error}", err=True)
            continue
        added += submission.firework_ids
        pending.update(submission.pending)
    total = Submission(store.database.database_name, tuple(added), tuple(points), tuple(pending.items()))
    typer.echo(f"{len(points)} points; {total}")
    _print_next_steps(total, store)
    typer.echo("to see the results once they are stored: the same command without --submit")


def submit_training(
    stages: Sequence[tuple[str, "TrainingConfig", Sequence[DataSource]]],
    held_out: HeldOut,
    initial: Path | None,
    device: str,
    max_seconds: float | None,
) -> None:
    """Store the data of training stages, submit the stages and the audit of the last one, and print what to do next.

    Parameters
    ----------
    stages
        Name, settings and data of each stage.
    held_out
        Share of the data that is held out.
    initial
        Checkpoint that the first stage starts from; None for random weights.
    device
        Device of the jobs.
    max_seconds
        Seconds after which a job saves and ends; None for no limit.

    Raises
    ------
    InputError
        Data cannot be read, or are too large for the database and not in a dataset folder.
    EsenFlowsError
        The flow cannot be submitted; see `queue.submit.submit`.
    """
    store = open_store()
    maker = TrainMaker(
        split=Split(fraction=held_out.fraction, seed=held_out.seed), device=device, max_seconds=max_seconds
    )
    work = []
    for number, (name, config, sources) in enumerate(stages):
        start = str(initial.resolve()) if number == 0 and initial is not None else None
        data = [(_store_data(store, source), source.repeats) for source in sources]
        work.append((replace(maker, name=name or "train", config=config, initial=start), data))
    jobs = chained(work)
    maker = AuditMaker()
    audit = None if _audit_is_known(store, maker, jobs[-1].metadata["result_key"]) else maker
    submit_work(Finished(audit).flow(jobs, work[-1][1], " ".join(job.name for job in jobs)), store)


def _audit_is_known(store: Store, maker: AuditMaker, training_key: str) -> bool:
    """Whether the audit of a training's force field is stored, or comes with fireworks of an earlier submission.

    Its key has the key of the weights in it, so that `submit` cannot find it before the training has ended.
    """
    training = store.get(training_key, load_arrays=False)
    if training is None or training.failure is not None:
        return bool(pending_fireworks(store.database, [training_key]))
    model_key = str(training.summary["model_key"])
    audit = property_requests(model_key, model_key, maker.protocol, maker.numeric)[-1]
    return store.get(audit.key, load_arrays=False) is not None


def _store_data(store: Store, source: DataSource) -> str:
    """Store a dataset unless it is stored, and return its key."""
    from esen_flows.data.importing import read_dataset
    from esen_flows.store.datasets import store_dataset

    folder = source.path if source.path.is_dir() else None
    return store_dataset(store, read_dataset(source.path), source.name or source.path.stem, folder=folder)


def _print_next_steps(submission: Submission, store: Store) -> None:
    """How to run the fireworks, if there are any."""
    if not submission.firework_ids and not submission.pending:
        return
    typer.echo(
        "to run it on this machine:\n  esen-flows worker\nor with the commands of FireWorks:\n"
        "  esen-flows db init settings   # once; writes the files named below"
    )
    if store.database.lease is not None:
        typer.echo("  esen-flows db start           # the private server, which stops when no process of ours uses it")
    typer.echo(
        '  JOBFLOW_CONFIG_FILE="$PWD/settings/jobflow.yaml" '
        "rlaunch -l settings/my_launchpad.yaml -w settings/my_fworker.yaml rapidfire"
    )
    given = set(get_settings().model_fields_set)
    if "mongo_uri_file" in given:
        given.discard("mongo_uri")  # read from the file; to set both is an error
    if names := [f"ESEN_FLOWS_{name.upper()}" for name in _STORE_SETTINGS if name in given]:
        typer.echo(f"  with {', '.join(names)} set as here, so that results go into the same store")
    if any(state == "RUNNING" for _, state in submission.pending):  # which a worker killed by SIGKILL leaves behind
        typer.echo("  esen-flows campaign recover   # if their worker was killed")
