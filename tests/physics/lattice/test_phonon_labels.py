"""A phonon calculation as training data: labels, frequencies, and a fine-tuning that takes them."""

import json
import shutil
from pathlib import Path

import numpy as np
import phonopy
import pytest
import torch
from ase import Atoms
from ase.build import bulk
from ase.calculators.emt import EMT
from phonopy import Phonopy
from phonopy.structure.atoms import PhonopyAtoms

from esen_flows.cli.training_phonons import read_phonons
from esen_flows.errors import InputError
from esen_flows.forcefield.checkpoint import Checkpoint, load
from esen_flows.forcefield.families import make_network
from esen_flows.physics.lattice.phonon_labels import read_force_constants, read_phonon_labels
from esen_flows.training.config import config_from_dict
from esen_flows.training.finetune import finetune, finetune_config

STAGE = {
    "num_layers": 1, "lmax": 1, "mmax": 1, "sphere_channels": 8, "hidden_channels": 8, "edge_channels": 8,
    "num_distance_basis": 8, "cutoff_angstrom": 3.5, "epochs": 1, "edges_per_batch": 400, "learning_rate": 0.01,
    "weight_decay": 0.001, "warmup_steps": 5, "clip_norm": 20.0, "ema_decay": 0.9, "loss": "relative",
    "energy_weight": 5.0, "force_weight": 1.0, "stress_weight": 0.5, "seed": 0,
}  # fmt: skip


@pytest.fixture(name="folder", scope="module")
def _folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """phonopy_params.yaml of copper by effective-medium theory, in a supercell of 8 atoms."""
    primitive = bulk("Cu", a=3.61)
    cell = PhonopyAtoms(primitive.get_chemical_symbols(), cell=primitive.cell.array, positions=primitive.positions)
    phonon = Phonopy(cell, np.diag([2, 2, 2]), log_level=0)
    phonon.generate_displacements(distance=0.01)
    forces = []
    for displaced in phonon.supercells_with_displacements:
        atoms = Atoms(displaced.symbols, positions=displaced.positions, cell=displaced.cell, pbc=True, calculator=EMT())
        forces.append(atoms.get_forces())
    phonon.forces = np.array(forces)
    folder = tmp_path_factory.mktemp("copper")
    phonon.save(folder / "phonopy_params.yaml")
    return folder


def test_labels_are_the_forces_and_the_harmonic_energy(folder):
    perfect, displaced = read_phonon_labels(folder).structures(energy_ev=2.0)
    assert (perfect.energy, len(perfect.atoms), displaced.group) == (2.0, 8, "displaced")
    energies = []
    for item in (perfect, displaced):
        atoms = item.atoms.copy()
        atoms.calc = EMT()
        energies.append(atoms.get_potential_energy())
    np.testing.assert_allclose(displaced.forces, atoms.get_forces(), atol=1e-8)
    assert displaced.energy - perfect.energy == pytest.approx(energies[1] - energies[0], rel=0.01)


def test_force_constants_predict_the_forces_and_frequencies_are_those_of_phonopy(folder):
    labels = read_phonon_labels(folder / "phonopy_params.yaml")
    predicted = -labels.force_constants.products(labels.displacements)
    np.testing.assert_allclose(predicted, labels.forces, atol=0.02 * np.abs(labels.forces).max())
    phonon = phonopy.load(folder / "phonopy_params.yaml", log_level=0)
    phonon.run_qpoints([[0, 0, 0], [0.5, 0, 0], [0.5, 0.5, 0]])
    highest = phonon.qpoints.frequencies.max()
    assert labels.frequencies_thz()[-1] == pytest.approx(highest, abs=0.01)
    assert np.abs(labels.frequencies_thz()[:3]).max() < 0.01


def test_a_fine_tuning_takes_the_calculation_and_reports_frequencies(folder, tmp_path):
    torch.manual_seed(0)
    parent = Checkpoint(make_network(config_from_dict(STAGE).network), 1.0, {29: 0.0}, (29,), model_key="tiny")
    source = read_phonons(folder, weight=1.0)
    training, validation = source.data(parent, None)
    assert training is validation
    config = finetune_config(parent, training, {**source.defaults(alone=True), "epochs": 2})
    assert (config.references, config.scale) == ("keep", "keep")
    references = [source.labels.force_constants]
    path = finetune(parent, config, training, validation, tmp_path, force_constants=references)["checkpoint"]
    text = source.report(parent, load(path), tmp_path)
    assert text.count("highest") == 2
    found = json.loads((tmp_path / "phonons.json").read_text())
    assert np.shape([found[f"{name}_thz"] for name in ("reference", "before", "after")]) == (3, 24)
    assert found["before_thz"] != found["after_thz"]


def test_the_weight_is_one_of_the_settings_and_an_empty_folder_is_refused(folder, tmp_path):
    assert read_phonons(folder, weight=2.0).defaults(alone=False) == {"curvature_weight": 2.0}
    with pytest.raises(InputError, match=r"has none of phonopy_disp\.yaml"):
        read_phonon_labels(tmp_path)


def test_a_folder_of_calculations_gives_all_their_force_constants(folder, tmp_path):
    for name in ("b", "a"):
        shutil.copytree(folder, tmp_path / name)
    (tmp_path / "notes").mkdir()
    first, second = read_force_constants(tmp_path)
    (alone,) = read_force_constants(folder)
    assert first.source == second.source == alone.source
    assert len(alone.source) == 64
    np.testing.assert_array_equal(first.values, alone.values)
    with pytest.raises(InputError, match="nor a folder in it has one of"):
        read_force_constants(tmp_path / "notes")
