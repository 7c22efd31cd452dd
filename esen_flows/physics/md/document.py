"""The document of a trajectory."""

import numpy as np
from ase import Atoms, units

from esen_flows.physics.conservation.nve import LEAST_FRAMES, energy_drift
from esen_flows.physics.md.analysis import (
    Trajectory,
    mean_square_displacement,
    minimum_image_radius,
    pair_distribution,
    vibrational_spectrum,
)
from esen_flows.physics.md.integrators import Body
from esen_flows.schemas.documents import StructureData
from esen_flows.schemas.md import MDProtocol
from esen_flows.schemas.md_output import MDOutput

_RDF_BINS, _RDF_FRAMES = 200, 200
_LEAST_RDF_ANGSTROM = 6.0  # beyond half of a small cell, whose pairs have several images there


def document_of(atoms: Atoms, body: Body, frames: np.ndarray, protocol: MDProtocol) -> MDOutput:
    """The document of a finished trajectory.

    Parameters
    ----------
    atoms
        The structure, with its positions after the last step.
    body
        Its state after the last step.
    frames
        (frames, 12 + 3 n) potential and kinetic energy, heat (eV), stress (eV/Angstrom^3) and positions (Angstrom).
    protocol
        Its protocol.

    Returns
    -------
    MDOutput
        The trajectory, and what follows from it.
    """
    potential, kinetic, heat = (frames[:, column].astype(np.float64) for column in range(3))
    stresses = frames[:, 3:12].reshape(-1, 3, 3).copy()
    positions = frames[:, 12:].reshape(len(frames), -1, 3).copy()
    step_fs = protocol.time_step_fs(atoms.numbers)
    interval = step_fs * protocol.traj_interval
    cells = np.broadcast_to(atoms.cell.array, (len(frames), 3, 3))
    trajectory = Trajectory(atoms.numbers, positions, cells, interval)
    distances, rdf = _pairs(atoms, trajectory) if atoms.pbc.all() else (None, None)
    times, displacements = mean_square_displacement(positions, interval, body.masses[:, 0])
    # The spectrum normalises each component to a sum of one; of a molecule the positions need no cell.
    frequencies, spectrum = vibrational_spectrum(trajectory)
    width = float(frequencies[1] - frequencies[0]) if len(frequencies) > 1 else 1.0
    drift = None
    if len(frames) >= LEAST_FRAMES:
        ps = np.arange(len(frames)) * interval / 1000.0
        drift = energy_drift(ps, potential + kinetic - heat, kinetic, len(atoms))
    return MDOutput(
        structure=StructureData.from_atoms(atoms),
        velocities_angstrom_per_fs=body.momenta / body.masses * units.fs,
        temperature_kelvin=protocol.temperature_kelvin(atoms.numbers),
        time_step_fs=step_fs,
        n_steps=protocol.n_steps,
        frame_interval_fs=interval,
        degrees_of_freedom=body.degrees_of_freedom,
        positions_angstrom=positions,
        potential_energies_ev=potential,
        kinetic_energies_ev=kinetic,
        heat_ev=heat,
        stresses_ev_per_angstrom3=stresses if np.isfinite(stresses).all() else None,
        rdf_distances_angstrom=distances,
        rdf=rdf,
        msd_times_ps=times,
        msd_angstrom2=displacements,
        vdos_frequencies_thz=frequencies,
        vdos=spectrum / width,
        drift=drift,
    )


def _pairs(atoms: Atoms, trajectory: Trajectory) -> tuple[np.ndarray, np.ndarray]:
    """Distances and g(r) over at most 200 frames of the trajectory."""
    radius = max(minimum_image_radius(trajectory.every(1, 1)), _LEAST_RDF_ANGSTROM)
    step = -(-len(trajectory.positions_angstrom) // _RDF_FRAMES)
    return pair_distribution(
        trajectory.every(step, (len(trajectory.positions_angstrom) - 1) // step + 1), _RDF_BINS, radius
    )
