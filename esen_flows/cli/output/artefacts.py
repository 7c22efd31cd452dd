"""The files of a result: figures and structures, each written once and whole or not at all."""

import glob
import platform
from collections.abc import Callable, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

import numpy as np
from ase import Atoms
from ase.stress import full_3x3_to_voigt_6_stress

from esen_flows.cli.output.report import references_of
from esen_flows.files import written_whole
from esen_flows.schemas.documents import RelaxOutput, ResultDocument, StaticOutput
from esen_flows.schemas.md_output import MDOutput
from esen_flows.schemas.property_entry import ResultFile
from esen_flows.schemas.property_lookup import entry_of
from esen_flows.units import FrequencyUnit

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from esen_flows.plots.conductivity import ReferencePoint


def artefact_paths(document: ResultDocument, folder: Path, unit: FrequencyUnit = "THz") -> list[Path]:
    """Files that a result has, as far as it holds the data that they show.

    Parameters
    ----------
    document
        Stored result; large arrays need not be loaded.
    folder
        Folder of the files.
    unit
        Unit of frequencies in figures; the names of those in another unit than THz end in it.

    Returns
    -------
    list[Path]
        Paths of the files, whether they exist or not; none for a failed result.
    """
    return list(_files(document, folder, unit))


def _files(document: ResultDocument, folder: Path, unit: FrequencyUnit) -> dict[Path, ResultFile]:
    """Paths of the files of a result, with their entries in the table of properties."""
    if not document.output:
        return {}
    entry = entry_of(document.kind)
    files = [file for file in entry.files if _has(document.output, file.needs)]
    if any(file.crystal for file in files) and not np.all(document.output[entry.structure]["pbc"]):
        files = [file for file in files if not file.crystal]
    return {folder / in_unit(file, unit): file for file in files}


def in_unit(file: ResultFile, unit: FrequencyUnit) -> str:
    """The name of a file of a result in a unit of frequency.

    Parameters
    ----------
    file
        Entry of the file.
    unit
        Unit of frequencies.

    Returns
    -------
    str
        The name, which ends in the unit if that matters to the figure and is not THz.
    """
    stem, dot, suffix = file.name.rpartition(".")
    return f"{stem}_{unit}{dot}{suffix}" if file.frequencies and unit != "THz" else file.name


def _has(output: Any, path: str) -> bool:
    """Whether an output holds a field; an empty path means the output itself."""
    for part in filter(None, path.split(".")):
        output = (output or {}).get(part)
    return output is not None


def write_artefacts(
    document: ResultDocument, folder: Path, parents: Sequence[ResultDocument] = (), unit: FrequencyUnit = "THz"
) -> None:
    """Write the files of a result that do not exist yet, and remove what killed commands left half-written.

    Parameters
    ----------
    document
        Stored result with its arrays.
    folder
        Folder of the files; it is made if it does not exist.
    parents
        Results of the steps before, which say what reference values the result can be compared with.
    unit
        Unit of frequencies in figures.

    Raises
    ------
    OSError
        The folder cannot be made or written to, or the disk is full.
    """
    from esen_flows.structures.export import write_crystal, write_frames

    folder.mkdir(parents=True, exist_ok=True)
    _remove_leftovers(folder)
    for path, file in _files(document, folder, unit).items():
        if path.exists():
            continue
        if path.suffix == ".png":
            _draw(document, file, path, parents, unit)
        else:
            with written_whole(path) as temporary:
                frames = _frames(document, path.name)
                if path.suffix == ".extxyz":
                    write_frames(temporary, frames)
                else:
                    write_crystal(temporary, frames[0], "cif" if path.suffix == ".cif" else "vasp", str(path))


def first_figure(document: ResultDocument, parents: Sequence[ResultDocument] = ()) -> bytes | None:
    """The first figure of a result.

    Parameters
    ----------
    document
        Stored result with its arrays.
    parents
        Results of the steps before.

    Returns
    -------
    bytes | None
        A PNG image; None for a result without figures.
    """
    with TemporaryDirectory() as folder:
        for path, file in _files(document, Path(folder), "THz").items():
            if path.suffix == ".png":
                _draw(document, file, path, parents, "THz")
                return path.read_bytes()
    return None


def _draw(
    document: ResultDocument, file: ResultFile, path: Path, parents: Sequence[ResultDocument], unit: FrequencyUnit
) -> None:
    draw = plot_functions(document.kind)[file.name]
    if file.name == "kappa.png":
        draw(document, path, _reference_points([*parents, document]))
    elif file.name == "diatomics.png":
        draw(document, path, _pbe_energies())
    elif file.frequencies:
        draw(document, path, unit=unit)
    else:
        draw(document, path)


def plot_functions(kind: str) -> dict[str, Callable[..., Path]]:
    """Functions that draw the figures of a kind of result.

    They are imported here because matplotlib takes a second, which a command whose figures exist does not spend.

    Parameters
    ----------
    kind
        Kind of result.

    Returns
    -------
    dict[str, Callable[..., Path]]
        By file name, functions of a document and a path; those of figures that can show several results take the other
        documents as their third argument, and those with an axis of frequencies their unit as `unit`.
    """
    from esen_flows.plots.audit import plot_audit
    from esen_flows.plots.branches import plot_branches
    from esen_flows.plots.conductivity import plot_cumulative, plot_kappa
    from esen_flows.plots.diatomics import plot_diatomics
    from esen_flows.plots.eos import plot_eos
    from esen_flows.plots.lifetimes import plot_lifetimes, plot_mean_free_paths
    from esen_flows.plots.md import plot_md
    from esen_flows.plots.phonon import plot_phonon
    from esen_flows.plots.relaxation import plot_relaxation
    from esen_flows.plots.thermal import plot_thermal

    functions: dict[str, Callable[..., Path]] = {
        "relaxation.png": plot_relaxation,
        "branches.png": plot_branches,
        "eos.png": plot_eos,
        "diatomics.png": plot_diatomics,
        "md.png": plot_md,
        "audit.png": plot_audit,
        "phonon.png": plot_phonon,
        "thermal_properties.png": plot_thermal,
        "kappa.png": plot_kappa,
        "cumulative_kappa.png": plot_cumulative,
        "lifetimes.png": plot_lifetimes,
        "mean_free_paths.png": plot_mean_free_paths,
    }
    figures = (file.name for file in entry_of(kind).files if file.name.endswith(".png"))
    return {name: functions[name] for name in figures}


def _pbe_energies() -> "dict[str, tuple[NDArray[np.float64], NDArray[np.float64]]]":
    from esen_flows.metrics.diatomics import pbe_curves

    return {element: (curve.distances_angstrom, curve.energies_ev) for element, curve in pbe_curves().items()}


def _reference_points(documents: Sequence[ResultDocument]) -> "list[ReferencePoint]":
    """Comparable conductivities on the card of the force field."""
    from esen_flows.plots.conductivity import ReferencePoint

    temperature = float(documents[-1].summary["temperature_kelvin"] or 0.0)
    return [
        ReferencePoint(reference.source, temperature, reference.value)
        for entry in references_of(documents, "kappa_rta_w_per_m_k")
        for reference in entry.reference
    ]


def _frames(document: ResultDocument, name: str) -> list[Atoms]:
    """The relaxed structure; for a trajectory the structure of every step with its energy."""
    from ase.calculators.singlepoint import SinglePointCalculator

    if name == "static.extxyz":
        return [_evaluated(StaticOutput.model_validate(document.output))]
    if document.kind == "md":
        return _moving(MDOutput.model_validate(document.output), last=name == "final.extxyz")
    output = RelaxOutput.model_validate(document.output)
    if name != "trajectory.extxyz":
        return [output.structure.to_atoms()]
    assert output.positions_path_angstrom is not None  # `artefact_paths` names no trajectory otherwise
    assert output.cells_path_angstrom is not None
    frames = []
    steps = zip(output.positions_path_angstrom, output.cells_path_angstrom, output.energies_ev, strict=True)
    for positions, cell, energy in steps:
        frame = output.structure.to_atoms()
        frame.set_cell(cell)
        frame.positions = positions
        frame.calc = SinglePointCalculator(frame, energy=float(energy))
        frames.append(frame)
    return frames


def _moving(output: MDOutput, *, last: bool) -> list[Atoms]:
    """Frames of a trajectory with their energies, or the structure after the last step with its velocities."""
    from ase import units
    from ase.calculators.singlepoint import SinglePointCalculator

    if last:
        atoms = output.structure.to_atoms()
        atoms.set_velocities(output.velocities_angstrom_per_fs / units.fs)
        return [atoms]
    frames = []
    for time, positions, energy in zip(
        output.times_ps, output.positions_angstrom, output.potential_energies_ev, strict=True
    ):
        frame = output.structure.to_atoms()
        frame.set_positions(positions, apply_constraint=False)
        frame.info["time_ps"] = float(time)
        frame.calc = SinglePointCalculator(frame, energy=float(energy))
        frames.append(frame)
    return frames


def _evaluated(output: StaticOutput) -> Atoms:
    """The structure with energy, forces, stress and, where there are some, energies of the atoms."""
    from ase.calculators.singlepoint import SinglePointCalculator

    atoms, results = output.structure.to_atoms(), {"energy": output.energy_ev, "forces": output.forces_ev_per_angstrom}
    if np.isfinite(output.stress_ev_per_angstrom3).all():
        results["stress"] = full_3x3_to_voigt_6_stress(output.stress_ev_per_angstrom3)
    if output.atom_energies_ev is not None:
        results["energies"] = output.atom_energies_ev
    atoms.calc = SinglePointCalculator(atoms, **results)
    return atoms


def _remove_leftovers(folder: Path) -> None:
    """Remove temporary files of `written_whole` whose process on this machine has ended."""
    for temporary in folder.glob(f".*.{glob.escape(platform.node())}-*.partial*"):
        process = Path("/proc") / temporary.name.rpartition(".partial")[0].rpartition("-")[2]
        if process.parent.is_dir() and not process.exists():
            temporary.unlink(missing_ok=True)
