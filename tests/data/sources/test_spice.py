"""SPICE's HDF5 files, as their description has them."""

import re

import h5py
import numpy as np
import pytest

from esen_flows.data.sources.options import SourceOptions
from esen_flows.data.sources.read import read_source
from esen_flows.data.sources.spice import formal_charge
from esen_flows.errors import InputError

HARTREE_EV, BOHR_ANGSTROM = 27.211386, 0.52917721  # CODATA, to eight digits
POSITIONS = np.array([[[0.0, 0.0, 0.0], [0.0, 0.0, 1.8]], [[0.0, 0.0, 0.0], [0.0, 0.0, 2.0]]], dtype=np.float32)
ENERGIES = np.array([-76.0, -75.5])
GRADIENTS = np.array([[[0.0, 0.0, 0.1], [0.0, 0.0, -0.1]], [[0.0, 0.0, -0.2], [0.0, 0.0, 0.2]]])


def write(path, units: bool = True, **changes) -> None:
    with h5py.File(path, "w") as file:
        for name, subset, smiles in (
            ("hydroxide", "SPICE Ion Pairs", "[O-:1][H:2]"),
            ("oh", "SPICE Water", "[O:1][H:2]"),
        ):
            group = file.create_group(name)
            datasets = {
                "atomic_numbers": np.array([8, 1], dtype=np.int16),
                "conformations": POSITIONS,
                "dft_total_energy": ENERGIES,
                "dft_total_gradient": GRADIENTS,
                "subset": [subset],
                "smiles": [smiles],
            } | changes
            for key, values in datasets.items():
                if values is not None:
                    group[key] = values
            if units:
                group["conformations"].attrs["units"] = "bohr"
                group["dft_total_energy"].attrs["units"] = "hartree"
                group["dft_total_gradient"].attrs["units"] = "hartree/bohr"


@pytest.mark.parametrize("units", [True, False])
def test_conformations_with_units_and_sign(tmp_path, units):
    write(tmp_path / "s.hdf5", units)
    items = list(read_source(tmp_path / "s.hdf5"))
    assert [(item.material, item.group) for item in items] == [
        ("hydroxide", "SPICE Ion Pairs"), ("hydroxide", "SPICE Ion Pairs"), ("oh", "SPICE Water"), ("oh", "SPICE Water")
    ]  # fmt: skip
    first = items[0]
    assert first.energy == pytest.approx(-76.0 * HARTREE_EV, rel=1e-7)
    np.testing.assert_allclose(first.atoms.positions[1], [0, 0, 1.8 * BOHR_ANGSTROM], rtol=1e-7)
    # The energy rises with the first atom's z, so the force on it points down.
    np.testing.assert_allclose(first.forces[0], [0, 0, -0.1 * HARTREE_EV / BOHR_ANGSTROM], rtol=1e-7)
    assert first.atoms.info == {"charge": -1}
    assert items[2].atoms.info == {}
    assert not first.atoms.pbc.any()
    assert np.isnan(first.stress).all()
    assert items[1].energy == pytest.approx(-75.5 * HARTREE_EV, rel=1e-7)


def test_missing_labels_and_other_units_are_named(tmp_path):
    write(tmp_path / "s.hdf5", units=False, dft_total_gradient=None)
    records = list(read_source(tmp_path / "s.hdf5"))
    assert [str(record).split(" (")[0] for record in records] == [
        "hydroxide of s.hdf5: no dft_total_gradient", "oh of s.hdf5: no dft_total_gradient"
    ]  # fmt: skip
    write(tmp_path / "t.hdf5")
    with h5py.File(tmp_path / "t.hdf5", "a") as file:
        file["oh/dft_total_energy"].attrs["units"] = "kcal/mol"
    with pytest.raises(InputError, match=r"oh of t\.hdf5: dft_total_energy is in kcal/mol, expected hartree"):
        list(read_source(tmp_path / "t.hdf5"))
    write(tmp_path / "u.hdf5", units=False, other_energy=ENERGIES / 2)
    halved = next(read_source(tmp_path / "u.hdf5", options=SourceOptions(energy_key="other_energy")))
    assert halved.energy == pytest.approx(-38.0 * HARTREE_EV, rel=1e-7)
    (tmp_path / "v.h5").write_bytes(b"no HDF5")
    with pytest.raises(InputError, match=r"v\.h5 is not a readable HDF5 file"):
        list(read_source(tmp_path / "v.h5"))


@pytest.mark.parametrize(
    ("changes", "found"),
    [
        ({"conformations": POSITIONS[:1]}, r"its arrays have \[1, 2\] conformations"),
        ({"dft_total_energy": ["a", "b"]}, "dft_total_energy is not an array of numbers"),
        ({"atomic_numbers": 8}, "atomic_numbers is not an array of numbers"),
        ({"smiles": ["[" + "+" * 50_000]}, "its SMILES string has 50001 characters"),
        ({"smiles": np.zeros((0,))}, "IndexError|ValueError|TypeError"),
        ({"conformations": POSITIONS[:, :1]}, "."),
    ],
)
def test_molecules_of_another_shape_are_bad(tmp_path, changes, found):
    write(tmp_path / "s.h5", **{"units": False, **changes})
    for record in read_source(tmp_path / "s.h5"):
        assert record.reason == "unreadable"
        assert re.search(found, record.found)


def test_arrays_that_are_large_without_any_bytes_are_not_read(tmp_path):
    write(tmp_path / "s.h5", conformations=None, units=False)
    with h5py.File(tmp_path / "s.h5", "a") as file:
        for name in ("oh", "hydroxide"):
            file[name].create_dataset("conformations", shape=(2, 10**12, 3), dtype="f4", chunks=(1, 1000, 3))
    (record, _) = read_source(tmp_path / "s.h5")
    assert record.found == "conformations has shape (2, 1000000000000, 3), more than 300000000 numbers"


def test_links_to_other_files_are_not_followed(tmp_path):
    write(tmp_path / "secret.h5")
    with h5py.File(tmp_path / "s.h5", "w") as file:
        file["oh"] = h5py.ExternalLink("secret.h5", "/oh")
    with pytest.raises(InputError, match="oh is not a group"):
        list(read_source(tmp_path / "s.h5"))


@pytest.mark.parametrize(
    ("smiles", "charge"),
    [
        ("[H:1][O:2][H:3]", 0),
        ("[Na+].[Cl-]", 0),
        ("[Ca+2:1].[O-:2][H:3]", 1),
        ("[Mg++]", 2),
        ("[H:4][N+:1]([H:5])([H:6])[C@@H:2]([C:3](=[O:7])[O-:8])", 0),
        ("[O-2:1]", -2),
        ("[NH4+:12]", 1),
        ("C-C-O", 0),
    ],
)
def test_formal_charges(smiles, charge):
    assert formal_charge(smiles) == charge
