"""The former name of LargeDocumentJobStore, which stands in jobflow.yaml files of users."""

from esen_flows.store.large_document_job_store import LargeDocumentJobStore as RoomyStore

__all__ = ["RoomyStore"]
