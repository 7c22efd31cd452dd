"""Equations of state: fits against exact curves and ASE's, and the answer of a real crystal against its pressure."""

import numpy as np
import pytest
from ase.build import bulk
from ase.eos import EquationOfState

from esen_flows.errors import InputError, NotConvergedError
from esen_flows.forcefield.load import load_force_field
from esen_flows.physics.eos import EQUATIONS, equation_of_state, fit
from esen_flows.physics.relax import relax
from esen_flows.physics.static import static
from esen_flows.schemas.documents import RelaxOutput
from esen_flows.schemas.eos import EosFitProtocol, EosProtocol, eos_steps
from esen_flows.schemas.protocols import NumericSettings, RelaxProtocol, StaticProtocol
from esen_flows.schemas.requests import parents_key, property_requests
from esen_flows.units import EV_PER_ANGSTROM3_TO_GPA

VOLUMES = np.linspace(17.0, 23.5, 9)
EXACT = (-5.25, 20.1, 0.58, 4.3)  # eV, Angstrom^3, eV/Angstrom^3, B0'
ASE_NAMES = {"birch_murnaghan": "birchmurnaghan", "vinet": "vinet"}


@pytest.fixture(scope="module")
def copper() -> list[RelaxOutput]:
    """Relaxations of EMT's copper at nine volumes, as the steps of a request say."""
    emt, chain = load_force_field("emt"), eos_steps(EosProtocol())
    start = relax(bulk("Cu", a=3.6), emt, chain[0].protocol).structure.to_atoms()
    return [relax(start, emt, step.protocol) for step in chain[1:-1]]


@pytest.mark.parametrize("equation", EQUATIONS)
def test_an_exact_curve_gives_its_parameters(equation: str) -> None:
    found = fit(equation, VOLUMES, EQUATIONS[equation](VOLUMES, *EXACT))
    assert found.energy_per_atom_ev == pytest.approx(EXACT[0], abs=1e-9)
    assert found.volume_per_atom_angstrom3 == pytest.approx(EXACT[1], rel=1e-8)
    assert found.bulk_modulus_gpa == pytest.approx(EXACT[2] * EV_PER_ANGSTROM3_TO_GPA, rel=1e-6)
    assert found.bulk_modulus_derivative == pytest.approx(EXACT[3], rel=1e-6)
    assert found.bulk_modulus_interval_gpa < 1e-4
    assert found.rms_residual_mev_per_atom < 1e-6


@pytest.mark.parametrize("equation", EQUATIONS)
def test_the_bulk_modulus_is_the_curvature(equation: str) -> None:
    """B0 = V d2E/dV2, and B0' = dB/dP at the minimum, by differences."""
    step = 1e-3 * EXACT[1]
    volumes = EXACT[1] + step * np.arange(-2, 3)
    energies = EQUATIONS[equation](volumes, *EXACT)
    second = (-energies[0] + 16 * energies[1] - 30 * energies[2] + 16 * energies[3] - energies[4]) / (12 * step**2)
    third = (energies[4] - 2 * energies[3] + 2 * energies[1] - energies[0]) / (2 * step**3)
    assert EXACT[1] * second == pytest.approx(EXACT[2], rel=1e-6)
    assert -1.0 - EXACT[1] * third / second == pytest.approx(EXACT[3], rel=1e-3)


@pytest.mark.parametrize("equation", EQUATIONS)
def test_ase_gives_the_same_from_the_same_energies(copper: list[RelaxOutput], equation: str) -> None:
    pairs = sorted((each.volume_per_atom_angstrom3, each.energy_per_atom_ev) for each in copper)
    found = equation_of_state(copper, EosFitProtocol()).fits[equation]
    state = EquationOfState(*zip(*pairs, strict=True), eos=ASE_NAMES[equation])
    volume, energy, modulus = state.fit()
    assert found.volume_per_atom_angstrom3 == pytest.approx(volume, rel=1e-6)
    assert found.energy_per_atom_ev == pytest.approx(energy, abs=1e-8)
    assert found.bulk_modulus_gpa == pytest.approx(modulus * EV_PER_ANGSTROM3_TO_GPA, rel=1e-5)


def test_the_answer_agrees_with_the_pressures(copper: list[RelaxOutput]) -> None:
    """The bulk modulus from the stresses that the force field gives at 0.1 % more and less volume."""
    emt, found = load_force_field("emt"), equation_of_state(copper, EosFitProtocol()).fits["birch_murnaghan"]
    a = (4.0 * found.volume_per_atom_angstrom3) ** (1 / 3)
    stresses = [
        np.trace(static(bulk("Cu", a=a * factor ** (1 / 3)), emt, StaticProtocol()).stress_ev_per_angstrom3) / 3
        for factor in (0.999, 1.001)
    ]
    modulus = (stresses[1] - stresses[0]) / 0.002 * EV_PER_ANGSTROM3_TO_GPA
    # The equation is fitted to volumes from -14 to +16 %, and its interval says how well it fits there.
    assert found.bulk_modulus_gpa == pytest.approx(modulus, abs=3 * found.bulk_modulus_interval_gpa)
    assert 0 < found.bulk_modulus_interval_gpa < 0.01 * found.bulk_modulus_gpa


def test_intervals_hold_the_truth_as_often_as_they_say() -> None:
    random, inside = np.random.default_rng(3), []
    for _ in range(200):
        energies = EQUATIONS["vinet"](VOLUMES, *EXACT) + random.normal(scale=1e-3, size=len(VOLUMES))
        found = fit("vinet", VOLUMES, energies)
        inside.append(abs(found.bulk_modulus_derivative - EXACT[3]) < found.bulk_modulus_derivative_interval)
    assert 0.90 <= np.mean(inside) <= 0.99  # 95 % of 200 with a standard deviation of 1.5 %


def test_energies_without_a_minimum_are_refused() -> None:
    with pytest.raises(NotConvergedError, match=r"least energy is at an end of the volumes, 17.00 to 23.50"):
        fit("vinet", VOLUMES, EQUATIONS["vinet"](VOLUMES, -5.0, 30.0, 0.5, 4.0))
    with pytest.raises(InputError, match="at least six volumes, got 5"):
        fit("vinet", VOLUMES[:5], VOLUMES[:5])


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"linear_strain": (0.01, 0.05)}, "from a negative to a positive one"),
        ({"at_volume": RelaxProtocol()}, "the volume has to stay"),
        ({"number_of_frames": 5}, "greater than or equal to 6"),
    ],
)
def test_impossible_protocols_are_refused(fields: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        EosProtocol(**fields)  # type: ignore[arg-type]


def test_the_fit_is_keyed_by_all_volumes() -> None:
    """Golden: a change here loses stored equations of state."""
    requests = property_requests("aa" * 32, "bb" * 32, EosProtocol(), NumericSettings())
    relax_, *volumes, answer = requests
    assert [request.kind for request in requests] == ["relax"] * 10 + ["eos"]
    assert {request.parent_key for request in volumes} == {relax_.key}
    assert len({request.key for request in volumes}) == 9
    assert answer.parents == {f"volume_{number:02d}": one.key for number, one in enumerate(volumes, start=1)}
    assert answer.parent_key == parents_key(dict(reversed(answer.parents.items())))  # in whatever order
    assert answer.key == "37c23baf946377a1a7bb79b5aa7139e19cb998b6591452b78445d7a11d0ea471"
    assert EosProtocol().hash() == "1b111c4b9c16be74fef1e48f2c0405a2ffb31320b076371e4a90a6a3b7d56ea8"


def test_another_equation_makes_no_force_call() -> None:
    chains = [
        property_requests("aa" * 32, "bb" * 32, EosProtocol(equation=equation), NumericSettings())
        for equation in ("birch_murnaghan", "vinet")
    ]
    assert [one.key for one in chains[0][:-1]] == [one.key for one in chains[1][:-1]]
    assert chains[0][-1].key != chains[1][-1].key
