"""Audits: sound force fields pass, each planted defect is found by its own measure, and limits need no force call."""

import numpy as np
import pytest
from ase.build import bulk
from pair_force_field import CUTOFF, PairForceField

from esen_flows.forcefield.load import load_force_field
from esen_flows.forcefield.third_party.emt import emt
from esen_flows.physics.conservation.convergence import recommended_displacement
from esen_flows.physics.conservation.jacobian import asymmetry, jacobian_by_differences, loop_work
from esen_flows.physics.conservation.measurements import BOND_POINTS, measure
from esen_flows.physics.conservation.smoothness import bond_scan, largest_jump
from esen_flows.physics.conservation.symmetry import neighbor_differences
from esen_flows.physics.conservation.systems import choose_systems, crystal
from esen_flows.schemas.audit import AuditOutput, MeasurementsOutput, MeasurementsProtocol, VerdictProtocol, judge
from esen_flows.schemas.audit_measures import MEASURES, NVE
from esen_flows.schemas.nve import NveOutput

PROTOCOL = MeasurementsProtocol(systems=("Cu",), loops=1, rotations=1, displacements_angstrom=(0.1, 0.01))


def audited(force_field: PairForceField) -> tuple[MeasurementsOutput, AuditOutput]:
    output = measure(force_field, PROTOCOL)
    return output, judge(output, VerdictProtocol())


@pytest.fixture(scope="module")
def sound() -> tuple[MeasurementsOutput, AuditOutput]:
    return audited(PairForceField())


def test_a_sound_force_field_passes_all_checks(sound: tuple[MeasurementsOutput, AuditOutput]) -> None:
    output, verdict = sound
    assert verdict.verdict == "passed", verdict.failures()
    assert verdict.not_measured == ["jacobian_asymmetry_exact"]
    assert {check["measure"] for check in verdict.checks} | set(verdict.not_measured) == {
        name for name in VerdictProtocol().limits_for("float64") if MEASURES[name].step != NVE
    }
    assert output.frequency_errors["float64"][0] > 50 * output.frequency_errors["float64"][1]  # h^2: 100


@pytest.mark.parametrize(
    ("defect", "found", "spared"),
    [
        (
            {"swirl": 0.01},
            {"jacobian_asymmetry", "loop_work_relative", "gradient_error"},
            {"energy_jump_ev", "batch", "translation"},
        ),
        ({"step": 1e-3}, {"energy_jump_ev", "cutoff_energy_jump_ev"}, {"jacobian_asymmetry", "rotation", "batch"}),
        ({"field": 0.05}, {"rotation", "net_force"}, {"batch", "permutation", "left_handed_cell"}),
        ({"crowd": 1e-6}, {"batch"}, {"jacobian_asymmetry", "rotation", "batch_neighbors"}),
        ({"wraps": True}, {"batch_neighbors"}, {"batch", "permutation"}),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else "",
)
def test_a_planted_defect_is_found(defect: dict[str, float], found: set[str], spared: set[str]) -> None:
    _, verdict = audited(PairForceField(**defect))
    failed = {str(check["measure"]) for check in verdict.checks if not check["passed"]}
    assert verdict.verdict == "failed"
    assert found <= failed
    assert not spared & failed


def test_work_around_a_loop_is_the_curl_times_its_area() -> None:
    """By Stokes' theorem: the mean over random planes of the antisymmetric part, to first order in the area."""
    atoms, swirling = bulk("Cu", cubic=True), PairForceField(swirl=0.3)
    atoms.rattle(0.1, seed=2)
    jacobian = jacobian_by_differences(swirling, atoms, 1e-3)
    plane, _ = np.linalg.qr(np.random.default_rng(4).normal(size=(12, 2)))
    expected = np.pi * 1e-6 * abs(plane[:, 0] @ (jacobian - jacobian.T) @ plane[:, 1])
    work, _ = loop_work(swirling, atoms, np.random.default_rng(4), 1e-3, 16)
    assert work == pytest.approx(expected, rel=1e-4)
    assert asymmetry(jacobian) > 0.01


def test_the_largest_jump_is_measured_where_it_is() -> None:
    """A pair leaves the cutoff on the way."""
    atoms = bulk("Cu").repeat(3)
    atoms.pbc = False
    atoms = atoms[:2]
    direction = np.zeros((2, 3))
    direction[1] = (atoms.positions[1] - atoms.positions[0]) / atoms.get_distance(0, 1)
    jump = largest_jump(PairForceField(step=0.02), atoms, direction, 2 * (CUTOFF - atoms.get_distance(0, 1)), 40)
    assert jump.energy_ev == pytest.approx(0.02, rel=1e-6)
    assert jump.force_ev_per_angstrom < 1e-6


def test_work_along_a_bond_is_as_exact_as_a_conservative_force_field_deserves() -> None:
    """The bond of MgO is the stiffest of esen_nano's crystals: 0.014 eV with 25 points."""
    minima, error = bond_scan(load_force_field("esen_nano"), crystal("MgO"), BOND_POINTS)
    assert minima == 0
    assert error < 1e-3


def test_neighbours_of_a_force_field_without_tables_are_not_measured() -> None:
    copper = bulk("Cu", cubic=True)
    assert neighbor_differences(PairForceField(), [copper, copper * (1, 1, 2)], np.random.default_rng(0)) == [0, 0]
    assert neighbor_differences(emt(), [copper], np.random.default_rng(0)) is None


def test_a_changed_limit_changes_the_verdict(
    sound: tuple[MeasurementsOutput, AuditOutput],
) -> None:
    output, _ = sound
    value = float(output.worst()["frequency_error"]["value"] or 0.0)
    verdict = judge(output, VerdictProtocol.model_validate({"limits": {"frequency_error": value / 2}}))
    assert verdict.verdict == "failed"
    assert verdict.failures() == [f"frequency_error {value:.2g} > {value / 2:g} (Cu)"]
    (check,) = (one for one in verdict.checks if one["measure"] == "frequency_error")
    assert check["source"] == "given with the request"


def test_what_is_not_declared_is_reported_but_not_judged(sound: tuple[MeasurementsOutput, AuditOutput]) -> None:
    verdict = judge(sound[0].model_copy(update={"equivariance": "approximate"}), VerdictProtocol())
    assert set(verdict.not_judged) == {"rotation", "net_torque", "inversion"}
    assert all(MEASURES[name].judged != "always" for name in verdict.not_judged)


def trajectories(slope_mev: float, failures: int = 0) -> NveOutput:
    """One trajectory that drifts, and some that failed."""
    start = {"system": "Cu", "benchmark": "full", "start": "", "formula": "Cu8", "n_atoms": 8, "seed": 0}
    start |= {"temperature_kelvin": 600.0, "time_step_fs": 2.0, "duration_ps": 10.0}
    arrays = {name: np.zeros(0) for name in ("times_ps", "total_energies_ev", "kinetic_energies_ev")}
    numbers = ("slope_interval_mev_per_atom_ps", "fluctuation_mev_per_atom", "fairchem_mev_per_atom_ps")
    drift = dict.fromkeys((*numbers, "lambench_slope_ev_per_atom_ps", "lambench_score", "mlipaudit_drift_ratio"), 0.1)
    ended = {**start, **arrays, "drift": {"slope_mev_per_atom_ps": slope_mev, **drift}, "failure": None}
    failed = {**start, **arrays, "drift": None, "failure": "ExplosionError: 1e5 K"}
    return NveOutput.model_validate({
        "runs": [ended] + failures * [failed], "fairchem_mev_per_atom_ps": {}, "lambench_score": 0.0,
        "largest_slope_ev_per_atom_ps": abs(slope_mev) / 1000, "failures": failures,
    })  # fmt: skip


@pytest.mark.parametrize(
    ("nve", "failed"),
    [
        (trajectories(-0.4), []),
        (trajectories(-0.6), ["nve_drift_ev_per_atom_ps 0.0006 > 0.0005 (Cu, 600 K, 2 fs)"]),
        (trajectories(float("nan")), ["nve_drift_ev_per_atom_ps inf > 0.0005 (Cu, 600 K, 2 fs)"]),
        (trajectories(0.0, failures=2), ["nve_failures 2 > 0 (all)"]),
    ],
    ids=["steady", "drifting", "not a number", "exploded"],
)
def test_trajectories_are_part_of_the_verdict_where_there_are_some(
    sound: tuple[MeasurementsOutput, AuditOutput], nve: NveOutput, failed: list[str]
) -> None:
    output, without = sound
    verdict = judge(output, VerdictProtocol(), nve)
    assert verdict.failures() == failed
    assert verdict.verdict == ("failed" if failed else "passed")
    added = [check["measure"] for check in verdict.checks if check not in without.checks]
    assert added == ["nve_drift_ev_per_atom_ps", "nve_drift_ratio", "nve_failures"]
    assert verdict.not_measured == without.not_measured


def test_systems_are_those_that_a_force_field_was_trained_on() -> None:
    assert choose_systems({11, 17, 14}, None, 4) == ("Si", "NaCl")
    assert choose_systems({14, 6}, {"C-Si"}, 4) == ("SiC",)
    assert choose_systems({26}, None, 4) == ("Fe",)
    with pytest.raises(ValueError, match="none of the crystals of audits"):
        choose_systems({1, 8}, None, 4)
    with pytest.raises(ValueError, match="no audit system 'Xx'"):
        crystal("Xx")


def test_the_recommended_displacement_is_the_largest_good_one() -> None:
    assert recommended_displacement([0.2, 0.01, 0.001], np.array([0.1, 1.9e-4, 1e-4])) == 0.01
