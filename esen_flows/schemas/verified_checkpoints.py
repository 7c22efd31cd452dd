"""Checkpoints whose tensors are those that the key in their header was made of, checked without torch.

Hashing a file takes a second for 500 MB. The outcome is kept in the user's cache folder, for each file with its size,
times and inode, so that it is done once for each version of a file.
"""

import hashlib
import json
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np

from esen_flows.errors import ModelError
from esen_flows.files import written_whole
from esen_flows.schemas.checkpoint_header import NOT_IDENTITY, TensorPlace, read_header, read_tensors
from esen_flows.schemas.keys import canonical_json
from esen_flows.settings import get_settings

_verified: dict[str, list[Any]] = {}


def verified_header(path: str | Path) -> dict[str, Any]:
    """The header of a checkpoint whose tensors were compared with its key.

    Parameters
    ----------
    path
        A .safetensors file.

    Returns
    -------
    dict[str, Any]
        As `read_header` returns it.

    Raises
    ------
    ModelError
        `read_header` refuses the file, a weight is NaN or infinite, or the tensors are not those of the key.
    """
    header = read_header(path)
    path = Path(path).resolve()
    if not _is_known(path, header["model_key"]):
        _check_content(path, header)
        remember(path, header["model_key"])
    return header


def remember(path: Path, model_key: str) -> None:
    """Note that the tensors of a checkpoint, as it is now, belong to its key.

    Parameters
    ----------
    path
        The checkpoint.
    model_key
        The key in its header.
    """
    path = path.resolve()
    _verified[str(path)] = _signature(path, model_key)
    with suppress(OSError):  # without a cache folder, the next process hashes the file again
        file = _note(path)
        file.parent.mkdir(parents=True, exist_ok=True)
        with written_whole(file) as temporary:
            temporary.write_text(json.dumps(_verified[str(path)]), encoding="utf-8")


def _is_known(path: Path, model_key: str) -> bool:
    signature = _signature(path, model_key)
    if _verified.get(str(path)) == signature:
        return True
    with suppress(OSError, ValueError):
        if json.loads(_note(path).read_text(encoding="utf-8")) == signature:
            _verified[str(path)] = signature
            return True
    return False


def _signature(path: Path, model_key: str) -> list[Any]:
    """What changes with the content of a file; the time of its last change of status cannot be set by hand."""
    state = path.stat()
    return [model_key, state.st_size, state.st_mtime_ns, state.st_ctime_ns, state.st_ino]


def _note(path: Path) -> Path:
    name = hashlib.sha256(str(path).encode(errors="surrogateescape")).hexdigest()[:32]
    return get_settings().cache_dir / "verified_checkpoints" / f"{name}.json"


def _check_content(path: Path, header: dict[str, Any]) -> None:
    """Hash the tensors as `forcefield.checkpoint.model_key` does."""
    identity = {name: value for name, value in header.items() if name not in NOT_IDENTITY}
    places = read_tensors(path)
    try:
        digest = hashlib.sha256(canonical_json(identity).encode())
    except ValueError as error:  # NaN or infinity
        raise ModelError(f"{path} has an unreadable header ({error}); the file is corrupted, fetch it again") from None
    for name in sorted(places):
        array = _array(path, places[name])
        if array.dtype.kind == "f" and not np.isfinite(array).all():
            raise ModelError(f"{path} holds NaN or infinite weights; the training that wrote it failed")
        digest.update(f"{name}{array.dtype.str}{array.shape}".encode())
        digest.update(array.data)
    if digest.hexdigest() != header["model_key"]:
        raise ModelError(
            f"{path} does not match its own key (header {header['model_key'][:12]}, contents "
            f"{digest.hexdigest()[:12]}); the file is corrupted, fetch it again"
        )


def _array(path: Path, place: TensorPlace) -> np.ndarray:
    count = int(np.prod(place.shape, dtype=np.int64))
    values = np.fromfile(path, dtype=place.dtype, count=count, offset=place.first)
    if len(values) != count:
        raise ModelError(f"{path} became shorter while it was read; fetch it again")
    return values.reshape(place.shape or (1,))  # a scalar is hashed as an array of one number
