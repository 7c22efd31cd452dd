"""Force fields in environments of their own: equal numbers, and each fault of the child as a failure of its batch."""

import sys
from pathlib import Path

import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk

from esen_flows.errors import CalculatorDiedError, EvaluationError, InsufficientMemoryError, ModelError
from esen_flows.forcefield.environments import install
from esen_flows.forcefield.load import load_force_field
from esen_flows.forcefield.third_party.calculator import CalculatorForceField
from esen_flows.forcefield.third_party.emt import emt
from esen_flows.physics.static import static_many
from esen_flows.schemas.card import find_card, resolve_model
from esen_flows.schemas.protocols import StaticProtocol
from esen_flows.settings import get_settings
from esen_flows.testing import check_force_field, sample_structures

CARD = Path(__file__).parent / "fake_package" / "card.yaml"
CRASH, HANG, NOT_FINITE, SHAPE, GARBAGE, RAISE, MEMORY, TALK, WORN = range(1, 10)


def copper(fault: int = 0, size: int = 1) -> Atoms:
    atoms = bulk("Cu", cubic=True).repeat((size, 1, 1))
    atoms.rattle(0.05, seed=fault)
    if fault:
        atoms.info["charge"] = float(fault)
    return atoms


@pytest.fixture(name="fake", scope="module")
def _fake(tmp_path_factory: pytest.TempPathFactory) -> CalculatorForceField:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("ESEN_FLOWS_DATA_DIR", str(tmp_path_factory.mktemp("data")))
        get_settings.cache_clear()
        try:
            install(find_card(str(CARD))[0], python=Path(sys.executable), say=lambda text: None)
            found = load_force_field(CARD)
        finally:
            get_settings.cache_clear()
    assert isinstance(found, CalculatorForceField)
    return found


def test_its_numbers_are_those_of_the_same_calculator_in_this_process(fake):
    structures = [copper(), copper(size=3), bulk("Al"), Atoms("Cu2", positions=[[0, 0, 0], [0, 0, 2.4]])]
    for apart, here in zip(fake.evaluate(structures), emt().evaluate(structures), strict=True):
        assert apart.energy == here.energy
        np.testing.assert_array_equal(apart.forces, here.forces)
        np.testing.assert_array_equal(apart.stress, here.stress)
        np.testing.assert_array_equal(apart.energies, here.energies)
    assert np.isnan(apart.stress).all()  # the last one has no cell


def test_it_passes_the_contract_and_what_it_prints_is_not_in_the_way(fake):
    structures = sample_structures(fake.declaration.elements)
    assert check_force_field(fake, structures)["forces are the gradient"] < 1e-6
    (talked,) = fake.evaluate([copper(TALK)])
    assert np.isfinite(talked.forces).all()


def test_its_key_needs_no_environment(fake):
    assert fake.key == resolve_model(CARD).key


@pytest.mark.parametrize(
    ("fault", "kind", "message"),
    [
        (NOT_FINITE, EvaluationError, r"NaN or infinite energy or force for structure 1 \(Cu4\)"),
        (SHAPE, EvaluationError, r"structure 1 \(Cu4\): ValueError: the forces of 4 atoms have shape \(5, 3\)"),
        (RAISE, EvaluationError, r"structure 1 \(Cu4\): RuntimeError: this structure is not for me"),
        (MEMORY, InsufficientMemoryError, "out of memory"),
    ],
)
def test_a_fault_that_the_child_survives_names_its_structure(fake, fault, kind, message):
    before = fake.process.pid
    with pytest.raises(kind, match=message):
        fake.evaluate([copper(), copper(fault)])
    assert fake.process.pid == before


def test_a_structure_that_crashes_the_child_is_found_and_the_others_have_results(fake):
    batch = [copper(), copper(CRASH), copper(size=2)]
    found = dict(static_many(batch, fake, StaticProtocol(), atoms_at_once=1000))
    assert isinstance(found[1], CalculatorDiedError)
    assert not found[1].final
    assert "signal SIGSEGV" in str(found[1])
    assert "about to crash" in str(found[1])
    assert found[0].energy_ev == emt().evaluate([copper()])[0].energy
    assert len(found[2].forces_ev_per_angstrom) == 8


def test_a_child_that_is_worn_out_is_replaced_and_the_batch_has_results(fake):
    fake.evaluate([copper()])
    before = fake.process.pid
    (found,) = fake.evaluate([copper(WORN)])
    assert fake.process.pid != before
    assert found.energy == emt().evaluate([copper(WORN)])[0].energy
    open_files = len(list(Path("/proc/self/fd").iterdir()))
    for _ in range(3):
        fake.evaluate([copper(WORN)])
    # One more at most: a thread closes the standard error of a process after its end.
    assert len(list(Path("/proc/self/fd").iterdir())) <= open_files + 1
    with pytest.raises(CalculatorDiedError, match="signal SIGSEGV"):  # twice in one batch: the fault is not its age
        fake.evaluate([copper(WORN), copper(WORN, size=2)])


def test_a_child_that_hangs_or_answers_garbage_is_ended(fake):
    for fault, message in ((HANG, "no sign of life for 4 s"), (GARBAGE, "something that is not a message")):
        before = fake.process.pid
        with pytest.raises(CalculatorDiedError, match=message):
            fake.evaluate([copper(fault)])
        assert not Path(f"/proc/{before}").exists()
    assert fake.evaluate([copper()])[0].energy == emt().evaluate([copper()])[0].energy


def test_without_its_environment_the_message_names_the_command():
    with pytest.raises(ModelError, match="esen-flows models install fake"):
        load_force_field(CARD)
