"""The files of a result: figures, and the relaxed structure. Written once, whole or not at all."""

import glob
import os
import platform
import shutil
from collections.abc import Callable
from pathlib import Path

from esen_flows.cli.output.report import references_of
from esen_flows.schemas.documents import RelaxOutput, ResultDocument

Writer = Callable[[ResultDocument, Path], object]


def artefact_paths(document: ResultDocument, folder: Path) -> list[Path]:
    """The files that a result of this kind has, as far as it holds what they show."""
    held = document.output or {}
    missing = {name for name, methods in _NEEDS.items() if not methods <= set(held.get("mode_kappa_w_per_m_k") or {})}
    if held.get("positions_path_angstrom") is None:
        missing.add("trajectory.extxyz")
    return [folder / name for name in _WRITERS.get(document.kind, {}) if held and name not in missing]


def write_artefacts(document: ResultDocument, folder: Path) -> None:
    """Write the files of a result that are not there yet, and clear away what killed commands left half-written."""
    folder.mkdir(parents=True, exist_ok=True)
    _remove_leftovers(folder)
    desk = folder / f".partial-{platform.node()}-{os.getpid()}"
    desk.mkdir(exist_ok=True)
    try:
        for path in artefact_paths(document, folder):
            if not path.exists():
                _WRITERS[document.kind][path.name](document, desk / path.name)
                # The file that is looked for comes last: with it, its companions (an SVG beside a PNG) are there too.
                for made in sorted(desk.iterdir(), key=lambda made: made.name == path.name):
                    made.replace(folder / made.name)
    finally:
        shutil.rmtree(desk)


def _remove_leftovers(folder: Path) -> None:
    for desk in folder.glob(f".partial-{glob.escape(platform.node())}-*"):
        process = Path("/proc") / desk.name.rpartition("-")[2]
        if process.parent.is_dir() and not process.exists():
            shutil.rmtree(desk, ignore_errors=True)


def _relaxed(document: ResultDocument, path: Path) -> None:
    from ase.io import write

    write(path, RelaxOutput.model_validate(document.output).structure.to_atoms(), format="extxyz")


def _trajectory(document: ResultDocument, path: Path) -> None:
    """All steps with their energies, for any viewer of extended XYZ."""
    from ase.calculators.singlepoint import SinglePointCalculator
    from ase.io import write

    output, frames = RelaxOutput.model_validate(document.output), []
    assert output.positions_path_angstrom is not None  # or there is no such file
    assert output.cells_path_angstrom is not None
    steps = zip(output.positions_path_angstrom, output.cells_path_angstrom, output.energies_ev, strict=True)
    for positions, cell, energy in steps:
        frames.append(output.structure.to_atoms())
        frames[-1].set_cell(cell)
        frames[-1].positions = positions
        frames[-1].calc = SinglePointCalculator(frames[-1], energy=float(energy))
    write(path, frames, format="extxyz")


# The figures' modules are imported when one is missing: matplotlib costs a second, which a stored answer does not pay.
def _relaxation(document: ResultDocument, path: Path) -> None:
    from esen_flows.plots.relaxation import plot_relaxation

    plot_relaxation(document, path)


def _phonon(document: ResultDocument, path: Path) -> None:
    from esen_flows.plots.phonon import plot_phonon

    plot_phonon(document, path)


def _kappa(document: ResultDocument, path: Path) -> None:
    from esen_flows.plots.conductivity import ReferencePoint, plot_kappa

    temperature = document.summary["temperature_kelvin"]
    entries = references_of(document, "kappa_rta_w_per_m_k")
    points = [
        ReferencePoint(reference.source, float(temperature or 0.0), reference.value)
        for entry in entries
        for reference in entry.reference
    ]
    plot_kappa(document, path, points)


def _cumulative(document: ResultDocument, path: Path) -> None:
    from esen_flows.plots.conductivity import plot_cumulative

    plot_cumulative(document, path)


def _lifetimes(document: ResultDocument, path: Path) -> None:
    from esen_flows.plots.lifetimes import plot_lifetimes

    plot_lifetimes(document, path)


def _mean_free_paths(document: ResultDocument, path: Path) -> None:
    from esen_flows.plots.lifetimes import plot_mean_free_paths

    plot_mean_free_paths(document, path)


# Conductivities of modes by these methods, which results of earlier versions do not hold.
_NEEDS = {"lifetimes.png": {"rta"}, "mean_free_paths.png": {"rta"}}
_WRITERS: dict[str, dict[str, Writer]] = {
    "relax": {"relaxed.extxyz": _relaxed, "trajectory.extxyz": _trajectory, "relaxation.png": _relaxation},
    "phonon": {"phonon.png": _phonon},
    "conductivity": {
        "kappa.png": _kappa,
        "cumulative_kappa.png": _cumulative,
        "lifetimes.png": _lifetimes,
        "mean_free_paths.png": _mean_free_paths,
    },
}
