"""The benchmark mdr-phonons: harmonic phonons of the MDR set against DFT."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from esen_flows.campaigns.judged_models import JudgedModel
from esen_flows.campaigns.records import records
from esen_flows.campaigns.sources import published_files
from esen_flows.errors import InputError
from esen_flows.metrics.phonons import METRICS, TEMPERATURE_KELVIN, HarmonicValues, mdr_metrics, read_mdr_reference
from esen_flows.metrics.statistics import bootstrap_interval
from esen_flows.schemas.campaign import CampaignSpec
from esen_flows.store.results import Store
from esen_flows.units import KELVIN_PER_THZ

HEADLINE = "mdr_max_frequency_mae_k"


def phonon_benchmark(
    store: Store, spec: CampaignSpec, labels: Sequence[str], folder: str | None, on_member: Callable[[], None]
) -> Iterator[JudgedModel]:
    """Mean absolute errors of phonons of a campaign.

    The reference of a member is the file with its label. Only members are judged, so that a campaign of a part of the
    set has errors too.

    Parameters
    ----------
    store
        Store of the campaign.
    spec
        Specification of the campaign.
    labels
        Labels of the force fields.
    folder
        Folder of the files of the set; None: the default one.
    on_member
        Called for each member.

    Yields
    ------
    JudgedModel
        Metrics of one force field.

    Raises
    ------
    InputError
        The files are not there or cannot be read, no member is in the set, or phonons have no values at 300 K.
    """
    files = {file.name.partition(".")[0]: file for file in published_files("mdr", folder)}
    materials: dict[str, list[tuple[dict[str, Any], _Pair | None]]] = {label: [] for label in labels}
    known: dict[str, HarmonicValues] = {}
    for record in records(store, spec.name, on_member):
        name, state = str(record.member["label"]), str(record.member["state"])
        if name not in files:
            continue
        pair = None
        if record.answer is not None:
            if name not in known:
                known[name] = read_mdr_reference(files[name])
            pair = _values(record.answer["summary"], name), known[name]
        row = {"material": name, "formula": record.member["formula"], "state": state}
        row["failure"] = record.member["failure"]
        materials[record.member["model_label"]].append((row | _columns(pair), pair))
    for label in labels:
        if not materials[label]:
            raise InputError(
                f"no member of campaign {spec.name} is a crystal of the MDR set, whose files are called "
                "mp-1000.yaml.bz2 and so on; write structures: {published: mdr}, or these ids into the structure files"
            )
        yield _judge(label, materials[label])


_Pair = tuple[HarmonicValues, HarmonicValues]  # of the force field, and of DFT


def _values(summary: Mapping[str, Any], name: str) -> HarmonicValues:
    at = f"_at_{TEMPERATURE_KELVIN:.0f}K"
    highest = summary.get("max_commensurate_frequency_thz")
    if highest is None or f"entropy_j_per_k_mol{at}" not in summary:
        raise InputError(
            f"the phonons of {name} cannot be compared with DFT's: they have no values at {TEMPERATURE_KELVIN:g} K, or "
            "are of an earlier version; compute them by the protocol mdr-esen or mdr-loew"
        )
    return HarmonicValues(
        max_frequency_k=float(highest) * KELVIN_PER_THZ,
        entropy_j_per_k_mol=float(summary[f"entropy_j_per_k_mol{at}"]),
        free_energy_kj_per_mol=float(summary[f"free_energy_kj_per_mol{at}"]),
        heat_capacity_j_per_k_mol=float(summary[f"heat_capacity_j_per_k_mol{at}"]),
    )


def _columns(pair: _Pair | None) -> dict[str, float | None]:
    """Values of the force field and of DFT by name."""
    found: dict[str, float | None] = {}
    for quantity in METRICS:
        found[quantity] = None if pair is None else getattr(pair[0], quantity)
        found[f"reference_{quantity}"] = None if pair is None else getattr(pair[1], quantity)
    return found


def _judge(label: str, materials: Sequence[tuple[dict[str, Any], _Pair | None]]) -> JudgedModel:
    pairs = [pair for _, pair in materials if pair is not None]
    states = [row["state"] for row, _ in materials]
    failed, pending = states.count("failed"), states.count("pending")
    # The published tables average over what could be computed, so that a failure changes no error but is counted.
    errors: dict[str, float | None] = {
        name: value if np.isfinite(value) else None for name, value in mdr_metrics(pairs).items()
    }
    return JudgedModel(
        model=label,
        n_materials=len(materials),
        n_done=len(materials) - pending,
        done=errors | {"mdr_failed": failed},
        intervals={name: _interval(quantity, pairs) for quantity, name in METRICS.items()} if len(pairs) > 1 else {},
        with_missing_as_failed=errors | {"mdr_failed": failed + pending},
        headline=HEADLINE,
        materials=[row for row, _ in materials],
    )


def _interval(quantity: str, pairs: Sequence[_Pair]) -> tuple[float, float]:
    errors = np.array([abs(getattr(ours, quantity) - getattr(dft, quantity)) for ours, dft in pairs])
    return bootstrap_interval(lambda rows: float(errors[rows].mean()), len(errors))
