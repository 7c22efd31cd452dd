"""Archives are readable by other programs, and refused as a whole when they are damaged."""

import io
import os
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from archive_files import Members, members_of, write_members
from result_documents import large_array
from whole_store import COLLECTIONS

from esen_flows.errors import InputError
from esen_flows.store.exchange.archive import Archive
from esen_flows.store.exchange.transfer import import_archive
from esen_flows.store.results import Store

pytestmark = pytest.mark.mongod


def is_empty(store: Store) -> bool:
    names = (*COLLECTIONS, "claims", "blobs", "blob_chunks")
    return all(store.database[name].count_documents({}) == 0 for name in names)


def test_arrays_are_readable_by_numpy_alone(archive: Path) -> None:
    members = members_of(archive)
    arrays = [np.load(io.BytesIO(data)) for name, data in members.items() if name.startswith("blobs/")]
    assert any(np.array_equal(array, large_array(2)) for array in arrays)


def cut(fraction: float) -> Callable[[Path], None]:
    return lambda path: os.truncate(path, int(path.stat().st_size * fraction))


def flip(fraction: float) -> Callable[[Path], None]:
    def change(path: Path) -> None:
        data = bytearray(path.read_bytes())
        data[int(len(data) * fraction)] ^= 1
        path.write_bytes(bytes(data))

    return change


def members(edit: Callable[[Members], Any], sign: bool = True) -> Callable[[Path], None]:
    """Change the members and, with `sign`, make the checksums fit."""

    def change(path: Path) -> None:
        found = members_of(path)
        edit(found)
        write_members(path, found, sign)

    return change


def replace_in(name: str, old: bytes, new: bytes) -> Callable[[Members], None]:
    def edit(found: Members) -> None:
        assert old in found[name]
        found[name] = found[name].replace(old, new, 1)

    return edit


def other_array(found: Members) -> None:
    first, second, *_ = sorted(name for name in found if name.startswith("blobs/"))
    found[first] = found[second]


def no_array(found: Members) -> None:
    del found[min(name for name in found if name.startswith("blobs/"))]


DAMAGES: dict[str, tuple[Callable[[Path], None], str]] = {
    "empty": (cut(0.0), "not an archive"),
    "cut in the middle": (cut(0.5), "damaged"),
    "cut before the end": (cut(0.98), "damaged"),
    "a bit of a header": (flip(0.0), "not an archive|damaged"),
    "a bit of a document": (flip(0.005), "damaged"),
    "a bit of an array": (flip(0.5), "damaged.*does not match its checksum"),
    "a path": (members(lambda found: found.update({"../../etc/passwd": b"x"})), "damaged: it holds '../../etc/passwd'"),
    "a missing array": (members(no_array), "an array of result .* is missing"),
    "a missing file": (members(no_array, sign=False), "is not in both the archive and its checksums.json"),
    "an array of another name": (members(other_array), "is not the array of its name"),
    "no manifest": (members(lambda found: found.pop("manifest.json")), "manifest.json is missing"),
    "a newer format": (
        members(replace_in("manifest.json", b'"format_version": 1', b'"format_version": 2')),
        "format 2, newer than 1; upgrade esen_flows",
    ),
    "a newer document": (
        members(replace_in("results/000000.jsonl", b'"schema_version": {"$numberInt": "1"}', b'"schema_version": 9')),
        "schema version 9, newer than 1; upgrade esen_flows",
    ),
    "another model": (
        members(replace_in("results/000000.jsonl", b'_revision": {"$numberInt": "1"}', b'_revision": 2')),
        "does not have the key that follows from its protocol",
    ),
    "another structure": (
        members(replace_in("structures/000000.jsonl", b'"charge": {"$numberDouble": "0.0"}', b'"charge": 1.0')),
        "is not the structure of its key",
    ),
    "an operator": (
        members(replace_in("results/000000.jsonl", b'"formula": "Si"', b'"$where": "1", "formula": "Si"')),
        "cannot be read|has a field",
    ),
    "a text that is no JSON": (
        members(replace_in("results/000000.jsonl", b'"formula": "Si"', b'"formula": Si')),
        "damaged: results/000000.jsonl",
    ),
    "an attempt that is no number": (
        members(replace_in("results/000000.jsonl", b'"attempt": {"$numberInt": "0"}', b'"attempt": "0"')),
        "is not as this package writes it",
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", DAMAGES)
def test_damaged_archives_are_refused_whole(emptied: tuple[Store, bytes], archive: Path, name: str) -> None:
    change, message = DAMAGES[name]
    change(archive)
    with pytest.raises(InputError, match=message):
        import_archive(emptied[0], archive)
    assert is_empty(emptied[0])


def test_a_link_and_a_second_member_of_one_name_are_refused(archive: Path) -> None:
    pristine = archive.read_bytes()
    with tarfile.open(archive, "a") as tar:
        link = tarfile.TarInfo("results/000001.jsonl")
        link.type, link.linkname = tarfile.SYMTYPE, "/etc/passwd"
        tar.addfile(link)
    with pytest.raises(InputError, match=r"it holds 'results/000001\.jsonl', which does not belong"):
        Archive(archive)
    archive.write_bytes(pristine)
    with tarfile.open(archive, "a") as tar:
        tar.addfile(tarfile.TarInfo("manifest.json"))
    with pytest.raises(InputError, match=r"it holds 'manifest\.json'"):
        Archive(archive)
    with pytest.raises(InputError, match="there is no file"):
        Archive(archive.with_name("absent.tar"))
