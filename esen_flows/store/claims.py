"""Claims: which process computes which result. They expire by the server's clock unless their process renews them."""

import uuid
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from esen_flows.store.database import Database, Row
from esen_flows.store.heartbeat import Heartbeat
from esen_flows.store.host import Host, ProcessId
from esen_flows.store.reading import find_all, find_one
from esen_flows.store.writing import upsert

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
        claims = self.try_claim_many([key])
        return claims[0] if claims else None

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
        upsert(db, "claims", [(key, self._if_expired(key, token)) for key, token in tokens.items()])
        claims = []
        for row in find_all(db, "claims", {"_id": {"$in": list(tokens)}}):
            token = tokens[row["_id"]]
            found = self._taken_over(row, token) if row["token"] != token and self._holder_is_dead(row) else row
            if found["token"] == token:
                claims.append(Claim(found["_id"], token, tuple(found["blobs"])))
        if claims:
            server = {"uri": db.uri, "options": db.client_options, "database": db.database_name}
            self._heartbeat.hold([claim.token for claim in claims], server)
        return claims

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
        # Another process considered this one dead and took its claim over. The result will be stored all the same, so
        # its arrays are protected by a claim under a name of its own.
        entry = f"{claim.key}#{claim.token}"
        upsert(db, "claims", [(entry, self._if_expired(entry, claim.token))])
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
        expired = find_all(db, "claims", {"$expr": {"$lt": ["$expires_at", "$$NOW"]}}, {"_id": 1})
        here = self._host.process()
        local = find_all(db, "claims", {"process.host": here.host, "process.boot_id": here.boot_id})
        return sorted({row["_id"] for row in (*expired, *filter(self._holder_is_dead, local))})

    def close(self) -> None:
        """Stop renewing claims."""
        self._heartbeat.close()

    def _if_expired(self, key: str, token: str) -> list[Row]:
        """Update that replaces a claim by ours if it is missing or has expired, in one atomic operation."""
        free = {"$or": [{"$eq": [{"$type": "$expires_at"}, "missing"]}, {"$lt": ["$expires_at", "$$NOW"]}]}
        return [{"$replaceWith": {"$cond": [free, self._replacement(key, token), "$$ROOT"]}}]

    def _taken_over(self, row: Row, token: str) -> Row:
        """The claim after an attempt to replace that of a dead process, which another process may have done before."""
        db, key = self._database, row["_id"]
        ours = [{"$replaceWith": self._replacement(key, token)}]
        # A repeated operation no longer finds the old token, but the second query finds ours.
        db.call(lambda: db["claims"].update_one({"_id": key, "token": row["token"]}, ours))
        return find_one(db, "claims", {"_id": key}) or row

    def _replacement(self, key: str, token: str) -> Row:
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

    def _expiry(self) -> Row:
        return {"$add": ["$$NOW", self._lifetime_ms]}

    def _holder_is_dead(self, row: Row) -> bool:
        return self._host.is_dead(ProcessId(**row["process"]))


def holders(database: Database) -> dict[str, bool]:
    """The processes that hold claims.

    Parameters
    ----------
    database
        Database of the claims.

    Returns
    -------
    dict of str to bool
        For each process, as host:pid, whether it is alive as far as this machine can tell.
    """
    here, found = Host(), dict[str, bool]()
    pipeline: list[Row] = [
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
    pipeline: list[Row] = [
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
    return [row["_id"] for row in find_all(database, "claims", query) if ProcessId(**row["process"]) == process]


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
