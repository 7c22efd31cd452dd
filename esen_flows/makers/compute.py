"""Compute exactly once: claim a key, compute, and commit the result or the reason of its failure."""

import os
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from esen_flows import errors, progress
from esen_flows.errors import ClaimedElsewhereError, EsenFlowsError, ModelError, StoreError
from esen_flows.schemas.documents import Document, Failure, ResultDocument
from esen_flows.schemas.domain import Domain
from esen_flows.schemas.provenance import build_provenance
from esen_flows.schemas.requests import ResultRequest
from esen_flows.store.claims import Claim
from esen_flows.store.results import Store

if TYPE_CHECKING:
    from esen_flows.forcefield.contract import ForceField

Summary = dict[str, float | int | str | bool | None]

# How long to wait for another process that computes the same result: linewidths of a large cell take hours.
WAIT_SECONDS = 24 * 3600.0
# Time between two reports while waiting. The listener may break off there, because its process has to end.
LISTEN_SECONDS = 5.0


@dataclass
class Meter:
    """Counts the force evaluations of one step.

    Attributes
    ----------
    force_field
        The force field whose evaluations are counted; None: there is none yet.
    started_at
        Its count at the start of the step.
    """

    force_field: "ForceField | None" = None
    started_at: int = 0

    def watch(self, force_field: "ForceField") -> "ForceField":
        """Count the evaluations of a force field from here on.

        Parameters
        ----------
        force_field
            The force field of the step.

        Returns
        -------
        ForceField
            The same force field.
        """
        self.force_field, self.started_at = force_field, force_field.force_evaluations
        return force_field

    @property
    def evaluations(self) -> int:
        """Structures evaluated since `watch`; zero before it."""
        return 0 if self.force_field is None else self.force_field.force_evaluations - self.started_at


@dataclass(frozen=True)
class Context:
    """What a result document repeats of its structure and force field, so that queries need no join.

    Parameters
    ----------
    identity
        formula, chemsys, elements, nsites, space_group_number and space_group_symbol of the structure.
    model_label
        Name of the force field for people.
    device
        Device of the force calls.
    material_ids, tags
        Ids of the structure, and tags to query by.
    domain
        Whether the force field was trained on exactly the elements of the structure, which stands in the summary
        unless more was measured; None for results that are not about a structure.
    """

    identity: Mapping[str, Any]
    model_label: str
    device: str = "cpu"
    material_ids: tuple[str, ...] = ()
    tags: tuple[str, ...] = ()
    domain: Domain | None = None


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
    """The stored result of a request, computed here if no process has computed it yet.

    Parameters
    ----------
    store, request, context
        Where results are, the requested step, and what its document repeats of structure and force field.
    compute
        Returns the output and its summary. It watches its force field with the meter that it is given.
    wait_seconds
        How long to wait for another process that is computing the same key.
    force
        Whether to compute again if the stored result is a final failure. A finished result stays.
    not_stored
        Failures that are not stored, because they say nothing about the request.

    Returns
    -------
    ResultDocument
        The finished result.

    Raises
    ------
    EsenFlowsError
        The computation failed, now or before: a stored final failure is raised again as its own type. Failures of the
        physics are stored. Those of `not_stored`, an interruption and a defect of the program are not.
    """
    found = _get_or_claim(store, request, wait_seconds)
    if force and isinstance(found, ResultDocument) and found.failure is not None:
        found = store.get_or_claim(request.key, wait_seconds=wait_seconds, force=True)
    if isinstance(found, ResultDocument):
        raise_if_failed(found)
        return found
    claim, meter, start = found, Meter(), time.perf_counter()

    def commit(**content: Any) -> ResultDocument:
        seconds = time.perf_counter() - start
        made = result_document(request, context, seconds=seconds, evaluations=meter.evaluations, **content)
        return store.commit(claim, made)

    try:
        output, summary = compute(meter)
        return commit(output=output, summary=summary)
    except BaseException as error:
        if isinstance(error, EsenFlowsError) and not isinstance(error, not_stored):
            commit(failure=failure_of(error))
        else:
            store.release(claim)
        raise


def _get_or_claim(store: Store, request: ResultRequest, wait_seconds: float) -> ResultDocument | Claim:
    """The result, or a claim on its key; while another process computes it, wait and tell the listener."""
    until, wait = time.monotonic() + wait_seconds, 0.0
    while True:
        try:
            return store.get_or_claim(request.key, wait_seconds=wait)
        except ClaimedElsewhereError:
            left = until - time.monotonic()
            if left <= 0:
                raise
        progress.report(request.kind, 0, None, "another process is computing this; waiting for it")
        wait = min(left, LISTEN_SECONDS)


def raise_if_failed(document: ResultDocument) -> None:
    """Raise a stored failure again, as the type that it was.

    Parameters
    ----------
    document
        A stored result.

    Raises
    ------
    EsenFlowsError
        The result is a failure; of the stored type, with the stored message and the key.
    """
    if document.state != "failed":
        return
    assert document.failure is not None  # a failed document has one
    kind = getattr(errors, document.failure.error, EsenFlowsError)
    raise kind(f"{document.failure.message} (stored failure {document.key[:12]})")


def failure_of(error: Exception) -> Failure:
    """An error as result documents keep it.

    Parameters
    ----------
    error
        What a computation raised.

    Returns
    -------
    Failure
        Type and message of the error. Only errors of this package can be final.
    """
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
    """Make the document of a request: with its output and summary, or with its failure.

    Parameters
    ----------
    request
        The requested step.
    context
        What the document repeats of structure and force field.
    seconds
        Wall time that the step took.
    evaluations
        Structures evaluated for it.
    output, summary
        The result, and the numbers of it that tables show.
    failure
        Why there is no result.

    Returns
    -------
    ResultDocument
        The document, not yet stored.
    """
    return ResultDocument(
        kind=request.kind,
        key=request.key,
        parent_key=request.parent_key,
        parents=request.parents,
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
        summary=({"domain": context.domain} if summary and context.domain else {}) | (summary or {}),
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
    """Id of the firework whose job this process runs, as FireWorks gave it to jobflow."""
    jobflow = sys.modules.get("jobflow")  # without it, this is not a firework
    job = jobflow.CURRENT_JOB.job if jobflow else None
    return None if job is None else job.metadata.get("fw_id")


def _threads() -> int:
    """Number of threads that the step could use."""
    torch = sys.modules.get("torch")  # a step without force calls does not pay for its import
    return torch.get_num_threads() if torch else int(os.environ.get("OMP_NUM_THREADS") or os.cpu_count() or 1)
