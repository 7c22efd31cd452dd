"""`esen-flows launcher list | init`: scripts that start workers on a site's queue or on a workstation."""

from pathlib import Path
from typing import Annotated, Any

import typer
from rich.table import Table

from esen_flows.cli.options import duration_option
from esen_flows.cli.output.json_output import JsonOption, print_json
from esen_flows.cli.output.tables import show

app = typer.Typer(help="Scripts that start workers: as jobs of a queue, or on a workstation.", no_args_is_help=True)
WalltimeOption = Annotated[float | None, duration_option("Time limit of a job: 4h, 23:30:00, 1-12:00:00.")]
WarningOption = Annotated[float | None, duration_option("Time before its end to warn a job: 300 (s), 5m.")]


@app.command(name="list")
def list_(as_json: JsonOption = False) -> None:
    """List the sites that have templates, and the options that each needs or accepts."""
    from esen_flows.queue.launchers import about, flag, list_sites, values_of

    if as_json:
        print_json([{"site": site, "for": about(site), "options": values_of(site)} for site in list_sites()])
        return
    table = Table("site", "for", "needs", "takes", box=None, pad_edge=False)
    for site in list_sites():
        values = values_of(site).items()
        needed, accepted = ([flag(name) for name, required in values if required == kind] for kind in (True, False))
        table.add_row(site, about(site), " ".join(needed), " ".join(accepted))
    show(table)


@app.command()
def init(
    site: Annotated[str, typer.Option(help="One of esen-flows launcher list.")],
    output: Annotated[Path, typer.Option("--output", "-o", help="Folder for the filled-in files.")],
    partition: Annotated[str | None, typer.Option("--partition", "--queue", help="Queue of the GPU nodes.")] = None,
    cpu_partition: Annotated[str | None, typer.Option(help="Queue of nodes without GPUs.")] = None,
    account: Annotated[str | None, typer.Option(help="Account that jobs are charged to.")] = None,
    qos: Annotated[str | None, typer.Option(help="Quality of service.")] = None,
    constraint: Annotated[str | None, typer.Option(help="Features that nodes must have.")] = None,
    memory: Annotated[str | None, typer.Option(help="Memory of a job, such as 64G.")] = None,
    gpus_per_node: Annotated[int | None, typer.Option(help="GPUs of a node.")] = None,
    cpus_per_gpu: Annotated[int | None, typer.Option(help="Cores (and threads) for each GPU.")] = None,
    cpus_per_job: Annotated[int | None, typer.Option(help="Cores of a job without GPUs.")] = None,
    nodes: Annotated[int | None, typer.Option(help="Nodes of one training.")] = None,
    walltime: WalltimeOption = None,
    warning_seconds: WarningOption = None,
    uri_file: Annotated[Path | None, typer.Option(help="File of mode 0600 with the URI of the database.")] = None,
    database: Annotated[str | None, typer.Option(help="Name of the database. Default: esen_flows.")] = None,
    force: Annotated[bool, typer.Option("--force", help="Replace existing files.")] = False,
) -> None:
    """Fill in the templates of a site, and print the commands to type next."""
    from esen_flows.queue.launchers import VALUES, fill

    given: dict[str, Any] = locals()
    if walltime is not None:
        minutes, seconds = divmod(round(walltime), 60)
        given["walltime"] = f"{minutes // 60}:{minutes % 60:02d}:{seconds:02d}"
    if warning_seconds is not None:
        given["warning_seconds"] = round(warning_seconds)
    values = {name: str(given[name]) for name in VALUES if given[name] is not None}
    files, next_commands = fill(site, values, output, force=force)
    typer.echo(f"written to {files[0].parent}: {', '.join(path.name for path in files)}")
    typer.echo(next_commands.rstrip())
