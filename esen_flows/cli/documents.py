"""The stored answer to a question, computed first where it is not there."""

import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

import typer

from esen_flows.cli.property_request import PropertyRequest
from esen_flows.schemas.documents import ResultDocument


def run_or_load(request: PropertyRequest) -> list[ResultDocument]:
    """What is stored for each step, after computing what is missing; large arrays are left in the store.

    Raises
    ------
    EsenFlowsError
        a step failed, now or before.
    """
    from esen_flows.makers.compute import raise_if_failed
    from esen_flows.store.connection import open_store

    store = open_store()
    stored = [store.get(step.key, load_arrays=False) for step in request.steps]
    if not _settled(stored[-1]):
        for parent in stored[:-1]:
            if parent is not None and _settled(parent):
                raise_if_failed(parent)
        from esen_flows.cli.run import run

        run(request, store)
        stored = [store.get(step.key, load_arrays=False) for step in request.steps]
    documents = [document for document in stored if document is not None]
    raise_if_failed(documents[-1])
    return documents


def _settled(document: ResultDocument | None) -> bool:
    """Whether asking again would change nothing: finished, or failed for good."""
    return document is not None and (document.failure is None or document.failure.final)


@contextmanager
def interruptible() -> Iterator[None]:
    """Ctrl-C and SIGTERM leave through the claims' own clean-up, with a word on what to do next."""

    def terminate(number: int, frame: FrameType | None) -> None:
        raise KeyboardInterrupt

    previous = signal.signal(signal.SIGTERM, terminate)
    try:
        yield
    except KeyboardInterrupt:
        print(
            "esen-flows: interrupted; finished steps are stored, the same command goes on from there", file=sys.stderr
        )
        raise typer.Exit(130) from None
    finally:
        signal.signal(signal.SIGTERM, previous)
