"""The bodies of the jobs, as plain functions: small JSON-able arguments in, a small reference to the result out.

A job gets neither the store nor a credential: it opens the store of the machine that it runs on, and reads what it
builds on by key.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from esen_flows import progress
from esen_flows.errors import ModelError, StoreError
from esen_flows.forcefield.contract import ForceField
from esen_flows.makers.compute import Context, Meter, Summary, compute_once, raise_if_failed
from esen_flows.makers.summaries import (
    conductivity_summary,
    forces_summary,
    nac_summary,
    phonon_summary,
    relax_summary,
)
from esen_flows.schemas.documents import (
    ConductivityOutput,
    Document,
    ForcesOutput,
    PhononOutput,
    RelaxOutput,
    ResultDocument,
)
from esen_flows.schemas.keys import array_key, atoms_key
from esen_flows.schemas.protocols import DisplacementProtocol, HarmonicProtocol, RelaxProtocol, TransportProtocol
from esen_flows.schemas.requests import ResultRequest
from esen_flows.store.connection import open_store
from esen_flows.store.partial_results import PartialResult
from esen_flows.store.results import Store
from esen_flows.store.trained_models import trained_model, trained_model_path
from esen_flows.structures.conversion import atoms_from_json
from esen_flows.structures.identity import identify

Output = TypeVar("Output", bound=Document)
Reference = dict[str, Any]

# The force field that was used last, in processes that go from one material to the next.
_kept: dict[tuple[Any, ...], ForceField] | None = None


def keep_force_fields() -> None:
    """From now on this process keeps the force field that it loaded last."""
    global _kept
    _kept = {} if _kept is None else _kept


def relax_job(
    structure: dict[str, Any], request: dict[str, Any], model: dict[str, Any], force: bool = False
) -> Reference:
    """Relax a structure.

    Parameters
    ----------
    structure
        `atoms_to_json` of the input structure.
    request
        `ResultRequest.model_dump(mode="json")`.
    model
        location, label, device, and the material ids and tags to note.
    force
        try again what has failed for good.

    Returns
    -------
    Reference
        dict with kind, key and summary of the stored result.
    """
    asked, atoms, store = ResultRequest.model_validate(request), atoms_from_json(structure), open_store()
    store.put_structure(atoms)

    def compute(meter: Meter) -> tuple[RelaxOutput, Summary]:
        from esen_flows.physics.relax import relax

        force_field = meter.watch(requested_force_field(model, asked))
        protocol = protocol_of(asked, RelaxProtocol)

        def show(steps: int, fmax: float) -> None:
            progress.report("relax", steps, None, f"step {steps}, largest force {fmax:.1e} eV/A")

        output = relax(atoms, force_field, protocol, show)
        return output, relax_summary(output)

    return reference_to(compute_once(store, asked, context_of(identify(atoms), model), compute, force=force))


def forces_job(
    structure: dict[str, Any],
    request: dict[str, Any],
    model: dict[str, Any],
    relaxed: Reference,
    force: bool = False,
) -> Reference:
    """Forces of the displaced supercells of a relaxed structure; see `relax_job`. `relaxed` is its reference."""
    asked, atoms, store = ResultRequest.model_validate(request), atoms_from_json(structure), open_store()

    def compute(meter: Meter) -> tuple[ForcesOutput, Summary]:
        from esen_flows.physics.lattice.displacements import displaced_forces

        start = parent_output(store, relaxed["key"], RelaxOutput).structure.to_atoms()
        force_field = meter.watch(requested_force_field(model, asked))
        protocol = protocol_of(asked, DisplacementProtocol)

        def show(done: int, total: int) -> None:
            progress.report("forces", done, total, f"{done} of {total}")

        # A structure that was relaxed again under its key may differ in its last digits.
        with PartialResult(store, asked.key, atoms_key(start)) as forces:
            known = forces.load()
            output = displaced_forces(start, force_field, protocol, show, known=known, on_forces=forces.keep)
        return output, forces_summary(output)

    return reference_to(compute_once(store, asked, context_of(identify(atoms), model), compute, force=force))


def phonon_job(
    structure: dict[str, Any],
    request: dict[str, Any],
    model: dict[str, Any],
    forces: Reference,
    force: bool = False,
) -> Reference:
    """Harmonic phonons from stored forces, without a force call; see `relax_job`."""
    asked, atoms, store = ResultRequest.model_validate(request), atoms_from_json(structure), open_store()

    def compute(meter: Meter) -> tuple[PhononOutput, Summary]:
        from esen_flows.physics.lattice.phonon import phonon

        progress.report("phonon", 0)
        protocol = protocol_of(asked, HarmonicProtocol)
        output = phonon(parent_output(store, forces["key"], ForcesOutput), protocol)
        return output, phonon_summary(output) | nac_summary(protocol)

    return reference_to(compute_once(store, asked, context_of(identify(atoms), model), compute, force=force))


def conductivity_job(
    structure: dict[str, Any],
    request: dict[str, Any],
    model: dict[str, Any],
    forces: Reference,
    force: bool = False,
) -> Reference:
    """Lattice thermal conductivity from stored forces, without a force call; see `relax_job`."""
    asked, atoms, store = ResultRequest.model_validate(request), atoms_from_json(structure), open_store()

    def compute(meter: Meter) -> tuple[ConductivityOutput, Summary]:
        from esen_flows.physics.lattice.conductivity import conductivity

        progress.report("conductivity", 0)
        protocol = protocol_of(asked, TransportProtocol)
        displaced = parent_output(store, forces["key"], ForcesOutput)
        assert displaced.forces_fc3 is not None  # of third order, or there would be no such request
        # Forces of the same key that were computed again may differ in their last digits.
        with PartialResult(store, asked.key, array_key(displaced.forces_fc3)) as linewidths:

            def show(done: int, total: int, known: np.ndarray) -> None:
                linewidths.keep(known)
                progress.report("conductivity", done, total, f"{done} of {total} q-points")

            output = conductivity(displaced, protocol, known=linewidths.load(), on_points=show)
        return output, conductivity_summary(output) | nac_summary(protocol)

    return reference_to(compute_once(store, asked, context_of(identify(atoms), model), compute, force=force))


def parent_output(store: Store, key: str, output: type[Output]) -> Output:
    """Output of a finished result that another one builds on.

    Raises
    ------
    StoreError
        it is not stored.
    EsenFlowsError
        it failed; its own type and reason.
    """
    document = store.get(key)
    if document is None:
        raise StoreError(f"result {key[:12]} is not in the store; ask for it again, it will be computed first")
    raise_if_failed(document)
    return output.model_validate(document.output)


def requested_force_field(model: dict[str, Any], request: ResultRequest) -> ForceField:
    """Load the force field and make sure that it is the one that the key names.

    A force field that a stored training made need not be on this machine: its checkpoint is fetched.

    Raises
    ------
    ModelError
        it is another one here, or computes in another precision.
    """
    from esen_flows.forcefield.load import load_force_field

    numeric = request.numeric
    location = model["location"]
    if Path(location).name == trained_model_path(request.model_key).name and not Path(location).is_file():
        location = trained_model(open_store(), request.model_key)
    how = (location, model["device"], numeric.dtype, numeric.compile, numeric.tf32)
    if _kept is not None and how in _kept:
        return _kept[how]
    force_field = load_force_field(
        location, device=model["device"], dtype=numeric.dtype, compile=numeric.compile, tf32=numeric.tf32
    )
    if force_field.key != request.model_key:
        raise ModelError(
            f"{model['location']} has model key {force_field.key[:12]} here, the request names "
            f"{request.model_key[:12]}; the checkpoint or package differs, ask again with this one"
        )
    if force_field.declaration.dtype != request.numeric.dtype:
        raise ModelError(
            f"{force_field.label} computes in {force_field.declaration.dtype}, the request says "
            f"{request.numeric.dtype}; ask with numeric=NumericSettings(dtype={force_field.declaration.dtype!r})"
        )
    if _kept is not None:
        _kept.clear()
        _kept[how] = force_field
    return force_field


def protocol_of(request: ResultRequest, kind: type[Any]) -> Any:
    """The protocol of a request, which has to be of this type."""
    if not isinstance(request.protocol, kind):
        raise TypeError(f"a {request.kind} request holds a {type(request.protocol).__name__}, not a {kind.__name__}")
    return request.protocol


def context_of(identity: Mapping[str, Any], model: dict[str, Any]) -> Context:
    """What the result documents of a job repeat."""
    return Context(
        identity=identity,
        model_label=model["label"],
        device=model["device"],
        material_ids=tuple(model["material_ids"]),
        tags=tuple(model["tags"]),
    )


def reference_to(document: ResultDocument) -> Reference:
    """What a job returns of its result: small, whatever the result is."""
    return {"kind": document.kind, "key": document.key, "summary": document.summary}
