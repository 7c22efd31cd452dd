"""One firework at a time on a server that may be killed meanwhile, and the ways back from what a kill leaves.

FireWorks writes a step's end in several operations: the launch, then new fireworks, then the firework's state, at last
its workflow. The workflow is therefore what tells whether the rest was done; what is newer than it is undone and done
again.
"""

import sys
import time
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Any

from fireworks import FWorker, LaunchPad
from fireworks.core.launchpad import WFLock
from fireworks.core.rocket import Rocket

from esen_flows.errors import ServerUnavailableError
from esen_flows.stopping import Stopped, is_stopping
from esen_flows.store.claims import Claim, Claims
from esen_flows.store.database import Database, Row
from esen_flows.store.jobflow_files import launchpad_spec
from esen_flows.store.server_outages import is_outage, retry_until_available

# In the environment that a launch notes of its worker: such a launch holds a claim from before its start to its end.
WORKER_MARK = "esen_flows_worker"
# How often a firework that is not ours may kill its process, and one may lose a server, before it is left alone.
MOST_DEATHS, MOST_OUTAGES = 3, 10
DEATHS, OUTAGES = "_esen_flows_deaths", "_esen_flows_outages"
READY_AGAIN = "READY again"
_LOCK_SECONDS = 5.0  # whoever lives holds a workflow's lock for a fraction of a second
_ENDED = ("COMPLETED", "FIZZLED")


def claim_key(firework_id: int) -> str:
    """Of the claim that a process holds while it runs a firework."""
    return f"firework:{firework_id}"


class _Away(BaseException):
    """The server was away, told past code that handles every Exception in one way."""


class Pad(LaunchPad):
    """Our database's launchpad; what a rocket does on it is repeated when the server was away.

    Parameters
    ----------
    database
        where it is.
    patience_seconds
        how long the server may stay away.

    Attributes
    ----------
    handed_back
        the last firework was made READY again instead of FIZZLED, because its process has to end or the
        server was away: neither says anything about the work.
    """

    def __init__(self, database: Database, patience_seconds: float) -> None:
        spec = launchpad_spec(database)
        super().__init__(
            host=spec["host"], uri_mode=True, name=spec["name"], mongoclient_kwargs=spec["mongoclient_kwargs"],
            strm_lvl="WARNING",
        )  # fmt: skip
        self.database = database
        self.patience_seconds = patience_seconds
        self.handed_back = False

    def checkout_fw(self, fworker: FWorker, *arguments: Any, **options: Any) -> Any:
        """As LaunchPad's; `fworker` asks for one firework by its id."""
        number = fworker.query["fw_id"]

        def check_out(failures: int) -> Any:
            if failures:
                self._take_back(number, fworker)
            try:
                return super(Pad, self).checkout_fw(fworker, *arguments, **options)
            except _Away as away:
                raise ServerUnavailableError("the server was away while a firework was read") from away.__cause__

        return retry_until_available(self.database, check_out, self.patience_seconds)

    def get_fw_by_id(self, fw_id: int) -> Any:
        """As LaunchPad's, except that no `except Exception` of a checkout takes an outage for a broken firework."""
        try:
            return super().get_fw_by_id(fw_id)
        except Exception as error:
            if is_outage(error):
                raise _Away from error
            raise

    def ping_launch(self, *arguments: Any, **options: Any) -> None:
        """As LaunchPad's."""
        retry_until_available(
            self.database, lambda _: super(Pad, self).ping_launch(*arguments, **options), self.patience_seconds
        )

    def complete_launch(self, launch_id: int, action: Any = None, state: str = "COMPLETED") -> Any:
        """As LaunchPad's, except that what says nothing of the work is no failure of the firework."""
        error = sys.exc_info()[1]  # a rocket reports a failure while it handles it

        def complete(failures: int) -> Any:
            number = self.launches.find_one({"launch_id": launch_id}, {"fw_id": True})["fw_id"]
            if state == "FIZZLED" and self._says_nothing_of_the_work(number, error):
                self.handed_back = True
                return put_back(self, number)
            if failures:
                undo_unfinished(self, number)
            return super(Pad, self).complete_launch(launch_id, action, state)

        return retry_until_available(self.database, complete, self.patience_seconds)

    def _says_nothing_of_the_work(self, number: int, error: BaseException | None) -> bool:
        """Whether a job was broken off because its process has to end, or because a server was away."""
        if isinstance(error, Stopped) or (is_stopping() and isinstance(error, SystemExit | KeyboardInterrupt)):
            return True
        # A job may use another server than ours, which may stay away for ever.
        return is_outage(error) and count(self, number, OUTAGES) <= MOST_OUTAGES

    def _refresh_wf(self, fw_id: int) -> None:
        """As LaunchPad's, which takes an outage for a broken firework and writes that down."""
        try:
            with WFLock(self, fw_id):
                workflow = self.get_wf_by_fw_id_lzyfw(fw_id)
                self._update_wf(workflow, workflow.refresh(fw_id))
        except Exception as error:
            if is_outage(error):
                raise
            super()._refresh_wf(fw_id)  # meets the same error, and does about it what it does

    def _take_back(self, number: int, fworker: FWorker) -> None:
        """Make READY what a checkout of ours had begun with; plain `rlaunch` may have been faster, and keeps it."""
        row = self.fireworks.find_one({"fw_id": number}, {"state": True, "launches": True})
        if row is None or row["state"] not in ("RESERVED", "RUNNING"):
            return
        launches = self.launches.find({"launch_id": {"$in": row["launches"]}}, {"fworker.env": True})
        if all(launch["fworker"]["env"] == fworker.env for launch in launches):
            put_back(self, number)


def run_firework(pad: Pad, number: int, name: str, worker_id: str) -> bool:
    """Run one READY firework in this process and folder; False if somebody else was faster.

    Parameters
    ----------
    number
        its id; the caller holds its claim.
    name
        of the worker, which `_fworker` of a firework may ask for.
    worker_id
        noted with the launch.
    """
    pad.handed_back = False
    ran = Rocket(pad, FWorker(name, "", {"fw_id": number}, {WORKER_MARK: worker_id}), 0).run()
    pad.backup_launch_data.clear()  # a copy of every firework that this process ever ran
    pad.backup_fw_data.clear()
    return bool(ran)


def find_ready(pad: Pad, query: Mapping[str, Any], seconds_left: float, limit: int) -> list[Row]:
    """Fireworks to run, best first: READY, in time, in a workflow that nobody is changing.

    Parameters
    ----------
    query
        of FireWorks' FWorker.
    seconds_left
        those that say they need more (`least_seconds` of their spec) are left out; may be infinite.
    limit
        of the look.
    """
    wanted = {**query, "state": "READY"}
    if seconds_left != float("inf"):
        wanted["spec.least_seconds"] = {"$not": {"$gt": seconds_left}}
    fields = {"fw_id": True, "name": True, "created_on": True}
    rows = list(pad.fireworks.find(wanted, fields).sort("spec._priority", -1).limit(limit))
    free = {"nodes": {"$in": [row["fw_id"] for row in rows]}, "locked": {"$exists": False}}
    nodes = {number for workflow in pad.workflows.find(free, {"nodes": True}) for number in workflow["nodes"]}
    return [row for row in rows if row["fw_id"] in nodes]


def take(claims: Claims, number: int) -> Claim | None:
    """The claim on running a firework, unless somebody alive has it."""
    return claims.try_claim(claim_key(number))


def put_back(pad: Pad, number: int) -> None:
    """Make a firework READY again whose process is gone; the caller holds its claim."""
    unlock(pad, number)
    pad.rerun_fw(number)


def bring_back(pad: Pad, firework: Mapping[str, Any]) -> str:
    """Complete the end of a firework whose process is gone, if that was half written, else make it READY again.

    Parameters
    ----------
    firework
        its fw_id and launches; the caller holds its claim.

    Returns
    -------
    str
        What was done, `READY_AGAIN` or the other.
    """
    if has_ended_launch(pad, firework):
        finish(pad, firework["fw_id"])
        return "its end was written half, and is complete now"
    put_back(pad, firework["fw_id"])
    return READY_AGAIN


def count(pad: Pad, number: int, what: str) -> int:
    """Note in a firework that is not READY what has happened to it again (`DEATHS`, `OUTAGES`); how often by now."""
    pad.fireworks.update_one({"fw_id": number}, {"$inc": {f"spec.{what}": 1}})
    row = pad.fireworks.find_one({"fw_id": number}, {f"spec.{what}": True})
    return int(row["spec"][what]) if row else 0


def fizzle(pad: Pad, number: int, reason: str) -> None:
    """End a firework as failed, with a reason that `lpad get_fws` shows."""
    row = pad.fireworks.find_one({"fw_id": number}, {"launches": True})
    unlock(pad, number)
    pad.fireworks.update_one({"fw_id": number}, {"$set": {"spec._exception_details": {"_message": reason}}})
    pad.mark_fizzled(row["launches"][-1])


def unlock(pad: Pad, number: int) -> None:
    """Wait until nobody changes the workflow of a firework, and take away a lock that a dead process left."""
    fields = {"locked": True, "updated_on": True, "fw_states": True}
    before, since = None, time.monotonic()
    while True:
        found = pad.workflows.find_one({"nodes": number}, fields)
        if found is None or "locked" not in found:
            return
        if found != before:
            before, since = found, time.monotonic()
        elif time.monotonic() - since > _LOCK_SECONDS:
            pad.workflows.update_one({"nodes": number}, {"$unset": {"locked": True}})
            return
        time.sleep(0.1)


def undo_unfinished(pad: Pad, number: int) -> bool:
    """Take back what was written of a firework's end before its workflow was; False if the workflow was written too.

    The caller holds the firework's claim, or runs it.
    """
    unlock(pad, number)
    workflow = pad.workflows.find_one({"nodes": number}, {"fw_states": True})
    firework = pad.fireworks.find_one({"fw_id": number}, {"state": True, "launches": True})
    if workflow is None or firework is None:
        return False
    noted = workflow["fw_states"][str(number)]
    if noted == firework["state"] == "COMPLETED":
        return False
    for launch in pad.launches.find({"launch_id": {"$in": firework["launches"]}}, {"action": True}):
        _remove_orphans(pad, launch.get("action") or {})
    pad.fireworks.update_one({"fw_id": number}, {"$set": {"state": "RUNNING"}})
    pad.workflows.update_one({"nodes": number}, {"$set": {f"fw_states.{number}": "RUNNING"}})
    return True


def finish(pad: Pad, number: int) -> None:
    """Write down the end of a firework whose launch has ended, where its process was killed at that."""
    if undo_unfinished(pad, number):
        pad.detect_lostruns(expiration_secs=10**9, refresh=True, query={"fw_id": number})


def has_ended_launch(pad: Pad, firework: Mapping[str, Any]) -> bool:
    """Whether one of its launches is over, whatever the firework itself says."""
    query = {"launch_id": {"$in": firework["launches"]}, "state": {"$in": list(_ENDED)}}
    return pad.launches.find_one(query, {"_id": True}) is not None


def _remove_orphans(pad: Pad, action: Mapping[str, Any]) -> None:
    """Fireworks that an action brought without their workflow; the time of its creation tells a firework."""
    for workflow in (*action.get("detours", ()), *action.get("additions", ())):
        for firework in workflow["fws"]:
            alike = {"name": firework["name"], "created_on": firework["created_on"]}
            for row in list(pad.fireworks.find(alike, {"fw_id": True})):
                if pad.workflows.find_one({"nodes": row["fw_id"]}, {"_id": True}) is None:
                    pad.fireworks.delete_one({"fw_id": row["fw_id"]})


def remove_orphaned_ready(pad: Pad, age_seconds: float) -> list[int]:
    """Remove READY fireworks without a workflow: a kill between the two left them, and they stop who takes them.

    Parameters
    ----------
    age_seconds
        younger ones are left alone, because they are written ahead of their workflow.
    """
    before = (datetime.now(UTC) - timedelta(seconds=age_seconds)).isoformat()
    pipeline: list[dict[str, Any]] = [
        {"$match": {"state": "READY", "created_on": {"$lt": before}}},
        {"$project": {"fw_id": 1}},
        {"$lookup": {"from": "workflows", "localField": "fw_id", "foreignField": "nodes", "as": "home"}},
        {"$match": {"home": []}},
    ]
    orphans = [int(row["fw_id"]) for row in pad.fireworks.aggregate(pipeline)]
    pad.fireworks.delete_many({"fw_id": {"$in": orphans}, "state": "READY"})
    return orphans
