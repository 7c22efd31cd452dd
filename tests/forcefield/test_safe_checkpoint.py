"""Files of torch.save come back as data; hostile pickles are refused with the reason, and nothing of them is run."""

import argparse
import collections
import os
import pickle
import struct
import tracemalloc
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch

from esen_flows.errors import ModelError
from esen_flows.forcefield.safe_checkpoint import MAX_PICKLE_BYTES, MAX_VALUES, Record, plain, read_torch_file


def test_values_of_checkpoints_are_read(tmp_path):
    tensor = torch.arange(6.0).reshape(2, 3)
    content = {
        "ordered": collections.OrderedDict(a=tensor, b=torch.nn.Parameter(torch.ones(2))),
        "default": collections.defaultdict(dict, x=1),
        "transposed": tensor.T,
        "half": torch.ones(3, dtype=torch.bfloat16),
        "scalar": np.float64(1.5),
        "integer": np.int32(-3),
        "array": np.arange(4.0).reshape(2, 2),
        "bytes": b"a\xff",
        "settings": argparse.Namespace(steps=3),
        "device": torch.device("cpu"),
        "dtype": torch.float32,
        "size": torch.Size([2, 3]),
        "plain": [1, 2.5, "x", None, True, {"y"}],
    }
    torch.save(content, tmp_path / "f.pt")
    found = read_torch_file(tmp_path / "f.pt")
    assert torch.equal(found["ordered"]["a"], tensor)
    assert torch.equal(found["ordered"]["b"], torch.ones(2))
    assert torch.equal(found["transposed"], tensor.T)
    assert found["half"].dtype is torch.bfloat16
    assert dict(found["default"]) == {"x": 1}
    assert plain([found["scalar"], found["integer"], found["array"]]) == [1.5, -3, [[0.0, 1.0], [2.0, 3.0]]]
    assert (found["bytes"], found["dtype"], tuple(found["size"])) == (b"a\xff", torch.float32, (2, 3))
    assert isinstance(found["settings"], Record)
    assert found["settings"].fields == {"steps": 3}
    assert found["device"] == torch.device("cpu")
    assert found["plain"] == content["plain"]


def assert_refused(path, words):
    with pytest.raises(ModelError, match=words):
        read_torch_file(path)


def test_another_pickle_protocol_is_refused_with_the_remedy(tmp_path):
    torch.save({"x": torch.ones(2)}, tmp_path / "f.pt", pickle_protocol=4)
    assert_refused(tmp_path / "f.pt", r"uses PROTO .* save .* again .* with torch.save's default protocol")


class Reduces:
    def __init__(self, *result):
        self.result = result

    def __reduce__(self):
        return self.result


def archive(path, program, members=None, compression=zipfile.ZIP_STORED):
    """Write a file of torch.save's layout with a pickle of one's own."""
    with zipfile.ZipFile(path, "w", compression) as out:
        out.writestr("archive/data.pkl", program)
        out.writestr("archive/version", b"3\n")
        for name, data in (members or {}).items():
            out.writestr(f"archive/{name}", data)


def storage_pid(key, count):
    """How torch names the numbers of a tensor inside of a pickle."""
    return ("storage", torch.FloatStorage, key, "cpu", count)


class _StoragePickler(pickle.Pickler):
    def persistent_id(self, value):
        return value.pid if isinstance(value, _Stored) else None


class _Stored:
    def __init__(self, key, count):
        self.pid = storage_pid(key, count)


def pickled(value, path):
    with path.open("wb") as stream:
        _StoragePickler(stream, 2).dump(value)
    return path.read_bytes()


def touch(path):
    return Reduces(os.system, (f"touch {path}",))


def state_setter(path):
    return Reduces(collections.OrderedDict, (), {"x": touch(path)})


def builtin_eval(path):
    return Reduces(eval, (f"open({str(path)!r}, 'w')",))


def import_by_getattr(path):
    return Reduces(getattr, (str(path), "upper"))


@pytest.mark.parametrize("hostile", [touch, state_setter, builtin_eval, import_by_getattr])
def test_programs_are_refused_and_nothing_is_run(tmp_path, hostile):
    trace = tmp_path / "ran"
    torch.save({"state_dict": {}, "config": hostile(trace)}, tmp_path / "f.pt")
    assert_refused(tmp_path / "f.pt", r"asks for (posix|nt|builtins)\.\w+, which no checkpoint needs")
    assert not trace.exists()


def test_an_unlisted_name_is_named(tmp_path):
    torch.save({"x": Reduces(struct.Struct, ("i",))}, tmp_path / "f.pt")
    assert_refused(tmp_path / "f.pt", r"asks for _?struct\.Struct")


def test_functions_and_classes_cannot_be_changed(tmp_path):
    # GLOBAL collections.OrderedDict, then BUILD with a state: an attempt to patch the class of this process.
    program = b"ccollections\nOrderedDict\n" + pickle.dumps({"__call__": 1}, 2)[2:-1] + b"b."
    archive(tmp_path / "f.pt", program)
    assert_refused(tmp_path / "f.pt", r"changes collections\.OrderedDict")
    assert collections.OrderedDict(a=1) == {"a": 1}


def test_a_class_of_settings_is_a_record_and_not_imported(tmp_path):
    archive(tmp_path / "f.pt", b"\x80\x02cfairchem.core.nowhere\nConfig\n)\x81}X\x01\x00\x00\x00aK\x05sb.")
    found = read_torch_file(tmp_path / "f.pt")
    assert (found.path, found.fields) == ("fairchem.core.nowhere.Config", {"a": 5})


def test_truncated_and_foreign_files(tmp_path):
    torch.save({"x": torch.ones(1000)}, tmp_path / "whole.pt")
    data = (tmp_path / "whole.pt").read_bytes()
    for name, part in (("half", data[: len(data) // 2]), ("text", b"not a checkpoint"), ("empty", b"")):
        (tmp_path / name).write_bytes(part)
        with pytest.raises(ModelError, match=r"not a whole torch.save archive .* fetch it again"):
            read_torch_file(tmp_path / name)
    assert_refused(tmp_path / "nowhere", "no file")


def test_a_flipped_byte_is_found(tmp_path):
    torch.save({"x": torch.arange(1000.0)}, tmp_path / "f.pt")
    data = bytearray((tmp_path / "f.pt").read_bytes())
    data[data.index(np.float32(500).tobytes())] ^= 1
    (tmp_path / "f.pt").write_bytes(data)
    assert_refused(tmp_path / "f.pt", "CRC")


def test_a_compressed_member_is_refused_before_it_is_read(tmp_path):
    archive(tmp_path / "bomb.pt", b"\x80\x02}.", {"data/0": b"\0" * 50_000_000}, zipfile.ZIP_DEFLATED)
    assert (tmp_path / "bomb.pt").stat().st_size < 100_000
    assert_refused(tmp_path / "bomb.pt", "are compressed or larger than the file")


def test_a_pickle_of_many_bytes_is_refused(tmp_path):
    archive(tmp_path / "f.pt", b"\0" * (MAX_PICKLE_BYTES + 1))
    assert_refused(tmp_path / "f.pt", f"its pickle has {MAX_PICKLE_BYTES + 1} bytes")


@pytest.mark.parametrize(
    ("size", "stride", "count"),
    [((10**9,), (0,), 4), ((5,), (1,), 4), ((2, 2), (4, 1), 4), ((2,), (-1,), 4), ((4,), (1,), 10**6)],
)
def test_tensors_that_reach_beyond_their_numbers_are_refused(tmp_path, size, stride, count):
    rebuild = torch._utils._rebuild_tensor_v2
    value = Reduces(rebuild, (_Stored("0", count), 0, size, stride, False, collections.OrderedDict()))
    program = pickled({"x": value}, tmp_path / "program")
    archive(tmp_path / "f.pt", program, {"data/0": np.ones(4, dtype=np.float32).tobytes()})
    assert_refused(tmp_path / "f.pt", r"reaches beyond its 4 numbers|16 bytes, its pickle says 1000000")


def test_arrays_of_objects_are_refused(tmp_path):
    torch.save({"x": np.array([{}], dtype=object)}, tmp_path / "f.pt")
    with pytest.raises(ModelError, match="numbers of numpy type"):
        plain(read_torch_file(tmp_path / "f.pt"))


def test_an_archive_of_two_pickles_is_refused(tmp_path):
    path = Path(tmp_path / "f.pt")
    archive(path, b"\x80\x02}.", {"more/data.pkl": b"\x80\x02}."})
    assert_refused(path, r"one data\.pkl")


def tensor_program(count):
    """What torch.save writes for a tensor of the first `count` numbers of data/0."""
    length = b"J" + struct.pack("<i", count)
    pid = b"(X\x07\x00\x00\x00storagectorch\nFloatStorage\nX\x01\x00\x00\x000X\x03\x00\x00\x00cpu" + length + b"tQ"
    return b"ctorch._utils\n_rebuild_tensor_v2\n(" + pid + b"K\x00" + length + b"\x85K\x01\x85\x89}tR"


EMPTY_ROWS = (
    b"cnumpy.core.multiarray\n_reconstruct\n)R(K\x01\x8a\x05\x00\x00\x00\x00\x01K\x00\x86"
    b"cnumpy\ndtype\nX\x02\x00\x00\x00f8\x85R\x89"
    b"c_codecs\nencode\nX\x00\x00\x00\x00X\x06\x00\x00\x00latin1\x86Rtb"
)


@pytest.mark.parametrize(
    ("program", "words"),
    [
        (b"})" + b"\x85" * 100_000 + b"K\x01s.", "a key of type tuple"),  # hashing it ends Python
        (b"}\x8a\x09" + b"\xff" * 8 + b"\x00K\x01s.", "a key of type int"),
        (b"cbuiltins\nset\n])a\x85R.", "a key of type tuple"),
        (tensor_program(4) + b"}b.", r"changes torch\._utils\._rebuild_tensor_v2"),
        (tensor_program(4) + b"(" + tensor_program(4) + b"e.", "uses APPENDS in a way"),
        (tensor_program(4) + b"K\x00K\x01s.", "uses SETITEM in a way"),
        (tensor_program(4) + b")R.", r"calls what torch\._utils\._rebuild_tensor_v2 made"),
        (
            b"ccollections\nOrderedDict\n" + tensor_program(4) + b"\x85R.",
            r"calls collections\.OrderedDict with arguments",
        ),
        # Methods of a dict cannot be replaced.
        (b"ccollections\nOrderedDict\n)R}X\x05\x00\x00\x00itemsK\x01sb.", r"changes collections\.OrderedDict"),
        (b"cbuiltins\nbytearray\nK\x05\x85R.", r"asks for builtins\.bytearray, which no checkpoint needs"),
        (b"ctorch.storage\nUntypedStorage\nK\x05\x85R.", r"asks for torch\.storage\.UntypedStorage"),
        (b"c_codecs\nencode\nX\x01\x00\x00\x00aX\x03\x00\x00\x00hex\x86R.", r"calls _codecs\.encode with arguments"),
        (tensor_program(4).replace(b"X\x01\x00\x00\x000", b"X\x01\x00\x00\x009"), "tensor data 9 has None bytes"),
        (b"(icollections\nOrderedDict\n.", "uses INST in a way that no checkpoint needs"),
        (b"\x82\x01.", "uses EXT1"),
        (b"\x96" + struct.pack("<Q", 1 << 40) + b".", "only 1 remain"),
        (b"N", "exhausted before seeing STOP"),
        (b".", "is refused"),
    ],
)
def test_operations_that_no_checkpoint_needs_are_refused(tmp_path, program, words):
    archive(tmp_path / "f.pt", b"\x80\x02" + program, {"data/0": bytes(16)})
    assert_refused(tmp_path / "f.pt", words)


def test_an_array_of_many_empty_rows_is_no_list(tmp_path):
    archive(tmp_path / "f.pt", b"\x80\x02" + EMPTY_ROWS + b".")
    with pytest.raises(ModelError, match=r"shape \(4294967296, 0\) from 0 bytes"):
        plain(read_torch_file(tmp_path / "f.pt"))


@pytest.mark.parametrize("change", [lambda data: b"before" + data, lambda data: data + b"behind"])
def test_bytes_around_the_archive_are_refused(tmp_path, change):
    torch.save({"x": 1}, tmp_path / "f.pt")
    (tmp_path / "f.pt").write_bytes(change((tmp_path / "f.pt").read_bytes()))
    assert_refused(tmp_path / "f.pt", "something before or behind the archive")


def test_a_large_memo_number_costs_no_memory(tmp_path):
    archive(tmp_path / "f.pt", b"\x80\x02Nr\xff\xff\xff\x0f.")  # 4 GB in Python's own machine
    tracemalloc.start()
    assert read_torch_file(tmp_path / "f.pt") is None
    assert tracemalloc.get_traced_memory()[1] < 10_000_000
    tracemalloc.stop()


def test_lists_of_references_to_lists_do_not_grow_without_end(tmp_path):
    value = [1.0]
    for _ in range(40):
        value = [value, value]
    torch.save(value, tmp_path / "f.pt")
    with pytest.raises(ModelError, match=f"more than {MAX_VALUES} values"):
        plain(read_torch_file(tmp_path / "f.pt"))


def test_one_piece_of_data_has_one_type(tmp_path):
    other = tensor_program(4).replace(b"FloatStorage", b"IntStorage")
    archive(tmp_path / "f.pt", b"\x80\x02" + tensor_program(4) + other + b"\x86.", {"data/0": bytes(16)})
    assert [tensor.dtype for tensor in read_torch_file(tmp_path / "f.pt")] == [torch.float32, torch.float32]


def test_a_reason_is_not_as_long_as_the_file(tmp_path):
    archive(tmp_path / "f.pt", b"\x80\x02c" + b"a" * 1_000_000 + b"\nb\n.")
    with pytest.raises(ModelError, match="nothing of it was run") as caught:
        read_torch_file(tmp_path / "f.pt")
    assert len(str(caught.value)) < 1000
