"""Extended XYZ and anything else that ASE reads, frame by frame."""

import gzip
import lzma
import tarfile
from pathlib import Path

import ase.io
import numpy as np
import pytest
from ase import units
from ase.build import bulk
from labelled_frames import FORCES, FULL_STRESS, STRESS, labelled_frame

from esen_flows.data.dataset import from_structures
from esen_flows.data.screening import BadRecord
from esen_flows.data.sources.options import SourceOptions
from esen_flows.data.sources.read import read_source
from esen_flows.data.stress_check import check_labels_by_strain
from esen_flows.errors import InputError


def test_labels_under_the_names_of_ase(tmp_path):
    first = labelled_frame()
    first.info.update(group="bulk", material="mp-22862", charge=1, spin=3, other=5)
    ase.io.write(tmp_path / "a.xyz", [first, labelled_frame(-1.0, stress=None)], format="extxyz")
    one, two = read_source(tmp_path / "a.xyz")
    assert (one.energy, one.group, one.material) == (-7.25, "bulk", "mp-22862")
    np.testing.assert_allclose(one.forces, FORCES)
    np.testing.assert_allclose(one.stress, FULL_STRESS)
    assert one.atoms.info == {"charge": 1, "spin": 3}
    assert one.atoms.pbc.all()
    np.testing.assert_allclose(one.atoms.cell.array, first.cell.array)
    assert np.isnan(two.stress).all()
    assert (two.group, two.material) == ("", "")


def test_labels_under_other_names_are_read_when_named(tmp_path):
    atoms = bulk("NaCl", "rocksalt", a=5.6)
    atoms.info.update(REF_energy=-3.0, REF_stress=STRESS, set="x", id="m7")
    atoms.new_array("REF_forces", FORCES)
    ase.io.write(tmp_path / "a.extxyz", atoms, format="extxyz")
    assert list(read_source(tmp_path / "a.extxyz")) == [
        BadRecord("structure 0 of a.extxyz", "no energy", "found REF_energy: name it with --energy-key")
    ]
    partly = SourceOptions(energy_key="REF_energy")
    assert next(read_source(tmp_path / "a.extxyz", options=partly)).found.startswith("found REF_forces: name it with")
    options = SourceOptions("REF_energy", "REF_forces", "REF_stress", group_key="set", material_key="id")
    (item,) = read_source(tmp_path / "a.extxyz", options=options)
    assert (item.energy, item.group, item.material) == (-3.0, "x", "m7")
    np.testing.assert_allclose(item.forces, FORCES)
    np.testing.assert_allclose(item.stress, FULL_STRESS)


def test_units_of_the_options(tmp_path):
    ase.io.write(tmp_path / "a.xyz", labelled_frame(), format="extxyz")
    options = SourceOptions(energy_unit="kcal/mol", stress_unit="-kBar", group="md")
    (item,) = read_source(tmp_path / "a.xyz", options=options)
    kcal = units.kcal / units.mol  # 0.0433641 eV
    assert kcal == pytest.approx(0.0433641, rel=1e-5)
    assert item.energy == pytest.approx(-7.25 * kcal)
    np.testing.assert_allclose(item.forces, FORCES * kcal)
    np.testing.assert_allclose(item.stress, -0.1 * FULL_STRESS / 160.21766, rtol=1e-7)
    assert item.group == "md"
    (item,) = read_source(tmp_path / "a.xyz", options=SourceOptions(stress_unit="virial"))
    np.testing.assert_allclose(item.stress, -FULL_STRESS / (5.6**3 / 4))
    with pytest.raises(InputError, match="unknown stress unit 'bar'; known: None, eV/Angstrom"):
        list(read_source(tmp_path / "a.xyz", options=SourceOptions(stress_unit="bar")))


def test_the_free_energy_can_be_chosen(tmp_path):
    ase.io.write(tmp_path / "a.traj", [labelled_frame()])
    assert [item.energy for item in read_source(tmp_path / "a.traj")] == [-7.25]
    assert [i.energy for i in read_source(tmp_path / "a.traj", options=SourceOptions("free_energy"))] == [-7.5]


def test_one_broken_frame_does_not_end_the_file(tmp_path):
    path = tmp_path / "a.xyz"
    ase.io.write(path, [labelled_frame()] * 3, format="extxyz")
    lines = path.read_text().splitlines(keepends=True)
    lines[6] = lines[6].replace("Na", "Xx")  # the first atom of the second frame
    path.write_text("".join(lines[:-1]))  # and the last atom is missing
    one, two, three = read_source(path)
    assert one.energy == -7.25
    assert (two.where, two.reason) == ("structure 1 of a.xyz", "unreadable")
    assert (three.where, three.reason) == (str(path), "the file ends in the middle or is damaged")
    assert three.found.startswith("the frame at line 9 says 2 atoms and has 1 lines of them")
    path.write_text("".join(lines[1:]))
    with pytest.raises(InputError, match=r"a\.xyz, line 1: expected a number of atoms, got 'Lattice.*extended XYZ"):
        list(read_source(path))


def test_compressed_files(tmp_path):
    ase.io.write(tmp_path / "a.xyz", [labelled_frame()] * 2, format="extxyz")
    with gzip.open(tmp_path / "b.xyz.gz", "wb") as stream:
        stream.write((tmp_path / "a.xyz").read_bytes())
    assert [item.energy for item in read_source(tmp_path / "b.xyz.gz")] == [-7.25, -7.25]


def test_unreadable_files_are_named(tmp_path):
    (tmp_path / "a.traj").write_text("nothing")
    (bad,) = read_source(tmp_path / "a.traj")
    assert (bad.where, bad.reason) == (str(tmp_path / "a.traj"), "ASE cannot read it")
    assert bad.found.endswith("name its format: --format")


@pytest.mark.shared
def test_uio66_frames(shared_dir):
    path = shared_dir / "data" / "dft_frames" / "mlip_valid.xyz"
    options = SourceOptions("dft_energy", "dft_forces", "dft_stress")
    (item,) = read_source(path, options=options)
    assert item.energy == -842.02405762
    np.testing.assert_allclose(item.forces[0], [0.72691533, 1.00174361, 0.94841738])
    assert item.stress[1, 2] == item.stress[2, 1] == -0.001150207764909111
    assert item.stress[2, 2] == 0.004142586144270369


@pytest.mark.shared
def test_vasprun_of_silicon(shared_dir, tmp_path):
    archive = shared_dir / "data" / "phono3py" / "Si-PBE" / "vasprun_xmls.tar.lzma"
    with lzma.open(archive) as stream, tarfile.open(fileobj=stream, mode="r|") as files:
        for member in files:
            if member.name.endswith("vasprun.xml"):
                name = f"vasprun.xml-{Path(member.name).parent.name}"
                (tmp_path / name).write_bytes(files.extractfile(member).read())
            if len(list(tmp_path.iterdir())) == 8:
                break
    items = list(read_source(tmp_path))
    assert [len(item.atoms) for item in items] == [64] * 8
    # VASP prints kB, positive under compression; a supercell at about the relaxed lattice constant.
    assert all(np.abs(item.stress).max() < 0.01 for item in items)
    assert all(np.abs(item.forces.sum(axis=0)).max() < 1e-4 for item in items)
    forces, *_ = check_labels_by_strain(from_structures(items))
    assert forces.slope == pytest.approx(1.0, abs=0.1)
