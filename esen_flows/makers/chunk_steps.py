"""Properties of a chunk, one member after the other: the displacements or curves of one fill the device's batches."""

import logging
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

from esen_flows import progress
from esen_flows.errors import EsenFlowsError, ModelError, StoreError
from esen_flows.makers.chunk_run import ChunkRun
from esen_flows.makers.crash_isolation import require_working_gpu
from esen_flows.makers.steps import compute_step
from esen_flows.schemas.campaign import protocol_for
from esen_flows.schemas.property_entry import Step
from esen_flows.schemas.property_lookup import entry_of
from esen_flows.schemas.requests import ResultRequest
from esen_flows.stopping import Stopped, raise_if_stopping
from esen_flows.store.campaign_progress import settled_members
from esen_flows.store.campaigns import members_of
from esen_flows.store.database import Row
from esen_flows.store.queries.query import read_structure
from esen_flows.store.structures import structure_row
from esen_flows.structures.conversion import atoms_to_json

logger = logging.getLogger(__name__)

# Computes the steps of a member from its requests and the other arguments of its jobs.
Body = Callable[[tuple[ResultRequest, ...], dict[str, Any]], None]


def force_steps_needed(run: ChunkRun) -> list[int]:
    """The steps with force calls whose results the steps after them read; the same ones for all members.

    Parameters
    ----------
    run
        The work on the chunk.

    Returns
    -------
    list[int]
        Their numbers among the steps of a member.
    """
    row = members_of(run.store, run.campaign, run.keys[:1])[0]
    steps = entry_of(run.spec.property).steps(protocol_for(run.spec, row["info"]))
    read = {number for step in steps if not _calls_forces(step) for _, number in step.parents}
    return sorted(number for number in read if _calls_forces(steps[number]))


def force_steps(run: ChunkRun, rows: Sequence[Row]) -> None:
    """Compute the steps of each member that make force calls; a member is settled here only if one of them fails.

    Parameters
    ----------
    run
        The work on the chunk.
    rows
        Members to compute.
    """
    _each(run, rows, partial(_compute, force_calls=True), last=False)


def all_steps(run: ChunkRun, rows: Sequence[Row]) -> None:
    """Compute all steps of each member, for a property whose members share no force calls.

    Parameters
    ----------
    run
        The work on the chunk.
    rows
        Members to compute.
    """
    _each(run, rows, partial(_compute, force_calls=True), last=True)


def lattice_steps(run: ChunkRun, rows: Sequence[Row]) -> None:
    """Compute the steps of each member that make no force call, from the stored results of those that do.

    Parameters
    ----------
    run
        The work on the chunk.
    rows
        Members to compute.
    """
    # Predicted costs are those of force calls. The time of this step says nothing about the time of force calls.
    _each(run, [{**row, "cost": 0.0} for row in rows], partial(_compute, force_calls=False), last=True)


def _calls_forces(step: Step | ResultRequest) -> bool:
    return entry_of(step.kind).category == "gpu"


def _compute(requests: tuple[ResultRequest, ...], arguments: dict[str, Any], *, force_calls: bool) -> None:
    for request in requests:
        if _calls_forces(request) == force_calls:
            compute_step(request=request.model_dump(mode="json"), **arguments)


def _each(run: ChunkRun, rows: Sequence[Row], body: Body, *, last: bool) -> None:
    """Compute the steps of each member, and settle the members that fail, or that have done their last step."""
    for row in rows:
        if run.ends:
            return
        if not run.fits(row):  # later members cost less, and may fit
            continue
        structure, ids = None, []
        if not run.spec.of_models:
            stored = structure_row(run.store, row["structure_key"], with_atoms=True)
            structure, ids = atoms_to_json(read_structure(stored).atoms), stored["material_ids"]
        arguments = {"structure": structure, "model": run.model(row, ids), "force": row["force"]}
        run.claim([row], [])
        try:
            with progress.listening(_stopping_listener):
                body(run.requests(row), arguments)
        except Stopped:
            return
        except (ModelError, StoreError):
            raise  # these say nothing about the material
        except Exception as error:
            if not isinstance(error, EsenFlowsError):
                require_working_gpu(error)
                logger.exception("%s (%s) failed", row["label"], row["formula"])
            run.settle(row, type(error).__name__)
            continue
        if last:
            for outcome in settled_members(run.store, [row], run.value_field):
                run.settle(row, outcome.failure, outcome.seconds, outcome.value)
        else:
            run.in_flight.pop(row["key"], None)
            run.total.cost += row["cost"]
            run.flush()  # reports progress, and notices that the campaign was paused


def _stopping_listener(kind: str, done: int, total: int | None, remark: str) -> None:
    raise_if_stopping()
