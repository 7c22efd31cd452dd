"""Who computes what: claims that expire by the server's clock and are renewed while their process lives."""

import uuid
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from pymongo import ReturnDocument, UpdateOne
from pymongo.errors import BulkWriteError, DuplicateKeyError

from esen_flows.store.database import Database, Row
from esen_flows.store.heartbeat import Heartbeat
from esen_flows.store.host import Host, ProcessId

# A dead worker is found within a minute; a live one may miss three beats.
LIFETIME_SECONDS = 45.0
HEARTBEAT_SECONDS = 10.0


@dataclass
class Claim:
    """The right to compute one result. Hand it to `commit` or `release`.

    Attributes
    ----------
    key
        result key.
    token
        nobody else's.
    inherited
        blobs that a dead predecessor may have left.
    forced
        what is committed becomes a further attempt, whatever is there.
    """

    key: str
    token: str
    inherited: tuple[str, ...] = ()
    forced: bool = False


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
        self._heartbeat = Heartbeat(self._lifetime_ms, heartbeat_seconds)

    @property
    def heartbeat_pid(self) -> int | None:
        """The process that renews this one's claims; None before the first one."""
        return self._heartbeat.pid

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
        self._hold([token])
        return Claim(key, token, tuple(row["blobs"]))

    def try_claim_many(self, keys: Sequence[str]) -> list[Claim]:
        """Claims on those of these keys that nobody alive has, in two round trips however many they are."""
        db = self._database
        tokens = {key: uuid.uuid4().hex for key in keys}
        if not tokens:
            return []
        wanted = [UpdateOne({"_id": key}, self._if_expired(key, token), upsert=True) for key, token in tokens.items()]
        db.call(lambda: _ignoring_races(lambda: db["claims"].bulk_write(wanted, ordered=False)))
        rows: list[Row] = db.call(lambda: list(db["claims"].find({"_id": {"$in": list(tokens)}})))
        ours = [row for row in rows if row["token"] == tokens[row["_id"]]]
        self._hold(row["token"] for row in ours)
        claims = [Claim(row["_id"], row["token"], tuple(row["blobs"])) for row in ours]
        dead = [row["_id"] for row in rows if row["token"] != tokens[row["_id"]] and self._claimant_is_dead(row)]
        claims += [claim for key in dead if (claim := self.try_claim(key)) is not None]
        return claims

    def announce_blobs(self, claim: Claim, shas: Iterable[str]) -> None:
        """Write down which blobs are about to be written, and renew the claim."""
        db = self._database
        names = {"$literal": sorted(shas)}
        blobs = {"$setUnion": [{"$ifNull": ["$blobs", []]}, names]}
        renewal = [{"$set": {"blobs": blobs, "expires_at": self._expiry()}}]
        query = {"tokens": claim.token, "token": claim.token}  # the index is on `tokens`, which holds `token` too
        if db.call(lambda: db["claims"].update_one(query, renewal)).matched_count:
            return
        # Lost to somebody who took us for dead: the work is done, so it is kept, under an entry of its own.
        entry = f"{claim.key}#{claim.token}"
        self._claim_if_expired(entry, claim.token)
        db.call(lambda: db["claims"].update_one({"_id": entry}, renewal))

    def forget(self, claim: Claim) -> bool:
        """Delete the claim; False if somebody had taken it over."""
        db = self._database
        self.let_go([claim])
        if db.call(lambda: db["claims"].delete_one({"_id": claim.key, "token": claim.token})).deleted_count:
            return True
        db.call(lambda: db["claims"].delete_one({"_id": f"{claim.key}#{claim.token}", "token": claim.token}))
        return False

    def forget_many(self, claims: Sequence[Claim]) -> None:
        """Delete claims in one round trip."""
        db = self._database
        self.let_go(claims)
        names = [name for claim in claims for name in (claim.key, f"{claim.key}#{claim.token}")]
        tokens = [claim.token for claim in claims]
        db.call(lambda: db["claims"].delete_many({"_id": {"$in": names}, "token": {"$in": tokens}}))

    def let_go(self, claims: Iterable[Claim]) -> None:
        """Renew claims no more; they expire by themselves."""
        self._heartbeat.drop(claim.token for claim in claims)

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
        self._heartbeat.close()

    def _claim_if_expired(self, key: str, token: str) -> dict[str, Any]:
        """The claim on a key after an atomic attempt to have it."""
        db = self._database
        pipeline = self._if_expired(key, token)
        while True:
            try:
                return db.call(lambda: self._find_and_replace({"_id": key}, pipeline, upsert=True))
            except DuplicateKeyError:  # another upsert won between look and insert; next time it is found
                continue

    def _if_expired(self, key: str, token: str) -> list[dict[str, Any]]:
        free = {"$or": [{"$eq": [{"$type": "$expires_at"}, "missing"]}, {"$lt": ["$expires_at", "$$NOW"]}]}
        return [{"$replaceWith": {"$cond": [free, self._mine(key, token)["$replaceWith"], "$$ROOT"]}}]

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

    def _hold(self, tokens: Iterable[str]) -> None:
        db = self._database
        server = {"uri": db.uri, "options": db.client_options, "database": db.database_name}
        self._heartbeat.hold(tokens, server)


def holders(database: Database, host: Host | None = None) -> dict[str, bool]:
    """The processes that hold claims, as host:pid, and whether they live, as far as one can see from here."""
    here, found = host or Host(), dict[str, bool]()
    pipeline: list[dict[str, Any]] = [
        {"$group": {"_id": "$process", "expires_at": {"$max": "$expires_at"}}},
        {"$project": {"renewed": {"$gt": ["$expires_at", "$$NOW"]}}},
    ]
    for row in database.call(lambda: list(database["claims"].aggregate(pipeline))):
        process = ProcessId(**row["_id"])
        name = f"{process.host}:{process.pid}"
        found[name] = found.get(name, False) or (row["renewed"] and not here.is_dead(process))
    return found


def claims_on(database: Database, keys: Sequence[str]) -> dict[str, Row]:
    """Claims on some keys, dead ones included.

    Parameters
    ----------
    database
        Database of the claims.
    keys
        Keys of results, or of other things that are claimed.

    Returns
    -------
    dict[str, Row]
        The claims by key; `expired` of each says whether it is past its end by the server's clock.
    """
    pipeline: list[dict[str, Any]] = [
        {"$match": {"_id": {"$in": list(keys)}}},
        {"$set": {"expired": {"$lt": ["$expires_at", "$$NOW"]}}},
    ]
    return {row["_id"]: row for row in database.call(lambda: list(database["claims"].aggregate(pipeline)))}


def claims_of_process(database: Database, process: ProcessId, prefix: str) -> list[str]:
    """Keys that a process has claimed.

    Parameters
    ----------
    database
        Database of the claims.
    process
        The process, which may have ended.
    prefix
        Beginning of the keys, without characters that have a meaning in regular expressions.

    Returns
    -------
    list[str]
        The keys.
    """
    query = {"_id": {"$regex": f"^{prefix}"}, "process.pid": process.pid}
    rows = database.call(lambda: list(database["claims"].find(query)))
    return [row["_id"] for row in rows if ProcessId(**row["process"]) == process]


def delete_claim(database: Database, key: str, token: str) -> None:
    """Delete the claim of another process, unless a third one has taken it over.

    Parameters
    ----------
    database
        Database of the claims.
    key
        Key that is claimed.
    token
        Token of the claim.
    """
    database.call(lambda: database["claims"].delete_one({"_id": key, "token": token}))


def _ignoring_races(write: Callable[[], object]) -> None:
    """Carry out a bulk of upserts; one that another process won between look and insert is that process's."""
    try:
        write()
    except BulkWriteError as error:
        if any(fault["code"] != 11000 for fault in error.details["writeErrors"]):
            raise
