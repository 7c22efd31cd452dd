"""The bodies of the jobs, as plain functions: small JSON-able arguments in, a small reference to the result out.

A job gets neither the store nor a credential. It opens the store of the machine that it runs on, and reads the results
that it builds on by their keys.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np
from ase import Atoms

from esen_flows import progress
from esen_flows.errors import StoreError
from esen_flows.forcefield.contract import ForceField
from esen_flows.makers import summaries
from esen_flows.makers.compute import Context, Meter, Summary, compute_once, raise_if_failed
from esen_flows.makers.force_fields import requested_force_field
from esen_flows.makers.outputs import atomate2_fields
from esen_flows.schemas.documents import Document, RelaxOutput, ResultDocument
from esen_flows.schemas.keys import array_key, atoms_key
from esen_flows.schemas.lattice_documents import ForcesOutput
from esen_flows.schemas.protocols import DisplacementProtocol, HarmonicProtocol, RelaxProtocol, TransportProtocol
from esen_flows.schemas.requests import ResultRequest
from esen_flows.store.connection import open_store
from esen_flows.store.partial_results import PartialResult
from esen_flows.store.results import Store
from esen_flows.structures.conversion import atoms_from_json
from esen_flows.structures.identity import identify

Output = TypeVar("Output", bound=Document)
Protocol = TypeVar("Protocol")
Json = dict[str, Any]  # an argument of a job
Reference = dict[str, Any]  # kind, key and summary of a result: the output of a job


def relax_job(structure: Json, request: Json, model: Json, force: bool = False) -> Reference:
    """Relax a structure.

    Parameters
    ----------
    structure
        `atoms_to_json` of the input structure.
    request
        `ResultRequest.model_dump(mode="json")`.
    model
        Location, label and device of the force field, and the material ids and tags to note in the document.
    force
        Whether to compute again if the stored result is a final failure.

    Returns
    -------
    Reference
        kind, key and summary of the stored result, and the relaxed structure as `atomate2_fields` has it.
    """
    document = _stored_once(_relax, structure, request, model, force)
    output = RelaxOutput.model_validate(document.output)
    relaxed = output.structure.to_atoms()
    relaxed.info |= structure["info"]  # charge and spin, which a relaxation leaves as they are
    fields = atomate2_fields(relaxed, output.energy_ev, output.forces_ev_per_angstrom, output.stress_ev_per_angstrom3)
    return reference_to(document) | fields


def relax_reference(structure: Json, request: Json, model: Json, force: bool = False) -> Reference:
    """Relax a structure for a step that reads the result from the store.

    Parameters
    ----------
    structure, request, model, force
        As in `relax_job`.

    Returns
    -------
    Reference
        kind, key and summary of the stored result.
    """
    return reference_to(_stored_once(_relax, structure, request, model, force))


def forces_job(structure: Json, request: Json, model: Json, relaxed: Reference, force: bool = False) -> Reference:
    """Evaluate the displaced supercells of a relaxed structure.

    Parameters
    ----------
    structure, request, model, force
        As in `relax_job`.
    relaxed
        Reference to the relaxation.

    Returns
    -------
    Reference
        kind, key and summary of the stored result.
    """
    return reference_to(_stored_once(_forces, structure, request, model, force, relaxed))


def phonon_job(structure: Json, request: Json, model: Json, forces: Reference, force: bool = False) -> Reference:
    """Compute harmonic phonons from stored forces, without a force call.

    Parameters
    ----------
    structure, request, model, force
        As in `relax_job`.
    forces
        Reference to the forces of the displaced supercells.

    Returns
    -------
    Reference
        kind, key and summary of the stored result.
    """
    return reference_to(_stored_once(_phonon, structure, request, model, force, forces))


def conductivity_job(structure: Json, request: Json, model: Json, forces: Reference, force: bool = False) -> Reference:
    """Compute the lattice thermal conductivity from stored forces, without a force call.

    Parameters
    ----------
    structure, request, model, force
        As in `relax_job`.
    forces
        Reference to the forces of the displaced supercells, of third order too.

    Returns
    -------
    Reference
        kind, key and summary of the stored result.
    """
    return reference_to(_stored_once(_conductivity, structure, request, model, force, forces))


@dataclass(frozen=True)
class _Step:
    """The inputs of one step, as its function gets them."""

    store: Store
    request: ResultRequest
    atoms: Atoms
    model: Json
    meter: Meter
    parent: Reference | None

    def force_field(self) -> ForceField:
        """The requested force field, whose evaluations are counted."""
        return self.meter.watch(requested_force_field(self.model, self.request))

    def parent_output(self, output: type[Output]) -> Output:
        """The output of the step before this one."""
        assert self.parent is not None  # the first step has a structure instead
        return parent_output(self.store, self.parent["key"], output)


def _stored_once(
    compute: Callable[[_Step], tuple[Document, Summary]],
    structure: Json,
    request: Json,
    model: Json,
    force: bool,
    parent: Reference | None = None,
) -> ResultDocument:
    """The frame of all job bodies: open the store, claim the key, compute, and commit the result."""
    requested, atoms, store = ResultRequest.model_validate(request), atoms_from_json(structure), open_store()
    if parent is None:
        store.put_structure(atoms)  # the later steps find it there
    return compute_once(
        store,
        requested,
        context_of(identify(atoms), model),
        lambda meter: compute(_Step(store, requested, atoms, model, meter, parent)),
        force=force,
    )


def _relax(step: _Step) -> tuple[Document, Summary]:
    from esen_flows.physics.relax import relax

    def show(steps: int, fmax: float) -> None:
        progress.report("relax", steps, None, f"step {steps}, largest force {fmax:.1e} eV/A")

    output = relax(step.atoms, step.force_field(), protocol_of(step.request, RelaxProtocol), show)
    return output, summaries.relax_summary(output)


def _forces(step: _Step) -> tuple[Document, Summary]:
    from esen_flows.physics.lattice.displacements import displaced_forces

    def show(done: int, total: int) -> None:
        progress.report("forces", done, total, f"{done} of {total}")

    start = step.parent_output(RelaxOutput).structure.to_atoms()
    force_field, protocol = step.force_field(), protocol_of(step.request, DisplacementProtocol)
    # A structure that was relaxed again under its key may differ in its last digits.
    with PartialResult(step.store, step.request.key, atoms_key(start)) as forces:
        known = forces.load()
        output = displaced_forces(start, force_field, protocol, show, known=known, on_forces=forces.keep)
    return output, summaries.forces_summary(output)


def _phonon(step: _Step) -> tuple[Document, Summary]:
    from esen_flows.physics.lattice.phonon import phonon

    progress.report("phonon", 0)
    protocol = protocol_of(step.request, HarmonicProtocol)
    output = phonon(step.parent_output(ForcesOutput), protocol)
    return output, summaries.phonon_summary(output) | summaries.nac_summary(protocol)


def _conductivity(step: _Step) -> tuple[Document, Summary]:
    from esen_flows.physics.lattice.conductivity import conductivity

    progress.report("conductivity", 0)
    protocol, displaced = protocol_of(step.request, TransportProtocol), step.parent_output(ForcesOutput)
    assert displaced.forces_fc3 is not None  # the request of a conductivity asks for forces of third order
    # Forces that were computed again under their key may differ in their last digits.
    with PartialResult(step.store, step.request.key, array_key(displaced.forces_fc3)) as linewidths:

        def show(done: int, total: int, known: np.ndarray) -> None:
            linewidths.keep(known)
            progress.report("conductivity", done, total, f"{done} of {total} q-points")

        backend = step.request.numeric.lattice_backend
        assert backend is not None  # part of the key of a conductivity
        output = conductivity(displaced, protocol, backend=backend, known=linewidths.load(), on_points=show)
    return output, summaries.conductivity_summary(output) | summaries.nac_summary(protocol)


def parent_output(store: Store, key: str, output: type[Output]) -> Output:
    """The output of a finished result that another one builds on.

    Parameters
    ----------
    store
        Store to read from.
    key
        Key of the result.
    output
        Type of its output.

    Returns
    -------
    Output
        The output with its arrays.

    Raises
    ------
    StoreError
        The result is not stored.
    EsenFlowsError
        The result is a failure; raised as its own type, with its reason.
    """
    document = store.get(key)
    if document is None:
        raise StoreError(f"result {key[:12]} is not in the store; ask for it again, it will be computed first")
    raise_if_failed(document)
    return output.model_validate(document.output)


def protocol_of(request: ResultRequest, kind: type[Protocol]) -> Protocol:
    """The protocol of a request.

    Parameters
    ----------
    request
        The request of a step.
    kind
        Type that the protocol of this kind of step has.

    Returns
    -------
    Protocol
        The protocol, of that type.

    Raises
    ------
    TypeError
        The request holds the protocol of another kind of step.
    """
    if not isinstance(request.protocol, kind):
        raise TypeError(f"a {request.kind} request holds a {type(request.protocol).__name__}, not a {kind.__name__}")
    return request.protocol


def context_of(identity: Mapping[str, Any], model: Json) -> Context:
    """What the result document of a job repeats of its structure and force field.

    Parameters
    ----------
    identity
        Formula, chemical system, elements, number of sites and space group.
    model
        The job's argument of this name.

    Returns
    -------
    Context
        The context of the result.
    """
    return Context(identity, model["label"], model["device"], tuple(model["material_ids"]), tuple(model["tags"]))


def reference_to(document: ResultDocument) -> Reference:
    """What a job returns of its result: small, however large the result is.

    Parameters
    ----------
    document
        The stored result.

    Returns
    -------
    Reference
        Its kind, key and summary.
    """
    return {"kind": document.kind, "key": document.key, "summary": document.summary}
