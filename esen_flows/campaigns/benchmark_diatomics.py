"""The benchmark diatomics: curves of 87 diatomic molecules against PBE."""

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np

from esen_flows.campaigns.judged_models import JudgedModel
from esen_flows.campaigns.records import member_rows
from esen_flows.metrics.diatomics import (
    AGAINST_REFERENCE,
    REFERENCE_FREE,
    curves_of,
    diatomic_metrics,
    model_metrics,
    pbe_curves,
)
from esen_flows.metrics.statistics import bootstrap_interval
from esen_flows.schemas.campaign import CampaignSpec
from esen_flows.schemas.diatomics import ELEMENTS, DiatomicsOutput
from esen_flows.store.database import Row
from esen_flows.store.results import Store

HEADLINE = "diatomics_pbe_energy_mae"
_METRICS = (*REFERENCE_FREE, *AGAINST_REFERENCE)


def diatomics_benchmark(
    store: Store, spec: CampaignSpec, labels: Sequence[str], folder: str | None, on_member: Callable[[], None]
) -> Iterator[JudgedModel]:
    """Metrics of the force fields of a campaign.

    Parameters
    ----------
    store
        Store of the campaign.
    spec
        Specification of the campaign.
    labels
        Labels of the force fields.
    folder
        Not used: PBE's curves are part of the package.
    on_member
        Called for each member.

    Yields
    ------
    JudgedModel
        Metrics of one force field, whose materials are the 87 elements.
    """
    members: dict[str, Row] = {}
    for row in member_rows(store, spec.name):
        members[row["model_label"]] = row
        on_member()
    for label in labels:
        yield _judge(store, label, members.get(label))


def _judge(store: Store, label: str, row: Row | None) -> JudgedModel:
    state = "absent" if row is None else str(row["state"])
    document = store.get(row["key"]) if row is not None and state == "finished" else None
    if document is None or document.output is None:
        # A failed force field has no curve, which no number stands for.
        unknown = dict.fromkeys((HEADLINE, "diatomics_excluded"))
        materials = [_material(element, state, None, {}) for element in ELEMENTS]
        return JudgedModel(
            model=label, n_materials=len(ELEMENTS), n_done=len(ELEMENTS) if state == "failed" else 0, done={},
            intervals={}, with_missing_as_failed=unknown, headline=HEADLINE, materials=materials,
        )  # fmt: skip
    output = DiatomicsOutput.model_validate(document.output)
    curves, reference = curves_of(output), pbe_curves()
    found = {
        element: diatomic_metrics(element, curves[element], reference.get(element))
        for element in ELEMENTS
        if element in curves
    }
    means = {f"diatomics_{name}": _finite(value) for name, value in model_metrics(curves, reference).items()}
    values: dict[str, float | None] = {
        **means,
        "diatomics_run_time_sec": round(document.provenance.seconds, 1),
        "diatomics_excluded": len(ELEMENTS) - len(found),
    }
    return JudgedModel(
        model=label,
        n_materials=len(ELEMENTS),
        n_done=len(ELEMENTS),
        done=values,
        intervals={
            f"diatomics_{name}": _interval([row.get(name, np.nan) for row in found.values()]) for name in _METRICS
        },
        with_missing_as_failed=values,
        headline=HEADLINE,
        materials=[
            _material(element, state, output.excluded.get(element), found.get(element, {})) for element in ELEMENTS
        ],
    )


def _interval(values: Sequence[float]) -> tuple[float, float]:
    """95 % interval of the mean over elements with a finite value."""
    finite = np.array([value for value in values if np.isfinite(value)])
    if len(finite) < 2:
        return float("nan"), float("nan")
    return bootstrap_interval(lambda rows: float(finite[rows].mean()), len(finite))


def _material(element: str, state: str, excluded: str | None, metrics: dict[str, float]) -> dict[str, Any]:
    values = {name: _finite(metrics.get(name, float("nan"))) for name in _METRICS}
    return {"material": f"{element}-{element}", "state": state, "excluded": excluded, **values}


def _finite(value: float) -> float | None:
    return value if np.isfinite(value) else None
