"""The stored results of a property request; those that are missing are computed in this process first.

What is stored is read without torch, jobflow and phonopy: the functions that compute import them.
"""

import signal
import sys
import warnings
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from types import FrameType
from typing import TYPE_CHECKING, Any, TypeGuard

import typer

from esen_flows.cli.machine import tune_allocator
from esen_flows.cli.property_request import PropertyRequest
from esen_flows.cli.store import open_store
from esen_flows.cli.work_ahead import describe_work
from esen_flows.progress import listening
from esen_flows.schemas.documents import ResultDocument
from esen_flows.schemas.properties import PROPERTIES, Kind
from esen_flows.schemas.property_lookup import entry_of
from esen_flows.settings import get_settings

if TYPE_CHECKING:
    from jobflow import Flow, Job

    from esen_flows.store.results import Store


@dataclass(frozen=True)
class Answer:
    """The results of all steps of a request.

    Attributes
    ----------
    documents
        Results in the order of the steps, without large arrays; the last one is the property.
    stored
        Keys of those that were stored before the request.
    """

    documents: list[ResultDocument]
    stored: frozenset[str]


def run_or_load(request: PropertyRequest, *, yes: bool = False) -> Answer:
    """Stored results of all steps of a request; missing steps are computed first.

    Parameters
    ----------
    request
        A property of a structure.
    yes
        Whether work of unusual size is wanted; see `work_ahead.describe_work`.

    Returns
    -------
    Answer
        Results of the steps, all of them stored now.

    Raises
    ------
    EsenFlowsError
        A step failed, now or in an earlier run, or the work is of unusual size.
    """
    from esen_flows.makers.compute import raise_if_failed

    store = open_store()
    stored = [store.get(step.key, load_arrays=False) for step in request.steps]
    before = frozenset(document.key for document in stored if _is_settled(document))
    if not _is_settled(stored[-1]):
        for parent in stored[:-1]:
            if parent is not None and _is_settled(parent):
                raise_if_failed(parent)
        if words := describe_work(request, missing_kinds(request, before), store, yes=yes):
            print(words, file=sys.stderr)
        _run(request, store)
        stored = [store.get(step.key, load_arrays=False) for step in request.steps]
    documents = [document for document in stored if document is not None]
    raise_if_failed(documents[-1])
    return Answer(documents, before)


def missing_kinds(request: PropertyRequest, stored: Collection[str]) -> set[Kind]:
    """Kinds of the steps of a request that are not stored.

    Parameters
    ----------
    request
        A property of a structure.
    stored
        Keys of the stored results.

    Returns
    -------
    set[Kind]
        Kinds of the other steps.
    """
    return {step.kind for step in request.steps if step.key not in stored}


def _is_settled(document: ResultDocument | None) -> TypeGuard[ResultDocument]:
    """Whether a new computation would change nothing: the result is finished, or failed for good."""
    return document is not None and (document.failure is None or document.failure.final)


def build_flow(request: PropertyRequest) -> "Flow | Job":
    """Flow that computes a request, the same in this process and on a queue.

    Parameters
    ----------
    request
        A property of a structure.

    Returns
    -------
    Flow | Job
        Jobs of all steps; jobs whose results are stored read them.
    """
    from esen_flows.makers.core import ModelMaker, StructureMaker

    fields: dict[str, Any] = {
        "name": request.kind, "protocol": request.protocol, "force_field_name": request.model.location,
        "numeric": request.numeric, "device": request.device,
    }  # fmt: skip
    flow: Flow | Job
    if entry_of(request.kind).subject == "model":
        flow = ModelMaker(**fields).make()
    else:
        flow = StructureMaker(**fields).make(request.atoms)
    return flow


def _run(request: PropertyRequest, store: "Store") -> None:
    """Compute the missing steps of a request and store them."""
    from jobflow import run_locally

    from esen_flows.store.jobflow_store import job_store

    tune_allocator()
    store.sweep()
    threads = get_settings().threads
    if threads is not None:
        import torch

        torch.set_num_threads(threads)
    with _step_bars(), warnings.catch_warnings():
        # Changes that other packages announce concern our tests; nobody who waits for a number can act on them.
        for category in (DeprecationWarning, FutureWarning):
            warnings.simplefilter("ignore", category)
        warnings.filterwarnings("ignore", module=r"(maggma|pymatgen|monty|spglib)\b")
        run_locally(build_flow(request), log=False, store=job_store(store), raise_immediately=True)


def _title(kind: str) -> str:
    """Title of a step; work that is not a step, such as a campaign's, is called as it reports itself."""
    return next((entry.title for known, entry in PROPERTIES.items() if known == kind), kind)


@contextmanager
def _step_bars() -> Iterator[None]:
    """Show one progress bar per step on stderr, from the moment when the step first reports."""
    from rich.console import Console
    from rich.progress import BarColumn, Progress, SpinnerColumn, TaskID, TextColumn, TimeElapsedColumn

    columns = (SpinnerColumn(), TextColumn("{task.description}"), BarColumn(), TimeElapsedColumn())
    tasks: dict[str, TaskID] = {}
    with Progress(*columns, TextColumn("{task.fields[words]}"), console=Console(stderr=True)) as bars:

        def finish() -> None:
            for task in bars.tasks:
                if not task.finished:
                    bars.update(task.id, total=1, completed=1)

        def show(kind: str, done: int, total: int | None, words: str) -> None:
            if kind not in tasks:
                finish()  # A new step means that the previous one is done, which may not have known its total.
                tasks[kind] = bars.add_task(_title(kind), total=total, words=words)
            bars.update(tasks[kind], completed=done, total=total, words=words)

        with listening(show):
            yield
        finish()  # Skipped by an error, so that the bar of the failed step shows how far it was.


@contextmanager
def interruptible() -> Iterator[None]:
    """End a computation on Ctrl-C or SIGTERM with one message and status 130, after its claims are released.

    Yields
    ------
    None
        The computation runs inside the `with` block.

    Raises
    ------
    typer.Exit
        A signal came; the status is 130.
    """

    def terminate(number: int, frame: FrameType | None) -> None:
        raise KeyboardInterrupt

    previous = signal.signal(signal.SIGTERM, terminate)
    try:
        yield
    except KeyboardInterrupt:
        print(
            "esen-flows: interrupted; finished steps are stored, the same command continues from there",
            file=sys.stderr,
        )
        raise typer.Exit(130) from None
    finally:
        signal.signal(signal.SIGTERM, previous)
