"""How well a force field conserves energy in constant-energy dynamics: protocol and documents."""

from typing import Annotated, Literal

from pydantic import BeforeValidator, Field

from esen_flows.schemas.document_base import Array, Document
from esen_flows.schemas.frozen import Frozen
from esen_flows.schemas.protocol_types import one_or_more

Systems = Literal["full", "published"]
SystemNames = Annotated[tuple[str, ...], BeforeValidator(one_or_more), Field(min_length=1)]


class NveProtocol(Frozen):
    """Which systems run at constant energy, and for how long.

    Attributes
    ----------
    systems
        "full", the default: four crystals of the force field's own elements, with time steps of 2 fs (1 fs with
        elements lighter than 12 u) from 600 K. "published": the systems of the eSEN paper, 27 metals of TM23 at 1.25 of
        their melting temperatures with 5 fs and seven molecules of MD22 at 500 K (two of them at 400 K) with 1 fs, as
        far as the force field knows their elements. That takes a GPU. Otherwise names: crystals as those of "full", and
        molecules of ASE's set G2, such as H2O, as those of MD22.
    duration_ps
        Length of each trajectory in ps; 10 by default. The paper's is 100.
    half_step_ps
        Length in ps of a second trajectory of each system with half the time step, which tells a drift of the
        integrator from one of the force field; 0 for none. 5 by default.
    seeds
        Seeds of the initial velocities; one trajectory of each system for each of them. One by default.
    """

    systems: Systems | SystemNames = Field(default="full", union_mode="left_to_right")
    duration_ps: float = Field(default=10.0, gt=0.0, le=1e5)
    half_step_ps: float = Field(default=5.0, ge=0.0, le=1e5)
    seeds: tuple[int, ...] = Field(default=(0,), min_length=1)


class EnergyDrift(Document):
    """Statistics of the total energy of one trajectory at constant energy, each under the name of its source.

    Attributes
    ----------
    slope_mev_per_atom_ps
        Slope of a straight line through the total energy, by least squares.
    slope_interval_mev_per_atom_ps
        Half-width of its 95 % confidence interval, from the means of 20 blocks and their autocorrelation.
    fluctuation_mev_per_atom
        Standard deviation of the total energy about that line. It falls with the square of the time step where the
        integrator causes it.
    fairchem_mev_per_atom_ps
        Drift as the authors of eSEN compute it, never negative. For an exactly linear drift it is 8/9 of the slope.
    lambench_slope_ev_per_atom_ps
        Absolute slope of LAMBench, after 20 % of the trajectory.
    lambench_score
        max(0, log10(slope / (5e-4 eV/atom/ps))), at most 5.
    mlipaudit_drift_ratio
        Absolute change of the fitted line over the trajectory, over the standard deviation of the kinetic energy.
    """

    slope_mev_per_atom_ps: float
    slope_interval_mev_per_atom_ps: float
    fluctuation_mev_per_atom: float
    fairchem_mev_per_atom_ps: float
    lambench_slope_ev_per_atom_ps: float
    lambench_score: float
    mlipaudit_drift_ratio: float


class NveRun(Document):
    """One trajectory at constant energy.

    Attributes
    ----------
    system
        Name of the system, such as "MgO" or "Ac-Ala3-NHMe".
    benchmark
        "TM23", "MD22", "full" (crystals) or "molecules", over whose systems statistics are averaged.
    start
        Where its starting structure is from.
    formula
        Chemical formula of the cell.
    n_atoms
        Number of atoms.
    temperature_kelvin
        Temperature of the initial velocities in K.
    time_step_fs
        Time step in fs.
    duration_ps
        Length in ps.
    seed
        Seed of the initial velocities.
    drift
        Statistics of its total energy; None if it failed.
    failure
        Why there is no complete trajectory; None if there is one. LAMBench's score of a failure is 5.
    times_ps
        (frames,) times in ps; empty if it failed.
    total_energies_ev
        (frames,) total energies in eV.
    kinetic_energies_ev
        (frames,) kinetic energies in eV.
    """

    system: str
    benchmark: str
    start: str
    formula: str
    n_atoms: int
    temperature_kelvin: float
    time_step_fs: float
    duration_ps: float
    seed: int
    drift: EnergyDrift | None
    failure: str | None
    times_ps: Array
    total_energies_ev: Array
    kinetic_energies_ev: Array


class StepDependence(Document):
    """How the energy of one system depends on the time step.

    Attributes
    ----------
    time_steps_fs
        (3,) time steps in fs, each half of the one before.
    fluctuations_mev_per_atom
        (3,) standard deviations of the total energy about its slope.
    ratios
        (2,) fluctuation of the longest step over those of the half and of the quarter: 4 and 16 for a smooth energy.
    second_order
        Whether the ratios are 4 +- 15 % and 16 +- 30 %: then velocity Verlet alone causes the fluctuation.
    slopes_mev_per_atom_ps
        (3,) slopes of the total energy.
    intercept_mev_per_atom_ps
        Slope in the limit of short steps, from a fit in the square of the step: the part that the integrator does not
        cause.
    """

    time_steps_fs: tuple[float, ...]
    fluctuations_mev_per_atom: tuple[float, ...]
    ratios: tuple[float, ...]
    second_order: bool
    slopes_mev_per_atom_ps: tuple[float, ...]
    intercept_mev_per_atom_ps: float


class NveOutput(Document):
    """Energy conservation of a force field on all systems of a protocol.

    Attributes
    ----------
    runs
        All trajectories: for each seed those of the systems, then those with half the time step.
    fairchem_mev_per_atom_ps
        Mean of fairchem's statistic over the systems of each `NveRun.benchmark` that ended.
    lambench_score
        Mean of LAMBench's score over the runs with the full time step, 5 for each failure.
    largest_slope_ev_per_atom_ps
        Largest absolute slope of these runs in eV/atom/ps; None if none ended.
    failures
        Number of runs that failed.
    """

    runs: list[NveRun]
    fairchem_mev_per_atom_ps: dict[str, float]
    lambench_score: float
    largest_slope_ev_per_atom_ps: float | None
    failures: int

    def summary(self) -> dict[str, float | int | str | bool | None]:
        """The largest drift, LAMBench's score, and the numbers of trajectories and of failures.

        Returns
        -------
        dict[str, float | int | str | bool | None]
            Values by name.
        """
        return {
            "largest_slope_ev_per_atom_ps": self.largest_slope_ev_per_atom_ps,
            "lambench_score": self.lambench_score,
            "failures": self.failures,
            "trajectories": len(self.runs),
        }
