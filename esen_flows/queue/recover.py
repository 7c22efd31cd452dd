"""Recovery of lost fireworks: those whose process or queue job is gone become READY again within a minute.

A process of `esen-flows worker` holds the claim `firework:<id>` on the firework that it runs. A job of ours that plain
`rlaunch` runs holds the claim on its result. A claim of this machine is dead as soon as its process is; a claim of
another machine is dead when no process renews it. About other packages' jobs only FireWorks' own hourly ping is known.
"""

import time
from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from esen_flows.queue.allocation import CommandRunner, ended_jobs, job_of_this_queue, run_command
from esen_flows.queue.child_deaths import put_right
from esen_flows.queue.fireworks_adapter import WORKER_MARK, Pad, is_of_this_host
from esen_flows.store.campaign_runs import open_run
from esen_flows.store.campaigns import members_of
from esen_flows.store.claims import HEARTBEAT_SECONDS, Claims, claims_on, delete_claim
from esen_flows.store.database import Row
from esen_flows.store.host import Host, ProcessId
from esen_flows.store.launchpad import begun_fireworks, claim_key, firework_row, launches_of
from esen_flows.store.launchpad_repair import (
    break_lock,
    half_ended_fireworks,
    locked_workflows,
    remove_orphaned_ready,
)
from esen_flows.store.results import Store
from esen_flows.store.workers import queue_job_of, user_name

# A process that shows no sign of life for longer than a heartbeat is dead. One look is not enough: just after an outage
# of the server the claims of all living processes are expired.
CONFIRM_SECONDS = HEARTBEAT_SECONDS + 2.0
# One of our jobs loads its force field before it claims its result.
START_SECONDS = 60.0
# As `lpad detect_lostruns`: a living process pings every hour.
PING_SECONDS = 4 * 3600.0
# Time between two questions to a queue, which hundreds of workers share. Claims tell most deaths sooner.
QUEUE_SECONDS = 60.0
_PATIENCE_SECONDS = 60.0


@dataclass
class RecoveryReport:
    """What `recover` has found; as a string, a few lines.

    Attributes
    ----------
    reasons
        What had happened to the fireworks that were put right, by their ids.
    unknown
        Name and place of fireworks that may run or not, by their ids.
    unconfirmed
        Ids of fireworks that are perhaps dead; a second look after `CONFIRM_SECONDS` tells.
    running
        Number of fireworks that are alive.
    """

    reasons: dict[int, str] = field(default_factory=dict)
    unknown: dict[int, str] = field(default_factory=dict)
    unconfirmed: list[int] = field(default_factory=list)
    running: int = 0

    def __str__(self) -> str:
        lines = [f"{len(self.reasons)} fireworks put right, {self.running} are running"]
        lines += [f"  {number}: {reason}" for number, reason in sorted(self.reasons.items())]
        if self.unknown:
            lines.append("these may run or not, because FireWorks notes a sign of life only every hour:")
            lines += [f"  {number}: {words}" for number, words in sorted(self.unknown.items())]
            lines.append("if they are dead: lpad rerun_fws -i ID")
        return "\n".join(lines)


@dataclass(frozen=True)
class _Verdict:
    """State of a firework that is RUNNING or RESERVED: with a reason it is dead, without one it is alive."""

    reason: str = ""
    unknown: str = ""
    sign: Hashable = None  # sign of life: the firework is dead only if this is the same after CONFIRM_SECONDS
    stolen_token: str | None = None  # of a claim that still looks alive although its queue job is gone


def recover(store: Store, *, now: bool = False, run: CommandRunner = run_command) -> RecoveryReport:
    """Put right what dead processes have left on the launchpad; takes 12 s if something needs a second look.

    Parameters
    ----------
    store
        Store whose database holds the launchpad.
    now
        Whether to believe the first look: expired claims of other machines are dead, and so are jobs that have just
        started without a claim. This is wrong for up to a minute after the server was away.
    run
        Runs a command of the queue.

    Returns
    -------
    RecoveryReport
        What was found and done.

    Raises
    ------
    StoreError
        The server refuses or stays away.
    """
    pad, claims = Pad(store.database, _PATIENCE_SECONDS), Claims(store.database)
    recovery = LostRunRecovery(store, pad, claims, run)

    try:
        report = pad.retrying(lambda: recovery.look(now=now))
        if report.unconfirmed:
            time.sleep(CONFIRM_SECONDS)
            first, report = report, pad.retrying(lambda: recovery.look(now=now))
            report.reasons = first.reasons | report.reasons
        return report
    finally:
        claims.close()
        pad.connection.close()


class LostRunRecovery:
    """Repeated looks for lost fireworks; what needs a second look is remembered from one look to the next.

    Parameters
    ----------
    store
        Store whose database holds the launchpad.
    pad
        Launchpad of that database.
    claims
        Claims of this process.
    run
        Runs a command of the queue.
    is_looked_after
        Whether a firework is of a child of this worker, which puts right what the child leaves, because it knows
        more about its death. Asked after the claims were read.
    """

    def __init__(
        self,
        store: Store,
        pad: Pad,
        claims: Claims,
        run: CommandRunner = run_command,
        is_looked_after: Callable[[int], bool] = lambda _: False,
    ) -> None:
        self._is_looked_after = is_looked_after
        self._store = store
        self._database = store.database
        self._pad = pad
        self._claims = claims
        self._run = run
        self._host = Host()
        self._ask_queue_at = 0.0
        self._signs: dict[tuple[str, Any], tuple[Hashable, float]] = {}

    def look(self, *, now: bool = False) -> RecoveryReport:
        """Put right the fireworks of certainly dead processes.

        Parameters
        ----------
        now
            Whether to believe the first look, see `recover`.

        Returns
        -------
        RecoveryReport
            What was found and done.
        """
        report = RecoveryReport()
        seen: set[tuple[str, Any]] = set()
        self._break_locks(report, seen)
        for number in remove_orphaned_ready(self._database, START_SECONDS):
            report.reasons[number] = "removed: a kill left it without a workflow, so that it could never run"
        for firework, verdict in self._verdicts(now):
            number = firework["fw_id"]
            if verdict.unknown:
                report.unknown[number] = verdict.unknown
            elif not verdict.reason:
                report.running += 1
            elif verdict.sign is not None and not now and not self._confirmed(("run", number), verdict.sign, seen):
                report.unconfirmed.append(number)
            else:
                self._put_right(firework, verdict, report)
        self._signs = {name: sign for name, sign in self._signs.items() if name in seen}
        return report

    def _break_locks(self, report: RecoveryReport, seen: set[tuple[str, Any]]) -> None:
        """Remove locks whose holder was killed; a living process holds one for a fraction of a second."""
        for row in locked_workflows(self._database):
            sign = (str(row["updated_on"]), tuple(sorted(row["fw_states"].items())))
            number = min(row["nodes"])
            if not self._confirmed(("lock", row["_id"]), sign, seen):
                report.unconfirmed.append(number)
            else:
                break_lock(self._database, row)
                report.reasons[number] = "the lock that a dead process left on its workflow was removed"
        # At once, even if the rest of this look fails: a lock that is taken anew has to be seen twice again.
        self._signs = {name: sign for name, sign in self._signs.items() if name[0] != "lock" or name in seen}

    def _put_right(self, firework: Row, verdict: _Verdict, report: RecoveryReport) -> None:
        """Complete or put back a firework, unless it turns out to live or another process was faster."""
        number = firework["fw_id"]
        if verdict.stolen_token is not None:
            delete_claim(self._database, claim_key(number), verdict.stolen_token)
        claim = self._claims.try_claim(claim_key(number))
        if claim is None:
            return
        try:
            current = firework_row(self._database, number)
            if current is not None and all(current[name] == firework[name] for name in ("state", "launches")):
                report.reasons[number] = f"{verdict.reason}; {put_right(self._pad, current)}"
        finally:
            self._claims.forget(claim)

    def _verdicts(self, now: bool) -> Iterable[tuple[Row, _Verdict]]:
        fireworks = begun_fireworks(self._database)
        keys = [claim_key(row["fw_id"]) for row in fireworks]
        keys += [row["spec"]["result_key"] for row in fireworks if row["spec"].get("result_key")]
        claims = claims_on(self._database, keys)
        launches = launches_of(self._database, fireworks)
        gone = self._gone_jobs(claims, launches)
        for firework in fireworks:
            own = [launches[number] for number in firework["launches"] if number in launches]
            launch = own[-1] if own else None
            claim = claims.get(claim_key(firework["fw_id"]))
            if self._is_looked_after(firework["fw_id"]):
                yield firework, _Verdict()
            elif claim is not None:
                yield firework, self._of_claim(claim, gone)
            elif launch is not None and launch["state"] == "RESERVED":
                job = gone.get(f"launch:{launch['launch_id']}")
                yield firework, _Verdict(f"queue job {job}, which it was reserved for, is gone" if job else "")
            else:
                result = claims.get(firework["spec"].get("result_key", ""))
                yield firework, self._without_claim(firework, launch, result, now)
        for firework in half_ended_fireworks(self._database):  # asked for after the others were put right
            yield firework, _Verdict("its process was killed at its end", sign=firework["state"])

    def _of_claim(self, claim: Row, gone: Mapping[str, str]) -> _Verdict:
        process = ProcessId(**claim["process"])
        where = f"process {process.pid} of {process.host}"
        if self._host.sees(process):
            return _Verdict(f"{where} has ended") if self._host.is_dead(process) else _Verdict()
        if claim["expired"]:
            return _Verdict(f"{where} has given no sign of life", sign=(claim["token"], claim["expires_at"]))
        if claim["_id"] in gone:
            return _Verdict(f"queue job {gone[claim['_id']]} is gone", stolen_token=claim["token"])
        return _Verdict()

    def _without_claim(self, firework: Row, launch: Row | None, result: Row | None, now: bool) -> _Verdict:
        if launch is None:  # a living process writes the launch a moment after it has taken the firework
            return _Verdict("its process was killed at its start", sign=str(firework["updated_on"]))
        where = f"its process on {launch.get('host')}"
        if WORKER_MARK in launch["fworker"].get("env", {}):
            return _Verdict(f"{where} is gone")
        history, spec = launch["state_history"], firework["spec"]
        if "campaign" in spec or "result_key" in spec:
            if result is not None and not self._of_claim(result, {}).reason:
                return _Verdict()
            if spec.get("campaign") and self._is_working(spec):
                return _Verdict()
            if not now and _age(history[0]["created_on"]) <= START_SECONDS:
                return _Verdict()
            sign = (launch["launch_id"], None if result is None else (result["token"], result["expires_at"]))
            return _Verdict(f"{where} holds no claim on its result", sign=sign)
        silent = _age(history[-1].get("updated_on", history[-1]["created_on"]))
        if silent > PING_SECONDS:
            return _Verdict(f"{where} has not pinged for {silent / 3600:.1f} h")
        return _Verdict(unknown=f"{firework['name']}, in {launch.get('launch_dir')} on {launch.get('host')}")

    def _gone_jobs(self, claims: Mapping[str, Row], launches: Mapping[int, Row]) -> dict[str, str]:
        """Queue jobs that have certainly ended, by the key of the claim or by `launch:<id>` of the reservation."""
        jobs: dict[str, tuple[Mapping[str, str], str]] = {}
        for key, claim in claims.items():
            # No need to ask the queue about a process that can be seen from here, or one that gives no sign of life.
            if claim["expired"] or self._host.sees(ProcessId(**claim["process"])):
                continue
            known = queue_job_of(self._database, claim["process"])
            if known is not None:
                jobs[key] = known
        for launch in launches.values():
            reserved_for = launch["state_history"][-1].get("reservation_id")
            if launch["state"] == "RESERVED" and reserved_for and is_of_this_host(launch):
                jobs[f"launch:{launch['launch_id']}"] = job_of_this_queue(str(reserved_for), self._run), user_name()
        if not jobs or time.monotonic() < self._ask_queue_at:
            return {}
        self._ask_queue_at = time.monotonic() + QUEUE_SECONDS
        ended = ended_jobs(list(jobs.values()), self._run)
        return {key: job["id"] for key, (job, _) in jobs.items() if job["id"] in ended}

    def _is_working(self, spec: Mapping[str, Any]) -> bool:
        """Whether a process computes a chunk that plain `rlaunch` runs: it lives here, or holds claims elsewhere."""
        run = open_run(self._store, spec["campaign"], spec.get("chunk"))
        if run is None:
            return False
        host, _, pid = run["worker"].rpartition(":")
        if host == self._host.process().host:
            return Path(f"/proc/{pid}").exists()
        in_flight: Sequence[Row] = members_of(self._store, spec["campaign"], run["in_flight"])
        steps = [key for row in in_flight for key in row["steps"]]
        return any(not claim["expired"] for claim in claims_on(self._database, steps).values())

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
    """Seconds since a time that FireWorks wrote; it writes texts, older versions wrote dates."""
    then = datetime.fromisoformat(moment) if isinstance(moment, str) else moment
    return (datetime.now(UTC) - (then if then.tzinfo else then.replace(tzinfo=UTC))).total_seconds()
