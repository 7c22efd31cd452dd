"""The commands of `esen-flows`, and `main`, which turns every error into one message and an exit status."""

import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from esen_flows.cli.commands import campaign, data, db, launcher, leaderboard, models
from esen_flows.cli.commands.active_learning import active_learning
from esen_flows.cli.commands.converge import converge
from esen_flows.cli.commands.doctor import doctor
from esen_flows.cli.commands.export import export
from esen_flows.cli.commands.fields import fields
from esen_flows.cli.commands.label import label
from esen_flows.cli.commands.plot import plot
from esen_flows.cli.commands.properties import property_command
from esen_flows.cli.commands.report import report
from esen_flows.cli.commands.results import query, show
from esen_flows.cli.commands.train import train
from esen_flows.cli.commands.worker import worker
from esen_flows.cli.machine import grow_gpu_segments, yield_waiting_threads
from esen_flows.errors import EsenFlowsError, StructureWarning
from esen_flows.files import is_full_disk
from esen_flows.schemas.properties import OFFERED, PROPERTIES
from esen_flows.version import __version__


class _Interrupted(Exception):
    """Ctrl-C, with the message of the command that it interrupted."""


class _Commands(TyperGroup):
    """Keeps KeyboardInterrupt from typer, which would end the command without a message."""

    def invoke(self, ctx: Any) -> Any:  # the context class is private to typer
        try:
            return super().invoke(ctx)
        except KeyboardInterrupt as stop:  # commands that hold claims have released them by now and printed a message
            raise _Interrupted(*(stop.args or ("interrupted; finished work is kept",))) from stop


_TITLES = ", ".join(PROPERTIES[kind].title for kind in OFFERED)
app = typer.Typer(
    name="esen-flows",
    cls=_Commands,
    help=f"Force fields from training to benchmarks: {_TITLES}; results in MongoDB.",
    no_args_is_help=True,
    context_settings={"help_option_names": ["-h", "--help"]},
    pretty_exceptions_enable=False,
)
# In the order of `esen-flows --help`.
for kind in OFFERED:
    app.command()(property_command(kind))
for command in (fields, converge, show, query, plot, report, export, label, train, active_learning, worker, doctor):
    app.command()(command)
for name, group in {
    "models": models, "data": data, "db": db, "campaign": campaign, "leaderboard": leaderboard, "launcher": launcher,
}.items():  # fmt: skip
    app.add_typer(group.app, name=name)


def _print_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"esen-flows {__version__}")
        raise typer.Exit


@app.callback()
def _options(
    version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version and exit.")
    ] = False,
) -> None:
    pass


def main(arguments: list[str] | None = None) -> None:
    """Run the command line.

    Parameters
    ----------
    arguments
        Words after `esen-flows`; None for those of this process.

    Raises
    ------
    SystemExit
        Always. The status is 0 if the command succeeded, 1 if it failed, 2 after wrong usage, 75 if it stopped and
        saved its state and should be run again, and 130 after an interruption.
    """
    yield_waiting_threads()
    grow_gpu_segments()
    try:
        with _structure_warnings():
            app(args=arguments, prog_name="esen-flows")
    except (EsenFlowsError, OSError) as error:
        if is_full_disk(error):
            name = getattr(error, "filename", None)
            place = f" of {name}" if name else ""
            _fail(f"the disk{place} is full; free space there, or choose another folder, and run this again", 1)
        _fail(error, getattr(error, "exit_code", 1))
    except MemoryError as error:
        reason = str(error) or "no memory is left"
        _fail(f"{reason}; take a smaller structure or supercell, or a machine with more memory", 1)
    except _Interrupted as stop:
        _fail(stop, 130)
    except Exception as error:  # whatever is left is our fault; a user gets one line, and we the traceback
        from esen_flows.cli.crash import report_of

        _fail(report_of(error), 1)


@contextmanager
def _structure_warnings() -> Iterator[None]:
    """A context in which warnings about structures are lines on stderr, each once, like errors."""
    with warnings.catch_warnings():
        warnings.simplefilter("default", StructureWarning)
        show_others = warnings.showwarning

        def show(message: Warning | str, category: type[Warning], *place: Any, **more: Any) -> None:
            if issubclass(category, StructureWarning):
                _say(f"warning: {message}")
            else:
                show_others(message, category, *place, **more)

        warnings.showwarning = show
        yield


def _fail(error: BaseException | str, code: int) -> None:
    _say(error)
    raise SystemExit(code)


def _say(text: BaseException | str) -> None:
    # A name of a file may hold bytes that are no text.
    print(f"esen-flows: {text}".encode("utf-8", "backslashreplace").decode(), file=sys.stderr)
