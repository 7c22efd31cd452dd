"""Who computes what: claims that expire by the server's clock, and the heartbeat that renews them."""

import threading
import uuid
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from pymongo import ReturnDocument
from pymongo.errors import DuplicateKeyError

from esen_flows.errors import EsenFlowsError
from esen_flows.store.database import Database
from esen_flows.store.host import Host, ProcessId

LIFETIME_SECONDS = 120.0
HEARTBEAT_SECONDS = 20.0


@dataclass
class Claim:
    """The right to compute one result. Hand it to `commit` or `release`.

    Attributes
    ----------
    key : result key.
    token : nobody else's.
    inherited : blobs that a dead predecessor may have left.
    """

    key: str
    token: str
    inherited: tuple[str, ...] = ()


class Claims:
    """The collection of claims, and this process's own ones kept alive.

    A document holds `_id` (the result key), `token`, `tokens` (with those of dead predecessors, whose blob chunks may
    lie about), `process`, `expires_at`, `blobs` (named before they are written).
    """

    def __init__(
        self,
        database: Database,
        host: Host | None = None,
        lifetime_seconds: float = LIFETIME_SECONDS,
        heartbeat_seconds: float = HEARTBEAT_SECONDS,
    ) -> None:
        self._database = database
        self._host = host or Host()
        self._lifetime_ms = int(lifetime_seconds * 1000)
        self._heartbeat_seconds = heartbeat_seconds
        self._held: set[str] = set()
        self._lock = threading.Lock()
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None

    def try_claim(self, key: str) -> Claim | None:
        """A claim, if nobody alive has one; dead processes of this machine are recognised at once."""
        db = self._database
        token = uuid.uuid4().hex
        row = self._claim_if_expired(key, token)
        if row["token"] != token and self._claimant_is_dead(row):
            query = {"_id": key, "token": row["token"]}
            taken = db.call(lambda: self._find_and_replace(query, [self._mine(key, token)], upsert=False))
            # A repeated operation no longer finds the old token, but finds ours.
            row = taken or db.call(lambda: db["claims"].find_one({"_id": key})) or row
        if row["token"] != token:
            return None
        self._hold(token)
        return Claim(key, token, tuple(row["blobs"]))

    def announce_blobs(self, claim: Claim, shas: Iterable[str]) -> None:
        """Write down which blobs are about to be written, and renew the claim."""
        db = self._database
        names = {"$literal": sorted(shas)}
        blobs = {"$setUnion": [{"$ifNull": ["$blobs", []]}, names]}
        renewal = [{"$set": {"blobs": blobs, "expires_at": self._expiry()}}]
        if db.call(lambda: db["claims"].update_one({"token": claim.token}, renewal)).matched_count:
            return
        # Lost to somebody who took us for dead: the work is done, so it is kept, under an entry of its own.
        entry = f"{claim.key}#{claim.token}"
        self._claim_if_expired(entry, claim.token)
        db.call(lambda: db["claims"].update_one({"_id": entry}, renewal))

    def forget(self, claim: Claim) -> bool:
        """Delete the claim; False if somebody had taken it over."""
        db = self._database
        with self._lock:
            self._held.discard(claim.token)
        if db.call(lambda: db["claims"].delete_one({"_id": claim.key, "token": claim.token})).deleted_count:
            return True
        db.call(lambda: db["claims"].delete_one({"_id": f"{claim.key}#{claim.token}", "token": claim.token}))
        return False

    def dead(self) -> list[str]:
        """Ids of claims that are expired, or whose process on this machine has ended."""
        db = self._database
        expired: list[dict[str, Any]] = [
            {"$match": {"$expr": {"$lt": ["$expires_at", "$$NOW"]}}},
            {"$project": {"_id": 1}},
        ]
        ids = {row["_id"] for row in db.call(lambda: list(db["claims"].aggregate(expired)))}
        here = self._host.process()
        local = {"process.host": here.host, "process.boot_id": here.boot_id}
        rows = db.call(lambda: list(db["claims"].find(local)))
        return sorted(ids | {row["_id"] for row in rows if self._claimant_is_dead(row)})

    def close(self) -> None:
        """Stop the heartbeat."""
        self._stop.set()
        if self._thread is not None:
            self._thread.join(timeout=5.0)

    def _claim_if_expired(self, key: str, token: str) -> dict[str, Any]:
        """The claim on a key after an atomic attempt to have it."""
        db = self._database
        free = {"$or": [{"$eq": [{"$type": "$expires_at"}, "missing"]}, {"$lt": ["$expires_at", "$$NOW"]}]}
        ours = self._mine(key, token)["$replaceWith"]
        pipeline = [{"$replaceWith": {"$cond": [free, ours, "$$ROOT"]}}]
        while True:
            try:
                return db.call(lambda: self._find_and_replace({"_id": key}, pipeline, upsert=True))
            except DuplicateKeyError:  # another upsert won between look and insert; next time it is found
                continue

    def _find_and_replace(self, query: dict[str, Any], pipeline: list[dict[str, Any]], upsert: bool) -> Any:
        return self._database["claims"].find_one_and_update(
            query, pipeline, upsert=upsert, return_document=ReturnDocument.AFTER
        )

    def _mine(self, key: str, token: str) -> dict[str, Any]:
        """Replacement of a claim by ours; what its predecessors may have left stays written down."""
        return {
            "$replaceWith": {
                "_id": {"$literal": key},
                "token": {"$literal": token},
                "tokens": {"$setUnion": [{"$ifNull": ["$tokens", []]}, [{"$literal": token}]]},
                "process": {"$literal": self._host.process().as_dict()},
                "claimed_at": "$$NOW",
                "expires_at": self._expiry(),
                "blobs": {"$ifNull": ["$blobs", []]},
            }
        }

    def _expiry(self) -> dict[str, Any]:
        return {"$add": ["$$NOW", self._lifetime_ms]}

    def _claimant_is_dead(self, row: dict[str, Any]) -> bool:
        return self._host.is_dead(ProcessId(**row["process"]))

    def _hold(self, token: str) -> None:
        with self._lock:
            self._held.add(token)
            if self._thread is None:
                self._thread = threading.Thread(target=self._beat, name="esen_flows claims", daemon=True)
                self._thread.start()

    def _beat(self) -> None:
        db = self._database
        while not self._stop.wait(self._heartbeat_seconds):
            with self._lock:
                tokens = sorted(self._held)
            if not tokens:
                continue
            renewal = [{"$set": {"expires_at": self._expiry()}}]
            try:
                db.call(lambda: db["claims"].update_many({"token": {"$in": tokens}}, renewal))  # noqa: B023
            except EsenFlowsError:
                continue  # a lost beat is what the lifetime allows for; whoever uses the store next reports it
