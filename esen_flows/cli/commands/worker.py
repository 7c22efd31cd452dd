"""`esen-flows worker`: runs submitted work, started by a queue job or by a person at a machine."""

import json
import os
import platform
import sys
import time
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from esen_flows.cli.options import duration_option
from esen_flows.cli.store import open_store
from esen_flows.cli.usage import UsageError
from esen_flows.settings import get_settings

if TYPE_CHECKING:
    from esen_flows.queue.worker_settings import WorkerSettings

_STOPPED = 75  # EX_TEMPFAIL of sysexits.h: run the command again
_ANY = "any"
MOST_PROCESSES, MOST_THREADS = 1024, 1024  # of one worker
WalltimeOption = Annotated[
    float | None, duration_option("Time from now: 4h, 23:30:00, 1-12:00:00. Default: until the SLURM or PBS job ends.")
]
IdleOption = Annotated[float, duration_option("Time without work after which the worker ends: 90 (s), 30m, 2h.")]
MarginOption = Annotated[float, duration_option("Time before the end to hand work back: 90 (s), 5m.")]
GraceOption = Annotated[float, duration_option("Time for handing work back after a signal: 25 (s).")]
QueryOption = Annotated[
    str | None, typer.Option(help='Run only matching fireworks, as my_fworker.yaml does: {"spec.campaign": "wbm"}.')
]


def worker(
    category: Annotated[str, typer.Option(help="Category of fireworks to run: gpu, cpu, another one, or any.")] = _ANY,
    walltime: WalltimeOption = None,
    devices: Annotated[
        str | None, typer.Option(help="CUDA devices, e.g. 0,1: one process each. Default: all visible.")
    ] = None,
    processes: Annotated[
        int | None, typer.Option(min=1, max=MOST_PROCESSES, help="Processes without devices of their own.")
    ] = None,
    threads: Annotated[
        int | None,
        typer.Option(
            min=1,
            max=MOST_THREADS,
            help="Threads per process. Default: a share of the cores, at most ESEN_FLOWS_THREADS.",
        ),
    ] = None,
    idle: IdleOption = 60.0,
    margin: MarginOption = 60.0,
    grace: GraceOption = 25.0,
    name: Annotated[str | None, typer.Option(help="Name noted in fireworks. Default: the machine's.")] = None,
    folder: Annotated[Path, typer.Option(help="Folder for output; it is made if needed.")] = Path(),
    query: QueryOption = None,
    any_task: Annotated[
        bool, typer.Option("--any-task", help="Also run tasks of other packages, such as shell commands (ScriptTask).")
    ] = False,
) -> None:
    """Run submitted work, one process per GPU, until no work is left or the time is up.

    No jobflow.yaml or my_launchpad.yaml is needed: the launchpad is in the database of the settings. On SIGTERM or
    SIGUSR1 the worker hands back its unfinished work. The exit status is 0 if no work is left and 75 if the worker was
    stopped before. Jobs of jobflow run any Python function: whoever may write the database runs code as this user.
    """
    from esen_flows.queue.allocation import queue_job
    from esen_flows.queue.worker import Worker
    from esen_flows.queue.worker_settings import WorkerSettings

    conditions, device_of_each = _query(query), _devices(category, devices, processes)
    left = _seconds_left(walltime, margin)
    settings = WorkerSettings(
        name=name or platform.node(),
        category="" if category == _ANY else category,
        devices=device_of_each,
        folder=folder.resolve(),
        query=conditions,
        any_task=any_task,
        threads=threads or _threads(len(device_of_each)),
        idle_seconds=idle,
        margin_seconds=margin,
        grace_seconds=grace,
        end=None if left is None else time.monotonic() + left,
        queue_job=queue_job(os.environ),
    )
    _print(f"worker {settings.name}: {_describe(settings)}")
    done = Worker(open_store(), settings, _print).run()
    _print(f"worker {settings.name}: {done}")
    if done.work_left:
        raise typer.Exit(_STOPPED)


def _threads(processes: int) -> int:
    """Threads of each process: its share of the cores, and not more than ESEN_FLOWS_THREADS."""
    from esen_flows.queue.allocation import processors

    share, bound = max(1, processors(os.environ) // processes), get_settings().threads
    return share if bound is None else max(1, min(share, bound))


def _devices(category: str, devices: str | None, processes: int | None) -> tuple[str | None, ...]:
    """The CUDA device of each child process; None for those that this process sees, "" for none."""
    from esen_flows.queue.allocation import visible_devices

    if devices is not None and processes is not None:
        raise UsageError(
            "--devices starts one process per device, --processes this many without devices; give one of them"
        )
    if devices is not None:
        names = [part.strip() for part in devices.split(",")]
        if "" in names or len(set(names)) != len(names):
            raise UsageError(f"--devices {devices!r}: give different devices, such as 0,1")
        return tuple(names)
    if processes is not None:
        return ("" if category == "cpu" else None,) * processes
    if category == "cpu":
        return ("",)
    return visible_devices(os.environ) or (None,)


def _seconds_left(walltime: float | None, margin: float) -> float | None:
    """Seconds until the end that an option or the queue sets; None: there is none."""
    from esen_flows.queue.allocation import seconds_until_end

    left = seconds_until_end(os.environ) if walltime is None else walltime
    if left is not None and left <= margin:
        raise UsageError(
            f"the time ends in {left:.0f} s, of which --margin keeps {margin:g} s for handing work back; ask for more "
            "time, or give a shorter --margin"
        )
    return left


def _query(text: str | None) -> dict[str, Any]:
    try:
        value = json.loads(text or "{}")
    except (ValueError, RecursionError) as error:
        raise UsageError(f'--query is not JSON ({error}); write it as \'{{"spec.campaign": "wbm"}}\'') from None
    if not isinstance(value, dict):
        raise UsageError(f"--query {text}: give a mapping of fields to values, not a {type(value).__name__}")
    return value


def _describe(settings: "WorkerSettings") -> str:
    named = [device for device in settings.devices if device]
    parts = [
        f"category {settings.category or _ANY}",
        f"devices {','.join(named)}" if named else f"{len(settings.devices)} process(es)",
        f"{settings.threads} thread(s) each",
    ]
    if settings.deadline is not None:
        parts.append(f"work is handed back in {settings.deadline - time.monotonic():.0f} s")
    if settings.queue_job is not None:
        parts.append(f"{settings.queue_job['kind']} job {settings.queue_job['id']}")
    return ", ".join(parts)


def _print(line: str) -> None:
    """Print a line with its time, in colour on a terminal and plain in a log."""
    now = f"{datetime.now():%Y-%m-%d %H:%M:%S}"
    if sys.stdout.isatty():
        from rich.console import Console
        from rich.text import Text

        Console().print(Text(now, style="dim"), Text(line))
    else:
        print(now, line, flush=True)
