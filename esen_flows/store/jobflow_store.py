"""jobflow's JobStore in our database; a module of its own because importing maggma takes seconds."""

from jobflow import JobStore
from maggma.stores import MemoryStore

from esen_flows.store.exchange.spool_store import SpoolStore
from esen_flows.store.jobflow_files import job_store_spec
from esen_flows.store.results import Store


def job_store(store: Store) -> JobStore:
    """A JobStore beside our collections, the same that `esen-flows db init` writes down for others.

    It holds the server's URI, so it must never be serialised: `flow_to_workflow` is called without a store. Without a
    server it lives in memory: results are in the spool, and what jobs hand on to one another ends with the flow.
    """
    if isinstance(store, SpoolStore):
        return JobStore(MemoryStore("jobs"), additional_stores={"data": MemoryStore("data")})
    return JobStore.from_dict(job_store_spec(store.database))
