"""`esen-flows db ingest FOLDER`: results that were spooled while there was no server go into the database."""

from pathlib import Path
from typing import Annotated

import typer

from esen_flows.errors import StoreError

_SHOWN = 5  # of what is damaged; the rest is counted


def register(app: typer.Typer) -> None:
    """Add the command to the group `db`."""
    app.command("ingest")(ingest)


def ingest(
    folder: Annotated[Path, typer.Argument(help="A spool, or the folder that holds several.", show_default=False)],
) -> None:
    """Merge spooled results into the database; what is there stays, and doing it twice changes nothing."""
    from esen_flows.store.connection import open_store
    from esen_flows.store.exchange.ingest import ingest as merge

    done = merge(open_store(), folder)
    counts = done.counts
    typer.echo(
        f"{counts['new']} results merged, {counts['known']} were there already; "
        f"{counts['structures']} structures; {folder} is unchanged"
    )
    for place in done.truncated:
        typer.echo(
            f"cut off: {place}; its writer was killed before it was done, so the result is computed again when it is "
            "asked for (if this folder is a copy, copy it again)",
            err=True,
        )
    if done.damaged:
        more = f"\n... and {len(done.damaged) - _SHOWN} more" if len(done.damaged) > _SHOWN else ""
        raise StoreError(
            f"{len(done.damaged)} damaged records were not merged, all others were; copy the folder again from where "
            "it was written, or compute these results again:\n" + "\n".join(done.damaged[:_SHOWN]) + more
        )
