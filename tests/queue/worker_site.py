"""A database with work in it, and workers as processes of their own."""

import os
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, ClassVar

from jobflow import Flow, Job

from esen_flows.queue.submit import submit
from esen_flows.store.host import Host, ProcessId
from esen_flows.store.results import Store

PATIENCE_SECONDS = 180.0


@dataclass
class Site:
    """Where workers work.

    Attributes
    ----------
    folder
        empty.
    store
        empty; workers use it too.
    notes
        file that jobs write lines to.
    """

    folder: Path
    store: Store
    workers: "list[subprocess.Popen[str]]" = field(default_factory=list)

    @property
    def notes(self) -> str:
        return str(self.folder / "notes")

    def lines(self) -> list[str]:
        """What jobs noted."""
        path = Path(self.notes)
        return path.read_text().splitlines() if path.exists() else []

    def add(self, *jobs: Job | Flow) -> list[int]:
        """Submit jobs, each a flow of its own; the ids of the first fireworks."""
        return [submit(one, store=self.store).firework_ids[0] for one in jobs]

    def start(self, *options: str) -> "subprocess.Popen[str]":
        """`esen-flows worker` in a process of its own."""
        program = str(Path(sys.executable).with_name("esen-flows"))
        search = os.pathsep.join([str(Path(__file__).parent), os.environ.get("PYTHONPATH", "")])
        worker = subprocess.Popen(
            [program, "worker", "--threads", "1", "--folder", str(self.folder / "run"), *options],
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env={**os.environ, "PYTHONPATH": search},
        )  # fmt: skip
        self.workers.append(worker)
        return worker

    def states(self) -> dict[int, str]:
        """Of all fireworks."""
        return {row["fw_id"]: row["state"] for row in self.store.database["fireworks"].find()}

    def wait(self, condition: Callable[[], Any]) -> None:
        """Until it holds."""
        until = time.monotonic() + PATIENCE_SECONDS
        while not condition():
            assert time.monotonic() < until, (self.states(), self.lines())
            time.sleep(0.02)

    def child_of(self, worker: "subprocess.Popen[str]", name: bytes = b"worker_child") -> int:
        """Process id of a worker's child."""
        for path in Path("/proc").glob("[0-9]*"):
            try:
                parent = int((path / "stat").read_text().rpartition(")")[2].split()[1])
                if parent == worker.pid and name in (path / "cmdline").read_bytes():
                    return int(path.name)
            except OSError:
                continue
        raise AssertionError("it has none")

    def end(self) -> None:
        """Leave no process behind."""
        for worker in self.workers:
            worker.kill()
            worker.wait()
            assert worker.stdout is not None
            worker.stdout.close()


class Seen(Host):
    """Says something else of its own process."""

    changes: ClassVar[dict[str, Any]] = {}

    def process(self, pid: int | None = None) -> ProcessId:
        return replace(super().process(pid), **self.changes)


class Dead(Seen):
    """A process of this machine that has ended."""

    changes: ClassVar[dict[str, Any]] = {"start": 1}


class Remote(Seen):
    """A process of another machine."""

    changes: ClassVar[dict[str, Any]] = {"host": "elsewhere"}
