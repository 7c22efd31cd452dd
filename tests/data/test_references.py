"""Element references, scales and other sums over a dataset."""

import numpy as np
import pytest
from ase import Atoms

from esen_flows.data.dataset import from_structures, mixture, subset
from esen_flows.data.folders import write_dataset
from esen_flows.data.labelled import LabelledStructure
from esen_flows.data.references import fit_references, fit_statistics, force_scale

SHIFTS = {1: -3.5, 6: -1025.25, 8: -2041.0}


def record(formula: str, seed: int, noise: float = 0.0) -> LabelledStructure:
    random = np.random.default_rng(seed)
    atoms = Atoms(formula, positions=random.normal(size=(len(Atoms(formula)), 3)))
    energy = sum(SHIFTS[z] for z in atoms.numbers) + noise * random.normal()
    return LabelledStructure(atoms, energy, random.normal(size=(len(atoms), 3)), np.full((3, 3), np.nan))


FORMULAS = ["H2O", "CH4", "CO2", "C2H6O", "H2", "C6H6", "O3"]


def test_references_reproduce_sums_over_elements(tmp_path):
    dataset = write_dataset(tmp_path / "d", (record(f, i) for i, f in enumerate(FORMULAS * 5)))
    assert fit_references(dataset) == pytest.approx(SHIFTS, abs=1e-9)


def test_references_are_least_squares_for_blocks_of_any_size(monkeypatch):
    records = [record(f, i, noise=0.3) for i, f in enumerate(FORMULAS * 9)]
    dataset = from_structures(records)
    counts = np.array([[np.count_nonzero(r.atoms.numbers == z) for z in SHIFTS] for r in records], dtype=float)
    expected = np.linalg.lstsq(counts, np.array([r.energy for r in records]), rcond=None)[0]
    assert list(fit_references(dataset).values()) == pytest.approx(expected, abs=1e-9)
    blocks = type(dataset).blocks
    monkeypatch.setattr(type(dataset), "blocks", lambda self: blocks(self, 4))
    assert list(fit_references(dataset).values()) == pytest.approx(expected, abs=1e-9)


def test_references_that_composition_does_not_fix_are_equal():
    dataset = from_structures([record("CO", seed) for seed in range(3)])
    both = (SHIFTS[6] + SHIFTS[8]) / 2
    assert fit_references(dataset) == pytest.approx({6: both, 8: both})


def test_a_record_counts_as_often_as_it_occurs():
    records = [record(f, i, noise=1.0) for i, f in enumerate(FORMULAS)]
    dataset = from_structures(records)
    repeated = from_structures([*records, *records[:3], *records[:3]])
    view = mixture([(dataset, 1), (subset(dataset, [0, 1, 2]), 2)])
    assert fit_references(view) == pytest.approx(fit_references(repeated), abs=1e-9)
    assert force_scale(view) == pytest.approx(force_scale(repeated))
    assert fit_statistics(view).energy_rms_ev_per_atom == pytest.approx(fit_statistics(repeated).energy_rms_ev_per_atom)
    assert force_scale(subset(dataset, [3])) == pytest.approx(np.sqrt(np.mean(records[3].forces ** 2)))


def test_statistics_by_hand():
    crystal = Atoms("H2", positions=[[0, 0, 0], [1, 0, 0]], cell=[3, 3, 3], pbc=True)
    forces = np.array([[1.0, 0, 0], [0, -2.0, 0]])
    one = LabelledStructure(crystal, -2.0, forces, np.eye(3) * 0.3)
    two = LabelledStructure(crystal, -4.0, forces * 0, np.full((3, 3), np.nan))
    found = fit_statistics(from_structures([one, two]))
    assert found.references_ev == pytest.approx({1: -1.5})
    assert found.energy_mean_ev_per_atom == pytest.approx(-1.5)
    assert found.energy_rms_ev_per_atom == pytest.approx(0.5)  # -1 and -2 about -1.5
    assert found.force_rms_ev_per_angstrom == pytest.approx(np.sqrt(5 / 12))
    assert found.force_max_ev_per_angstrom == pytest.approx(2.0)
    assert found.stress_rms_ev_per_angstrom3 == pytest.approx(0.3 / np.sqrt(3))
    assert found.stress_records == 1
    assert found.document()["references_ev"] == {"1": pytest.approx(-1.5)}


def test_forces_that_are_all_zero_have_scale_one():
    atoms = Atoms("H", positions=[[0, 0, 0]])
    item = LabelledStructure(atoms, 1.0, np.zeros((1, 3)), np.full((3, 3), np.nan))
    dataset = from_structures([item])
    assert force_scale(dataset) == 1.0
    assert fit_statistics(dataset).stress_rms_ev_per_angstrom3 is None
