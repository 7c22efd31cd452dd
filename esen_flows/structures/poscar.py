"""POSCAR and CONTCAR files of VASP 5: checked before ASE reads them, because ASE guesses elements that are missing."""

from io import StringIO

from ase import Atoms
from ase.io.vasp import read_vasp

from esen_flows.errors import InputError, StructureError
from esen_flows.structures.checks import MOST_ATOMS
from esen_flows.structures.numbers import number_of
from esen_flows.structures.symbols import ELEMENTS, numbers_and_masses, with_isotopes

_HEADER_LINES = 7  # comment, scale, three lattice vectors, symbols, counts


def read_poscar(text: str) -> Atoms:
    """The structure of a POSCAR, with the coordinates that its selective dynamics fixes.

    Parameters
    ----------
    text
        Contents of the file.

    Returns
    -------
    Atoms
        The structure.

    Raises
    ------
    InputError
        The file is cut off, or a number cannot be read.
    StructureError
        The file does not name its elements (VASP 4), or names something else.
    """
    lines = text.splitlines()
    if len(lines) < _HEADER_LINES:
        raise InputError(f"the file ends after {len(lines)} lines")
    for row, line in enumerate(lines[2:5], start=3):
        if len(line.split()) < 3:
            raise InputError(f"line {row} is not a lattice vector: {line[:60]!r}")
        for word in line.split()[:3]:
            number_of(word, f"the lattice vector in line {row}")
    scale = [number_of(word, "the scale in line 2") for word in lines[1].split("!")[0].split("#")[0].split()[:3]]
    if len(scale) not in (1, 3):
        raise InputError(f"line 2 is not a scale, one number or three: {lines[1][:60]!r}")
    symbols, counts = _species(lines)
    total = sum(counts)
    if not 0 < total <= MOST_ATOMS:
        raise InputError(f"line 7 gives {total} atoms; a structure has 1 to {MOST_ATOMS}")
    rest = lines[_HEADER_LINES:]
    selective = rest[:1] if rest and rest[0].strip()[:1].lower() == "s" else []
    kind, rows = rest[len(selective) : len(selective) + 1], rest[len(selective) + 1 :][:total]
    if not kind or kind[0].strip()[:1].lower() not in ("d", "f", "c", "k"):
        raise InputError(f"line {8 + len(selective)} says neither Direct nor Cartesian: {(kind or [''])[0][:60]!r}")
    if len(rows) < total:
        raise InputError(f"line 7 gives {total} atoms, but {len(rows)} lines of coordinates follow")
    first = 9 + len(selective)
    places = [_row(line, number, bool(selective)) for number, line in enumerate(rows, start=first)]
    spread = [symbol for symbol, count in zip(symbols, counts, strict=True) for _ in range(count)]
    _, masses = numbers_and_masses(spread)
    plain = " ".join("H" if symbol in ("D", "T") else symbol for symbol in symbols)
    vectors = [" ".join(f"{number_of(word, 'a lattice vector')!r}" for word in line.split()[:3]) for line in lines[2:5]]
    # ASE takes elements from a comment that looks like elements; it gets another one.
    header = ["structure", " ".join(map(repr, scale)), *vectors, plain, " ".join(map(str, counts))]
    atoms = read_vasp(StringIO("\n".join([*header, *selective, *kind, *places]) + "\n"))
    return with_isotopes(atoms, masses)


def _row(line: str, number: int, selective: bool) -> str:
    """A line of coordinates in the words that ASE reads, with T or F for Fortran's logical values."""
    words = line.split()
    if len(words) < (6 if selective else 3):
        what = "three coordinates and three flags T or F" if selective else "three coordinates"
        raise InputError(f"line {number} does not hold {what}: {line[:60]!r}")
    places = [repr(number_of(word, f"a coordinate in line {number}")) for word in words[:3]]
    flags = [word.lstrip(".")[:1].upper() for word in words[3:6]] if selective else []
    if not set(flags) <= {"T", "F"}:
        raise InputError(f"line {number} has flags other than T and F: {' '.join(words[3:6])[:40]!r}")
    return " ".join(places + flags)


def _species(lines: list[str]) -> tuple[list[str], list[int]]:
    """Symbols in line 6 and numbers of atoms in line 7."""
    words = lines[5].split("!")[0].split("#")[0].split()
    if words and all(word.isdigit() for word in words):
        raise StructureError(
            "the elements are missing: line 6 holds numbers of atoms, as in VASP 4; write the symbols of the elements "
            "in a line before them"
        )
    # VASP writes Fe_pv or Si/0123abc for the potentials that it used.
    symbols = [word.split("/")[0].split("_")[0] for word in words]
    wrong = [word for word, symbol in zip(words, symbols, strict=True) if symbol not in ELEMENTS]
    if wrong or not words:
        raise StructureError(
            f"line 6 does not name elements: {' '.join(wrong or words)[:60]!r}; write their symbols there"
        )
    counts = lines[6].split("!")[0].split("#")[0].split()
    if len(counts) != len(symbols) or not all(count.isdigit() and len(count) < 12 for count in counts):
        raise InputError(
            f"line 7 does not give a number of atoms for each of {' '.join(symbols)[:60]}: {lines[6][:60]!r}"
        )
    return symbols, [int(count) for count in counts]
