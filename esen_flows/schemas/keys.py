"""The keys of structures, force fields, arrays and results: sha256 over canonical bytes.

The key of a structure comes from its content, that of a force field from its numbers, and that of a result from its
request (a Merkle hash over the key of its parent). Computed structures are never hashed for look-up, because their last
digits differ between machines.
"""

import hashlib
import json
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

import numpy as np

from esen_flows.schemas.atom_properties import properties_of

# 1e-8 Angstrom is far below what any relaxation resolves and far above float64 noise from file formats.
STRUCTURE_DECIMALS = 8


def canonical_json(value: Any) -> str:
    """JSON that is the same on every machine: keys sorted, no blanks, floats as Python's shortest repr.

    Parameters
    ----------
    value
        Plain values without NaN or infinity.

    Returns
    -------
    str
        ASCII text.
    """
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=True, allow_nan=False)


def sha256_of(value: Any) -> str:
    """Hash of plain values.

    Parameters
    ----------
    value
        Plain values without NaN or infinity.

    Returns
    -------
    str
        Hexadecimal sha256 of their canonical JSON.
    """
    return hashlib.sha256(canonical_json(value).encode()).hexdigest()


def _rounded_bytes(values: Any) -> bytes:
    # Adding 0.0 turns -0.0 into 0.0; little-endian so that the key does not depend on the machine.
    return (np.round(np.asarray(values, dtype=np.float64), STRUCTURE_DECIMALS) + 0.0).astype("<f8").tobytes()


def structure_key(
    numbers: Any,
    positions: Any,
    cell: Any,
    pbc: Any,
    *,
    charge: float = 0.0,
    spin: float = 0.0,
    properties: Mapping[str, Any] = MappingProxyType({}),
) -> str:
    """Key of an input structure, in the order given: no sorting, no wrapping.

    Parameters
    ----------
    numbers
        (n,) atomic numbers.
    positions
        (n, 3) Cartesian positions in Angstrom.
    cell
        (3, 3) cell in Angstrom; rows are lattice vectors.
    pbc
        (3,) periodicity.
    charge, spin
        Total charge in elementary charges, and spin.
    properties
        `AtomProperties.fields`: own masses and fixed coordinates. Without any, they do not enter the key.

    Returns
    -------
    str
        Hexadecimal sha256.
    """
    digest = hashlib.sha256(b"esen_flows structure 1")
    digest.update(np.asarray(pbc, dtype=np.uint8).tobytes())
    digest.update(np.asarray(numbers, dtype="<i8").tobytes())
    digest.update(_rounded_bytes(cell))
    digest.update(_rounded_bytes(positions))
    digest.update(_rounded_bytes([charge, spin]))
    for name in sorted(properties):
        digest.update(name.encode() + _rounded_bytes(properties[name]))
    return digest.hexdigest()


def atoms_key(atoms: Any) -> str:
    """Key of an ASE structure.

    Parameters
    ----------
    atoms
        The structure; charge and spin are read from `atoms.info` where they are present, and isotopes and fixed
        atoms from ASE's masses and constraints.

    Returns
    -------
    str
        Hexadecimal sha256.

    Raises
    ------
    StructureError
        A constraint does not fix components of single atoms.

    Examples
    --------
    >>> from ase.build import bulk
    >>> atoms_key(bulk("Cu")) == atoms_key(bulk("Cu", a=3.61))
    True
    >>> atoms_key(bulk("Cu")) == atoms_key(bulk("Cu", a=3.62))
    False
    """
    return structure_key(
        atoms.numbers,
        atoms.positions,
        atoms.cell.array,
        atoms.pbc,
        charge=float(atoms.info.get("charge", 0.0)),
        spin=float(atoms.info.get("spin", 0.0)),
        properties=properties_of(atoms).fields(),
    )


def array_key(array: np.ndarray) -> str:
    """Content address of an array.

    Parameters
    ----------
    array
        Any array; its memory layout does not matter.

    Returns
    -------
    str
        Hexadecimal sha256 of data type, shape and bytes (C order, little endian).
    """
    data = np.ascontiguousarray(array)
    data = data.astype(data.dtype.newbyteorder("<"), copy=False)
    digest = hashlib.sha256(f"{data.dtype.str}{data.shape}".encode())
    digest.update(data.tobytes())
    return digest.hexdigest()


def result_key(
    kind: str, protocol_hash: str, parent_key: str, model_key: str, numeric: Mapping[str, Any], numerics_revision: int
) -> str:
    """Merkle key of a result.

    Parameters
    ----------
    kind
        Kind of the step.
    protocol_hash
        Hash of its protocol.
    parent_key
        Key of the input structure, or of the result from which the step starts.
    model_key
        Key of the force field.
    numeric
        Numeric settings, as `NumericSettings.key_fields` gives them.
    numerics_revision
        Revision of the step's numerics.

    Returns
    -------
    str
        Hexadecimal sha256.
    """
    return sha256_of(
        {
            "kind": kind,
            "protocol": protocol_hash,
            "parent": parent_key,
            "model": model_key,
            "numeric": dict(numeric),
            "numerics_revision": numerics_revision,
        }
    )


def third_party_key(package: str, version: str, arguments: Mapping[str, Any]) -> str:
    """Key of a force field that another package builds.

    Parameters
    ----------
    package
        Name of the package.
    version
        Its installed version.
    arguments
        All arguments of its builder that change numbers (not the device), as plain values.

    Returns
    -------
    str
        Hexadecimal sha256.
    """
    return sha256_of({"package": package, "version": version, "arguments": dict(arguments)})
