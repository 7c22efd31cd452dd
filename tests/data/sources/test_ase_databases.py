"""ASE databases: SQLite, and LMDB in the layout of OMat24 and its like."""

import json
import zlib

import ase.db
import numpy as np
import pytest
from ase.build import bulk
from labelled_frames import FORCES, FULL_STRESS, STRESS, labelled_frame

from esen_flows.data.screening import BadRecord
from esen_flows.data.sources import ase_databases
from esen_flows.data.sources.options import SourceOptions
from esen_flows.data.sources.read import read_source
from esen_flows.errors import InputError


def row(energy: float = -7.25, **more) -> dict:
    """A row as the files of OMat24 have it."""
    atoms = labelled_frame(energy)
    return {
        "numbers": atoms.numbers.tolist(),
        "positions": atoms.positions.tolist(),
        "cell": atoms.cell.array.tolist(),
        "pbc": [True, True, True],
        "energy": energy,
        "forces": FORCES.tolist(),
        "stress": STRESS.tolist(),
        "ctime": 24.5,
        "unique_id": "0" * 32,
        "calculator": "unknown",
        "key_value_pairs": {},
        "data": {},
        **more,
    }


def write_lmdb(path, rows: dict, **head) -> None:
    lmdb = pytest.importorskip("lmdb")
    with lmdb.open(str(path), subdir=False, map_size=1 << 24) as environment, environment.begin(write=True) as writing:
        for name, value in {**rows, **head}.items():
            data = value if isinstance(value, bytes) else zlib.compress(json.dumps(value).encode())
            writing.put(str(name).encode(), data)


def test_sqlite(tmp_path):
    with ase.db.connect(tmp_path / "a.db") as database:
        database.write(labelled_frame(), data={"charge": -1, "material": "mp-1"}, group="g", my_energy=-2.0)
        database.write(bulk("Cu"))
    one, two = read_source(tmp_path / "a.db")
    assert (one.energy, one.group, one.material, one.atoms.info) == (-7.25, "g", "mp-1", {"charge": -1})
    np.testing.assert_array_equal(one.forces, FORCES)
    np.testing.assert_allclose(one.stress, FULL_STRESS)
    assert two == BadRecord("row 2 of a.db", "no energy", "")
    assert next(read_source(tmp_path / "a.db", options=SourceOptions(energy_key="my_energy"))).energy == -2.0
    (tmp_path / "b.db").write_text("no database")
    with pytest.raises(InputError, match=r"b\.db is not a readable ASE database"):
        list(read_source(tmp_path / "b.db"))


def test_lmdb(tmp_path):
    extra = {"data": {"charge": 1, "spin": 2, "sid": "mol-9"}, "key_value_pairs": {"group": "ions"}}
    rows = {1: row(-1.0), 2: row(-2.0), 3: row(-3.0, **extra), 4: b"not compressed", 6: row() | {"energy": None}}
    write_lmdb(tmp_path / "a.aselmdb", rows, nextid=7, deleted_ids=[2], metadata={})
    one, three, four, five, six = read_source(tmp_path / "a.aselmdb", options=SourceOptions(material_key="sid"))
    assert (one.energy, one.group, one.material, one.atoms.info) == (-1.0, "", "", {})
    np.testing.assert_array_equal(one.forces, FORCES)
    np.testing.assert_allclose(one.stress, FULL_STRESS)
    assert one.atoms.pbc.all()
    np.testing.assert_allclose(one.atoms.cell.array, labelled_frame().cell.array)
    assert (three.energy, three.group, three.material) == (-3.0, "ions", "mol-9")
    assert three.atoms.info == {"charge": 1, "spin": 2}
    assert (four.where, four.reason) == ("row 4 of a.aselmdb", "unreadable")
    assert five == BadRecord("row 5 of a.aselmdb", "unreadable", "the row is missing")
    assert (six.where, six.reason) == ("row 6 of a.aselmdb", "no energy")


def test_arrays_as_ase_encodes_them_are_read_too(tmp_path):
    encoded = {"__ndarray__": [[2, 3], "float64", FORCES.ravel().tolist()]}
    write_lmdb(tmp_path / "a.aselmdb", {1: row(forces=encoded)}, nextid=2)
    (item,) = read_source(tmp_path / "a.aselmdb")
    np.testing.assert_array_equal(item.forces, FORCES)


def test_a_folder_of_files_in_the_order_of_their_names(tmp_path):
    for name, energy in (("data0001", -2.0), ("data0000", -1.0)):
        write_lmdb(tmp_path / f"{name}.aselmdb", {1: row(energy)}, nextid=2)
    (tmp_path / "metadata.npz").write_bytes(b"")
    (tmp_path / "data0000.aselmdb-lock").write_bytes(b"")
    assert [item.energy for item in read_source(tmp_path)] == [-1.0, -2.0]


def test_what_is_no_database_of_ase_is_named(tmp_path):
    write_lmdb(tmp_path / "a.lmdb", {1: row()})
    with pytest.raises(InputError, match=r"a\.lmdb is an LMDB file, but no ASE database: it has no entry 'nextid'"):
        list(read_source(tmp_path / "a.lmdb"))
    (tmp_path / "b.lmdb").write_bytes(b"no database")
    with pytest.raises(InputError, match=r"b\.lmdb is not a readable LMDB file"):
        list(read_source(tmp_path / "b.lmdb"))


def test_rows_of_any_shape_are_used_or_bad(tmp_path):
    rows = {
        1: [1, 2],
        2: "text",
        3: {},
        4: row(numbers=[[11], [17]]),
        5: row(numbers="NaCl"),
        6: row(forces={"__ndarray__": [[10**9, 3], "float64", []]}),
        7: row(data=[1]),
        8: row(cell=[1, 2]),
        9: row(pbc="all"),
        10: zlib.compress(b"[" * 100_000),
        11: zlib.compress(b" " * (1 << 20))[:-4],
        12: row() | {"energy": 10**400},
        13: row() | {"energy": [-1.0, -2.0]},
        14: row(-2.0),
    }
    write_lmdb(tmp_path / "a.aselmdb", rows, nextid=15)
    *bad, good = read_source(tmp_path / "a.aselmdb")
    assert [record.reason for record in bad] == ["unreadable"] * 2 + ["no energy"] + ["unreadable"] * 10
    assert good.energy == -2.0


def test_rows_that_grow_without_end_are_bad(tmp_path, monkeypatch):
    monkeypatch.setattr(ase_databases, "MOST_BYTES_OF_ROW", 1 << 16)
    write_lmdb(tmp_path / "a.aselmdb", {1: zlib.compress(b" " * (1 << 20)), 2: row()}, nextid=3)
    bad, good = read_source(tmp_path / "a.aselmdb")
    assert bad.found == "it becomes more than 65536 bytes when it is decompressed"
    assert good.energy == -7.25
    write_lmdb(tmp_path / "b.aselmdb", {1: row()}, nextid=10**12)
    with pytest.raises(InputError, match="says 1000000000000 rows, and has 2 entries"):
        list(read_source(tmp_path / "b.aselmdb"))
    write_lmdb(tmp_path / "c.aselmdb", {1: row()}, nextid="x")
    with pytest.raises(InputError, match="its entry 'nextid' or 'deleted_ids' is"):
        list(read_source(tmp_path / "c.aselmdb"))


@pytest.mark.parametrize("part", [0.3, 0.6, 0.95])
def test_a_file_that_was_cut_is_refused_and_not_mapped(tmp_path, part):
    write_lmdb(tmp_path / "a.aselmdb", {number: row(-number) for number in range(1, 60)}, nextid=60)
    lmdb = pytest.importorskip("lmdb")
    with lmdb.open(str(tmp_path / "a.aselmdb"), subdir=False, readonly=True, lock=False) as environment:
        used = (environment.info()["last_pgno"] + 1) * environment.stat()["psize"]
    (tmp_path / "b.aselmdb").write_bytes((tmp_path / "a.aselmdb").read_bytes()[: int(part * used)])
    with pytest.raises(InputError, match=r"b\.aselmdb (has \d+ bytes of \d+; it was cut off|is not a readable LMDB)"):
        list(read_source(tmp_path / "b.aselmdb"))


def test_the_library_that_writes_such_files_agrees(tmp_path):
    pytest.importorskip("ase_db_backends")
    with ase.db.connect(tmp_path / "a.aselmdb", type="aselmdb") as database:
        for energy in (-1.0, -2.0, -3.0):
            database.write(labelled_frame(energy), data={"charge": 1})
        database.delete([2])
    items = list(read_source(tmp_path / "a.aselmdb"))
    assert [item.energy for item in items] == [-1.0, -3.0]
    np.testing.assert_array_equal(items[1].forces, FORCES)
    np.testing.assert_allclose(items[1].stress, FULL_STRESS)
    assert items[1].atoms.info == {"charge": 1}
    np.testing.assert_allclose(items[1].atoms.positions, labelled_frame().positions)


@pytest.mark.shared
def test_oxides(shared_dir):
    items = list(read_source(shared_dir / "data" / "dft_frames" / "oxides.db"))
    assert len(items) == 295
    assert items[0].energy == -41.358821
    assert items[0].atoms.get_chemical_formula() == "O4Sn2"
    np.testing.assert_allclose(items[0].forces[2], [-0.031756, -0.031756, 0.0])
    assert all(np.isnan(item.stress).all() for item in items)
