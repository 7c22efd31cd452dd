"""Results and structures as rows of plain values, for tables, CSV and pandas."""

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

from esen_flows.errors import InputError
from esen_flows.schemas.documents import ResultDocument
from esen_flows.store.queries.fields import Field, find_field, is_at_temperature
from esen_flows.store.queries.query import StructureRecord

if TYPE_CHECKING:
    import pandas

Found = ResultDocument | StructureRecord
RESULT_COLUMNS = ("key", "formula", "chemsys", "nsites", "space_group_number", "model_label", "state", "created_at")
STRUCTURE_COLUMNS = (
    "key", "formula", "chemsys", "nsites", "space_group_number", "space_group_symbol", "material_ids", "created_at",
)  # fmt: skip


def columns_of(kind: str, names: Sequence[str]) -> dict[str, Field]:
    """The fields of column names.

    Parameters
    ----------
    kind
        Kind of result, or "structures".
    names
        Names of columns, as in conditions.

    Returns
    -------
    dict
        Fields by name, in the given order.

    Raises
    ------
    InputError
        A name does not exist.
    """
    return {name: find_field(kind, name) for name in names}


def row_of(found: Found, columns: dict[str, Field]) -> dict[str, Any]:
    """The values of some columns.

    Parameters
    ----------
    found
        Result or structure.
    columns
        Fields by name.

    Returns
    -------
    dict
        Values by name; None where there is no value.
    """
    if isinstance(found, StructureRecord):
        document = {"_id": found.key, **found.fields}
    else:
        document = found.model_dump(exclude={"output"})
    return {name: field.value(document) for name, field in columns.items()}


def to_frame(found: Iterable[Found], columns: Sequence[str] | None = None) -> "pandas.DataFrame":
    """A pandas table with one row for each result or structure.

    Parameters
    ----------
    found
        Results of one kind, or structures, from `query` or a similar function.
    columns
        Names of columns, as in conditions; None: the identity and all summary values.

    Returns
    -------
    pandas.DataFrame
        The table.

    Raises
    ------
    InputError
        Pandas is not installed, or a name does not exist.
    """
    try:
        import pandas
    except ImportError:
        raise InputError("a table needs pandas, which is not installed; run: pip install pandas") from None
    rows: list[dict[str, Any]] = []
    chosen: dict[str, Field] | None = None
    summary: dict[str, None] = {}
    for each in found:
        if chosen is None:
            identity = STRUCTURE_COLUMNS if each.kind == "structures" else RESULT_COLUMNS
            chosen = columns_of(each.kind, columns or identity)
        row = row_of(each, chosen)
        if columns is None and isinstance(each, ResultDocument):
            values = {name: value for name, value in each.summary.items() if not is_at_temperature(name)}
            row |= values
            summary |= dict.fromkeys(values)
        rows.append(row)
    return pandas.DataFrame(rows, columns=[*(chosen or columns or RESULT_COLUMNS), *summary])
