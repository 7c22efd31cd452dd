"""A phase diagram of computed entries gives the hull distances of the identity."""

import json
from pathlib import Path

import numpy as np
import pytest
from pymatgen.analysis.phase_diagram import PhaseDiagram
from pymatgen.core import Composition
from pymatgen.entries.computed_entries import ComputedEntry

from esen_flows.errors import InputError
from esen_flows.metrics.discovery import DiscoveryReference, predicted_hull_distances
from esen_flows.metrics.formation_energy import formation_energy, total_energy
from esen_flows.metrics.hull import hull_distances, read_computed_entries

# eV, about as PBE has them; Fe2O3 and LiFeO2 carry corrections.
ENTRIES = [
    ComputedEntry("Li", -1.91), ComputedEntry("O2", -9.86), ComputedEntry("Fe", -8.31), ComputedEntry("Li2O", -14.27),
    ComputedEntry("Li2O2", -19.04), ComputedEntry("FeO", -14.2), ComputedEntry("Fe2O3", -35.1, correction=-2.1),
    ComputedEntry("LiFeO2", -25.0, correction=-1.4), ComputedEntry("Na", -1.31), ComputedEntry("Na2O", -11.6),
]  # fmt: skip
CRYSTALS = {"a": "LiFeO2", "b": "Fe3O4", "c": "Li5FeO4", "d": "Na2O2", "e": "Li"}


def test_the_identity_of_a_fixed_hull(tmp_path: Path) -> None:
    path = tmp_path / "entries.json"
    path.write_text(json.dumps([entry.as_dict() for entry in ENTRIES]))
    competing = read_computed_entries(path)
    elements = {e.composition.elements[0].symbol: e.energy_per_atom for e in ENTRIES if e.composition.is_element}
    compositions = [Composition(formula) for formula in CRYSTALS.values()]
    dice = np.random.default_rng(1)
    dft, ours = dice.normal(-1.5, 0.4, (2, len(compositions)))
    by_dft, by_ours = (
        hull_distances(
            competing, [(c, total_energy(e, c, elements)) for c, e in zip(compositions, energies, strict=True)]
        )
        for energies in (dft, ours)
    )
    # The same hull by another class of pymatgen's, of the whole chemical system.
    diagram = PhaseDiagram(ENTRIES)
    for composition, energy, distance in zip(compositions, dft, by_dft, strict=True):
        plain = energy - formation_energy(diagram.get_hull_energy(composition), composition, elements)
        assert distance == pytest.approx(plain, abs=1e-6)
    reference = DiscoveryReference(np.array(list(CRYSTALS)), dft, np.array(by_dft), np.ones(len(dft), dtype=bool))
    identity = predicted_hull_distances(reference, dict(zip(CRYSTALS, ours.tolist(), strict=True)))
    assert by_ours == pytest.approx(identity.tolist(), abs=1e-6)


def test_an_element_without_an_entry() -> None:
    with pytest.raises(InputError, match="no entry of the element K"):
        hull_distances(ENTRIES, [(Composition("K2O"), -10.0)])


def test_a_file_that_holds_no_entries(tmp_path: Path) -> None:
    path = tmp_path / "entries.json"
    path.write_text("[1]")
    with pytest.raises(InputError, match=r"entries\.json: no computed entries"):
        read_computed_entries(path)
