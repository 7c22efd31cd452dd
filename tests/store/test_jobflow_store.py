"""Outputs of jobflow are stored in our database."""

import warnings
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from esen_flows.store.exchange.spool_store import SpoolStore

if TYPE_CHECKING:
    from esen_flows.store.results import Store

pytestmark = pytest.mark.filterwarnings("ignore")


def run_two_jobs(store: "Store") -> tuple[Any, str]:
    """Run a flow in which the second job uses the output of the first; jobflow's store, and the first job's uuid."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # warnings of maggma and its libraries
        from jobflow import Flow, job, run_locally

        from esen_flows.store.jobflow_store import job_store

    @job(data=["trajectory"])
    def make(n: int) -> dict[str, object]:
        return {"n": n, "trajectory": list(range(n))}

    @job
    def add(a: int, b: list[int]) -> int:
        return a + sum(b)

    first = make(4)
    second = add(first.output["n"], first.output["trajectory"])
    jobs = job_store(store)
    responses = run_locally(Flow([first, second]), log=False, store=jobs, raise_immediately=True)
    assert responses[second.uuid][1].output == 10
    return jobs, first.uuid


def test_a_flow_runs_without_a_server(tmp_path: Path) -> None:
    with closing(SpoolStore(tmp_path)) as spool:
        run_two_jobs(spool)


@pytest.mark.mongod
def test_a_flow_runs_against_it(store: "Store") -> None:
    jobs, first = run_two_jobs(store)
    assert store.database["jobs"].count_documents({}) == 2
    assert store.database["data.files"].count_documents({}) == 1
    row = store.database["jobs"].find_one({"uuid": first})
    assert row["output"]["n"] == 4
    assert "blob_uuid" in row["output"]["trajectory"]
    assert jobs.docs_store._collection.write_concern.document["j"] is True
    jobs.close()


@pytest.mark.mongod
def test_parts_that_do_not_fit_into_a_document_are_moved(store: "Store", monkeypatch: pytest.MonkeyPatch) -> None:
    """As few of the largest parts as needed, or an output that is not a dictionary."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from jobflow import job, run_locally

        from esen_flows.store import large_document_job_store
        from esen_flows.store.jobflow_store import job_store

    monkeypatch.setattr(large_document_job_store, "LIMIT_BYTES", 3000)

    @job
    def make() -> dict[str, object]:
        return {"n": 1, "some": ["s" * 1000], "most": ["m" * 2000], "deep": {"list": list(range(50))}}

    @job
    def text() -> str:
        return "t" * 4000

    jobs = job_store(store)
    for made, moved in ((make(), ["most"]), (text(), None)):
        responses = run_locally(made, log=False, store=jobs, raise_immediately=True)
        expected = responses[made.uuid][1].output
        assert jobs.get_output(made.uuid, load=True) == expected
        row = store.database["jobs"].find_one({"uuid": made.uuid})
        assert row is not None
        found = row["output"]
        assert found["store"] == "data" if moved is None else [n for n in found if found[n] != expected[n]] == moved
    assert store.database["data.files"].count_documents({"metadata.job_uuid": {"$exists": True}}) == 2
    jobs.close()
