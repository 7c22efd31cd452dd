"""What is computed at each step of a property, and the frame that all steps share: claim, compute, commit.

A step reads the results on which it builds by their keys, which its request holds.
"""

from collections.abc import Callable
from contextlib import ExitStack

import numpy as np
from ase import Atoms

from esen_flows import progress
from esen_flows.errors import InputError, ModelError
from esen_flows.makers import summaries
from esen_flows.makers.compute import Meter, Summary, compute_once
from esen_flows.makers.domains import inherited_domain, measured_domain
from esen_flows.makers.force_fields import requested_force_field
from esen_flows.makers.step_inputs import Json, StepInputs, context_of, parent_output, protocol_of, structure_context
from esen_flows.schemas.audit import MeasurementsOutput, MeasurementsProtocol, VerdictProtocol, judge
from esen_flows.schemas.audit_measures import MEASUREMENTS, NVE
from esen_flows.schemas.diatomics import DiatomicsProtocol
from esen_flows.schemas.documents import Document, RelaxOutput, ResultDocument
from esen_flows.schemas.domain import trained_systems
from esen_flows.schemas.elastic import StrainProtocol, StrainsOutput
from esen_flows.schemas.eos import EosFitProtocol
from esen_flows.schemas.keys import array_key, atoms_key
from esen_flows.schemas.lattice_documents import ForcesOutput
from esen_flows.schemas.md import MDProtocol
from esen_flows.schemas.nve import NveOutput, NveProtocol
from esen_flows.schemas.properties import Kind
from esen_flows.schemas.property_lookup import entry_of
from esen_flows.schemas.protocols import (
    DisplacementProtocol,
    HarmonicProtocol,
    RelaxProtocol,
    StaticProtocol,
    TransportProtocol,
)
from esen_flows.schemas.requests import ResultRequest
from esen_flows.settings import get_settings
from esen_flows.store.connection import open_store
from esen_flows.store.partial_results import PartialResult, PartialSeries
from esen_flows.structures.conversion import atoms_from_json
from esen_flows.structures.identity import identify


def compute_step(structure: Json | None, request: Json, model: Json, force: bool = False) -> ResultDocument:
    """Compute one step unless it is stored: open the store, claim the key, compute, and commit the result.

    Parameters
    ----------
    structure
        `atoms_to_json` of the input structure; None for a property of a force field.
    request
        `ResultRequest.model_dump(mode="json")`.
    model
        Location, label and device of the force field, and the material ids and tags to note in the document.
    force
        Whether to compute again if the stored result is a final failure.

    Returns
    -------
    ResultDocument
        The stored result.

    Raises
    ------
    InputError
        No step of this kind is computed from a structure or for a force field.
    EsenFlowsError
        The step failed, now or before.
    """
    requested, store = ResultRequest.model_validate(request), open_store()
    compute = step_function(requested.kind)

    def judged(meter: Meter) -> tuple[Document, Summary]:
        step = StepInputs(store, requested, atoms, model, meter)
        output, summary = compute(step)
        return output, summary | ({} if structure is None else _domain(step, output))

    if structure is None:
        atoms, context = Atoms(), context_of({}, model)
    else:
        atoms = atoms_from_json(structure)
        context = structure_context(identify(atoms), model)
        if requested.starts_from_input:
            store.put_structure(atoms)  # the later steps find it there
    return compute_once(store, requested, context, judged, force=force)


def _domain(step: StepInputs, output: Document) -> Summary:
    """Whether the structure is like those that the force field was trained on, as far as that was measured."""
    if (force_field := step.meter.force_field) is None:
        return inherited_domain(step.store, step.request)
    return measured_domain(force_field, step.model.get("location"), step.start(), output)


def _relax(step: StepInputs) -> tuple[Document, Summary]:
    from esen_flows.physics.relax import relax

    def show(steps: int, fmax: float) -> None:
        progress.report("relax", steps, None, f"step {steps}, largest force {fmax:.1e} eV/A")

    protocol = protocol_of(step.request, RelaxProtocol)
    if protocol.symmetry == "explore":
        return _exploration(step, protocol)
    output = relax(step.start(), step.force_field(), protocol, show)
    return output, summaries.relax_summary(output)


def _exploration(step: StepInputs, protocol: RelaxProtocol) -> tuple[Document, Summary]:
    """A relaxation whose parts are results of their own, which an interrupted one finds in the store."""
    from esen_flows.makers.exploration import StoredSteps
    from esen_flows.physics.exploration import explore

    context = structure_context(identify(step.atoms), step.model)
    force_field, location = requested_force_field(step.model, step.request), step.model.get("location")
    parts = StoredSteps(step.store, step.request, context, force_field, location)
    count = 0

    def show(words: str) -> None:
        nonlocal count
        count += 1
        progress.report("relax", count, None, words)

    output = explore(step.start(), parts, protocol, show)
    return output, summaries.relax_summary(output) | measured_domain(force_field, location, step.atoms, output)


def _static(step: StepInputs) -> tuple[Document, Summary]:
    from esen_flows.physics.static import static

    progress.report("static", 0)
    output = static(step.start(), step.force_field(), protocol_of(step.request, StaticProtocol))
    return output, summaries.static_summary(output)


def _md(step: StepInputs) -> tuple[Document, Summary]:
    from esen_flows.physics.md.dynamics import molecular_dynamics

    start, protocol = step.start(), protocol_of(step.request, MDProtocol)

    def show(steps: int, kelvin: float) -> None:
        if steps % protocol.traj_interval == 0:
            progress.report("md", steps, protocol.n_steps, f"step {steps} of {protocol.n_steps}, {kelvin:.0f} K")

    with PartialSeries(step.store, step.request.key, atoms_key(start)) as pieces:
        output = molecular_dynamics(start, step.force_field(), protocol, show, pieces)
    return output, output.summary()


def _eos(step: StepInputs) -> tuple[Document, Summary]:
    from esen_flows.physics.eos import equation_of_state

    relaxations = list(step.parent_outputs(RelaxOutput).values())
    output = equation_of_state(relaxations, protocol_of(step.request, EosFitProtocol))
    return output, output.summary()


def _strains(step: StepInputs) -> tuple[Document, Summary]:
    from esen_flows.physics.elastic import strained_stresses

    def show(done: int, total: int) -> None:
        progress.report("strains", done, total, f"{done} of {total}")

    output = strained_stresses(step.start(), step.force_field(), protocol_of(step.request, StrainProtocol), show)
    return output, output.summary()


def _elastic(step: StepInputs) -> tuple[Document, Summary]:
    from esen_flows.physics.elastic import elastic_tensor

    output = elastic_tensor(step.parent_output(StrainsOutput))
    return output, output.summary()


def _forces(step: StepInputs) -> tuple[Document, Summary]:
    from esen_flows.physics.lattice.displacements import displaced_forces

    def show(done: int, total: int) -> None:
        progress.report("forces", done, total, f"{done} of {total}")

    start = step.start()
    force_field, protocol = step.force_field(), protocol_of(step.request, DisplacementProtocol)
    progress.report("forces", 0, None, "finding the displacements")  # minutes for thousands of atoms
    # A structure that was relaxed again under its key may differ in its last digits.
    with PartialResult(step.store, step.request.key, atoms_key(start)) as forces:
        known = forces.load()
        output = displaced_forces(start, force_field, protocol, show, known=known, on_forces=forces.keep)
    return output, summaries.forces_summary(output)


def _phonon(step: StepInputs) -> tuple[Document, Summary]:
    from esen_flows.physics.lattice.phonon import phonon

    progress.report("phonon", 0)
    protocol = protocol_of(step.request, HarmonicProtocol)
    output = phonon(step.parent_output(ForcesOutput), protocol)
    return output, summaries.phonon_summary(output) | summaries.nac_summary(protocol)


def _conductivity(step: StepInputs) -> tuple[Document, Summary]:
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


def _measurements(step: StepInputs) -> tuple[Document, Summary]:
    from esen_flows.physics.conservation.measurements import measure
    from esen_flows.physics.conservation.systems import choose_systems

    protocol, numeric = protocol_of(step.request, MeasurementsProtocol), step.request.numeric
    force_field = step.force_field()
    if not protocol.systems:
        trained_on = trained_systems(step.model.get("location"))
        systems = choose_systems(force_field.declaration.elements, trained_on, protocol.count)
        protocol = protocol.model_copy(update={"systems": systems})
    other_dtype = "float32" if numeric.dtype == "float64" else "float64"
    other_numeric = numeric.model_copy(update={"dtype": other_dtype, "tf32": False})
    try:
        request = step.request.model_copy(update={"numeric": other_numeric})
        other = requested_force_field(step.model, request)
    except ModelError:  # it computes in one precision only
        other = None

    def show(done: int, total: int, words: str) -> None:
        progress.report("measurements", done, total, words)

    output = measure(force_field, protocol, other, show)
    return output, output.summary()


def _audit(step: StepInputs) -> tuple[Document, Summary]:
    parents = step.request.parents or {MEASUREMENTS: step.request.parent_key}
    nve = parent_output(step.store, parents[NVE], NveOutput) if NVE in parents else None
    measured = parent_output(step.store, parents[MEASUREMENTS], MeasurementsOutput)
    output = judge(measured, protocol_of(step.request, VerdictProtocol), nve)
    return output, output.summary()


def _nve(step: StepInputs) -> tuple[Document, Summary]:
    from esen_flows.physics.conservation.nve_runs import nve_runs

    def show(done: int, total: int, words: str) -> None:
        progress.report("nve", done, total, words)

    key, store = step.request.key, step.store
    with ExitStack() as unfinished:
        output = nve_runs(
            step.force_field(),
            protocol_of(step.request, NveProtocol),
            chemical_systems=trained_systems(step.model.get("location")),
            root=get_settings().reference_folder,
            progress=show,
            checkpoints=lambda number: unfinished.enter_context(PartialSeries(store, f"{key}-{number}", key)),
        )
    return output, output.summary()


def _diatomics(step: StepInputs) -> tuple[Document, Summary]:
    from esen_flows.physics.diatomics import diatomic_curves

    def show(done: int, total: int) -> None:
        progress.report("diatomics", done, total, f"{done} of {total} elements")

    output = diatomic_curves(step.force_field(), protocol_of(step.request, DiatomicsProtocol), show)
    return output, summaries.diatomics_summary(output)


# By kind, functions that compute a step from its inputs. Labelling, training and evaluation start from datasets and
# have jobs of their own.
_FUNCTIONS: dict[Kind, Callable[[StepInputs], tuple[Document, Summary]]] = {
    "relax": _relax,
    "static": _static,
    "md": _md,
    "eos": _eos,
    "strains": _strains,
    "elastic": _elastic,
    "forces": _forces,
    "phonon": _phonon,
    "conductivity": _conductivity,
    "diatomics": _diatomics,
    "measurements": _measurements,
    "nve": _nve,
    "audit": _audit,
}


def step_function(kind: str) -> Callable[[StepInputs], tuple[Document, Summary]]:
    """The function that computes a step of some kind.

    Parameters
    ----------
    kind
        Kind of the step.

    Returns
    -------
    Callable[[StepInputs], tuple[Document, Summary]]
        A function of the inputs, which returns the output and its summary.

    Raises
    ------
    InputError
        There is no such kind, or its results are not computed from a structure.
    """
    subject = entry_of(kind).subject
    for known, function in _FUNCTIONS.items():
        if known == kind:
            return function
    raise InputError(f"a {kind} result is about a {subject}; it is not a step from a structure")
