"""Every calibrated model of the package tells its training crystals from other structures, as its card says."""

import importlib.util
from pathlib import Path

import numpy as np
import pytest

from esen_flows import load_force_field
from esen_flows.forcefield.extrapolation import extrapolations
from esen_flows.schemas.card import list_cards, read_card

BENCHMARK = Path(__file__).resolve().parents[1] / "benchmarks" / "domain.py"
if not BENCHMARK.is_file():
    pytest.skip("benchmarks are in the checkout only", allow_module_level=True)
spec = importlib.util.spec_from_file_location("domain_benchmark", BENCHMARK)
assert spec is not None
assert spec.loader is not None
benchmark = importlib.util.module_from_spec(spec)
spec.loader.exec_module(benchmark)
CALIBRATED = [name for name in list_cards() if read_card(name).calibration is not None]
# Of 22 compounds SiGe alone is like training atoms to the models that know both elements: they give it "near".
LIKE_TRAINING = {"SiGe"}


@pytest.fixture(scope="module", params=CALIBRATED)
def force_field(request):
    return load_force_field(request.param, dtype="float32")


def test_training_crystals_displaced_and_strained_by_three_per_cent_are_within(force_field):
    """Every third of them here; benchmarks/domain.py takes all."""
    structures = list(benchmark.training_crystals(force_field.label))[::3]
    assert max(extrapolations(force_field, structures)) <= force_field.calibration.limit


def test_new_compounds_of_known_elements_are_outside(force_field):
    systems = set(read_card(force_field.label).chemical_systems)
    found = benchmark.outsiders(force_field, systems, "compound")
    if not found:
        pytest.skip(f"{force_field.label} knows no element of another compound")
    assert len(found) >= 15
    named = {"CaS": "Ca-S", "CaSe": "Ca-Se", "Mg2Si": "Mg-Si", "Li2O": "Li-O", "SiO2 quartz": "O-Si"}
    # CaS and CaSe are among the crystals of esen_nano103.
    new = {name for name, system in named.items() if system not in systems}
    assert {"Mg2Si", "Li2O", "SiO2 quartz"} <= new <= {atoms.info["name"] for atoms in found}
    beyond = np.array(extrapolations(force_field, found)) > force_field.calibration.limit
    assert {atoms.info["name"] for atoms, far in zip(found, beyond, strict=True) if not far} <= LIKE_TRAINING


def test_the_card_repeats_the_limit(force_field):
    calibration = read_card(force_field.label).calibration
    assert calibration.limit == force_field.calibration.limit
    assert {test.expected for test in calibration.tests} >= {"inside"}
