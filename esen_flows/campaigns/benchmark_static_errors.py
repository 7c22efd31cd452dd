"""The benchmark static-errors: energies, forces and stresses of a labelled dataset against its labels."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from esen_flows.campaigns.judged_models import JudgedModel
from esen_flows.campaigns.records import member_rows
from esen_flows.campaigns.sources import PlannedStructure, labelled_structures
from esen_flows.data.label_errors import error_sums, mean_errors
from esen_flows.data.labelled import LabelledStructure
from esen_flows.metrics.static_errors import HEADLINE, SHOWN, static_errors
from esen_flows.metrics.statistics import bootstrap_interval
from esen_flows.schemas.campaign import CampaignSpec
from esen_flows.schemas.documents import ResultDocument
from esen_flows.store.bulk import batches
from esen_flows.store.campaigns import step_results
from esen_flows.store.database import Row
from esen_flows.store.results import Store

_ELEMENTS = 119  # index 0 is no element


@dataclass
class _Judged:
    """Errors of one force field, by the number of the record."""

    states: dict[int, str] = field(default_factory=dict)
    sums: dict[int, np.ndarray] = field(default_factory=dict)
    energy_errors: dict[int, float] = field(default_factory=dict)  # eV/atom


def static_errors_benchmark(
    store: Store, spec: CampaignSpec, labels: Sequence[str], folder: str | None, on_member: Callable[[], None]
) -> Iterator[JudgedModel]:
    """Static errors of the force fields of a campaign, by the same sums as `training.evaluate`.

    Parameters
    ----------
    store
        Store of the campaign.
    spec
        Specification of the campaign, whose structures are those of a labelled dataset.
    labels
        Labels of the force fields.
    folder
        Unused: the labels are in the dataset.
    on_member
        Called for each member.

    Yields
    ------
    JudgedModel
        Errors of one force field.

    Raises
    ------
    InputError
        The dataset is not there or cannot be read.
    """
    assert spec.structures is not None  # `CampaignSpec` asks for a dataset
    records = list(labelled_structures(spec.structures))
    of_structure: dict[str, list[int]] = {}  # a structure with several labels is computed once
    for number, (planned, _) in enumerate(records):
        of_structure.setdefault(planned.key, []).append(number)
    judged = {label: _Judged() for label in labels}
    for rows in batches(member_rows(store, spec.name)):
        for row, steps in zip(rows, step_results(store, rows, ResultDocument.model_fields), strict=True):
            on_member()
            output = _output(store, row, steps)
            found = judged[row["model_label"]]
            for number in of_structure.get(row["structure_key"], ()):
                found.states[number] = row["state"]
                if output is not None:
                    _compare(found, number, records[number][1], output)
    for label in labels:
        yield _judge(label, records, judged[label])


def _output(store: Store, row: Row, steps: Sequence[Row]) -> Mapping[str, Any] | None:
    """Energy, forces and stress of a member; None if it is pending or has failed."""
    last = steps[-1] if steps else None
    return None if last is None or last["key"] != row["key"] or last["failure"] else store.read(last).output


def _compare(judged: _Judged, number: int, item: LabelledStructure, output: Mapping[str, Any]) -> None:
    energy, stress = float(output["energy_ev"]), output["stress_ev_per_angstrom3"]
    stress = np.full((3, 3), np.nan) if stress is None else np.asarray(stress, dtype=float)
    judged.sums[number] = error_sums(item, energy, np.asarray(output["forces_ev_per_angstrom"], dtype=float), stress)
    judged.energy_errors[number] = (energy - item.energy) / len(item.atoms)


def _judge(label: str, records: Sequence[tuple[PlannedStructure, LabelledStructure]], judged: _Judged) -> JudgedModel:
    numbers = sorted(judged.sums)
    done: dict[str, float | None] = {}
    intervals = {}
    if numbers:
        sums = np.array([judged.sums[number] for number in numbers])
        errors = np.array([judged.energy_errors[number] for number in numbers])
        fractions = np.array([_fractions(records[number][1]) for number in numbers])
        done = static_errors(sums, [records[number][1].group for number in numbers], errors, fractions)
        intervals = {name: bootstrap_interval(_mean_of(sums, name), len(sums)) for name in SHOWN}
    n_done = sum(state in ("finished", "failed") for state in judged.states.values())
    complete = len(numbers) == len(records)
    return JudgedModel(
        model=label,
        n_materials=len(records),
        n_done=n_done,
        done=done,
        intervals=intervals,
        # An error that was not computed has no value, so that there is no mean over all as long as one is missing.
        with_missing_as_failed={
            name: value if complete else None for name, value in (done or {HEADLINE: None}).items()
        },
        headline=HEADLINE,
        materials=[_material(number, *record, judged) for number, record in enumerate(records)],
    )


def _mean_of(sums: np.ndarray, name: str) -> Callable[[np.ndarray], float]:
    return lambda rows: mean_errors(sums[rows].sum(axis=0))[name]


def _fractions(item: LabelledStructure) -> np.ndarray:
    return np.bincount(item.atoms.numbers, minlength=_ELEMENTS) / len(item.atoms)


def _material(number: int, planned: PlannedStructure, item: LabelledStructure, judged: _Judged) -> dict[str, Any]:
    errors = mean_errors(judged.sums[number]) if number in judged.sums else {}
    signed = judged.energy_errors.get(number)
    return {
        "material": planned.label,
        "subset": item.group,
        "formula": str(item.atoms.symbols.formula.format("hill")),
        "atoms": len(item.atoms),
        "state": judged.states.get(number, "absent"),
        "energy_error_mev_per_atom": None if signed is None else 1000 * signed,
        **{name: errors[name] if np.isfinite(errors.get(name, np.nan)) else None for name in SHOWN[1:]},
    }
