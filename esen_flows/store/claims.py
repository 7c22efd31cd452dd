"""Claims: which process computes which result. They expire by the server's clock unless their process renews them."""

import uuid
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from pymongo import ReturnDocument, UpdateOne
from pymongo.errors import DuplicateKeyError

from esen_flows.store.database import Database, Row
from esen_flows.store.heartbeat import Heartbeat
from esen_flows.store.host import Host, ProcessId
from esen_flows.store.writing import duplicates_of

# The claims of a dead worker are free within a minute; a living worker may miss three renewals.
LIFETIME_SECONDS = 45.0
HEARTBEAT_SECONDS = 10.0


@dataclass
class Claim:
    """The right to compute one result; it ends with `commit` or `release`.

    Attributes
    ----------
    key
        Result key.
    token
        Random text that tells this claim from every other claim on the same key.
    inherited
        Content keys of arrays that earlier holders, which died, may have left.
    forced
        Whether the committed result becomes a further attempt even if a result is stored already.
    """

    key: str
    token: str
    inherited: tuple[str, ...] = ()
    forced: bool = False


@dataclass(frozen=True)
class ClaimOutcome:
    """Result of `Store.claim_many` for each of its keys.

    Attributes
    ----------
    claims
        Claims of the results that the caller has to compute; each ends with `commit` or `release`.
    settled
        Keys whose results are stored.
    leftovers
        Keys that other processes are computing; ask for them again later.
    """

    claims: tuple[Claim, ...]
    settled: tuple[str, ...]
    leftovers: tuple[str, ...]


class Claims:
    """The collection of claims, and the renewal of those that this process holds.

    A document holds `_id` (the result key), `token`, `tokens` (also those of dead predecessors, whose blob chunks may
    be left), `process`, `claimed_at`, `expires_at` and `blobs` (arrays, listed before they are written).

    Parameters
    ----------
    database
        Database of the claims.
    host
        This machine; None: as /proc shows it.
    lifetime_seconds
        Time in seconds after which a claim expires unless it is renewed.
    heartbeat_seconds
        Time in seconds between renewals.
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
        """Id of the process that renews the claims of this one; None before the first claim."""
        return self._heartbeat.pid

    def try_claim(self, key: str) -> Claim | None:
        """A claim, unless a living process has one.

        A claim of a process of this machine that has ended is taken over at once, without waiting until it expires.

        Parameters
        ----------
        key
            Result key.

        Returns
        -------
        Claim | None
            The claim; None if another process has one.
        """
        db = self._database
        token = uuid.uuid4().hex
        row = self._claim_if_expired(key, token)
        if row["token"] != token and self._holder_is_dead(row):
            query = {"_id": key, "token": row["token"]}
            ours = [{"$replaceWith": self._replacement(key, token)}]
            replaced = db.call(lambda: self._find_and_replace(query, ours, upsert=False))
            # A repeated operation no longer finds the old token, but it finds ours.
            row = replaced or db.call(lambda: db["claims"].find_one({"_id": key})) or row
        if row["token"] != token:
            return None
        self._renew_from_now([token])
        return Claim(key, token, tuple(row["blobs"]))

    def try_claim_many(self, keys: Sequence[str]) -> list[Claim]:
        """Claims on the keys that no living process has claimed, in two round trips for any number of keys.

        Parameters
        ----------
        keys
            Result keys.

        Returns
        -------
        list of Claim
            The claims, in no particular order.
        """
        db = self._database
        tokens = {key: uuid.uuid4().hex for key in keys}
        if not tokens:
            return []
        wanted = [UpdateOne({"_id": key}, self._if_expired(key, token), upsert=True) for key, token in tokens.items()]
        # A duplicate is a claim that another process inserted in the same moment, and that it keeps.
        db.call(lambda: duplicates_of(db["claims"].bulk_write, wanted))
        rows: list[Row] = db.call(lambda: list(db["claims"].find({"_id": {"$in": list(tokens)}})))
        ours = [row for row in rows if row["token"] == tokens[row["_id"]]]
        self._renew_from_now(row["token"] for row in ours)
        claims = [Claim(row["_id"], row["token"], tuple(row["blobs"])) for row in ours]
        dead = [row["_id"] for row in rows if row["token"] != tokens[row["_id"]] and self._holder_is_dead(row)]
        return claims + [claim for key in dead if (claim := self.try_claim(key)) is not None]

    def announce_blobs(self, claim: Claim, shas: Iterable[str]) -> None:
        """List in a claim which arrays are about to be written, and renew it.

        Parameters
        ----------
        claim
            A claim of this process.
        shas
            Content keys of the arrays.
        """
        db = self._database
        names = {"$literal": sorted(shas)}
        blobs = {"$setUnion": [{"$ifNull": ["$blobs", []]}, names]}
        renewal = [{"$set": {"blobs": blobs, "expires_at": self._expiry()}}]
        query = {"tokens": claim.token, "token": claim.token}  # the index is on `tokens`, which contains `token`
        if db.call(lambda: db["claims"].update_one(query, renewal)).matched_count:
            return
        # Another process took this one for dead and took its claim over. The result is computed and will be stored, so
        # its arrays are protected by a claim under a name of its own.
        entry = f"{claim.key}#{claim.token}"
        self._claim_if_expired(entry, claim.token)
        db.call(lambda: db["claims"].update_one({"_id": entry}, renewal))

    def forget(self, claim: Claim) -> bool:
        """Delete a claim.

        Parameters
        ----------
        claim
            A claim of this process.

        Returns
        -------
        bool
            False if another process had taken the claim over.
        """
        db = self._database
        self.stop_renewing([claim])
        if db.call(lambda: db["claims"].delete_one({"_id": claim.key, "token": claim.token})).deleted_count:
            return True
        db.call(lambda: db["claims"].delete_one({"_id": f"{claim.key}#{claim.token}", "token": claim.token}))
        return False

    def forget_many(self, claims: Sequence[Claim]) -> None:
        """Delete claims in one round trip.

        Parameters
        ----------
        claims
            Claims of this process.
        """
        db = self._database
        self.stop_renewing(claims)
        names = [name for claim in claims for name in (claim.key, f"{claim.key}#{claim.token}")]
        tokens = [claim.token for claim in claims]
        db.call(lambda: db["claims"].delete_many({"_id": {"$in": names}, "token": {"$in": tokens}}))

    def stop_renewing(self, claims: Iterable[Claim]) -> None:
        """Let claims expire by themselves.

        Parameters
        ----------
        claims
            Claims of this process.
        """
        self._heartbeat.drop(claim.token for claim in claims)

    def dead(self) -> list[str]:
        """Claims that have expired, or whose process on this machine has ended.

        Returns
        -------
        list of str
            Their ids, sorted.
        """
        db = self._database
        expired: list[dict[str, Any]] = [
            {"$match": {"$expr": {"$lt": ["$expires_at", "$$NOW"]}}},
            {"$project": {"_id": 1}},
        ]
        ids = {row["_id"] for row in db.call(lambda: list(db["claims"].aggregate(expired)))}
        here = self._host.process()
        local = {"process.host": here.host, "process.boot_id": here.boot_id}
        rows = db.call(lambda: list(db["claims"].find(local)))
        return sorted(ids | {row["_id"] for row in rows if self._holder_is_dead(row)})

    def close(self) -> None:
        """Stop renewing claims."""
        self._heartbeat.close()

    def _claim_if_expired(self, key: str, token: str) -> dict[str, Any]:
        """The claim on a key after an atomic attempt to get it."""
        db = self._database
        pipeline = self._if_expired(key, token)
        while True:
            try:
                return db.call(lambda: self._find_and_replace({"_id": key}, pipeline, upsert=True))
            except DuplicateKeyError:  # another process inserted the claim in the same moment; now it is found
                continue

    def _if_expired(self, key: str, token: str) -> list[dict[str, Any]]:
        free = {"$or": [{"$eq": [{"$type": "$expires_at"}, "missing"]}, {"$lt": ["$expires_at", "$$NOW"]}]}
        return [{"$replaceWith": {"$cond": [free, self._replacement(key, token), "$$ROOT"]}}]

    def _find_and_replace(self, query: dict[str, Any], pipeline: list[dict[str, Any]], upsert: bool) -> Any:
        return self._database["claims"].find_one_and_update(
            query, pipeline, upsert=upsert, return_document=ReturnDocument.AFTER
        )

    def _replacement(self, key: str, token: str) -> dict[str, Any]:
        """Replacement of a claim by ours, which keeps the list of what its earlier holders may have left."""
        return {
            "_id": {"$literal": key},
            "token": {"$literal": token},
            "tokens": {"$setUnion": [{"$ifNull": ["$tokens", []]}, [{"$literal": token}]]},
            "process": {"$literal": self._host.process().as_dict()},
            "claimed_at": "$$NOW",
            "expires_at": self._expiry(),
            "blobs": {"$ifNull": ["$blobs", []]},
        }

    def _expiry(self) -> dict[str, Any]:
        return {"$add": ["$$NOW", self._lifetime_ms]}

    def _holder_is_dead(self, row: dict[str, Any]) -> bool:
        return self._host.is_dead(ProcessId(**row["process"]))

    def _renew_from_now(self, tokens: Iterable[str]) -> None:
        db = self._database
        server = {"uri": db.uri, "options": db.client_options, "database": db.database_name}
        self._heartbeat.hold(tokens, server)


def holders(database: Database, host: Host | None = None) -> dict[str, bool]:
    """The processes that hold claims.

    Parameters
    ----------
    database
        Database of the claims.
    host
        This machine; None: as /proc shows it.

    Returns
    -------
    dict of str to bool
        For each process, as host:pid, whether it is alive as far as this machine can tell.
    """
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
