"""`esen-flows data`: labelled structures from any source as a dataset, and reference sets (`reference_sets.py`)."""

import math
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.progress import Progress, TimeRemainingColumn
from rich.table import Column, Table

from esen_flows.cli.commands import reference_sets
from esen_flows.cli.output.json_output import JsonOption, print_json
from esen_flows.cli.output.progress import progress_bars
from esen_flows.cli.output.tables import show
from esen_flows.cli.store import open_store
from esen_flows.cli.usage import UsageError
from esen_flows.data.sources.vocabulary import EnergyUnit, OnBad, SourceFormat, StressOrder, StressUnit

if TYPE_CHECKING:
    from esen_flows.schemas.dataset_index import IndexStatistics

app = typer.Typer(
    help="Datasets of labelled structures: import, describe, check and store them; reference sets of benchmarks.",
    no_args_is_help=True,
)

FolderArgument = Annotated[Path, typer.Argument(help="A dataset folder.")]
MOST_CUTOFF_ANGSTROM = 100.0
SHOWN = 3  # sources and bad records; the others are in the index


@app.command(name="import")
def import_(
    sources: Annotated[list[Path], typer.Argument(help="Files, or folders of files of one format.")],
    output: Annotated[Path, typer.Option("--output", "-o", help="Dataset folder to make.")],
    source_format: Annotated[SourceFormat | None, typer.Option("--format", help="Default: by file names.")] = None,
    cutoff: Annotated[float | None, typer.Option(help="Count edges within this many Angstrom now, not later.")] = None,
    energy_key: Annotated[str | None, typer.Option(help="Name of the energies in the source.")] = None,
    forces_key: Annotated[str | None, typer.Option(help="Name of the forces in the source.")] = None,
    stress_key: Annotated[
        str | None, typer.Option(help="Name of the stresses in the source; none: leave them out.")
    ] = None,
    group_key: Annotated[str | None, typer.Option(help="Name of the field with the subset. Default: group.")] = None,
    material_key: Annotated[str | None, typer.Option(help="Name of the field with the material, never split.")] = None,
    group: Annotated[str, typer.Option(help="Subset of the records that name none.")] = "",
    energy_unit: Annotated[EnergyUnit | None, typer.Option(help="Unit of energies, and per length of forces.")] = None,
    stress_unit: Annotated[
        StressUnit | None, typer.Option(help="Unit of stresses; with -: positive in compression.")
    ] = None,
    stress_order: Annotated[
        StressOrder | None,
        typer.Option(help="Six stresses: voigt is xx yy zz yz xz xy, vasp is xx yy zz xy yz zx. Default: voigt."),
    ] = None,
    keep_unconverged: Annotated[
        bool, typer.Option("--keep-unconverged", help="Keep VASP's steps whose electronic loop did not converge.")
    ] = False,
    max_force: Annotated[float, typer.Option(help="Largest force of a good record, eV/Angstrom.")] = 50.0,
    require_stress: Annotated[bool, typer.Option(help="Treat a crystal without a stress as a bad record.")] = False,
    on_bad: Annotated[OnBad, typer.Option(help="Leave bad records out and list them, or stop.")] = "skip",
    check_strain: Annotated[bool, typer.Option(help="Stop if labels are not derivatives of the energies.")] = True,
) -> None:
    """Write the records of sources to one dataset folder, with units, signs, checksums and what was left out."""
    from esen_flows.data.folders import read_index
    from esen_flows.data.importing import import_sources
    from esen_flows.data.screening import Limits
    from esen_flows.data.sources.options import SourceOptions

    _check_bounds(max_force, cutoff)
    options = SourceOptions(
        energy_key, forces_key, stress_key, group_key, material_key, group, energy_unit, stress_unit, stress_order,
        keep_unconverged,
    )  # fmt: skip
    with _progress() as bar:
        reading = bar.add_task("reading", total=None)
        counting = bar.add_task("counting edges", total=None, visible=False)
        try:
            import_sources(
                sources,
                output,
                source_format=source_format,
                options=options,
                limits=Limits(max_force, require_stress),
                on_bad=on_bad,
                check_strain=check_strain,
                cutoff_angstrom=cutoff,
                on_record=lambda count: bar.update(reading, completed=count),
                on_edges=lambda done, total: bar.update(counting, completed=done, total=total, visible=True),
            )
        except KeyboardInterrupt as stop:
            state = f"{output} is complete, edges are counted later" if output.exists() else "nothing was imported"
            raise KeyboardInterrupt(f"interrupted; {state}") from stop
    _show(read_index(output), output)


def _check_bounds(max_force: float, cutoff: float | None) -> None:
    if not 0 < max_force < math.inf:
        raise UsageError(f"--max-force is {max_force:g}; give eV/Angstrom, such as 50")
    if cutoff is not None and not 0 < cutoff <= MOST_CUTOFF_ANGSTROM:
        raise UsageError(
            f"--cutoff is {cutoff:g}; give a distance in Angstrom up to {MOST_CUTOFF_ANGSTROM:g}, such as 6"
        )


@app.command()
def info(folder: FolderArgument, as_json: JsonOption = False) -> None:
    """Describe a dataset folder: size, groups, statistics, sources, what was left out."""
    from esen_flows.data.folders import read_index

    if as_json:
        print_json(read_index(folder))
        return
    _show(read_index(folder), folder)


@app.command()
def check(folder: FolderArgument, as_json: JsonOption = False) -> None:
    """Check that no record of a dataset has changed, and that the labels are derivatives of the energies."""
    from esen_flows.data.folders import open_dataset, read_index, verify
    from esen_flows.data.stress_check import check_labels_by_strain, require_right

    dataset = open_dataset(folder)
    with _progress() as bar:
        task = bar.add_task("reading", total=len(dataset))
        verify(dataset, read_index(folder)["key"], lambda done, total: bar.update(task, completed=done))
    typer.echo(f"{len(dataset)} records are unchanged")
    slopes = check_labels_by_strain(dataset)
    for slope in slopes:
        typer.echo(slope.words())
    if as_json:
        print_json({"records": len(dataset), "by_strain": slopes})
    require_right(slopes)


@app.command()
def store(
    path: Annotated[Path, typer.Argument(help="A dataset folder, or a file of labelled data.")],
    name: Annotated[str, typer.Option(help="Name of the dataset, for people.")],
) -> None:
    """Store a dataset in the database for training jobs; the folder of a large one has to stay where it is."""
    from esen_flows.data.importing import read_dataset
    from esen_flows.store.datasets import fits_database, store_dataset

    dataset = read_dataset(path)
    large = not fits_database(dataset)
    key = store_dataset(open_store(), dataset, name, folder=path.resolve() if large and path.is_dir() else None)
    where = f", its records stay in {path.resolve()}" if large else ""
    typer.echo(f"{name}: {len(dataset):,} records, key {key}{where}")


@app.command()
def stored(as_json: JsonOption = False) -> None:
    """List the datasets of the database."""
    from esen_flows.store.datasets import list_datasets

    documents = list_datasets(open_store())
    if as_json:
        print_json([document.model_dump(mode="json", exclude={"records", "schema_version"}) for document in documents])
        return
    numbers = [Column(name, justify="right") for name in ("records", "atoms")]
    table = Table("name", *numbers, "elements", "key", "in", box=None, pad_edge=False)
    for document in documents:
        few = " ".join(document.elements[:8]) + (" ..." if len(document.elements) > 8 else "")
        names, place = ", ".join(document.names), document.folder or "the database"
        table.add_row(names, f"{document.count:,}", f"{document.atoms:,}", few, document.key[:16], place)
    show(table)


app.command(name="list")(reference_sets.list_sets)
app.command()(reference_sets.pull)
app.command()(reference_sets.verify)


def _progress() -> Progress:
    return progress_bars(TimeRemainingColumn(), transient=True)


def _show(content: dict[str, Any], folder: Path) -> None:
    from esen_flows.data.stress_check import Slope
    from esen_flows.schemas.dataset_index import checked_index

    index = checked_index(content, str(folder))
    numbers, rejected = index.statistics, index.rejected
    lines = [
        f"{folder}: {index.records:,} records, {index.atoms:,} atoms, {index.materials:,} materials",
        f"key          {index.key}",
        f"elements     {_symbols(numbers.references_ev)}",
        f"energy       {1e3 * numbers.energy_rms_ev_per_atom:.4g} meV/atom rms beside element references",
        f"forces       {numbers.force_rms_ev_per_angstrom:.4g} eV/Angstrom rms, "
        f"largest {numbers.force_max_ev_per_angstrom:.4g}",
        f"stress       {_stress(numbers, index.records)}",
    ]
    lines += [
        f"group        {name or '(none)'}: {count:,} records"
        for name, count in zip(index.group_names, index.group_records, strict=False)
    ]
    lines += [f"by strain    {Slope(**found.model_dump()).words()}" for found in index.check_by_strain]
    sources = index.provenance.sources
    for source in sources[:SHOWN]:
        size = sum(file.bytes for file in source.files)
        many = f", {len(source.files)} files" if len(source.files) > 1 else ""
        lines.append(f"source       {source.name} ({source.format}{many}), {size:,} bytes")
    if len(sources) > SHOWN:
        lines.append(f"             and {len(sources) - SHOWN} more, see index.json")
    lines += [f"noticed      {count:,}: {what}" for what, count in index.remarks.items()]
    lines.append(f"left out     {rejected.records:,} bad records")
    lines += [f"             {count:,}: {reason}" for reason, count in rejected.counts.items()]
    lines += [f"             {bad.where}: {bad.reason} {bad.found}".rstrip() for bad in rejected.listed[:SHOWN]]
    typer.echo("\n".join(lines))


def _symbols(references: dict[int, float]) -> str:
    from ase.data import chemical_symbols

    symbols = [chemical_symbols[z] if 0 < z < len(chemical_symbols) else f"number {z}" for z in references]
    return " ".join(symbols) if len(symbols) <= 20 else f"{len(symbols)}: {' '.join(symbols[:10])} ..."


def _stress(numbers: "IndexStatistics", records: int) -> str:
    if numbers.stress_rms_ev_per_angstrom3 is None:
        return "none"
    return f"{numbers.stress_rms_ev_per_angstrom3:.4g} eV/Angstrom^3 rms, {numbers.stress_records:,} of {records:,}"
