"""The keys that hold everything together: sha256 over canonical bytes.

A structure is keyed by what it is, a force field by its numbers, a result by how it was asked for (a Merkle hash over
its parent's key). Computed structures are never hashed for look-up: floating point would make that a lottery.
"""

import hashlib
import json
from collections.abc import Mapping
from typing import Any

import numpy as np

# 1e-8 Angstrom is far below what any relaxation resolves and far above float64 noise from file formats.
STRUCTURE_DECIMALS = 8


def canonical_json(value: Any) -> str:
    """JSON with sorted keys and no blanks; floats as Python's shortest repr, so that it is the same everywhere."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=True, allow_nan=False)


def sha256_of(value: Any) -> str:
    """Hex sha256 of the canonical JSON of `value`."""
    return hashlib.sha256(canonical_json(value).encode()).hexdigest()


def _rounded_bytes(values: Any) -> bytes:
    # Adding 0.0 turns -0.0 into 0.0; little-endian so that the key does not depend on the machine.
    return (np.round(np.asarray(values, dtype=np.float64), STRUCTURE_DECIMALS) + 0.0).astype("<f8").tobytes()


def structure_key(
    numbers: Any, positions: Any, cell: Any, pbc: Any, *, charge: float = 0.0, spin: float = 0.0, magmoms: Any = None
) -> str:
    """Key of an input structure, in the order given: no sorting, no wrapping.

    Parameters
    ----------
    numbers
        (n,) atomic numbers.
    positions
        (n, 3) Cartesian positions in Angstrom.
    cell
        (3, 3) rows are lattice vectors in Angstrom.
    pbc
        (3,) periodicity.
    charge, spin
        total charge (e) and spin.
    magmoms
        (n,) magnetic moments, only for a force field that reads them.
    """
    digest = hashlib.sha256(b"esen_flows structure 1")
    digest.update(np.asarray(pbc, dtype=np.uint8).tobytes())
    digest.update(np.asarray(numbers, dtype="<i8").tobytes())
    digest.update(_rounded_bytes(cell))
    digest.update(_rounded_bytes(positions))
    digest.update(_rounded_bytes([charge, spin]))
    if magmoms is not None:
        digest.update(b"magmoms")
        digest.update(_rounded_bytes(magmoms))
    return digest.hexdigest()


def atoms_key(atoms: Any) -> str:
    """Structure key of an ASE Atoms object; charge and spin are read from `atoms.info` when present."""
    return structure_key(
        atoms.numbers,
        atoms.positions,
        atoms.cell.array,
        atoms.pbc,
        charge=float(atoms.info.get("charge", 0.0)),
        spin=float(atoms.info.get("spin", 0.0)),
    )


def array_key(array: np.ndarray) -> str:
    """Content address of an array: sha256 of dtype, shape and bytes (C order, little endian)."""
    data = np.ascontiguousarray(array)
    data = data.astype(data.dtype.newbyteorder("<"), copy=False)
    digest = hashlib.sha256(f"{data.dtype.str}{data.shape}".encode())
    digest.update(data.tobytes())
    return digest.hexdigest()


def result_key(
    kind: str,
    protocol_hash: str,
    parent_key: str,
    model_key: str,
    numeric: Mapping[str, Any],
    numerics_revision: int,
) -> str:
    """Merkle key of a result: what was asked (`kind`, protocol), of what (parent), by what (model), computed how.

    `parent_key` is the input structure's key or the key of the result that this one starts from.
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
    """Model key of a force field that another package builds: what is installed, and with which arguments it is made.

    `arguments` is all that its builder is given and that changes numbers (not the device), as JSON-able values.
    """
    return sha256_of({"package": package, "version": version, "arguments": dict(arguments)})
