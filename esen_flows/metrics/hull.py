"""Distances to the convex hull from computed entries, without the identity that a fixed hull allows."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path

from pymatgen.analysis.phase_diagram import PatchedPhaseDiagram, PDEntry
from pymatgen.core import Composition
from pymatgen.entries.computed_entries import ComputedEntry

from esen_flows.errors import InputError
from esen_flows.files import read_at_most

_MOST_BYTES = 4_000_000_000


def read_computed_entries(path: Path) -> list[ComputedEntry]:
    """Computed entries of competing phases.

    Parameters
    ----------
    path
        JSON, compressed or not: a list of entries as pymatgen writes them, or an object with the list, or with the
        entries by name, under "entry" or "entries".

    Returns
    -------
    list of ComputedEntry
        The entries, without structures, at their corrected energies.

    Raises
    ------
    InputError
        The file cannot be read.
    """
    try:
        content = json.loads(read_at_most(path, _MOST_BYTES))
        for name in ("entries", "entry"):
            if isinstance(content, Mapping) and name in content:
                content = content[name]
        rows = list(content.values()) if isinstance(content, Mapping) else content
        return [_entry(row) for row in rows]
    except (OSError, EOFError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise InputError(f"{path}: no computed entries can be read ({type(error).__name__}: {error})") from None


def _entry(row: Mapping[str, object]) -> ComputedEntry:
    """The entry without its structure, parameters and data, which a phase diagram does not need."""
    names = ("composition", "energy", "correction", "energy_adjustments", "entry_id")
    return ComputedEntry.from_dict({name: row[name] for name in names if name in row})


def hull_distances(competing: Sequence[ComputedEntry], crystals: Sequence[tuple[Composition, float]]) -> list[float]:
    """Distances of crystals to the convex hull of other entries, by pymatgen's PatchedPhaseDiagram.

    Parameters
    ----------
    competing
        Entries that make up the hull: those of all elements have to be among them.
    crystals
        Composition, and energy in eV with the corrections of the entries.

    Returns
    -------
    list of float
        Distance of each crystal in eV/atom, negative below the hull.

    Raises
    ------
    InputError
        An element of a crystal has no entry.
    """
    elements = {element for entry in competing if entry.composition.is_element for element in entry.composition}
    wanted = {element for composition, _ in crystals for element in composition}
    if missing := sorted(element.symbol for element in wanted - elements):
        raise InputError(f"no entry of the element {', '.join(missing)}; the hull needs every element")
    relevant = [entry for entry in competing if set(entry.composition) <= wanted]
    diagram = PatchedPhaseDiagram(relevant)
    return [
        float(diagram.get_e_above_hull(PDEntry(composition, energy), allow_negative=True))
        for composition, energy in crystals
    ]
