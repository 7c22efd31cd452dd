"""Who works for our launchpad: one document per worker, kept up to date by itself with the server's clock."""

import getpass
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from pymongo import ASCENDING, IndexModel

from esen_flows.store.database import Database, Row
from esen_flows.store.host import Host

COLLECTION = "workers"
_INDEXES = [
    IndexModel([("ended_at", ASCENDING), ("seen_at", ASCENDING)], name="ended_seen"),
    IndexModel("children.pid", name="children_pid"),
]


@dataclass(frozen=True)
class WorkerFacts:
    """What does not change while a worker lives.

    Attributes
    ----------
    name
        as its fireworks note it.
    category
        of fireworks that it takes; "" for all.
    devices
        CUDA devices, one child process each; empty without GPUs.
    queue_job
        {"kind": "slurm", "id": "17", ...}; None outside a queue.
    """

    name: str
    category: str
    devices: tuple[str, ...]
    queue_job: Mapping[str, str] | None


class WorkerRecord:
    """This process's document in `workers`."""

    def __init__(self, database: Database, facts: WorkerFacts, host: Host | None = None) -> None:
        self._database = database
        self.id = uuid.uuid4().hex
        process = (host or Host()).process().as_dict()
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
        fresh = {name: {"$literal": value} for name, value in self._row.items()}
        pipeline = [{"$set": {**fresh, "started_at": "$$NOW", "seen_at": "$$NOW", "fireworks": [], "children": []}}]
        db.call(lambda: db[COLLECTION].update_one({"_id": self.id}, pipeline, upsert=True))

    def seen(self, fireworks: Sequence[int], children: Sequence[Mapping[str, Any]], done: int, failed: int) -> None:
        """Note that the worker lives.

        Parameters
        ----------
        fireworks
            ids of those in work.
        children
            its processes, as `ProcessId.as_dict` gives them.
        done, failed
            fireworks since the start.
        """
        self._set({"fireworks": list(fireworks), "children": list(children), "done": done, "failed": failed})

    def end(self, reason: str, done: int, failed: int) -> None:
        """Note that the worker has ended, and why."""
        self._set({"fireworks": [], "children": [], "done": done, "failed": failed, "end": reason}, ended=True)

    def _set(self, values: Mapping[str, Any], ended: bool = False) -> None:
        db = self._database
        fields: dict[str, Any] = {name: {"$literal": value} for name, value in values.items()}
        fields["seen_at"] = "$$NOW"
        if ended:
            fields["ended_at"] = "$$NOW"
        db.call(lambda: db[COLLECTION].update_one({"_id": self.id}, [{"$set": fields}]))


def queue_job_of(database: Database, process: Mapping[str, Any]) -> tuple[Mapping[str, str], str] | None:
    """The queue job that a worker's child process belongs to and the user that it is of; None where none is known."""
    query = {"children.pid": process["pid"], "queue_job": {"$ne": None}}
    rows = database.call(lambda: list(database[COLLECTION].find(query).sort("started_at", -1)))
    for row in rows:
        if any(dict(child) == dict(process) for child in row["children"]):
            return row["queue_job"], row["user"]
    return None


def user_name() -> str:
    """Who runs this process; empty in a container that does not know."""
    try:
        return getpass.getuser()
    except (KeyError, OSError):
        return ""
