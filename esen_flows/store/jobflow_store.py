"""jobflow's JobStore in our database; a module of its own, because the import of maggma takes seconds."""

from jobflow import JobStore
from maggma.stores import MemoryStore

from esen_flows.store.exchange.spool_store import SpoolStore
from esen_flows.store.jobflow_files import job_store_spec
from esen_flows.store.results import Store


def job_store(store: Store) -> JobStore:
    """A JobStore in the database of a store, the same that `esen-flows db init` writes into jobflow.yaml.

    Without a server it is in memory: results are in the spool, and outputs for other jobs are lost after the flow.

    Parameters
    ----------
    store
        Open store.

    Returns
    -------
    JobStore
        The JobStore. It holds the URI of the server, so it must never be serialised: `flow_to_workflow` is called
        without a store.
    """
    if isinstance(store, SpoolStore):
        return JobStore(MemoryStore("jobs"), additional_stores={"data": MemoryStore("data")})
    return JobStore.from_dict(job_store_spec(store.database))
