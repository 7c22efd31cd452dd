"""A store without a server: the same questions and answers, kept in the spool."""

import uuid
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from ase import Atoms
from bson import ObjectId

from esen_flows.errors import StoreError
from esen_flows.schemas.documents import ResultDocument, StructureData
from esen_flows.schemas.keys import atoms_key
from esen_flows.store.blobs import pack, unpack
from esen_flows.store.claims import Claim
from esen_flows.store.database import Database
from esen_flows.store.exchange.spool import SpoolRecord, SpoolWriter, load_blob, read_record, read_records, spool_files
from esen_flows.store.results import ClaimOutcome, Store
from esen_flows.store.rows import check_identity, document_of, packed


@dataclass(frozen=True)
class _Place:
    file: Path
    offset: int
    settled: bool = True
    finished: bool = True


class SpoolStore(Store):
    """Keeps what it is given in the spool; knows what this and earlier processes have spooled into the folder.

    There is nobody to ask who computes what: two processes may compute the same, and merging keeps the first.
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
        """There is none.

        Raises
        ------
        StoreError
            always.
        """
        raise StoreError(
            f"ESEN_FLOWS_SPOOL is set, so results go into {self._folder} and there is no database for this; unset it, "
            f"and merge what is there with: esen-flows db ingest {self._folder}"
        )

    def get(self, key: str, load_arrays: bool = True) -> ResultDocument | None:
        """As `Store.get`, of what is in the spool."""
        place = self._results.get(key)
        if place is None:
            return None
        row = read_record(place.file, place.offset)["row"]
        return document_of(row, partial(load_blob, place.file.parent) if load_arrays else None)

    def get_or_claim(self, key: str, wait_seconds: float = 600.0, force: bool = False) -> ResultDocument | Claim:
        """As `Store.get_or_claim`; it never waits."""
        place = self._results.get(key)
        found = self.get(key) if place is not None and place.settled and not force else None
        return Claim(key, uuid.uuid4().hex, forced=force) if found is None else found

    def claim_many(self, keys: Iterable[str]) -> ClaimOutcome:
        """As `Store.claim_many`; nothing is ever left over."""
        asked = list(dict.fromkeys(keys))
        settled = tuple(key for key in asked if key in self._results and self._results[key].settled)
        return ClaimOutcome(tuple(Claim(key, uuid.uuid4().hex) for key in asked if key not in settled), settled, ())

    def commit(self, claim: Claim, document: ResultDocument, *, document_id: ObjectId | None = None) -> ResultDocument:
        """Write a result into the spool, on the disk before this returns; the result.

        Raises
        ------
        StoreError
            it is not the claimed result or cannot be stored, or the disk is full; nothing is half-written.
        """
        row, large = packed(claim, document)
        if document_id is not None:
            row["_id"] = document_id
        self._note(self._writer.keep(row, large, claim.forced))
        return document.model_copy(update={"created_at": row["created_at"]})

    def release_many(self, claims: Sequence[Claim]) -> None:
        """Nothing: claims of a spool are nobody else's business."""

    def sweep(self) -> int:
        """Nothing: there are no claims to clear away."""
        return 0

    def put_structure(self, atoms: Atoms, **identity: Any) -> str:
        """As `Store.put_structure`; what is known of its identity is filled in when it is merged."""
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
        """The structure of a key, or None."""
        place = self._structures.get(key)
        return None if place is None else atoms_of(read_record(place.file, place.offset))

    def close(self) -> None:
        """Close the file."""
        self.closed = True
        self._writer.close()

    def _note(self, record: SpoolRecord) -> None:
        """Remember where a record is; a failure never hides a result."""
        content = record.content
        if content is None:
            return  # merging tells about it
        if content["type"] == "structure":
            self._structures[content["key"]] = _Place(record.file, record.offset)
            return
        row = content["row"]
        finished = row["failure"] is None
        settled = finished or row["failure"]["final"]
        known = self._results.get(row["key"])
        if known is None or finished or not known.finished:
            self._results[row["key"]] = _Place(record.file, record.offset, settled, finished)


def atoms_of(content: dict[str, Any]) -> Atoms:
    """The structure of a spooled record."""
    atoms = StructureData(**unpack(content["structure"])).to_atoms()
    atoms.info.update(content["info"])
    return atoms
