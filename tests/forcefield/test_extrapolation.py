"""Calibrations of a small network: what is like the training data, what is not, and the file."""

from dataclasses import replace

import numpy as np
import pytest
from ase.build import bulk
from small_force_field import small_checkpoint

from esen_flows import load_force_field
from esen_flows.errors import InputError, ModelError
from esen_flows.forcefield import extrapolation
from esen_flows.forcefield.calibration import calibration_beside, load_calibration, save_calibration
from esen_flows.forcefield.checkpoint import load, save
from esen_flows.forcefield.extrapolation import atom_features, calibrate, count_outside, extrapolations
from esen_flows.forcefield.network import NetworkForceField
from esen_flows.schemas.domain import domain_of


def rattled_silicon(count, seed):
    rng = np.random.default_rng(seed)
    structures = []
    for number in range(count):
        atoms = bulk("Si", a=5.43 * rng.uniform(0.98, 1.02))
        atoms.rattle(0.05, seed=1000 * seed + number)
        structures.append(atoms)
    return structures


@pytest.fixture(scope="module")
def force_field():
    return NetworkForceField(small_checkpoint())


@pytest.fixture(scope="module")
def calibrated(force_field):
    return calibrate(force_field, rattled_silicon(120, seed=1))


def test_new_structures_of_the_same_kind_are_within_and_others_are_not(force_field, calibrated):
    calibration, values = calibrated
    assert calibration.chemical_systems == ("Si",)
    assert sum(value > calibration.limit for value in values) == 2  # one in a hundred, rounded up
    fresh = extrapolations(force_field, rattled_silicon(60, seed=2), calibration)
    assert np.mean(np.array(fresh) > calibration.limit) <= 0.1
    others = [bulk("Si", "fcc", a=3.87), bulk("Si", "diamond", a=4.6), bulk("SiO", "zincblende", a=4.6), bulk("Cu")]
    assert count_outside(force_field, others, calibration) == 4  # oxygen has no prototypes, copper is unknown


def test_the_number_is_the_largest_distance_of_an_atom(force_field, calibrated):
    calibration, _ = calibrated
    (atoms,) = rattled_silicon(1, seed=3)
    (features,) = atom_features(force_field, [atoms])
    whitened = features @ calibration.whitening.astype(float)
    gaps = (whitened - calibration.centres[14])[:, None] - calibration.prototypes[14].astype(float)
    expected = np.linalg.norm(gaps, axis=2).min(axis=1).max() / calibration.units[14]
    assert extrapolations(force_field, [atoms], calibration) == [pytest.approx(expected, rel=1e-6)]


def test_an_element_whose_atoms_are_all_alike_is_refused_by_name(force_field):
    structures = [*rattled_silicon(100, seed=1), *[bulk("SiO", "zincblende", a=4.6)] * 30]
    with pytest.raises(InputError, match="nearly all atoms of O are alike"):
        calibrate(force_field, structures)


def test_rotations_change_nothing_and_no_evaluation_is_counted(force_field, calibrated):
    (atoms,) = rattled_silicon(1, seed=4)
    turned = atoms.copy()
    turned.rotate(37, (1, 2, 3), rotate_cell=True)
    before = force_field.force_evaluations
    one, other = extrapolations(force_field, [atoms, turned], calibrated[0])
    assert one == pytest.approx(other, rel=1e-6)
    assert force_field.force_evaluations == before


def test_a_calibration_beside_a_checkpoint_is_loaded_with_it(calibrated, tmp_path):
    path = tmp_path / "own.safetensors"
    key = save(path, small_checkpoint())
    assert load_force_field(path).calibration is None
    save_calibration(calibration_beside(path), replace(calibrated[0], model_key=key))
    plain = tmp_path / "plain"
    plain.touch()
    assert {path.stat().st_mode, calibration_beside(path).stat().st_mode} == {plain.stat().st_mode}
    loaded = load_force_field(path)
    assert loaded.calibration.limit == calibrated[0].limit
    structures = rattled_silicon(3, seed=5)
    expected = extrapolations(NetworkForceField(load(path)), structures, calibrated[0])
    assert extrapolations(loaded, structures) == pytest.approx(expected, rel=1e-12)


def test_another_networks_calibration_and_other_files_are_refused(calibrated, tmp_path):
    path = tmp_path / "own.domain.safetensors"
    save_calibration(path, calibrated[0])
    with pytest.raises(ModelError, match=r"is of model kkkkkkkkkkkk, not of 000000000000; make it again"):
        load_calibration(path, "0" * 64)
    path.write_bytes(b"no calibration")
    with pytest.raises(ModelError, match="is no calibration of a domain"):
        load_calibration(path, "k" * 64)


def test_too_little_data_is_refused(force_field):
    with pytest.raises(InputError, match="99 structures were given; a limit needs 100"):
        calibrate(force_field, rattled_silicon(99, seed=1))
    with pytest.raises(InputError, match="too few structures hold O; give more"):
        calibrate(force_field, [*rattled_silicon(99, seed=1), bulk("SiO", "zincblende", a=4.6)])
    with pytest.raises(InputError, match="each element and system are all alike"):
        calibrate(force_field, [bulk("Si")] * 100)


def test_a_force_field_without_features_or_calibration_says_so(force_field):
    emt = load_force_field("emt")
    with pytest.raises(ModelError, match="is no network of this package"):
        atom_features(emt, [bulk("Cu")])
    with pytest.raises(ModelError, match="the domain of 'network' is not calibrated"):
        extrapolations(force_field, [bulk("Si")])


def test_structures_are_turned_for_a_network_that_depends_on_the_orientation(force_field, monkeypatch):
    seen = []
    monkeypatch.setattr(extrapolation, "atom_features", lambda ff, ones: seen.extend(ones) or atom_features(ff, ones))
    monkeypatch.setattr(force_field, "declaration", replace(force_field.declaration, equivariance="approximate"))
    given = rattled_silicon(100, seed=6)
    calibrate(force_field, given)
    signs = []
    for one, other in zip(given, seen, strict=True):
        np.testing.assert_allclose(one.cell.cellpar(), other.cell.cellpar(), atol=1e-9)
        assert not np.allclose(one.cell, other.cell)
        signs.append(np.sign(np.linalg.det(one.cell[:]) * np.linalg.det(other.cell[:])))
    assert 25 < signs.count(-1) < 75  # about half are mirror images


@pytest.mark.parametrize(
    ("chemsys", "trained_on", "within", "verdict"),
    [
        ("Ca-O", {"Ca-O"}, True, "inside"),
        ("Ca-S", {"Ca-O"}, True, "near"),
        ("Ca-O", {"Ca-O"}, False, "outside"),
        ("Ca-S", {"Ca-O"}, False, "outside"),
        ("Ca-S", None, True, "inside"),
    ],
)
def test_verdicts_of_a_calibrated_force_field(chemsys, trained_on, within, verdict):
    assert domain_of(chemsys, trained_on, within) == verdict
