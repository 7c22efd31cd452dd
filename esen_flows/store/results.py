"""The store: results by key, computed once; structures by key."""

import time
from datetime import UTC, datetime
from typing import Any

import numpy as np
from ase import Atoms
from bson import ObjectId
from pymongo.errors import DuplicateKeyError

from esen_flows.errors import ClaimedElsewhereError, InputError, StoreError
from esen_flows.schemas.documents import SCHEMA_VERSION, ResultDocument, StructureData
from esen_flows.schemas.identity import identify
from esen_flows.schemas.keys import atoms_key
from esen_flows.store.blobs import BlobStore, pack, unpack
from esen_flows.store.claims import Claim, Claims
from esen_flows.store.database import Database, Row

IDENTITY_FIELDS = frozenset(
    ("formula", "chemsys", "elements", "nsites", "space_group_number", "space_group_symbol", "material_ids", "tags")
)
_STORE_FIELDS = ("_id", "blobs")  # of a stored result, beside those of ResultDocument


class Store:
    """Results and structures in one MongoDB database; open it with `open_store`."""

    def __init__(self, database: Database, claims: Claims | None = None) -> None:
        self.database = database
        self.closed = False
        self._claims = claims or Claims(database)
        self._blobs = BlobStore(database)

    def get(self, key: str, load_arrays: bool = True) -> ResultDocument | None:
        """The current result of a key, finished or failed; None if there is none.

        Parameters
        ----------
        key : result key.
        load_arrays : False leaves a BlobReference in the place of each array over 256 kB.

        Raises
        ------
        StoreError : an array is missing or damaged, or the document is of a newer version of this package.
        """
        db = self.database
        row = db.call(lambda: db["results"].find_one({"key": key, "current": True}))
        return None if row is None else self.read(row, load_arrays)

    def get_or_claim(self, key: str, wait_seconds: float = 600.0) -> ResultDocument | Claim:
        """The result of a key, or else the right and duty to compute it.

        A failure that is not final counts as absent. While another living process computes the result, this waits.

        Parameters
        ----------
        key : result key.
        wait_seconds : for somebody else's result.

        Raises
        ------
        ClaimedElsewhereError : it is still being computed after that time.
        """
        deadline = time.monotonic() + wait_seconds
        pause = 0.05
        while True:
            result = self._settled(key)
            if result is not None:
                return result
            claim = self._claims.try_claim(key)
            if claim is not None:
                self._blobs.remove_orphans(claim.inherited, by_token=claim.token)
                # Between the look and the claim, its last holder may have finished.
                result = self._settled(key)
                if result is None:
                    return claim
                self._claims.forget(claim)
                return result
            left = deadline - time.monotonic()
            if left <= 0:
                raise ClaimedElsewhereError(
                    f"result {key} is being computed by {self._claimant(key)} and was not there after "
                    f"{wait_seconds:.0f} s; ask again later"
                )
            time.sleep(min(pause, left))
            pause = min(2 * pause, 2.0)

    def commit(self, claim: Claim, document: ResultDocument) -> ResultDocument:
        """Store a result unless a finished one is there; the one that is stored now.

        Parameters
        ----------
        claim : from `get_or_claim`; it ends here.
        document : finished or failed; `attempt` and `current` are set by the store.

        Raises
        ------
        StoreError : it is not the claimed result, or holds something that cannot be stored (the claim stays).
        """
        if document.key != claim.key:
            raise StoreError(f"the claim is for result {claim.key}, but the document is result {document.key}")
        large: dict[str, np.ndarray] = {}
        row = pack(document.model_dump(), large, path=document.kind)
        row |= {"_id": ObjectId(), "blobs": sorted(large), "created_at": _milliseconds(document.created_at)}
        if large:
            self._claims.announce_blobs(claim, large)
            for sha, array in large.items():
                self._blobs.put(sha, array, claim.token)
        stored = self._insert_if_absent(row)
        mine = stored["_id"] == row["_id"]
        if not mine:
            self._blobs.remove_orphans(large, by_token=claim.token)
        if not self._claims.forget(claim) and mine:
            for sha, array in large.items():
                self._blobs.repair(sha, array)
        return self.read(stored)

    def release(self, claim: Claim) -> None:
        """Give a claim back without a result, so that the next one who asks computes it."""
        self._claims.forget(claim)

    def sweep(self) -> int:
        """Clear away after the dead: their claims, and arrays that no document names; how many claims."""
        swept = 0
        for claim_id in self._claims.dead():
            claim = self._claims.try_claim(claim_id)
            if claim is not None:
                self._blobs.remove_orphans(claim.inherited, by_token=claim.token)
                self._claims.forget(claim)
                swept += 1
        return swept

    def put_structure(self, atoms: Atoms, **identity: Any) -> str:
        """Store a structure under its key, once; the key.

        Parameters
        ----------
        atoms : charge and spin are read from `atoms.info`.
        identity : formula, chemsys, elements, nsites, space_group_number, space_group_symbol (computed unless given);
            material_ids and tags are added to those already known.

        Raises
        ------
        InputError : an unknown field.
        """
        unknown = sorted(set(identity) - IDENTITY_FIELDS)
        if unknown:
            raise InputError(f"unknown fields of a structure: {unknown}; known are {sorted(IDENTITY_FIELDS)}")
        db = self.database
        key = atoms_key(atoms)
        labels = {name: {"$each": list(identity.pop(name, ()))} for name in ("material_ids", "tags")}
        if "formula" not in identity:
            identity = identify(atoms) | identity
        fields = {
            "schema_version": SCHEMA_VERSION,
            "structure": pack(StructureData.from_atoms(atoms).model_dump(), path="structure"),
            "charge": float(atoms.info.get("charge", 0.0)),
            "spin": float(atoms.info.get("spin", 0.0)),
            "created_at": datetime.now(UTC),
            **pack(identity, path="structure"),
        }
        update = {"$setOnInsert": fields, "$addToSet": labels}
        try:
            db.call(lambda: db["structures"].update_one({"_id": key}, update, upsert=True))
        except DuplicateKeyError:  # two insertions at once; the other one is there now
            db.call(lambda: db["structures"].update_one({"_id": key}, update, upsert=True))
        return key

    def get_structure(self, key: str) -> Atoms | None:
        """The structure of a key, or None."""
        db = self.database
        row = db.call(lambda: db["structures"].find_one({"_id": key}))
        if row is None:
            return None
        atoms = StructureData(**unpack(row["structure"])).to_atoms()
        atoms.info.update({name: row[name] for name in ("charge", "spin") if row[name]})
        return atoms

    def read(self, row: Row, load_arrays: bool = True) -> ResultDocument:
        """A document of the `results` collection, checked.

        Raises
        ------
        StoreError : it is of a newer version of this package, or damaged.
        """
        version = row.get("schema_version", SCHEMA_VERSION)
        if version > SCHEMA_VERSION:
            raise StoreError(
                f"result {row.get('key')} has schema version {version}, newer than {SCHEMA_VERSION}; upgrade esen_flows"
            )
        fields = {name: value for name, value in row.items() if name not in _STORE_FIELDS}
        return ResultDocument(**unpack(fields, self._blobs.get if load_arrays else None))

    def close(self) -> None:
        """Disconnect; the private server stops when nobody else uses it."""
        self.closed = True
        self._claims.close()
        self.database.close()

    def _settled(self, key: str) -> ResultDocument | None:
        """The current result if asking again would not change it."""
        result = self.get(key)
        pending = result is not None and result.failure is not None and not result.failure.final
        return None if pending else result

    def _insert_if_absent(self, row: Row) -> Row:
        """The current document of the key after the insertion: ours, or one that settles the question."""
        db = self.database
        while True:
            current = db.call(lambda: db["results"].find_one({"key": row["key"], "current": True}))
            if current is not None and (current["_id"] == row["_id"] or not _is_pending(current)):
                return current
            last = db.call(lambda: db["results"].find_one({"key": row["key"]}, {"attempt": 1}, sort=[("attempt", -1)]))
            new = row | {"attempt": last["attempt"] + 1 if last else 0, "current": True}
            if current is not None:
                # Not one step with the insertion: a crash here leaves no current document, which is a pending one too.
                old = {"_id": current["_id"]}
                db.call(lambda: db["results"].update_one(old, {"$set": {"current": False}}))  # noqa: B023
            try:
                db.call(lambda: db["results"].insert_one(new))  # noqa: B023
            except DuplicateKeyError:
                continue  # somebody was faster, or our insertion was repeated: look again

    def _claimant(self, key: str) -> str:
        db = self.database
        row = db.call(lambda: db["claims"].find_one({"_id": key}, {"process": 1}))
        return f"process {row['process']['pid']} on {row['process']['host']}" if row else "another process"


def _is_pending(row: Row) -> bool:
    return row["failure"] is not None and not row["failure"]["final"]


def _milliseconds(moment: datetime) -> datetime:
    """UTC as MongoDB keeps it, so that what `commit` returns is what `get` returns."""
    moment = moment.astimezone(UTC)
    return moment.replace(microsecond=moment.microsecond // 1000 * 1000)
