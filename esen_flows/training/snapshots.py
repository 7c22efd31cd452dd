"""Snapshots of molecular dynamics: what a crystal does when it is warm, by the force field that will label it."""

import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
from ase import Atoms, units
from ase.md.langevin import Langevin

from esen_flows.data.generate import Dynamics
from esen_flows.data.recipes import Group
from esen_flows.forcefield.ase_calculator import ForceFieldCalculator
from esen_flows.forcefield.contract import ForceField
from esen_flows.schemas.keys import atoms_key, sha256_of

# A twelfth of the shortest period of diamond, the stiffest crystal that there is.
TIMESTEP_FEMTOSECONDS = 2.0
# Strong: a thermostat that mixes within a short trajectory matters here, and undisturbed dynamics do not.
FRICTION_PER_FEMTOSECOND = 0.02


def langevin(force_field: ForceField, folder: Path | str, progress: Callable[[str], None] | None = None) -> Dynamics:
    """Constant-volume Langevin dynamics by a force field, as `generate` calls them.

    Finished trajectories are kept: the labelling of a dataset that was interrupted must go on with the very same
    structures, and rounding alone lets a trajectory that is run again drift away.

    Parameters
    ----------
    force_field
        used as it is, without inversion averaging: it decides where the atoms go, labels come later.
    folder
        of the kept trajectories, one small file each.
    progress
        told of every trajectory that is run and not read.
    """
    folder = Path(folder)

    def dynamics(start: Atoms, group: Group, seed: int) -> list[Atoms]:
        asked = {
            "start": atoms_key(start),
            "force_field": force_field.key,
            "seed": seed,
            "snapshots": group.snapshots,
            "temperature": list(group.temperature_kelvin),
            "times": [group.warm_up_femtoseconds, group.interval_femtoseconds],
            "constants": [TIMESTEP_FEMTOSECONDS, FRICTION_PER_FEMTOSECOND],
        }
        file = folder / f"{sha256_of(asked)[:32]}.npy"
        if not file.is_file():
            if progress is not None:
                progress(f"{start.get_chemical_formula()}, {len(start)} atoms")
            _save(file, trajectory(start, group, force_field, seed))
        frames = []
        for positions in np.load(file):
            frame = start.copy()
            frame.positions = positions
            frames.append(frame)
        return frames

    return dynamics


def _save(file: Path, positions: np.ndarray) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    temporary = file.with_name(f".{file.name}.{os.getpid()}.tmp")
    try:
        with temporary.open("wb") as stream:
            np.save(stream, positions)
        os.replace(temporary, file)
    finally:
        temporary.unlink(missing_ok=True)


def trajectory(start: Atoms, group: Group, force_field: ForceField, seed: int) -> np.ndarray:
    """(snapshots, n, 3) positions in Angstrom along a Langevin trajectory from `start`.

    Parameters
    ----------
    start
        not changed.
    group
        its temperatures and times.
    seed
        of the initial velocities and of the thermostat's noise.

    Raises
    ------
    StructureError, UnknownElementError, EvaluationError
        from the force field.
    """
    work = start.copy()
    work.calc = ForceFieldCalculator(force_field)
    generator = np.random.default_rng(seed)
    temperatures = np.linspace(*group.temperature_kelvin, group.snapshots)
    # All energy is kinetic at a perfect crystal, and half of it goes into the springs: hence twice the temperature.
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
