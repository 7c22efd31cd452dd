"""How a worker works, and what it has done."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class WorkerSettings:
    """How a worker works; its child processes get it as JSON.

    Attributes
    ----------
    name
        Name of the worker as FireWorks knows it.
    category
        Category of the fireworks to take; "" for all.
    devices
        CUDA device of each child process; None is a child that sees what the supervisor sees, "" one that sees none.
    folder
        Folder where fireworks run and the output of children goes.
    query
        Further conditions on fireworks, as FireWorks' FWorker takes them.
    any_task
        Whether fireworks with tasks of other packages are taken; they run code that whoever wrote them chose.
    threads
        Number of threads of a child.
    end
        When the allocation ends, by `time.monotonic`; None: not known.
    margin_seconds
        Seconds before that end when no more work is begun and running work hands back its rest.
    idle_seconds
        Seconds after which a worker without work ends.
    grace_seconds
        Seconds that children have to hand back their rest when a signal asks for the end.
    queue_job
        Queue job that the worker is part of; None outside a queue.
    """

    name: str
    category: str
    devices: tuple[str | None, ...]
    folder: Path
    query: Mapping[str, Any] = field(default_factory=dict)
    any_task: bool = False
    threads: int = 1
    end: float | None = None
    margin_seconds: float = 60.0
    idle_seconds: float = 60.0
    grace_seconds: float = 25.0
    queue_job: Mapping[str, str] | None = None

    @property
    def deadline(self) -> float | None:
        """When children stop, by `time.monotonic`."""
        return None if self.end is None else self.end - self.margin_seconds


@dataclass
class WorkDone:
    """What a worker has done; as a string, a line.

    Attributes
    ----------
    completed
        Number of fireworks that completed.
    failed
        Number of fireworks that failed.
    handed_back
        Number of fireworks that were made READY again.
    withdrawn
        Number of fireworks that were defused, archived or deleted by a user while they ran.
    deaths
        Number of child processes that died without being asked to end.
    recovered
        Number of fireworks of other workers that were put right.
    reason
        Why the worker ended.
    work_left
        Whether it was asked to end although there is more to do.
    """

    completed: int = 0
    failed: int = 0
    handed_back: int = 0
    withdrawn: int = 0
    deaths: int = 0
    recovered: int = 0
    reason: str = ""
    work_left: bool = False

    def __str__(self) -> str:
        parts = [f"{self.completed} fireworks completed", f"{self.failed} failed"]
        parts += [f"{self.handed_back} handed back"] if self.handed_back else []
        parts += [f"{self.withdrawn} withdrawn by others"] if self.withdrawn else []
        parts += [f"{self.recovered} of others put right"] if self.recovered else []
        parts += [f"{self.deaths} processes died"] if self.deaths else []
        return f"{', '.join(parts)}; ended because {self.reason}"
