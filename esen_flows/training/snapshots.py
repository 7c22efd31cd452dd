"""Snapshots of molecular dynamics, run with the force field that will label them."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
from ase import Atoms, units
from ase.md.langevin import Langevin

from esen_flows.data.generate import Dynamics
from esen_flows.data.recipes import Group
from esen_flows.files import written_whole
from esen_flows.forcefield.ase_calculator import ForceFieldCalculator
from esen_flows.forcefield.contract import ForceField
from esen_flows.schemas.keys import atoms_key, sha256_of

# A twelfth of the shortest period of diamond, the stiffest crystal.
TIMESTEP_FEMTOSECONDS = 2.0
# Strong: the thermostat has to mix within a short trajectory, and undisturbed dynamics do not matter here.
FRICTION_PER_FEMTOSECOND = 0.02


def langevin(force_field: ForceField, folder: Path | str, progress: Callable[[str], None] | None = None) -> Dynamics:
    """Constant-volume Langevin dynamics with a force field, as `generate` calls them.

    Finished trajectories are kept: the labelling of a dataset that was interrupted has to go on with the very same
    structures, and rounding alone makes a trajectory that is run again drift away.

    Parameters
    ----------
    force_field
        Decides where the atoms go. It is used as it is, without inversion averaging; labels come later.
    folder
        Folder of the kept trajectories, one small file each.
    progress
        Called with a description of every trajectory that is run instead of read.

    Returns
    -------
    Dynamics
        Gives the snapshots of a start, a group of the recipe and a seed.
    """
    folder = Path(folder)

    def dynamics(start: Atoms, group: Group, seed: int) -> list[Atoms]:
        request = {
            "start": atoms_key(start),
            "force_field": force_field.key,
            "seed": seed,
            "snapshots": group.snapshots,
            "temperature": list(group.temperature_kelvin),
            "times": [group.warm_up_femtoseconds, group.interval_femtoseconds],
            "constants": [TIMESTEP_FEMTOSECONDS, FRICTION_PER_FEMTOSECOND],
        }
        file = folder / f"{sha256_of(request)[:32]}.npy"
        if not file.is_file():
            if progress is not None:
                progress(f"{start.get_chemical_formula()}, {len(start)} atoms")
            positions = trajectory(start, group, force_field, seed)
            folder.mkdir(parents=True, exist_ok=True)
            with written_whole(file) as temporary:
                np.save(temporary, positions)
        frames = []
        for positions in np.load(file):
            frame = start.copy()
            frame.positions = positions
            frames.append(frame)
        return frames

    return dynamics


def trajectory(start: Atoms, group: Group, force_field: ForceField, seed: int) -> np.ndarray:
    """Run a Langevin trajectory.

    Parameters
    ----------
    start
        Structure to start from; not changed.
    group
        Gives temperatures, times and the number of snapshots.
    force_field
        Decides where the atoms go.
    seed
        Seed of the initial velocities and of the thermostat's noise.

    Returns
    -------
    np.ndarray
        (snapshots, n, 3) positions in Angstrom.

    Raises
    ------
    StructureError, UnknownElementError, EvaluationError
        The force field cannot evaluate the structure.
    """
    work = start.copy()
    work.calc = ForceFieldCalculator(force_field)
    generator = np.random.default_rng(seed)
    temperatures = np.linspace(*group.temperature_kelvin, group.snapshots)
    # At a perfect crystal all energy is kinetic, and half of it goes into the springs: hence twice the temperature.
    kinetic = 2.0 * units.kB * temperatures[0]
    work.set_momenta(generator.standard_normal((len(work), 3)) * np.sqrt(kinetic * work.get_masses())[:, None])
    thermostat = Langevin(
        work,
        timestep=TIMESTEP_FEMTOSECONDS * units.fs,
        temperature_K=temperatures[0],
        friction=FRICTION_PER_FEMTOSECOND / units.fs,
        fixcm=False,  # a drift of the whole crystal changes no distance
        rng=generator,
    )
    thermostat.run(round(group.warm_up_femtoseconds / TIMESTEP_FEMTOSECONDS))
    frames = []
    for temperature in temperatures:
        thermostat.set_temperature(temperature_K=temperature)
        thermostat.run(max(1, round(group.interval_femtoseconds / TIMESTEP_FEMTOSECONDS)))
        frames.append(work.get_positions())
    return np.array(frames)
