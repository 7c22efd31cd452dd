"""Exactly once: claim a key, compute, commit the result or the reason why there is none."""

import os
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from esen_flows import errors, progress
from esen_flows.errors import ClaimedElsewhereError, EsenFlowsError, ModelError, StoreError
from esen_flows.forcefield.contract import ForceField
from esen_flows.schemas.documents import Document, Failure, ResultDocument
from esen_flows.schemas.provenance import build_provenance
from esen_flows.schemas.requests import ResultRequest
from esen_flows.store.claims import Claim
from esen_flows.store.results import Store

Summary = dict[str, float | int | str | bool | None]

# Another process may be at the same result: a conductivity of a large cell takes its time.
WAIT_SECONDS = 24 * 3600.0
LISTEN_SECONDS = 5.0  # between two reports of a wait, at which a process that has to end breaks off


@dataclass
class Meter:
    """Counts the force evaluations of one step; zero as long as no force field is watched."""

    force_field: ForceField | None = None
    started_at: int = 0

    def watch(self, force_field: ForceField) -> ForceField:
        """Count from here on."""
        self.force_field, self.started_at = force_field, force_field.force_evaluations
        return force_field

    @property
    def evaluations(self) -> int:
        """Structures evaluated since `watch`."""
        return 0 if self.force_field is None else self.force_field.force_evaluations - self.started_at


@dataclass(frozen=True)
class Context:
    """What a result document repeats of its structure and force field, so that queries need no join."""

    identity: Mapping[str, Any]  # formula, chemsys, elements, nsites, space_group_number, space_group_symbol
    model_label: str
    device: str = "cpu"
    material_ids: tuple[str, ...] = ()
    tags: tuple[str, ...] = ()


def compute_once(
    store: Store,
    request: ResultRequest,
    context: Context,
    compute: Callable[[Meter], tuple[Document, Summary]],
    *,
    wait_seconds: float = WAIT_SECONDS,
    force: bool = False,
    not_stored: tuple[type[EsenFlowsError], ...] = (ModelError, StoreError),
) -> ResultDocument:
    """The stored result of a request, computed here if nobody has.

    Parameters
    ----------
    compute
        gives the output and its summary; it watches its force field with the meter that it is given.
    wait_seconds
        how long to wait for another process that is computing the same key.
    force
        compute again what has failed for good; a result that is there stays.
    not_stored
        failures that say nothing about what was asked.

    Raises
    ------
    EsenFlowsError
        the computation failed, now or before (a stored final failure is raised again as its own type).
        Failures of the physics are stored; a force field that cannot be loaded, a store that cannot be reached, an
        interruption and a defect of the program are not: they say nothing about the material.
    """
    found = _get_or_claim(store, request, wait_seconds)
    if force and isinstance(found, ResultDocument) and found.failure is not None:
        found = store.get_or_claim(request.key, wait_seconds=wait_seconds, force=True)
    if isinstance(found, ResultDocument):
        raise_if_failed(found)
        return found
    claim, meter, start = found, Meter(), time.perf_counter()

    def document(**content: Any) -> ResultDocument:
        seconds = time.perf_counter() - start
        return result_document(request, context, seconds=seconds, evaluations=meter.evaluations, **content)

    try:
        output, summary = compute(meter)
        return store.commit(claim, document(output=output, summary=summary))
    except not_stored:
        store.release(claim)
        raise
    except EsenFlowsError as error:
        store.commit(claim, document(failure=failure_of(error)))
        raise
    except BaseException:
        store.release(claim)
        raise


def _get_or_claim(store: Store, request: ResultRequest, wait_seconds: float) -> ResultDocument | Claim:
    try:
        return store.get_or_claim(request.key, wait_seconds=0.0)
    except ClaimedElsewhereError:
        pass
    until = time.monotonic() + wait_seconds
    while True:
        # Again and again: whoever listens may have to end meanwhile.
        progress.report(request.kind, 0, None, "another process is computing this; waiting for it")
        left = until - time.monotonic()
        try:
            return store.get_or_claim(request.key, wait_seconds=min(left, LISTEN_SECONDS))
        except ClaimedElsewhereError:
            if left <= LISTEN_SECONDS:
                raise


def raise_if_failed(document: ResultDocument) -> None:
    """Raise a stored failure again, as the type that it was.

    Raises
    ------
    EsenFlowsError
        of the stored type, with the stored message and the key.
    """
    if document.state != "failed":
        return
    assert document.failure is not None  # a failed document has one
    kind = getattr(errors, document.failure.error, EsenFlowsError)
    raise kind(f"{document.failure.message} (stored failure {document.key[:12]})")


def failure_of(error: Exception) -> Failure:
    """An error as results keep it; what is no error of ours says nothing final."""
    return Failure(error=type(error).__name__, message=str(error), final=getattr(error, "final", False))


def result_document(
    request: ResultRequest,
    context: Context,
    *,
    seconds: float,
    evaluations: int,
    output: Document | None = None,
    summary: Summary | None = None,
    failure: Failure | None = None,
) -> ResultDocument:
    """The document of a request: its output and summary, or its failure.

    Parameters
    ----------
    seconds
        of wall time that it took.
    evaluations
        structures evaluated for it.
    """
    return ResultDocument(
        kind=request.kind,
        key=request.key,
        parent_key=request.parent_key,
        structure_key=request.structure_key,
        model_key=request.model_key,
        model_label=context.model_label,
        protocol=request.protocol.model_dump(mode="json"),
        protocol_hash=request.protocol.hash(),
        numeric=request.numeric.model_dump(mode="json"),
        numerics_revision=request.numerics_revision,
        state="failed" if failure else "finished",
        failure=failure,
        **context.identity,
        material_ids=list(context.material_ids),
        tags=list(context.tags),
        summary=summary or {},
        output=None if output is None else output.model_dump(),
        provenance=build_provenance(
            device=context.device,
            threads=_threads(),
            seconds=seconds,
            force_evaluations=evaluations,
            firework_id=_firework_id(),
        ),
        created_at=datetime.now(UTC),
    )


def _firework_id() -> int | None:
    """Of the firework that this process runs a job of; FireWorks tells jobflow, which tells the job."""
    jobflow = sys.modules.get("jobflow")  # what is computed without it is no firework
    job = jobflow.CURRENT_JOB.job if jobflow else None
    return None if job is None else job.metadata.get("fw_id")


def _threads() -> int:
    torch = sys.modules.get("torch")  # a step without force calls does not pay for its import
    return torch.get_num_threads() if torch else int(os.environ.get("OMP_NUM_THREADS") or os.cpu_count() or 1)
