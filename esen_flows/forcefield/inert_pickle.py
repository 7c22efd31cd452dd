"""torch.save files read without running anything that is in them.

A pickle is a program for a stack machine: it names functions and has them called. Here the machine is our own and has
only the operations that data needs, each for only the kinds of objects it is meant for. Every name that a published
checkpoint needs is answered by something inert - a tensor made from bytes, a plain dict, a record of what was asked -
and every other name is refused. Instances of configuration classes become `Record`s, whose fields can be looked at.
"""

import pickletools
import re
import zipfile
from collections import OrderedDict, defaultdict
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

import numpy as np
import torch

from esen_flows.errors import ModelError

MAX_PICKLE_BYTES = 8_000_000  # the program, 0.3 MB for 30 M parameters in training; the numbers are in other members
MAX_VALUES = 1_000_000  # in one configuration or table, each counted as often as it is referred to
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

    def __init__(self, path: str, *arguments: Any) -> None:
        self.path, self.arguments, self.fields = path, arguments, dict[str, Any]()


class _Name:
    """What a pickle gets for the name of a function or class."""

    def __init__(self, path: str, call: Callable[..., Any]) -> None:
        self.path, self.call = path, call


def read_torch_file(path: str | Path) -> Any:
    """The content of a torch.save file: dicts, lists, numbers, tensors on the CPU, and Records.

    Raises
    ------
    ModelError
        not such a file, truncated, compressed or inflated, or a pickle that asks for anything that is not on
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
        raise ModelError(f"{path} is refused: {str(error)[:300]}; nothing of it was run") from error


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
            f"{path} was written on a machine of byte order {order[:9]!r}; save it again on a little-endian one"
        )
    machine = _Machine(lambda name: archive.read(f"{prefix}data/{name}"))
    return machine.run(archive.read(programs[0]))


_LITERALS = {"NONE": None, "NEWTRUE": True, "NEWFALSE": False, "EMPTY_TUPLE": ()}
_CONTAINERS: dict[str, type] = {"EMPTY_DICT": dict, "EMPTY_LIST": list, "EMPTY_SET": set}
_TUPLES = {"TUPLE1": 1, "TUPLE2": 2, "TUPLE3": 3}
_ARGUMENTS = {  # operations that push what stands in the program
    *("BININT", "BININT1", "BININT2", "LONG1", "LONG4", "BINFLOAT"),
    *("BINUNICODE", "SHORT_BINUNICODE", "BINUNICODE8", "BINBYTES", "SHORT_BINBYTES", "BINBYTES8"),
}


class _Machine:
    """Runs a pickle on data alone.

    Python's own machine lets a program of a few bytes ask for gigabytes (by the number of a memo), change tensors and
    dicts behind our checks (by setting their state), and crash the interpreter (by a deeply nested key).
    """

    def __init__(self, read: Callable[[str], bytes]) -> None:
        self._read = read
        self._stack: list[Any] = []
        self._marks: list[int] = []
        self._memo: dict[int, Any] = {}
        self._storages: dict[str, torch.Tensor] = {}

    def run(self, program: bytes) -> Any:
        """What the program leaves on its stack."""
        for operation, argument, _ in pickletools.genops(program):
            self._step(operation.name, argument)
        return self._stack.pop()

    def _step(self, name: str, argument: Any) -> None:
        stack = self._stack
        if name in _ARGUMENTS:
            stack.append(argument)
        elif name in _LITERALS:
            stack.append(_LITERALS[name])
        elif name in _CONTAINERS:
            stack.append(_CONTAINERS[name]())
        elif name in ("BINPUT", "LONG_BINPUT"):
            self._memo[argument] = stack[-1]
        elif name == "MEMOIZE":
            self._memo[len(self._memo)] = stack[-1]
        elif name in ("BINGET", "LONG_BINGET"):
            stack.append(self._memo[argument])
        elif name in _TUPLES:
            stack[-_TUPLES[name] :] = [tuple(stack[-_TUPLES[name] :])]
        elif name == "MARK":
            self._marks.append(len(stack))
        elif name == "TUPLE":
            stack.append(tuple(self._since_mark()))
        elif name == "FROZENSET":
            stack.append(frozenset(map(_key, self._since_mark())))
        elif name not in ("PROTO", "FRAME", "STOP"):
            self._act(name, argument)

    def _act(self, name: str, argument: Any) -> None:
        stack = self._stack
        if name == "GLOBAL":
            stack.append(_named(*argument.split(" ", 1)))
        elif name == "BINPERSID":
            stack.append(self._storage(stack.pop()))
        elif name in ("APPENDS", "SETITEMS", "ADDITEMS"):
            items = self._since_mark()
            _fill(name, stack[-1], items)
        elif name in ("APPEND", "SETITEM"):
            items = [stack.pop() for _ in range(1 if name == "APPEND" else 2)]
            _fill(name + "S", stack[-1], items[::-1])
        elif name in ("STACK_GLOBAL", "REDUCE", "NEWOBJ", "BUILD"):
            second, first = stack.pop(), stack.pop()
            if name == "STACK_GLOBAL":
                stack.append(_named(first, second))
            elif name == "BUILD":
                _set_state(first, second)
                stack.append(first)
            elif isinstance(first, _Name) and isinstance(second, tuple):
                stack.append(first.call(*second))
            else:
                raise UnpicklingError(f"its pickle calls a {type(first).__name__}")
        else:
            raise UnpicklingError(f"its pickle uses {name}, which no checkpoint needs")

    def _since_mark(self) -> list[Any]:
        start = self._marks.pop()
        items = self._stack[start:]
        del self._stack[start:]
        return items

    def _storage(self, pid: Any) -> torch.Tensor:
        kind, dtype, key, _, count = pid
        if kind != "storage" or not isinstance(dtype, torch.dtype) or not isinstance(key, str):
            raise UnpicklingError(f"unknown stored object {kind!r}")
        if key not in self._storages:
            data = bytearray(self._read(key))
            if len(data) != int(count) * dtype.itemsize:
                raise UnpicklingError(f"tensor data {key} has {len(data)} bytes, its pickle says {count} numbers")
            self._storages[key] = torch.frombuffer(data, dtype=dtype) if data else torch.empty(0, dtype=dtype)
        if self._storages[key].dtype is not dtype:
            raise UnpicklingError(f"tensor data {key} is used as {dtype} and as {self._storages[key].dtype}")
        return self._storages[key]


def _named(module: Any, name: Any) -> Any:
    """The answer to a name: a `_Name`, or a torch.dtype for a dtype or a kind of storage."""
    if not isinstance(module, str) or not isinstance(name, str):
        raise UnpicklingError("a name that is no text")
    module = {"__builtin__": "builtins"}.get(module, module)  # as Python 2 names it, and old protocols do
    path = f"{module}.{name}"
    if path in _KNOWN:
        return _Name(path, _KNOWN[path])
    if module in ("torch", "torch.storage") and name in _STORAGES:
        return _STORAGES[name]
    if module == "torch" and name in _DTYPES:
        return _DTYPES[name]
    if path in _RECORDED or module.split(".")[0] in _RECORDED_PACKAGES:
        return _Name(path, partial(Record, path))
    raise UnpicklingError(f"its pickle asks for {path}, which no checkpoint needs")


def _key(value: Any) -> Any:
    """A key of a dict or member of a set.

    Hashing nested tuples can take for ever or crash the interpreter, and so can dicts of chosen large integers.
    """
    if isinstance(value, str | None) or (isinstance(value, int) and abs(value) < 2**31):
        return value
    raise UnpicklingError(f"a key of type {type(value).__name__}; text and small integers are possible")


def _fill(operation: str, target: Any, items: list[Any]) -> None:
    """Put items into the container that an operation is meant for, or into a Record of one."""
    if operation == "SETITEMS" and isinstance(target, dict | Record):
        fields = target.fields if isinstance(target, Record) else target
        fields.update((_key(key), value) for key, value in zip(items[::2], items[1::2], strict=True))
    elif operation == "APPENDS" and isinstance(target, list | Record):
        (target.fields.setdefault("items", []) if isinstance(target, Record) else target).extend(items)
    elif operation == "ADDITEMS" and isinstance(target, set):
        target.update(map(_key, items))
    else:
        raise UnpicklingError(f"its pickle puts items into a {type(target).__name__}")


def _set_state(target: Any, state: Any) -> None:
    if isinstance(target, Record):
        for part in state if isinstance(state, tuple) else (state,):
            if isinstance(part, dict):
                target.fields.update(part)
    elif isinstance(target, _NumpyDtype | _Array):
        target.set_state(state)
    elif not isinstance(target, OrderedDict):  # a state dict's own metadata is left out
        what = target.path if isinstance(target, _Name) else f"a {type(target).__name__}"
        raise UnpicklingError(f"the file tries to change {what}")


def _without_arguments(kind: Callable[[], Any]) -> Callable[..., Any]:
    def make(*arguments: Any) -> Any:
        if arguments:
            raise UnpicklingError(f"unexpected call of {kind}")
        return kind()

    return make


def _tuple(items: Any = ()) -> tuple[Any, ...]:
    if not isinstance(items, tuple | list):
        raise UnpicklingError(f"a tuple of a {type(items).__name__}")
    return tuple(items)


def _encode(text: str, encoding: str = "latin1") -> bytes:
    if not isinstance(text, str) or encoding not in ("latin1", "latin-1"):
        raise UnpicklingError(f"bytes encoded as {encoding!r}")
    return text.encode("latin1")


def _tensor(
    storage: torch.Tensor, offset: int, size: tuple[int, ...], stride: tuple[int, ...], *_: Any
) -> torch.Tensor:
    if not isinstance(storage, torch.Tensor):
        raise UnpicklingError("a tensor without data")
    count = int(np.prod([int(n) for n in size], dtype=object)) if size else 1
    # Strides of zero would blow a few bytes up to any size.
    last = int(offset) + sum((int(n) - 1) * int(s) for n, s in zip(size, stride, strict=True)) if count else 0
    if min((*size, *stride, offset, 0)) < 0 or count > storage.numel() or last >= max(1, storage.numel()):
        raise UnpicklingError(f"a tensor of shape {tuple(size)} reaches beyond its {storage.numel()} numbers")
    return storage.as_strided(tuple(size), tuple(stride), int(offset))


class _NumpyDtype:
    """A dtype of plain numbers; the byte order that numpy's pickles set afterwards is checked, not obeyed."""

    def __init__(self, code: Any, *_: Any) -> None:
        if not isinstance(code, str) or not re.fullmatch(r"[fiub]\d{1,2}", code):
            raise UnpicklingError(f"numbers of numpy type {code!r}")
        self.dtype = np.dtype(code)

    def set_state(self, state: Any) -> None:
        """As numpy's pickles set it: the second entry is the byte order."""
        if state[1] not in ("<", "|", "="):
            raise UnpicklingError(f"numbers of byte order {state[1]!r}")


def _numpy_scalar(kind: Any, data: Any) -> Any:
    if not isinstance(kind, _NumpyDtype):
        raise UnpicklingError("a number without a type")
    if not isinstance(data, bytes):
        raise UnpicklingError(f"a number made from {type(data).__name__}")
    return np.frombuffer(data, dtype=kind.dtype, count=1)[0].item()


class _Array:
    """A numpy array; `value` once its state has been set."""

    value: np.ndarray | None = None

    def set_state(self, state: Any) -> None:
        """As numpy's pickles set it: version, shape, type, order, bytes."""
        _, shape, kind, fortran, data = state
        if not isinstance(kind, _NumpyDtype) or not isinstance(data, bytes):
            raise UnpicklingError("an array without a type of numbers")
        if max((*shape, 0)) > len(data):  # (10**12, 0) has no data, and as a list no end
            raise UnpicklingError(f"an array of shape {tuple(shape)} from {len(data)} bytes")
        self.value = np.frombuffer(data, dtype=kind.dtype).reshape(tuple(shape), order="F" if fortran else "C")


_KNOWN: Mapping[str, Callable[..., Any]] = {
    "collections.OrderedDict": _without_arguments(OrderedDict),
    "collections.defaultdict": lambda *_: defaultdict(),
    "builtins.dict": _without_arguments(dict),
    "builtins.list": _without_arguments(list),
    "builtins.tuple": _tuple,
    "builtins.set": lambda items=(): set(map(_key, _tuple(items))),
    "builtins.frozenset": lambda items=(): frozenset(map(_key, _tuple(items))),
    "builtins.bytes": _without_arguments(bytes),
    "_codecs.encode": _encode,  # how old protocols write bytes
    "builtins.int": _without_arguments(int),
    "builtins.float": _without_arguments(float),
    "builtins.str": _without_arguments(str),
    "builtins.bool": _without_arguments(bool),
    "torch._utils._rebuild_tensor_v2": _tensor,
    "torch._utils._rebuild_parameter": lambda data, *_: data,
    "torch.Size": _tuple,
    "numpy.dtype": _NumpyDtype,
    "numpy.core.multiarray.scalar": _numpy_scalar,
    "numpy._core.multiarray.scalar": _numpy_scalar,
    "numpy.core.multiarray._reconstruct": lambda *_: _Array(),
    "numpy._core.multiarray._reconstruct": lambda *_: _Array(),
    "numpy.ndarray": _without_arguments(type(None)),
}


def plain(value: Any) -> Any:
    """Dicts, lists and numbers out of what was read: arrays as lists, OmegaConf containers by their content.

    Records that are not containers stay.

    Raises
    ------
    ModelError
        more than `MAX_VALUES` values: lists of references to lists of references grow without end.
    """
    return _Plain().convert(value)


class _Plain:
    """One conversion, with what it has counted so far."""

    def __init__(self) -> None:
        self.count = 0

    def convert(self, value: Any) -> Any:
        """See `plain`."""
        self.count += 1 if not isinstance(value, _Array) or value.value is None else value.value.size
        if self.count > MAX_VALUES:
            raise ModelError(f"a configuration or table of more than {MAX_VALUES} values")
        if isinstance(value, _Array):
            return None if value.value is None else value.value.tolist()
        if isinstance(value, dict):
            return {key: self.convert(item) for key, item in value.items()}
        if isinstance(value, list | tuple):
            return [self.convert(item) for item in value]
        if isinstance(value, Record):
            for field in ("_content", "_val"):
                if field in value.fields:
                    return self.convert(value.fields[field])
        return value
