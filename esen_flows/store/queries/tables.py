"""Results and structures as rows of plain values, for tables, CSV and pandas."""

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

from esen_flows.errors import InputError
from esen_flows.schemas.documents import ResultDocument
from esen_flows.store.queries.fields import Field, find_field
from esen_flows.store.queries.query import StructureRecord

if TYPE_CHECKING:
    import pandas  # type: ignore[import-untyped]

Found = ResultDocument | StructureRecord
RESULT_COLUMNS = ("key", "formula", "chemsys", "nsites", "space_group_number", "model_label", "state", "created_at")
STRUCTURE_COLUMNS = (
    "key", "formula", "chemsys", "nsites", "space_group_number", "space_group_symbol", "material_ids", "created_at",
)  # fmt: skip


def columns_of(kind: str, names: Sequence[str]) -> dict[str, Field]:
    """The fields that column names mean.

    Raises
    ------
    InputError
        a name that does not exist.
    """
    return {name: find_field(kind, name) for name in names}


def row_of(found: Found, columns: dict[str, Field]) -> dict[str, Any]:
    """The values of some columns; None where there is none."""
    if isinstance(found, StructureRecord):
        document = {"_id": found.key, **found.fields}
    else:
        document = found.model_dump(exclude={"output"})
    return {name: field.value(document) for name, field in columns.items()}


def to_frame(found: Iterable[Found], columns: Sequence[str] | None = None) -> "pandas.DataFrame":
    """A pandas table with a row for each result or structure.

    Parameters
    ----------
    found
        of one kind, from `query`, `stream` or their likes for structures.
    columns
        names as in conditions and orders; default: identity and all summary values.

    Raises
    ------
    InputError
        pandas is not installed, or a name does not exist.
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
            structure = isinstance(each, StructureRecord)
            kind = "structures" if isinstance(each, StructureRecord) else each.kind
            chosen = columns_of(kind, columns or (STRUCTURE_COLUMNS if structure else RESULT_COLUMNS))
        row = row_of(each, chosen)
        if columns is None and isinstance(each, ResultDocument):
            row |= each.summary
            summary |= dict.fromkeys(each.summary)
        rows.append(row)
    return pandas.DataFrame(rows, columns=[*(chosen or columns or RESULT_COLUMNS), *summary])
