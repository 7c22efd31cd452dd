"""Datasets in memory, in folders, and views of them."""

import json

import numpy as np
import pytest
from ase.build import bulk, molecule

from esen_flows.data.dataset import from_structures, mixture, subset
from esen_flows.data.extxyz import write_labelled
from esen_flows.data.folders import open_dataset, verify, write_dataset
from esen_flows.data.importing import read_dataset
from esen_flows.data.labelled import LabelledStructure
from esen_flows.data.neighbors import neighbor_pairs
from esen_flows.data.screening import BadRecord, Limits
from esen_flows.errors import InputError


def structure(number: int) -> LabelledStructure:
    """A molecule of group a without stress (even numbers), or a crystal of group b; four in a row are one material."""
    random = np.random.default_rng(number)
    crystal = number % 2 == 1
    atoms = bulk("NaCl", "rocksalt", a=5.6) if crystal else molecule("H2O")
    atoms.rattle(0.05, seed=number)
    if number == 4:
        atoms.info.update(charge=-1, spin=2)
    stress = random.normal(size=(3, 3))
    return LabelledStructure(
        atoms=atoms,
        energy=random.normal() * 1e5,
        forces=random.normal(size=(len(atoms), 3)),
        stress=stress + stress.T if crystal else np.full((3, 3), np.nan),
        group="ab"[crystal],
        material="" if number % 3 == 0 else f"m{number // 4}",
    )


STRUCTURES = [structure(number) for number in range(24)]


def materials(dataset) -> list[str]:
    names = [*dataset.material_names, ""]
    return [names[index] for index in dataset.material]


def same(one: LabelledStructure, two: LabelledStructure) -> bool:
    a, b = one.atoms, two.atoms
    return (
        (one.energy, one.group, one.material, a.info) == (two.energy, two.group, two.material, b.info)
        and np.array_equal(a.numbers, b.numbers)
        and np.array_equal(a.positions, b.positions)
        and np.array_equal(a.cell.array, b.cell.array)
        and np.array_equal(a.pbc, b.pbc)
        and np.array_equal(one.forces, two.forces)
        and np.array_equal(one.stress, two.stress, equal_nan=True)
    )


@pytest.fixture(params=["memory", "folder"])
def dataset(request, tmp_path):
    if request.param == "memory":
        return from_structures(STRUCTURES)
    return write_dataset(tmp_path / "d", iter(STRUCTURES))


def test_every_record_comes_back_to_the_last_bit(dataset):
    assert len(dataset) == 24
    assert all(same(a, b) for a, b in zip(STRUCTURES, dataset, strict=True))
    assert same(dataset[-1], STRUCTURES[-1])
    assert dataset[4].atoms.info == {"charge": -1, "spin": 2}
    with pytest.raises(IndexError, match="record 24 of a dataset of 24"):
        dataset[24]
    dataset[0].forces[:] = 0.0  # a copy, not the array of the dataset
    assert same(dataset[0], STRUCTURES[0])


def test_columns(dataset):
    assert dataset.n_atoms.tolist() == [3, 2] * 12
    assert dataset.group_names == ("a", "b")
    assert dataset.group.tolist() == [0, 1] * 12
    assert [bool(np.isfinite(item.stress).all()) for item in dataset] == [False, True] * 12
    assert dataset.elements == frozenset({1, 8, 11, 17})
    assert materials(dataset) == [item.material for item in STRUCTURES]
    assert len(set(dataset.species.tolist())) == 2
    assert dataset.species.tolist() == [dataset.species[0], dataset.species[1]] * 12


def test_edge_counts_are_those_of_the_graph_and_kept(dataset, tmp_path):
    expected = [len(neighbor_pairs(item.atoms, 4.5).source) for item in STRUCTURES]
    calls = []
    assert dataset.edge_counts(4.5, lambda *progress: calls.append(progress)).tolist() == expected
    assert calls[0] == (1, 24)
    assert calls[-1] == (24, 24)
    assert dataset.edge_counts(4.5, lambda *progress: pytest.fail("counted twice")).tolist() == expected
    folder = tmp_path / "d"
    if folder.is_dir():
        assert np.load(folder / "edges_4.5.npy").tolist() == expected
        again = open_dataset(folder).edge_counts(4.5, lambda *progress: pytest.fail("counted twice"))
        assert again.tolist() == expected
        assert subset(open_dataset(folder), [3, 0]).edge_counts(4.5).tolist() == [expected[3], expected[0]]


def test_edge_counts_are_returned_where_they_cannot_be_kept(tmp_path, monkeypatch):
    dataset = write_dataset(tmp_path / "d", STRUCTURES[:2])

    def refused(*arguments: object) -> None:
        raise OSError("read-only file system")

    monkeypatch.setattr("os.replace", refused)
    with pytest.warns(UserWarning, match=r"edge counts cannot be kept in .*d: read-only"):
        assert dataset.edge_counts(3.0).shape == (2,)
    assert not list((tmp_path / "d").glob(".*"))


def test_the_key_depends_on_the_content_alone(tmp_path):
    whole = from_structures(STRUCTURES)
    stored = write_dataset(tmp_path / "d", STRUCTURES)
    assert whole.key == stored.key == open_dataset(tmp_path / "d").key
    halves = mixture([(from_structures(STRUCTURES[:9]), 1), (subset(stored, range(9, 24)), 1)])
    assert halves.key == whole.key
    assert subset(whole, range(23, -1, -1)).key != whole.key
    changed = [*STRUCTURES[:-1], structure(25)]
    assert from_structures(changed).key != whole.key
    other_name = [LabelledStructure(**{**vars(STRUCTURES[0]), "material": "x"}), *STRUCTURES[1:]]
    assert from_structures(other_name).key != whole.key


def test_views(tmp_path):
    stored = write_dataset(tmp_path / "d", STRUCTURES)
    some = subset(stored, [5, 1, 1])
    assert [item.energy for item in some] == [STRUCTURES[i].energy for i in (5, 1, 1)]
    assert some.elements == frozenset({11, 17})
    assert some.group.tolist() == [1, 1, 1]
    assert some.provenance["records"] == 3
    other = from_structures([LabelledStructure(**{**vars(structure(30)), "group": "c", "material": "m0"})])
    mixed = mixture([(some, 2), (other, 3)])
    assert [item.energy for item in mixed] == [STRUCTURES[i].energy for i in (5, 1, 1, 5, 1, 1)] + [other[0].energy] * 3
    assert mixed.group_names == ("a", "b", "c")
    assert mixed.group.tolist() == [1] * 6 + [2] * 3
    assert materials(mixed)[1:] == ["m0", "m0", "m1", "m0", "m0", "m0", "m0", "m0"]  # the same material in both
    assert mixed.n_atoms.tolist() == [2] * 6 + [3] * 3
    assert mixed.edge_counts(4.0).shape == (9,)
    assert [part["repeats"] for part in mixed.provenance["mixture"]] == [2, 3]
    with pytest.raises(InputError, match="indices from 0 to 23, got 3 to 24"):
        subset(stored, [3, 24])
    with pytest.raises(InputError, match="got none"):
        subset(stored, [])
    with pytest.raises(InputError, match=r"each at least once; got repeats \[0\]"):
        mixture([(stored, 0)])


def test_the_index_describes_the_folder(tmp_path):
    bad = BadRecord("row 7 of x.db", "no energy", "found E")
    write_dataset(tmp_path / "d", [*STRUCTURES, bad, bad], provenance={"from": "here"})
    index = json.loads((tmp_path / "d" / "index.json").read_text())
    assert (index["format"], index["format_version"]) == ("esen_flows dataset", 1)
    assert (index["records"], index["atoms"], index["group_records"]) == (24, 60, [12, 12])
    assert index["units"]["stress"].startswith("eV/Angstrom^3, derivative of the energy by strain over volume")
    assert index["provenance"] == {"from": "here"}
    assert index["rejected"]["counts"] == {"no energy": 2}
    assert index["rejected"]["listed"][0] == {"where": "row 7 of x.db", "reason": "no energy", "found": "found E"}
    assert index["statistics"]["stress_records"] == 12
    atoms = np.load(tmp_path / "d" / "atoms.npy", mmap_mode="r")
    np.testing.assert_array_equal(atoms["position"][:3], STRUCTURES[0].atoms.positions)
    np.testing.assert_array_equal(atoms["force"][3:5], STRUCTURES[1].forces)


def test_an_interrupted_import_leaves_nothing(tmp_path):
    def interrupted():
        yield from STRUCTURES[:5]
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_dataset(tmp_path / "d", interrupted())
    assert list(tmp_path.iterdir()) == []

    def refused(dataset):
        assert len(dataset) == 24
        raise InputError("wrong sign")

    with pytest.raises(InputError, match="wrong sign"):
        write_dataset(tmp_path / "d", STRUCTURES, inspect=refused)
    assert list(tmp_path.iterdir()) == []
    write_dataset(tmp_path / "d", STRUCTURES[:1])
    with pytest.raises(InputError, match="d exists"):
        write_dataset(tmp_path / "d", STRUCTURES)


def test_bad_records_are_skipped_or_raise(tmp_path):
    nan = LabelledStructure(STRUCTURES[1].atoms, float("nan"), STRUCTURES[1].forces, STRUCTURES[1].stress)
    dataset = write_dataset(tmp_path / "d", [STRUCTURES[0], nan])
    assert len(dataset) == 1
    counts = json.loads((tmp_path / "d" / "index.json").read_text())["rejected"]["counts"]
    assert counts == {"the energy is NaN or infinite": 1}
    with pytest.raises(InputError, match=r"record 1 of .*: the energy is NaN"):
        write_dataset(tmp_path / "e", [STRUCTURES[0], nan], on_bad="fail")
    with pytest.raises(InputError, match="no good record, and 1 bad ones; the first: record 0"):
        write_dataset(tmp_path / "e", [nan])
    with pytest.raises(InputError, match="structure 1: ClNa: the energy is NaN"):
        from_structures([STRUCTURES[0], nan])
    with pytest.raises(InputError, match="no structures"):
        from_structures([])


def test_a_broken_folder_is_named(tmp_path):
    with pytest.raises(InputError, match="no dataset at"):
        open_dataset(tmp_path / "absent")
    folder = tmp_path / "d"
    key = write_dataset(folder, STRUCTURES).key
    verify(open_dataset(folder), key)
    with pytest.raises(InputError, match="the index says 0000"):
        verify(open_dataset(folder), "0" * 64)
    data = bytearray((folder / "atoms.npy").read_bytes())
    data[-5] ^= 1
    (folder / "atoms.npy").write_bytes(data)
    with pytest.raises(InputError, match="record 23 is not what was written"):
        verify(open_dataset(folder), key)
    opened = open_dataset(folder)
    (folder / "atoms.npy").write_bytes(data[:-8])
    with pytest.raises(InputError, match=r"atoms\.npy has become shorter"):
        opened[23]
    with pytest.raises(InputError, match=r"atoms\.npy holds \(60,\) of .* bytes; expected"):
        open_dataset(folder)
    (folder / "numbers.npy").unlink()
    with pytest.raises(InputError, match=r"numbers\.npy is not a readable \.npy file"):
        open_dataset(folder)
    index = json.loads((folder / "index.json").read_text())
    (folder / "index.json").write_text(json.dumps(index | {"format_version": 2}))
    with pytest.raises(InputError, match="format version 2, known here is 1; update"):
        open_dataset(folder)
    (folder / "index.json").write_text("{}")
    with pytest.raises(InputError, match="is not the index of a dataset"):
        open_dataset(folder)


def test_read_dataset_takes_folders_and_files(tmp_path):
    crystals = [item for item in STRUCTURES if item.group == "b"]
    stored = write_dataset(tmp_path / "d", crystals)
    assert read_dataset(tmp_path / "d").key == stored.key
    path = write_labelled(tmp_path / "f.xyz", crystals, {"labeller": "random numbers"})
    read = read_dataset(path)
    assert materials(read) == materials(stored)
    assert read.group_names == ("b",)
    np.testing.assert_allclose([item.energy for item in read], [item.energy for item in stored], atol=1e-6)
    assert read.provenance["format"] == "extxyz"
    assert read.provenance["labelled"]["labeller"] == "random numbers"
    assert len(read.provenance["files"][0]["sha256"]) == 64
    with pytest.raises(InputError, match=r"record \d+ .*of .*f\.xyz: huge force .*repair the record, or skip"):
        read_dataset(path, limits=Limits(max_force_ev_per_angstrom=0.5))
    with pytest.raises(InputError, match="nothing at"):
        read_dataset(tmp_path / "absent.xyz")
