"""A property request, fully specified and checked; nothing is computed, opened or written here."""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

from ase import Atoms

from esen_flows.cli.overrides import with_overrides
from esen_flows.cli.usage import UsageError, check_device
from esen_flows.errors import InputError
from esen_flows.physics.conservation.systems import check_named_systems
from esen_flows.schemas.card import ModelReference, resolve_model
from esen_flows.schemas.frozen import Frozen
from esen_flows.schemas.keys import atoms_key
from esen_flows.schemas.lattice_versions import TransportBackend
from esen_flows.schemas.properties import Kind
from esen_flows.schemas.property_lookup import (
    entry_of,
    is_exact,
    kind_of,
    named_protocol,
    require_forces,
    require_settings,
)
from esen_flows.schemas.protocol_fields import with_values
from esen_flows.schemas.protocols import ConductivityProtocol, NumericSettings, PhononProtocol
from esen_flows.schemas.requests import ResultRequest, property_requests
from esen_flows.structures.checks import check_elements, check_start, check_structure, warn_outside

Dtype = Literal["float64", "float32"]


@dataclass(frozen=True)
class PropertyRequest:
    """A property of a structure by a force field, or of a force field itself.

    Attributes
    ----------
    kind
        Which property.
    atoms
        Input structure; empty for a property of a force field.
    model
        Force field, identified without loading it.
    protocol
        How the property is computed.
    numeric
        Precision and compilation, which are part of the key.
    device
        Device of the force calls, which is not part of the key.
    steps
        Keyed requests of all steps; the last one is the property.
    """

    kind: Kind
    atoms: Atoms
    model: ModelReference
    protocol: Frozen
    numeric: NumericSettings
    device: str
    steps: tuple[ResultRequest, ...]


def build_request(
    kind: Kind,
    file: Path,
    model: str,
    assignments: list[str],
    dtype: Dtype | None,
    device: str,
    *,
    compile: bool = False,
    tf32: bool = False,
    protocol_name: str = "general",
    born: Path | None = None,
    lattice_backend: TransportBackend | None = None,
) -> PropertyRequest:
    """Request for a property, from what a command was given.

    Parameters
    ----------
    kind, file, model
        Property, structure file (FILE@3 takes frame 3), and name of a model card or path of a checkpoint.
    assignments, protocol_name
        `key=value` texts, and the named protocol that they change.
    dtype, compile, tf32, lattice_backend
        Precision (None for that of the force field), torch.compile, factors rounded to 10 bits on GPUs, and
        implementation of linewidths (None for the default).
    device
        cpu, cuda or cuda:N.
    born
        phonopy's BORN file of the structure, for properties whose protocol has Born charges.

    Returns
    -------
    PropertyRequest
        Checked request.

    Raises
    ------
    UsageError
        An option has a value that it cannot have, or none that fits this force field or device.
    InputError
        The file, structure or force field cannot be used for this property.
    """
    # With ASE's readers, which take as long to import as everything else that a command needs.
    from esen_flows.structures.files import read_structure

    check_device(device)
    resolve_model(model)
    atoms = read_structure(file)
    return request_of(
        kind, atoms, file.name, model, assignments, dtype, device,
        compile=compile, tf32=tf32, protocol_name=protocol_name, born=born, lattice_backend=lattice_backend,
    )  # fmt: skip


def request_of(
    kind: Kind,
    atoms: Atoms,
    name: str,
    model: str,
    settings: list[str] | dict[str, Any],
    dtype: Dtype | None,
    device: str,
    *,
    compile: bool = False,
    tf32: bool = False,
    protocol_name: str = "general",
    born: Path | None = None,
    lattice_backend: TransportBackend | None = None,
) -> PropertyRequest:
    """Request for a property of a structure that has been read.

    Parameters
    ----------
    kind, model, dtype, device, compile, tf32, protocol_name, born, lattice_backend
        As for `build_request`.
    atoms, name
        Structure, and its name in error messages.
    settings
        `key=value` texts, or values by dotted name.

    Returns
    -------
    PropertyRequest
        Checked request.

    Raises
    ------
    UsageError
        An option has a value that it cannot have, or none that fits this force field or device.
    InputError
        The structure or force field cannot be used for this property.
    """
    check_device(device)
    if entry_of(kind).subject == "model":
        raise InputError(f"{kind} is a property of force fields; give no structure")
    reference = resolve_model(model)
    check_structure(atoms, name)
    protocol = _protocol(kind, settings, protocol_name, atoms)
    check_start(atoms, name, kind, protocol)
    if born is not None:
        protocol = _with_born(protocol, born, atoms)
    check_elements(atoms, reference)
    warn_outside(atoms, name, reference)
    require_forces(reference, protocol, kind)
    if is_exact(protocol):
        reference.require_differentiable("force_constants=autodiff")
    dtype = _dtype(reference, dtype)
    numeric = NumericSettings(dtype=dtype, compile=compile, tf32=tf32, lattice_backend=lattice_backend)
    _check_numeric(numeric, reference, device)
    steps = property_requests(atoms_key(atoms), reference.key, protocol, numeric)
    return PropertyRequest(kind, atoms, reference, protocol, numeric, device, steps)


def model_request(
    kind: Kind,
    model: str,
    settings: list[str] | dict[str, Any],
    dtype: Dtype | None,
    device: str,
    *,
    compile: bool = False,
    tf32: bool = False,
    protocol_name: str = "general",
) -> PropertyRequest:
    """Request for a property of a force field itself.

    Parameters
    ----------
    kind, model, settings, dtype, device, compile, tf32, protocol_name
        As for `request_of`.

    Returns
    -------
    PropertyRequest
        Checked request.

    Raises
    ------
    UsageError
        An option has a value that it cannot have, or none that fits this force field or device.
    InputError
        The property is one of structures.
    UnknownElementError
        The force field does not know the elements of a system that is named.
    """
    if entry_of(kind).subject != "model":
        raise InputError(f"{kind} is a property of structures; give one")
    check_device(device)
    reference = resolve_model(model)
    protocol = _protocol(kind, settings, protocol_name, Atoms())
    check_named_systems(protocol, reference)
    numeric = NumericSettings(dtype=_dtype(reference, dtype), compile=compile, tf32=tf32)
    _check_numeric(numeric, reference, device)
    steps = property_requests(reference.key, reference.key, protocol, numeric)
    return PropertyRequest(kind, Atoms(), reference, protocol, numeric, device, steps)


def vary_request(
    request: PropertyRequest, *, protocol: Frozen | None = None, dtype: Dtype | None = None
) -> PropertyRequest:
    """The same property by another protocol or in another precision.

    Parameters
    ----------
    request
        Request to start from; it is not changed.
    protocol
        New protocol; None keeps that of the request.
    dtype
        New precision; None keeps that of the request.

    Returns
    -------
    PropertyRequest
        Request with the keys of its own steps.

    Raises
    ------
    UsageError
        The force field does not compute in this precision.
    """
    protocol = protocol or request.protocol
    numeric = request.numeric
    if dtype is not None:
        numeric = numeric.model_copy(update={"dtype": _dtype(request.model, dtype)})
    steps = property_requests(atoms_key(request.atoms), request.model.key, protocol, numeric)
    return replace(request, protocol=protocol, numeric=numeric, steps=steps)


def _protocol(kind: Kind, settings: list[str] | dict[str, Any], name: str, atoms: Atoms) -> Frozen:
    start = named_protocol(kind, name, atoms.info)
    protocol = with_values(start, settings.items()) if isinstance(settings, dict) else with_overrides(start, settings)
    remedy = (
        "them with --set displacement.fc2_supercell=4,4,4 --set displacement.fc3_supercell=2,2,2 --set mesh=19,19,19"
    )
    require_settings(kind, name, protocol, remedy)
    return protocol


def _with_born(protocol: Frozen, born: Path, atoms: Atoms) -> Frozen:
    if not isinstance(protocol, PhononProtocol | ConductivityProtocol):
        raise UsageError(f"--born: {kind_of(protocol)} does not use Born charges")
    from esen_flows.physics.lattice.born import read_born  # Imports phonopy, which no other request needs.

    return protocol.model_copy(update={"born": read_born(born, atoms, protocol)})


def _dtype(model: ModelReference, requested: Dtype | None) -> Dtype:
    """Precision that becomes part of the key: the requested one, or the only one of the force field."""
    if model.dtype is None:
        return requested or "float64"
    if requested not in (None, model.dtype):
        raise UsageError(f"--dtype {requested}: {model.label} computes in {model.dtype} only; leave the option out")
    return model.dtype


def _check_numeric(numeric: NumericSettings, model: ModelReference, device: str) -> None:
    """Refuse settings that would change the key without changing the numbers."""
    if numeric.tf32 and (numeric.dtype != "float32" or device == "cpu"):
        raise UsageError(f"--tf32 needs --dtype float32 and --device cuda, got {numeric.dtype} on {device}")
    is_third_party = model.card is not None and not model.card.is_network
    if (numeric.tf32 or numeric.compile) and is_third_party:
        raise UsageError(f"--compile and --tf32 are for this package's own networks, not for {model.label}")
