"""`esen-flows launcher list | init`: how jobs reach a machine, for a site's queue or a workstation."""

from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.table import Table

app = typer.Typer(help="Scripts that start workers on a machine: a queue's jobs, a workstation.", no_args_is_help=True)

SITE = typer.Option(help="One of esen-flows launcher list.", show_default=False)
OUTPUT = typer.Option("--output", "-o", help="Folder of the filled-in files.", show_default=False)
PARTITION = typer.Option("--partition", "--queue", help="Partition or queue of the GPU nodes.")
URI_FILE = typer.Option(help="File of mode 0600 with the database's mongodb:// URI.")


@app.command(name="list")
def list_() -> None:
    """The sites that there are templates for, and what each has to be told."""
    from esen_flows.queue.launchers import about, flag, list_sites, values_of

    table = Table("site", "for", "needs", "takes", box=None, pad_edge=False)
    for site in list_sites():
        values = values_of(site)
        table.add_row(
            site,
            about(site),
            " ".join(flag(name) for name, required in values.items() if required),
            " ".join(flag(name) for name, required in values.items() if not required),
        )
    Console().print(table)


@app.command()
def init(
    site: Annotated[str, SITE],
    output: Annotated[Path, OUTPUT],
    partition: Annotated[str | None, PARTITION] = None,
    cpu_partition: Annotated[str | None, typer.Option(help="Of nodes without GPUs.")] = None,
    account: Annotated[str | None, typer.Option(help="Who pays.")] = None,
    qos: Annotated[str | None, typer.Option(help="Quality of service.")] = None,
    constraint: Annotated[str | None, typer.Option(help="Features that nodes must have.")] = None,
    memory: Annotated[str | None, typer.Option(help="Of a job.")] = None,
    gpus_per_node: Annotated[int | None, typer.Option(help="GPUs of a node.")] = None,
    cpus_per_gpu: Annotated[int | None, typer.Option(help="Cores, and threads, for each GPU.")] = None,
    cpus_per_job: Annotated[int | None, typer.Option(help="Cores of a job without GPUs.")] = None,
    nodes: Annotated[int | None, typer.Option(help="Of one training.")] = None,
    walltime: Annotated[str | None, typer.Option(help="How long a job may take, H:MM:SS.")] = None,
    warning_seconds: Annotated[int | None, typer.Option(help="How long before its end a job is warned.")] = None,
    uri_file: Annotated[Path | None, URI_FILE] = None,
    database: Annotated[str | None, typer.Option(help="Another name than esen_flows.")] = None,
    force: Annotated[bool, typer.Option("--force", help="Replace files that are there.")] = False,
) -> None:
    """Fill in the templates of a site, and tell what to type next."""
    from esen_flows.queue.launchers import VALUES, fill

    given: dict[str, Any] = locals()
    values = {name: str(given[name]) for name in VALUES if given[name] is not None}
    written = fill(site, values, output, force=force)
    typer.echo(f"written to {written.files[0].parent}: {', '.join(path.name for path in written.files)}")
    typer.echo(written.next_commands.rstrip())
