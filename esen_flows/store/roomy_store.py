"""The former name of LargeDocumentJobStore, which stands in users' jobflow.yaml."""

from esen_flows.store.large_document_job_store import LargeDocumentJobStore as RoomyStore

__all__ = ["RoomyStore"]
