"""What the Makers share: from a structure and a force field's name to keyed requests and their jobs."""

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, ClassVar

from ase import Atoms
from jobflow import Flow, Job, Maker, OutputReference, job
from monty.json import jsanitize

from esen_flows.errors import InputError
from esen_flows.makers.jobs import Reference, forces_job, relax_job
from esen_flows.makers.keyed import keyed_job, noted
from esen_flows.makers.outputs import LARGE_FIELDS, MOST_ATOMS_INLINE
from esen_flows.makers.references import carried, delivered, in_place_of_this_job, is_reference
from esen_flows.makers.trainings import trained_force_field
from esen_flows.schemas.card import ModelReference, resolve_model
from esen_flows.schemas.documents import Kind
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
from esen_flows.structures.conversion import atoms_to_json
from esen_flows.structures.inputs import given_structures

if TYPE_CHECKING:
    from jobflow import Response

    from esen_flows.structures.inputs import AnyStructures

DEFAULT_MODEL = "esen_silicon"


@dataclass
class PropertyMaker(Maker):
    """Base of the Makers that use a force field.

    Parameters
    ----------
    name
        Name of the job or flow.
    force_field_name
        Name of a model card, path of a checkpoint, or the output of a TrainMaker's job.
    numeric
        Precision and other settings that decide the last digits; part of every key.
    device
        Device of the force calls; not part of a key.
    material_ids, tags
        Noted in the documents, for queries.
    """

    name: str = "property"
    force_field_name: str | OutputReference = DEFAULT_MODEL
    numeric: NumericSettings = field(default_factory=NumericSettings)
    device: str = "cpu"
    material_ids: tuple[str, ...] = ()
    tags: tuple[str, ...] = ()

    def as_dict(self) -> dict[str, Any]:
        """The Maker as plain values: FireWorks would write protocols inside the Maker of a job as text.

        Returns
        -------
        dict[str, Any]
            Argument of `from_dict`.
        """
        plain: dict[str, Any] = jsanitize(super().as_dict(), strict=True, enum_values=True)
        return plain

    def _model_argument(self, model: ModelReference | None, **more: Any) -> dict[str, Any]:
        """The argument `model` of a job; without a force field the job finds its location and label itself."""
        named = {} if model is None else {"location": model.location, "label": model.label}
        documented = {"material_ids": list(self.material_ids), "tags": list(self.tags)}
        return {**named, "device": self.device, **documented, **more}

    def _with_force_field(self, training: "Reference | str | None") -> "PropertyMaker":
        """The same Maker with the force field of a training, unless its own field was given a name meanwhile."""
        if training is None or isinstance(self.force_field_name, str):
            return self
        return replace(self, force_field_name=trained_force_field(training))


@dataclass
class StructureMaker(PropertyMaker):
    """Base of the Makers that compute a property of each structure.

    Parameters
    ----------
    name, force_field_name, numeric, device, material_ids, tags
        As in `PropertyMaker`.
    """

    kind: ClassVar[Kind]  # of the property's result

    def make(self, structure: "AnyStructures | OutputReference", prev_dir: str | None = None) -> Job | Flow:
        """Make the jobs of one or many structures. Nothing is computed before they run.

        Parameters
        ----------
        structure
            ASE Atoms, a pymatgen Structure, the path of a structure file, the output of another job that is one of
            these (`job.output.structure`), or several of these.
        prev_dir
            Accepted as in atomate2, and unused: nothing is handed over in folders.

        Returns
        -------
        Job | Flow
            For one structure, what `make_one` says; for many, a flow with the list of their outputs. Where a structure
            or the force field is the output of another job: one job, which is replaced by these when it runs.

        Raises
        ------
        InputError
            A structure or file cannot be read, or the property cannot be computed as the protocol says.
        """
        if is_reference(structure) or is_reference(self.force_field_name):
            training = self.force_field_name if is_reference(self.force_field_name) else None
            return noted(self.make_when_known(carried(structure), training), self.name, self.kind, None)
        structures, is_one = given_structures(structure)
        if not structures:
            raise InputError(f"{self.name}: no structure was given")
        model = resolve_model(self.force_field_name)
        made = [self.make_one(atoms, model) for atoms in structures]
        return made[0] if is_one else Flow(made, output=[one.output for one in made], name=self.name)

    def make_one(self, atoms: Atoms, model: ModelReference) -> Job | Flow:
        """Make the keyed jobs of one structure.

        Parameters
        ----------
        atoms
            The structure.
        model
            The force field.

        Returns
        -------
        Job | Flow
            A job, or a flow whose output is that of its last job.
        """
        raise NotImplementedError

    @job
    def make_when_known(self, structure: Any, training: "Reference | str | None" = None) -> "Response[Any]":
        """Make the keyed jobs, in the place of the job that this is, once references have values.

        Parameters
        ----------
        structure
            `references.carried` structures.
        training
            Output of the training whose force field is used; None: `force_field_name` says it.

        Returns
        -------
        Response
            The keyed jobs.
        """
        return in_place_of_this_job(self._with_force_field(training).make(delivered(structure)))

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
        carried_request = {"structure": atoms_to_json(atoms), "request": request.model_dump(mode="json")}
        return keyed_job(
            self,
            body,
            {**carried_request, "model": self._model_argument(model), **parent},
            name=self.name + suffix,
            kind=request.kind,
            request=request,
            data=LARGE_FIELDS if request.kind == "relax" and len(atoms) > MOST_ATOMS_INLINE else (),
        )


def lattice_flow(
    maker: StructureMaker,
    atoms: Atoms,
    model: ModelReference,
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
    atoms
        The input structure.
    model
        The force field.
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
