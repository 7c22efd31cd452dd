"""The store: results by key, computed once; structures by key."""

import logging
import time
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from ase import Atoms
from bson import ObjectId
from pymongo.errors import DuplicateKeyError

from esen_flows.errors import ClaimedElsewhereError, ServerUnavailableError
from esen_flows.schemas.documents import ResultDocument, StructureData
from esen_flows.store.blobs import BlobStore, unpack
from esen_flows.store.claims import Claim, Claims
from esen_flows.store.database import Database, Row
from esen_flows.store.migrations import upgraded
from esen_flows.store.models import note_models
from esen_flows.store.rows import document_of, packed, structure_update

logger = logging.getLogger(__name__)

_SETTLED: Row = {"$or": [{"failure": None}, {"failure.final": True}]}


class Spool(Protocol):
    """Where results go while there is no server."""

    patience_seconds: float  # how long to wait for the server before
    folder: Path  # for messages

    def keep(self, row: Row, large: dict[str, np.ndarray], forced: bool) -> object:
        """Write down a packed result so that it outlives this process."""


@dataclass(frozen=True)
class ClaimOutcome:
    """What became of the keys that `claim_many` was given.

    Attributes
    ----------
    claims
        ours to compute; each ends with `commit` or `release`.
    settled
        keys whose result is there.
    leftovers
        keys that others are computing; ask for them again later.
    """

    claims: tuple[Claim, ...]
    settled: tuple[str, ...]
    leftovers: tuple[str, ...]


class Store:
    """Results and structures in one MongoDB database; open it with `open_store`."""

    def __init__(self, database: Database, claims: Claims | None = None, spool_fallback: Spool | None = None) -> None:
        self._database = database
        self.closed = False
        self._claims = claims or Claims(database)
        self._blobs = BlobStore(database)
        self._spool_fallback = spool_fallback
        self._away_since: float | None = None
        self._noted_models: set[tuple[str, str]] = set()

    @property
    def database(self) -> Database:
        """The connection."""
        return self._database

    def get(self, key: str, load_arrays: bool = True) -> ResultDocument | None:
        """The current result of a key, finished or failed; None if there is none.

        Parameters
        ----------
        key
            result key.
        load_arrays
            False leaves a BlobReference in the place of each array over 256 kB.

        Raises
        ------
        StoreError
            an array is missing or damaged, or the document is of a newer version of this package.
        """
        db = self.database
        row = db.call(lambda: db["results"].find_one({"key": key, "current": True}))
        return None if row is None else self.read(row, load_arrays)

    def get_or_claim(self, key: str, wait_seconds: float = 600.0, force: bool = False) -> ResultDocument | Claim:
        """The result of a key, or else the right and duty to compute it.

        A failure that is not final counts as absent. While another living process computes the result, this waits.

        Parameters
        ----------
        key
            result key.
        wait_seconds
            for somebody else's result.
        force
            compute it again whatever is there. What is committed becomes a further attempt and the current one,
            except that a failure never takes the place of a result.

        Raises
        ------
        ClaimedElsewhereError
            it is still being computed after that time.
        """
        deadline = time.monotonic() + wait_seconds
        pause = 0.05
        while True:
            result = None if force else self._settled(key)
            if result is not None:
                return result
            claim = self._claims.try_claim(key)
            if claim is not None:
                self._clear_after_predecessors([claim])
                # Between the look and the claim, its last holder may have finished.
                result = None if force else self._settled(key)
                if result is None:
                    return replace(claim, forced=force)
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

    def claim_many(self, keys: Iterable[str]) -> ClaimOutcome:
        """Claims on those of many keys that have no result and that nobody else computes; it never waits.

        Parameters
        ----------
        keys
            result keys, each counted once; a failure that is not final counts as absent.
        """
        asked = list(dict.fromkeys(keys))
        settled = self._settled_among(asked)
        claims = self._claims.try_claim_many([key for key in asked if key not in settled])
        self._clear_after_predecessors(claims)
        late = self._settled_among([claim.key for claim in claims])  # finished between the look and the claim
        self.release_many([claim for claim in claims if claim.key in late])
        ours = tuple(claim for claim in claims if claim.key not in late)
        known = settled | late | {claim.key for claim in ours}
        return ClaimOutcome(
            claims=ours,
            settled=tuple(key for key in asked if key in settled or key in late),
            leftovers=tuple(key for key in asked if key not in known),
        )

    def commit(self, claim: Claim, document: ResultDocument, *, document_id: ObjectId | None = None) -> ResultDocument:
        """Store a result unless a finished one is there; the one that is stored now.

        While the server is away this waits, then keeps the result in the spool, which `esen-flows db ingest` merges.

        Parameters
        ----------
        claim
            from `get_or_claim` or `claim_many`; it ends here.
        document
            finished or failed; `attempt` and `current` are set by the store.
        document_id
            of a document that was spooled, so that it is stored once however often it is merged.

        Raises
        ------
        StoreError
            it is not the claimed result, or holds something that cannot be stored (the claim stays).
        ServerUnavailableError
            the server stays away and this store has no spool.
        """
        row, large = packed(claim, document)
        if document_id is not None:
            row["_id"] = document_id
        while True:
            try:
                self.note_models([(document.model_key, document.model_label)])
                stored = self._commit(claim, row, large)
                self._away_since = None
                return self.read(stored)
            except ServerUnavailableError as error:
                if self.gives_up_waiting(error):
                    self.keep_apart([(claim, row, large)])
                    return document.model_copy(update={"created_at": row["created_at"]})

    def gives_up_waiting(self, error: ServerUnavailableError) -> bool:
        """Whether a server that has just been found away was away for so long that results go into the spool.

        Raises
        ------
        ServerUnavailableError
            `error`, where there is no spool.
        """
        if self._spool_fallback is None:
            raise error
        return not self._keeps_waiting(self._spool_fallback.patience_seconds)

    def keep_apart(self, results: Sequence[tuple[Claim, Row, dict[str, np.ndarray]]]) -> None:
        """Keep packed results in the spool; their claims expire by themselves."""
        assert self._spool_fallback is not None  # `gives_up_waiting` has said so
        for claim, row, large in results:
            self._spool_fallback.keep(row, large, claim.forced)
        self._claims.let_go([claim for claim, *_ in results])
        what = f"result {results[0][0].key} is" if len(results) == 1 else f"{len(results)} results are"
        logger.warning(
            "the database server is still away; %s kept in %s; merge it later with: esen-flows db ingest %s",
            what, self._spool_fallback.folder, self._spool_fallback.folder,
        )  # fmt: skip

    def release(self, claim: Claim) -> None:
        """Give a claim back without a result, so that the next one who asks computes it."""
        self.release_many([claim])

    def release_many(self, claims: Sequence[Claim]) -> None:
        """Give claims back without results; while the server is away they expire by themselves."""
        if not claims:
            return
        try:
            self._claims.forget_many(claims)
        except ServerUnavailableError:
            return  # somebody is about to hear of what really went wrong

    def end_claims(self, claims: Sequence[Claim]) -> None:
        """Take claims away whose results are stored."""
        self._claims.forget_many(claims)
        self._away_since = None  # the server has answered: the next outage is another one

    def sweep(self) -> int:
        """Clear away after the dead: their claims, and arrays that no document names; how many claims."""
        swept = 0
        for claim_id in self._claims.dead():
            claim = self._claims.try_claim(claim_id)
            if claim is not None:
                self._clear_after_predecessors([claim])
                self._claims.forget(claim)
                swept += 1
        return swept

    def put_structure(self, atoms: Atoms, **identity: Any) -> str:
        """Store a structure under its key, once; the key.

        Parameters
        ----------
        atoms
            charge and spin are read from `atoms.info`.
        identity
            formula, chemsys, elements, nsites, space_group_number, space_group_symbol (computed unless given);
            material_ids and tags are added to those already known.

        Raises
        ------
        InputError
            an unknown field.
        """
        key, update = structure_update(atoms, identity)
        db = self.database
        try:
            db.call(lambda: db["structures"].update_one({"_id": key}, update, upsert=True))
        except DuplicateKeyError:  # two insertions at once; the other one is there now
            db.call(lambda: db["structures"].update_one({"_id": key}, update, upsert=True))
        return key

    def note_models(self, named: Iterable[tuple[str, str]]) -> None:
        """Store force fields by key and label; each asks the server once per process."""
        new = set(named) - self._noted_models
        if new:
            note_models(self.database, new)
            self._noted_models |= new

    def get_structure(self, key: str) -> Atoms | None:
        """The structure of a key, or None."""
        db = self.database
        row = db.call(lambda: db["structures"].find_one({"_id": key}))
        if row is None:
            return None
        row = upgraded("structures", row)
        atoms = StructureData(**unpack(row["structure"])).to_atoms()
        atoms.info.update({name: row[name] for name in ("charge", "spin") if row[name]})
        return atoms

    def read(self, row: Row, load_arrays: bool = True) -> ResultDocument:
        """A document of the `results` collection, checked.

        Raises
        ------
        StoreError
            it is of a newer version of this package, or damaged.
        """
        return document_of(row, self._blobs.get if load_arrays else None)

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

    def _settled_among(self, keys: Collection[str]) -> set[str]:
        db = self.database
        query = {"key": {"$in": list(keys)}, "current": True, **_SETTLED}
        return set(db.call(lambda: db["results"].distinct("key", query))) if keys else set()

    def _clear_after_predecessors(self, claims: Sequence[Claim]) -> None:
        """Remove arrays that the dead left, and give back its current result to a key that lost it in a crash."""
        for claim in claims:
            self._blobs.remove_orphans(claim.inherited, by_token=claim.token)
        db = self.database
        # A forced attempt takes the place of a result in two steps; a crash between them leaves no current one.
        query = {"key": {"$in": [claim.key for claim in claims]}, "current": False, **_SETTLED}
        rows = db.call(lambda: list(db["results"].find(query, {"key": 1}).sort("attempt", 1)))
        for document_id in {row["key"]: row["_id"] for row in rows}.values():
            self._become_current(document_id)

    def _become_current(self, document_id: ObjectId) -> bool:
        """Whether this document is the current one of its key now; another one may be."""
        db = self.database
        try:
            db.call(lambda: db["results"].update_one({"_id": document_id}, {"$set": {"current": True}}))
        except DuplicateKeyError:
            return False
        return True

    def _keeps_waiting(self, patience_seconds: float) -> bool:
        """Whether a server that is away may still come back in time; measured from when it was first missed."""
        now = time.monotonic()
        if self._away_since is None:
            # The attempt that has just failed waited that long already.
            self._away_since = now - self.database.timeout_seconds
            logger.warning("the database server is away; waiting %.0f s for it to come back", patience_seconds)
        if now - self._away_since >= patience_seconds:
            return False
        time.sleep(min(1.0, patience_seconds))
        return True

    def _commit(self, claim: Claim, row: Row, large: dict[str, np.ndarray]) -> Row:
        """The stored row; repeating it with the same row changes nothing."""
        if large:
            self._claims.announce_blobs(claim, large)
            for sha, array in large.items():
                self._blobs.put(sha, array, claim.token)
        stored = self._add_attempt(row) if claim.forced else self._insert_if_absent(row)
        mine = stored["_id"] == row["_id"]
        if not mine:
            self._blobs.remove_orphans(large, by_token=claim.token)
        if not self._claims.forget(claim) and mine:
            for sha, array in large.items():
                self._blobs.repair(sha, array)
        return stored

    def _insert_if_absent(self, row: Row) -> Row:
        """The current document of the key after the insertion: ours, or one that settles the question."""
        db = self.database
        while True:
            current = db.call(lambda: db["results"].find_one({"key": row["key"], "current": True}))
            if current is not None and (current["_id"] == row["_id"] or not _is_pending(current)):
                return current
            new = row | {"attempt": self._next_attempt(row["key"]), "current": True}
            if current is not None:
                # Not one step with the insertion: a crash here leaves no current document, which is a pending one too.
                old = {"_id": current["_id"]}
                db.call(lambda: db["results"].update_one(old, {"$set": {"current": False}}))  # noqa: B023
            try:
                db.call(lambda: db["results"].insert_one(new))  # noqa: B023
            except DuplicateKeyError:
                continue  # somebody was faster, or our insertion was repeated: look again

    def _add_attempt(self, row: Row) -> Row:
        """Our document as a further attempt, the current one unless it failed and there is a result."""
        db = self.database
        while (found := db.call(lambda: db["results"].find_one({"_id": row["_id"]}))) is None:
            new = row | {"attempt": self._next_attempt(row["key"]), "current": False}
            try:
                db.call(lambda: db["results"].insert_one(new))  # noqa: B023
            except DuplicateKeyError:
                continue  # somebody was faster, or our insertion was repeated: look again
        while not found["current"]:
            current = db.call(lambda: db["results"].find_one({"key": row["key"], "current": True}))
            if current is not None and current["failure"] is None and row["failure"] is not None:
                break
            if current is not None:
                old = {"_id": current["_id"]}
                db.call(lambda: db["results"].update_one(old, {"$set": {"current": False}}))  # noqa: B023
            found["current"] = self._become_current(row["_id"])
        return found

    def _next_attempt(self, key: str) -> int:
        db = self.database
        last = db.call(lambda: db["results"].find_one({"key": key}, {"attempt": 1}, sort=[("attempt", -1)]))
        return last["attempt"] + 1 if last else 0

    def _claimant(self, key: str) -> str:
        db = self.database
        row = db.call(lambda: db["claims"].find_one({"_id": key}, {"process": 1}))
        return f"process {row['process']['pid']} on {row['process']['host']}" if row else "another process"


def _is_pending(row: Row) -> bool:
    return row["failure"] is not None and not row["failure"]["final"]
