"""`esen-flows db start | stop | status`: the private MongoDB server of this user; and what looks after the database."""

from typing import Annotated, Any

import typer
from rich.console import Console
from rich.table import Table

from esen_flows.cli.commands import ingest, upkeep
from esen_flows.errors import StoreError

app = typer.Typer(
    help="The database, and the private MongoDB server that is used unless ESEN_FLOWS_MONGO_URI is set.",
    no_args_is_help=True,
)


@app.command()
def start() -> None:
    """Start the server, or find it running."""
    _refuse_foreign("start")
    from esen_flows.store.server import embedded

    _print(embedded.start())


@app.command()
def stop(
    force: Annotated[bool, typer.Option("--force", help="Also while processes use it.")] = False,
) -> None:
    """Stop the server; it starts again when it is needed."""
    _refuse_foreign("stop")
    from esen_flows.store.server import embedded

    typer.echo("stopped" if embedded.stop(force=force) else "was not running")


@app.command()
def status() -> None:
    """Tell whether the server runs, and where its data is; starts nothing."""
    from esen_flows.store.server import embedded

    if _has_uri():
        typer.echo("ESEN_FLOWS_MONGO_URI is set: that server is used, the private one is not")
    _print(embedded.status())


upkeep.register(app)
ingest.register(app)


def _has_uri() -> bool:
    from esen_flows.settings import get_settings

    return get_settings().mongo_uri is not None


def _refuse_foreign(action: str) -> None:
    if _has_uri():
        raise StoreError(f"ESEN_FLOWS_MONGO_URI is set, so there is no private server to {action}; unset it to use one")


def _print(facts: dict[str, Any]) -> None:
    table = Table(show_header=False)
    for name, value in facts.items():
        if isinstance(value, bool):
            table.add_row(name, "yes" if value else "no")
        elif value is not None:
            table.add_row(name, str(value))
    Console().print(table)
