"""Our force fields in atomate2's own Makers, for people who have flows, documents or habits there.

`force_field_maker` makes any of atomate2's force field Makers, `phonon_maker` its phonon flow. They compute as atomate2
does: without our keys (asking twice computes twice), one job per displacement unless `socket=True`, stress in kbar with
the sign of VASP, full force constants. Our Makers of the same names compute once and store compactly. atomate2 is
imported where it is used, because its phonon flows alone take seconds.
"""

from typing import TYPE_CHECKING, Any, Literal, TypeVar

from jobflow import Maker

from esen_flows.schemas.card import resolve_model

if TYPE_CHECKING:
    from atomate2.forcefields.flows.phonons import PhononMaker

ForceFieldMaker = TypeVar("ForceFieldMaker", bound=Maker)
CALCULATOR = {"@module": "esen_flows.forcefield.ase_calculator", "@callable": "ForceFieldCalculator"}


def force_field_maker(
    kind: type[ForceFieldMaker],
    model: str = "esen_silicon",
    *,
    device: str = "cpu",
    dtype: Literal["float32", "float64"] = "float64",
    **fields: Any,
) -> ForceFieldMaker:
    """Make one of atomate2's force field Makers with a force field of ours.

    Parameters
    ----------
    kind
        `ForceFieldRelaxMaker`, `ForceFieldStaticMaker`, `ForceFieldMDMaker` of atomate2.forcefields, or a subclass.
    model
        Name of a model card, or path of a checkpoint.
    device, dtype
        Device and precision of the force calls; a third-party force field keeps its own precision.
    fields
        Fields of the Maker. Its name begins with that of the force field, and a tag with the model key is added.

    Returns
    -------
    ForceFieldMaker
        The Maker. Its documents have the force field's name in `forcefield_name`, and `model_key:...` among their
        `tags`.

    Raises
    ------
    ModelError
        The name is unknown, or the checkpoint is missing or corrupted.
    """
    found = resolve_model(model)
    written = {"forcefield_name": found.label, **fields.pop("task_document_kwargs", {})}
    given: dict[str, Any] = {"name": f"{found.label} {_purpose(kind)}", **fields}
    given["tags"] = [*(fields.get("tags") or []), f"model_key:{found.key}"]
    return kind(
        force_field_name=dict(CALCULATOR),
        calculator_kwargs={"model": found.location, "device": device, "dtype": dtype},
        task_document_kwargs=written,
        **given,
    )


def phonon_maker(
    model: str = "esen_silicon",
    *,
    device: str = "cpu",
    dtype: Literal["float32", "float64"] = "float64",
    **fields: Any,
) -> "PhononMaker":
    """Make atomate2's own phonon flow with a force field of ours.

    Parameters
    ----------
    model, device, dtype
        As in `force_field_maker`.
    fields
        Fields of the Maker that replace ours: displacement, min_length (both in Angstrom), `bulk_relax_maker=None` for
        a structure that is relaxed already, ...

    Returns
    -------
    PhononMaker
        The Maker; its `make(structure)` gives a PhononBSDOSDoc.

    Raises
    ------
    ModelError
        The name is unknown, or the checkpoint is missing or corrupted.
    NotConservativeError
        The force field does not declare that its forces are the gradient of its energy.
    """
    from atomate2.forcefields.flows.phonons import PhononMaker
    from atomate2.forcefields.jobs import ForceFieldRelaxMaker, ForceFieldStaticMaker

    found = resolve_model(model)
    found.require_conservative("atomate2's PhononMaker")
    parts: dict[str, tuple[type[Maker], dict[str, Any]]] = {
        "bulk_relax_maker": (ForceFieldRelaxMaker, {"relax_kwargs": {"fmax": 1e-5}}),  # eV/Angstrom, as atomate2 has it
        "static_energy_maker": (ForceFieldStaticMaker, {}),
        "phonon_displacement_maker": (ForceFieldStaticMaker, {"name": f"{found.label} displacement"}),
    }
    makers = {
        part: force_field_maker(kind, model, device=device, dtype=dtype, **own)
        for part, (kind, own) in parts.items()
        if part not in fields
    }
    return PhononMaker(**{"name": f"{found.label} phonon", **makers, **fields})


def _purpose(kind: type[Maker]) -> str:
    """How atomate2 names the work of a Maker: "relax", "static", "ASE MD"."""
    return str(kind.name).removeprefix("Force field ")
