"""torch.save files read without running anything that is in them.

A pickle is a program: it names functions and has them called. Here every name that a published checkpoint needs is
answered by something inert - a tensor made from bytes, a plain dict, a record of what was asked - and every other name
is refused. Classes of configuration objects become `Record`s, whose fields can be looked at.
"""

import pickle
import zipfile
from collections import OrderedDict, defaultdict
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NoReturn

import numpy as np
import torch

from esen_flows.errors import ModelError

MAX_PICKLE_BYTES = 64_000_000  # the program; the numbers are in other members
_STORAGES = {
    "FloatStorage": torch.float32,
    "DoubleStorage": torch.float64,
    "HalfStorage": torch.float16,
    "BFloat16Storage": torch.bfloat16,
    "LongStorage": torch.int64,
    "IntStorage": torch.int32,
    "ShortStorage": torch.int16,
    "CharStorage": torch.int8,
    "ByteStorage": torch.uint8,
    "BoolStorage": torch.bool,
}
_DTYPES = {str(dtype).removeprefix("torch."): dtype for dtype in _STORAGES.values()}
# Packages whose classes hold settings in published checkpoints; they are never imported, only recorded.
_RECORDED_PACKAGES = ("omegaconf", "fairchem", "argparse", "pathlib", "typing")
_RECORDED = ("torch.device", "torch.torch_version.TorchVersion")


class Record:
    """An object that was not made: the name of its class, what its constructor got, and its fields."""

    path = ""  # a class of its own is made for every name

    def __init__(self, *arguments: Any) -> None:
        self.arguments, self.fields = arguments, dict[str, Any]()

    def __new__(cls, *arguments: Any) -> "Record":
        """Pickles make objects without `__init__`."""
        record = super().__new__(cls)
        record.arguments, record.fields = arguments, {}
        return record

    def __setstate__(self, state: Any) -> None:
        for part in state if isinstance(state, tuple) else (state,):
            if isinstance(part, dict):
                self.fields.update(part)

    def __setitem__(self, key: Any, value: Any) -> None:
        self.fields[key] = value

    def append(self, value: Any) -> None:
        """What a pickle does to the items of a list-like object."""
        self.fields.setdefault("items", []).append(value)


class _Name:
    """What a pickle gets for a name: callable, and with no attribute that a pickle could change."""

    __slots__ = ("_call", "path")
    _call: Callable[..., Any]
    path: str

    def __init__(self, path: str, call: Callable[..., Any]) -> None:
        object.__setattr__(self, "path", path)
        object.__setattr__(self, "_call", call)

    def __call__(self, *arguments: Any) -> Any:
        return self._call(*arguments)

    def __setattr__(self, name: str, value: Any) -> NoReturn:
        raise pickle.UnpicklingError(f"the file tries to change {self.path}")

    def __setstate__(self, state: Any) -> NoReturn:
        raise pickle.UnpicklingError(f"the file tries to change {self.path}")


def read_torch_file(path: str | Path) -> Any:
    """The content of a torch.save file: dicts, lists, numbers, tensors on the CPU, and Records.

    Raises
    ------
    ModelError : not such a file, truncated, compressed or inflated, or a pickle that asks for anything that is not on
        the list; nothing of it was run.
    """
    path = Path(path)
    if not path.is_file():
        raise ModelError(f"no file {path}")
    try:
        with zipfile.ZipFile(path) as archive:
            return _read(archive, path)
    except ModelError:
        raise
    except (zipfile.BadZipFile, EOFError, KeyError) as error:
        raise ModelError(
            f"{path} is not a whole torch.save archive ({error}); it is truncated, damaged or of the format before "
            "torch 1.6: fetch it again, or save it again with a current torch"
        ) from error
    except Exception as error:  # a hostile pickle can fail in any way
        raise ModelError(f"{path} is refused: {error}; nothing of it was run") from error


def _read(archive: zipfile.ZipFile, path: Path) -> Any:
    members = {info.filename: info for info in archive.infolist()}
    programs = [name for name in members if name == "data.pkl" or name.endswith("/data.pkl")]
    if len(programs) != 1 or len(members) != len(archive.infolist()):
        raise ModelError(f"{path} is refused: a torch.save archive has one data.pkl and no name twice")
    # torch.save does not compress: a compressed member is somebody else's, and may inflate to anything.
    size = path.stat().st_size
    for info in members.values():
        if info.compress_type != zipfile.ZIP_STORED or info.file_size > size:
            raise ModelError(f"{path} is refused: its member {info.filename} is compressed or larger than the file")
    if sum(info.file_size for info in members.values()) > size:
        raise ModelError(f"{path} is refused: its members are larger than the file")
    if members[programs[0]].file_size > MAX_PICKLE_BYTES:
        raise ModelError(f"{path} is refused: its pickle has {members[programs[0]].file_size} bytes")
    prefix = programs[0].removesuffix("data.pkl")
    order = archive.read(prefix + "byteorder") if prefix + "byteorder" in members else b"little"
    if order != b"little":
        raise ModelError(
            f"{path} was written on a machine of byte order {order!r}; save it again on a little-endian one"
        )
    with archive.open(programs[0]) as stream:
        return _InertUnpickler(stream, lambda name: archive.read(f"{prefix}data/{name}")).load()


class _InertUnpickler(pickle.Unpickler):
    def __init__(self, stream: Any, read: Callable[[str], bytes]) -> None:
        super().__init__(stream, encoding="utf-8")
        self._read = read
        self._storages: dict[str, torch.Tensor] = {}

    def find_class(self, module: str, name: str) -> Any:
        module = {"__builtin__": "builtins"}.get(module, module)  # as Python 2 names it, and old protocols do
        path = f"{module}.{name}"
        known: Mapping[str, Callable[..., Any]] = {
            "collections.OrderedDict": OrderedDict,
            "collections.defaultdict": lambda *_: defaultdict(),
            "builtins.dict": dict,
            "builtins.list": list,
            "builtins.tuple": tuple,
            "builtins.set": set,
            "builtins.frozenset": frozenset,
            "builtins.bytes": _no_arguments(bytes),
            "_codecs.encode": _encode,  # how old protocols write bytes
            "builtins.int": _no_arguments(int),
            "builtins.float": _no_arguments(float),
            "builtins.str": _no_arguments(str),
            "builtins.bool": _no_arguments(bool),
            "torch._utils._rebuild_tensor_v2": _tensor,
            "torch._utils._rebuild_parameter": lambda data, *_: data,
            "torch.Size": tuple,
            "numpy.dtype": _numpy_dtype,
            "numpy.core.multiarray.scalar": _numpy_scalar,
            "numpy._core.multiarray.scalar": _numpy_scalar,
            "numpy.core.multiarray._reconstruct": lambda *_: _Array(),
            "numpy._core.multiarray._reconstruct": lambda *_: _Array(),
            "numpy.ndarray": _no_arguments(type(None)),
        }
        if path in known:
            return _Name(path, known[path])
        if module in ("torch", "torch.storage") and name in _STORAGES:
            return _STORAGES[name]
        if module == "torch" and name in _DTYPES:
            return _DTYPES[name]
        if path in _RECORDED or module.split(".")[0] in _RECORDED_PACKAGES:
            return type(name, (Record,), {"path": path})
        raise pickle.UnpicklingError(f"its pickle asks for {path}, which no checkpoint needs")

    def persistent_load(self, pid: Any) -> Any:
        kind, dtype, key, _, count = pid
        if kind != "storage" or not isinstance(dtype, torch.dtype):
            raise pickle.UnpicklingError(f"unknown stored object {kind!r}")
        if key not in self._storages:
            data = bytearray(self._read(str(key)))
            if len(data) != int(count) * dtype.itemsize:
                raise pickle.UnpicklingError(
                    f"tensor data {key} has {len(data)} bytes, its pickle says {count} numbers"
                )
            self._storages[key] = torch.frombuffer(data, dtype=dtype) if data else torch.empty(0, dtype=dtype)
        return self._storages[key]


def _no_arguments(kind: Callable[..., Any]) -> Callable[..., Any]:
    def make(*arguments: Any) -> Any:
        if arguments:
            raise pickle.UnpicklingError(f"unexpected call of {kind}")
        return kind()

    return make


def _encode(text: str, encoding: str = "latin1") -> bytes:
    if not isinstance(text, str) or encoding not in ("latin1", "latin-1"):
        raise pickle.UnpicklingError(f"bytes encoded as {encoding!r}")
    return text.encode("latin1")


def _tensor(
    storage: torch.Tensor, offset: int, size: tuple[int, ...], stride: tuple[int, ...], *_: Any
) -> torch.Tensor:
    if not isinstance(storage, torch.Tensor):
        raise pickle.UnpicklingError("a tensor without data")
    count = int(np.prod([int(n) for n in size], dtype=object)) if size else 1
    # Strides of zero would blow a few bytes up to any size.
    last = int(offset) + sum((int(n) - 1) * int(s) for n, s in zip(size, stride, strict=True)) if count else 0
    if min((*size, *stride, offset, 0)) < 0 or count > storage.numel() or last >= max(1, storage.numel()):
        raise pickle.UnpicklingError(f"a tensor of shape {tuple(size)} reaches beyond its {storage.numel()} numbers")
    return storage.as_strided(tuple(size), tuple(stride), int(offset))


def _numpy_dtype(code: str, *_: Any) -> "_NumpyDtype":
    return _NumpyDtype(code)


class _NumpyDtype:
    """A dtype of plain numbers; the byte order that numpy's pickles set afterwards is checked, not obeyed."""

    def __init__(self, code: str) -> None:
        if not isinstance(code, str) or np.dtype(code).kind not in "fiub":
            raise pickle.UnpicklingError(f"numbers of numpy type {code!r}")
        self.dtype = np.dtype(code)

    def __setstate__(self, state: Any) -> None:
        if state[1] not in ("<", "|", "="):
            raise pickle.UnpicklingError(f"numbers of byte order {state[1]!r}")


def _numpy_scalar(kind: Any, data: Any) -> Any:
    if not isinstance(kind, _NumpyDtype):
        raise pickle.UnpicklingError("a number without a type")
    if not isinstance(data, bytes):
        raise pickle.UnpicklingError(f"a number made from {type(data).__name__}")
    return np.frombuffer(data, dtype=kind.dtype, count=1)[0].item()


class _Array:
    """A numpy array; `value` once its state has been set."""

    value: np.ndarray | None = None

    def __setstate__(self, state: Any) -> None:
        _, shape, kind, fortran, data = state
        if not isinstance(kind, _NumpyDtype) or not isinstance(data, bytes):
            raise pickle.UnpicklingError("an array without a type of numbers")
        self.value = np.frombuffer(data, dtype=kind.dtype).reshape(tuple(shape), order="F" if fortran else "C")


def plain(value: Any) -> Any:
    """Dicts, lists and numbers out of what was read: arrays as lists, OmegaConf containers by their content.

    Records that are not containers stay.
    """
    if isinstance(value, _Array):
        return None if value.value is None else value.value.tolist()
    if isinstance(value, dict):
        return {key: plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [plain(item) for item in value]
    if isinstance(value, Record):
        for field in ("_content", "_val"):
            if field in value.fields:
                return plain(value.fields[field])
    return value
