"""Results for programs: `--json` on every command that prints results, and the one place that writes JSON.

With `--json`, standard output is one JSON value: whatever else a command or another package prints goes to stderr.
"""

import json
import sys
from collections.abc import Mapping, Sequence, Set
from contextlib import AbstractContextManager
from dataclasses import fields, is_dataclass
from datetime import date, datetime
from math import isfinite
from pathlib import Path
from types import TracebackType
from typing import Annotated, Any, TextIO

import numpy as np
import typer
from pydantic import BaseModel

from esen_flows.schemas.documents import ResultDocument


class _Diverted(AbstractContextManager["_Diverted"]):
    """Standard output goes to stderr, and `out` is where it went before."""

    out: TextIO | None = None

    def __enter__(self) -> "_Diverted":
        if _Diverted.out is None:
            _Diverted.out, sys.stdout = sys.stdout, sys.stderr
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if _Diverted.out is not None:
            sys.stdout, _Diverted.out = _Diverted.out, None


def _divert(context: typer.Context, wanted: bool) -> bool:
    if wanted:
        context.with_resource(_Diverted())
    return wanted


JsonOption = Annotated[
    bool,
    typer.Option(
        "--json", callback=_divert, help="Print one JSON value with all numbers; anything else goes to stderr."
    ),
]


def output_stream() -> TextIO:
    """Standard output, also while `--json` keeps everything else away from it.

    Returns
    -------
    TextIO
        Stream for results.
    """
    return _Diverted.out or sys.stdout


def print_json(value: Any) -> None:
    """Write a value to standard output as JSON.

    Parameters
    ----------
    value
        Value as `jsonable` takes it.
    """
    out = output_stream()
    json.dump(jsonable(value), out, indent=1, ensure_ascii=False, allow_nan=False)
    out.write("\n")


def jsonable(value: Any) -> Any:
    """A value as JSON has it.

    Parameters
    ----------
    value
        Numbers, texts, dates, paths, arrays, results, and mappings, sequences, dataclasses and models of them.

    Returns
    -------
    Any
        Arrays as nested lists, dates in ISO 8601; None for numbers that are not finite, such as lifetimes of modes at
        rest.

    Examples
    --------
    >>> jsonable({"kappa": np.array([1.5, np.nan]), "file": Path("Si.cif")})
    {'kappa': [1.5, None], 'file': 'Si.cif'}
    """
    if isinstance(value, float):
        return value if isfinite(value) else None
    if value is None or isinstance(value, str | int):
        return value
    if isinstance(value, np.ndarray | np.generic):
        plain = value.tolist()
        finite = value.dtype.kind in "biuUS" or (value.dtype.kind == "f" and bool(np.isfinite(value).all()))
        return plain if finite else jsonable(plain)
    if isinstance(value, ResultDocument):
        return jsonable(value.model_dump(mode="json", exclude={"output", "schema_version"}))
    if isinstance(value, BaseModel):
        return jsonable(value.model_dump())
    if isinstance(value, Mapping):
        return {str(name): jsonable(part) for name, part in value.items()}
    if is_dataclass(value):
        return {field.name: jsonable(getattr(value, field.name)) for field in fields(value)}
    if isinstance(value, datetime | date):
        return value.isoformat().replace("+00:00", "Z")
    if isinstance(value, Path):
        return str(value)
    if isinstance(value, Sequence | Set):
        return [jsonable(part) for part in value]
    raise TypeError(f"no JSON for a {type(value).__name__}")
