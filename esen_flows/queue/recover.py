"""Fireworks whose process or queue job is gone become READY again, within a minute and without anybody's hands.

Whoever runs a firework with `esen-flows worker` holds the claim `firework:<id>`; jobs of ours that plain `rlaunch` runs
hold the claim on their result. A claim of this machine is dead with its process; one of another machine when nobody
renews it. Of others' jobs only FireWorks' own hourly ping is known.
"""

import time
from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from fireworks.utilities.fw_utilities import get_my_host

from esen_flows.queue.allocation import CommandRunner, ended_jobs, job_of_this_queue, run_command
from esen_flows.queue.fireworks_adapter import (
    WORKER_MARK,
    Pad,
    bring_back,
    claim_key,
    remove_orphaned_ready,
)
from esen_flows.store.claims import HEARTBEAT_SECONDS, Claims
from esen_flows.store.database import Row
from esen_flows.store.host import Host, ProcessId
from esen_flows.store.results import Store
from esen_flows.store.server_outages import retry_until_available
from esen_flows.store.workers import queue_job_of, user_name

# What nobody renews for longer than a heartbeat is dead; just after an outage all claims of the living are expired.
CONFIRM_SECONDS = HEARTBEAT_SECONDS + 2.0
# A job of ours loads its force field before it claims its result.
START_SECONDS = 60.0
# As `lpad detect_lostruns`: a process that lives pings every hour.
PING_SECONDS = 4 * 3600.0
# Between two questions to a queue, which hundreds of workers share; claims tell most deaths sooner.
QUEUE_SECONDS = 60.0
_PATIENCE_SECONDS = 60.0


@dataclass
class RecoveryReport:
    """What `recover` found.

    Attributes
    ----------
    reasons
        of fireworks that were put right, by id: what had happened to them.
    unknown
        fireworks of others that may run or not, by id, with where to look.
    doubtful
        fireworks that may be dead; a second look after `CONFIRM_SECONDS` tells.
    running
        how many are alive.
    """

    reasons: dict[int, str] = field(default_factory=dict)
    unknown: dict[int, str] = field(default_factory=dict)
    doubtful: list[int] = field(default_factory=list)
    running: int = 0

    def __str__(self) -> str:
        lines = [f"{len(self.reasons)} fireworks put right, {self.running} are running"]
        lines += [f"  {number}: {reason}" for number, reason in sorted(self.reasons.items())]
        if self.unknown:
            lines.append("not known to live or not, because FireWorks asks them for a sign every hour only:")
            lines += [f"  {number}: {words}" for number, words in sorted(self.unknown.items())]
            lines.append("if they are dead: lpad rerun_fws -i ID")
        return "\n".join(lines)


@dataclass(frozen=True)
class _Verdict:
    """Of a firework that is RUNNING or RESERVED; a reason is that it is dead."""

    reason: str = ""
    unknown: str = ""
    sign: Hashable = None  # of life; if it is the same after CONFIRM_SECONDS the firework is dead of `reason`
    stolen_token: str | None = None  # of a claim that still looks alive, though its queue job is gone


def recover(store: Store, *, now: bool = False, run: CommandRunner = run_command) -> RecoveryReport:
    """Put right what dead processes left on the launchpad; takes 12 s where something needs a second look.

    Parameters
    ----------
    store
        in whose database the launchpad is.
    now
        believe the first look: claims that expired on other machines are dead, and jobs that have just started
        without a claim too. Wrong for up to a minute after the server was away.
    run
        runs a queue's command.

    Raises
    ------
    StoreError
        the server refuses or stays away.
    """
    pad, claims = Pad(store.database, _PATIENCE_SECONDS), Claims(store.database)
    try:
        recovery = LostRunRecovery(store, pad, claims, run)
        report = retry_until_available(store.database, lambda _: recovery.look(now=now), _PATIENCE_SECONDS)
        if report.doubtful:
            time.sleep(CONFIRM_SECONDS)
            second = retry_until_available(store.database, lambda _: recovery.look(now=now), _PATIENCE_SECONDS)
            second.reasons = {**report.reasons, **second.reasons}
            return second
        return report
    finally:
        claims.close()
        pad.connection.close()


class LostRunRecovery:
    """Looks again and again; what needs a second look is remembered from one to the next.

    Parameters
    ----------
    is_looked_after
        whether somebody else puts right what a process leaves, and knows more of its death.
    """

    def __init__(
        self,
        store: Store,
        pad: Pad,
        claims: Claims,
        run: CommandRunner = run_command,
        is_looked_after: Callable[[ProcessId], bool] = lambda _: False,
    ) -> None:
        self._is_looked_after = is_looked_after
        self._database = store.database
        self._pad = pad
        self._claims = claims
        self._run = run
        self._host = Host()
        self._ask_queue_at = 0.0
        self._signs: dict[tuple[str, Any], tuple[Hashable, float]] = {}

    def look(self, *, now: bool = False) -> RecoveryReport:
        """Put right what is certainly dead."""
        report = RecoveryReport()
        self._break_locks(report)
        for number in remove_orphaned_ready(self._pad, START_SECONDS):
            report.reasons[number] = "removed: a kill left it without a workflow, so that it could never run"
        seen: set[tuple[str, Any]] = set()
        for firework, verdict in self._verdicts(now):
            self._treat(firework, verdict, report, seen, now)
        self._finish_half_written(report, seen, now)
        self._signs = {name: sign for name, sign in self._signs.items() if name in seen or name[0] == "lock"}
        return report

    def _treat(
        self, firework: Row, verdict: _Verdict, report: RecoveryReport, seen: set[tuple[str, Any]], now: bool
    ) -> None:
        number = firework["fw_id"]
        if verdict.unknown:
            report.unknown[number] = verdict.unknown
        elif not verdict.reason:
            report.running += 1
        elif verdict.sign is not None and not now and not self._confirmed(("run", number), verdict.sign, seen):
            report.doubtful.append(number)
        elif words := self._put_right(firework, verdict):
            report.reasons[number] = words

    def _put_right(self, firework: Row, verdict: _Verdict) -> str:
        """What was done; empty if it turned out to live, or somebody else did it."""
        number, claims_ = firework["fw_id"], self._database["claims"]
        if verdict.stolen_token is not None:
            claims_.delete_one({"_id": claim_key(number), "token": verdict.stolen_token})
        claim = self._claims.try_claim(claim_key(number))
        if claim is None:
            return ""
        try:
            fields = {"fw_id": True, "state": True, "launches": True}
            current = self._pad.fireworks.find_one({"fw_id": number}, fields)
            if current is None or any(current[name] != firework[name] for name in fields):
                return ""
            return f"{verdict.reason}; {bring_back(self._pad, current)}"
        finally:
            self._claims.forget(claim)

    def _verdicts(self, now: bool) -> Iterable[tuple[Row, _Verdict]]:
        names = ("fw_id", "name", "state", "launches", "updated_on", "spec.campaign", "spec.chunk", "spec.result_key")
        query = {"state": {"$in": ["RUNNING", "RESERVED"]}}
        fireworks = list(self._pad.fireworks.find(query, dict.fromkeys(names, True)))
        claims = self._claims_of(fireworks)
        launches = self._launches_of(fireworks)
        gone = self._gone_jobs(claims, launches)
        for firework in fireworks:
            own = [launches[number] for number in firework["launches"] if number in launches]
            launch = own[-1] if own else None
            claim = claims.get(claim_key(firework["fw_id"]))
            if claim is not None:
                yield firework, self._of_claim(claim, gone)
            elif launch is not None and launch["state"] == "RESERVED":
                yield firework, self._of_reservation(launch, gone)
            else:
                result = claims.get(firework["spec"].get("result_key", ""))
                yield firework, self._without_claim(firework, launch, result, now)

    def _of_claim(self, claim: Row, gone: Mapping[str, str]) -> _Verdict:
        process = ProcessId(**claim["process"])
        if self._is_looked_after(process):
            return _Verdict()
        where = f"process {process.pid} of {process.host}"
        if self._host.sees(process):
            return _Verdict(f"{where} has ended") if self._host.is_dead(process) else _Verdict()
        if claim["expired"]:
            return _Verdict(f"{where} has given no sign of life", sign=(claim["token"], claim["expires_at"]))
        if claim["_id"] in gone:
            return _Verdict(f"queue job {gone[claim['_id']]} is gone", stolen_token=claim["token"])
        return _Verdict()

    def _of_reservation(self, launch: Row, gone: Mapping[str, str]) -> _Verdict:
        job = gone.get(f"launch:{launch['launch_id']}")
        return _Verdict(f"queue job {job}, which it was reserved for, is gone") if job else _Verdict()

    def _without_claim(self, firework: Row, launch: Row | None, result: Row | None, now: bool) -> _Verdict:
        if launch is None:  # taken; whoever lives writes the launch a moment later
            return _Verdict("its process was killed at its start", sign=str(firework["updated_on"]))
        where = f"its process on {launch.get('host')}"
        if WORKER_MARK in launch["fworker"].get("env", {}):
            return _Verdict(f"{where} is gone")
        history = launch["state_history"]
        if "campaign" in firework["spec"] or "result_key" in firework["spec"]:
            if result is not None and not self._of_claim(result, {}).reason:
                return _Verdict()
            if firework["spec"].get("campaign") and self._is_working(firework["spec"]):
                return _Verdict()
            if not now and _age(history[0]["created_on"]) <= START_SECONDS:
                return _Verdict()
            sign = (launch["launch_id"], None if result is None else (result["token"], result["expires_at"]))
            return _Verdict(f"{where} holds no claim on its result", sign=sign)
        silent = _age(history[-1].get("updated_on", history[-1]["created_on"]))
        if silent > PING_SECONDS:
            return _Verdict(f"{where} has not pinged for {silent / 3600:.1f} h")
        return _Verdict(unknown=f"{firework['name']}, in {launch.get('launch_dir')} on {launch.get('host')}")

    def _claims_of(self, fireworks: Sequence[Row]) -> dict[str, Row]:
        keys = [claim_key(row["fw_id"]) for row in fireworks]
        keys += [row["spec"]["result_key"] for row in fireworks if row["spec"].get("result_key")]
        pipeline: list[dict[str, Any]] = [
            {"$match": {"_id": {"$in": keys}}},
            {"$set": {"expired": {"$lt": ["$expires_at", "$$NOW"]}}},
        ]
        return {row["_id"]: row for row in self._database["claims"].aggregate(pipeline)}

    def _launches_of(self, fireworks: Sequence[Row]) -> dict[int, Row]:
        ids = [number for row in fireworks for number in row["launches"]]
        names = ("launch_id", "state", "host", "launch_dir", "state_history", "fworker.env")
        return {
            row["launch_id"]: row
            for row in self._pad.launches.find({"launch_id": {"$in": ids}}, dict.fromkeys(names, True))
        }

    def _gone_jobs(self, claims: Mapping[str, Row], launches: Mapping[int, Row]) -> dict[str, str]:
        """Queue jobs that have certainly ended, by the claim or launch (`launch:<id>`) that belongs to them."""
        jobs: dict[str, tuple[Mapping[str, str], str]] = {}
        for key, claim in claims.items():
            # Whoever can be seen is not asked for; whoever gives no sign is dead without that.
            if claim["expired"] or self._host.sees(ProcessId(**claim["process"])):
                continue
            known = queue_job_of(self._database, claim["process"])
            if known is not None:
                jobs[key] = known
        for launch in launches.values():
            reserved_for = launch["state_history"][-1].get("reservation_id")
            if launch["state"] == "RESERVED" and reserved_for and launch["host"] == get_my_host():
                jobs[f"launch:{launch['launch_id']}"] = job_of_this_queue(str(reserved_for), self._run), user_name()
        if not jobs or time.monotonic() < self._ask_queue_at:
            return {}
        self._ask_queue_at = time.monotonic() + QUEUE_SECONDS
        ended = ended_jobs(list(jobs.values()), self._run)
        return {key: job["id"] for key, (job, _) in jobs.items() if job["id"] in ended}

    def _is_working(self, spec: Mapping[str, Any]) -> bool:
        """Whether a process is at work on a chunk that plain `rlaunch` runs: it lives here, or holds claims there."""
        query = {"campaign": spec["campaign"], "chunk": spec.get("chunk"), "state": "running"}
        run = self._database["campaign_runs"].find_one(query, sort=[("started_at", -1)])
        if run is None:
            return False
        host, _, pid = run["worker"].rpartition(":")
        if host == self._host.process().host:
            return Path(f"/proc/{pid}").exists()
        members = {"campaign": spec["campaign"], "key": {"$in": run["in_flight"]}}
        steps = [
            key for row in self._database["campaign_members"].find(members, {"steps": True}) for key in row["steps"]
        ]
        alive = {"_id": {"$in": steps}, "$expr": {"$gt": ["$expires_at", "$$NOW"]}}
        return self._database["claims"].find_one(alive, {"_id": True}) is not None

    def _finish_half_written(self, report: RecoveryReport, seen: set[tuple[str, Any]], now: bool) -> None:
        """Fireworks that have ended while their workflow does not know it, so that nothing goes on behind them."""
        active = self._pad.workflows.find({"state": "RUNNING"}, {"fw_states": True})
        unended = [int(number) for row in active for number, state in row["fw_states"].items() if state == "RUNNING"]
        query = {"fw_id": {"$in": unended}, "state": {"$in": ["COMPLETED", "FIZZLED"]}}
        fields = {"fw_id": True, "state": True, "launches": True}
        for firework in list(self._pad.fireworks.find(query, fields)):
            number = firework["fw_id"]
            if not now and not self._confirmed(("end", number), firework["state"], seen):
                report.doubtful.append(number)
            elif words := self._put_right(firework, _Verdict("its process was killed at its end")):
                report.reasons[number] = words

    def _break_locks(self, report: RecoveryReport) -> None:
        """Of workflows whose lock's holder was killed; whoever lives holds one for a fraction of a second."""
        fields = {"updated_on": True, "fw_states": True, "nodes": True}
        locked = list(self._pad.workflows.find({"locked": {"$exists": True}}, fields))
        seen: set[tuple[str, Any]] = set()
        for row in locked:
            sign = (str(row["updated_on"]), tuple(sorted(row["fw_states"].items())))
            if not self._confirmed(("lock", row["_id"]), sign, seen):
                report.doubtful.append(min(row["nodes"]))
            else:
                unchanged = {"_id": row["_id"], **{name: row[name] for name in fields}}
                self._pad.workflows.update_one(unchanged, {"$unset": {"locked": True}})
                report.reasons[min(row["nodes"])] = "the lock that a dead process left on its workflow was taken away"
        self._signs = {name: sign for name, sign in self._signs.items() if name[0] != "lock" or name in seen}

    def _confirmed(self, name: tuple[str, Any], sign: Hashable, seen: set[tuple[str, Any]]) -> bool:
        """Whether the same was found at least `CONFIRM_SECONDS` ago, and at every look since."""
        moment = time.monotonic()
        seen.add(name)
        before, since = self._signs.get(name, (None, moment))
        if before != sign:
            self._signs[name] = (sign, moment)
            return False
        return moment - since >= CONFIRM_SECONDS


def _age(moment: Any) -> float:
    """Seconds since a time that FireWorks wrote; it writes texts, older versions dates."""
    then = datetime.fromisoformat(moment) if isinstance(moment, str) else moment
    return (datetime.now(UTC) - (then if then.tzinfo else then.replace(tzinfo=UTC))).total_seconds()
