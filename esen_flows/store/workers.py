"""The workers of our launchpad: one document each in `workers`, which the worker updates with the server's clock."""

import getpass
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from pymongo import ASCENDING, IndexModel

from esen_flows.store.database import Database, Row
from esen_flows.store.host import Host
from esen_flows.store.reading import find_one

COLLECTION = "workers"
_INDEXES = [
    IndexModel([("ended_at", ASCENDING), ("seen_at", ASCENDING)], name="ended_seen"),
    IndexModel("children.pid", name="children_pid"),
]


@dataclass(frozen=True)
class WorkerFacts:
    """Properties of a worker that do not change while it lives.

    Attributes
    ----------
    name
        Name of the worker, which its fireworks note.
    category
        Category of the fireworks that it takes; "" for all.
    devices
        CUDA devices, one child process each; empty without GPUs.
    queue_job
        Job of a queueing system, such as {"kind": "slurm", "id": "17"}; None outside a queue.
    """

    name: str
    category: str
    devices: tuple[str, ...]
    queue_job: Mapping[str, str] | None


class WorkerRecord:
    """The document of a worker in `workers`.

    Parameters
    ----------
    database
        Database of the launchpad.
    facts
        Properties of the worker.

    Attributes
    ----------
    id
        Id of the document.
    """

    def __init__(self, database: Database, facts: WorkerFacts) -> None:
        self._database = database
        self.id = uuid.uuid4().hex
        process = Host().process().as_dict()
        self._row: Row = {
            **asdict(facts),
            "devices": list(facts.devices),
            "host": process["host"],
            "pid": process["pid"],
            "process": process,
            "user": user_name(),
            "ended_at": None,
        }

    def begin(self) -> None:
        """Write the document."""
        db = self._database
        db.call(lambda: db[COLLECTION].create_indexes(_INDEXES))
        self._set({**self._row, "fireworks": [], "children": []}, "started_at", "seen_at", upsert=True)

    def seen(self, fireworks: Sequence[int], children: Sequence[Mapping[str, Any]], done: int, failed: int) -> None:
        """Note that the worker lives.

        Parameters
        ----------
        fireworks
            Ids of the fireworks that run now.
        children
            Its child processes, in the form of `ProcessId.as_dict`.
        done, failed
            Numbers of fireworks since the start.
        """
        fields = {"fireworks": list(fireworks), "children": list(children), "done": done, "failed": failed}
        self._set(fields, "seen_at")

    def end(self, reason: str, done: int, failed: int) -> None:
        """Note that the worker has ended.

        Parameters
        ----------
        reason
            Why it has ended.
        done, failed
            Numbers of fireworks since the start.
        """
        fields = {"fireworks": [], "children": [], "done": done, "failed": failed, "end": reason}
        self._set(fields, "seen_at", "ended_at")

    def _set(self, values: Mapping[str, Any], *times: str, upsert: bool = False) -> None:
        """Set fields, and the current time of the server in others."""
        db = self._database
        fields: dict[str, Any] = {name: {"$literal": value} for name, value in values.items()}
        fields |= dict.fromkeys(times, "$$NOW")
        db.call(lambda: db[COLLECTION].update_one({"_id": self.id}, [{"$set": fields}], upsert=upsert))


def queue_job_of(database: Database, process: Mapping[str, Any]) -> tuple[Mapping[str, str], str] | None:
    """The queue job in which a child process of a worker runs.

    Parameters
    ----------
    database
        Database of the launchpad.
    process
        The child process, in the form of `ProcessId.as_dict`.

    Returns
    -------
    tuple of Mapping, str | None
        The queue job and the user who submitted it; None if none is known.
    """
    query: Row = {"children": {"$elemMatch": dict(process)}, "queue_job": {"$ne": None}}
    row = find_one(database, COLLECTION, query, sort=[("started_at", -1)])
    return (row["queue_job"], row["user"]) if row else None


def user_name() -> str:
    """Name of the user of this process.

    Returns
    -------
    str
        The name; empty in a container that does not know it.
    """
    try:
        return getpass.getuser()
    except (KeyError, OSError):
        return ""
