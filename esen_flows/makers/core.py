"""What the Makers share: from a structure and a force field's name to keyed requests and their jobs."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import TYPE_CHECKING, Any

from ase import Atoms
from jobflow import Flow, Job, Maker, OutputReference, job
from monty.json import jsanitize

from esen_flows.errors import InputError
from esen_flows.makers.jobs import Reference, relax_job, static_job, step_job
from esen_flows.makers.keyed import keyed_job, noted
from esen_flows.makers.outputs import LARGE_FIELDS, MOST_ATOMS_INLINE
from esen_flows.makers.references import carried, delivered, in_place_of_this_job, is_reference
from esen_flows.makers.trainings import trained_force_field
from esen_flows.physics.conservation.systems import check_named_systems
from esen_flows.schemas.card import ModelReference, resolve_model
from esen_flows.schemas.diatomics import DiatomicsProtocol
from esen_flows.schemas.frozen import Frozen
from esen_flows.schemas.keys import atoms_key
from esen_flows.schemas.properties import Kind
from esen_flows.schemas.property_lookup import entry_of, is_exact, kind_of, require_forces
from esen_flows.schemas.protocols import ConductivityProtocol, NumericSettings, PhononProtocol, RelaxProtocol
from esen_flows.schemas.requests import ResultRequest, property_requests
from esen_flows.structures.checks import check_all_free, warn_outside
from esen_flows.structures.conversion import atoms_to_json
from esen_flows.structures.inputs import given_structures

if TYPE_CHECKING:
    from jobflow import Response

    from esen_flows.structures.inputs import AnyStructures

DEFAULT_MODEL = "esen_silicon"
# Jobs whose outputs hold the structure, by what was asked for.
ANSWERS: dict[Kind, Callable[..., Reference]] = {"relax": relax_job, "static": static_job}


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
class ModelMaker(PropertyMaker):
    """A property of a force field itself: the one whose protocol is given.

    Parameters
    ----------
    name, force_field_name, numeric, device, material_ids, tags
        As in `PropertyMaker`.
    protocol
        How the property is computed; part of the key. Its class says which property is computed.
    """

    protocol: Frozen = field(default_factory=DiatomicsProtocol)

    def make(self, prev_dir: str | None = None) -> Job | Flow:
        """Make the jobs. Nothing is computed before they run.

        Parameters
        ----------
        prev_dir
            Accepted as in atomate2, and unused: nothing is handed over in folders.

        Returns
        -------
        Job | Flow
            The job of a property with a single step, otherwise a flow whose output is that of its last job. Where the
            force field is the output of another job: one job, which is replaced by these when it runs.

        Raises
        ------
        ModelError
            The force field is not on this machine.
        InputError
            An audit names a system that does not exist, or whose elements the force field does not know.
        """
        kind = kind_of(self.protocol)
        if is_reference(self.force_field_name):
            return noted(self.make_when_known(carried(self.force_field_name)), self.name, kind, None)
        model = resolve_model(self.force_field_name)
        check_named_systems(self.protocol, model)
        requests = property_requests(model.key, model.key, self.protocol, self.numeric)

        def step(request: ResultRequest, name: str, after: list[Any]) -> Job:
            arguments: dict[str, Any] = {"structure": None, "request": request.model_dump(mode="json")}
            arguments |= {"model": self._model_argument(model), **({"after": after} if after else {})}
            return keyed_job(self, step_job, arguments, name=name, kind=request.kind, request=request)

        return _chain(self.name, requests, step)

    @job
    def make_when_known(self, training: "Reference | str") -> "Response[Any]":
        """Make the keyed job, in the place of the job that this is, once the force field was trained.

        Parameters
        ----------
        training
            Output of the training whose force field is used.

        Returns
        -------
        Response
            The keyed job.
        """
        return in_place_of_this_job(self._with_force_field(training).make())


@dataclass
class StructureMaker(PropertyMaker):
    """A property of each structure: the one whose protocol is given.

    Parameters
    ----------
    name, force_field_name, numeric, device, material_ids, tags
        As in `PropertyMaker`.
    protocol
        How each step is computed; part of the keys. Its class says which property is computed.
    """

    protocol: Frozen = field(default_factory=RelaxProtocol)

    @property
    def kind(self) -> Kind:
        """Kind of the property's result."""
        return kind_of(self.protocol)

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
            training = carried(self.force_field_name) if is_reference(self.force_field_name) else None
            return noted(self.make_when_known(carried(structure), training), self.name, self.kind, None)
        structures, is_one = given_structures(structure)
        if not structures:
            raise InputError(f"{self.name}: no structure was given")
        model = resolve_model(self.force_field_name)
        for atoms in structures:
            warn_outside(atoms, atoms.get_chemical_formula(), model)
        made = [self.make_one(atoms, model) for atoms in structures]
        return made[0] if is_one else Flow(made, output=[one.output for one in made], name=self.name)

    def make_one(self, atoms: Atoms, model: ModelReference) -> Job | Flow:
        """Make the keyed jobs of one structure, one for each step.

        Force calls and the steps after them are jobs of their own: another mesh or temperature makes no force call, and
        a queue can send the former to a GPU and the latter to a CPU.

        Parameters
        ----------
        atoms
            The structure.
        model
            The force field.

        Returns
        -------
        Job | Flow
            The job of a property with a single step, otherwise a flow whose output is that of its last job.

        Raises
        ------
        NotConservativeError, NotDifferentiableError
            The force field does not declare what the property or its protocol needs.
        InputError
            The protocol's Born charges are those of another crystal, or the structure has fixed atoms.
        """
        entry = entry_of(self.kind)
        if entry.crystal:
            check_all_free(atoms, atoms.get_chemical_formula(), self.name)
        require_forces(model, self.protocol, self.name)
        if is_exact(self.protocol):
            model.require_differentiable(f"{self.name} with force_constants=autodiff")
        _check_born(self.protocol, atoms)
        requests = property_requests(atoms_key(atoms), model.key, self.protocol, self.numeric)
        return _chain(self.name, requests, partial(self._step, atoms, model))

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

    def _step(self, atoms: Atoms, model: ModelReference, request: ResultRequest, name: str, after: list[Any]) -> Job:
        """The job of one step, which runs after those whose outputs it gets."""
        arguments = {"structure": atoms_to_json(atoms), "request": request.model_dump(mode="json")}
        # A relaxation or static evaluation that was asked for hands on its structure, to Makers of other packages too.
        body = ANSWERS.get(request.kind, step_job) if request.kind == self.kind else step_job
        return keyed_job(
            self,
            body,
            {**arguments, "model": self._model_argument(model), **({"after": after} if after else {})},
            name=name,
            kind=request.kind,
            request=request,
            data=LARGE_FIELDS if body is not step_job and len(atoms) > MOST_ATOMS_INLINE else (),
        )


def _chain(
    name: str, requests: Sequence[ResultRequest], step: Callable[[ResultRequest, str, list[Any]], Job]
) -> Job | Flow:
    """The jobs of a property: `step` makes each, from its request, its name and the outputs of those before it."""
    made: dict[str, Job] = {}
    for request, job_name in zip(requests, _step_names(name, [one.kind for one in requests]), strict=True):
        parents = request.parents.values() or [request.parent_key]
        made[request.key] = step(request, job_name, [made[key].output for key in parents if key in made])
    jobs = list(made.values())
    return jobs[0] if len(jobs) == 1 else Flow(jobs, output=jobs[-1].output, name=name)


def _step_names(name: str, kinds: Sequence[str]) -> list[str]:
    """Names of the jobs of a property: of several steps of one kind, all but the first have numbers."""
    names = [f"{name} {kind}" for kind in kinds[:-1]]
    repeated = [names[:place].count(one) for place, one in enumerate(names)]
    return [f"{one} {count}" if count else one for one, count in zip(names, repeated, strict=True)] + [name]


def _check_born(protocol: Frozen, atoms: Atoms) -> None:
    """Refuse Born charges of another crystal now, not after the force calls."""
    if not isinstance(protocol, PhononProtocol | ConductivityProtocol) or protocol.born is None:
        return
    from esen_flows.physics.lattice.born import check_born

    check_born(protocol.born, atoms, protocol.displacement.symprec_angstrom)
