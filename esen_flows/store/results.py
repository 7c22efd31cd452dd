"""The store: results by key, each computed once, and structures by key."""

import time
from collections.abc import Collection, Iterable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from ase import Atoms
from bson import ObjectId

from esen_flows.errors import ClaimedElsewhereError, ServerUnavailableError
from esen_flows.schemas.documents import ResultDocument
from esen_flows.store.attempts import SETTLED, add_attempt, insert_if_absent, make_current
from esen_flows.store.blobs import BlobStore
from esen_flows.store.claims import Claim, ClaimOutcome, Claims
from esen_flows.store.database import Database, Row
from esen_flows.store.migrations import upgraded
from esen_flows.store.models import note_models
from esen_flows.store.reading import find_all, find_one
from esen_flows.store.rows import atoms_of_row, document_of, packed, structure_update
from esen_flows.store.spool_fallback import Spool, SpoolFallback
from esen_flows.store.writing import upsert


class Store:
    """Results and structures in a MongoDB database; open it with `open_store`.

    Parameters
    ----------
    database
        Open database.
    claims
        Claims of this process; None: a new collection of claims with the default times.
    spool_fallback
        Where results go while the server is away; None: nowhere, so that an outage is an error.

    Attributes
    ----------
    closed
        Whether the store was closed.
    fallback
        Decides when results go into the spool.
    """

    def __init__(self, database: Database, claims: Claims | None = None, spool_fallback: Spool | None = None) -> None:
        self._database = database
        self.closed = False
        self._claims = claims or Claims(database)
        self._blobs = BlobStore(database)
        self.fallback = SpoolFallback(spool_fallback, database)
        self._noted_models: set[tuple[str, str]] = set()

    @property
    def database(self) -> Database:
        """The database of the store."""
        return self._database

    def get(self, key: str, load_arrays: bool = True) -> ResultDocument | None:
        """The current result of a key, finished or failed.

        Parameters
        ----------
        key
            Result key.
        load_arrays
            Whether arrays over 256 kB are loaded; if not, a BlobReference stands in place of each.

        Returns
        -------
        ResultDocument | None
            The result; None if there is none.

        Raises
        ------
        StoreError
            An array is missing or damaged, or a newer version of this package wrote the document.
        """
        row = find_one(self.database, "results", {"key": key, "current": True})
        return None if row is None else self.read(row, load_arrays)

    def get_or_claim(self, key: str, wait_seconds: float = 600.0, force: bool = False) -> ResultDocument | Claim:
        """The result of a key, or else the right and duty to compute it.

        A failure that is not final counts as missing. This waits while another living process computes the result.

        Parameters
        ----------
        key
            Result key.
        wait_seconds
            Time in seconds to wait for the result of another process.
        force
            Whether the result is computed again even if it is stored. What is committed then becomes a further attempt
            and the current one, except that a failure never takes the place of a finished result.

        Returns
        -------
        ResultDocument | Claim
            The stored result, or a claim that ends with `commit` or `release`.

        Raises
        ------
        ClaimedElsewhereError
            Another process still computes the result after that time.
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
                # The last holder may have finished after the first query and before the claim.
                result = None if force else self._settled(key)
                if result is None:
                    return replace(claim, forced=force)
                self._claims.forget(claim)
                return result
            left = deadline - time.monotonic()
            if left <= 0:
                raise ClaimedElsewhereError(
                    f"result {key} is being computed by {self._holder(key)} and was not there after "
                    f"{wait_seconds:.0f} s; ask again later"
                )
            time.sleep(min(pause, left))
            pause = min(2 * pause, 2.0)

    def claim_many(self, keys: Iterable[str]) -> ClaimOutcome:
        """Claims on results that are missing and that no other process computes; never waits.

        Parameters
        ----------
        keys
            Result keys; repeated keys count once. A failure that is not final counts as missing.

        Returns
        -------
        ClaimOutcome
            Each key in one of three groups.
        """
        wanted = list(dict.fromkeys(keys))
        settled = self._settled_among(wanted)
        claims = self._claims.try_claim_many([key for key in wanted if key not in settled])
        self._clear_after_predecessors(claims)
        late = self._settled_among([claim.key for claim in claims])  # finished between the query and the claim
        self.release_many([claim for claim in claims if claim.key in late])
        ours = tuple(claim for claim in claims if claim.key not in late)
        known = settled | late | {claim.key for claim in ours}
        return ClaimOutcome(
            claims=ours,
            settled=tuple(key for key in wanted if key in settled or key in late),
            leftovers=tuple(key for key in wanted if key not in known),
        )

    def commit(self, claim: Claim, document: ResultDocument, *, document_id: ObjectId | None = None) -> ResultDocument:
        """Store a result unless the key is settled, and end the claim.

        While the server is away this waits, then keeps the result in the spool, which `esen-flows db ingest` merges.

        Parameters
        ----------
        claim
            Claim from `get_or_claim` or `claim_many`.
        document
            Finished or failed result; the store sets its `attempt` and `current`.
        document_id
            Id of a document from the spool, so that it is stored once however often it is merged.

        Returns
        -------
        ResultDocument
            The result that is stored now.

        Raises
        ------
        StoreError
            The document is not the claimed result, or holds something that cannot be stored. The claim does not end.
        ServerUnavailableError
            The server stays away and this store has no spool.
        """
        row, large = packed(claim, document)
        if document_id is not None:
            row["_id"] = document_id
        while True:
            try:
                self.note_models([(document.model_key, document.model_label)])
                stored = self._commit(claim, row, large)
                self.fallback.server_answered()
                return self.read(stored)
            except ServerUnavailableError as error:
                if self.fallback.gives_up_waiting(error):
                    self.spool([(claim, row, large)])
                    return document.model_copy(update={"created_at": row["created_at"]})

    def spool(self, results: Sequence[tuple[Claim, Row, dict[str, np.ndarray]]]) -> None:
        """Keep packed results in the spool and let their claims expire.

        Parameters
        ----------
        results
            Claim, packed result and large arrays of each.
        """
        self.fallback.keep([(row, large, claim.forced) for claim, row, large in results])
        self._claims.stop_renewing([claim for claim, *_ in results])

    def release(self, claim: Claim) -> None:
        """Give a claim back without a result, so that the next process that asks computes it.

        Parameters
        ----------
        claim
            Claim of this process.
        """
        self.release_many([claim])

    def release_many(self, claims: Sequence[Claim]) -> None:
        """Give claims back without results; while the server is away they expire by themselves.

        Parameters
        ----------
        claims
            Claims of this process.
        """
        if not claims:
            return
        try:
            self._claims.forget_many(claims)
        except ServerUnavailableError:
            return  # claims are released after an error, which is about to be reported and matters more

    def end_claims(self, claims: Sequence[Claim]) -> None:
        """Delete claims whose results are stored.

        Parameters
        ----------
        claims
            Claims of this process.
        """
        self._claims.forget_many(claims)
        self.fallback.server_answered()

    def sweep(self) -> int:
        """Remove the claims of dead processes, and the arrays that these left and that no document names.

        Returns
        -------
        int
            Number of claims removed.
        """
        swept = 0
        for claim_id in self._claims.dead():
            claim = self._claims.try_claim(claim_id)
            if claim is not None:
                self._clear_after_predecessors([claim])
                self._claims.forget(claim)
                swept += 1
        return swept

    def put_structure(self, atoms: Atoms, **identity: Any) -> str:
        """Store a structure once, under its key.

        Parameters
        ----------
        atoms
            The structure; charge and spin are read from `atoms.info`.
        identity
            formula, chemsys, elements, nsites, space_group_number, space_group_symbol, which are computed unless they
            are given; material_ids and tags, which are added to those already stored.

        Returns
        -------
        str
            Key of the structure.

        Raises
        ------
        InputError
            A field of `identity` is unknown.
        """
        key, update = structure_update(atoms, identity)
        upsert(self.database, "structures", [(key, update)])
        return key

    def note_models(self, named: Iterable[tuple[str, str]]) -> None:
        """Store force fields by key and label; the server is asked once per process for each.

        Parameters
        ----------
        named
            Model keys and labels.
        """
        new = set(named) - self._noted_models
        if new:
            note_models(self.database, new)
            self._noted_models |= new

    def get_structure(self, key: str) -> Atoms | None:
        """The structure of a key.

        Parameters
        ----------
        key
            Structure key.

        Returns
        -------
        Atoms | None
            The structure, with charge and spin in `info` where they are not 0; None if it is not stored.
        """
        row = find_one(self.database, "structures", {"_id": key})
        return None if row is None else atoms_of_row(upgraded("structures", row))

    def read(self, row: Row, load_arrays: bool = True) -> ResultDocument:
        """A document of the `results` collection, checked.

        Parameters
        ----------
        row
            Document as the database returns it.
        load_arrays
            Whether arrays over 256 kB are loaded; if not, a BlobReference stands in place of each.

        Returns
        -------
        ResultDocument
            The result.

        Raises
        ------
        StoreError
            A newer version of this package wrote the document, or it is damaged.
        """
        return document_of(row, self._blobs.get if load_arrays else None)

    def close(self) -> None:
        """Disconnect; the private server stops when nobody else uses it."""
        self.closed = True
        self._claims.close()
        self.database.close()

    def _settled(self, key: str) -> ResultDocument | None:
        """The current result, if computing it again would not change it."""
        result = self.get(key)
        pending = result is not None and result.failure is not None and not result.failure.final
        return None if pending else result

    def _settled_among(self, keys: Collection[str]) -> set[str]:
        db = self.database
        query = {"key": {"$in": list(keys)}, "current": True, **SETTLED}
        return set(db.call(lambda: db["results"].distinct("key", query))) if keys else set()

    def _clear_after_predecessors(self, claims: Sequence[Claim]) -> None:
        """Remove arrays that dead holders of these claims left, and repair keys that have no current result."""
        for claim in claims:
            self._blobs.remove_orphans(claim.inherited, by_token=claim.token)
        db = self.database
        # A forced attempt takes the place of a result in two steps; a kill between them leaves no current one.
        query = {"key": {"$in": [claim.key for claim in claims]}, "current": False, **SETTLED}
        rows = find_all(db, "results", query, {"key": 1}, sort=[("attempt", 1)])
        for document_id in {row["key"]: row["_id"] for row in rows}.values():
            make_current(db, document_id)

    def _commit(self, claim: Claim, row: Row, large: dict[str, np.ndarray]) -> Row:
        """The stored row; repeating this with the same row changes nothing."""
        if large:
            self._claims.announce_blobs(claim, large)
            for sha, array in large.items():
                self._blobs.put(sha, array, claim.token)
        stored = (add_attempt if claim.forced else insert_if_absent)(self.database, row)
        ours = stored["_id"] == row["_id"]
        if not ours:
            self._blobs.remove_orphans(large, by_token=claim.token)
        if not self._claims.forget(claim) and ours:
            # Another process considered this one dead and may have removed the arrays before the document named them.
            for sha, array in large.items():
                self._blobs.repair(sha, array)
        return stored

    def _holder(self, key: str) -> str:
        row = find_one(self.database, "claims", {"_id": key}, {"process": 1})
        return f"process {row['process']['pid']} on {row['process']['host']}" if row else "another process"
