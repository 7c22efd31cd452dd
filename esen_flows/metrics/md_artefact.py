"""The molecular dynamics task: its reference trajectories, metrics over systems, and the file of a submission."""

import csv
import gzip
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from ase import Atoms
from ase.data import atomic_masses

from esen_flows.errors import InputError
from esen_flows.metrics.artefacts import compressed_text
from esen_flows.physics.md.analysis import Trajectory, kinetic_temperature_kelvin

MD = "md-metrics.csv.gz"
METRICS = ("rdf_error", "adf_error", "vdos_error", "pressure_mae", "pressure_wasserstein", "pressure_error")
_FACTS = ("temperature_kelvin", "n_atoms", "run_time_sec", "max_rss_gb", "max_gpu_mem_gb", "hardware")
_GUARDED_FRAMES, _GUARD = 256, 3.0


@dataclass(frozen=True)
class ReferenceTrajectory:
    """A trajectory of the reference.

    Attributes
    ----------
    system
        Name of the system.
    temperature_kelvin
        Temperature of the thermostat.
    pbc
        (3,) directions in which the cell is repeated.
    trajectory
        Its frames.
    """

    system: str
    temperature_kelvin: float
    pbc: np.ndarray
    trajectory: Trajectory

    @property
    def start(self) -> Atoms:
        """The first frame, with `material_id` and `temperature_kelvin` in `info`."""
        frames = self.trajectory
        return Atoms(
            frames.numbers, positions=frames.positions_angstrom[0], cell=frames.cells_angstrom[0], pbc=self.pbc,
            info={"material_id": self.system, "temperature_kelvin": self.temperature_kelvin},
        )  # fmt: skip


def read_reference_trajectories(path: Path, *, starts_only: bool = False) -> Iterator[ReferenceTrajectory]:
    """Trajectories of DynaMat's file, one after the other.

    The file was not at hand when this was written. Its groups are as the task describes them; where that says nothing,
    cells may be one or one for each frame, stresses (eV/Angstrom^3) 3 x 3 or the six of Voigt, and `dt_fs` is the time
    between two frames.

    Parameters
    ----------
    path
        HDF5 file with a group for each system.
    starts_only
        Whether to read first frames alone, and skip the check of the temperature.

    Yields
    ------
    ReferenceTrajectory
        Trajectory of one system.

    Raises
    ------
    InputError
        The file cannot be read, or the kinetic temperature differs from the stated one by more than a factor of 3.
    """
    import h5py

    frames = slice(0, 1) if starts_only else slice(None)
    try:
        with h5py.File(path) as file:
            names = sorted(
                name for name, group in file.items() if isinstance(group, h5py.Group) and "positions" in group
            )
            if not names:
                raise InputError(f"{path} has no group with positions; fetch it again: esen-flows data pull dynamat")
            for name in names:
                found = _of_group(name, file[name], frames)
                if not starts_only:
                    _check_temperature(path, found)
                yield found
    except (OSError, KeyError, ValueError, TypeError, AttributeError) as error:
        if isinstance(error, InputError):
            raise
        raise InputError(f"{path}: no trajectories can be read ({type(error).__name__}: {error})") from None


def _of_group(name: str, group: Any, frames: slice) -> ReferenceTrajectory:
    positions = np.asarray(group["positions"][frames], dtype=float)
    numbers = np.asarray(group["atomic_numbers"], dtype=np.int64)
    cells = np.asarray(group["cell"], dtype=float)
    cells = np.broadcast_to(cells if cells.ndim == 2 else cells[frames], (len(positions), 3, 3))
    stress = None
    if "stress" in group:
        values = np.asarray(group["stress"][frames], dtype=float)
        stress = values[:, :3] if values.ndim == 2 else np.diagonal(values, axis1=1, axis2=2)
    trajectory = Trajectory(numbers, positions, cells, float(group.attrs["dt_fs"]), stress)
    return ReferenceTrajectory(
        name, float(group.attrs["temperature_kelvin"]), np.resize(np.asarray(group["pbc"], dtype=bool), 3), trajectory
    )


def _check_temperature(path: Path, found: ReferenceTrajectory) -> None:
    first = found.trajectory.every(1, min(_GUARDED_FRAMES, len(found.trajectory.positions_angstrom)))
    kelvin = kinetic_temperature_kelvin(first, atomic_masses[first.numbers])
    if not found.temperature_kelvin / _GUARD < kelvin < found.temperature_kelvin * _GUARD:
        raise InputError(
            f"{path}: atoms of {found.system} move by {kelvin:.0f} K and not by {found.temperature_kelvin:.0f} K; are "
            "its time step in fs and its positions in Angstrom?"
        )


def md_means(rows: Sequence[Mapping[str, Any]]) -> dict[str, float | None]:
    """Metrics over systems under the names of the table of published results.

    Parameters
    ----------
    rows
        Metrics and facts of each system, as `read_md_metrics` gives them.

    Returns
    -------
    dict
        Means of the metrics, without systems that have none, to 4 digits; the sum of the times in s, None where one is
        missing or systems ran on different hardware, as on the leaderboard; and the number of systems with metrics.
    """
    means: dict[str, float | None] = {}
    for name in METRICS:
        known = [float(row[name]) for row in rows if row.get(name) is not None and math.isfinite(row[name])]
        means[f"md_{name}"] = round(float(np.mean(known)), 4) if known else None
    seconds = [row.get("run_time_sec") for row in rows]
    one_machine = len({row.get("hardware") for row in rows}) == 1
    is_timed = one_machine and bool(rows) and None not in seconds
    return means | {
        "md_run_time_sec": round(sum(float(each or 0.0) for each in seconds), 4) if is_timed else None,
        "md_n_systems": sum(any(row.get(name) is not None for name in METRICS) for row in rows),
    }


def write_md_metrics(path: Path, rows: Sequence[Mapping[str, Any]]) -> None:
    """Write the file of the molecular dynamics task.

    Parameters
    ----------
    path
        File to write.
    rows
        For each system its name "system", metrics and facts; None is written as a missing value.
    """
    names = ("system", *_FACTS, *METRICS)
    with compressed_text(path) as stream:
        writer = csv.writer(stream, lineterminator="\n")
        writer.writerow(names)
        writer.writerows(["" if row.get(name) is None else row[name] for name in names] for row in rows)


def read_md_metrics(path: Path) -> list[dict[str, Any]]:
    """Rows of the file of the molecular dynamics task.

    Parameters
    ----------
    path
        File with a row for each system.

    Returns
    -------
    list of dict
        Metrics and facts of each system, None where one is missing.

    Raises
    ------
    InputError
        The file cannot be read, or lacks a metric or the name of a system.
    """
    try:
        with gzip.open(path, "rt", encoding="utf-8", newline="") as stream:
            rows = list(csv.DictReader(stream))
        return [
            {"system": row["system"], "hardware": row.get("hardware") or None}
            | {name: float(row[name]) if row.get(name) else None for name in _FACTS if name != "hardware"}
            | {name: float(row[name]) if row[name] else None for name in METRICS}
            for row in rows
        ]
    except (OSError, EOFError, ValueError, KeyError, TypeError, csv.Error) as error:
        raise InputError(f"{path}: no metrics of trajectories can be read ({type(error).__name__}: {error})") from None
