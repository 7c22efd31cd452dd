"""The settings files of jobflow and FireWorks, so that Makers of other packages store in the same database."""

import platform
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import bson
import yaml

from esen_flows.errors import InputError
from esen_flows.store.database import Database

DOCUMENTS, DATA = "jobs", "data"


def job_store_spec(database: Database) -> dict[str, Any]:
    """Specification of jobflow's JobStore: outputs are in `jobs`, and what Makers mark as data is in `data`.

    Data are in GridFS, because MongoDB refuses documents over 16 MB. Outputs that are too long without being marked are
    stored there as well (`LargeDocumentJobStore`).

    Parameters
    ----------
    database
        Open database.

    Returns
    -------
    dict of str to Any
        Argument of `JobStore.from_dict`. It holds the URI of the server with its password.
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
    """Specification of FireWorks' LaunchPad, whose collections are in the same database.

    Parameters
    ----------
    database
        Open database.

    Returns
    -------
    dict of str to Any
        Argument of `LaunchPad.from_dict`. It holds the URI of the server with its password.
    """
    return {
        "host": database.uri,
        "uri_mode": True,
        "name": database.database_name,
        "mongoclient_kwargs": database.client_options,
        "logdir": None,
        "strm_lvl": "INFO",
    }


def document_bytes(document: Mapping[str, Any]) -> bytes:
    """A document as it is sent to the server, which refuses documents over 16 MB.

    Parameters
    ----------
    document
        Document of any collection.

    Returns
    -------
    bytes
        BSON.
    """
    return bytes(bson.encode(document))


def write_jobflow_files(database: Database, folder: Path) -> list[Path]:
    """Write jobflow.yaml, my_launchpad.yaml and my_fworker.yaml for a database, readable by this user alone.

    Parameters
    ----------
    database
        Open database.
    folder
        Folder of the files; it is made if it does not exist.

    Returns
    -------
    list of Path
        Paths of the files.

    Raises
    ------
    InputError
        One of the files exists; then none is written.
    """
    contents = {
        "jobflow.yaml": {"JOB_STORE": job_store_spec(database)},
        "my_launchpad.yaml": launchpad_spec(database),
        "my_fworker.yaml": {"name": platform.node(), "category": "", "query": "{}"},
    }
    folder.mkdir(parents=True, exist_ok=True)
    written: list[Path] = []
    try:
        for name, content in contents.items():
            path = folder / name
            try:
                # Not `written_whole`: a file that exists is refused, and other users may at no time read the password.
                path.touch(mode=0o600, exist_ok=False)
            except FileExistsError:
                raise InputError(f"{path} exists; remove it, or give another folder") from None
            written.append(path)
            path.write_text(yaml.dump(content, Dumper=_NoAliases, sort_keys=False))
    except BaseException:
        for path in written:
            path.unlink(missing_ok=True)
        raise
    return written


class _NoAliases(yaml.SafeDumper):
    """Repeats a value that occurs twice, because jobflow's reader does not accept references."""

    def ignore_aliases(self, data: Any) -> bool:
        """Always."""
        return True
