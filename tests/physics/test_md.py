"""Molecular dynamics: integrators on potentials that are known exactly, and against ASE's on one force field."""

import numpy as np
import pytest
from ase import Atoms, units
from ase.build import bulk, molecule
from ase.constraints import FixAtoms
from ase.md.nose_hoover_chain import NoseHooverChainNVT
from ase.md.verlet import VelocityVerlet
from orientation_error import OrientationError
from scipy.stats import kstest
from two_kinds import TwoKinds

from esen_flows.errors import ExplosionError, InputError, ModelError, StructureError
from esen_flows.forcefield.contract import Declaration, Evaluation, ForceField
from esen_flows.forcefield.direct import DirectForces
from esen_flows.forcefield.third_party.emt import emt
from esen_flows.physics.md.analysis import mean_square_displacement
from esen_flows.physics.md.dynamics import molecular_dynamics, molecular_dynamics_many
from esen_flows.physics.md.start import degrees_of_freedom, start_of_dynamics
from esen_flows.schemas.md import MDProtocol
from esen_flows.schemas.md_output import MDOutput
from esen_flows.schemas.protocols import RelaxProtocol

SPRING = 5.0  # eV/Angstrom^2
COPPER = bulk("Cu", cubic=True)


class Springs(ForceField):
    """Every atom at its own site on a spring: no model to blame, and all averages are known."""

    key, label = "0" * 64, "springs"
    declaration = Declaration(True, "approximate", False, None, "float64")

    def __init__(self, sites: np.ndarray) -> None:
        self.sites = sites

    def evaluate(self, structures: list[Atoms]) -> list[Evaluation]:  # type: ignore[override]
        """Harmonic energies and forces."""
        found = []
        for atoms in structures:
            moved = atoms.positions - self.sites[: len(atoms)]
            found.append(Evaluation(SPRING / 2 * float((moved**2).sum()), -SPRING * moved, np.full((3, 3), np.nan)))
        return found


def crystal(n: int) -> tuple[Atoms, Springs]:
    """Independent atoms of silicon's mass."""
    sites = 3.0 * np.arange(3 * n, dtype=float).reshape(n, 3)
    return Atoms(f"Si{n}", positions=sites), Springs(sites)


def sigmas(values: np.ndarray, expected: float, blocks: int = 25) -> float:
    """Deviation of a mean in units of its standard error, from blocks that are longer than the memory."""
    means = values[: len(values) // blocks * blocks].reshape(blocks, -1).mean(axis=1)
    return float((means.mean() - expected) / (means.std(ddof=1) / np.sqrt(blocks)))


def test_the_fluctuation_of_the_energy_falls_with_the_square_of_the_step() -> None:
    atoms, springs = crystal(4)

    def fluctuation(step: float) -> float:
        protocol = MDProtocol(ensemble="nve", n_steps=round(800 / step), time_step=step, traj_interval=1)
        output = molecular_dynamics(atoms, springs, protocol)
        return float(np.std(output.conserved_energies_ev))

    coarse, half, quarter = (fluctuation(step) for step in (4.0, 2.0, 1.0))
    assert coarse / half == pytest.approx(4.0, rel=0.15)
    assert coarse / quarter == pytest.approx(16.0, rel=0.3)
    # Velocity Verlet on a spring conserves another quadratic form exactly, from which the amplitude follows.
    assert half < 1e-4


@pytest.mark.parametrize("dynamics", ["langevin", "nose-hoover-chain"])
def test_a_thermostat_makes_the_canonical_ensemble(dynamics: str) -> None:
    """60 independent atoms at 300 K, 20 ps: energies within 3 sigma, momenta normal, no heat unaccounted for."""
    atoms, springs = crystal(60)
    atoms.rattle(0.1, seed=1)  # so that the chain couples to oscillators of different phases
    protocol = MDProtocol(
        dynamics=dynamics, n_steps=4000, time_step=5.0, traj_interval=4, friction_per_ps=5.0,
        tdamp=100.0, zero_linear_momentum=False, mb_velocity_seed=5,
    )  # fmt: skip
    output = molecular_dynamics(atoms, springs, protocol)
    kt = units.kB * 300.0
    settled = slice(200, None)
    assert abs(sigmas(output.kinetic_energies_ev[settled], 1.5 * 60 * kt)) < 3.0
    if dynamics == "langevin":  # one chain does not mix independent oscillators of one frequency
        assert abs(sigmas(output.potential_energies_ev[settled], 1.5 * 60 * kt)) < 3.0
        # The variance of a chi-square distribution of 180 degrees of freedom; its own error is 1 in sqrt(samples / 2).
        variance = np.var(output.kinetic_energies_ev[settled][::10]) / (1.5 * 60 * kt**2)
        samples = len(output.kinetic_energies_ev[settled][::10])
        assert abs(variance - 1.0) < 3.0 * np.sqrt(2.0 / samples)
        masses = output.structure.to_atoms().get_masses()[:, None]
        velocities = output.velocities_angstrom_per_fs / units.fs * np.sqrt(masses / kt)
        assert kstest(velocities.ravel(), "norm").pvalue > 0.01
    assert np.ptp(output.conserved_energies_ev) / 60 < 2e-3
    assert np.ptp(output.heat_ev) / 60 > 0.01


def test_temperatures_have_their_ratio_of_probabilities() -> None:
    """ln of the ratio of two histograms of the energy is linear with slope 1/kT1 - 1/kT2 (Shirts 2013)."""
    atoms, springs = crystal(6)
    energies = []
    for kelvin in (300.0, 360.0):
        protocol = MDProtocol(
            n_steps=5000, time_step=5.0, traj_interval=20, friction_per_ps=20.0, temperature=kelvin,
            zero_linear_momentum=False,
        )  # fmt: skip
        energies.append(molecular_dynamics(atoms, springs, protocol).potential_energies_ev[20:])
    expected = 1 / (units.kB * 300.0) - 1 / (units.kB * 360.0)
    # Maximum likelihood of the slope for two ensembles, as in Shirts: logistic regression by Newton's method.
    values = np.concatenate(energies) - np.mean(np.concatenate(energies))
    labels = np.repeat([0.0, 1.0], [len(one) for one in energies])
    beta = np.zeros(2)
    design = np.column_stack([np.ones_like(values), values])
    for _ in range(20):
        odds = 1 / (1 + np.exp(-design @ beta))
        curvature = design.T @ (design * (odds * (1 - odds))[:, None])
        beta += np.linalg.solve(curvature, design.T @ (labels - odds))
    error = np.sqrt(np.linalg.inv(curvature)[1, 1])
    assert abs(beta[1] - expected) < 3.0 * error
    assert error < 0.45 * expected  # the test can tell them apart


@pytest.mark.parametrize("dynamics", ["velocityverlet", "nose-hoover-chain"])
def test_a_hundred_steps_are_those_of_ase(dynamics: str) -> None:
    protocol = MDProtocol(
        ensemble="nve" if dynamics == "velocityverlet" else "nvt", dynamics=dynamics, n_steps=100, time_step=2.0,
        temperature=600.0, tdamp=25.0, zero_linear_momentum=False,
    )  # fmt: skip
    ours = molecular_dynamics(COPPER, emt(), protocol)
    theirs = start_of_dynamics(COPPER, protocol)
    dice = np.random.default_rng(0)  # the velocities of ASE's MaxwellBoltzmannDistribution with this generator
    drawn = dice.standard_normal((4, 3)) * np.sqrt(COPPER.get_masses() * 600.0 * units.kB)[:, None]
    np.testing.assert_allclose(theirs.get_momenta(), drawn, rtol=1e-12)
    theirs.calc = emt().calculator  # type: ignore[attr-defined]
    if dynamics == "velocityverlet":
        VelocityVerlet(theirs, 2.0 * units.fs).run(100)
    else:
        NoseHooverChainNVT(theirs, 2.0 * units.fs, temperature_K=600.0, tdamp=25.0 * units.fs).run(100)
    np.testing.assert_allclose(ours.structure.positions_angstrom, theirs.positions, atol=1e-9)
    np.testing.assert_allclose(ours.velocities_angstrom_per_fs, theirs.get_velocities() * units.fs, atol=1e-9)
    assert ours.times_ps[-1] == pytest.approx(0.2)


def seeded(seed: int, **changes: object) -> MDProtocol:
    return MDProtocol.model_validate({"n_steps": 40, "time_step": 2.0, "mb_velocity_seed": seed, **changes})


def test_batch_mates_change_nothing() -> None:
    """Four structures of two sizes, with seeds, temperatures and lengths of their own, of which three fit at a time."""
    structures = [COPPER, bulk("Al"), COPPER * (1, 1, 2), COPPER]
    protocols = [seeded(0), seeded(1, temperature=500.0), seeded(2, n_steps=20), seeded(3)]
    together = dict(molecular_dynamics_many(structures, emt(), protocols, atoms_at_once=13))
    assert sorted(together) == [0, 1, 2, 3]
    for number, (atoms, protocol) in enumerate(zip(structures, protocols, strict=True)):
        alone, found = molecular_dynamics(atoms, emt(), protocol), together[number]
        assert isinstance(found, MDOutput)
        np.testing.assert_allclose(found.positions_angstrom, alone.positions_angstrom, atol=1e-9)
    one, other = together[0], together[3]
    assert isinstance(one, MDOutput)
    assert isinstance(other, MDOutput)
    assert np.abs(one.positions_angstrom - other.positions_angstrom).max() > 0.05  # their seeds differ


def test_an_exploding_run_ends_by_itself() -> None:
    outcomes = dict(molecular_dynamics_many([COPPER, COPPER], emt(), [seeded(0), seeded(0, time_step=60.0)]))
    assert isinstance(outcomes[0], MDOutput)
    assert isinstance(outcomes[1], ExplosionError)
    assert "exploded at step" in str(outcomes[1])
    assert "shorter time_step" in str(outcomes[1])


class Kept:
    """A checkpoint in memory that kills the run after some pieces, as a signal would."""

    def __init__(self, most: int) -> None:
        self.pieces: list[np.ndarray] = []
        self.most = most

    def load(self) -> list[np.ndarray]:
        """What was kept."""
        return list(self.pieces)

    def due(self, n_bytes: int) -> bool:
        """At every step."""
        return True

    def append(self, piece: np.ndarray) -> bool:
        """Keep it, or die."""
        if len(self.pieces) == self.most:
            raise KeyboardInterrupt
        self.pieces.append(piece.copy())
        return True


@pytest.mark.parametrize("forces", ["conservative", "mts(4)"])
@pytest.mark.parametrize("dynamics", ["velocityverlet", "langevin", "nose-hoover-chain"])
def test_a_killed_run_continues_to_the_bit(dynamics: str, forces: str) -> None:
    atoms, springs = crystal(5)[0], TwoKinds(crystal(5)[1].sites)
    ensemble = "nve" if dynamics == "velocityverlet" else "nvt"
    interval = 7 if forces == "conservative" else 8
    protocol = seeded(4, ensemble=ensemble, dynamics=dynamics, traj_interval=interval, forces=forces)
    whole, kept = molecular_dynamics(atoms, springs, protocol), Kept(23)
    with pytest.raises(KeyboardInterrupt):
        molecular_dynamics(atoms, springs, protocol, checkpoint=kept)
    kept.most, steps = 1000, []
    resumed = molecular_dynamics(atoms, springs, protocol, lambda step, kelvin: steps.append(step), kept)
    assert steps == list(range(24, 41))
    for name in ("positions_angstrom", "potential_energies_ev", "heat_ev", "velocities_angstrom_per_fs"):
        assert np.array_equal(getattr(whole, name), getattr(resumed, name)), name


def test_a_resumed_run_keeps_the_axes_of_its_relaxed_start() -> None:
    atoms = bulk("Cu", a=3.7)
    atoms.set_cell(atoms.cell.array @ [[1.0, 0.02, 0.0], [0.0, 1.0, 0.05], [0.0, 0.0, 1.03]], scale_atoms=True)
    atoms *= (2, 1, 1)
    relaxation = RelaxProtocol(fmax_ev_per_angstrom=0.1, optimizer="lbfgs")
    crystal_axes = {"n_steps": 20, "relax": relaxation, "force_symmetry": "random:2:1", "temperature": 900.0}
    protocol, force_field, kept = seeded(4, **crystal_axes), OrientationError(emt(), 0.02), Kept(13)
    whole = molecular_dynamics(atoms, force_field, protocol)
    with pytest.raises(KeyboardInterrupt):
        molecular_dynamics(atoms, force_field, protocol, checkpoint=kept)
    kept.most = 1000
    resumed = molecular_dynamics(atoms, force_field, protocol, checkpoint=kept)
    assert np.array_equal(whole.positions_angstrom, resumed.positions_angstrom)


def test_a_run_that_was_interrupted_after_its_last_step_ends_where_it_was() -> None:
    atoms, springs = crystal(5)
    protocol, kept = seeded(4, ensemble="nve"), Kept(1000)
    whole = molecular_dynamics(atoms, springs, protocol)

    def interrupt(step: int, kelvin: float) -> None:
        if step == protocol.n_steps:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        molecular_dynamics(atoms, springs, protocol, interrupt, kept)
    resumed = molecular_dynamics(atoms, springs, protocol, checkpoint=kept)
    assert np.array_equal(resumed.structure.positions_angstrom, whole.structure.positions_angstrom)


def test_fixed_atoms_stay_and_count_no_temperature() -> None:
    slab = COPPER * (1, 1, 2)
    slab.set_constraint(FixAtoms([0, 1]))
    output = molecular_dynamics(slab, emt(), seeded(0, temperature=600.0))
    assert output.degrees_of_freedom == 18
    assert np.array_equal(output.positions_angstrom[-1][:2], slab.positions[:2])
    assert np.abs(output.positions_angstrom[-1][2:] - slab.positions[2:]).max() > 0.01
    slab.set_constraint(FixAtoms(range(8)))
    with pytest.raises(StructureError, match="no degree of freedom"):
        molecular_dynamics(slab, emt(), seeded(0))


def test_momenta_at_the_start() -> None:
    water = start_of_dynamics(molecule("H2O"), MDProtocol(ensemble="nve", zero_angular_momentum=True))
    assert np.abs(water.get_momenta().sum(axis=0)).max() < 1e-12
    assert np.abs(water.get_angular_momentum()).max() < 1e-12
    at_rest = MDProtocol(ensemble="nve", zero_angular_momentum=True)
    counted = [degrees_of_freedom(molecule(name), at_rest) for name in ("H2O", "CO2", "CO")]
    assert counted == [3, 4, 1]  # vibrations
    assert MDProtocol().time_step_fs(water.numbers) == 0.5
    assert MDProtocol(temperature=None, temperature_over_melting=1.25).temperature_kelvin(COPPER.numbers) == 1697.5
    with pytest.raises(InputError, match="no melting temperature of H-O"):
        MDProtocol(temperature=None, temperature_over_melting=1.25).temperature_kelvin(water.numbers)


def test_pairs_vibrations_and_displacements_are_those_of_the_trajectory() -> None:
    output = molecular_dynamics(COPPER, emt(), MDProtocol(ensemble="nve", n_steps=600, time_step=2.0, temperature=100))
    summary = output.summary()
    assert summary["rdf_peak_angstrom"] == pytest.approx(3.61 / np.sqrt(2), abs=0.1)
    width = output.vdos_frequencies_thz[1]
    assert output.vdos.sum() * width == pytest.approx(12.0)
    assert output.vdos[output.vdos_frequencies_thz > 10.0].sum() * width < 0.2  # EMT's copper ends near 8 THz
    assert output.drift is not None
    assert abs(output.drift.slope_mev_per_atom_ps) < 0.05
    walk = np.cumsum(np.random.default_rng(0).normal(size=(400, 50, 3)), axis=0)
    times, moved = mean_square_displacement(walk, 1000.0, np.ones(50))
    assert moved[10] / times[10] == pytest.approx(3 * 49 / 50, rel=0.1)  # relative to the centre of 50 walkers


def test_multiple_time_steps_are_those_of_r_respa() -> None:
    """Against the published scheme, written out: half a slow kick, M steps with fast forces, half a slow kick."""
    atoms, steps, interval = crystal(4)[0], 24, 4
    force_field = TwoKinds(crystal(4)[1].sites, swirl=0.8)
    protocol = MDProtocol(
        ensemble="nve", n_steps=steps, time_step=1.5, traj_interval=8, forces="mts(4)", temperature=900.0
    )
    output = molecular_dynamics(atoms, force_field, protocol)
    assert force_field.force_evaluations == (steps + 1) + (steps // interval + 1)
    moving, time = start_of_dynamics(atoms, protocol), 1.5 * units.fs
    momenta, masses, fast = moving.get_momenta(), moving.get_masses()[:, None], DirectForces(force_field)

    def forces(which: ForceField) -> np.ndarray:
        return which.evaluate([moving])[0].forces

    for step in range(steps):
        if step % interval == 0:
            momenta = momenta + interval * time / 2 * (forces(force_field) - forces(fast))
        momenta = momenta + time / 2 * forces(fast)
        moving.positions += time * momenta / masses
        momenta = momenta + time / 2 * forces(fast)
        if (step + 1) % interval == 0:
            momenta = momenta + interval * time / 2 * (forces(force_field) - forces(fast))
    np.testing.assert_allclose(output.structure.positions_angstrom, moving.positions, rtol=0, atol=1e-12)
    np.testing.assert_allclose(output.velocities_angstrom_per_fs, momenta / masses * units.fs, rtol=0, atol=1e-14)


def test_the_spread_of_multiple_time_steps_is_that_of_conservative_forces() -> None:
    """Springs about the origin have no direction; the swirl of the direct forces has one."""
    atoms = Atoms("Si3", positions=0.1 * np.eye(3), cell=9 * np.eye(3), pbc=(True, True, False))
    protocol = seeded(4, n_steps=8, traj_interval=8, forces="mts(4)", force_symmetry="random:2:1+lab")
    output = molecular_dynamics(atoms, TwoKinds(np.zeros((3, 3))), protocol)
    assert output.orientation_spread is not None
    assert output.orientation_spread[1] < 1e-12


def test_multiple_time_steps_conserve_energy_where_direct_forces_do_not() -> None:
    atoms, springs = crystal(6)[0], crystal(6)[1]
    drifts = {}
    for forces in ("conservative", "direct", "mts(4)"):
        protocol = MDProtocol(
            ensemble="nve", n_steps=400, time_step=2.0, traj_interval=8, forces=forces, temperature=300.0
        )
        output = molecular_dynamics(atoms, TwoKinds(springs.sites, swirl=0.05), protocol)
        assert output.drift is not None
        drifts[forces] = abs(output.drift.slope_mev_per_atom_ps)
    assert drifts["direct"] > 1.0
    assert drifts["mts(4)"] < 0.02 * drifts["direct"]
    assert drifts["conservative"] < 0.02 * drifts["direct"]


def test_impossible_choices_of_forces_are_refused() -> None:
    atoms, springs = crystal(2)
    for text in ("mts", "mts(1)", "mts(2000)", "fast"):
        with pytest.raises(ValueError, match="conservative, direct, or mts"):
            MDProtocol(forces=text)
    with pytest.raises(ValueError, match="multiples of 8 for traj_interval and n_steps"):
        MDProtocol(forces="mts(8)")
    with pytest.raises(ModelError, match="no heads that predict forces directly"):
        molecular_dynamics(atoms, springs, MDProtocol(forces="direct"))
    with pytest.raises(InputError, match="share `parity`, `force_symmetry` and `forces`"):
        list(molecular_dynamics_many([atoms, atoms], springs, [MDProtocol(), MDProtocol(forces="direct")]))
    assert MDProtocol(forces="conservative").hash() == MDProtocol().hash() != MDProtocol(forces="direct").hash()


@pytest.mark.parametrize(
    ("field", "value"),
    [("symmetry", "explore"), ("forces", "direct"), ("force_symmetry", "project"), ("parity", "average")],
)
def test_a_relaxation_that_differs_from_its_dynamics_is_refused(field: str, value: str) -> None:
    with pytest.raises(ValueError, match=rf"relax\.{field}={value}"):
        MDProtocol.model_validate({"relax": {field: value}})
    if field == "forces":
        assert MDProtocol.model_validate({"relax": {field: value}, field: value}).relax is not None


def test_structures_share_force_calls_of_rotations_about_the_lab() -> None:
    atoms, springs = Atoms("Si3", positions=0.1 * np.eye(3)), TwoKinds(np.zeros((3, 3)))
    list(molecular_dynamics_many([atoms, atoms], springs, seeded(4, n_steps=10, force_symmetry="random:2:1+lab")))
    assert springs.calls == [4] * 11
