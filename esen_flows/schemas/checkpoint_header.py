"""The JSON header of a native checkpoint, read without torch or safetensors, so that a key takes milliseconds.

A checkpoint is a safetensors file: 8 bytes with the little-endian length of the header, a JSON header, and the tensors.
The part of this package is one JSON string under `__metadata__` / `esen_flows`.
"""

import json
import math
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, get_args

import numpy as np

from esen_flows.errors import ModelError
from esen_flows.schemas.declarations import Equivariance

FORMAT_VERSION = 1
METADATA_NAME = "esen_flows"
MAX_HEADER_BYTES = 100_000_000  # safetensors' own limit
MOST_ELEMENTS = 118
# Fields that do not enter the key of a force field.
NOT_IDENTITY = frozenset({"format_version", "declaration", "training", "model_key"})
# Types of safetensors that numpy has, in the byte order of the file.
_DTYPES = {
    "F64": "<f8", "F32": "<f4", "F16": "<f2", "I64": "<i8", "I32": "<i4", "I16": "<i2", "I8": "i1", "U8": "u1",
    "BOOL": "?",
}  # fmt: skip


def read_header(path: str | Path) -> dict[str, Any]:
    """The header of a checkpoint.

    Parameters
    ----------
    path
        A .safetensors file.

    Returns
    -------
    dict[str, Any]
        `format_version`, `family`, `architecture`, `scale_ev`, `references_ev`, `elements`, `declaration`, `training`
        and `model_key`.

    Raises
    ------
    ModelError
        There is no such file, it is not a safetensors file, it is truncated, this package did not write it, or a value
        is one that no force field has. The tensors are not read: `verified_checkpoints` compares them with the key.
    """
    path = Path(path)
    header, _, _ = _parsed(path)
    metadata = header.get("__metadata__")
    try:
        ours = json.loads((metadata if isinstance(metadata, dict) else {}).get(METADATA_NAME, "null"))
    except (ValueError, TypeError, RecursionError) as error:
        raise _unreadable(path, error) from None
    if not isinstance(ours, dict) or "model_key" not in ours:
        raise ModelError(f"{path} is a safetensors file without an {METADATA_NAME!r} header; convert it first")
    if ours.get("format_version") != FORMAT_VERSION:
        raise ModelError(
            f"{path} has format version {ours.get('format_version')!r:.80}, this release reads {FORMAT_VERSION}; "
            "update esen_flows"
        )
    for name, value, rule in _broken_rules(ours):
        raise ModelError(
            f"{path}: {name} of its header {rule}, got {value!r:.200}; the file is corrupted, fetch it again"
        )
    return ours


@dataclass(frozen=True)
class TensorPlace:
    """Where a tensor is in a file.

    Attributes
    ----------
    dtype
        Type of its numbers.
    shape
        Its shape; () for a single number.
    first
        First byte in the file.
    """

    dtype: np.dtype
    shape: tuple[int, ...]
    first: int


def read_tensors(path: str | Path) -> dict[str, TensorPlace]:
    """Where the tensors of a safetensors file are.

    Parameters
    ----------
    path
        A .safetensors file.

    Returns
    -------
    dict[str, TensorPlace]
        Places by name; the tensors cover the file from the end of its header, without gaps and overlaps.

    Raises
    ------
    ModelError
        As for `read_header`; or the header says something about the tensors that is not true.
    """
    path = Path(path)
    header, begin, size = _parsed(path)
    places, spans = {}, []
    try:
        for name, entry in header.items():
            if name == "__metadata__":
                continue
            dtype, shape = np.dtype(_DTYPES[entry["dtype"]]), tuple(entry["shape"])
            first, last = entry["data_offsets"]
            if not all(isinstance(n, int) and n >= 0 for n in (*shape, first, last)):
                raise ValueError(f"tensor {name!r:.80} has shape {shape!r:.80}")
            if last - first != dtype.itemsize * math.prod(shape):
                raise ValueError(f"tensor {name!r:.80} of shape {shape!r:.80} has {last - first} bytes")
            places[name] = TensorPlace(dtype, shape, begin + first)
            spans.append((first, last))
    except (ValueError, TypeError, KeyError) as error:
        raise _unreadable(path, error) from None
    ends = [0, *(last for _, last in sorted(spans))]
    if [first for first, _ in sorted(spans)] != ends[:-1] or begin + ends[-1] != size:
        raise ModelError(f"{path}: its header leaves gaps between its tensors; the file is corrupted, fetch it again")
    return places


def _parsed(path: Path) -> tuple[dict[str, Any], int, int]:
    """The header of a safetensors file, the length of the part before the tensors, and the size of the file."""
    if not path.is_file():
        raise ModelError(f"no checkpoint file at {path}; give the path of a .safetensors file or the name of a card")
    size = path.stat().st_size
    with path.open("rb") as stream:
        length = int.from_bytes(stream.read(8), "little")
        if not 2 <= length <= min(MAX_HEADER_BYTES, size - 8):
            raise ModelError(f"{path} is not a safetensors checkpoint or is truncated ({size} bytes); fetch it again")
        raw = stream.read(length)
    try:
        header = json.loads(raw)
        expected = 8 + length + max((v["data_offsets"][1] for k, v in header.items() if k != "__metadata__"), default=0)
    except (ValueError, TypeError, LookupError, AttributeError, RecursionError) as error:
        raise _unreadable(path, error) from None
    if size != expected:
        raise ModelError(f"{path} has {size} bytes but its header says {expected}; the file is truncated or corrupted")
    return header, 8 + length, size


def _unreadable(path: Path, error: Exception) -> ModelError:
    return ModelError(f"{path} has an unreadable header ({error!s:.200}); the file is corrupted, fetch it again")


def _broken_rules(ours: dict[str, Any]) -> Iterator[tuple[str, Any, str]]:
    """Fields that have values which no force field has, each with its value and the rule that it breaks.

    Fields that not every family has are checked where they are.
    """
    rules: dict[str, tuple[Callable[[Any], Any], str]] = {
        "model_key": (re.compile("[0-9a-f]{64}").fullmatch, "must be 64 hexadecimal digits"),
        "elements": (lambda value: _are_elements(value), "must be a list of different atomic numbers"),
        "declaration": (lambda value: _is_declaration(value), "must declare conservative and equivariance"),
        "architecture": (lambda value: isinstance(value, dict), "must be a mapping"),
        "training": (lambda value: isinstance(value, dict), "must be a mapping"),
        "scale_ev": (lambda value: _is_number(value) and value > 0, "must be a positive number"),
        "energy_offset_ev": (lambda value: _is_number(value), "must be a finite number"),
        "references_ev": (lambda value: _are_references(value), "must be finite energies by atomic number"),
    }
    for name, (holds, rule) in rules.items():
        value = ours.get(name)
        is_needed = name in ("model_key", "elements", "declaration")
        if (is_needed or name in ours) and not (isinstance(value, str) == (name == "model_key") and holds(value)):
            yield name, value, rule
    declaration, architecture = ours["declaration"], ours.get("architecture", {})
    is_direct = architecture.get("direct_forces", False) and not architecture.get("both_heads", False)
    if declaration["conservative"] and is_direct:
        yield "declaration", declaration, "must not call direct forces conservative"


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) < 1e300  # not NaN either


def _are_elements(value: Any) -> bool:
    is_list = isinstance(value, list) and 0 < len(value) <= MOST_ELEMENTS
    return is_list and all(type(z) is int and 0 < z <= MOST_ELEMENTS for z in value) and len(set(value)) == len(value)


def _are_references(value: Any) -> bool:
    numbers = isinstance(value, dict) and all(re.fullmatch("[1-9][0-9]{0,2}", z) for z in value)
    return numbers and all(map(_is_number, value.values()))


def _is_declaration(value: Any) -> bool:
    return (
        isinstance(value, dict)
        and isinstance(value.get("conservative"), bool)
        and value.get("equivariance") in get_args(Equivariance)
    )
