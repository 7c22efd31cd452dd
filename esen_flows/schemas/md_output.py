"""The document of molecular dynamics."""

import numpy as np

from esen_flows.schemas.documents import Array, Document, StructureData
from esen_flows.schemas.nve import EnergyDrift
from esen_flows.units import EV_PER_ANGSTROM3_TO_GPA, KB_EV_PER_KELVIN


class MDOutput(Document):
    """A trajectory in a constant cell, and what follows from it.

    Attributes
    ----------
    structure
        The structure after the last step, with atoms where they have moved to: not wrapped into the cell.
    velocities_angstrom_per_fs
        (n, 3) velocities after the last step.
    temperature_kelvin
        Temperature that the protocol asked for.
    time_step_fs
        Time step.
    n_steps
        Number of steps.
    frame_interval_fs
        Time between two frames. The first frame is the start.
    degrees_of_freedom
        Number of degrees of freedom by which temperatures follow from kinetic energies.
    positions_angstrom
        (frames, n, 3) positions, not wrapped.
    potential_energies_ev, kinetic_energies_ev
        (frames,) energies of the cell.
    heat_ev
        (frames,) energy that the thermostat has given to the atoms since the start; 0 at constant energy. Without it
        the total energy is conserved by any of the integrators.
    stresses_ev_per_angstrom3
        (frames, 3, 3) stresses by the forces, positive under tension as in ASE, without the kinetic part; None without
        a cell.
    rdf_distances_angstrom, rdf
        (bins,) distances and distribution of all pairs g(r), up to half the shortest lattice vector or 6 Angstrom,
        whichever is longer; None without a cell.
    msd_times_ps, msd_angstrom2
        (times,) mean square displacement of the atoms relative to the centre of mass, over all starting frames, up to
        half the length of the trajectory.
    vdos_frequencies_thz, vdos
        (frequencies,) vibrational density of states in 1/THz, whose integral over the frequency is 3 n.
    drift
        Statistics of the energy without the heat of the thermostat; None for fewer than 40 frames.
    orientation_spread
        (3,) for forces that are means over rotations: root mean square over steps, rotations and components of the
        deviations of the energy per atom (eV), the forces (eV/Angstrom) and the stress (eV/Angstrom^3); None where
        nothing was averaged over rotations. Steps before an interruption have no part in it.
    """

    structure: StructureData
    velocities_angstrom_per_fs: Array
    temperature_kelvin: float
    time_step_fs: float
    n_steps: int
    frame_interval_fs: float
    degrees_of_freedom: int
    positions_angstrom: Array
    potential_energies_ev: Array
    kinetic_energies_ev: Array
    heat_ev: Array
    stresses_ev_per_angstrom3: Array | None
    rdf_distances_angstrom: Array | None
    rdf: Array | None
    msd_times_ps: Array
    msd_angstrom2: Array
    vdos_frequencies_thz: Array
    vdos: Array
    drift: EnergyDrift | None
    orientation_spread: Array | None = None

    @property
    def times_ps(self) -> np.ndarray:
        """(frames,) times of the frames in ps."""
        return np.arange(len(self.positions_angstrom)) * self.frame_interval_fs / 1000.0

    @property
    def temperatures_kelvin(self) -> np.ndarray:
        """(frames,) temperatures by the kinetic energies in K."""
        return 2.0 * self.kinetic_energies_ev / (self.degrees_of_freedom * KB_EV_PER_KELVIN)

    @property
    def conserved_energies_ev(self) -> np.ndarray:
        """(frames,) potential and kinetic energy without the heat of the thermostat, in eV."""
        return np.asarray(self.potential_energies_ev + self.kinetic_energies_ev - self.heat_ev)

    def summary(self) -> dict[str, float | int | str | bool | None]:
        """The numbers that tables show.

        Returns
        -------
        dict[str, float | int | str | bool | None]
            Means over the second half of the frames, where the start is forgotten; the drift of the conserved energy
            over all of them, None for fewer than 40.
        """
        half = len(self.positions_angstrom) // 2
        atoms, pressure, peak = len(self.structure.numbers), None, None
        if self.stresses_ev_per_angstrom3 is not None:
            stress = np.trace(self.stresses_ev_per_angstrom3[half:], axis1=1, axis2=2).mean() / 3.0
            volume = abs(float(np.linalg.det(self.structure.cell_angstrom)))
            kinetic = 2.0 / 3.0 * self.kinetic_energies_ev[half:].mean() / volume
            pressure = float(kinetic - stress) * EV_PER_ANGSTROM3_TO_GPA
        if self.rdf is not None and self.rdf_distances_angstrom is not None and self.rdf.any():
            peak = float(self.rdf_distances_angstrom[int(np.argmax(self.rdf))])
        drift = self.drift
        return {
            "potential_energy_per_atom_ev": float(self.potential_energies_ev[half:].mean()) / atoms,
            "mean_temperature_kelvin": float(self.temperatures_kelvin[half:].mean()),
            "mean_pressure_gpa": pressure,
            "drift_mev_per_atom_ps": None if drift is None else drift.slope_mev_per_atom_ps,
            "drift_interval_mev_per_atom_ps": None if drift is None else drift.slope_interval_mev_per_atom_ps,
            "rdf_peak_angstrom": peak,
            "msd_angstrom2": float(self.msd_angstrom2[-1]),
            "n_steps": self.n_steps,
            "duration_ps": self.n_steps * self.time_step_fs / 1000.0,
        }
