"""Arrays are stored to the last bit, and a value that cannot be stored is named."""

from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from bson import BSON
from result_documents import large_array

from esen_flows.errors import StoreError
from esen_flows.schemas.keys import array_key
from esen_flows.store import blobs as module
from esen_flows.store.blobs import PENDING_DELETE, BlobReference, BlobStore, pack, unpack

if TYPE_CHECKING:
    from esen_flows.store.results import Store

ARRAYS = {
    "float64": np.linspace(0, 1, 12).reshape(3, 4),
    "float32 special": np.array([np.nan, np.inf, -0.0], dtype=np.float32),
    "complex": np.array([[1 + 2j, 3 - 4j]]),
    "integers": np.array([-(2**63), 2**63 - 1]),
    "bytes of integers": np.arange(5, dtype=np.uint8),
    "booleans": np.array([[True, False], [False, True]]),
    "text": np.array(["Γ", "X", "L|K"]),
    "empty": np.zeros((0, 3)),
    "no dimension": np.array(3.5),
    "fortran order": np.asfortranarray(np.arange(6.0).reshape(2, 3)),
    "big endian": np.arange(3, dtype=">f8"),
    "strided": np.arange(20)[::3],
}


def through_bson(value: Any) -> Any:
    return BSON.encode({"value": value}).decode()["value"]


@pytest.mark.parametrize("name", ARRAYS)
def test_arrays_round_trip(name: str) -> None:
    array = ARRAYS[name]
    back = unpack(through_bson(pack(array)))
    assert back.shape == array.shape
    assert back.dtype == array.dtype.newbyteorder("=")
    np.testing.assert_array_equal(back, array)
    assert array_key(back) == array_key(array)
    if back.size and back.ndim:
        back[...] = back[..., ::-1]  # a copy that can be written to


def test_nested_values_round_trip() -> None:
    value = {
        "a": [1, 2.5, None, True, "text", b"bytes"],
        "nested": {"deep": [{"array": np.arange(3)}]},
        "when": datetime(2026, 11, 21, tzinfo=UTC).replace(tzinfo=None),
        "scalars": [np.float32(0.1), np.int64(7), np.bool_(True), np.str_("Si"), np.float64("nan")],
        "tuple": (1, (2, 3)),
    }
    back = unpack(through_bson(pack(value)))
    np.testing.assert_array_equal(back["nested"]["deep"][0]["array"], np.arange(3))
    assert back["a"] == value["a"]
    assert back["when"] == value["when"]
    assert back["scalars"][:4] == [float(np.float32(0.1)), 7, True, "Si"]
    assert np.isnan(back["scalars"][4])
    assert [type(item) for item in back["scalars"]] == [float, int, bool, str, float]
    assert back["tuple"] == [1, [2, 3]]


def test_size_decides_between_inline_and_blob() -> None:
    small, large = np.zeros(31_999), np.zeros(32_000)  # 8 bytes each, limit 256 kB
    aside: dict[str, np.ndarray] = {}
    packed = pack({"small": small, "large": large, "again": large}, aside)
    assert packed["large"] == packed["again"] == {"__blob__": array_key(large), "dtype": "<f8", "shape": [32_000]}
    assert packed["small"]["__array__"] == 1
    assert list(aside) == [array_key(large)]
    assert unpack(packed)["large"] == BlobReference(array_key(large), "<f8", (32_000,))


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ({"a": {1: 2}}, r"output\.a has the key 1, a int; keys of stored values are strings"),
        ({"a": {("x", "y"): 2}}, "a tuple; keys"),
        ({"a": [0, {"__array__": 1}]}, r"output\.a\[1\] has the key '__array__', which is reserved"),
        ({"$where": "1"}, r"'\$where', which is reserved"),
        ({"a": [1, object()]}, r"output\.a\[1\] is a object, which cannot be stored"),
        ({"a": {1, 2}}, r"output\.a is a set"),
        ({"a": 2**63}, r"output\.a is 9223372036854775808, which does not fit into 64 bits"),
        ({"a": np.array([None, 1])}, r"output\.a is an array of object"),
        ({"a": 1 + 2j}, r"output\.a is a complex"),
    ],
)
def test_a_value_that_cannot_be_stored_is_named(value: Any, message: str) -> None:
    with pytest.raises(StoreError, match=message):
        pack(value)


def test_a_damaged_type_is_not_trusted() -> None:
    with pytest.raises(StoreError, match="claims the type 'O'"):
        unpack({"__array__": 1, "dtype": "O", "shape": [1], "data": b"12345678"})


def counts(store: "Store") -> tuple[int, int]:
    database = store.database
    return database["blobs"].count_documents({}), database["blob_chunks"].count_documents({})


@pytest.mark.mongod
class TestBlobStore:
    """Large arrays on a server."""

    @pytest.fixture
    def blobs(self, store: "Store", monkeypatch: pytest.MonkeyPatch) -> BlobStore:
        monkeypatch.setattr(module, "CHUNK_BYTES", 2**18)
        return BlobStore(store.database)

    def test_round_trip_in_chunks(self, store: "Store", blobs: BlobStore) -> None:
        array = large_array(0).reshape(-1, 16)
        sha = array_key(array)
        blobs.put(sha, array, "first")
        assert counts(store) == (1, 4)
        np.testing.assert_array_equal(blobs.get(BlobReference(sha, "<f8", array.shape)), array)

    def test_an_array_written_twice_is_stored_once(self, store: "Store", blobs: BlobStore) -> None:
        array = large_array(0)
        for write in ("first", "first", "second"):
            blobs.put(array_key(array), array, write)
        assert counts(store) == (1, 4)

    def test_the_slower_of_two_writers_removes_its_chunks(
        self, store: "Store", blobs: BlobStore, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        array = large_array(0)
        sha, other, chunks = array_key(array), BlobStore(store.database), []
        put_chunk = blobs._put_chunk

        def interrupted(chunk_id: str, chunk: dict[str, Any]) -> None:
            put_chunk(chunk_id, chunk)
            chunks.append(chunk_id)
            if len(chunks) == 2:
                other.put(sha, array, "faster")

        monkeypatch.setattr(blobs, "_put_chunk", interrupted)
        blobs.put(sha, array, "slower")
        assert len(chunks) == 4
        assert counts(store) == (1, 4)
        assert store.database["blob_chunks"].distinct("write") == ["faster"]
        np.testing.assert_array_equal(blobs.get(BlobReference(sha, "<f8", array.shape)), array)

    def test_damage_is_reported(self, store: "Store", blobs: BlobStore) -> None:
        array = large_array(0)
        reference = BlobReference(array_key(array), "<f8", array.shape)
        with pytest.raises(StoreError, match=r"named by a document but missing"):
            blobs.get(reference)
        blobs.put(reference.sha, array, "w")
        chunks = store.database["blob_chunks"]
        chunk = chunks.find_one({"n": 2})
        assert chunk is not None
        chunks.update_one({"n": 2}, {"$set": {"data": chunk["data"][:-1] + b"\xff"}})
        with pytest.raises(StoreError, match="does not match its checksum"):
            blobs.get(reference)
        chunks.delete_one({"n": 2})
        with pytest.raises(StoreError, match="786432 of 1048576 bytes"):
            blobs.get(reference)
        blobs.repair(reference.sha, array)
        np.testing.assert_array_equal(blobs.get(reference), array)

    def test_only_orphans_are_removed(self, store: "Store", blobs: BlobStore) -> None:
        arrays = {array_key(array): array for array in (large_array(seed, 0.3) for seed in range(4))}
        orphan, of_result, of_claim, other = arrays
        for sha, array in arrays.items():
            blobs.put(sha, array, "w")
        store.database["results"].insert_one({"key": "r", "attempt": 0, "current": False, "blobs": [of_result]})
        store.database["claims"].insert_one({"_id": "c", "token": "t", "tokens": ["t"], "blobs": [of_claim]})
        assert blobs.remove_orphans([orphan, of_result, of_claim, orphan]) == [orphan]
        assert sorted(store.database["blobs"].distinct("_id")) == sorted([of_result, of_claim, other])
        assert sorted(store.database["blob_chunks"].distinct("sha")) == sorted([of_result, of_claim, other])
        assert store.database["blobs"].count_documents({PENDING_DELETE: True}) == 0
        assert blobs.remove_orphans([of_claim], by_token="t") == [of_claim]

    def test_chunks_of_dead_writers_without_a_header_are_removed(self, store: "Store", blobs: BlobStore) -> None:
        array = large_array(0)
        sha = array_key(array)
        for write in ("dead", "living"):
            blobs._put_chunk(f"{sha}:{write}:0", {"sha": sha, "write": write, "n": 0, "data": b"x"})
        store.database["claims"].insert_one({"_id": "c", "token": "living", "tokens": ["living"], "blobs": []})
        blobs.remove_orphans([sha])
        assert store.database["blob_chunks"].distinct("write") == ["living"]

    def test_an_array_that_is_needed_again_is_not_removed(
        self, store: "Store", blobs: BlobStore, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """A writer stores the array between the query for its name and the removal."""
        array = large_array(0)
        sha = array_key(array)
        blobs.put(sha, array, "old")
        remover = BlobStore(store.database)

        def not_named_yet(database: object, sha: str) -> bool:
            blobs.put(sha, array, "new")
            return False

        monkeypatch.setattr(module, "is_named_by_document", not_named_yet)
        assert remover.remove_orphans([sha]) == []
        np.testing.assert_array_equal(blobs.get(BlobReference(sha, "<f8", array.shape)), array)
