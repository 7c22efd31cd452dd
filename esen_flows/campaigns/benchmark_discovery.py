"""The benchmark discovery: stability of WBM's crystals from their relaxed energies."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from typing import Any

import numpy as np
from pymatgen.core import Structure

from esen_flows.campaigns.benchmark_geometry import Compared, compared_with_dft, geometry_columns
from esen_flows.campaigns.judged_models import JudgedModel
from esen_flows.campaigns.records import member_rows
from esen_flows.campaigns.sources import ReferenceNotHereError, reference_file
from esen_flows.metrics.discovery import (
    DiscoveryReference,
    discovery_metrics,
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
_FIELDS = (*(name for name in ResultDocument.model_fields if name != "output"), "output.structure", "output.energy_ev")
_PREFIXES = {"full_test_set": "full", "unique_prototypes": "unique", "most_stable_10k": "top"}


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
    elements = read_elemental_references(reference_file("mp-elements", folder))
    parameters = _parameters(folder) if spec.energy_corrections == "add" else {}
    states: dict[str, dict[str, str]] = {label: {} for label in labels}
    energies: dict[str, dict[str, float]] = {label: {} for label in labels}
    keys: dict[str, dict[str, str]] = {label: {} for label in labels}
    for rows in batches(member_rows(store, spec.name)):
        results, ids = step_results(store, rows, _FIELDS), material_ids(store, rows)
        for row, steps, materials in zip(rows, results, ids, strict=True):
            on_member()
            label = row["model_label"]
            own = parameters.get(row["label"])
            energy = _formation_energy(store, row, steps, elements, spec.energy_corrections, own)
            # A crystal that occurs twice in WBM is relaxed once.
            for material in {row["label"], *materials}:
                states[label][material] = row["state"]
                if energy is not None:
                    energies[label][material], keys[label][material] = energy, row["key"]
    counted = set(reference.material_ids.tolist())
    for label in labels:
        # As in a submission, a structure whose energy MP2020 rejects has no row.
        relaxed = {material: keys[label][material] for material in energies[label] if material in counted}
        compared = compared_with_dft(relaxed, partial(_structure, store), folder)
        yield _judge(label, reference, states[label], energies[label], compared)


def _parameters(folder: str | None) -> dict[str, dict[str, Any]]:
    """Parameters of WBM's own calculations; empty where the set is not here, which means those of MPRelaxSet."""
    try:
        return read_entry_parameters(reference_file("wbm-entries", folder))
    except ReferenceNotHereError:
        return {}


def _formation_energy(
    store: Store,
    row: Row,
    steps: Sequence[Row],
    elements: Mapping[str, float],
    corrections: str | None,
    parameters: Mapping[str, Any] | None,
) -> float | None:
    """Formation energy in eV/atom, rounded as in a submission; None without a relaxed structure."""
    last = steps[-1] if steps else None
    if last is None or last["key"] != row["key"] or last["failure"]:
        return None
    output = store.read(last).output or {}
    structure = _relaxed(output)
    energy = float(output["energy_ev"])
    if corrections == "add":
        correction = mp2020_correction(structure, energy, parameters)
        if correction is None:  # the leaderboard gives such a crystal no energy
            return None
        energy += correction
    return round(formation_energy(energy, structure.composition, elements), 4)


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
    metrics, intervals = _flat(reference.rows(done), energies, with_intervals=True) if energies else ({}, {})
    missing = _flat(reference, energies)[0] if energies else {}
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
                "e_above_hull_ev_per_atom": None if np.isnan(distances[i]) else round(float(distances[i]), 4),
                "reference_e_above_hull_ev_per_atom": float(reference.e_above_hull_ev_per_atom[i]),
                "unique_prototype": bool(reference.unique_prototype[i]),
                "rmsd": compared[material].counted_rmsd if material in compared else None,
            }
            for i, material in enumerate(materials)
        ],
    )


def _flat(
    reference: DiscoveryReference, energies: Mapping[str, float], with_intervals: bool = False
) -> tuple[dict[str, float | None], dict[str, tuple[float, float]]]:
    """Metrics and their intervals under the names of the table of published results."""
    metrics: dict[str, float | None] = {}
    intervals: dict[str, tuple[float, float]] = {}
    found: dict[str, dict[str, Any]] = discovery_metrics(reference, energies, with_intervals)
    for subset, values in found.items():
        for name, value in values.items():
            if name.endswith("_interval"):
                intervals[f"{_PREFIXES[subset]}_{name.removesuffix('_interval')}"] = value
            else:
                metrics[f"{_PREFIXES[subset]}_{name}"] = None if np.isnan(value) else value
    return metrics, intervals
