"""What a property command asks, fully specified and checked; nothing is computed, opened or written here."""

import re
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

from ase import Atoms

from esen_flows.cli.overrides import UsageError, with_overrides
from esen_flows.schemas.card import ModelReference, resolve_model
from esen_flows.schemas.keys import atoms_key
from esen_flows.schemas.named_protocols import check_supercells, conductivity_protocol, phonon_protocol
from esen_flows.schemas.protocols import ConductivityProtocol, NumericSettings, PhononProtocol, RelaxProtocol
from esen_flows.schemas.requests import ResultRequest, property_requests
from esen_flows.structures.checks import check_cell_relaxation, check_crystal, check_elements, check_structure
from esen_flows.structures.files import read_structure

Property = Literal["relax", "phonon", "conductivity"]
Dtype = Literal["float64", "float32"]
AnyProtocol = RelaxProtocol | PhononProtocol | ConductivityProtocol


@dataclass(frozen=True)
class PropertyRequest:
    """A property of a structure by a force field.

    Attributes
    ----------
    kind
        which property.
    atoms
        the input structure.
    model
        the force field, found without loading it.
    protocol, numeric
        how.
    device
        where force calls would run; not part of a key.
    steps
        the keyed requests; the last one is the answer.
    """

    kind: Property
    atoms: Atoms
    model: ModelReference
    protocol: AnyProtocol
    numeric: NumericSettings
    device: str
    steps: tuple[ResultRequest, ...]


def build_request(
    kind: Property,
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
) -> PropertyRequest:
    """Read and check everything that a command was given.

    Parameters
    ----------
    born
        phonopy's BORN of the structure, for phonons and conductivities.

    Raises
    ------
    UsageError
        a wrong --set, --device, --dtype, --compile or --tf32.
    InputError
        a file, structure or force field that cannot be used for this property.
    """
    check_device(device)
    reference = resolve_model(model)
    atoms = read_structure(file)
    check_structure(atoms, file.name)
    protocol = _protocol(kind, assignments, protocol_name, atoms)
    _check_purpose(kind, protocol, atoms, file.name)
    if born is not None:
        protocol = _with_born(protocol, born, atoms)
    check_elements(atoms, reference)
    if kind != "relax":
        reference.require_conservative(kind)
    if not isinstance(protocol, RelaxProtocol) and protocol.displacement.force_constants == "autodiff":
        reference.require_differentiable("force_constants=autodiff")
    numeric = NumericSettings(dtype=_dtype(reference, dtype), compile=compile, tf32=tf32)
    _check_numeric(numeric, reference, device)
    steps = property_requests(atoms_key(atoms), reference.key, protocol, numeric)
    return PropertyRequest(kind, atoms, reference, protocol, numeric, device, steps)


def check_device(device: str) -> None:
    """Refuse what is no name of a device; whether it is there, who computes finds out.

    Raises
    ------
    UsageError
        with the names that there are.
    """
    if not re.fullmatch(r"cpu|cuda(:\d+)?", device):
        raise UsageError(f"--device {device!r} is none of cpu, cuda, cuda:0, cuda:1, ...")


def vary_request(
    request: PropertyRequest, *, protocol: AnyProtocol | None = None, dtype: Dtype | None = None
) -> PropertyRequest:
    """The same question in another way.

    Raises
    ------
    UsageError
        a precision that the force field does not have.
    """
    chosen = protocol or request.protocol
    numeric = request.numeric
    if dtype is not None:
        numeric = numeric.model_copy(update={"dtype": _dtype(request.model, dtype)})
    steps = property_requests(atoms_key(request.atoms), request.model.key, chosen, numeric)
    return replace(request, protocol=chosen, numeric=numeric, steps=steps)


def _protocol(kind: Property, assignments: list[str], name: str, atoms: Atoms) -> AnyProtocol:
    if kind == "relax":
        return with_overrides(RelaxProtocol(), assignments)
    if kind == "phonon":
        return with_overrides(phonon_protocol(name, atoms.info), assignments)
    protocol = with_overrides(conductivity_protocol(name, atoms.info), assignments)
    check_supercells(protocol, name)
    return protocol


def _with_born(protocol: AnyProtocol, born: Path, atoms: Atoms) -> AnyProtocol:
    if isinstance(protocol, RelaxProtocol):
        raise UsageError("--born: a relaxation does not use Born charges")
    from esen_flows.physics.lattice.born import read_born  # phonopy, which no other question needs

    return protocol.model_copy(update={"born": read_born(born, atoms, protocol)})


def _dtype(model: ModelReference, asked: Dtype | None) -> Dtype:
    """The precision to note in the key: what was asked, or the only one that the force field has."""
    if model.dtype is None:
        return asked or "float64"
    if asked not in (None, model.dtype):
        raise UsageError(f"--dtype {asked}: {model.label} computes in {model.dtype} only; leave the option out")
    return model.dtype


def _check_numeric(numeric: NumericSettings, model: ModelReference, device: str) -> None:
    """Refuse what would change the key and not the numbers."""
    if numeric.tf32 and (numeric.dtype != "float32" or device == "cpu"):
        raise UsageError(f"--tf32 needs --dtype float32 and --device cuda, got {numeric.dtype} on {device}")
    theirs = model.card is not None and model.card.family == "third_party"
    if (numeric.tf32 or numeric.compile) and theirs:
        raise UsageError(f"--compile and --tf32 are for this package's own networks, not for {model.label}")


def _check_purpose(kind: Property, protocol: AnyProtocol, atoms: Atoms, name: str) -> None:
    if not isinstance(protocol, RelaxProtocol):
        check_crystal(atoms, name, kind)
    elif protocol.relax_cell:
        check_cell_relaxation(atoms, name)
