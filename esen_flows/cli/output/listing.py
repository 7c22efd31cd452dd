"""Tables and files of stored results, for `esen-flows query`; results are read and written one after the other."""

import csv
import json
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import datetime
from itertools import islice
from pathlib import Path
from typing import Any, TextIO

from ase import Atoms
from rich.table import Table

from esen_flows.cli.output.json_output import jsonable, output_stream
from esen_flows.cli.output.tables import frequency_text, natural_width, number_text, show, terminal_width
from esen_flows.errors import InputError
from esen_flows.files import written_whole
from esen_flows.schemas.documents import ResultDocument
from esen_flows.schemas.property_entry import SummaryField
from esen_flows.schemas.property_lookup import entry_of
from esen_flows.store.queries.fields import Field
from esen_flows.store.queries.query import StructureRecord
from esen_flows.store.queries.tables import RESULT_COLUMNS, STRUCTURE_COLUMNS, Found, columns_of, row_of
from esen_flows.units import FrequencyUnit

_FAILURE = ("error", "message")
# Columns that a narrow terminal gets last.
_KEY_DIGITS = 12
_LEFT_OUT_FIRST = ("created", "spacegroup", "temperature_kelvin", "model")
_UNITS = {"angstrom": "A", "kelvin": "K"}  # of fields that reports do not label


def _identity(kind: str) -> tuple[str, ...]:
    """Columns that say what a row is about; a dataset has no formula and no space group."""
    if kind == "structures":
        return ("key", "formula", "spacegroup")
    return ("key", "formula", "spacegroup", "model") if entry_of(kind).subject == "structure" else ("key", "model")


def _columns(kind: str) -> tuple[str, ...]:
    """Summary fields that a table has room for; CSV and JSON give all of them."""
    if kind == "structures":
        return ("nsites", "chemsys", "material_ids")
    return tuple(field.name for field in entry_of(kind).summary if field.column)


def print_table(
    kind: str,
    found: Iterable[Found],
    columns: Sequence[str] | None,
    failed: bool,
    limit: int,
    unit: FrequencyUnit = "THz",
) -> None:
    """Print a table, and whether there are more rows.

    Parameters
    ----------
    kind
        Kind of the results, or "structures".
    found
        Results or structures; one more than `limit` shows that there are more.
    columns
        Names as in conditions; None for those of the kind.
    failed
        Whether these are failed results, whose errors are shown.
    limit
        Largest number of rows.
    unit
        Unit of frequencies.

    Raises
    ------
    InputError
        A column does not exist.
    """
    rows = list(islice(found, limit + 1))
    heading = () if columns else _identity(kind)
    names = columns or (*heading, *(_FAILURE if failed else _columns(kind)), "created")
    fields = columns_of(kind, names)
    caption = None
    if not rows:
        caption = "nothing found"
    elif len(rows) > limit:
        caption = f"the first {limit}; there are more: --limit N, or --format csv for all"
    if any(name.endswith("_mol") for name in names):
        caption = "; ".join(filter(None, (caption, "values per mol are per mol of primitive cells (primitive_atoms)")))
    verdicts = [each.summary.get("domain") for each in rows if isinstance(each, ResultDocument)]
    for verdict, words in (("outside", "outside of"), ("near", "near")):
        if count := verdicts.count(verdict):
            words = f"{count} {words} what the force field was trained on (domain)"
            caption = "; ".join(filter(None, (caption, words)))
    contents = []
    for each in rows[:limit]:
        values = row_of(each, fields)
        if heading:
            values |= {"spacegroup": _symbol(each)} if "spacegroup" in heading else {}
        if "key" in values and (heading or terminal_width() is not None):
            values["key"] = values["key"][:_KEY_DIGITS]  # enough for `show`
        contents.append(values)
    show(_fitting(kind, fields, contents, caption, _LEFT_OUT_FIRST if heading else (), unit))


def _fitting(
    kind: str,
    fields: Mapping[str, Field],
    rows: Sequence[Mapping[str, Any]],
    caption: str | None,
    spare: Sequence[str],
    unit: FrequencyUnit,
) -> Table:
    """A table without those of the spare columns, the first ones first, for which the terminal has no room."""
    names, width = list(fields), terminal_width()
    gone: list[str] = []
    while True:
        words = [*filter(None, [caption]), *([f"no room for {', '.join(gone)}; --columns chooses"] if gone else [])]
        table = Table(caption="; ".join(words) or None)
        for name in names:
            heading = name if width is None else _heading(kind, name)
            if _is_frequency(fields[name]):
                heading = heading.replace("_thz", f"_{unit}").replace("(THz)", f"({unit})")
            is_number = fields[name].type == "number" and name != "spacegroup"  # which is shown by its symbol
            table.add_column(heading, justify="right" if is_number else "left")
        for row in rows:
            texts = {name: _text(row[name], _format(kind, name)) for name in names}
            texts |= {name: _frequency_text(row[name], unit) for name in names if _is_frequency(fields[name])}
            table.add_row(*texts.values())
        candidates = [name for name in spare if name in names]
        if width is None or not candidates or natural_width(table) <= width:
            return table
        names.remove(candidates[0])
        gone.append(candidates[0])


def _heading(kind: str, name: str) -> str:
    """Heading of a column: the words of reports above the unit; otherwise the name as it is typed in conditions."""
    value = _summary_field(kind, name)
    if value is None:
        return "space\ngroup" if name == "spacegroup" else name
    words, _, unit = name.rpartition("_")
    if value.label:
        # Temperatures differ from row to row.
        words, unit = value.label.partition(", {")[0], value.unit.partition(",")[0]
    elif unit in _UNITS:
        unit = _UNITS[unit]
    else:
        words, unit = name, ""
    return "\n".join([*words.replace("_", " ").split(), *([f"({unit})"] if unit else [])])


def _is_frequency(field: Field) -> bool:
    return field.path.endswith("_thz")


def _frequency_text(value: float | None, unit: FrequencyUnit) -> str:
    return "" if value is None else frequency_text(value, unit)


def _format(kind: str, name: str) -> str | None:
    value = _summary_field(kind, name)
    return value.format if value is not None and value.format else None


def _summary_field(kind: str, name: str) -> SummaryField | None:
    summary = () if kind == "structures" else entry_of(kind).summary
    return next((value for value in summary if value.name == name), None)


def write_rows(out: TextIO, form: str, kind: str, found: Iterable[Found], columns: Sequence[str] | None = None) -> None:
    """Write results or structures as a CSV table, as a JSON list, or as one JSON object per line.

    Parameters
    ----------
    out
        Stream to write to.
    form
        "csv", "json" or "jsonl".
    kind
        Kind of the results, or "structures".
    found
        Results or structures, read one after the other.
    columns
        Names as in conditions; None for identity and summary (csv) or whole documents without arrays.

    Raises
    ------
    InputError
        A column does not exist.
    """
    if form == "csv":
        fixed: tuple[str, ...] = STRUCTURE_COLUMNS
        if kind != "structures":
            fixed = (*RESULT_COLUMNS, *sorted(field.name for field in entry_of(kind).summary))
        fields = columns_of(kind, columns or fixed)
        writer = csv.writer(out, lineterminator="\n")
        writer.writerow(fields)
        writer.writerows([_cell(value) for value in row_of(each, fields).values()] for each in found)
        return
    rows = _json_rows(kind, found, columns)
    if form == "jsonl":
        out.writelines(json.dumps(row, ensure_ascii=False, allow_nan=False) + "\n" for row in rows)
        return
    separator = "[\n"
    for row in rows:
        out.write(separator + json.dumps(row, indent=1, ensure_ascii=False, allow_nan=False))
        separator = ",\n"
    out.write("[]\n" if separator == "[\n" else "\n]\n")


def write_extxyz(out: TextIO, pairs: Iterable[tuple[Found, Atoms]], fields: Sequence[str]) -> int:
    """Write structures as extended XYZ, with values of their results in the comment lines.

    Parameters
    ----------
    out
        Stream to write to.
    pairs
        Results (or structure records) with their structures, read one after the other.
    fields
        Names of the values, as in conditions.

    Returns
    -------
    int
        Number of structures written.

    Raises
    ------
    InputError
        A field does not exist.
    """
    from esen_flows.structures.export import write_frames

    count = 0
    for found, atoms in pairs:
        kind = "structures" if isinstance(found, StructureRecord) else found.kind
        values = row_of(found, columns_of(kind, fields))
        # An empty value would make readers take the next name for it.
        atoms.info |= {name: _cell(value) for name, value in values.items() if value not in (None, "", [])}
        write_frames(out, [atoms])
        count += 1
    return count


def write_cifs(folder: Path, pairs: Iterable[tuple[Found, Atoms]]) -> int:
    """Write a CIF file for each structure, FORMULA-KEY.cif.

    Parameters
    ----------
    folder
        Folder of the files; it is made if it does not exist.
    pairs
        Results (or structure records) with their structures, read one after the other.

    Returns
    -------
    int
        Number of files written.

    Raises
    ------
    InputError
        `folder` is a file.
    """
    from esen_flows.structures.export import write_crystal

    if folder.exists() and not folder.is_dir():
        raise InputError(f"{folder} is a file; a CIF export needs a folder: --output FOLDER")
    folder.mkdir(parents=True, exist_ok=True)
    count = 0
    for found, atoms in pairs:
        path = folder / f"{file_formula(found)}-{found.key[:16]}.cif"
        with written_whole(path) as temporary:
            write_crystal(temporary, atoms, "cif", str(path))
        count += 1
    return count


def file_formula(found: Found) -> str:
    """The formula of a result or structure, with characters that are safe in file names.

    Parameters
    ----------
    found
        Result or structure.

    Returns
    -------
    str
        Part of a file name.
    """
    formula = found.formula or "" if isinstance(found, ResultDocument) else str(found.fields.get("formula", ""))
    return re.sub(r"[^A-Za-z0-9]", "_", formula)[:60]


@contextmanager
def output_file(path: Path | None) -> Iterator[TextIO]:
    """Standard output, or a file that takes its name when it is complete.

    Parameters
    ----------
    path
        File to write; None for standard output. A pipe or device is written to directly, and of a link the target.

    Yields
    ------
    TextIO
        Stream to write to.

    Raises
    ------
    InputError
        `path` is a folder.
    """
    if path is None:
        yield output_stream()
        return
    path = path.resolve()  # to replace the target of a link rather than the link
    if path.is_dir():
        raise InputError(f"{path} is a folder; give a file: --output FILE")
    if path.exists() and not path.is_file():
        with path.open("w", newline="") as out:
            yield out
        return
    with written_whole(path) as temporary, temporary.open("w", newline="") as out:
        yield out


def _json_rows(kind: str, found: Iterable[Found], columns: Sequence[str] | None) -> Iterator[dict[str, Any]]:
    if columns is None:
        for each in found:
            yield jsonable(each if isinstance(each, ResultDocument) else {"key": each.key, **each.fields})
        return
    fields = columns_of(kind, columns)
    for each in found:
        yield jsonable(row_of(each, fields))


def _cell(value: Any) -> Any:
    if isinstance(value, list):
        return " ".join(map(str, value))
    return jsonable(value) if isinstance(value, datetime) else value


def _symbol(found: Found) -> str:
    symbol = found.space_group_symbol if isinstance(found, ResultDocument) else found.fields.get("space_group_symbol")
    return symbol or ""


def _text(value: Any, form: str | None = None) -> str:
    if value is None:
        return ""
    if isinstance(value, datetime):
        return f"{value:%Y-%m-%d %H:%M}"
    if isinstance(value, float):
        return number_text(value, form or ".4g")
    return str(_cell(value))
