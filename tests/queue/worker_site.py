"""A database with work, and workers in processes of their own."""

import os
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from jobflow import Flow, Job

from esen_flows.queue.submit import submit
from esen_flows.store.results import Store

PATIENCE_SECONDS = 600.0  # a machine may be busy with other work


@dataclass
class Site:
    """A folder and a database for workers.

    Attributes
    ----------
    folder
        Folder, empty at first.
    store
        Store of the workers, empty at first.
    notes
        File to which jobs append lines.
    """

    folder: Path
    store: Store
    workers: "list[subprocess.Popen[str]]" = field(default_factory=list)

    @property
    def notes(self) -> str:
        return str(self.folder / "notes")

    def lines(self) -> list[str]:
        """Lines that jobs have noted."""
        path = Path(self.notes)
        return path.read_text().splitlines() if path.exists() else []

    def add(self, *jobs: Job | Flow) -> list[int]:
        """Submit each job as a flow of its own; the id of the first firework of each."""
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

    def said_by(self, worker: "subprocess.Popen[str]", status: int = 0) -> str:
        """Output of a worker, after it has ended with this status."""
        said = worker.communicate(timeout=PATIENCE_SECONDS)[0]
        assert worker.returncode == status, said
        return said

    def states(self) -> dict[int, str]:
        """States of all fireworks by their ids."""
        return {row["fw_id"]: row["state"] for row in self.store.database["fireworks"].find()}

    def wait(self, condition: Callable[[], Any]) -> None:
        """Wait until a condition holds."""
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
        raise AssertionError("the worker has no child")

    def end(self) -> None:
        """End all workers."""
        for worker in self.workers:
            worker.kill()
            worker.wait()
            worker.stdout.close()
