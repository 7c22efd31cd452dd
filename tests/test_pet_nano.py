"""The shipped edge transformer of 23 crystals has the properties that its card states."""

import numpy as np
import pytest
from ase.build import bulk

from esen_flows import load_force_field
from esen_flows.forcefield.direct import DirectForces
from esen_flows.schemas.card import read_card, resolve_model
from esen_flows.testing import check_force_field


@pytest.fixture(scope="module")
def force_field():
    return load_force_field("pet_nano")


def test_the_card_names_the_model(force_field):
    card, reference = read_card("pet_nano"), resolve_model("pet_nano")
    assert force_field.key == card.checkpoint.model_key == reference.key
    assert reference.direct
    assert force_field.declaration.force_kinds == ("conservative", "direct")
    assert card.checkpoint.parameters == sum(p.numel() for p in force_field.network.parameters()) <= 700_000


def test_the_contract(force_field):
    salt, nitride = bulk("NaCl", "rocksalt", a=5.69), bulk("GaN", "wurtzite", a=3.2, c=5.2)
    salt.rattle(0.05, seed=1)
    nitride.rattle(0.05, seed=2)
    deviations = check_force_field(force_field, [salt, nitride])
    assert deviations["rotation"] > 1e-3  # learned, not built in


@pytest.mark.shared
def test_both_heads_on_dft_frames_outside_of_the_training_data(force_field, silicon_dft_frames):
    """9.74 and 9.99 meV/Angstrom were measured on these four, and 9.63 with esen_nano; the rms force is 43."""
    frames = silicon_dft_frames[::8]
    for found in (force_field, DirectForces(force_field)):
        errors = [r.forces - a.get_forces() for r, a in zip(found.evaluate(frames), frames, strict=True)]
        assert 1000 * np.sqrt(np.mean(np.concatenate(errors) ** 2)) < 10.5
