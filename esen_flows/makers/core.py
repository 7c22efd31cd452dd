"""What the Makers share: from a structure and a force field's name to keyed requests and their jobs."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from ase import Atoms
from jobflow import Flow, Job, Maker, job

from esen_flows.makers.jobs import forces_job, relax_job
from esen_flows.schemas.card import ModelReference, resolve_model
from esen_flows.schemas.keys import atoms_key
from esen_flows.schemas.protocols import (
    ConductivityProtocol,
    DisplacementProtocol,
    HarmonicProtocol,
    NumericSettings,
    PhononProtocol,
    TransportProtocol,
)
from esen_flows.schemas.requests import ResultRequest, lattice_requests
from esen_flows.structures.checks import check_all_free
from esen_flows.structures.conversion import as_atoms, atoms_to_json

if TYPE_CHECKING:
    from pymatgen.core import Structure

DEFAULT_MODEL = "esen_silicon"


@dataclass
class PropertyMaker(Maker):
    """Base of the Makers that use a force field.

    Parameters
    ----------
    name
        Name of the job or flow.
    force_field_name
        Name of a model card, or path of a checkpoint.
    numeric
        Precision and other settings that decide the last digits; part of every key.
    device
        Device of the force calls; not part of a key.
    material_ids, tags
        Noted in the documents, for queries.
    """

    name: str = "property"
    force_field_name: str = DEFAULT_MODEL
    numeric: NumericSettings = field(default_factory=NumericSettings)
    device: str = "cpu"
    material_ids: tuple[str, ...] = ()
    tags: tuple[str, ...] = ()

    def _model_argument(self, model: ModelReference | None, **more: Any) -> dict[str, Any]:
        """The argument `model` of a job; without a force field the job finds its location and label itself."""
        named = {} if model is None else {"location": model.location, "label": model.label}
        documented = {"material_ids": list(self.material_ids), "tags": list(self.tags)}
        return {**named, "device": self.device, **documented, **more}

    def _step(
        self,
        body: Callable[..., Any],
        atoms: Atoms,
        model: ModelReference,
        request: ResultRequest,
        suffix: str = "",
        **parent: Any,
    ) -> Job:
        """The job of one step: `body` with the structure, and with the output of the step before as its argument."""
        carried = {"structure": atoms_to_json(atoms), "request": request.model_dump(mode="json")}
        work = job(body)(**carried, model=self._model_argument(model), **parent)
        return keyed(work, self.name + suffix, request.kind, request)


def keyed(work: Job, name: str, kind: str, request: ResultRequest | None) -> Job:
    """Name a job, and note its kind and result key in its metadata, where workers and people look for them.

    Parameters
    ----------
    work
        Job to change.
    name
        Its new name.
    kind
        Kind of its result.
    request
        What it computes; None: not known before the flow runs.

    Returns
    -------
    Job
        The same job.
    """
    work.name = name
    work.update_metadata({"kind": kind} | ({} if request is None else {"result_key": request.key}))
    return work


def lattice_flow(
    maker: PropertyMaker,
    structure: "Atoms | Structure",
    protocol: PhononProtocol | ConductivityProtocol,
    body: Callable[..., dict[str, Any]],
) -> Flow:
    """Relax, evaluate displaced supercells, and compute a property from the stored forces.

    Force calls and the step after them are jobs of their own: another mesh or temperature makes no force call, and a
    queue can send the first two to a GPU and the last to a CPU.

    Parameters
    ----------
    maker
        Gives force field, numeric settings and names.
    structure
        The input structure.
    protocol
        Protocol of the property.
    body
        Job body of the last step.

    Returns
    -------
    Flow
        The three jobs; its output refers to the result of the last one.

    Raises
    ------
    NotConservativeError
        The force field does not declare that its forces are the gradient of its energy.
    NotDifferentiableError
        Force constants are to be made by autodiff, of a force field without exact second derivatives.
    InputError
        The protocol's Born charges are those of another crystal, or the structure has fixed atoms.
    """
    atoms, model = as_atoms(structure), resolve_model(maker.force_field_name)
    check_all_free(atoms, atoms.get_chemical_formula(), maker.name)
    model.require_conservative(maker.name)
    relax, forces, last = lattice_requests(atoms_key(atoms), model.key, protocol, maker.numeric)
    if isinstance(forces.protocol, DisplacementProtocol) and forces.protocol.force_constants == "autodiff":
        model.require_differentiable(f"{maker.name} with force_constants=autodiff")
    _check_born(atoms, forces, last)
    relaxed = maker._step(relax_job, atoms, model, relax, " relax")
    displaced = maker._step(forces_job, atoms, model, forces, " forces", relaxed=relaxed.output)
    final = maker._step(body, atoms, model, last, forces=displaced.output)
    return Flow([relaxed, displaced, final], output=final.output, name=maker.name)


def _check_born(atoms: Atoms, forces: ResultRequest, last: ResultRequest) -> None:
    """Refuse Born charges of another crystal now, not after the force calls."""
    if not isinstance(last.protocol, HarmonicProtocol | TransportProtocol) or last.protocol.born is None:
        return
    from esen_flows.physics.lattice.born import check_born

    assert isinstance(forces.protocol, DisplacementProtocol)  # the step before asks for displaced supercells
    check_born(last.protocol.born, atoms, forces.protocol.symprec_angstrom)
