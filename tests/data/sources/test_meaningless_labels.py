"""Stresses of structures that cannot have one, and stresses under other names."""

import ase.io
import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk, fcc111
from ase.calculators.singlepoint import SinglePointCalculator
from labelled_frames import FORCES, STRESS, labelled_frame

from esen_flows.data.folders import read_index
from esen_flows.data.importing import import_sources, read_dataset
from esen_flows.data.labelled import STRESS_LEFT_OUT, LabelledStructure
from esen_flows.data.sources.options import SourceOptions
from esen_flows.data.sources.read import read_source


def frame(atoms: Atoms, stress=STRESS) -> Atoms:
    atoms.calc = SinglePointCalculator(atoms, energy=-1.0, forces=np.zeros((len(atoms), 3)), stress=stress)
    return atoms


MEANINGLESS = {
    "slab without a third vector": fcc111("Pt", (1, 1, 3)),
    "slab in a box": fcc111("Al", (1, 1, 2), vacuum=6.0),
    "molecule in a box": Atoms("N2", [[0, 0, 0], [0, 0, 1.1]], cell=[8, 9, 10]),
    "wire": Atoms("Au", cell=[9, 9, 2.7], pbc=[False, False, True]),
}


@pytest.mark.parametrize("stress_unit", ["eV/Angstrom^3", "virial"])
@pytest.mark.parametrize("name", MEANINGLESS)
def test_a_stress_without_a_volume_is_left_out_and_counted(tmp_path, name, stress_unit):
    frames = [labelled_frame(), frame(MEANINGLESS[name].copy()), labelled_frame(-7.0)]
    ase.io.write(tmp_path / "a.xyz", frames, format="extxyz")
    options = SourceOptions(stress_unit=stress_unit)
    dataset = import_sources([tmp_path / "a.xyz"], tmp_path / "d", options=options, check_strain=False)
    assert [bool(np.isfinite(item.stress).all()) for item in dataset] == [True, False, True]
    index = read_index(tmp_path / "d")
    assert (index["remarks"], index["rejected"]["records"]) == ({STRESS_LEFT_OUT: 1}, 0)
    assert index["statistics"]["stress_records"] == 2
    in_memory = read_dataset(tmp_path / "a.xyz")
    assert in_memory.provenance["remarks"] == {STRESS_LEFT_OUT: 1}
    assert np.isnan(in_memory[1].stress).all()


def test_records_made_in_python_too(tmp_path):
    from esen_flows.data.dataset import from_structures

    atoms = Atoms("N2", [[0, 0, 0], [0, 0, 1.1]], cell=[8, 9, 10])
    item = LabelledStructure(atoms, -1.0, np.zeros((2, 3)), np.zeros((3, 3)))
    assert np.isnan(from_structures([item])[0].stress).all()


@pytest.mark.parametrize(
    ("name", "unit"), [("my_virial", " (--stress-unit virial)"), ("Stress_GPa", ""), ("dft_stress", "")]
)
@pytest.mark.parametrize("value", [STRESS, np.diag([0.01, 0.02, 0.03])])
def test_a_stress_under_another_name_is_pointed_at(tmp_path, name, unit, value):
    atoms = labelled_frame(stress=None)
    atoms.info[name] = value
    ase.io.write(tmp_path / "a.xyz", atoms, format="extxyz")
    (bad,) = read_source(tmp_path / "a.xyz")
    assert bad.reason == "a stress under another name"
    advice = f"found {name}: name it with --stress-key{unit}, or leave it out with --stress-key none"
    assert bad.found == advice
    (typo,) = read_source(tmp_path / "a.xyz", options=SourceOptions(stress_key="stres"))
    assert typo.found == advice
    (named,) = read_source(tmp_path / "a.xyz", options=SourceOptions(stress_key=name))
    assert np.isfinite(named.stress).all()
    (without,) = read_source(tmp_path / "a.xyz", options=SourceOptions(stress_key="none"))
    assert np.isnan(without.stress).all()
    assert without.remarks == ()


@pytest.mark.parametrize("more", [{"stress_kind": "none"}, {"stress_weight": 1.0}, {"virial_of": [1.0, 2.0]}, {}])
def test_other_entries_are_no_stress(tmp_path, more):
    atoms = labelled_frame(stress=None)
    atoms.info.update(more)
    atoms.new_array("atomic_virials", np.zeros((2, 9)))
    molecule = frame(Atoms("N2", [[0, 0, 0], [0, 0, 1.1]]), stress=None)
    molecule.info["dft_stress"] = STRESS
    ase.io.write(tmp_path / "a.xyz", [atoms, molecule], format="extxyz")
    assert [item.energy for item in read_source(tmp_path / "a.xyz")] == [-7.25, -1.0]
    (item, _) = read_source(tmp_path / "a.xyz", options=SourceOptions(stress_key="S"))
    assert item.remarks == ("no stress named S",)


@pytest.mark.parametrize("order", ["voigt", "vasp"])
def test_the_order_of_six_numbers(tmp_path, order):
    atoms = bulk("NaCl", "rocksalt", a=5.6)
    atoms.info.update(E=-3.0, S=np.array([1.0, 2.0, 3.0, 4.0, 5.0, 6.0]))
    atoms.new_array("F", FORCES)
    ase.io.write(tmp_path / "a.xyz", atoms, format="extxyz")
    (item,) = read_source(tmp_path / "a.xyz", options=SourceOptions("E", "F", "S", stress_order=order))
    yz, xz, xy = {"voigt": (4, 5, 6), "vasp": (5, 6, 4)}[order]
    np.testing.assert_array_equal(item.stress, [[1, xy, xz], [xy, 2, yz], [xz, yz, 3]])
