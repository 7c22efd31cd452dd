"""Conversion between results or structures and the documents that the collections and the spool hold."""

from collections.abc import Callable, Collection, Mapping
from datetime import UTC, datetime
from typing import Any, TypeVar

import bson
import numpy as np
from ase import Atoms
from ase.data import chemical_symbols
from bson import ObjectId
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from esen_flows.errors import InputError, StoreError
from esen_flows.schemas.documents import SCHEMA_VERSION, Document, ResultDocument, StructureData
from esen_flows.schemas.keys import atoms_key
from esen_flows.store.blobs import BlobReference, pack, unpack
from esen_flows.store.claims import Claim
from esen_flows.store.database import Row
from esen_flows.store.migrations import upgraded
from esen_flows.structures.identity import identify

LONGEST_BYTES = 12_000_000  # MongoDB accepts 16 MB, to which pymongo and the server add some
_FEW_BYTES = 2000  # limit of inline arrays in a document of very many short arrays, which together are too long
_STORE_FIELDS = ("_id", "blobs")  # fields of a stored result that ResultDocument does not have
D = TypeVar("D", bound=Document)


class Identity(BaseModel):
    """Fields of identity of a structure: what is known of it, and its names.

    Attributes
    ----------
    formula
        Reduced formula.
    chemsys
        Element symbols in alphabetical order with hyphens between them.
    elements
        Element symbols in alphabetical order.
    nsites
        Number of atoms.
    space_group_number
        International number of the space group; None for a structure that is not a crystal.
    space_group_symbol
        Its international symbol.
    material_ids
        Ids of the material in other databases.
    tags
        Tags of the user, and names of campaigns.
    """

    model_config = ConfigDict(strict=True)

    formula: str = ""
    chemsys: str = ""
    elements: list[str] = Field(default_factory=list)
    nsites: int = 0
    space_group_number: int | None = None
    space_group_symbol: str | None = None
    material_ids: list[str] = Field(default_factory=list)
    tags: list[str] = Field(default_factory=list)


# Kind of numpy type and shape of the arrays of a structure; 0 for the number of atoms.
_ARRAYS = {
    "numbers": ("i", 0), "positions_angstrom": ("f", 0, 3), "cell_angstrom": ("f", 3, 3), "pbc": ("b", 3),
    "masses_u": ("f", 0), "fixed_cartesian": ("b", 0, 3), "fixed_fractional": ("b", 0, 3),
}  # fmt: skip
IDENTITY_FIELDS = frozenset(Identity.model_fields)


def packed(claim: Claim, document: ResultDocument) -> tuple[Row, dict[str, np.ndarray]]:
    """A claimed result in the form in which it is stored.

    Parameters
    ----------
    claim
        Claim on the result.
    document
        The result.

    Returns
    -------
    tuple of Row, dict of str to np.ndarray
        The document with a new `_id`, and its large arrays by content key.

    Raises
    ------
    StoreError
        The document is not the claimed result, or holds something that cannot be stored.
    """
    if document.key != claim.key:
        raise StoreError(f"the claim is for result {claim.key}, but the document is result {document.key}")
    return row_of_document(document)


def row_of_document(document: ResultDocument) -> tuple[Row, dict[str, np.ndarray]]:
    """A result in the form in which it is stored.

    Parameters
    ----------
    document
        The result.

    Returns
    -------
    tuple of Row, dict of str to np.ndarray
        The document with a new `_id`, and its large arrays by content key.

    Raises
    ------
    StoreError
        The result holds something that cannot be stored.
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
    """The result in a stored document, checked.

    Parameters
    ----------
    row
        Document of the `results` collection or the spool.
    load
        Returns the array of a reference; None leaves the references.

    Returns
    -------
    ResultDocument
        The result.

    Raises
    ------
    StoreError
        A newer version of this package wrote the document, or it is damaged.
    """
    row = upgraded("results", row)
    fields = {name: value for name, value in row.items() if name not in _STORE_FIELDS}
    return validated(ResultDocument, f"result {row.get('key')}", unpack(fields, load))


def validated(document_class: type[D], name: str, fields: Mapping[str, Any]) -> D:
    """A document with these fields.

    Parameters
    ----------
    document_class
        Class of the document.
    name
        Name of the document in the error message.
    fields
        Values from the database.

    Returns
    -------
    D
        The document.

    Raises
    ------
    StoreError
        The fields do not fit the class.
    """
    try:
        return document_class(**fields)
    except ValidationError as error:
        fault = error.errors(include_input=False, include_url=False)[0]
        raise StoreError(
            f"{name} is not as this version of esen_flows writes it ({fault['loc'][0]}: {fault['msg'][:200]}); upgrade "
            "esen_flows if a newer one wrote it, else the store is damaged"
        ) from None


def check_identity(identity: Collection[str]) -> None:
    """Refuse fields that structures do not have.

    Parameters
    ----------
    identity
        Names of fields.

    Raises
    ------
    InputError
        A field is unknown.
    """
    unknown = sorted(set(identity) - IDENTITY_FIELDS)
    if unknown:
        raise InputError(f"unknown fields of a structure: {unknown}; known are {sorted(IDENTITY_FIELDS)}")


def structure_update(atoms: Atoms, identity: Mapping[str, Any]) -> tuple[str, Row]:
    """The key of a structure, and the update that stores the structure once and adds to its labels.

    Parameters
    ----------
    atoms
        The structure; charge and spin are read from `atoms.info`.
    identity
        Fields of identity that are known, as in `Store.put_structure`.

    Returns
    -------
    tuple of str, Row
        Structure key, and an update of MongoDB that inserts the structure if it is missing.

    Raises
    ------
    InputError
        A field of `identity` is unknown.
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


def structure_of(packed_fields: Any) -> StructureData:
    """The structure in stored fields, with arrays of the shapes that a structure has.

    Parameters
    ----------
    packed_fields
        `structure` of a document or of a record of a spool.

    Returns
    -------
    StructureData
        The structure.

    Raises
    ------
    StoreError
        The fields are not those of a structure.
    """
    if not isinstance(packed_fields, dict):
        raise StoreError(f"a structure is a {type(packed_fields).__name__} instead of its arrays; the store is damaged")
    data = validated(StructureData, "a structure", unpack(packed_fields))
    count = len(data.numbers) if data.numbers.ndim == 1 else 0
    for name, (kind, *shape) in _ARRAYS.items():
        array, expected = getattr(data, name), tuple(size or count for size in shape)
        if array is not None and (array.dtype.kind != kind or array.shape != expected):
            raise StoreError(f"{name} of a structure is {array.dtype} {array.shape}, not {expected}; it is damaged")
    if count == 0 or not ((data.numbers >= 0) & (data.numbers < len(chemical_symbols))).all():
        raise StoreError("a structure has no atoms, or atomic numbers that no element has; the store is damaged")
    if not (np.isfinite(data.positions_angstrom).all() and np.isfinite(data.cell_angstrom).all()):
        raise StoreError("a structure has NaN or infinite positions or cell vectors; the store is damaged")
    return data


def atoms_of_row(row: Row) -> Atoms:
    """The structure in a document of the `structures` collection.

    Parameters
    ----------
    row
        Document of this version.

    Returns
    -------
    Atoms
        The structure, with charge and spin in `info` where they are not 0.
    """
    atoms = structure_of(row["structure"]).to_atoms()
    atoms.info.update({name: row[name] for name in ("charge", "spin") if row.get(name)})
    return atoms


def _milliseconds(moment: datetime) -> datetime:
    """UTC with the resolution of MongoDB, so that `commit` returns the same time as `get`."""
    moment = moment.astimezone(UTC)
    return moment.replace(microsecond=moment.microsecond // 1000 * 1000)


def parents_of(row: Row) -> list[str]:
    """The structure, dataset or results on which a stored result builds.

    Parameters
    ----------
    row
        Document of the `results` collection.

    Returns
    -------
    list[str]
        Their keys.
    """
    return list(row.get("parents", {}).values()) or [row["parent_key"]]
