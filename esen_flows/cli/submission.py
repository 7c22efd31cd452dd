"""`--submit`: to the launchpad instead of this process, and how the work is run from there."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import typer
from jobflow import Flow, Job

from esen_flows.cli.property_request import PropertyRequest
from esen_flows.cli.run import build
from esen_flows.cli.training_data import DataOption, HeldOut
from esen_flows.errors import EsenFlowsError
from esen_flows.makers.training import TrainMaker, chained
from esen_flows.queue.submit import Submission, submit
from esen_flows.schemas.training import Split
from esen_flows.settings import get_settings
from esen_flows.store.connection import open_store
from esen_flows.store.results import Store

if TYPE_CHECKING:
    from esen_flows.training.config import TrainingConfig

# What decides which store a process opens: a worker needs the same.
_OF_THE_STORE = ("mongo_uri", "mongo_uri_file", "database", "data_dir")
_KEY_DIGITS = 12


def submit_request(request: PropertyRequest) -> None:
    """Submit the flow of a property command, and print how to go on.

    Raises
    ------
    EsenFlowsError
        as `campaigns.submit.submit`.
    """
    _submit(build(request), open_store())


def submit_requests(requests: Sequence[PropertyRequest]) -> None:
    """Submit the flow of each question, and print how to go on.

    Steps that flows share are in each of them; whichever comes first computes it.

    Parameters
    ----------
    questions
        those that ask for the same result count once. What failed for good before is told, and left out.

    Raises
    ------
    EsenFlowsError
        as `campaigns.submit.submit`, but for such failures.
    """
    store = open_store()
    added: list[int] = []
    pending: dict[int, str] = {}
    points = {request.steps[-1].key: request for request in requests}
    for key, request in points.items():
        try:
            submission = submit(build(request), store=store)
        except EsenFlowsError as error:
            if not error.final:
                raise
            typer.echo(f"{key[:_KEY_DIGITS]}: failed before: {type(error).__name__}: {error}", err=True)
            continue
        added += submission.firework_ids
        pending.update(submission.pending)
    whole = Submission(store.database.database_name, tuple(added), tuple(points), tuple(pending.items()))
    typer.echo(f"{len(points)} points; {whole}")
    if added or pending:
        _print_next_steps(whole, private=store.database.lease is not None)
    typer.echo("to see them, once they are there: the same command without --submit")


def submit_training(
    stages: Sequence[tuple[str, "TrainingConfig", Sequence[DataOption]]],
    held_out: HeldOut,
    initial: Path | None,
    device: str,
    max_seconds: float | None,
) -> None:
    """Store the data of stages, submit the stages, and print how to go on.

    Parameters
    ----------
    stages
        name, settings and data of each.
    held_out
        a share of the data.
    initial
        checkpoint that the first stage starts from.
    device, max_seconds
        of a job.

    Raises
    ------
    InputError
        data that cannot be read, or are too large for the database and in no dataset folder.
    EsenFlowsError
        as `campaigns.submit.submit`.
    """
    store = open_store()
    maker = TrainMaker(
        split=Split(fraction=held_out.fraction, seed=held_out.seed), device=device, max_seconds=max_seconds
    )
    work = []
    for number, (name, config, sources) in enumerate(stages):
        start = str(initial.resolve()) if number == 0 and initial is not None else None
        data = [(_stored(store, source), source.repeats) for source in sources]
        work.append((replace(maker, name=name or "train", config=config, initial=start), data))
    jobs = chained(work)
    _submit(Flow(jobs, output=jobs[-1].output, name=" ".join(job.name for job in jobs)), store)


def _stored(store: Store, source: DataOption) -> str:
    """Key of a dataset, stored now unless it was."""
    from esen_flows.data.importing import read_dataset
    from esen_flows.store.datasets import store_dataset

    folder = source.path if source.path.is_dir() else None
    return store_dataset(store, read_dataset(source.path), source.name or source.path.stem, folder=folder)


def _submit(work: Flow | Job, store: Store) -> None:
    submission = submit(work, store=store)
    typer.echo(submission)
    if submission.firework_ids or submission.pending:
        _print_next_steps(submission, private=store.database.lease is not None)
    typer.echo(f"to see it: esen-flows show {submission.result_keys[-1][:_KEY_DIGITS]}")
    typer.echo(f"key      {submission.result_keys[-1]}")


def _print_next_steps(submission: Submission, *, private: bool) -> None:
    """What runs the fireworks here."""
    typer.echo("to run it on this machine:\n  esen-flows worker\nor by FireWorks' own means:")
    typer.echo("  esen-flows db init settings   # once; writes the files named below")
    if private:
        typer.echo("  esen-flows db start           # the private server, which stops when nothing of ours runs")
    typer.echo(
        '  JOBFLOW_CONFIG_FILE="$PWD/settings/jobflow.yaml" '
        "rlaunch -l settings/my_launchpad.yaml -w settings/my_fworker.yaml rapidfire"
    )
    given = get_settings().model_fields_set
    # A URI that came from a file is set too, and both together are an error.
    unset = {"mongo_uri"} if "mongo_uri_file" in given else set()
    named = [f"ESEN_FLOWS_{name.upper()}" for name in _OF_THE_STORE if name in given - unset]
    if named:
        typer.echo(f"  with {', '.join(named)} set as here, so that results go into the same store")
    if any(state == "RUNNING" for _, state in submission.pending):  # also after a kill -9
        typer.echo("  esen-flows campaign recover   # if their worker was killed")
