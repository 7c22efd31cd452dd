"""jobflow's documents of any size, for Makers that return more than they mark as data.

MongoDB refuses a document over 16 MB, and jobflow would find that out only after the computation. A module of its own,
because the import of maggma takes seconds; jobflow.yaml names the class, so that every worker uses it.
"""

from typing import Any

import bson
from maggma.stores import GridFSStore, MongoStore

LIMIT_BYTES = 15_000_000  # MongoDB accepts 16 MB, to which pymongo adds a little


class LargeDocumentJobStore(MongoStore):
    """A MongoStore that moves what does not fit into a document to where jobflow stores data, and finds it again.

    Parameters
    ----------
    data_collection
        Collection of GridFS files, which the JobStore has as its additional store of the same name.
    options
        Options of MongoStore.
    """

    def __init__(self, data_collection: str, **options: Any) -> None:
        super().__init__(**options)
        self.data_collection = data_collection

    def update(self, docs: list[dict[str, Any]] | dict[str, Any], key: list[str] | str | None = None) -> None:
        """Insert or replace documents of jobs.

        Parameters
        ----------
        docs
            Documents from the JobStore: sanitised, with uuid, index and output.
        key
            Fields that decide which document is replaced.
        """
        super().update([self._fitting(doc) for doc in ([docs] if isinstance(docs, dict) else docs)], key=key)

    def _fitting(self, doc: dict[str, Any]) -> dict[str, Any]:
        """The document, from whose output the largest parts are moved until it fits."""
        excess = len(bson.encode(doc)) - LIMIT_BYTES
        if excess <= 0:
            return doc
        output = doc["output"]
        if not isinstance(output, dict):
            return {**doc, "output": self._moved(doc, output)}
        sizes = {name: len(bson.encode({"": value})) for name, value in output.items()}
        output = dict(output)
        for name in sorted(sizes, key=lambda name: -sizes[name]):
            output[name] = self._moved(doc, output[name])
            excess -= sizes[name]
            if excess <= 0:
                break
        return {**doc, "output": output}

    def _moved(self, doc: dict[str, Any], value: Any) -> dict[str, str]:
        """Store a value as jobflow stores data; the reference that jobflow writes in its place."""
        from jobflow.core.store import _get_blob_info

        blob: dict[str, str] = _get_blob_info(value, self.data_collection)
        options = {"uri": self.uri, "database": self.database, "mongoclient_kwargs": self.mongoclient_kwargs}
        data = GridFSStore(collection_name=self.data_collection, key="blob_uuid", **options)
        data.searchable_fields.extend(["job_uuid", "job_index"])
        stored = {name: text for name, text in blob.items() if name != "store"}
        with data:
            data.update([{**stored, "data": value, "job_uuid": doc["uuid"], "job_index": doc["index"]}])
        return blob
