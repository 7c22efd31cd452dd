"""Structure files: each is read, or refused with one clear message."""

import re
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from itertools import count
from pathlib import Path
from typing import IO, NoReturn

from ase import Atoms
from ase.io import iread
from ase.io.formats import UnknownFileTypeError, filetype

from esen_flows.data.sources.ase_files import UNREADABLE_FRAME, extxyz_blocks, first_frame
from esen_flows.data.sources.bounded_files import BROKEN_STREAM, TruncatedFileError, open_text
from esen_flows.errors import InputError, StructureError
from esen_flows.files import read_at_most
from esen_flows.schemas.atom_properties import HYDROGEN_ISOTOPES
from esen_flows.structures.cif import crystal_of_block, has_crystal
from esen_flows.structures.cif_text import cif_blocks
from esen_flows.structures.conversion import as_atoms
from esen_flows.structures.export import with_fixed_columns
from esen_flows.structures.numbers import with_exponents
from esen_flows.structures.poscar import read_poscar
from esen_flows.structures.reader_warnings import reader_warnings, say
from esen_flows.structures.special_positions import with_exact_thirds
from esen_flows.structures.symbols import with_isotopes

EXTENDED_XYZ = (".xyz", ".extxyz", ".xyz.gz", ".extxyz.gz")
MOST_BYTES = 200_000_000  # of a CIF or POSCAR: more than a million atoms
# Formats of ASE with fractional coordinates, which people round.
_FRACTIONAL = ("cif", "vasp", "castep-cell", "res")
_ISOTOPE_LINE = re.compile(r"^[ \t]*[DT][ \t]", re.MULTILINE)
_SPECIES_FIRST = re.compile(r"\A.*\n(?:.*Properties=\"?species:S:1|(?!.*Properties=))")
_SHOWN = 10  # structures in a message
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
        The file is missing, a folder, empty or unreadable, or some of its structures are; raised after the others, with
        the indices and reasons of all.
    """
    bad: list[str] = []
    for _, atoms in numbered_structures(path, bad.append):
        yield atoms
    if len(bad) == 1:
        raise InputError(bad[0])
    if bad:
        more = "" if len(bad) <= _SHOWN else f"\n  and {len(bad) - _SHOWN} more"
        shown = "".join(f"\n  {line}" for line in bad[:_SHOWN])
        raise InputError(f"{len(bad)} structures cannot be read; correct them or take them out:{shown}{more}")


def numbered_structures(path: Path, on_bad: Callable[[str], None]) -> Iterator[tuple[int, Atoms]]:
    """The structures of a file with their indices, except those that cannot be read.

    Parameters
    ----------
    path
        As for `read_structures`.
    on_bad
        Called with the index and fault of each structure that cannot be read.

    Yields
    ------
    tuple[int, Atoms]
        Index and structure.

    Raises
    ------
    InputError
        The file is missing, a folder or empty.
    """
    file, index = split_index(path)
    _refuse_absent(file)
    if index is None and file.name.endswith(EXTENDED_XYZ):
        with open_text(file) as stream:
            yield from extxyz_frames(stream, file, on_bad)
        return
    try:
        frames = _read_frames(file, index)
    except InputError as error:
        on_bad(str(error))
        return
    for number, atoms in enumerate(frames, start=index or 0):
        try:
            _refuse_disorder(file, atoms)
        except StructureError as error:
            on_bad(str(error) if len(frames) == 1 else f"{file}@{number}: {error}")
        else:
            yield number, atoms


def extxyz_frames(stream: IO[str], path: Path, on_bad: Callable[[str], None]) -> Iterator[tuple[int, Atoms]]:
    """The structures of an open extended XYZ file with their indices, one after the other.

    Parameters
    ----------
    stream
        The open file.
    path
        Its name for messages.
    on_bad
        Called with the index and fault of each frame that cannot be read. After a line that should be a number of atoms
        and is not, the rest of the file is one such frame.

    Yields
    ------
    tuple[int, Atoms]
        Index and structure.
    """
    blocks = extxyz_blocks(stream, path)
    for number in count():
        what = f"{path}@{number} cannot be read"
        try:
            block = next(blocks, None)
        except TruncatedFileError:
            return on_bad(f"{what}: the file ends in it; correct it")
        except InputError as error:
            return on_bad(f"{what}, nor what follows: {error}")
        except (*BROKEN_STREAM, OSError) as error:
            return on_bad(f"{what}, nor what follows: {_reason(error)}; correct it")
        if block is None:
            return None
        try:
            with reader_warnings(path):
                atoms = _extxyz_frame(block)
        except InputError as error:
            on_bad(f"{what}: {error}")
        except UNREADABLE_FRAME as error:
            on_bad(f"{what}: {_reason(error)}; correct it")
        else:
            yield number, atoms


def _reason(error: BaseException) -> str:
    return " ".join(str(error).split())[:200] or type(error).__name__


def _extxyz_frame(block: str) -> Atoms:
    """The structure of the lines of one frame, which may hold deuterium, tritium and Fortran exponents."""
    masses: list[float] = []
    if _ISOTOPE_LINE.search(block) and _SPECIES_FIRST.search(block):
        head, comment, *rows = block.split("\n")
        symbols = [row.split(maxsplit=1)[0] if row.strip() else "" for row in rows[: int(head)]]
        masses = [HYDROGEN_ISOTOPES.get(symbol, 0.0) for symbol in symbols]
        block = "\n".join([head, comment, *(_ISOTOPE_LINE.sub("H ", row) for row in rows)])
    try:
        atoms = first_frame(block)
    except ValueError:
        atoms = first_frame(with_exponents(block))
    return with_fixed_columns(with_isotopes(atoms, masses))


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
    """The structures of a file, or the one of an index, with the atoms that their symbols and numbers mean."""
    kind = _format_of(file)
    notes: list[str] = []
    if kind in ("cif", "vasp"):
        frames = _chosen(file, _crystals(file, kind, notes), index)
    elif kind in ("extxyz", "xyz"):
        with open_text(file) as stream:
            return _chosen(file, (atoms for _, atoms in extxyz_frames(stream, file, _refuse)), index)
    else:
        frames = _read_with_ase(file, kind, index)
    if kind in _FRACTIONAL:
        frames = [with_exact_thirds(atoms, notes) for atoms in frames]
    say(file, notes)
    return frames


def _format_of(file: Path) -> str | None:
    """ASE's name of the format; None where it knows none."""
    if file.name.endswith(EXTENDED_XYZ):
        return "extxyz"
    if file.suffix == ".mcif":  # of a magnetic crystal
        return "cif"
    try:
        return str(filetype(str(file)))
    except (UnknownFileTypeError, OSError, ValueError, UnicodeError):
        return None


def _crystals(file: Path, kind: str, notes: list[str]) -> list[Atoms]:
    """The structures of a CIF or POSCAR."""
    text = read_at_most(file, MOST_BYTES).decode("utf-8", errors="replace")
    try:
        if kind == "vasp":
            return [read_poscar(text)]
        blocks = [block for block in cif_blocks(text) if has_crystal(block)]
        return [crystal_of_block(block, notes) for block in blocks]
    except InputError as error:
        raise type(error)(f"{file} cannot be read as a structure: {error}") from error


def _chosen(file: Path, frames: Iterable[Atoms], index: int | None) -> list[Atoms]:
    """All structures, or the one of an index, counted from the start or (negative) from the end."""
    if index is None:
        return list(frames)
    last: deque[Atoms] = deque(maxlen=max(1, -index))
    number = 0
    for atoms in frames:
        last.append(atoms)
        number += 1
        if number == index + 1:
            return [atoms]
    if number < -index or index >= 0:
        raise InputError(f"{file} holds {number} structures, the first is {file}@0; there is no {file}@{index}")
    return [last[0]]


def _read_with_ase(file: Path, kind: str | None, index: int | None) -> list[Atoms]:
    """The structures of a file in another format, by ASE or else by pymatgen."""
    with reader_warnings(file):
        try:
            if kind is None:
                raise UnknownFileTypeError("its contents are not in the format that its name says")
            return _chosen(file, iread(file, index=":", format=kind, do_not_split_by_at_sign=True), index)
        except InputError:
            raise
        except Exception as error:  # ASE's readers raise errors of any type
            return _chosen(file, [_read_with_pymatgen(file, error)], index)


def _read_with_pymatgen(file: Path, ase_error: Exception) -> Atoms:
    from pymatgen.core import Structure

    try:
        structure = Structure.from_file(file)
    except Exception:  # pymatgen's readers too raise errors of any type; ASE's reason is the clearer one
        reason = " ".join(str(ase_error).split()) or "its contents are not in the format that its name says"
        raise InputError(f"{file} cannot be read as a structure ({reason[:200]}); give {_FORMATS}") from ase_error
    return as_atoms(structure)


def _refuse(fault: str) -> NoReturn:
    raise InputError(fault)


def _refuse_disorder(file: Path, atoms: Atoms) -> None:
    sites = atoms.info.get("occupancy", {}).values()
    if any(len(site) > 1 or any(abs(share - 1.0) > 1e-6 for share in site.values()) for site in sites):
        raise StructureError(f"{file} has partially occupied sites; give an ordered structure")
