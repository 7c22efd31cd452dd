"""The benchmark kappa-103: conductivities of PhononDB's crystals against DFT."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, fields
from typing import Any

import numpy as np

from esen_flows.campaigns.judged_models import JudgedModel
from esen_flows.campaigns.records import member_rows
from esen_flows.campaigns.sources import reference_file
from esen_flows.metrics.artefacts import conductivity_record
from esen_flows.metrics.conductivity import (
    ConductivityErrors,
    ModeConductivity,
    conductivity_errors,
    conductivity_metrics,
    mode_conductivity,
    read_reference_conductivities,
)
from esen_flows.metrics.statistics import bootstrap_interval
from esen_flows.schemas.campaign import CampaignSpec
from esen_flows.store.database import Row
from esen_flows.store.results import Store

HEADLINE = "κ_SRME"


def conductivity_benchmark(
    store: Store, spec: CampaignSpec, labels: Sequence[str], folder: str | None, on_member: Callable[[], None]
) -> Iterator[JudgedModel]:
    """Metrics of conductivities of a campaign.

    Parameters
    ----------
    store
        Store of the campaign.
    spec
        Specification of the campaign.
    labels
        Labels of the force fields.
    folder
        Folder to look for DFT's results in first; None: only the reference sets of this machine.
    on_member
        Called for each member.

    Yields
    ------
    JudgedModel
        Metrics of one force field.

    Raises
    ------
    InputError
        The reference is not there or cannot be read.
    """
    reference = read_reference_conductivities(reference_file("phonondb-103-kappa", folder))
    members: dict[str, dict[str, Row]] = {label: {} for label in labels}
    for row in member_rows(store, spec.name):
        members[row["model_label"]][row["label"]] = row
        on_member()
    for label in labels:
        yield _judge(label, [_material(store, members[label].get(name), name, dft) for name, dft in reference.items()])


def _material(
    store: Store, row: Row | None, name: str, reference: ModeConductivity
) -> tuple[dict[str, Any], ConductivityErrors | None]:
    state = "absent" if row is None else str(row["state"])
    predicted, errors = None, None
    if row is not None and state != "pending":
        predicted = _prediction(store, row)
        errors = conductivity_errors(predicted, reference)
    known = {
        "material": name,
        "formula": "" if row is None else row["formula"],
        "state": state,
        "failure": None if row is None else row["failure"],
        "kappa_w_per_m_k": None if predicted is None else predicted.kappa_w_per_m_k,
        "reference_w_per_m_k": reference.kappa_w_per_m_k,
    }
    found = {field.name: None for field in fields(ConductivityErrors)} if errors is None else asdict(errors)
    return known | found, errors


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


def conductivity_records(
    store: Store, spec: CampaignSpec, folder: str | None, on_member: Callable[[], None]
) -> list[dict[str, Any]]:
    """Rows of a submission's file: one for each crystal of the reference, also for those without a result.

    Parameters
    ----------
    store
        Store of the campaign, which has one force field.
    spec
        Specification of the campaign.
    folder
        Folder to look for DFT's results in first; None: only the reference sets of this machine.
    on_member
        Called for each member.

    Returns
    -------
    list of dict
        Rows of `metrics.artefacts.conductivity_record`.

    Raises
    ------
    InputError
        The reference is not there, or a result has no conductivity by modes.
    """
    members: dict[str, Row] = {}
    for row in member_rows(store, spec.name):
        members[row["label"]] = row
        on_member()
    reference = read_reference_conductivities(reference_file("phonondb-103-kappa", folder))
    return [_record(store, members.get(name), name) for name in reference]


def _record(store: Store, row: Row | None, name: str) -> dict[str, Any]:
    state = "absent" if row is None else str(row["state"])
    facts: dict[str, Any] = {"has_imag_ph_modes": False, "broken_symmetry": False}
    if row is None or state == "pending":
        return conductivity_record(name, "" if row is None else row["formula"], None, [state], facts)
    facts |= {
        "has_imag_ph_modes": row["failure"] == "ImaginaryModesError",
        "broken_symmetry": row["failure"] == "SymmetryBrokenError",
    }
    relaxation = store.get(row["steps"][0])
    if relaxation is not None and relaxation.output is not None and "space_group_initial" in relaxation.output:
        found = relaxation.output
        facts |= {
            "init_spg_num": found["space_group_initial"],
            "final_spg_num": found["space_group_final"],
            "redirected_to_symmetry": bool(found.get("redirected")),
            "max_stress": float(np.abs(found["stress_ev_per_angstrom3"]).max()),
            "n_steps": int(found["n_steps"]),
            "reached_max_steps": not found["converged"],
        }
    document = store.get(row["key"])
    output = None if document is None or state == "failed" else document.output
    errors = [] if row["failure"] is None else [str(row["failure"])]
    return conductivity_record(name, row["formula"], output, errors, facts)


def _judge(label: str, materials: Sequence[tuple[Mapping[str, Any], ConductivityErrors | None]]) -> JudgedModel:
    done = [errors for _, errors in materials if errors is not None]
    missing = ConductivityErrors(-2.0, 2.0, 2.0, True, False, None)
    srme = np.array([errors.srme for errors in done])
    interval = {HEADLINE: bootstrap_interval(lambda rows: float(srme[rows].mean()), len(srme))} if len(srme) > 1 else {}
    return JudgedModel(
        model=label,
        n_materials=len(materials),
        n_done=len(done),
        done=conductivity_metrics(done) if done else {},
        intervals=interval,
        with_missing_as_failed=conductivity_metrics([errors or missing for _, errors in materials]),
        headline=HEADLINE,
        materials=[row for row, _ in materials],
    )
