"""Labelled datasets as extended XYZ."""

import hashlib
from dataclasses import replace

import ase.io
import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk, molecule
from ase.calculators.emt import EMT

from esen_flows.data.extxyz import read_provenance, sidecar_path, write_labelled
from esen_flows.data.importing import read_dataset
from esen_flows.data.labelled import LabelledStructure
from esen_flows.data.screening import Limits
from esen_flows.errors import InputError


def _labelled(seed: int = 0, group: str = "g") -> LabelledStructure:
    atoms = bulk("Cu", cubic=True)
    atoms.rattle(0.1, seed=seed)
    atoms.calc = EMT()
    energy, forces, stress = atoms.get_potential_energy(), atoms.get_forces(), atoms.get_stress(voigt=False)
    atoms.calc = None
    return LabelledStructure(atoms, energy, forces, stress, group)


def test_round_trip_keeps_labels_structure_and_group(tmp_path):
    items = [_labelled(seed, group) for seed, group in enumerate(["a", "b c", ""])]
    items[1] = replace(items[1], material="mp-1")
    read = read_dataset(write_labelled(tmp_path / "d.xyz", items))
    assert [item.group for item in read] == ["a", "b c", ""]
    assert [item.material for item in read] == ["", "mp-1", ""]
    for before, after in zip(items, read, strict=True):
        assert after.energy == pytest.approx(before.energy, abs=1e-8)
        np.testing.assert_allclose(after.forces, before.forces, atol=1e-8)
        np.testing.assert_allclose(after.stress, before.stress, atol=1e-10)
        np.testing.assert_allclose(after.atoms.positions, before.atoms.positions, atol=1e-8)
        np.testing.assert_allclose(after.atoms.cell.array, before.atoms.cell.array, atol=1e-8)
        assert after.atoms.pbc.all()
        assert after.atoms.calc is None


def test_ase_reads_the_file_with_its_own_sign_and_order(tmp_path):
    item = _labelled()
    frame = ase.io.read(write_labelled(tmp_path / "d.xyz", [item]))
    np.testing.assert_allclose(frame.get_stress(voigt=False), item.stress, atol=1e-10)
    np.testing.assert_allclose(frame.get_forces(), item.forces, atol=1e-8)


def test_a_molecule_has_no_stress(tmp_path):
    water = molecule("H2O")
    item = LabelledStructure(water, -14.0, np.zeros((3, 3)), np.full((3, 3), np.nan))
    read = read_dataset(write_labelled(tmp_path / "d.xyz", [item]))[0]
    assert np.isnan(read.stress).all()
    assert not read.atoms.pbc.any()


def test_bad_labels_are_refused_and_leave_no_file(tmp_path):
    good = _labelled()
    bad_forces = good.forces.copy()
    bad_forces[0, 0] = np.nan
    cases = [
        (LabelledStructure(good.atoms, float("nan"), good.forces, good.stress), "energy label is NaN"),
        (LabelledStructure(good.atoms, 1.0, bad_forces, good.stress), "forces label is NaN"),
        (LabelledStructure(good.atoms, 1.0, good.forces[:2], good.stress), r"shape \(2, 3\), expected \(4, 3\)"),
        (LabelledStructure(good.atoms, 1.0, good.forces, np.full((3, 3), np.nan)), "stress label is NaN"),
        (LabelledStructure(good.atoms, 1.0, good.forces, np.zeros(6)), r"shape \(6,\), expected \(3, 3\)"),
    ]
    for item, message in cases:
        with pytest.raises(InputError, match=message):
            write_labelled(tmp_path / "d.xyz", [good, item])
    with pytest.raises(InputError, match="no structures"):
        write_labelled(tmp_path / "d.xyz", [])
    assert list(tmp_path.iterdir()) == []


def test_unreadable_files_are_named(tmp_path):
    (tmp_path / "empty.xyz").write_text("")
    with pytest.raises(InputError, match="no good record"):
        read_dataset(tmp_path / "empty.xyz")
    ase.io.write(tmp_path / "bare.xyz", bulk("Cu"), format="extxyz")
    with pytest.raises(InputError, match=r"structure 0 of .*bare\.xyz: no energy"):
        read_dataset(tmp_path / "bare.xyz")


def test_nan_and_missing_stress_in_a_file(tmp_path):
    path = write_labelled(tmp_path / "d.xyz", [_labelled()])
    text = path.read_text()
    (tmp_path / "nan.xyz").write_text(text.replace(text.split("energy=")[1].split()[0], "nan", 1))
    with pytest.raises(InputError, match="the energy is NaN"):
        read_dataset(tmp_path / "nan.xyz")
    before, rest = text.split('stress="', 1)
    (tmp_path / "without.xyz").write_text(before + rest.split('"', 1)[1].lstrip())
    with pytest.raises(InputError, match="no stress"):
        read_dataset(tmp_path / "without.xyz", limits=Limits(require_stress=True))
    assert np.isnan(read_dataset(tmp_path / "without.xyz")[0].stress).all()


def test_provenance_carries_the_hash_of_the_file(tmp_path):
    path = write_labelled(tmp_path / "d.xyz", [_labelled()], {"labeller": "EMT"})
    provenance = read_provenance(path)
    assert provenance["labeller"] == "EMT"
    assert provenance["sha256"] == hashlib.sha256(path.read_bytes()).hexdigest()
    assert sorted(p.name for p in tmp_path.iterdir()) == ["d.xyz", "d.xyz.json"]
    sidecar_path(path).write_text("{")
    with pytest.raises(InputError, match="is not JSON"):
        read_provenance(path)
    with pytest.raises(InputError, match="no provenance at"):
        read_provenance(tmp_path / "other.xyz")


def test_a_write_that_fails_keeps_the_old_file(tmp_path, monkeypatch):
    path = write_labelled(tmp_path / "d.xyz", [_labelled()])
    before = path.read_bytes()

    def interrupted(*args: object, **kwargs: object) -> None:
        raise OSError("disk full")

    monkeypatch.setattr("os.replace", interrupted)
    with pytest.raises(OSError, match="disk full"):
        write_labelled(path, [_labelled(1)])
    assert path.read_bytes() == before
    assert [p.name for p in tmp_path.iterdir()] == ["d.xyz"]


def test_pbc_survives(tmp_path):
    slab = Atoms("Cu2", positions=[[0, 0, 0], [1.8, 1.8, 5]], cell=[3.6, 3.6, 20], pbc=[True, True, False])
    item = LabelledStructure(slab, -1.0, np.zeros((2, 3)), np.zeros((3, 3)))
    assert read_dataset(write_labelled(tmp_path / "s.xyz", [item]))[0].atoms.pbc.tolist() == [True, True, False]
