"""Formation energies: corrections that are known, and the published chain on a random thousand of WBM's crystals."""

import csv
import gzip
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pymatgen.core import Composition, Lattice, Structure
from pymatgen.entries.computed_entries import ComputedStructureEntry

from esen_flows.errors import InputError
from esen_flows.metrics.formation_energy import (
    formation_energy,
    mp2020_correction,
    read_elemental_references,
    read_entry_parameters,
    relax_set_parameters,
)


def rocksalt(cation: str, anion: str, a: float) -> Structure:
    return Structure.from_spacegroup("Fm-3m", Lattice.cubic(a), [cation, anion], [[0, 0, 0], [0.5, 0.5, 0.5]])


def test_u_is_applied_to_oxides_and_fluorides_alone() -> None:
    assert relax_set_parameters(Composition("NiO"))["hubbards"] == {"Ni": 6.2}
    assert relax_set_parameters(Composition("NiS")) == {"run_type": "GGA", "is_hubbard": False, "hubbards": {}}
    assert relax_set_parameters(Composition("MgF2"))["run_type"] == "GGA"


def test_corrections_of_an_oxide() -> None:
    """MP2020: -0.687 eV per oxide ion, -2.541 eV per nickel with U; a metal has none."""
    assert mp2020_correction(rocksalt("Mg", "O", 4.21), -47.0) == pytest.approx(4 * -0.687, abs=1e-3)
    assert mp2020_correction(rocksalt("Ni", "O", 4.17), -47.0) == pytest.approx(4 * (-0.687 - 2.541), abs=1e-3)
    copper = Structure.from_spacegroup("Fm-3m", Lattice.cubic(3.6), ["Cu"], [[0, 0, 0]])
    assert mp2020_correction(copper, -14.0) == 0.0


def test_formation_energy_of_a_composition() -> None:
    assert formation_energy(-12.0, Composition("Mg2O2"), {"Mg": -1.5, "O": -4.0}) == pytest.approx(-0.25)
    with pytest.raises(InputError, match="MgO: no reference energy for O"):
        formation_energy(-12.0, Composition("MgO"), {"Mg": -1.5})


def test_a_file_that_is_no_table_of_references(tmp_path: Path) -> None:
    (tmp_path / "references.json.gz").write_bytes(gzip.compress(b"[1]"))
    with pytest.raises(InputError, match=r"references\.json\.gz: no elemental references"):
        read_elemental_references(tmp_path / "references.json.gz")


def test_parameters_of_computed_entries(tmp_path: Path) -> None:
    """The scheme rejects NiO that was computed without U, as WBM's own entry of it would say."""
    nickel_oxide = rocksalt("Ni", "O", 4.17)
    plain = {"run_type": "GGA", "is_hubbard": False, "hubbards": {}}
    entry = ComputedStructureEntry(nickel_oxide, -47.0, parameters=plain | {"potcar_symbols": ["PBE Ni", "PBE O"]})
    lines = [
        json.dumps({"material_id": name, "computed_structure_entry": entry.as_dict()})
        for name in ("wbm-1-1", "wbm-1-2")
    ]
    path = tmp_path / "2022-10-19-wbm-computed-structure-entries.jsonl.gz"
    path.write_bytes(gzip.compress("\n".join(lines).encode()))
    parameters = read_entry_parameters(path)
    assert parameters == {"wbm-1-1": plain, "wbm-1-2": plain}
    assert parameters["wbm-1-1"] is parameters["wbm-1-2"]  # 257,487 rows have few different ones
    assert mp2020_correction(nickel_oxide, -47.0, parameters["wbm-1-1"]) is None
    path.write_bytes(path.read_bytes()[:60])
    with pytest.raises(InputError, match=r"entries\.jsonl\.gz: no computed entries can be read"):
        read_entry_parameters(path)


@pytest.fixture(scope="module")
def wbm(shared_dir: Path) -> dict[str, Any]:
    """972 random crystals of WBM with DFT energies, and the correction that this package gives each."""
    file = shared_dir / "data/matcalc/wbm-random-pbe52-equilibrium-2025.1.json.gz"
    rows = {}
    for row in json.loads(gzip.decompress(file.read_bytes())):
        structure = Structure.from_dict(row["structure"])
        rows[row["material_id"]] = (structure, row, mp2020_correction(structure, row["energy"]))
    return rows


def predictions(shared_dir: Path, name: str) -> dict[str, tuple[float, float]]:
    """Energy in eV and published formation energy in eV/atom by material."""
    with gzip.open(shared_dir / f"data/matbench_discovery/predictions/{name}.csv.gz", "rt") as file:
        rows = list(csv.reader(file))[1:]
    return {material: (float(energy or "nan"), float(e_form or "nan")) for material, energy, e_form in rows}


@pytest.mark.shared
def test_corrections_of_random_crystals(wbm: dict[str, Any]) -> None:
    """970 of 972 agree with the published corrections; pymatgen of 2023 gave two silicides of copper an anion's."""
    deviating = [
        row["formula"]
        for structure, row, correction in wbm.values()
        if abs(correction - (row["corrected_energy"] - row["energy"])) > 1e-3 * len(structure)
    ]
    assert sorted(deviating) == ["ErCuSi2", "Eu3(Cu2Si)2"]


@pytest.mark.shared
@pytest.mark.parametrize(
    ("name", "corrected", "allowed", "published_mae"),
    [
        # CHGNet's energies are those of corrected entries.
        ("chgnet-0.3.0--2023-12-21", False, 0, 0.061),
        # Two peroxides by their bond lengths, which relax into oxides, and the two silicides.
        ("eqV2-s-dens-mp", True, 4, 0.033),
        # Corrected by pymatgen of 2023, which takes the anions of further intermetallics for charged.
        ("mace-mp-0--2023-12-11", True, 13, 0.055),
        ("sevennet-0--2024-07-11", True, 12, 0.046),
    ],
)
def test_published_formation_energies(
    shared_dir: Path, wbm: dict[str, Any], name: str, corrected: bool, allowed: int, published_mae: float
) -> None:
    """Formation energies to 1 meV/atom from the published energies, and the error against DFT as published."""
    folder = shared_dir / "data/matbench_discovery"
    references = read_elemental_references(folder / "2023-02-07-mp-elemental-reference-entries.json.gz")
    found = predictions(shared_dir, name)
    deviations, errors = [], []
    for material, (structure, row, correction) in wbm.items():
        if material not in found:
            continue
        energy, e_form = found[material]
        ours = formation_energy(energy + (correction if corrected else 0.0), structure.composition, references)
        deviations.append(abs(ours - e_form))
        errors.append(abs(e_form - formation_energy(row["corrected_energy"], structure.composition, references)))
    assert len(deviations) >= 969
    assert sum(deviation > 1e-3 for deviation in deviations) == allowed
    standard_error = np.std(errors) / np.sqrt(len(errors))
    assert np.mean(errors) == pytest.approx(published_mae, abs=2 * standard_error)
