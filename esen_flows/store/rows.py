"""Results and structures as they are stored: rows of the collections or of the spool, and back."""

from collections.abc import Callable, Collection, Mapping
from datetime import UTC, datetime
from typing import Any

import bson
import numpy as np
from ase import Atoms
from bson import ObjectId
from pydantic import ValidationError

from esen_flows.errors import InputError, StoreError
from esen_flows.schemas.documents import SCHEMA_VERSION, ResultDocument, StructureData
from esen_flows.schemas.keys import atoms_key
from esen_flows.store.blobs import BlobReference, pack, unpack
from esen_flows.store.claims import Claim
from esen_flows.store.database import Row
from esen_flows.store.migrations import upgraded
from esen_flows.structures.identity import identify

LONGEST_BYTES = 12_000_000  # MongoDB takes 16 MB, a driver and a server add some
_FEW_BYTES = 2000  # many arrays that are short each are too much together: then all but the shortest are kept apart
_STORE_FIELDS = ("_id", "blobs")  # of a stored result, beside those of ResultDocument

IDENTITY_FIELDS = frozenset(
    ("formula", "chemsys", "elements", "nsites", "space_group_number", "space_group_symbol", "material_ids", "tags")
)


def packed(claim: Claim, document: ResultDocument) -> tuple[Row, dict[str, np.ndarray]]:
    """A result as it is stored, and its large arrays by content key.

    Raises
    ------
    StoreError
        it is not the claimed result, or holds something that cannot be stored.
    """
    if document.key != claim.key:
        raise StoreError(f"the claim is for result {claim.key}, but the document is result {document.key}")
    return row_of_document(document)


def row_of_document(document: ResultDocument) -> tuple[Row, dict[str, np.ndarray]]:
    """A result as it is stored, with an id of its own, and its large arrays by content key.

    Raises
    ------
    StoreError
        it holds something that cannot be stored.
    """
    fields = document.model_dump() | {"created_at": _milliseconds(document.created_at)}
    for inline_bytes in (None, _FEW_BYTES):
        large: dict[str, np.ndarray] = {}
        row = pack(fields, large, document.kind, inline_bytes)
        row |= {"_id": ObjectId(), "blobs": sorted(large)}
        length = len(bson.encode(row))
        if length < LONGEST_BYTES:
            return row, large
    raise StoreError(
        f"result {document.key} has {length / 1e6:.0f} MB without its arrays, but a document holds 16 MB; give numbers "
        "as arrays instead of lists"
    )


def document_of(row: Row, load: Callable[[BlobReference], Any] | None) -> ResultDocument:
    """A stored result, checked.

    Parameters
    ----------
    row
        as it is stored.
    load
        gives the array of a reference; None leaves the reference.

    Raises
    ------
    StoreError
        it is of a newer version of this package, or damaged.
    """
    row = upgraded("results", row)
    fields = {name: value for name, value in row.items() if name not in _STORE_FIELDS}
    try:
        return ResultDocument(**unpack(fields, load))
    except ValidationError as error:
        fault = error.errors(include_input=False, include_url=False)[0]
        raise StoreError(
            f"result {row.get('key')} is not as this version of esen_flows writes it ({fault['loc'][0]}: "
            f"{fault['msg'][:200]}); upgrade esen_flows if a newer one wrote it, else the store is damaged"
        ) from None


def check_identity(identity: Collection[str]) -> None:
    """Refuse fields that no structure has.

    Raises
    ------
    InputError
        an unknown field.
    """
    unknown = sorted(set(identity) - IDENTITY_FIELDS)
    if unknown:
        raise InputError(f"unknown fields of a structure: {unknown}; known are {sorted(IDENTITY_FIELDS)}")


def structure_update(atoms: Atoms, identity: Mapping[str, Any]) -> tuple[str, Row]:
    """The key of a structure, and the upsert that stores it once and adds to its labels.

    Parameters
    ----------
    atoms, identity
        see `Store.put_structure`.

    Raises
    ------
    InputError
        an unknown field.
    """
    check_identity(identity)
    fields = dict(identity)
    labels = {name: {"$each": list(fields.pop(name, ()))} for name in ("material_ids", "tags")}
    if "formula" not in fields:
        fields = identify(atoms) | fields
    document = {
        "schema_version": SCHEMA_VERSION,
        "structure": pack(StructureData.from_atoms(atoms).model_dump(), path="structure"),
        "charge": float(atoms.info.get("charge", 0.0)),
        "spin": float(atoms.info.get("spin", 0.0)),
        "created_at": datetime.now(UTC),
        **pack(fields, path="structure"),
    }
    return atoms_key(atoms), {"$setOnInsert": document, "$addToSet": labels}


def _milliseconds(moment: datetime) -> datetime:
    """UTC as MongoDB keeps it, so that what `commit` returns is what `get` returns."""
    moment = moment.astimezone(UTC)
    return moment.replace(microsecond=moment.microsecond // 1000 * 1000)
