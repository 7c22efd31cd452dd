"""The benchmark md: trajectories of force fields against DynaMat's by DFT."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from esen_flows.campaigns.judged_models import JudgedModel
from esen_flows.campaigns.records import member_rows
from esen_flows.campaigns.sources import reference_file
from esen_flows.errors import InputError
from esen_flows.metrics.md_artefact import METRICS, ReferenceTrajectory, md_means, read_reference_trajectories
from esen_flows.metrics.statistics import bootstrap_interval
from esen_flows.metrics.trajectories import Trajectory, trajectory_metrics
from esen_flows.schemas.campaign import CampaignSpec
from esen_flows.schemas.md_output import MDOutput
from esen_flows.store.database import Row
from esen_flows.store.results import Store

HEADLINE = "md_vdos_error"


def md_benchmark(
    store: Store, spec: CampaignSpec, labels: Sequence[str], folder: str | None, on_member: Callable[[], None]
) -> Iterator[JudgedModel]:
    """Metrics of trajectories of a campaign.

    The leaderboard takes all systems or none, so that there is no mean over all of them as long as one has no result.

    Parameters
    ----------
    store
        Store of the campaign.
    spec
        Specification of the campaign.
    labels
        Labels of the force fields.
    folder
        Folder to look for the reference in first; None: only the reference sets of this machine.
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
    rows = _compared(store, spec, labels, folder, on_member)
    for label in labels:
        found = rows[label]
        finished = [row for row in found if row["state"] == "finished"]
        done = md_means(finished) if finished else {}
        complete = len(finished) == len(found)
        yield JudgedModel(
            model=label,
            n_materials=len(found),
            n_done=sum(row["state"] in ("finished", "failed") for row in found),
            done=done,
            intervals={
                f"md_{name}": interval for name in METRICS if (interval := _interval(finished, name)) is not None
            },
            with_missing_as_failed={
                name: value if complete else None for name, value in (done or {HEADLINE: None}).items()
            },
            headline=HEADLINE,
            materials=found,
        )


def md_rows(
    store: Store, spec: CampaignSpec, folder: str | None, hardware: str, on_member: Callable[[], None]
) -> list[dict[str, Any]]:
    """Rows of a submission's file: one for each system of the reference.

    Parameters
    ----------
    store
        Store of the campaign, which has one force field.
    spec
        Specification of the campaign.
    folder
        As for `md_benchmark`.
    hardware
        Name of the hardware.
    on_member
        Called for each member.

    Returns
    -------
    list of dict
        Rows for `metrics.md_artefact.write_md_metrics`, with the state of the member.

    Raises
    ------
    InputError
        The reference is not there or cannot be read.
    """
    (label,) = {row["model_label"] for row in member_rows(store, spec.name)}
    found = _compared(store, spec, [label], folder, on_member)[label]
    return [{**row, "system": row["material"], "hardware": hardware} for row in found]


def _compared(
    store: Store, spec: CampaignSpec, labels: Sequence[str], folder: str | None, on_member: Callable[[], None]
) -> dict[str, list[dict[str, Any]]]:
    """Metrics of each system by force field; one reference trajectory is in memory at a time."""
    members: dict[tuple[str, str], Row] = {}
    for row in member_rows(store, spec.name):
        members[row["model_label"], row["label"]] = row
        on_member()
    found: dict[str, list[dict[str, Any]]] = {label: [] for label in labels}
    for reference in read_reference_trajectories(reference_file("dynamat", folder)):
        for label in labels:
            found[label].append(_system(store, members.get((label, reference.system)), reference))
    return found


def _system(store: Store, row: Row | None, reference: ReferenceTrajectory) -> dict[str, Any]:
    state = "absent" if row is None else str(row["state"])
    known: dict[str, Any] = {
        "material": reference.system,
        "state": state,
        "failure": None if row is None else row["failure"],
        "temperature_kelvin": reference.temperature_kelvin,
        "n_atoms": len(reference.trajectory.numbers),
        "run_time_sec": None,
        **dict.fromkeys(METRICS),
    }
    document = store.get(row["key"]) if row is not None and state == "finished" else None
    if document is None or document.output is None:
        return known
    try:
        metrics = trajectory_metrics(_trajectory(document.output), reference.trajectory)
    except (InputError, RuntimeError) as error:  # which would end the judgement of all other systems too
        return known | {"state": "failed", "failure": f"its trajectory cannot be compared: {error}"}
    finite = {name: value for name, value in metrics.items() if np.isfinite(value)}
    # A run that was continued knows the time of its last process alone, which is no time of the run.
    is_timed = document.provenance.force_evaluations >= int(document.output["n_steps"])
    return known | {"run_time_sec": round(document.provenance.seconds, 1) if is_timed else None} | finite


def _trajectory(output: Mapping[str, Any]) -> Trajectory:
    found = MDOutput.model_validate(output)
    frames = len(found.positions_angstrom)
    cell = np.asarray(found.structure.cell_angstrom, dtype=float)
    stresses = found.stresses_ev_per_angstrom3
    return Trajectory(
        np.asarray(found.structure.numbers),
        found.positions_angstrom,
        np.broadcast_to(cell, (frames, 3, 3)),
        found.frame_interval_fs,
        None if stresses is None else np.diagonal(stresses, axis1=1, axis2=2),
    )


def _interval(rows: Sequence[Mapping[str, Any]], name: str) -> tuple[float, float] | None:
    values = np.array([row[name] for row in rows if row[name] is not None], dtype=float)
    return bootstrap_interval(lambda chosen: float(values[chosen].mean()), len(values)) if len(values) > 1 else None
