"""Structure files: read, or refused with one clear message."""

import warnings
from collections.abc import Iterator
from io import StringIO
from pathlib import Path
from typing import IO

from ase import Atoms

from esen_flows.data.sources.ase_files import extxyz_blocks, open_text
from esen_flows.errors import InputError, StructureError
from esen_flows.structures.conversion import as_atoms

EXTENDED_XYZ = (".xyz", ".extxyz", ".xyz.gz", ".extxyz.gz")


def read_structure(path: Path) -> Atoms:
    """The one structure of a file that ASE reads (CIF, POSCAR, extended XYZ, ...), or else pymatgen.

    `FILE@3` takes one frame of a file with several.

    Raises
    ------
    InputError
        missing, a folder, unreadable, empty, several structures, or partially occupied sites.
    """
    file, index = split_index(path)
    _refuse_absent(file)
    atoms = _one(file, _read_frames(file, index))
    _refuse_disorder(file, atoms)
    return atoms


def read_structures(path: Path) -> Iterator[Atoms]:
    """All structures of a file, or the one that `FILE@3` names; extended XYZ one after the other, in little memory.

    Raises
    ------
    InputError
        missing, a folder, unreadable, empty, or partially occupied sites.
    """
    file, index = split_index(path)
    _refuse_absent(file)
    if index is None and file.name.endswith(EXTENDED_XYZ):
        with open_text(file) as stream:
            yield from extxyz_frames(stream, file)
        return
    for atoms in _read_frames(file, index):
        _refuse_disorder(file, atoms)
        yield atoms


def extxyz_frames(stream: IO[str], path: Path) -> Iterator[Atoms]:
    """The structures of an open extended XYZ file, one after the other.

    Parameters
    ----------
    path
        for messages.

    Raises
    ------
    InputError
        a frame that cannot be read; the message says which.
    """
    from ase.io.extxyz import XYZError, read_xyz

    for number, block in enumerate(extxyz_blocks(stream, path)):
        try:
            yield next(read_xyz(StringIO(block), index=0))
        except (XYZError, ValueError, KeyError, IndexError, AssertionError, StopIteration) as error:
            raise InputError(
                f"{path}@{number} cannot be read: {' '.join(str(error).split()) or type(error).__name__}; correct it"
            ) from error


def split_index(path: Path) -> tuple[Path, int | None]:
    """`FILE@3` as a file and a place in it; None: all of it."""
    name, separator, index = path.name.rpartition("@")
    if separator and index.lstrip("-").isdigit() and not path.exists():
        return path.with_name(name), int(index)
    return path, None


def _refuse_absent(file: Path) -> None:
    if not file.exists():
        raise InputError(f"no such file: {file}")
    if not file.is_file():
        raise InputError(f"{file} is not a file; give a structure file (CIF, POSCAR, extended XYZ, ...)")
    if file.stat().st_size == 0:
        raise InputError(f"{file} is empty; give a structure file (CIF, POSCAR, extended XYZ, ...)")


def _read_frames(file: Path, index: int | None) -> list[Atoms]:
    from ase.io import read

    if index is not None and index < 0:  # ASE takes the first frame of extended XYZ for what is before it
        _refuse_absent_place(file, index)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # readers guess loudly; what matters is checked afterwards
        try:
            frames = read(file, index=":" if index is None else index, do_not_split_by_at_sign=True)
        except Exception as error:  # ASE's readers raise whatever their parsing meets
            if index is not None:
                _refuse_absent_place(file, index)
            return [_read_with_pymatgen(file, error)]
    return frames if isinstance(frames, list) else [frames]


def _refuse_absent_place(file: Path, index: int) -> None:
    """Say so where a file can be read, but does not have a place, counted from its start or (negative) its end."""
    count = len(_read_frames(file, None))
    if not -count <= index < count:
        raise InputError(f"{file} holds {count} structures, the first is {file}@0; there is no {file}@{index}")


def _read_with_pymatgen(file: Path, ase_error: Exception) -> Atoms:
    from pymatgen.core import Structure

    try:
        structure = Structure.from_file(file)
    except Exception:  # pymatgen's readers as well; ASE's reason is the more telling one
        reason = " ".join(str(ase_error).split()) or "its contents are not in the format that its name says"
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
