"""What the Makers share: from a structure and a force field's name to keyed requests and their jobs."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from ase import Atoms
from jobflow import Flow, Job, Maker, job

from esen_flows.makers.jobs import forces_job, relax_job
from esen_flows.schemas.card import ModelReference, resolve_model
from esen_flows.schemas.keys import atoms_key
from esen_flows.schemas.protocols import DisplacementProtocol, HarmonicProtocol, NumericSettings, TransportProtocol
from esen_flows.schemas.requests import ResultRequest
from esen_flows.structures.conversion import as_atoms, atoms_to_json

if TYPE_CHECKING:
    from pymatgen.core import Structure

DEFAULT_MODEL = "esen_silicon"


@dataclass
class PropertyMaker(Maker):
    """Base of our Makers.

    Attributes
    ----------
    name
        of the job or flow.
    force_field_name
        name of a model card, or path of a checkpoint.
    numeric
        dtype and what else decides the last digits; part of every key.
    device
        where force calls run; not part of a key.
    material_ids, tags
        noted in the documents, for queries.
    """

    name: str = "property"
    force_field_name: str = DEFAULT_MODEL
    numeric: NumericSettings = field(default_factory=NumericSettings)
    device: str = "cpu"
    material_ids: tuple[str, ...] = ()
    tags: tuple[str, ...] = ()

    def arguments(self, atoms: Atoms, model: ModelReference, request: ResultRequest) -> dict[str, Any]:
        """The arguments that every job body takes."""
        return {
            "structure": atoms_to_json(atoms),
            "request": request.model_dump(mode="json"),
            "model": {
                "location": model.location,
                "label": model.label,
                "device": self.device,
                "material_ids": list(self.material_ids),
                "tags": list(self.tags),
            },
        }


def keyed(work: Job, request: ResultRequest, name: str) -> Job:
    """Name a job and note its result key in its metadata, where workers and people look for it."""
    work.name = name
    work.update_metadata({"result_key": request.key, "kind": request.kind})
    return work


def lattice_flow(
    maker: PropertyMaker,
    structure: "Atoms | Structure",
    requests: Callable[[str, str], tuple[ResultRequest, ResultRequest, ResultRequest]],
    body: Callable[..., dict[str, Any]],
) -> Flow:
    """Relax, evaluate displaced supercells, then `body` on the stored forces; the output refers to its result.

    Force calls and what follows from them are jobs of their own: another mesh or temperature makes no force call, and
    a queue can send the first two to a GPU and the last to a CPU.

    Parameters
    ----------
    requests
        the three steps, from the structure key and the model key.

    Raises
    ------
    NotConservativeError
        the force field does not declare that its forces are the gradient of its energy.
    NotDifferentiableError
        force constants by autodiff of a force field without exact second derivatives.
    InputError
        the protocol's Born charges are those of another crystal.
    """
    atoms, model = as_atoms(structure), resolve_model(maker.force_field_name)
    model.require_conservative(maker.name)
    relax, forces, last = requests(atoms_key(atoms), model.key)
    if isinstance(forces.protocol, DisplacementProtocol) and forces.protocol.force_constants == "autodiff":
        model.require_differentiable(f"{maker.name} with force_constants=autodiff")
    _check_born(atoms, forces, last)
    relaxed = keyed(job(relax_job)(**maker.arguments(atoms, model, relax)), relax, f"{maker.name} relax")
    displaced = keyed(
        job(forces_job)(**maker.arguments(atoms, model, forces), relaxed=relaxed.output), forces, f"{maker.name} forces"
    )
    final = keyed(job(body)(**maker.arguments(atoms, model, last), forces=displaced.output), last, maker.name)
    return Flow([relaxed, displaced, final], output=final.output, name=maker.name)


def _check_born(atoms: Atoms, forces: ResultRequest, last: ResultRequest) -> None:
    """Refuse Born charges of another crystal now, not after the force calls."""
    if not isinstance(last.protocol, HarmonicProtocol | TransportProtocol) or last.protocol.born is None:
        return
    from esen_flows.physics.lattice.born import check_born

    assert isinstance(forces.protocol, DisplacementProtocol)  # what the step before is asked by
    check_born(last.protocol.born, atoms, forces.protocol.symprec_angstrom)
