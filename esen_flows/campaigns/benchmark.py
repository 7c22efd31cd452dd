"""What the results of a campaign are worth: the metrics of its benchmark, by force field."""

import csv
import io
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from esen_flows.campaigns.records import member_rows, refreshed_campaign
from esen_flows.campaigns.sources import REFERENCES, published_files
from esen_flows.errors import InputError
from esen_flows.files import written_whole
from esen_flows.metrics.conductivity import (
    ConductivityErrors,
    ModeConductivity,
    conductivity_errors,
    conductivity_metrics,
    mode_conductivity,
    read_reference_conductivities,
)
from esen_flows.metrics.statistics import bootstrap_interval
from esen_flows.schemas.campaign import Benchmark, CampaignSpec
from esen_flows.store.database import Row
from esen_flows.store.results import Store


@dataclass(frozen=True)
class MaterialErrors:
    """Errors of one material of the reference.

    Attributes
    ----------
    material
        Materials Project number.
    formula
        Chemical formula; empty where the campaign has no such member.
    state
        "finished", "failed", "pending", or "absent" where the campaign has no such member.
    failure
        Class of the failure; None without one.
    kappa_w_per_m_k
        Conductivity in W/m/K by the force field; None without one.
    reference_w_per_m_k
        Conductivity in W/m/K by DFT.
    errors
        Errors; None for a member that is pending.
    """

    material: str
    formula: str
    state: str
    failure: str | None
    kappa_w_per_m_k: float | None
    reference_w_per_m_k: float | None
    errors: ConductivityErrors | None


@dataclass(frozen=True)
class ModelMetrics:
    """Metrics of one force field.

    Attributes
    ----------
    model
        Label of the force field.
    n_materials
        Number of materials of the reference.
    n_done
        Number of them that are finished or failed.
    done
        Metrics over the materials that are done; None as long as there is none.
    srme_interval
        95 % bootstrap interval of the mean SRME over the materials that are done.
    with_missing_as_failed
        Metrics over all materials as the leaderboard counts: those that are pending or absent are failures.
    materials
        Errors of each material of the reference.
    """

    model: str
    n_materials: int
    n_done: int
    done: dict[str, float | None] | None
    srme_interval: tuple[float, float] | None
    with_missing_as_failed: dict[str, float | None]
    materials: tuple[MaterialErrors, ...]


def benchmark_of(spec: CampaignSpec) -> Benchmark | None:
    """Benchmark of a campaign: the one it names, or the one that its published structures belong to.

    Parameters
    ----------
    spec
        Specification.

    Returns
    -------
    str or None
        Name of the benchmark; None if there is none.
    """
    if spec.benchmark is None and spec.property == "conductivity" and spec.structures.published == "phonondb-103":
        return "kappa-103"
    return spec.benchmark


def campaign_metrics(
    store: Store, name: str, reference: Path | None = None, on_member: Callable[[], None] | None = None
) -> tuple[ModelMetrics, ...]:
    """Metrics of a campaign, finished or not.

    Parameters
    ----------
    store
        Store of the campaign.
    name
        Name of the campaign.
    reference
        File of DFT's results. Default: the one beside the published structures.
    on_member
        Called for each member.

    Returns
    -------
    tuple of ModelMetrics
        Metrics of each force field, in the order of the specification.

    Raises
    ------
    InputError
        There is no such campaign, it has no benchmark, or the reference is not there.
    """
    campaign, spec = refreshed_campaign(store, name)
    benchmark = benchmark_of(spec)
    if benchmark is None:
        raise InputError(
            f"campaign {name} has no benchmark: its specification names none, and its structures are no published set "
            "with reference values; write benchmark: kappa-103 into it"
        )
    folder = spec.structures.folder if spec.structures.published else None
    file = reference or published_files(benchmark, folder, REFERENCES)[0]
    table = read_reference_conductivities(file)
    members: dict[str, dict[str, Row]] = {}
    for row in member_rows(store, name):
        members.setdefault(row["model_label"], {})[row["label"]] = row
    found = []
    for model in campaign["models"]:
        rows = members.get(model["label"], {})
        materials = tuple(_materials(store, rows, table, on_member))
        found.append(_metrics(model["label"], materials))
    return tuple(found)


def _materials(
    store: Store,
    members: Mapping[str, Row],
    reference: Mapping[str, ModeConductivity],
    on_member: Callable[[], None] | None,
) -> Iterator[MaterialErrors]:
    for material, expected in reference.items():
        row = members.get(material)
        state = "absent" if row is None else str(row["state"])
        predicted = None
        if row is not None and state != "pending":
            predicted = _prediction(store, row)
        errors = conductivity_errors(predicted, expected) if state in ("finished", "failed") else None
        if on_member is not None and row is not None:
            on_member()
        yield MaterialErrors(
            material=material,
            formula="" if row is None else row["formula"],
            state=state,
            failure=None if row is None else row["failure"],
            kappa_w_per_m_k=None if predicted is None else predicted.kappa_w_per_m_k,
            reference_w_per_m_k=expected.kappa_w_per_m_k,
            errors=errors,
        )


def _prediction(store: Store, row: Row) -> ModeConductivity | None:
    """Conductivity of a member that is done; a failed one has none, but may be known to have imaginary modes."""
    if row["state"] == "failed":
        return ModeConductivity(
            None,
            imaginary=row["failure"] == "ImaginaryModesError",
            broken_symmetry=row["failure"] == "SymmetryBrokenError",
        )
    document = store.get(row["key"])
    return None if document is None else mode_conductivity(document.summary, document.output)


def _metrics(label: str, materials: Sequence[MaterialErrors]) -> ModelMetrics:
    done = [material.errors for material in materials if material.errors is not None]
    missing = ConductivityErrors(-2.0, 2.0, 2.0, True, False, None)
    srme = np.array([errors.srme for errors in done])
    return ModelMetrics(
        model=label,
        n_materials=len(materials),
        n_done=len(done),
        done=conductivity_metrics(done) if done else None,
        srme_interval=bootstrap_interval(lambda rows: float(srme[rows].mean()), len(srme)) if len(srme) > 1 else None,
        with_missing_as_failed=conductivity_metrics([material.errors or missing for material in materials]),
        materials=tuple(materials),
    )


def plain_metrics(metrics: Sequence[ModelMetrics]) -> list[dict[str, Any]]:
    """Metrics as values for JSON, without the materials.

    Parameters
    ----------
    metrics
        Metrics of each force field.

    Returns
    -------
    list of dict
        One dictionary for each force field.
    """
    return [{name: value for name, value in vars(each).items() if name != "materials"} for each in metrics]


def write_material_errors(metrics: Sequence[ModelMetrics], path: Path) -> Path:
    """Write the errors of each material and force field as CSV.

    Parameters
    ----------
    metrics
        Metrics of each force field.
    path
        File to write.

    Returns
    -------
    Path
        The file.
    """
    out = io.StringIO()
    names = tuple(ConductivityErrors.__dataclass_fields__)
    known = tuple(name for name in MaterialErrors.__dataclass_fields__ if name != "errors")
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(("model", *known, *names))
    for each in metrics:
        for material in each.materials:
            errors = {} if material.errors is None else asdict(material.errors)
            values = (getattr(material, name) for name in known)
            writer.writerow((each.model, *values, *(errors.get(name) for name in names)))
    with written_whole(path) as temporary:
        temporary.write_text(out.getvalue(), encoding="utf-8")
    return path
