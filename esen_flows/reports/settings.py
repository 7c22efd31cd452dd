"""Settings and versions as tables, of one or of several things beside each other."""

import json
from collections.abc import Mapping, Sequence
from typing import Any

from esen_flows.reports.page import FEW_ROWS, Cell, Column, Table


def settings_table(names: Sequence[str], settings: Sequence[Mapping[str, Any]], title: str = "") -> Table:
    """Settings of several things beside each other, those that differ first.

    Parameters
    ----------
    names
        Their names.
    settings
        Values of each by dotted names, which have their units.
    title
        Title of the table.

    Returns
    -------
    Table
        One row for each setting.
    """
    rows: list[list[Cell]] = []
    for name in dict.fromkeys(name for each in settings for name in each):
        values = [setting_text(each.get(name)) for each in settings]
        if not any(values):  # a setting that none of them uses
            continue
        rows.append([name, *values, *(["yes" if len(set(values)) > 1 else ""] if len(names) > 1 else [])])
    columns = [Column("setting"), *(Column(name) for name in names)]
    note = ""
    if len(names) > 1:
        columns.append(Column("differs"))
        rows.sort(key=lambda row: row[-1] == "")
        count = sum(row[-1] == "yes" for row in rows)
        note = f"{count} of {len(rows)} settings differ." if count else "No setting differs."
    return Table(columns, rows, title, note, is_searchable=len(rows) > FEW_ROWS)


def setting_text(value: Any) -> str:
    """The value of a setting as text.

    Parameters
    ----------
    value
        Any value of JSON.

    Returns
    -------
    str
        The text; empty for None.

    Examples
    --------
    >>> setting_text([9, 9, 9]), setting_text(0.03), setting_text("rta"), setting_text(None)
    ('[9, 9, 9]', '0.03', 'rta', '')
    """
    if value is None:
        return ""
    return value if isinstance(value, str) else json.dumps(value, default=str, ensure_ascii=False)


def versions_table(versions: Mapping[str, Mapping[str, int]]) -> Table:
    """Versions of packages, with the number of results by each.

    Parameters
    ----------
    versions
        Number of results by package and version.

    Returns
    -------
    Table
        One row for each package and version.
    """
    rows = [(name, version, count) for name, counted in versions.items() for version, count in counted.items()]
    columns = (Column("package"), Column("version"), Column("results", form="d"))
    return Table(columns, rows, "Versions", is_searchable=len(rows) > FEW_ROWS)
