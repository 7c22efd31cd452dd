"""How `esen-flows query` prints and writes what it found: one result after the other, however many there are."""

import csv
import json
import os
import re
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from datetime import datetime
from itertools import islice
from pathlib import Path
from typing import Any, TextIO

import typer
from ase import Atoms
from rich.console import Console
from rich.table import Table

from esen_flows.errors import InputError
from esen_flows.schemas.documents import ResultDocument
from esen_flows.store.queries.query import StructureRecord
from esen_flows.store.queries.tables import RESULT_COLUMNS, STRUCTURE_COLUMNS, Found, columns_of, row_of

# The values that a table has room for; CSV and JSON give all.
COLUMNS: dict[str, tuple[str, ...]] = {
    "relax": ("energy_per_atom_ev", "volume_per_atom_angstrom3", "a_angstrom", "n_steps"),
    "forces": ("displacements_fc2", "displacements_fc3", "parity_averaged"),
    "phonon": ("verdict", "max_frequency_thz", "min_frequency_thz"),
    "conductivity": ("kappa_rta_w_per_m_k", "kappa_wigner_w_per_m_k", "temperature_kelvin", "mesh"),
    "labelling": ("dataset_name", "structures", "atoms"),
    "training": ("name", "structures", "steps", "energy_mae_mev_per_atom", "force_mae_mev_per_angstrom"),
    "evaluation": ("dataset_name", "structures", "energy_mae_mev_per_atom", "force_mae_mev_per_angstrom"),
    "structures": ("nsites", "chemsys", "material_ids"),
}
_FAILURE = ("error", "message")


def plain(found: Found) -> dict[str, Any]:
    """A result or structure as JSON-able values, without its arrays."""
    if isinstance(found, ResultDocument):
        return found.model_dump(mode="json", exclude={"output", "schema_version"})
    return {"key": found.key, **{name: _jsonable(value) for name, value in found.fields.items()}}


def print_table(kind: str, found: Iterable[Found], columns: Sequence[str] | None, failed: bool, limit: int) -> None:
    """A table of at most `limit` rows, which says if there are more."""
    rows = list(islice(found, limit + 1))
    heading = () if columns else ("key", "formula", "spacegroup", *(() if kind == "structures" else ("model",)))
    names = columns or (*heading, *(_FAILURE if failed else COLUMNS.get(kind, ())), "created")
    fields = columns_of(kind, names)
    more = f"the first {limit}; there are more: --limit N, or --format csv for all"
    nothing = "nothing found" if kind in COLUMNS else f"nothing found: this version computes no {kind} results"
    table = Table(caption=None if 0 < len(rows) <= limit else more if rows else nothing)
    for name in names:
        table.add_column("space group" if name == "spacegroup" and heading else name)
    for each in rows[:limit]:
        values = row_of(each, fields)
        if heading:
            values |= {"key": values["key"][:12], "spacegroup": _symbol(each)}
        table.add_row(*(_text(value) for value in values.values()))
    Console().print(table, markup=False)


def write_csv(out: TextIO, kind: str, found: Iterable[Found], columns: Sequence[str] | None) -> None:
    """Identity and all values of the kind, or the columns named."""
    from esen_flows.store.queries.fields import SUMMARIES

    fixed = STRUCTURE_COLUMNS if kind == "structures" else (*RESULT_COLUMNS, *sorted(SUMMARIES.get(kind, ())))
    fields = columns_of(kind, columns or fixed)
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(fields)
    for each in found:
        writer.writerow([_cell(value) for value in row_of(each, fields).values()])


def write_json(out: TextIO, kind: str, found: Iterable[Found], columns: Sequence[str] | None) -> None:
    """A list of documents, or of the columns named."""
    separator = "[\n"
    for row in _json_rows(kind, found, columns):
        out.write(separator + json.dumps(row, indent=1))
        separator = ",\n"
    out.write("[]\n" if separator == "[\n" else "\n]\n")


def write_jsonl(out: TextIO, kind: str, found: Iterable[Found], columns: Sequence[str] | None) -> None:
    """A document in each line, or the columns named."""
    for row in _json_rows(kind, found, columns):
        out.write(json.dumps(row) + "\n")


def write_extxyz(out: TextIO, pairs: Iterable[tuple[Found, Atoms]], fields: Sequence[str]) -> int:
    """Structures in one extended XYZ file, what they are and `fields` in their comment lines; how many."""
    from ase.io.extxyz import write_extxyz as write

    count = 0
    for found, atoms in pairs:
        kind = "structures" if isinstance(found, StructureRecord) else found.kind
        values = row_of(found, columns_of(kind, fields))
        # Readers take an empty value for the next name.
        atoms.info |= {name: _cell(value) for name, value in values.items() if value not in (None, "", [])}
        write(out, [atoms])
        count += 1
    return count


def write_cifs(folder: Path, pairs: Iterable[tuple[Found, Atoms]]) -> int:
    """A CIF file for each structure, FORMULA-KEY.cif; how many."""
    from ase.io import write

    if folder.exists() and not folder.is_dir():
        raise InputError(f"{folder} is a file; a CIF export needs a folder: --output FOLDER")
    folder.mkdir(parents=True, exist_ok=True)
    count = 0
    for found, atoms in pairs:
        path = folder / f"{found_formula(found)}-{found.key[:16]}.cif"
        partial = path.with_suffix(f".partial-{os.getpid()}")
        write(partial, atoms, format="cif")
        partial.replace(path)
        count += 1
    return count


def found_formula(found: Found) -> str:
    """The formula, safe in a file's name."""
    formula = found.formula if isinstance(found, ResultDocument) else str(found.fields.get("formula", ""))
    return re.sub(r"[^A-Za-z0-9]", "_", formula)[:60]


@contextmanager
def output_file(path: Path | None) -> Iterator[TextIO]:
    """Standard output, or a file that appears when it is complete; what is no file, as a pipe, is written into."""
    if path is None:
        yield sys.stdout
        return
    path = path.resolve()  # the file behind a link, and not the link, is written
    if path.is_dir():
        raise InputError(f"{path} is a folder; give a file: --output FILE")
    if path.exists() and not path.is_file():
        with path.open("w", newline="") as out:
            yield out
        return
    partial = path.with_name(f".{path.name}.partial-{os.getpid()}")
    try:
        with partial.open("w", newline="") as out:
            yield out
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)


def report(count: int, path: Path) -> None:
    """Say what was written."""
    typer.echo(f"wrote {count} structures to {path}", err=True)


def _json_rows(kind: str, found: Iterable[Found], columns: Sequence[str] | None) -> Iterator[dict[str, Any]]:
    if columns is None:
        yield from map(plain, found)
        return
    fields = columns_of(kind, columns)
    for each in found:
        yield {name: _jsonable(value) for name, value in row_of(each, fields).items()}


def _jsonable(value: Any) -> Any:
    return value.isoformat().replace("+00:00", "Z") if isinstance(value, datetime) else value


def _cell(value: Any) -> Any:
    return " ".join(map(str, value)) if isinstance(value, list) else _jsonable(value)


def _symbol(found: Found) -> str:
    symbol = found.space_group_symbol if isinstance(found, ResultDocument) else found.fields.get("space_group_symbol")
    return symbol or ""


def _text(value: Any) -> str:
    if value is None:
        return ""
    if isinstance(value, datetime):
        return f"{value:%Y-%m-%d %H:%M}"
    return f"{value:.4g}" if isinstance(value, float) else str(_cell(value))


WRITERS: dict[str, Callable[[TextIO, str, Iterable[Found], Sequence[str] | None], None]] = {
    "csv": write_csv,
    "json": write_json,
    "jsonl": write_jsonl,
}
