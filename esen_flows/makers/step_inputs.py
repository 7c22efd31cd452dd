"""What the function of a step gets, and what a job returns of the result."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, TypeVar

from ase import Atoms

from esen_flows.errors import StoreError
from esen_flows.forcefield.contract import ForceField
from esen_flows.makers.compute import Context, Meter, raise_if_failed
from esen_flows.makers.force_fields import requested_force_field
from esen_flows.schemas.documents import Document, RelaxOutput, ResultDocument
from esen_flows.schemas.domain import domain_by
from esen_flows.schemas.requests import ResultRequest
from esen_flows.store.results import Store

Output = TypeVar("Output", bound=Document)
Protocol = TypeVar("Protocol")
Json = dict[str, Any]  # an argument of a job
Reference = dict[str, Any]  # kind, key and summary of a result: the output of a job


@dataclass(frozen=True)
class StepInputs:
    """What the function of a step gets.

    Attributes
    ----------
    store
        Store of the results.
    request
        The requested step.
    atoms
        Input structure at the root of the property; empty for a property of a force field.
    model
        The job's argument of this name.
    meter
        Counts the force evaluations.
    """

    store: Store
    request: ResultRequest
    atoms: Atoms
    model: Json
    meter: Meter

    def force_field(self) -> ForceField:
        """The requested force field, whose evaluations are counted.

        Returns
        -------
        ForceField
            The force field on its device.
        """
        return self.meter.watch(requested_force_field(self.model, self.request))

    def parent_output(self, output: type[Output]) -> Output:
        """The output of the only result on which the step builds.

        Parameters
        ----------
        output
            Type of the output.

        Returns
        -------
        Output
            The output with its arrays.
        """
        return parent_output(self.store, self.request.parent_key, output)

    def parent_outputs(self, output: type[Output]) -> dict[str, Output]:
        """The outputs of several results on which the step builds.

        Parameters
        ----------
        output
            Type of the outputs.

        Returns
        -------
        dict[str, Output]
            Outputs by role, in the order of the roles.
        """
        parents = sorted(self.request.parents.items())
        return {role: parent_output(self.store, key, output) for role, key in parents}

    def start(self) -> Atoms:
        """The structure from which the step starts.

        Returns
        -------
        Atoms
            The input structure, or that of the relaxation on which the step builds, with its charge and spin.
        """
        if self.request.starts_from_input:
            return self.atoms
        relaxed = self.parent_output(RelaxOutput).structure.to_atoms()
        relaxed.info |= {name: self.atoms.info[name] for name in ("charge", "spin") if name in self.atoms.info}
        return relaxed


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


def structure_context(identity: Mapping[str, Any], model: Json) -> Context:
    """The context of a result about a structure, with the verdict whether the force field knows its elements together.

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
    domain = domain_by(model.get("location"), str(identity["chemsys"]))
    return replace(context_of(identity, model), domain=domain)


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
