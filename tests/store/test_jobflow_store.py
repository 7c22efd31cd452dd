"""jobflow's outputs land in our database, over the socket too."""

import warnings
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from esen_flows.store.results import Store

pytestmark = [pytest.mark.mongod, pytest.mark.filterwarnings("ignore")]


def test_a_flow_runs_against_it(store: "Store") -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of maggma and its libraries
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
    assert store.database["jobs"].count_documents({}) == 2
    assert store.database["data.files"].count_documents({}) == 1
    row = store.database["jobs"].find_one({"uuid": first.uuid})
    assert row is not None
    assert row["output"]["n"] == 4
    assert "blob_uuid" in row["output"]["trajectory"]
    assert jobs.docs_store._collection.write_concern.document["j"] is True
    jobs.close()
