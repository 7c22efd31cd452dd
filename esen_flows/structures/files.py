"""Structure files: each is read, or refused with one clear message."""

import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import IO

from ase import Atoms

from esen_flows.data.sources.ase_files import UNREADABLE_FRAME, extxyz_blocks, first_frame, open_text
from esen_flows.errors import InputError, StructureError
from esen_flows.structures.conversion import as_atoms

EXTENDED_XYZ = (".xyz", ".extxyz", ".xyz.gz", ".extxyz.gz")
_FORMATS = "a CIF, POSCAR or extended XYZ file"


def read_structure(path: Path) -> Atoms:
    """The one structure of a file that ASE or pymatgen reads: CIF, POSCAR, extended XYZ and others.

    Parameters
    ----------
    path
        The file; `FILE@3` is the structure with index 3 of a file with several, `FILE@-1` the last one.

    Returns
    -------
    Atoms
        The structure.

    Raises
    ------
    InputError
        The file is missing, a folder, empty or unreadable, holds several structures, or has partially occupied sites.

    Examples
    --------
    >>> from ase.build import bulk
    >>> from ase.io import write
    >>> write("crystals.xyz", [bulk("Si", cubic=True), bulk("Cu")])
    >>> read_structure(Path("crystals.xyz@0")).get_chemical_formula()
    'Si8'
    """
    file, index = split_index(path)
    _refuse_absent(file)
    frames = _read_frames(file, index)
    if not frames:
        raise InputError(f"{file} holds no structure; give {_FORMATS}")
    if len(frames) > 1:
        raise InputError(f"{file} holds {len(frames)} structures; name one, the first is {file}@0")
    _refuse_disorder(file, frames[0])
    return frames[0]


def read_structures(path: Path) -> Iterator[Atoms]:
    """All structures of a file; those of extended XYZ one after the other, in little memory.

    Parameters
    ----------
    path
        The file; `FILE@3` is the structure with index 3 alone.

    Yields
    ------
    Atoms
        One structure.

    Raises
    ------
    InputError
        The file is missing, a folder, empty or unreadable, or has partially occupied sites.
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
    stream
        The open file.
    path
        Its name for error messages.

    Yields
    ------
    Atoms
        One structure.

    Raises
    ------
    InputError
        A frame cannot be read; the message gives its index.
    """
    for number, block in enumerate(extxyz_blocks(stream, path)):
        try:
            yield first_frame(block)
        except UNREADABLE_FRAME as error:
            raise InputError(
                f"{path}@{number} cannot be read: {' '.join(str(error).split()) or type(error).__name__}; correct it"
            ) from error


def split_index(path: Path) -> tuple[Path, int | None]:
    """File and index of a structure from `FILE@3`.

    Parameters
    ----------
    path
        A path, with or without an index.

    Returns
    -------
    tuple[Path, int | None]
        The file and the index; None for all structures of the file.
    """
    name, separator, index = path.name.rpartition("@")
    if separator and index.lstrip("-").isdigit() and not path.exists():
        return path.with_name(name), int(index)
    return path, None


def _refuse_absent(file: Path) -> None:
    if not file.exists():
        raise InputError(f"no such file: {file}")
    if not file.is_file() or file.stat().st_size == 0:
        fault = "is empty" if file.is_file() else "is not a file"
        raise InputError(f"{file} {fault}; give a structure file (CIF, POSCAR, extended XYZ, ...)")


def _read_frames(file: Path, index: int | None) -> list[Atoms]:
    from ase.io import read

    if index is not None and index < 0:  # for an index before the first frame, ASE gives the first one of extended XYZ
        _refuse_absent_index(file, index)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # readers warn of guesses; what matters is checked afterwards
        try:
            frames = read(file, index=":" if index is None else index, do_not_split_by_at_sign=True)
        except Exception as error:  # ASE's readers raise errors of any type
            if index is not None:
                _refuse_absent_index(file, index)
            return [_read_with_pymatgen(file, error)]
    return frames if isinstance(frames, list) else [frames]


def _refuse_absent_index(file: Path, index: int) -> None:
    """Refuse an index, counted from the start or (negative) from the end, that a readable file does not have."""
    count = len(_read_frames(file, None))
    if not -count <= index < count:
        raise InputError(f"{file} holds {count} structures, the first is {file}@0; there is no {file}@{index}")


def _read_with_pymatgen(file: Path, ase_error: Exception) -> Atoms:
    from pymatgen.core import Structure

    try:
        structure = Structure.from_file(file)
    except Exception:  # pymatgen's readers too raise errors of any type; ASE's reason is the clearer one
        reason = " ".join(str(ase_error).split()) or "its contents are not in the format that its name says"
        raise InputError(f"{file} cannot be read as a structure ({reason[:200]}); give {_FORMATS}") from ase_error
    return as_atoms(structure)


def _refuse_disorder(file: Path, atoms: Atoms) -> None:
    sites = atoms.info.get("occupancy", {}).values()
    if any(len(site) > 1 or any(abs(share - 1.0) > 1e-6 for share in site.values()) for site in sites):
        raise StructureError(f"{file} has partially occupied sites; give an ordered structure")
