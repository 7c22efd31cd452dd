"""`esen-flows worker`: runs submitted work, started by a queue job or by a person at a machine."""

import json
import os
import platform
import sys
import time
from dataclasses import replace
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from esen_flows.cli.store import open_store
from esen_flows.cli.usage import UsageError

if TYPE_CHECKING:
    from esen_flows.queue.worker_settings import WorkerSettings

_STOPPED = 75  # EX_TEMPFAIL of sysexits.h: run the command again
_ANY = "any"


def worker(
    category: Annotated[
        str, typer.Option(help="Category of the fireworks to run: gpu, cpu, another one, or any.")
    ] = _ANY,
    walltime: Annotated[
        str | None, typer.Option(help="Time from now, as [D-]H:MM:SS. Default: until the end of the SLURM or PBS job.")
    ] = None,
    devices: Annotated[
        str | None,
        typer.Option(help="CUDA devices such as 0,1: one process for each. Default: those of the queue job."),
    ] = None,
    processes: Annotated[
        int | None, typer.Option(min=1, help="Number of processes that have no device of their own.")
    ] = None,
    threads: Annotated[
        int | None, typer.Option(min=1, help="Threads of each process. Default: the cores are shared out.")
    ] = None,
    idle: Annotated[float, typer.Option(min=0.0, help="Seconds without work after which the worker ends.")] = 60.0,
    margin: Annotated[
        float, typer.Option(min=0.0, help="Seconds before the end of the time at which unfinished work is handed back.")
    ] = 60.0,
    grace: Annotated[float, typer.Option(min=0.0, help="Seconds for handing work back after a signal.")] = 25.0,
    name: Annotated[
        str | None, typer.Option(help="Name noted in the fireworks. Default: the name of the machine.")
    ] = None,
    folder: Annotated[Path, typer.Option(help="Folder for output; it is made if needed.")] = Path(),
    query: Annotated[
        str | None,
        typer.Option(help='Run only fireworks that match this JSON, as in my_fworker.yaml: {"spec.campaign": "wbm"}.'),
    ] = None,
) -> None:
    """Run submitted work, one process per GPU, until no work is left or the time is up.

    No jobflow.yaml or my_launchpad.yaml is needed: the launchpad is in the database of the settings. On SIGTERM or
    SIGUSR1 the worker hands back its unfinished work. The exit status is 0 if no work is left and 75 if the worker was
    stopped before.
    """
    from esen_flows.queue.worker import Worker

    settings = _settings(category, walltime, devices, processes, threads, name, folder, _query(query))
    left = None if settings.end is None else settings.end - time.monotonic()
    if left is not None and left <= margin:
        raise UsageError(
            f"the time ends in {left:.0f} s, of which --margin keeps {margin:g} s for handing work back; ask for more "
            "time, or give a shorter --margin"
        )
    settings = replace(settings, idle_seconds=idle, margin_seconds=margin, grace_seconds=grace)
    _print(f"worker {settings.name}: {_describe(settings)}")
    done = Worker(open_store(), settings, _print).run()
    _print(f"worker {settings.name}: {done}")
    if done.work_left:
        raise typer.Exit(_STOPPED)


def _settings(
    category: str,
    walltime: str | None,
    devices: str | None,
    processes: int | None,
    threads: int | None,
    name: str | None,
    folder: Path,
    query: dict[str, Any],
) -> "WorkerSettings":
    from esen_flows.queue.allocation import processors, queue_job, seconds_until_end
    from esen_flows.queue.worker_settings import WorkerSettings

    places = _devices(category, devices, processes)
    seconds = _walltime(walltime) if walltime is not None else seconds_until_end(os.environ)
    return WorkerSettings(
        name=name or platform.node(),
        category="" if category == _ANY else category,
        devices=places,
        folder=folder.absolute(),
        query=query,
        threads=threads or max(1, processors(os.environ) // len(places)),
        end=None if seconds is None else time.monotonic() + seconds,
        queue_job=queue_job(os.environ),
    )


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


def _walltime(text: str) -> float:
    from esen_flows.queue.allocation import parse_duration

    seconds = parse_duration(text)
    if not seconds:
        raise UsageError(f"--walltime {text!r}: write hours, minutes and seconds as 23:30:00, or days as 1-12:00:00")
    return seconds


def _query(text: str | None) -> dict[str, Any]:
    try:
        value = json.loads(text or "{}")
    except json.JSONDecodeError as error:
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
