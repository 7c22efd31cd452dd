"""`esen-flows worker`: what a queue job, or a person at a machine, starts to run what was submitted."""

import json
import os
import platform
import sys
import time
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from esen_flows.cli.overrides import UsageError

if TYPE_CHECKING:
    from esen_flows.queue.worker_settings import WorkerSettings

_STOPPED = 75  # of sysexits.h: to be run again
_ANY = "any"


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command("worker")(worker)


def worker(
    category: Annotated[str, typer.Option(help="Of fireworks to take: gpu, cpu, another one, or any.")] = _ANY,
    walltime: Annotated[
        str | None, typer.Option(help="Time from now, as [D-]H:MM:SS; otherwise the end of the SLURM or PBS job.")
    ] = None,
    devices: Annotated[
        str | None, typer.Option(help="CUDA devices such as 0,1: a process for each; otherwise what the queue gave.")
    ] = None,
    processes: Annotated[int | None, typer.Option(min=1, help="Processes without devices of their own.")] = None,
    threads: Annotated[int | None, typer.Option(min=1, help="Of each process; otherwise the cores are shared.")] = None,
    idle: Annotated[float, typer.Option(min=0.0, help="Seconds without anything to do after which it ends.")] = 60.0,
    margin: Annotated[
        float, typer.Option(min=0.0, help="Seconds before the end of the time when work is handed back.")
    ] = 60.0,
    grace: Annotated[
        float, typer.Option(min=0.0, help="Seconds for handing work back when a signal asks for the end.")
    ] = 25.0,
    name: Annotated[str | None, typer.Option(help="As fireworks note it; otherwise the machine's name.")] = None,
    folder: Annotated[Path, typer.Option(help="Where fireworks run and output goes; made if need be.")] = Path(),
    query: Annotated[
        str | None, typer.Option(help='JSON, only such fireworks: {"spec.campaign": "wbm"}, as in my_fworker.yaml.')
    ] = None,
) -> None:
    """Run submitted work, one process per GPU, until none is left or the time is up.

    It needs no jobflow.yaml and no my_launchpad.yaml: the launchpad is in the database of the settings. SIGTERM and
    SIGUSR1 make it hand back what it has not finished. Ends with 0 when there was nothing to do, with 75 when it was
    stopped and work is left.
    """
    from esen_flows.queue.worker import Worker
    from esen_flows.store.connection import open_store

    conditions = _query(query)
    settings = _settings(category, walltime, devices, processes, threads, name, folder, conditions)
    settings = _timed(settings, idle, margin, grace)
    _tell(f"worker {settings.name}: {_describe(settings)}")
    done = Worker(open_store(), settings, _tell).run()
    _tell(f"worker {settings.name}: {done}")
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

    places = _places(category, devices, processes)
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


def _timed(settings: "WorkerSettings", idle: float, margin: float, grace: float) -> "WorkerSettings":
    from dataclasses import replace

    left = None if settings.end is None else settings.end - time.monotonic()
    if left is not None and left <= margin:
        raise UsageError(
            f"the time ends in {left:.0f} s, and --margin {margin:g} of them are kept for handing work back; ask for "
            "more time, or give a shorter --margin"
        )
    return replace(settings, idle_seconds=idle, margin_seconds=margin, grace_seconds=grace)


def _places(category: str, devices: str | None, processes: int | None) -> tuple[str | None, ...]:
    """The device of each child process; None sees what this process sees, and "" sees none."""
    from esen_flows.queue.allocation import visible_devices

    if devices is not None and processes is not None:
        raise UsageError("--devices starts a process for each device and --processes so many without; give one of them")
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
        raise UsageError(f"--query {text}: a mapping of fields to values is needed, got a {type(value).__name__}")
    return value


def _describe(settings: "WorkerSettings") -> str:
    named = [device for device in settings.devices if device]
    parts = [f"category {settings.category or _ANY}"]
    parts.append(f"devices {','.join(named)}" if named else f"{len(settings.devices)} process(es)")
    parts.append(f"{settings.threads} thread(s) each")
    if settings.deadline is not None:
        parts.append(f"work is handed back in {settings.deadline - time.monotonic():.0f} s")
    if settings.queue_job is not None:
        parts.append(f"{settings.queue_job['kind']} job {settings.queue_job['id']}")
    return ", ".join(parts)


def _tell(line: str) -> None:
    """A line with its time; colour only for eyes."""
    now = f"{datetime.now():%Y-%m-%d %H:%M:%S}"
    if sys.stdout.isatty():
        from rich.console import Console
        from rich.text import Text

        Console().print(Text(now, style="dim"), Text(line))
    else:
        print(now, line, flush=True)
