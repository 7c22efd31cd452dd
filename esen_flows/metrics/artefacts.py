"""Files of a submission to Matbench Discovery: written from results, and read back without a database.

    DATE-discovery.csv.gz                      formation energies
    DATE-geo-opt.jsonl.gz                      relaxed structures and their energies
    DATE-geo-opt-symprec=S-moyo=V.csv.gz       distances from DFT's structures and symmetries
    DATE-phonons-kappa-103.json.gz             conductivities by modes

Compressed files hold no date, so that equal results give equal bytes.
"""

import csv
import gzip
import io
import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TextIO

import numpy as np
from pymatgen.core import Structure

from esen_flows.errors import InputError
from esen_flows.files import written_whole
from esen_flows.metrics.conductivity import ModeConductivity
from esen_flows.metrics.geometry import GeometryRow

DISCOVERY, GEOMETRY, CONDUCTIVITY = "discovery.csv.gz", "geo-opt.jsonl.gz", "phonons-kappa-103.json.gz"
BROKEN = (OSError, EOFError, ValueError, KeyError, TypeError, IndexError, AttributeError)


@dataclass(frozen=True)
class RelaxedCrystal:
    """A relaxed crystal of the geometry file.

    Attributes
    ----------
    material
        Number of the crystal.
    structure
        Structure after the relaxation.
    energy_ev
        Its energy by the force field in eV, without corrections.
    converged
        Whether the relaxation met its limit.
    n_steps
        Number of steps of the relaxation.
    """

    material: str
    structure: Structure
    energy_ev: float
    converged: bool
    n_steps: int

    def named(self, material: str) -> "RelaxedCrystal":
        """The same crystal under another number.

        Parameters
        ----------
        material
            The number.

        Returns
        -------
        RelaxedCrystal
            The crystal.
        """
        return replace(self, material=material)


@contextmanager
def compressed_text(path: Path) -> Iterator[TextIO]:
    """A gzip file for text, written whole or not at all, without its date and name.

    Parameters
    ----------
    path
        File to write.

    Yields
    ------
    TextIO
        Stream of UTF-8 text.
    """
    with (
        written_whole(path) as temporary,
        temporary.open("wb") as raw,
        gzip.GzipFile("", "wb", fileobj=raw, mtime=0) as packed,
        io.TextIOWrapper(packed, encoding="utf-8", newline="") as stream,
    ):
        yield stream


def write_formation_energies(path: Path, energies: Mapping[str, float | None]) -> None:
    """Write the file of the discovery task.

    Parameters
    ----------
    path
        File to write.
    energies
        Formation energy in eV/atom by material, with the corrections that the force field's energies need; None is
        written as a missing value.
    """
    with compressed_text(path) as stream:
        stream.write("material_id,e_form_per_atom\n")
        stream.writelines(
            f"{material},{'' if energy is None else f'{energy:.4f}'}\n" for material, energy in energies.items()
        )


def read_formation_energies(path: Path) -> dict[str, float]:
    """Formation energies of the file of the discovery task.

    Parameters
    ----------
    path
        File with the columns material_id and e_form_per_atom; those of older entries have the name of the model behind.

    Returns
    -------
    dict
        Formation energy in eV/atom by material, without missing ones.

    Raises
    ------
    InputError
        The file cannot be read.
    """
    try:
        with gzip.open(path, "rt", encoding="utf-8", newline="") as stream:
            rows = csv.reader(stream)
            names = next(rows)
            column = next(i for i, name in enumerate(names) if name.startswith("e_form_per_atom"))
            first = names.index("material_id")
            return {row[first]: float(row[column]) for row in rows if row[column]}
    except (*BROKEN, StopIteration) as error:
        raise InputError(f"{path}: no formation energies can be read ({type(error).__name__}: {error})") from None


def write_structure(stream: TextIO, crystal: RelaxedCrystal) -> None:
    """Write a line of the file of the geometry task.

    Parameters
    ----------
    stream
        Stream of the file.
    crystal
        The crystal.
    """
    line = {
        "material_id": crystal.material,
        "structure": crystal.structure.as_dict(verbosity=0),
        "energy": crystal.energy_ev,
        "converged": crystal.converged,
        "n_steps": crystal.n_steps,
    }
    stream.write(json.dumps(line, separators=(",", ":")) + "\n")


def read_structures(path: Path) -> Iterator[RelaxedCrystal]:
    """Relaxed crystals of the file of the geometry task, one after the other.

    Parameters
    ----------
    path
        File with an object in each line.

    Yields
    ------
    RelaxedCrystal
        A crystal.

    Raises
    ------
    InputError
        The file cannot be read.
    """
    try:
        with gzip.open(path, "rt", encoding="utf-8") as stream:
            for line in stream:
                row = json.loads(line)
                structure = Structure.from_dict(row["structure"])
                yield RelaxedCrystal(
                    str(row["material_id"]), structure, float(row["energy"]), bool(row["converged"]),
                    int(row["n_steps"]),
                )  # fmt: skip
    except BROKEN as error:
        raise InputError(f"{path}: no relaxed structures can be read ({type(error).__name__}: {error})") from None


def write_symmetries(path: Path, rows: Mapping[str, GeometryRow], symprec: str) -> None:
    """Write the file of distances and symmetries.

    Parameters
    ----------
    path
        File to write.
    rows
        Comparison with DFT's structure by material.
    symprec
        Tolerance of the symmetry in Angstrom, as the leaderboard writes it: 1e-2 or 1e-5.
    """
    with compressed_text(path) as stream:
        stream.write("material_id,spg_num,n_sym_ops,symprec,structure_rmsd_vs_dft\n")
        for material, row in rows.items():
            found = ("", "") if row.predicted is None else (row.predicted.space_group, row.predicted.n_operations)
            distance = "" if row.rmsd is None else repr(row.rmsd)
            stream.write(",".join(map(str, (material, *found, symprec, distance))) + "\n")


def conductivity_record(
    material: str, formula: str, output: Mapping[str, Any] | None, errors: Sequence[str], facts: Mapping[str, Any]
) -> dict[str, Any]:
    """The row of one crystal in the file of the conductivity task.

    Only the mean over xx, yy and zz of each mode is stored, so that the tensor of a mode is written as that mean times
    the unit matrix. All metrics of the leaderboard use the mean; components of hexagonal crystals are not resolved.

    Parameters
    ----------
    material
        Number of the crystal.
    formula
        Its formula.
    output
        Output of its conductivity document; None where there is none.
    errors
        Messages of failures.
    facts
        Further columns: symmetry, steps and outcome of the relaxation.

    Returns
    -------
    dict
        Values for JSON by the names of the columns.

    Raises
    ------
    InputError
        The document has no conductivity by modes, as those of early versions.
    """
    row: dict[str, Any] = {"material_id": material, "formula": formula, **facts, "errors": list(errors)}
    if output is None:
        return row | dict.fromkeys(_ARRAYS)
    method = "wigner" if "wigner" in output["methods"] else "rta"
    by_method = output.get("mode_kappa_w_per_m_k") or {}
    modes = by_method.get(method)
    if modes is None:
        raise InputError(f"{material}: the stored conductivity has no modes; compute it again with --force")
    weights = np.asarray(output["q_weights"], dtype=float)
    total = output["methods"][method]
    particle, coherence = (total.get(f"kappa_{name}_w_per_m_k") for name in ("particle", "coherence"))
    tensors = np.asarray(modes, dtype=float)[..., None, None] * np.eye(3) * weights.sum()
    values = {
        "ph_freqs": output["frequencies_thz"],
        "kappa_tot_rta": total["kappa_w_per_m_k"],
        "kappa_p_rta": total["kappa_w_per_m_k"] if particle is None else particle,
        "kappa_c": coherence,
        "mode_kappa_tot_rta": tensors[None],
        "mode_weights": weights,
        "q_points": output["q_points"],
    }
    return row | {name: None if value is None else np.asarray(value).tolist() for name, value in values.items()}


_ARRAYS = ("ph_freqs", "kappa_tot_rta", "kappa_p_rta", "kappa_c", "mode_kappa_tot_rta", "mode_weights", "q_points")


def write_conductivities(path: Path, rows: Sequence[Mapping[str, Any]]) -> None:
    """Write the file of the conductivity task: a table as pandas writes it, column by column.

    Parameters
    ----------
    path
        File to write.
    rows
        Rows of `conductivity_record`, of all crystals.
    """
    names = tuple(dict.fromkeys(name for row in rows for name in row))
    with compressed_text(path) as stream:
        columns = {name: {str(i): row.get(name) for i, row in enumerate(rows)} for name in names}
        stream.write(json.dumps(columns, separators=(",", ":"), ensure_ascii=False))


def read_conductivities(path: Path) -> dict[str, ModeConductivity]:
    """Conductivities of the file of the conductivity task.

    Parameters
    ----------
    path
        File with a table, column by column.

    Returns
    -------
    dict
        Conductivity by modes of each material, at 300 K.

    Raises
    ------
    InputError
        The file cannot be read.
    """
    return {material: conductivity for material, conductivity, _ in read_conductivity_rows(path)}


def read_conductivity_rows(path: Path) -> list[tuple[str, ModeConductivity, dict[str, Any]]]:
    """Conductivities of the file of the conductivity task, with the other columns.

    Parameters
    ----------
    path
        File with a table, column by column.

    Returns
    -------
    list of tuple
        Number, conductivity by modes at 300 K, and values without those of modes (formula, errors, relaxation, ...) of
        each material.

    Raises
    ------
    InputError
        The file cannot be read.
    """
    try:
        columns: dict[str, dict[str, Any]] = json.loads(gzip.decompress(path.read_bytes()))
        return [
            (
                str(material),
                _conductivity({name: column.get(index) for name, column in columns.items()}),
                {name: column.get(index) for name, column in columns.items() if name not in _ARRAYS},
            )
            for index, material in columns["material_id"].items()
        ]
    except BROKEN as error:
        raise InputError(f"{path}: no conductivities can be read ({type(error).__name__}: {error})") from None


def _conductivity(row: Mapping[str, Any]) -> ModeConductivity:
    imaginary, broken = bool(row["has_imag_ph_modes"]), bool(row["broken_symmetry"])
    if row["kappa_tot_rta"] is None:
        return ModeConductivity(None, imaginary=imaginary, broken_symmetry=broken)
    tensors = np.array(row["mode_kappa_tot_rta"][0], dtype=float)
    weights = np.array(row["mode_weights"], dtype=float)
    return ModeConductivity(
        kappa_w_per_m_k=float(np.mean(row["kappa_tot_rta"][0][:3])),
        mode_kappa_w_per_m_k=np.trace(tensors, axis1=-2, axis2=-1) / 3 / weights.sum(),
        frequencies_thz=np.array(row["ph_freqs"], dtype=float),
        q_weights=weights,
        imaginary=imaginary,
        broken_symmetry=broken,
    )


def dated_files(folder: Path, endings: Mapping[str, str]) -> dict[str, Path]:
    """The newest file of each kind of a submission, in a folder or in one below it.

    Parameters
    ----------
    folder
        Folder of a submission. If it has such files itself, those below it do not count.
    endings
        Names of the files without their dates, such as `DISCOVERY`, by names of the caller's.

    Returns
    -------
    dict
        The files by those names, of the kinds that are there.

    Raises
    ------
    InputError
        Several folders below it have such files, as those of several force fields.
    """
    patterns = {name: f"????-??-??-{ending}" for name, ending in endings.items()}
    places = {path.parent for pattern in patterns.values() for path in folder.rglob(pattern)}
    if folder in places:
        places = {folder}
    if len(places) > 1:
        names = ", ".join(sorted(map(str, places)))
        raise InputError(f"{folder} has files of several submissions; name one of their folders: {names}")
    found = {name: max(place.glob(pattern), default=None) for place in places for name, pattern in patterns.items()}
    return {name: path for name, path in found.items() if path is not None}
