"""The shipped model of silicon has the properties that its card states."""

import numpy as np
import pytest
from ase.build import bulk

from esen_flows import load_force_field
from esen_flows.errors import UnknownElementError
from esen_flows.forcefield.symmetrized import with_parity
from esen_flows.physics.relax import relax
from esen_flows.schemas.card import read_card, resolve_model
from esen_flows.schemas.protocols import RelaxProtocol
from esen_flows.testing import check_force_field

LABELLER_LATTICE_CONSTANT = 5.46667  # SevenNet-l3i5, Angstrom, benchmarks/results/silicon_kappa_sevennet_l3i5.json
LABELLER_FORCE_RMSE = 10.58  # meV/Angstrom on the 111 frames, same file


@pytest.fixture(scope="module")
def force_field():
    return load_force_field("esen_silicon")


def test_the_card_names_the_model(force_field):
    card = read_card("esen_silicon")
    assert force_field.key == card.checkpoint.model_key == resolve_model("esen_silicon").key
    assert card.checkpoint.parameters == sum(p.numel() for p in force_field.network.parameters())
    assert card.checkpoint.parameters <= 300_000


def test_the_contract(force_field):
    crystal, pair = bulk("Si", cubic=True), bulk("Si")
    crystal.rattle(0.05, seed=1)
    pair.rattle(0.05, seed=2)
    check_force_field(force_field, [crystal, pair])


def test_lattice_constant_within_a_thousandth_of_the_labellers(force_field):
    protocol = RelaxProtocol(fmax_ev_per_angstrom=1e-3, symmetry="fix", parity="average")
    result = relax(bulk("Si", cubic=True), force_field, protocol)
    assert result.structure.to_atoms().cell.lengths().mean() == pytest.approx(LABELLER_LATTICE_CONSTANT, rel=1e-3)


def test_other_elements_are_refused(force_field):
    with pytest.raises(UnknownElementError, match="Ge"):
        force_field.evaluate([bulk("Ge")])


@pytest.mark.shared
def test_forces_on_dft_frames_outside_of_the_training_data(force_field, silicon_dft_frames):
    frames = silicon_dft_frames
    results = with_parity(force_field, "average").evaluate(frames)
    errors = np.concatenate([(r.forces - a.get_forces()).ravel() for r, a in zip(results, frames, strict=True)])
    assert 1000 * np.sqrt(np.mean(errors**2)) < 1.1 * LABELLER_FORCE_RMSE
