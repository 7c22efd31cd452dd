"""jobflow's JobStore in our database; a module of its own because importing maggma takes seconds."""

from jobflow import JobStore
from maggma.stores import MongoStore

from esen_flows.store.results import Store

DOCUMENTS, DATA = "jobs", "data"


def job_store(store: Store) -> JobStore:
    """A JobStore beside our collections: small outputs in `jobs`, what Makers mark as data in `data`.

    It holds the server's URI, so it must never be serialised: `flow_to_workflow` is called without a store.
    """
    database = store.database

    def collection(name: str) -> MongoStore:
        return MongoStore.from_uri(
            database.uri,
            name,
            database=database.database_name,
            mongoclient_kwargs=database.client_options,
        )

    return JobStore(collection(DOCUMENTS), additional_stores={"data": collection(DATA)})
