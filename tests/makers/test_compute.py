"""A result, or the failure in its place, is computed and stored once."""

from typing import Any

import pytest

from esen_flows.errors import ClaimedElsewhereError, EvaluationError, ImaginaryModesError, ModelError, StoreError
from esen_flows.makers.compute import Context, Meter, Summary, compute_once, raise_if_failed
from esen_flows.progress import listening
from esen_flows.schemas.documents import Document
from esen_flows.schemas.protocols import NumericSettings, RelaxProtocol
from esen_flows.schemas.requests import ResultRequest, property_requests
from esen_flows.stopping import Stopped
from esen_flows.store.claims import Claim

pytestmark = pytest.mark.mongod

(REQUEST,) = property_requests("aa" * 32, "cc" * 32, RelaxProtocol(), NumericSettings())
CONTEXT = Context(
    identity={
        "formula": "Cu",
        "chemsys": "Cu",
        "elements": ["Cu"],
        "nsites": 4,
        "space_group_number": 225,
        "space_group_symbol": "Fm-3m",
    },
    model_label="emt",
    material_ids=("mp-30",),
    tags=("test",),
)


class Number(Document):
    """The smallest output."""

    value: float


class Work:
    """Computes a number, or raises, and counts how often it was asked."""

    def __init__(self, error: BaseException | None = None, evaluations: Any = None) -> None:
        self.error, self.evaluations, self.calls = error, evaluations, 0

    def __call__(self, meter: Meter) -> tuple[Document, Summary]:
        self.calls += 1
        if self.evaluations is not None:
            meter.watch(self.evaluations)
            self.evaluations.force_evaluations += 3
        if self.error is not None:
            raise self.error
        return Number(value=42.0), {"value": 42.0}


def claim_of(store: Any, request: ResultRequest) -> Claim:
    found = store.get_or_claim(request.key, wait_seconds=0.0)
    assert isinstance(found, Claim)
    return found


def test_a_second_request_reads_the_stored_result(copper: Any) -> None:
    work = Work(evaluations=copper.force_field)
    first = compute_once(copper.store, REQUEST, CONTEXT, work)
    second = compute_once(copper.store, REQUEST, CONTEXT, work)
    assert work.calls == 1
    assert first == second
    assert (first.key, first.state, first.output) == (REQUEST.key, "finished", {"value": 42.0})
    assert first.provenance.force_evaluations == 3
    assert first.provenance.seconds > 0.0
    assert (first.material_ids, first.tags, first.formula) == (["mp-30"], ["test"], "Cu")
    assert first.protocol == RelaxProtocol().model_dump(mode="json")


def test_a_final_failure_is_raised_again_from_the_store(copper: Any) -> None:
    work = Work(ImaginaryModesError("unstable at X"), evaluations=copper.force_field)
    with pytest.raises(ImaginaryModesError, match="unstable at X"):
        compute_once(copper.store, REQUEST, CONTEXT, work)
    with pytest.raises(ImaginaryModesError, match=rf"unstable at X \(stored failure {REQUEST.key[:12]}\)"):
        compute_once(copper.store, REQUEST, CONTEXT, work)
    assert work.calls == 1
    stored = copper.store.get(REQUEST.key)
    assert (stored.state, stored.output) == ("failed", None)
    assert stored.failure.model_dump() == {
        "error": "ImaginaryModesError",
        "message": "unstable at X",
        "final": True,
    }
    assert stored.provenance.force_evaluations == 3


def test_a_failure_that_is_not_final_is_computed_again(copper: Any) -> None:
    class OutOfMemoryError(EvaluationError):
        final = False

    with pytest.raises(OutOfMemoryError):
        compute_once(copper.store, REQUEST, CONTEXT, Work(OutOfMemoryError("no memory")))
    assert copper.store.get(REQUEST.key).failure.final is False
    assert compute_once(copper.store, REQUEST, CONTEXT, Work()).attempt == 1


@pytest.mark.parametrize(
    "error", [KeyboardInterrupt(), ZeroDivisionError(), ModelError("corrupted"), StoreError("gone")]
)
def test_errors_that_say_nothing_about_the_material_are_not_stored(copper: Any, error: BaseException) -> None:
    with pytest.raises(type(error)):
        compute_once(copper.store, REQUEST, CONTEXT, Work(error))
    assert copper.store.get(REQUEST.key) is None
    copper.store.release(claim_of(copper.store, REQUEST))  # it was free again


def test_another_process_is_waited_for_and_the_wait_is_reported(copper: Any) -> None:
    claim = claim_of(copper.store, REQUEST)
    heard: list[str] = []

    def listen(kind: str, done: int, total: int | None, words: str) -> None:
        heard.append(words)
        copper.store.release(claim)

    with listening(listen):
        assert compute_once(copper.store, REQUEST, CONTEXT, Work()).state == "finished"
    assert heard == ["another process is computing this; waiting for it"]
    (other,) = property_requests("ab" * 32, "cc" * 32, RelaxProtocol(), NumericSettings())
    claim_of(copper.store, other)
    with pytest.raises(ClaimedElsewhereError):
        compute_once(copper.store, other, CONTEXT, Work(), wait_seconds=0.2)


def test_a_wait_for_another_process_can_be_stopped(copper: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    claim_of(copper.store, REQUEST)
    monkeypatch.setattr("esen_flows.makers.compute.LISTEN_SECONDS", 0.1)
    heard: list[str] = []

    def stop(kind: str, done: int, total: int | None, words: str) -> None:
        heard.append(words)
        if len(heard) == 3:
            raise Stopped

    with listening(stop), pytest.raises(Stopped):
        compute_once(copper.store, REQUEST, CONTEXT, Work())


def test_a_failure_of_an_unknown_type_still_raises(copper: Any) -> None:
    class LatestError(EvaluationError):
        """Of a later version of this package."""

    with pytest.raises(LatestError):
        compute_once(copper.store, REQUEST, CONTEXT, Work(LatestError("new")))
    with pytest.raises(Exception, match="new") as caught:
        raise_if_failed(copper.store.get(REQUEST.key))
    assert type(caught.value).__name__ == "EsenFlowsError"
