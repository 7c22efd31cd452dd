"""A store without a server: the methods of `Store`, with the spool in place of the database."""

import uuid
from collections.abc import Iterable, Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

from ase import Atoms
from bson import ObjectId

from esen_flows.errors import StoreError
from esen_flows.schemas.documents import ResultDocument, StructureData
from esen_flows.schemas.keys import atoms_key
from esen_flows.store.attempts import is_settled
from esen_flows.store.blobs import pack
from esen_flows.store.claims import Claim, ClaimOutcome
from esen_flows.store.database import Database
from esen_flows.store.exchange.spool import SpoolRecord, SpoolWriter, load_blob, read_record, read_records, spool_files
from esen_flows.store.results import Store
from esen_flows.store.rows import check_identity, document_of, packed, structure_of


class _Place(NamedTuple):
    file: Path
    offset: int
    settled: bool = True
    finished: bool = True


class SpoolStore(Store):
    """Keeps results and structures in a spool, and finds those of earlier processes in the same folder.

    Nobody can be asked what other processes compute: two of them may compute the same result, and merging keeps the
    first one.

    Parameters
    ----------
    folder
        Folder of spools; this store adds one of its own.
    """

    def __init__(self, folder: Path) -> None:
        self.closed = False
        self._folder = folder
        self._writer = SpoolWriter(folder)
        self._results: dict[str, _Place] = {}
        self._structures: dict[str, _Place] = {}
        for file in spool_files(folder):
            for record in read_records(file):
                self._note(record)

    @property
    def database(self) -> Database:
        """Not available.

        Raises
        ------
        StoreError
            Always.
        """
        raise StoreError(
            f"ESEN_FLOWS_SPOOL is set, so results go into {self._folder} and there is no database for this; unset it, "
            f"and merge what is there with: esen-flows db ingest {self._folder}"
        )

    def get(self, key: str, load_arrays: bool = True) -> ResultDocument | None:
        """The current result of a key in the spool.

        Parameters
        ----------
        key
            Result key.
        load_arrays
            False leaves a BlobReference in the place of each large array.

        Returns
        -------
        ResultDocument or None
            The result; None if the spool has none.
        """
        place = self._results.get(key)
        if place is None:
            return None
        row = read_record(place.file, place.offset)["row"]
        return document_of(row, partial(load_blob, place.file.parent) if load_arrays else None)

    def get_or_claim(self, key: str, wait_seconds: float = 600.0, force: bool = False) -> ResultDocument | Claim:
        """The result of a key, or else a claim to compute it.

        Parameters
        ----------
        key
            Result key.
        wait_seconds
            Has no effect: there is nobody to wait for.
        force
            Whether to compute the result again if there is one.

        Returns
        -------
        ResultDocument or Claim
            The result, or a claim that ends with `commit` or `release`.
        """
        place = self._results.get(key)
        found = self.get(key) if place is not None and place.settled and not force else None
        return Claim(key, uuid.uuid4().hex, forced=force) if found is None else found

    def claim_many(self, keys: Iterable[str]) -> ClaimOutcome:
        """Claims on those of many keys that have no result in the spool.

        Parameters
        ----------
        keys
            Result keys.

        Returns
        -------
        ClaimOutcome
            Claims and settled keys; never leftovers.
        """
        requested = list(dict.fromkeys(keys))
        settled = tuple(key for key in requested if key in self._results and self._results[key].settled)
        return ClaimOutcome(tuple(Claim(key, uuid.uuid4().hex) for key in requested if key not in settled), settled, ())

    def commit(self, claim: Claim, document: ResultDocument, *, document_id: ObjectId | None = None) -> ResultDocument:
        """Write a result into the spool; it is on the disk before this returns.

        Parameters
        ----------
        claim
            Claim from `get_or_claim` or `claim_many`; it ends here.
        document
            Finished or failed result.
        document_id
            Id of the document in the database; None: a new one.

        Returns
        -------
        ResultDocument
            The result as it is stored.

        Raises
        ------
        StoreError
            The document is not the claimed result or cannot be stored, or the disk is full; no part of it was kept.
        """
        row, large = packed(claim, document)
        if document_id is not None:
            row["_id"] = document_id
        self._note(self._writer.keep(row, large, claim.forced))
        return document.model_copy(update={"created_at": row["created_at"]})

    def release_many(self, claims: Sequence[Claim]) -> None:
        """Do nothing: no other process sees the claims of a spool.

        Parameters
        ----------
        claims
            Claims without results.
        """

    def sweep(self) -> int:
        """Do nothing: a spool has no claims to remove.

        Returns
        -------
        int
            0.
        """
        return 0

    def put_structure(self, atoms: Atoms, **identity: Any) -> str:
        """Write a structure into the spool; formula, space group and the like are computed when it is merged.

        Parameters
        ----------
        atoms
            Structure; charge and spin are read from `atoms.info`.
        identity
            Fields of identity that are known, as in `Store.put_structure`.

        Returns
        -------
        str
            Structure key.
        """
        check_identity(identity)
        key = atoms_key(atoms)
        if key not in self._structures or identity:
            content = {
                "type": "structure",
                "key": key,
                "structure": pack(StructureData.from_atoms(atoms).model_dump(), path="structure"),
                "info": {name: float(atoms.info[name]) for name in ("charge", "spin") if name in atoms.info},
                "identity": pack(identity, path="structure"),
            }
            self._note(self._writer.append(content, f"structure {key}"))
        return key

    def get_structure(self, key: str) -> Atoms | None:
        """The structure of a key in the spool.

        Parameters
        ----------
        key
            Structure key.

        Returns
        -------
        Atoms or None
            The structure; None if the spool does not have it.
        """
        place = self._structures.get(key)
        return None if place is None else atoms_of(read_record(place.file, place.offset))

    def close(self) -> None:
        """Close the file of records."""
        self.closed = True
        self._writer.close()

    def _note(self, record: SpoolRecord) -> None:
        """Remember the place of a record; a failure does not replace a finished result."""
        content = record.content
        if content is None:
            return  # merging reports the damaged record
        if content["type"] == "structure":
            self._structures[content["key"]] = _Place(record.file, record.offset)
            return
        row = content["row"]
        finished = row["failure"] is None
        known = self._results.get(row["key"])
        if known is None or finished or not known.finished:
            self._results[row["key"]] = _Place(record.file, record.offset, is_settled(row), finished)


def atoms_of(content: dict[str, Any]) -> Atoms:
    """The structure of a spooled record.

    Parameters
    ----------
    content
        Content of a record of the type "structure".

    Returns
    -------
    Atoms
        The structure, with charge and spin in `info`.
    """
    atoms = structure_of(content["structure"]).to_atoms()
    atoms.info.update(content["info"])
    return atoms
