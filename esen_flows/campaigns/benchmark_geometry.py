"""Geometry in the benchmark discovery: relaxed structures against those that DFT relaxed.

To match two crystals takes milliseconds, 257,487 of them most of an hour. What was compared once is kept in the cache
folder, so that the metrics of a running campaign cost only what is new.
"""

import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import astuple, dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from pymatgen.core import Structure

from esen_flows.campaigns.sources import ReferenceNotHereError, reference_file, structures_of_file
from esen_flows.metrics.geometry import (
    NO_MATCH_RMSD,
    TOLERANCES,
    GeometryRow,
    Symmetry,
    compare_structures,
    flat_geometry_metrics,
)
from esen_flows.settings import get_settings
from esen_flows.structures.conversion import to_pymatgen

_CACHE = "geometry-2.jsonl"  # another number where a definition changes


@dataclass(frozen=True)
class Compared:
    """One relaxed structure against DFT's.

    Attributes
    ----------
    rmsd
        Distance in units of (volume per atom)^(1/3); None for no match.
    symmetries
        Symmetries of the relaxed structure and of DFT's by tolerance; None where one could not be found.
    """

    rmsd: float | None
    symmetries: Mapping[str, tuple[Symmetry | None, Symmetry | None]]

    @property
    def counted_rmsd(self) -> float:
        """The distance as the leaderboard counts it: 1 for no match."""
        return NO_MATCH_RMSD if self.rmsd is None else self.rmsd


def compared_with_dft(
    relaxed: Mapping[str, tuple[str, float]], structure_of: Callable[[str], Structure], folder: str | None
) -> dict[str, Compared]:
    """Relaxed structures against the reference set wbm-relaxed.

    Parameters
    ----------
    relaxed
        Result keys and energies in eV/atom of relaxations by material. A changed energy marks a result that was
        computed again.
    structure_of
        Returns the relaxed structure of a result key.
    folder
        Folder to look for the set in first.

    Returns
    -------
    dict
        Comparison of each material that the set has; empty where the set or moyopy, which finds the symmetries, is not
        on this machine.

    Raises
    ------
    InputError
        The set cannot be read.
    """
    if find_spec("moyopy") is None:
        return {}
    try:
        reference = reference_file("wbm-relaxed", folder)
    except ReferenceNotHereError:
        return {}
    cache = get_settings().cache_dir / _CACHE
    state = reference.stat()
    known = dict(_read(cache))
    # Results and the reference may change behind the same names.
    marks = {
        material: f"{key} {energy!r} {state.st_size} {state.st_mtime_ns}" for material, (key, energy) in relaxed.items()
    }
    missing = {material: mark for material, mark in marks.items() if (material, mark) not in known}
    if missing:
        cache.parent.mkdir(parents=True, exist_ok=True)
        with cache.open("a", encoding="utf-8") as out:
            for planned in structures_of_file(reference, lambda fault: None):
                mark = missing.pop(planned.label, None)
                if mark is not None:
                    found = _compare(structure_of(relaxed[planned.label][0]), to_pymatgen(planned.atoms))
                    known[planned.label, mark] = found
                    out.write(_line(planned.label, mark, found))
                if not missing:
                    break
    return {material: known[material, mark] for material, mark in marks.items() if (material, mark) in known}


def geometry_columns(compared: Mapping[str, Compared]) -> dict[str, float | None]:
    """Metrics under the names of the table of published results.

    Parameters
    ----------
    compared
        Comparisons by material.

    Returns
    -------
    dict
        "rmsd_1e-2", "symmetry_match_1e-2" and so on; empty without any comparison.
    """
    if not compared:
        return {}
    rows = {name: [GeometryRow(one.rmsd, *one.symmetries[name]) for one in compared.values()] for name in TOLERANCES}
    return {name: value for name, value in flat_geometry_metrics(rows).items() if "n_structures" not in name}


def dft_structures(folder: str | None) -> Iterator[tuple[str, Structure]]:
    """Structures that DFT relaxed, one after the other: the reference set wbm-relaxed.

    Parameters
    ----------
    folder
        Folder to look for the set in first.

    Yields
    ------
    tuple of str and Structure
        Number and structure of a crystal.

    Raises
    ------
    InputError
        The set is not there or cannot be read.
    """
    for planned in structures_of_file(reference_file("wbm-relaxed", folder), lambda fault: None):
        yield planned.label, to_pymatgen(planned.atoms)


def _compare(relaxed: Structure, reference: Structure) -> Compared:
    rows = compare_structures(relaxed, reference)
    symmetries = {name: (row.predicted, row.reference) for name, row in rows.items()}
    return Compared(next(iter(rows.values())).rmsd, symmetries)


def _line(material: str, mark: str, found: Compared) -> str:
    pairs = {name: [one and astuple(one) for one in pair] for name, pair in found.symmetries.items()}
    return json.dumps({"material": material, "mark": mark, "rmsd": found.rmsd, "symmetries": pairs}) + "\n"


def _read(path: Path) -> Iterator[tuple[tuple[str, str], Compared]]:
    if not path.is_file():
        return
    with path.open(encoding="utf-8") as lines:
        for line in lines:
            try:
                row: dict[str, Any] = json.loads(line)
                pairs = {name: _pair(pair) for name, pair in row["symmetries"].items()}
                yield (row["material"], row["mark"]), Compared(row["rmsd"], pairs)
            except (ValueError, KeyError, TypeError):
                continue  # a process was killed while it wrote; this one is compared again


def _pair(values: list[Any]) -> tuple[Symmetry | None, Symmetry | None]:
    ours, theirs = (None if one is None else Symmetry(int(one[0]), int(one[1])) for one in values)
    return ours, theirs
