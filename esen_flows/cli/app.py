"""The command line. `main` runs it: errors become one message and an exit code, never a traceback."""

import sys
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from esen_flows.version import __version__
from esen_flows.cli.commands import (
    campaign,
    converge,
    data,
    db,
    doctor,
    launcher,
    models,
    plot,
    properties,
    results,
    train,
    worker,
)
from esen_flows.cli.machine import yield_waiting_threads
from esen_flows.errors import EsenFlowsError


class _Interrupted(Exception):
    """Ctrl-C, with the words of the command that it met."""


class _Commands(TyperGroup):
    """Typer ends a KeyboardInterrupt that reaches it without a word, so none does."""

    def invoke(self, ctx: Any) -> Any:  # the context class is private to typer
        try:
            return super().invoke(ctx)
        except KeyboardInterrupt as stop:  # commands that hold claims have said so and released them by now
            raise _Interrupted(*(stop.args or ("interrupted; what was finished is kept",))) from stop


app = typer.Typer(
    name="esen-flows",
    cls=_Commands,
    help="Force fields from training to benchmarks: relaxation, phonons, thermal conductivity, all results in MongoDB.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
for module in (properties, converge, results, plot, train, worker, doctor):
    module.register(app)
app.add_typer(models.app, name="models")
app.add_typer(data.app, name="data")
app.add_typer(db.app, name="db")
app.add_typer(campaign.app, name="campaign")
app.add_typer(launcher.app, name="launcher")


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
    """Run the command line; always ends in SystemExit.

    0: done, 1: failed, 2: wrong usage, 75: stopped and saved, to be run again, 130: interrupted.
    """
    yield_waiting_threads()
    try:
        app(args=arguments, prog_name="esen-flows")
    except EsenFlowsError as error:
        _fail(error, error.exit_code)
    except OSError as error:
        _fail(error, 1)
    except MemoryError as error:
        reason = str(error) or "no memory is left"
        _fail(f"{reason}; take a smaller structure or supercell, or a machine with more memory", 1)
    except _Interrupted as stop:
        _fail(stop, 130)


def _fail(error: BaseException | str, code: int) -> None:
    print(f"esen-flows: {error}", file=sys.stderr)
    raise SystemExit(code)
