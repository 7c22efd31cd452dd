"""torch.save files of other people, read as data: nothing in them is executed and no memory beyond their size is used.

The pickle of such a file is a program that names functions and has them called. `torch.load(weights_only=True)` runs it
and calls only functions on its list. Classes of settings, which are never imported, are answered by `Record`s.

torch's unpickler does not limit memory and time: a few bytes can ask for a tensor with strides of zero that a call then
walks through, for bytes encoded again and again, for the hash of tuples nested 100,000 deep (which ends Python), or
for numbers beyond the end of a stored array. So the program is checked before torch runs it: `_check_program` follows
it on descriptions of its values and refuses every name, key, call and size that no checkpoint needs.
"""

import pickletools
import re
import zipfile
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import prod
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

import numpy as np
import torch

from esen_flows.errors import ModelError

MAX_PICKLE_BYTES = 8_000_000  # of the program: 0.3 MB for 30 M parameters in training; the numbers are elsewhere
MAX_VALUES = 1_000_000  # in one configuration or table, each counted as often as it is referred to
_END_RECORD_BYTES = 22  # the record that ends a zip archive without a comment
_BYTES_PER_NUMBER = {
    f"torch.{kind}Storage": width
    for width, kinds in {8: "Double Long", 4: "Float Int", 2: "Half BFloat16 Short", 1: "Char Byte Bool"}.items()
    for kind in kinds.split()
}
# Names that torch answers. Its own list is longer, and not all of it is harmless: bytearray(10**12).
_OF_TORCH = re.compile(
    r"torch\.(_utils\._rebuild_tensor_v2|_utils\._rebuild_parameter|Size|device|\w+Storage|u?int\d+|b?float\d+|bool)"
    r"|builtins\.set|_codecs\.encode"
)
# Names that records answer: classes that hold settings in published checkpoints, and what numpy pickles name.
_RECORDED = re.compile(
    r"(omegaconf|fairchem|argparse|pathlib|typing)\..+|torch\.torch_version\.TorchVersion|numpy\.(dtype|ndarray)"
    r"|numpy\._?core\.multiarray\.(scalar|_reconstruct)|builtins\.(dict|list|tuple|frozenset|bytes|int|float|str|bool)"
)
_OF_DICTS = re.compile(r"collections\.(OrderedDict|defaultdict)")


class Record:
    """An object of a class that was not imported: what its constructor got, and its state.

    Attributes
    ----------
    path
        Module and name of the class or function.
    arguments
        What it was called with.
    state
        What its fields were to be set to; None: nothing.
    """

    path: str
    arguments: tuple[Any, ...]
    state: Any

    def __new__(cls, *arguments: Any) -> "Record":
        """Keep the arguments: an unpickler may make an object without calling `__init__`."""
        record = super().__new__(cls)
        record.arguments, record.state = arguments, None
        return record

    def __setstate__(self, state: Any) -> None:
        self.state = state

    @property
    def fields(self) -> dict[str, Any]:
        """Values of the fields by name."""
        parts = self.state if isinstance(self.state, tuple) else (self.state,)  # a pair: __dict__, and slots
        return {name: value for part in parts if isinstance(part, dict) for name, value in part.items()}


def read_torch_file(path: str | Path) -> Any:
    """Content of a torch.save file, without running anything that is in it.

    Parameters
    ----------
    path
        File of torch 1.6 or later, with torch's own pickle protocol (2).

    Returns
    -------
    Any
        Dicts, lists, numbers, tensors on the CPU that read from the file when they are used, and Records.

    Raises
    ------
    ModelError
        The file is missing, truncated, compressed or damaged, or its pickle asks for something that no checkpoint
        needs. Nothing of it was run.
    """
    path = Path(path)
    if not path.is_file():
        raise ModelError(f"no file {path}")
    try:
        program, sizes = _program_and_sizes(path)
    except (zipfile.BadZipFile, EOFError) as error:
        raise ModelError(
            f"{path} is not a whole torch.save archive ({error}); it is truncated, damaged or of the format before "
            "torch 1.6: fetch it again, or save it again with a current torch"
        ) from error
    try:
        names = _check_program(program, sizes)
        answers: list[Any] = [(_answer(name), name) for name in names if not _OF_TORCH.fullmatch(name)]
        with torch.serialization.safe_globals(answers):
            # Mapped into memory, a stored array ends where the file ends, wherever torch's archive reader finds it.
            return torch.load(path, map_location="cpu", weights_only=True, mmap=True)
    except Exception as error:  # a hostile pickle can fail in any way
        reason = str(error).rpartition("WeightsUnpickler error:")[2].strip().partition("\n")[0][:300]
        raise ModelError(
            f"{path} is refused: {reason}; nothing of it was run. Fetch it again from its publisher, or save its "
            "tensors and settings again as plain dicts, lists and numbers, with torch.save's default protocol"
        ) from error


def _program_and_sizes(path: Path) -> tuple[bytes, dict[str, int]]:
    """The pickle of an archive, and the bytes of each stored array, by the name that the pickle calls it."""
    with zipfile.ZipFile(path) as archive, path.open("rb") as stream:
        members = {info.filename: info.file_size for info in archive.infolist()}
        programs = [name for name in members if name == "data.pkl" or name.endswith("/data.pkl")]
        if len(programs) != 1 or len(members) != len(archive.infolist()):
            raise ModelError(f"{path} is refused: a torch.save archive has one data.pkl and no name twice")
        # torch.save does not compress: compressed members come from another program and may inflate to any size.
        stored = all(info.compress_type == zipfile.ZIP_STORED for info in archive.infolist())
        if not stored or sum(members.values()) > path.stat().st_size:
            raise ModelError(f"{path} is refused: its members are compressed or larger than the file")
        if members[programs[0]] > MAX_PICKLE_BYTES:
            raise ModelError(f"{path} is refused: its pickle has {members[programs[0]]} bytes")
        # Before or behind the archive there may be another one, which torch's own archive reader takes for the file.
        start = stream.read(4)
        stream.seek(-_END_RECORD_BYTES, 2)
        if (start, stream.read(4)) != (b"PK\x03\x04", b"PK\x05\x06"):
            raise ModelError(f"{path} is refused: there is something before or behind the archive in it")
        if damaged := archive.testzip():  # torch does not compare the checksums
            raise zipfile.BadZipFile(f"wrong CRC-32 of {damaged}")
        prefix = programs[0].removesuffix("data.pkl") + "data/"
        sizes = {name.removeprefix(prefix): size for name, size in members.items() if name.startswith(prefix)}
        return archive.read(programs[0]), sizes


def _answer(name: str) -> Any:
    """What torch's unpickler gets for a name: the class of a record, or a function that makes a dict."""
    return (lambda *_: {}) if name == "collections.defaultdict" else type("Record", (Record,), {"path": name})


@dataclass(frozen=True)
class _Object:
    """Description of a function or class, of what a call of it gave, or of the `count` numbers of a stored array."""

    path: str
    is_made: bool = False
    count: int = 0


# How many values an operation takes from the stack; None: all since the last mark.
_TAKEN = {
    **{"TUPLE1": 1, "TUPLE2": 2, "TUPLE3": 3, "TUPLE": None, "APPEND": 1, "APPENDS": None, "SETITEM": 2},
    **{"SETITEMS": None, "BUILD": 1, "REDUCE": 2, "NEWOBJ": 2, "BINPERSID": 1},
}


def _check_program(program: bytes, sizes: Mapping[str, int]) -> set[str]:
    """Names that a pickle asks for; an error of any type for a pickle that is not to be run.

    The pickle is followed on descriptions of its values: literals, tuples, lists, keys of dicts and `_Object`s.
    """
    stack: list[Any] = []
    marks: list[int] = []
    memo: dict[int, Any] = {}
    names: set[str] = set()
    argument: Any
    for operation, argument, _ in pickletools.genops(program):
        name = operation.name
        count = _TAKEN.get(name, 0)
        first = marks.pop() if count is None else len(stack) - count
        taken = stack[first:]
        del stack[first:]
        match name:
            case "BININT" | "BININT1" | "BININT2" | "LONG1" | "BINFLOAT" | "BINUNICODE":
                stack.append(argument)
            case "NONE" | "NEWTRUE" | "NEWFALSE":
                stack.append({"NONE": None, "NEWTRUE": True, "NEWFALSE": False}[name])
            case "EMPTY_DICT" | "EMPTY_LIST":
                stack.append({} if name == "EMPTY_DICT" else [])
            case "EMPTY_TUPLE" | "TUPLE" | "TUPLE1" | "TUPLE2" | "TUPLE3":
                stack.append(tuple(taken))
            case "BINPUT" | "LONG_BINPUT":
                memo[argument] = stack[-1]
            case "BINGET" | "LONG_BINGET":
                stack.append(memo[argument])
            case "MARK":
                marks.append(len(stack))
            case "GLOBAL":
                stack.append(_named(argument))
                names.add(stack[-1].path)
            case "BINPERSID":
                stack.append(_stored(sizes, *taken[0]))
            case "APPEND" | "APPENDS" if isinstance(stack[-1], list):
                stack[-1].extend(taken)
            case "SETITEM" | "SETITEMS" if isinstance(stack[-1], dict) or _is_made(stack[-1], _OF_DICTS):
                _check_keys(taken[::2])
                if isinstance(stack[-1], dict):
                    stack[-1].update(dict.fromkeys(taken[::2]))
            case "BUILD":
                _check_state(stack[-1], taken[0])
            case "REDUCE" | "NEWOBJ":
                stack.append(_called(*taken))
            case "STOP" | "PROTO" if argument in (None, 2):
                pass
            case _:
                raise UnpicklingError(f"its pickle uses {name} in a way that no checkpoint needs")
    return names


def _named(argument: str) -> _Object:
    path = ".".join(argument.split(" ", 1)).replace("__builtin__.", "builtins.")  # Python 2, and protocol 2
    if not any(known.fullmatch(path) for known in (_OF_TORCH, _OF_DICTS, _RECORDED)):
        raise UnpicklingError(f"its pickle asks for {path}, which no checkpoint needs")
    return _Object(path)


def _stored(sizes: Mapping[str, int], kind: str, storage: _Object, key: str, _: str, count: int) -> _Object:
    if sizes.get(key) != count * _BYTES_PER_NUMBER[storage.path]:
        raise UnpicklingError(f"tensor data {key} has {sizes.get(key)} bytes, its pickle says {count} numbers")
    return _Object(kind, is_made=True, count=count)


def _is_made(value: Any, path: re.Pattern[str]) -> bool:
    """Whether a description is of what a function with such a name gave."""
    return isinstance(value, _Object) and value.is_made and path.fullmatch(value.path) is not None


def _check_keys(keys: Sequence[Any]) -> None:
    """Refuse keys whose hash takes for ever or crashes Python: nested tuples, or large integers chosen to collide."""
    for key in keys:
        if not (isinstance(key, str | None) or (isinstance(key, int) and abs(key) < 2**31)):
            raise UnpicklingError(f"a key of type {type(key).__name__}; text and small integers are possible")


def _called(function: _Object, arguments: Any) -> _Object:
    """Description of what a call gives, after a check of the arguments; records take any."""
    match function.path, arguments:
        case _ if function.is_made:
            raise UnpicklingError(f"its pickle calls what {function.path} made")
        case "torch._utils._rebuild_tensor_v2", (storage, offset, size, stride, *_):
            _check_tensor(storage, offset, size, stride)
        case "builtins.set", (list() as members,):
            _check_keys(members)
        case "collections.OrderedDict", ():
            pass
        case "_codecs.encode", (str(), "latin1"):  # other encodings make bytes of bytes, twice as many with each call
            pass
        case ("torch.Size", (tuple(),)) | ("torch._utils._rebuild_parameter" | "torch.device", _):
            pass
        case path, _ if not (_RECORDED.fullmatch(path) or path == "collections.defaultdict"):
            raise UnpicklingError(f"its pickle calls {path} with arguments that no checkpoint needs")
    return _Object(function.path, is_made=True)


def _check_tensor(storage: _Object, offset: int, size: tuple[int, ...], stride: tuple[int, ...]) -> None:
    count = prod(size)
    last = offset + sum((n - 1) * step for n, step in zip(size, stride, strict=True)) if count else 0
    # With strides of zero a few bytes could have any shape.
    if min((*size, *stride, offset)) < 0 or count > storage.count or last >= max(1, storage.count):
        raise UnpicklingError(f"a tensor of shape {size} reaches beyond its {storage.count} numbers")


def _check_state(target: Any, state: Any) -> None:
    """Refuse to set the fields of anything other than a record, or than an ordered dict that keeps its methods."""
    of_dict = _is_made(target, _OF_DICTS) and isinstance(state, dict)
    if not (_is_made(target, _RECORDED) or (of_dict and not any(hasattr(OrderedDict, name) for name in state))):
        raise UnpicklingError(f"its pickle changes {getattr(target, 'path', type(target).__name__)}")


def plain(value: Any) -> Any:
    """Dicts, lists and numbers of what was read.

    Parameters
    ----------
    value
        What `read_torch_file` gave, or a part of it.

    Returns
    -------
    Any
        The same with tensors and numpy's arrays as lists, numpy's numbers as Python's, OmegaConf containers as their
        content, and other records as dicts of their fields.

    Raises
    ------
    ModelError
        There are more than `MAX_VALUES` values (lists of references to lists of references grow without end), or an
        array is not one of numbers.
    """
    count = 0

    def convert(value: Any) -> Any:
        nonlocal count
        if isinstance(value, Record) and "multiarray" in value.path:
            value = _numpy_array(value)
        elif isinstance(value, torch.Tensor):
            value = value.detach().double().numpy()
        count += value.size if isinstance(value, np.ndarray) else 1
        if count > MAX_VALUES:
            raise ModelError(f"a configuration or table of more than {MAX_VALUES} values")
        if isinstance(value, np.ndarray):
            return value.tolist()
        if isinstance(value, dict):
            return {key: convert(item) for key, item in value.items()}
        if isinstance(value, list | tuple):
            return [convert(item) for item in value]
        if isinstance(value, Record):
            fields = value.fields
            return convert(fields.get("_content", fields.get("_val", fields)))
        return value

    return convert(value)


def _numpy_array(record: Record) -> np.ndarray:
    """The array that numpy's pickles describe: by a version, shape, type, order and bytes, or for one number by two."""
    _, shape, kind, in_columns, data = record.state or (1, (), record.arguments[0], False, record.arguments[1])
    code = kind.arguments[0] if isinstance(kind, Record) and kind.arguments else None
    if not isinstance(code, str) or not re.fullmatch(r"[fiub]\d{1,2}", code) or not isinstance(data, bytes):
        raise ModelError(f"numbers of numpy type {code!r} from {type(data).__name__}")
    if kind.state is not None and kind.state[1] not in ("<", "|", "="):
        raise ModelError(f"numbers of byte order {kind.state[1]!r}")
    if max((*shape, 0)) > len(data):  # a shape of (10**12, 0) has no data, and as a list no end
        raise ModelError(f"an array of shape {shape} from {len(data)} bytes")
    return np.frombuffer(data, dtype=code).reshape(shape, order="F" if in_columns else "C")
