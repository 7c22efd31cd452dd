"""The benchmark discovery: stability of WBM's crystals from their relaxed energies."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
from pymatgen.core import Structure

from esen_flows.campaigns.benchmark_geometry import Compared, compared_with_dft, geometry_columns
from esen_flows.campaigns.judged_models import JudgedModel
from esen_flows.campaigns.records import member_rows
from esen_flows.campaigns.sources import ReferenceNotHereError, reference_file
from esen_flows.metrics.artefacts import RelaxedCrystal
from esen_flows.metrics.discovery import (
    DiscoveryReference,
    flat_discovery_metrics,
    predicted_hull_distances,
    read_discovery_reference,
)
from esen_flows.metrics.formation_energy import (
    formation_energy,
    mp2020_correction,
    read_elemental_references,
    read_entry_parameters,
)
from esen_flows.schemas.campaign import CampaignSpec
from esen_flows.schemas.documents import ResultDocument, StructureData
from esen_flows.store.bulk import batches
from esen_flows.store.campaigns import material_ids, step_results
from esen_flows.store.database import Row
from esen_flows.store.results import Store
from esen_flows.structures.conversion import to_pymatgen

HEADLINE = "unique_F1"
# Everything but the arrays along the relaxation.
_OUTPUT = ("structure", "energy_ev", "converged", "n_steps")
_FIELDS = (*(name for name in ResultDocument.model_fields if name != "output"), *(f"output.{name}" for name in _OUTPUT))


@dataclass(frozen=True)
class DiscoveryResult:
    """Result of one member.

    Attributes
    ----------
    label
        Label of the force field.
    key
        Key of the relaxation.
    materials
        Numbers of the crystal: several where it occurs twice in WBM and is relaxed once.
    state
        State of the member: finished, failed or pending.
    crystal
        Relaxed crystal; None if there is none.
    e_form_ev_per_atom
        Formation energy in eV/atom, rounded as in a submission; None without a relaxed crystal, and for one that the
        corrections reject.
    """

    label: str
    key: str
    materials: tuple[str, ...]
    state: str
    crystal: RelaxedCrystal | None
    e_form_ev_per_atom: float | None


def discovery_benchmark(
    store: Store, spec: CampaignSpec, labels: Sequence[str], folder: str | None, on_member: Callable[[], None]
) -> Iterator[JudgedModel]:
    """Metrics of relaxations of a campaign: stability, and where DFT's structures are on this machine, geometry.

    Parameters
    ----------
    store
        Store of the campaign.
    spec
        Specification of the campaign.
    labels
        Labels of the force fields.
    folder
        Folder to look for DFT's results and the elements in first; None: only the reference sets of this machine.
    on_member
        Called for each member.

    Yields
    ------
    JudgedModel
        Metrics of one force field.

    Raises
    ------
    InputError
        A reference is not there or cannot be read.
    """
    reference = read_discovery_reference(reference_file("wbm-summary", folder))
    states: dict[str, dict[str, str]] = {label: {} for label in labels}
    energies: dict[str, dict[str, float]] = {label: {} for label in labels}
    keys: dict[str, dict[str, str]] = {label: {} for label in labels}
    for result in discovery_results(store, spec, folder, on_member):
        for material in result.materials:
            states[result.label][material] = result.state
            if result.e_form_ev_per_atom is not None:
                energies[result.label][material] = result.e_form_ev_per_atom
                keys[result.label][material] = result.key
    counted = set(reference.material_ids.tolist())
    for label in labels:
        # As in a submission, a structure whose energy MP2020 rejects has no row.
        relaxed = {
            material: (keys[label][material], energy)
            for material, energy in energies[label].items()
            if material in counted
        }
        compared = compared_with_dft(relaxed, partial(_structure, store), folder)
        yield _judge(label, reference, states[label], energies[label], compared)


def discovery_results(
    store: Store, spec: CampaignSpec, folder: str | None, on_member: Callable[[], None]
) -> Iterator[DiscoveryResult]:
    """Relaxed crystals of a campaign and their formation energies, one after the other.

    Parameters
    ----------
    store
        Store of the campaign.
    spec
        Specification of the campaign.
    folder
        Folder to look for the elements and DFT's entries in first; None: only the reference sets of this machine.
    on_member
        Called for each member.

    Yields
    ------
    DiscoveryResult
        Result of one member.

    Raises
    ------
    InputError
        A reference is not there or cannot be read.
    """
    elements = read_elemental_references(reference_file("mp-elements", folder))
    add = spec.energy_corrections == "add"
    parameters = _parameters(folder) if add else {}
    for rows in batches(member_rows(store, spec.name)):
        results, ids = step_results(store, rows, _FIELDS), material_ids(store, rows)
        for row, steps, materials in zip(rows, results, ids, strict=True):
            on_member()
            crystal = _crystal(store, row, steps)
            energy = (
                None if crystal is None else _formation_energy(crystal, elements, add, parameters.get(row["label"]))
            )
            names = tuple(sorted({row["label"], *materials}))
            yield DiscoveryResult(row["model_label"], row["key"], names, row["state"], crystal, energy)


def _parameters(folder: str | None) -> dict[str, dict[str, Any]]:
    """Parameters of WBM's own calculations; empty where the set is not here, which means those of MPRelaxSet."""
    try:
        return read_entry_parameters(reference_file("wbm-entries", folder))
    except ReferenceNotHereError:
        return {}


def _crystal(store: Store, row: Row, steps: Sequence[Row]) -> RelaxedCrystal | None:
    last = steps[-1] if steps else None
    if last is None or last["key"] != row["key"] or last["failure"]:
        return None
    output = store.read(last).output or {}
    return RelaxedCrystal(
        row["label"], _relaxed(output), float(output["energy_ev"]), bool(output["converged"]), int(output["n_steps"])
    )


def _formation_energy(
    crystal: RelaxedCrystal, elements: Mapping[str, float], add: bool, parameters: Mapping[str, Any] | None
) -> float | None:
    """Formation energy in eV/atom, rounded as in a submission; None for a crystal that the corrections reject."""
    energy = crystal.energy_ev
    if add:
        correction = mp2020_correction(crystal.structure, energy, parameters)
        if correction is None:  # the leaderboard gives such a crystal no energy
            return None
        energy += correction
    return round(formation_energy(energy, crystal.structure.composition, elements), 4)


def _relaxed(output: Mapping[str, Any]) -> Structure:
    return to_pymatgen(StructureData(**output["structure"]).to_atoms())


def _structure(store: Store, key: str) -> Structure:
    document = store.get(key)
    assert document is not None  # its energy was read a moment ago
    return _relaxed(document.output or {})


def _judge(
    label: str,
    reference: DiscoveryReference,
    states: Mapping[str, str],
    energies: Mapping[str, float],
    compared: Mapping[str, Compared],
) -> JudgedModel:
    materials = reference.material_ids.tolist()
    done = np.array([states.get(material) in ("finished", "failed") for material in materials])
    metrics, intervals = flat_discovery_metrics(reference.rows(done), energies, with_intervals=True)
    missing = flat_discovery_metrics(reference, energies)[0]
    geometry = geometry_columns(compared)  # the leaderboard does not count structures that are missing
    distances = predicted_hull_distances(reference, energies) if energies else np.full(len(materials), np.nan)
    return JudgedModel(
        model=label,
        n_materials=len(materials),
        n_done=int(done.sum()),
        done=metrics | geometry,
        intervals=intervals,
        with_missing_as_failed=(missing or {HEADLINE: 0.0}) | geometry,
        headline=HEADLINE,
        materials=[
            {
                "material": material,
                "state": states.get(material, "absent"),
                "e_form_ev_per_atom": energies.get(material),
                "e_above_hull_ev_per_atom": None if np.isnan(distances[i]) else round(float(distances[i]), 9),
                "reference_e_above_hull_ev_per_atom": float(reference.e_above_hull_ev_per_atom[i]),
                "unique_prototype": bool(reference.unique_prototype[i]),
                "rmsd": compared[material].counted_rmsd if material in compared else None,
            }
            for i, material in enumerate(materials)
        ],
    )
