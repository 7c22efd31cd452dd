"""The settings files of jobflow and FireWorks, so that other people's Makers store in the same database."""

import os
import platform
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import bson
import yaml

from esen_flows.errors import InputError
from esen_flows.store.database import Database

DOCUMENTS, DATA = "jobs", "data"


def job_store_spec(database: Database) -> dict[str, Any]:
    """What jobflow's `JobStore.from_dict` takes: small outputs in `jobs`, what Makers mark as data in `data`.

    Data are in GridFS, because a document that is longer than 16 MB would be refused after its computation is done;
    what is too long without being marked follows them (`LargeDocumentJobStore`). The specification holds the server's
    URI with its password.
    """
    where = {"uri": database.uri, "database": database.database_name, "mongoclient_kwargs": database.client_options}
    documents = {"collection_name": DOCUMENTS, "data_collection": DATA, **where}
    return {
        "@module": "jobflow.core.store",
        "@class": "JobStore",
        "docs_store": {
            "@module": "esen_flows.store.large_document_job_store",
            "@class": "LargeDocumentJobStore",
            **documents,
        },
        "additional_stores": {
            DATA: {"@module": "maggma.stores.gridfs", "@class": "GridFSStore", "collection_name": DATA, **where}
        },
    }


def launchpad_spec(database: Database) -> dict[str, Any]:
    """What FireWorks' `LaunchPad.from_dict` takes: its collections beside ours; with the server's URI and password."""
    return {
        "host": database.uri,
        "uri_mode": True,
        "name": database.database_name,
        "mongoclient_kwargs": database.client_options,
        "logdir": None,
        "strm_lvl": "INFO",
    }


def document_bytes(document: Mapping[str, Any]) -> bytes:
    """A document as the server gets it; it refuses one of more than 16 MB."""
    return bytes(bson.encode(document))


def write_jobflow_files(database: Database, folder: Path) -> list[Path]:
    """Write jobflow.yaml, my_launchpad.yaml and my_fworker.yaml for a database; readable by this user alone.

    Returns
    -------
    list[Path]
        Their paths.

    Raises
    ------
    InputError
        one of them exists; then none is written.
    """
    worker = {"name": platform.node(), "category": "", "query": "{}"}
    contents = {
        "jobflow.yaml": {"JOB_STORE": job_store_spec(database)},
        "my_launchpad.yaml": launchpad_spec(database),
        "my_fworker.yaml": worker,
    }
    folder.mkdir(parents=True, exist_ok=True)
    written: list[Path] = []
    try:
        for name, content in contents.items():
            _write_private(folder / name, yaml.dump(content, Dumper=_NoAliases, sort_keys=False))
            written.append(folder / name)
    except BaseException:
        for path in written:
            path.unlink()
        raise
    return written


class _NoAliases(yaml.SafeDumper):
    """Writes values that occur twice twice; jobflow's reader takes no references."""

    def ignore_aliases(self, data: Any) -> bool:
        """Always."""
        return True


def _write_private(path: Path, text: str) -> None:
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    except FileExistsError:
        raise InputError(f"{path} exists; remove it, or give another folder") from None
    try:
        with os.fdopen(descriptor, "w") as file:
            file.write(text)
    except BaseException:
        with suppress(OSError):
            path.unlink()
        raise
