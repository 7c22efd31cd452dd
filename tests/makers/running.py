"""Jobs and flows run in this process, for the tests of Makers."""

from typing import Any

from jobflow import Flow, Job, run_locally

from esen_flows.store.jobflow_store import job_store


def run(work: Flow | Job, copper: Any) -> Any:
    """Run a job or flow with the store of the fixture `copper`; the output of its last job."""
    responses = run_locally(work, log=False, store=job_store(copper.store), raise_immediately=True)
    last = list(responses.values())[-1]
    return last[max(last)].output
