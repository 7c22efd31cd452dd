"""The bodies of the jobs, as plain functions: small JSON-able arguments in, a small reference to the result out.

A job gets neither the store nor a credential. It opens the store of the machine that it runs on, and reads the results
that it builds on by their keys.
"""

from typing import Any

from esen_flows.makers.outputs import atomate2_fields
from esen_flows.makers.step_inputs import Json, Reference, reference_to
from esen_flows.makers.steps import compute_step
from esen_flows.schemas.documents import RelaxOutput, StaticOutput


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
    document = compute_step(structure, request, model, force)
    return reference_to(document) | _as_in_atomate2(RelaxOutput.model_validate(document.output), structure)


def static_job(structure: Json, request: Json, model: Json, force: bool = False) -> Reference:
    """Evaluate a structure as it is.

    Parameters
    ----------
    structure, request, model, force
        As in `relax_job`.

    Returns
    -------
    Reference
        kind, key and summary of the stored result, and the structure as `atomate2_fields` has it.
    """
    document = compute_step(structure, request, model, force)
    return reference_to(document) | _as_in_atomate2(StaticOutput.model_validate(document.output), structure)


def _as_in_atomate2(output: RelaxOutput | StaticOutput, structure: Json) -> dict[str, Any]:
    atoms = output.structure.to_atoms()
    atoms.info |= structure["info"]  # charge and spin, which a relaxation leaves as they are
    return atomate2_fields(atoms, output.energy_ev, output.forces_ev_per_angstrom, output.stress_ev_per_angstrom3)


def step_job(structure: Json | None, request: Json, model: Json, after: Any = None, force: bool = False) -> Reference:
    """Compute one step of a property.

    Parameters
    ----------
    structure, request, model, force
        As in `relax_job`; no structure for a property of a force field.
    after
        Outputs of the jobs on whose results the step builds, so that these run before.

    Returns
    -------
    Reference
        kind, key and summary of the stored result.
    """
    return reference_to(compute_step(structure, request, model, force))


# Jobs of fireworks that earlier versions submitted; newer ones are jobs of `step_job`.


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
    return reference_to(compute_step(structure, request, model, force))


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
    return reference_to(compute_step(structure, request, model, force))


def conductivity_job(structure: Json, request: Json, model: Json, forces: Reference, force: bool = False) -> Reference:
    """Compute heat transport by phonons from stored forces, without a force call.

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
    return reference_to(compute_step(structure, request, model, force))
