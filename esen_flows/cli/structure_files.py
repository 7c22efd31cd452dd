"""Structure files: read, and refused with one clear message before anything expensive happens."""

import warnings
from pathlib import Path

import numpy as np
from ase import Atoms
from ase.data import chemical_symbols

from esen_flows.errors import InputError, StructureError, UnknownElementError
from esen_flows.schemas.card import ModelReference

MINIMUM_DISTANCE_ANGSTROM = 0.5  # below any bond (H2: 0.74), above any rounding of a duplicated site
# Layers of van der Waals crystals are less than this apart; slabs and molecules in a box are more.
VACUUM_ANGSTROM = 8.0


def read_structure(path: Path) -> Atoms:
    """The one structure of a file that ASE reads (CIF, POSCAR, extended XYZ, ...), or else pymatgen.

    `FILE@3` takes one frame of a file with several.

    Raises
    ------
    InputError : missing, a folder, unreadable, empty, several structures, or partially occupied sites.
    """
    file, index = _split_index(path)
    if not file.exists():
        raise InputError(f"no such file: {file}")
    if not file.is_file():
        raise InputError(f"{file} is not a file; give a structure file (CIF, POSCAR, extended XYZ, ...)")
    if file.stat().st_size == 0:
        raise InputError(f"{file} is empty; give a structure file (CIF, POSCAR, extended XYZ, ...)")
    atoms = _one(file, _read_frames(file, index))
    _refuse_disorder(file, atoms)
    return atoms


def check_structure(atoms: Atoms, name: str) -> None:
    """Refuse a structure that no force field should be asked about.

    Raises
    ------
    StructureError : no atoms, NaN or infinity, no elements, a flat periodic cell, or atoms closer than 0.5 Angstrom.
    """
    if len(atoms) == 0:
        raise StructureError(f"{name} holds no atoms")
    if not (np.isfinite(atoms.positions).all() and np.isfinite(atoms.cell.array).all()):
        raise StructureError(f"{name} has NaN or infinite positions or cell vectors; correct the file")
    if ((atoms.numbers < 1) | (atoms.numbers >= len(chemical_symbols))).any():
        raise StructureError(
            f"{name} has sites without an element (dummy atoms, unknown symbols); correct or remove them"
        )
    periodic = atoms.cell.array[atoms.pbc]
    heights = np.linalg.svd(periodic, compute_uv=False) if len(periodic) else np.ones(1)
    if heights.min() < 0.1:
        raise StructureError(f"{name} has a flat or missing lattice vector: cell {atoms.cell.array.tolist()}")
    _refuse_overlap(atoms, name)


def check_elements(atoms: Atoms, model: ModelReference) -> None:
    """Refuse elements that the force field was never trained on.

    Raises
    ------
    UnknownElementError : naming them and those that it knows.
    """
    if model.elements is None:
        return
    foreign = sorted(set(atoms.numbers.tolist()) - model.elements)
    if foreign:
        known = ", ".join(chemical_symbols[z] for z in sorted(model.elements))
        raise UnknownElementError(
            f"{model.label} never saw {', '.join(chemical_symbols[z] for z in foreign)}; it knows {known}; "
            "choose another force field (esen-flows models)"
        )


def check_crystal(atoms: Atoms, name: str, purpose: str) -> None:
    """Refuse molecules, wires and slabs where only a crystal has an answer.

    Raises
    ------
    StructureError : not periodic in three directions, or with a vacuum of more than 8 Angstrom.
    """
    if not atoms.pbc.all():
        count = int(atoms.pbc.sum())
        raise StructureError(f"{purpose} needs a crystal, but {name} is periodic in {count} of 3 directions")
    fractions = np.sort(np.mod(atoms.cell.scaled_positions(atoms.positions), 1.0), axis=0)
    gaps = np.diff(np.vstack([fractions, fractions[:1] + 1.0]), axis=0).max(axis=0)
    heights = 1.0 / np.linalg.norm(np.linalg.inv(atoms.cell.array), axis=0)
    widest = int(np.argmax(gaps * heights))
    if gaps[widest] * heights[widest] > VACUUM_ANGSTROM:
        raise StructureError(
            f"{purpose} needs a crystal, but {name} has {gaps[widest] * heights[widest]:.1f} Angstrom of vacuum along "
            f"{'abc'[widest]}: it looks like a slab or a molecule in a box"
        )


def _split_index(path: Path) -> tuple[Path, int | None]:
    name, separator, index = path.name.rpartition("@")
    if separator and index.lstrip("-").isdigit() and not path.exists():
        return path.with_name(name), int(index)
    return path, None


def _read_frames(file: Path, index: int | None) -> list[Atoms]:
    from ase.io import read

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # readers guess loudly; what matters is checked afterwards
        try:
            frames = read(file, index=":" if index is None else index, do_not_split_by_at_sign=True)
        except Exception as error:  # ASE's readers raise whatever their parsing meets
            return [_read_with_pymatgen(file, error)]
    return frames if isinstance(frames, list) else [frames]


def _read_with_pymatgen(file: Path, ase_error: Exception) -> Atoms:
    from pymatgen.core import Structure

    from esen_flows.makers.structures import as_atoms

    try:
        structure = Structure.from_file(file)
    except Exception:  # pymatgen's readers as well; ASE's reason is the more telling one
        reason = " ".join(str(ase_error).split()) or type(ase_error).__name__
        raise InputError(
            f"{file} cannot be read as a structure ({reason[:200]}); give a CIF, POSCAR or extended XYZ file"
        ) from ase_error
    return as_atoms(structure)


def _one(file: Path, frames: list[Atoms]) -> Atoms:
    if len(frames) == 1:
        return frames[0]
    if not frames:
        raise InputError(f"{file} holds no structure; give a CIF, POSCAR or extended XYZ file")
    raise InputError(f"{file} holds {len(frames)} structures; name one, the first is {file}@0")


def _refuse_disorder(file: Path, atoms: Atoms) -> None:
    sites = atoms.info.get("occupancy", {}).values()
    if any(len(site) > 1 or any(abs(share - 1.0) > 1e-6 for share in site.values()) for site in sites):
        raise StructureError(f"{file} has partially occupied sites; give an ordered structure")


def _refuse_overlap(atoms: Atoms, name: str) -> None:
    from ase.neighborlist import neighbor_list

    first, second, distances = neighbor_list("ijd", atoms, MINIMUM_DISTANCE_ANGSTROM)
    if len(distances):
        nearest = int(np.argmin(distances))
        i, j = int(first[nearest]), int(second[nearest])
        what = f"atoms {i} ({atoms.symbols[i]}) and {j} ({atoms.symbols[j]})"
        if i == j:
            what = f"atom {i} ({atoms.symbols[i]}) and its periodic image"
        raise StructureError(
            f"{name}: {what} are {distances[nearest]:.3f} Angstrom apart, closer than "
            f"{MINIMUM_DISTANCE_ANGSTROM}; correct the structure"
        )
