"""Documents as MongoDB's extended JSON from files of any origin: such as this package writes, or an error."""

from datetime import datetime
from typing import Any

from bson import ObjectId, json_util
from bson.int64 import Int64

from esen_flows.store.database import Row

MOST_DEPTH = 60  # MongoDB takes 100, of which the store adds some
_OPTIONS = json_util.JSONOptions(tz_aware=True)


class DocumentError(ValueError):
    """A text is no document that this package writes."""


def parsed(text: bytes) -> Row:
    """The document in a text.

    Parameters
    ----------
    text
        One document as extended JSON, canonical or relaxed.

    Returns
    -------
    Row
        The document, of dictionaries, lists, strings, bytes, numbers of 64 bits, dates, ids of objects and None.

    Raises
    ------
    DocumentError
        The text is no JSON, no document, nested too deep, or holds a value of another type.
    """
    try:
        value = json_util.loads(text.decode(), json_options=_OPTIONS)
    except Exception as error:  # json_util raises errors of every kind for values that are none of their type
        raise DocumentError(f"it is no extended JSON ({type(error).__name__}: {str(error)[:100]})") from None
    if not isinstance(value, dict):
        raise DocumentError(f"it holds a {type(value).__name__} instead of a document")
    _check(value, 0)
    return value


def _check(value: Any, depth: int) -> None:
    if depth > MOST_DEPTH:
        raise DocumentError(f"its values are nested more than {MOST_DEPTH} deep")
    if isinstance(value, dict):
        for name, item in value.items():
            if "\0" in name:
                raise DocumentError(f"it has a field of the name {name[:40]!r}")
            _check(item, depth + 1)
    elif isinstance(value, list):
        for item in value:
            _check(item, depth + 1)
    elif isinstance(value, str):
        if not value.isascii() and any("\ud800" <= letter <= "\udfff" for letter in value):
            raise DocumentError("it has a text with half a character")
    elif isinstance(value, int):
        if not -(2**63) <= value < 2**63:
            raise DocumentError(f"it has the number {str(value)[:40]}, which does not fit into 64 bits")
    elif type(value) not in (float, bytes, datetime, ObjectId, Int64, type(None)):
        raise DocumentError(f"it has a value of the type {type(value).__name__}, which is not stored")
