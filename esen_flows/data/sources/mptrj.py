"""The Materials Project trajectories as CHGNet's authors publish them: one JSON file of 12 GB, read entry by entry.

Its layout is {material id: {frame id: {structure, uncorrected_total_energy, corrected_total_energy, force, stress,
...}}}. Structures are pymatgen's dictionaries (https://doi.org/10.6084/m9.figshare.23713842).
"""

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

import numpy as np
from ase.data import atomic_numbers

from esen_flows.data.screening import BadRecord, ReadRecord
from esen_flows.data.sources.ase_files import open_text
from esen_flows.data.sources.conventions import Convention, Labels, labelled
from esen_flows.data.sources.options import SourceOptions
from esen_flows.errors import InputError

# The raw energy: the forces are its derivatives, and the leaderboard's reference energies are corrected from it.
ENERGY_KEY = "uncorrected_total_energy"
_BLANKS = re.compile(r"\s*")
_PIECE = 1 << 22  # characters read at once
_LONGEST = 1 << 28  # characters of one frame; more is a broken file and not a structure


def read_mptrj(path: Path, options: SourceOptions, convention: Convention) -> Iterator[ReadRecord]:
    """Frames of the file, each with its material; the size of the file does not matter.

    Parameters
    ----------
    path
        The file.
    options
        Names and units in the place of the file's own.
    convention
        Units and signs of the labels.

    Yields
    ------
    LabelledStructure | BadRecord
        One entry for each frame.

    Raises
    ------
    InputError
        The file is not JSON, or JSON of another layout.
    """
    keys = [options.energy_key or ENERGY_KEY, options.forces_key or "force", options.stress_key or "stress"]
    with open_text(path) as stream:
        text = JsonStream(stream, path)
        for material in text.members():
            for frame in text.members():
                entry = text.value()
                if not isinstance(entry, dict) or "structure" not in entry:
                    raise InputError(
                        f"{path}: the entry {material}/{frame} has no 'structure'; this is not MPtrj's JSON "
                        "(an ASE database in JSON: give --format ase-db)"
                    )
                where = f"{frame} of {material} in {path.name}"
                group, _ = options.names(entry)
                try:
                    geometry = _geometry(entry["structure"])
                except (KeyError, TypeError, ValueError, IndexError) as error:
                    yield BadRecord(where, "unreadable", f"{type(error).__name__}: {error}")
                    continue
                energy, forces, stress = (entry.get(key) for key in keys)
                labels = Labels(**geometry, energy=energy, forces=forces, stress=stress, group=group, material=material)
                yield labelled(where, labels, convention)


def _geometry(structure: dict[str, Any]) -> dict[str, Any]:
    """Numbers, positions, cell, periodicity and charge of a pymatgen dictionary."""
    cell = np.array(structure["lattice"]["matrix"], dtype=np.float64)
    numbers, fractions = [], []
    for site in structure["sites"]:
        (species,) = site["species"]  # a mixed site has several
        if species["occu"] != 1:
            raise ValueError(f"a site is occupied to {species['occu']}")
        numbers.append(atomic_numbers[species["element"]])
        fractions.append(site["abc"])
    positions = np.array(fractions, dtype=np.float64).reshape(-1, 3) @ cell
    charge = structure.get("charge") or 0
    return {"numbers": numbers, "positions": positions, "cell": cell, "pbc": True, "charge": charge}


class JsonStream:
    """JSON that is read piece by piece: the members of nested objects one after the other.

    Parameters
    ----------
    stream
        The open file.
    path
        Its name for error messages.
    """

    def __init__(self, stream: IO[str], path: Path) -> None:
        self._stream, self._path = stream, path
        self._decode = json.JSONDecoder().raw_decode
        self._text, self._at, self._before = "", 0, 0

    def _more(self) -> bool:
        piece = self._stream.read(_PIECE)
        self._before += self._at
        self._text, self._at = self._text[self._at :] + piece, 0
        return bool(piece)

    def _next(self) -> str:
        """The next character that is not a blank; "" at the end."""
        while True:
            self._at = _BLANKS.match(self._text, self._at).end()  # type: ignore[union-attr]
            if self._at < len(self._text) or not self._more():
                return self._text[self._at : self._at + 1]

    def _expect(self, characters: str) -> str:
        found = self._next()
        if not found or found not in characters:
            raise self._broken(f"expected one of {characters!r}, got {found or 'the end'!r}")
        self._at += 1
        return found

    def _broken(self, what: str) -> InputError:
        return InputError(
            f"{self._path} is not MPtrj's JSON: {what} at character {self._before + self._at}; download it again"
        )

    def members(self) -> Iterator[str]:
        """Keys of the object that comes next. The value of a key has to be read before the next key.

        Yields
        ------
        str
            One key.

        Raises
        ------
        InputError
            The text is not JSON, or does not go on with an object.
        """
        self._expect("{")
        if self._next() == "}":
            self._at += 1
            return
        while True:
            key = self.value()
            self._expect(":")
            yield str(key)
            if self._expect(",}") == "}":
                return

    def value(self) -> Any:
        """The string, array or object that comes next, whole.

        Returns
        -------
        Any
            Its value.

        Raises
        ------
        InputError
            The text is not JSON, or goes on with something else.
        """
        if self._next() not in ('"', "[", "{"):
            raise self._broken("expected a string, an array or an object")
        while True:
            try:
                found, self._at = self._decode(self._text, self._at)
            except json.JSONDecodeError as error:
                # The value is not whole yet, or broken. Only the end of the file, or an absurd length, tells which.
                if len(self._text) - self._at > _LONGEST or not self._more():
                    raise self._broken(error.msg) from error
            else:
                return found
