"""The JSON header of a native checkpoint, read without torch or safetensors, so that a key takes milliseconds.

A checkpoint is a safetensors file: 8 bytes with the little-endian length of the header, a JSON header, and the tensors.
The part of this package is one JSON string under `__metadata__` / `esen_flows`.
"""

import json
from pathlib import Path
from typing import Any

from esen_flows.errors import ModelError

FORMAT_VERSION = 1
METADATA_NAME = "esen_flows"
MAX_HEADER_BYTES = 100_000_000  # safetensors' own limit


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
        There is no such file, it is not a safetensors file, it is truncated, or this package did not write it.
    """
    path = Path(path)
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
        ours = json.loads(header.get("__metadata__", {}).get(METADATA_NAME, "null"))
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise ModelError(f"{path} has an unreadable header ({error}); the file is corrupted, fetch it again") from error
    if size != expected:
        raise ModelError(f"{path} has {size} bytes but its header says {expected}; the file is truncated or corrupted")
    if not isinstance(ours, dict) or "model_key" not in ours:
        raise ModelError(f"{path} is a safetensors file without an {METADATA_NAME!r} header; convert it first")
    if ours.get("format_version") != FORMAT_VERSION:
        raise ModelError(
            f"{path} has format version {ours.get('format_version')}, this release reads {FORMAT_VERSION}; "
            "update esen_flows"
        )
    return ours
