"""Lattice properties of a chunk, one member after the other: its displacements fill the device's batches."""

import logging
from collections.abc import Callable, Sequence
from typing import Any

from esen_flows import progress
from esen_flows.errors import EsenFlowsError, ModelError, StoreError
from esen_flows.makers.chunk_run import ChunkRun
from esen_flows.makers.crash_isolation import require_working_gpu
from esen_flows.makers.jobs import Reference, conductivity_job, forces_job, phonon_job, relax_reference
from esen_flows.schemas.properties import Kind
from esen_flows.schemas.requests import ResultRequest
from esen_flows.stopping import Stopped, raise_if_stopping
from esen_flows.store.campaign_progress import settled_members
from esen_flows.store.database import Row
from esen_flows.store.queries.query import read_structure
from esen_flows.store.structures import structure_row
from esen_flows.structures.conversion import atoms_to_json

logger = logging.getLogger(__name__)

# Jobs of the steps that make no force call.
LATTICE_JOBS: dict[Kind, Callable[..., Reference]] = {"phonon": phonon_job, "conductivity": conductivity_job}
# Computes the steps of a member from its requests and the other arguments of its jobs.
Body = Callable[[tuple[ResultRequest, ...], dict[str, Any]], Reference]


def force_steps(run: ChunkRun, rows: Sequence[Row]) -> None:
    """Relax each member and evaluate its displaced supercells; a member is settled here only if that fails.

    Parameters
    ----------
    run
        The work on the chunk.
    rows
        Members to compute.
    """

    def steps(requests: tuple[ResultRequest, ...], arguments: dict[str, Any]) -> Reference:
        relaxed = relax_reference(request=requests[0].model_dump(mode="json"), **arguments)
        return forces_job(request=requests[1].model_dump(mode="json"), relaxed=relaxed, **arguments)

    _each(run, rows, steps, last=False)


def lattice_steps(run: ChunkRun, rows: Sequence[Row]) -> None:
    """Compute the property from the stored forces of each member, without a force call.

    Parameters
    ----------
    run
        The work on the chunk.
    rows
        Members to compute.
    """
    job = LATTICE_JOBS[run.spec.property]

    def step(requests: tuple[ResultRequest, ...], arguments: dict[str, Any]) -> Reference:
        forces = {"kind": "forces", "key": requests[1].key, "summary": {}}
        return job(request=requests[2].model_dump(mode="json"), forces=forces, **arguments)

    # Predicted costs are those of force calls. The time of this step says nothing about the time of force calls.
    _each(run, [{**row, "cost": 0.0} for row in rows], step, last=True)


def _each(run: ChunkRun, rows: Sequence[Row], body: Body, *, last: bool) -> None:
    """Compute the steps of each member, and settle the members that fail, or that have done their last step."""
    for row in rows:
        if run.ends:
            return
        if not run.fits(row):  # later members cost less, and may fit
            continue
        structure = structure_row(run.store, row["structure_key"], with_atoms=True)
        arguments = {
            "structure": atoms_to_json(read_structure(structure).atoms),
            "model": run.model(row, structure["material_ids"]),
            "force": row["force"],
        }
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
