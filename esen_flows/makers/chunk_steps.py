"""Phonons and conductivities of a chunk, one after the other: each fills a device's batches by its displacements."""

import logging
from collections.abc import Callable, Sequence
from typing import Any

from esen_flows import progress
from esen_flows.errors import EsenFlowsError, ModelError, StoreError
from esen_flows.makers.chunk_run import ChunkRun, require_sound_device
from esen_flows.makers.jobs import Reference, conductivity_job, forces_job, phonon_job, relax_job
from esen_flows.schemas.requests import ResultRequest
from esen_flows.stopping import Stopped, raise_if_stopping
from esen_flows.store.campaigns import settled_members
from esen_flows.store.database import Row
from esen_flows.store.queries.query import read_structure
from esen_flows.store.structures import structure_row
from esen_flows.structures.conversion import atoms_to_json

logger = logging.getLogger(__name__)


def force_steps(run: ChunkRun, rows: Sequence[Row]) -> None:
    """Relax each member and evaluate its displaced supercells; a member is settled here only if that fails."""

    def steps(row: Row, requests: Sequence[ResultRequest], arguments: dict[str, Any]) -> Reference:
        relaxed = relax_job(request=requests[0].model_dump(mode="json"), **arguments)
        return forces_job(request=requests[1].model_dump(mode="json"), relaxed=relaxed, **arguments)

    _each(run, rows, steps, last=False)


def lattice_steps(run: ChunkRun, rows: Sequence[Row]) -> None:
    """What follows from the stored forces of each member, without a force call."""
    body = phonon_job if run.spec.property == "phonon" else conductivity_job

    def step(row: Row, requests: Sequence[ResultRequest], arguments: dict[str, Any]) -> Reference:
        forces = {"kind": "forces", "key": requests[1].key, "summary": {}}
        return body(request=requests[2].model_dump(mode="json"), forces=forces, **arguments)

    # Costs are of force calls: what follows tells nothing of the time that those of others will take.
    _each(run, [{**row, "cost": 0.0} for row in rows], step, last=True)


def _each(run: ChunkRun, rows: Sequence[Row], body: Callable[..., Reference], *, last: bool) -> None:
    for row in rows:
        if run.ends:
            return
        if not run.fits(row):  # later ones cost less
            continue
        structure = structure_row(run.store, row["structure_key"], with_atoms=True)
        model = {**run.model(row), "material_ids": structure["material_ids"]}
        atoms = read_structure(structure).atoms
        arguments = {"structure": atoms_to_json(atoms), "model": model, "force": row["force"]}
        run.claim([row], [])
        try:
            with progress.listening(_stopping_listener):
                body(row, run.requests(row), arguments)
        except Stopped:
            return
        except (ModelError, StoreError):
            raise  # they say nothing about the material
        except EsenFlowsError as error:
            run.settle(row, type(error).__name__, None, None)
            continue
        except Exception as error:
            require_sound_device(error)
            logger.exception("%s (%s) failed", row["label"], row["formula"])
            run.settle(row, type(error).__name__, None, None)
            continue
        if last:
            for outcome in settled_members(run.store, [row], run.value_field):
                run.settle(row, outcome.failure, outcome.seconds, outcome.value)
        else:
            run.in_flight.pop(row["key"], None)
            run.total.cost += row["cost"]
            run.flush()  # tells how far it is, and looks whether somebody has paused the campaign


def _stopping_listener(kind: str, done: int, total: int | None, words: str) -> None:
    raise_if_stopping()
