"""Documents of any shape in spools and archives: read, or refused with one message, and the good ones are merged."""

import hashlib
import json
from contextlib import suppress
from pathlib import Path
from random import Random
from typing import Any

import pytest
from archive_files import members_of, write_members
from ase.build import bulk
from bson import json_util
from hostile.mutations import VALUES, change_value
from hypothesis import given, settings
from hypothesis import strategies as st
from result_documents import key_of
from whole_store import put_relaxation, wipe

from esen_flows.errors import InputError, StoreError
from esen_flows.schemas.keys import atoms_key
from esen_flows.store.blobs import unpack
from esen_flows.store.exchange.extended_json import DocumentError, parsed
from esen_flows.store.exchange.ingest import ingest
from esen_flows.store.exchange.spool_store import SpoolStore
from esen_flows.store.exchange.transfer import import_archive
from esen_flows.store.results import Store
from esen_flows.store.rows import structure_of
from esen_flows.store.upkeep.verify import verify

ODD = st.sampled_from([value for value in VALUES if not isinstance(value, str)]) | st.text(max_size=4)
TREES = st.recursive(
    ODD, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=6), inner, max_size=3)
)


def signed(document: Any) -> bytes:
    """A line of a spool, with the checksum that fits."""
    text = json.dumps(document).encode()
    return b'{"sha256":"%s","record":%s}\n' % (hashlib.sha256(text).hexdigest().encode(), text)


@given(TREES)
def test_extended_json_of_any_shape(value: Any) -> None:
    with suppress(DocumentError):
        again = parsed(json.dumps(value).encode())
        assert parsed(
            json_util.dumps(again, json_options=json_util.CANONICAL_JSON_OPTIONS).encode()
        ) == again or "nan" in repr(again)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (b"[1]", "a list instead of a document"),
        (b"\xff", "no extended JSON"),
        (b'{"a": {"$oid": "x"}}', "no extended JSON"),
        (b'{"a": {"$date": {"$numberLong": "99999999999999999"}}}', "no extended JSON|type DatetimeMS"),
        (b'{"a": 99999999999999999999}', "64 bits"),
        (b'{"a": {"$regularExpression": {"pattern": "a", "options": ""}}}', "type Regex|type Pattern"),
        (b'{"a": {"$numberDecimal": "1"}}', "type Decimal128"),
        (b'{"a\\u0000": 1}', "a field of the name"),
        (b'{"a": "\\ud800"}', "half a character"),
        (b'{"a":' * 70 + b"1" + b"}" * 70, "nested more than 60"),
        (b"[" * 100_000, "no extended JSON"),
    ],
)
def test_documents_that_this_package_never_writes(text: bytes, words: str) -> None:
    with pytest.raises(DocumentError, match=words):
        parsed(text)


@given(
    st.sampled_from(["numbers", "positions_angstrom", "cell_angstrom", "pbc", "masses_u", "dtype", "shape", "data"]),
    ODD,
)
def test_structures_of_any_shape(name: str, value: Any) -> None:
    from esen_flows.schemas.documents import StructureData
    from esen_flows.store.blobs import pack

    fields = pack(StructureData.from_atoms(bulk("Si")).model_dump(), path="structure")
    if name in fields or name == "masses_u":
        fields[name] = value
    else:
        fields["positions_angstrom"][name] = value
    with suppress(StoreError):
        assert len(structure_of(fields).to_atoms()) == 2


@given(TREES)
def test_stored_arrays_of_any_shape(value: Any) -> None:
    with suppress(StoreError):
        unpack(value)


@pytest.fixture
def spooled(store: Store, tmp_path: Path) -> tuple[Path, list[dict[str, Any]]]:
    """A spool of a structure and three results, and its records."""
    keys = [put_relaxation(store, name, 5.4 + 0.1 * number) for number, name in enumerate("abc")]
    spool = SpoolStore(tmp_path / "spool")
    spool.put_structure(bulk("Si", a=5.3))
    for key in keys:
        result = store.get(key)
        assert result is not None
        spool.commit(spool.get_or_claim(key), result)
    spool.close()
    store.database["results"].delete_many({})
    (file,) = (tmp_path / "spool").glob("*/records.jsonl")
    return file, [json.loads(line)["record"] for line in file.read_bytes().splitlines()]


@pytest.mark.mongod
def test_a_broken_record_does_not_hold_up_those_behind_it(store: Store, spooled: Any) -> None:
    file, records = spooled
    odd = [signed(value) for value in VALUES if value == value and not isinstance(value, float)]
    lines = [signed(record) for record in records]
    file.write_bytes(b"".join([*odd, lines[0], *odd, lines[1], b"\0\0\n", lines[2], *odd, lines[3]]))
    done = ingest(store, file.parent.parent)
    assert dict(done.counts) == {"structures": 1, "new": 3}
    assert len(done.damaged) == 3 * len(odd) + 1
    assert done.truncated == ()
    assert all(message.startswith(f"{file} at byte ") for message in done.damaged)
    assert store.get_structure(atoms_key(bulk("Si", a=5.3))) is not None
    again = SpoolStore(file.parent.parent)  # a worker that goes on with this folder
    assert again.get(records[1]["row"]["key"]) is not None


@pytest.mark.mongod
def test_a_result_under_the_key_of_another_is_not_merged(store: Store, spooled: Any) -> None:
    file, records = spooled
    records[1]["row"]["key"] = records[2]["row"]["key"]
    records[0]["key"] = key_of("another")
    file.write_bytes(b"".join(map(signed, records)))
    done = ingest(store, file.parent.parent)
    assert dict(done.counts) == {"new": 2}
    assert "does not have the key that follows" in done.damaged[1]
    assert "is not the structure of its key" in done.damaged[0]


@pytest.mark.mongod
@settings(max_examples=25)
@given(data=st.data())
def test_records_with_any_value_anywhere(store: Store, spooled: Any, data: st.DataObject) -> None:
    file, records = spooled
    record = data.draw(st.sampled_from(records))
    holder = data.draw(st.sampled_from([part for part in (record, record.get("row"), record.get("identity")) if part]))
    changed = json.loads(json.dumps(holder))
    changed[data.draw(st.sampled_from([*sorted(holder), "x", "$set"]))] = data.draw(TREES)
    new = changed if holder is record else {**record, "row" if "row" in record else "identity": changed}
    file.write_bytes(signed(new) + b"".join(map(signed, records)))
    done = ingest(store, file.parent.parent)
    assert sum(done.counts.values()) + len(done.damaged) == len(records) + 1


@pytest.mark.mongod
@settings(max_examples=25)
@given(random=st.randoms(use_true_random=False))
def test_an_archive_with_a_changed_document(emptied: tuple[Store, bytes], tmp_path: Path, random: Random) -> None:
    """Anything that is imported can be read: `db verify` finds no problem in it."""
    store, original = emptied
    (tmp_path / "changed.tar").write_bytes(original)
    members = members_of(tmp_path / "changed.tar")
    name = random.choice([name for name in members if name.endswith(".jsonl")])
    rows = [json.loads(line) for line in members[name].splitlines()]
    place = random.randrange(len(rows))
    rows[place] = change_value(rows[place], random)
    members[name] = b"".join(json.dumps(row).encode() + b"\n" for row in rows)
    try:
        with suppress(InputError):
            import_archive(store, write_members(tmp_path / "changed.tar", members, sign=True))
            assert [problem for problem in verify(store).problems if "is not stored" not in problem] == []
    finally:
        wipe(store)
