"""`esen-flows data list | pull | verify`: reference data of benchmarks by name."""

from pathlib import Path
from typing import Annotated

import typer
from rich.filesize import decimal
from rich.table import Table

from esen_flows.cli.output.json_output import JsonOption, print_json
from esen_flows.cli.output.progress import downloading, progress_bars
from esen_flows.cli.output.tables import show
from esen_flows.settings import get_settings

NamesArgument = Annotated[list[str] | None, typer.Argument(help="Reference sets. Default: all.")]


def list_sets(names: NamesArgument = None, as_json: JsonOption = False) -> None:
    """List reference sets: what they are, whether they are here, sizes and licences; with names also addresses."""
    from esen_flows.data.reference_sets.files import find, read_pins, reference_set
    from esen_flows.data.reference_sets.table import REFERENCE_SETS

    root = get_settings().reference_folder
    if as_json:
        sets = {name: reference_set(name) for name in names or REFERENCE_SETS}
        print_json([{"name": name, **vars(each), "here": find(name, root)} for name, each in sets.items()])
        return
    if not names:
        table = Table("set", "here", "size", "licence", "content")
        table.caption = f"in {root}; addresses: esen-flows data list SET"
        for name, each in REFERENCE_SETS.items():
            found = find(name, root)
            table.add_row(name, _here(len(found), len(each.files)), _size(name, found), each.licence, each.title)
        show(table)
        return
    for name in names:
        each, found = reference_set(name), find(name, root)
        typer.echo(f"{name}: {each.title}\nlicence   {each.licence}\nsize      {_size(name, found) or 'not published'}")
        pins = read_pins(root / name)
        for file in each.files:
            digest = f"md5 {file.md5}" if file.md5 else "no digest published"
            if file.name in pins:
                digest += f", sha256 of the first download {pins[file.name]['sha256']}"
            typer.echo(f"file      {file.name} from {file.address}, {digest}")
        if each.listing:
            typer.echo(f"files     {each.pattern} from {each.listing}, no digests published")
        places = sorted({str(path.parent) for path in found}) or ["nowhere here"]
        typer.echo(f"found in  {', '.join(places)}")


def pull(names: Annotated[list[str], typer.Argument(help="Reference sets, as `data list` names them.")]) -> None:
    """Download reference sets that are not here yet, and continue what broke off."""
    from esen_flows.data.reference_sets.files import pull as fetch
    from esen_flows.data.reference_sets.files import reference_set

    for name in names:  # a wrong name is refused before hours of downloading
        reference_set(name)
    root = get_settings().reference_folder
    for name in names:
        with downloading() as begin:
            found = fetch(name, root, begin)
        typer.echo(f"{name} is at {found[0] if len(found) == 1 else f'{found[0].parent}, {len(found):,} files'}")


def verify(names: NamesArgument = None, as_json: JsonOption = False) -> None:
    """Name damaged and missing files of reference sets, with status 1; without names, of the sets that are here."""
    from esen_flows.data.reference_sets.files import find, without_digest
    from esen_flows.data.reference_sets.files import verify as check
    from esen_flows.data.reference_sets.table import REFERENCE_SETS

    root = get_settings().reference_folder
    faults, checked, unknown = [], list[Path](), list[Path]()
    with progress_bars(transient=True) as bars:
        task = bars.add_task("reading", total=None)

        def on_file(path: Path) -> None:
            checked.append(path)
            bars.update(task, description=path.name, completed=len(checked))

        for name in names or (known for known in REFERENCE_SETS if find(known, root)):
            faults += list(check(name, root, on_file))
            unknown += without_digest(name, root)
    for fault in faults:
        typer.echo(str(fault))
    typer.echo(f"{len(checked)} files in {root} were read; {len(faults)} are missing or damaged")
    if unknown:
        typer.echo(
            f"not verified: {len(unknown)} file(s) without a published digest that were not downloaded by esen-flows, "
            f"such as {unknown[0]}"
        )
    if as_json:
        print_json({"read": checked, "faults": [str(fault) for fault in faults], "without_digest": unknown})
    if faults:
        raise typer.Exit(1)


def _here(found: int, files: int) -> str:
    if not found:
        return "no"
    return "yes" if files == 1 or found == files else f"{found:,}"


def _size(name: str, found: list[Path]) -> str:
    """Size of what is here, else the published one."""
    from esen_flows.data.reference_sets.table import REFERENCE_SETS

    each = REFERENCE_SETS[name]
    if found:
        return decimal(sum(path.stat().st_size for path in found))
    known = [file.size_bytes for file in each.files]
    return each.size or (decimal(sum(known)) if known and None not in known else "")  # type: ignore[arg-type]
