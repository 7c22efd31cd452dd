"""`esen-flows db ...`: the private MongoDB server of this user, and the upkeep of the database."""

from typing import Annotated, Any

import typer
from rich.table import Table

from esen_flows.cli.commands.upkeep import export, gc, import_, ingest, init, migrate, size, verify
from esen_flows.cli.output.json_output import JsonOption, print_json
from esen_flows.cli.output.tables import show
from esen_flows.errors import StoreError
from esen_flows.settings import get_settings

app = typer.Typer(
    help="The database, and the private MongoDB server that is used unless ESEN_FLOWS_MONGO_URI is set.",
    no_args_is_help=True,
)


@app.command()
def start() -> None:
    """Start the private server unless it runs."""
    _refuse_foreign("start")
    from esen_flows.store.server import embedded

    _print(embedded.start())


@app.command()
def stop(
    force: Annotated[bool, typer.Option("--force", help="Stop it even while processes use it.")] = False,
) -> None:
    """Stop the private server; it starts again when it is needed."""
    _refuse_foreign("stop")
    from esen_flows.store.server import embedded

    typer.echo("stopped" if embedded.stop(force=force) else "was not running")


@app.command()
def status(as_json: JsonOption = False) -> None:
    """Show whether the private server runs, and where its data is; starts nothing."""
    from esen_flows.store.server import embedded

    if get_settings().mongo_uri is not None:
        typer.echo("ESEN_FLOWS_MONGO_URI is set: that server is used instead of the private one")
    facts = embedded.status()
    if as_json:
        print_json(facts)
    else:
        _print(facts)


for command in (init, size, gc, verify, migrate, export, import_, ingest):
    app.command(command.__name__.rstrip("_"))(command)


def _refuse_foreign(action: str) -> None:
    if get_settings().mongo_uri is not None:
        raise StoreError(f"ESEN_FLOWS_MONGO_URI is set, so there is no private server to {action}; unset it to use one")


def _print(facts: dict[str, Any]) -> None:
    table = Table(show_header=False)
    for name, value in facts.items():
        if isinstance(value, bool):
            table.add_row(name, "yes" if value else "no")
        elif value is not None:
            table.add_row(name, str(value))
    show(table)
