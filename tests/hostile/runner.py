"""Runs hostile inputs through the command line: each in a forked process, bounded in time and memory, and judged."""

import io
import os
import re
import resource
import shutil
import signal
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

# A plan that is given up removes its campaign; structures, which are stored under their content, stay.
CAMPAIGNS = ("campaigns", "campaign_members", "results")
EVERYTHING = (*CAMPAIGNS, "structures", "models", "datasets", "blobs", "blob_chunks")
CPU_SECONDS, WALL_SECONDS = 40, 240
MORE_BYTES = 3 * 2**30  # of addresses, beyond those of this process with all its libraries
FILE_BYTES = 300 * 2**20


@dataclass
class Case:
    """One hostile input.

    Attributes
    ----------
    entrance
        What reads it.
    what
        What is hostile about it.
    arguments
        Words after `esen-flows`.
    files
        Contents by path in the working folder.
    environment
        Environment variables; None: unset.
    bad
        Whether success would be wrong. Not known of random changes, which may leave a file as good as it was.
    output
        Path that may exist only after success.
    prepare
        Called in the working folder before the command, for what is no plain file.
    unchanged
        Collections that have to be the same after a failure.
    fresh
        Whether results of earlier inputs are removed first.
    """

    entrance: str
    what: str
    arguments: list[str]
    files: dict[str, bytes] = field(default_factory=dict)
    environment: dict[str, str | None] = field(default_factory=dict)
    bad: bool = False
    output: str | None = None
    prepare: Callable[[Path], None] | None = None
    unchanged: tuple[str, ...] = ()
    fresh: bool = False


@dataclass(frozen=True)
class Verdict:
    """What came of an input: its faults (none if it was handled), its status, and the end of its messages."""

    case: Case
    faults: tuple[str, ...]
    status: int
    messages: str
    seconds: float


def warm_up() -> None:
    """Import what commands import, so that a forked process does not: most of a case would be imports."""
    import ase.io
    import phono3py
    import pymongo
    import torch
    from ase.calculators import emt

    from esen_flows.campaigns import plan, reproduce
    from esen_flows.cli import app
    from esen_flows.data import folders
    from esen_flows.makers import chunks, compute
    from esen_flows.physics.lattice import born
    from esen_flows.plots import phonon, relaxation
    from esen_flows.store.exchange import ingest, transfer
    from esen_flows.training import train

    assert all(
        (
            ase.io,
            emt,
            chunks,
            compute,
            phonon,
            relaxation,
            phono3py,
            pymongo,
            torch,
            app,
            plan,
            reproduce,
            folders,
            born,
            ingest,
            transfer,
            train,
        )
    )


def run_all(cases: Iterable[Case], folder: Path, jobs: int = 2) -> Iterator[Verdict]:
    """Run the cases, some at a time.

    A case runs in a folder of its own below `folder`, which is removed unless something is wrong with it.
    """
    running: dict[int, tuple[Case, Path, float, int]] = {}
    free = list(range(jobs))  # each with a database of its own, so that changes belong to one case
    waiting = enumerate(cases)
    more = True
    while more or running:
        while more and free:
            number, case = next(waiting, (0, None))
            if case is None:
                more = False
            else:
                place = folder / f"{number:05d}"
                slot = free.pop()
                running[_begin(case, place, slot)] = (case, place, time.monotonic(), slot)
        for pid in list(running):
            case, place, began, slot = running[pid]
            ended, status, _ = os.wait4(pid, os.WNOHANG)
            if not ended and time.monotonic() - began > WALL_SECONDS:
                os.killpg(pid, signal.SIGKILL)
                ended, status, _ = os.wait4(pid, 0)
            if ended:
                del running[pid]
                free.append(slot)
                verdict = _judge(case, place, os.waitstatus_to_exitcode(status), time.monotonic() - began)
                if not verdict.faults:
                    shutil.rmtree(place)
                yield verdict
        time.sleep(0.005)


def _begin(case: Case, place: Path, slot: int) -> int:
    """Fork a process that runs a case; its number."""
    work = place / "work"
    work.mkdir(parents=True)
    for name, content in case.files.items():
        target = work / name
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(content)
    if case.prepare is not None:
        case.prepare(work)
    sys.stdout.flush()
    sys.stderr.flush()
    pid = os.fork()
    if pid == 0:
        status = 99
        try:
            os.environ["ESEN_FLOWS_DATABASE"] += str(slot)
            status = _child(case, place)
        finally:
            os._exit(status)
    return pid


def _child(case: Case, place: Path) -> int:
    """Become the command; its exit status."""
    os.setsid()
    os.chdir(place / "work")
    for descriptor, name in ((1, "out"), (2, "err")):
        opened = os.open(place / name, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_APPEND, 0o600)
        os.dup2(opened, descriptor)
    null = os.open(os.devnull, os.O_RDONLY)
    os.dup2(null, 0)
    sys.stdout = io.TextIOWrapper(os.fdopen(1, "wb", 0, closefd=False), encoding="utf-8", write_through=True)
    sys.stderr = io.TextIOWrapper(os.fdopen(2, "wb", 0, closefd=False), encoding="utf-8", write_through=True)
    for name, value in case.environment.items():
        os.environ.pop(name, None)
        if value is not None:
            os.environ[name] = value
    used = int(Path("/proc/self/statm").read_text().split()[0]) * os.sysconf("SC_PAGE_SIZE")
    resource.setrlimit(resource.RLIMIT_AS, (used + MORE_BYTES,) * 2)
    resource.setrlimit(resource.RLIMIT_CPU, (CPU_SECONDS, CPU_SECONDS + 5))
    resource.setrlimit(resource.RLIMIT_FSIZE, (FILE_BYTES,) * 2)
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    return _command(case, place)


def _command(case: Case, place: Path) -> int:
    from esen_flows.cli.app import main
    from esen_flows.settings import get_settings

    get_settings.cache_clear()
    sys.argv = ["esen-flows", *case.arguments]
    cards = place / "work" / "cards"
    if cards.is_dir():
        from esen_flows.schemas import card

        card.asset_dir = lambda name: cards if name == "models" else Path("/none")
    if case.fresh:
        _remove_results()
    before = _contents(case.unchanged)
    try:
        main(list(case.arguments))
    except SystemExit as end:
        status = end.code if isinstance(end.code, int) else 0 if end.code is None else 1
    if status and _contents(case.unchanged) != before:
        (place / "changed").touch()
    return status


def _remove_results() -> None:
    from esen_flows.store.connection import open_store

    database = open_store().database
    for name in ("results", "structures", "blobs", "blob_chunks"):
        database[name].delete_many({})


def _contents(collections: tuple[str, ...]) -> list[int]:
    """Numbers of documents."""
    if not collections:
        return []
    from esen_flows.store.connection import open_store

    database = open_store().database
    return [database[name].count_documents({}) for name in collections]


def _judge(case: Case, place: Path, status: int, seconds: float) -> Verdict:
    messages = (place / "err").read_text("utf-8", "replace") if (place / "err").exists() else ""
    output = (place / "out").read_text("utf-8", "replace") if (place / "out").exists() else ""
    faults = []
    if "Traceback (most recent call last)" in messages + output or "esen-flows: unexpected " in messages:
        faults.append("traceback")
    if status == -signal.SIGXCPU or seconds > WALL_SECONDS:
        faults.append("time")
    elif status < 0:
        faults.append(f"signal {-status}")
    if re.search("no memory is left|Unable to allocate|can't allocate|bad_alloc", messages):
        faults.append("memory")
    if status == 0 and case.bad:
        faults.append("accepted")
    if status == 99:
        faults.append("runner")
    if status > 0 and not (messages + output).strip():
        faults.append("silent")
    found = [path.name for path in (place / "work").rglob("*")]
    if any("CANARY" in name for name in found):
        faults.append("executed")
    half = any("partial" in name for name in found) or (
        status != 0 and case.output is not None and case.output in found
    )
    if half or (place / "changed").exists():
        faults.append("half-written")
    if "Warning: " in messages:
        faults.append("warning")
    return Verdict(case, tuple(faults), status, (messages or output)[-1500:], seconds)
