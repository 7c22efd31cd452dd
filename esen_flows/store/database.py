"""The database: its indexes, and a connection that outlives a killed server."""

import re
import time
import warnings
from collections.abc import Callable
from typing import Any, TypeVar
from urllib.parse import unquote

from pymongo import ASCENDING, DESCENDING, IndexModel, MongoClient
from pymongo.collection import Collection
from pymongo.errors import (
    AutoReconnect,
    BulkWriteError,
    ConfigurationError,
    DuplicateKeyError,
    InvalidURI,
    OperationFailure,
    PyMongoError,
)

from esen_flows.errors import InputError, ServerUnavailableError, StoreError
from esen_flows.settings import Settings
from esen_flows.store.server.embedded import EmbeddedServer, Lease

T = TypeVar("T")
Row = dict[str, Any]
_DUPLICATE = 11000

INDEXES: dict[str, list[IndexModel]] = {
    "results": [
        IndexModel("key", name="one_current", unique=True, partialFilterExpression={"current": True}),
        IndexModel([("key", ASCENDING), ("attempt", ASCENDING)], name="key_attempt", unique=True),
        IndexModel([("kind", ASCENDING), ("chemsys", ASCENDING)], name="kind_chemsys"),
        IndexModel([("kind", ASCENDING), ("formula", ASCENDING)], name="kind_formula"),
        # Newest first within an element: of the many oxides a list needs the latest alone.
        IndexModel(
            [("kind", ASCENDING), ("elements", ASCENDING), ("created_at", DESCENDING), ("_id", DESCENDING)],
            name="kind_elements_created",
        ),
        IndexModel([("kind", ASCENDING), ("space_group_number", ASCENDING)], name="kind_space_group"),
        IndexModel([("kind", ASCENDING), ("model_label", ASCENDING)], name="kind_model"),
        IndexModel([("kind", ASCENDING), ("nsites", ASCENDING)], name="kind_nsites"),
        IndexModel([("kind", ASCENDING), ("tags", ASCENDING)], name="kind_tags"),
        # Newest first, the order of every list, without a sort.
        IndexModel(
            [("kind", ASCENDING), ("state", ASCENDING), ("created_at", DESCENDING), ("_id", DESCENDING)],
            name="kind_state_created",
        ),
        IndexModel("summary.$**", name="summary"),  # whichever value a condition or an order names
        IndexModel("model_key", name="model"),
        IndexModel("structure_key", name="structure"),
        IndexModel("blobs", name="blobs"),
    ],
    "structures": [
        IndexModel("chemsys", name="chemsys"),
        IndexModel("formula", name="formula"),
        IndexModel([("elements", ASCENDING), ("created_at", DESCENDING), ("_id", DESCENDING)], name="elements_created"),
        IndexModel("space_group_number", name="space_group"),
        IndexModel("nsites", name="nsites"),
        IndexModel("tags", name="tags"),
        IndexModel([("created_at", DESCENDING), ("_id", DESCENDING)], name="created"),
    ],
    "datasets": [
        IndexModel("names", name="names"),
        IndexModel("elements", name="elements"),
        IndexModel([("created_at", DESCENDING), ("_id", DESCENDING)], name="created"),
        IndexModel("blobs", name="blobs"),
    ],
    "claims": [
        IndexModel("tokens", name="tokens"),
        IndexModel("blobs", name="blobs"),
    ],
    "campaign_members": [
        IndexModel([("campaign", ASCENDING), ("key", ASCENDING)], name="campaign_key", unique=True),
        # Covers the status of a campaign: nothing else is read.
        IndexModel(
            [(name, ASCENDING) for name in ("campaign", "state", "failure", "model_label", "cost", "seconds", "value")],
            name="status",
        ),
        IndexModel([("campaign", ASCENDING), ("chunk", ASCENDING), ("state", ASCENDING)], name="campaign_chunk"),
    ],
    "unfinished": [IndexModel("updated_at", name="forgotten", expireAfterSeconds=30 * 24 * 3600)],
    "campaign_runs": [IndexModel([("campaign", ASCENDING), ("chunk", ASCENDING)], name="campaign_chunk")],
    "blob_chunks": [IndexModel([("sha", ASCENDING), ("write", ASCENDING), ("n", ASCENDING)], name="sha_write_n")],
}


class Database:
    """A database whose operations are repeated while a killed server comes back.

    Operations may therefore run twice; the store uses only those for which that makes no difference.
    """

    def __init__(self, uri: str, database: str, timeout_seconds: float, lease: Lease | None = None) -> None:
        self.database_name = database
        self.timeout_seconds = timeout_seconds
        self.lease = lease
        self._uri = uri
        self._client = self._new_client(uri)

    @property
    def uri(self) -> str:
        """For other libraries; it may hold a password, so it is never printed or stored."""
        return self._uri

    @property
    def client_options(self) -> dict[str, Any]:
        """Every acknowledged write is in the journal; without that a killed server loses the last ones."""
        # The private server answers or is brought back by us; waiting long for it helps nobody.
        wait = min(self.timeout_seconds, 1.0) if self.lease else self.timeout_seconds
        options: dict[str, Any] = {"journal": True, "serverSelectionTimeoutMS": max(1, int(wait * 1000))}
        if not re.search(r"[?&]w=", self._uri):
            options["w"] = "majority"
        return options

    def __getitem__(self, collection: str) -> Collection[Row]:
        return self._client[self.database_name][collection]

    def call(self, operation: Callable[[], T]) -> T:
        """What `operation` returns, however often the server is killed meanwhile.

        Raises
        ------
        ServerUnavailableError
            the server stays away for longer than `server_timeout_seconds`.
        StoreError
            the server refuses.
        DuplicateKeyError
            passed on; it is an answer.
        """
        deadline = time.monotonic() + self.timeout_seconds
        while True:
            try:
                return operation()
            except DuplicateKeyError:
                raise
            except AutoReconnect as error:
                if time.monotonic() > deadline:
                    raise ServerUnavailableError(
                        f"the database server does not answer ({self._redacted(_reason(error))}); check that it runs "
                        "and that ESEN_FLOWS_MONGO_URI names it"
                    ) from None
                self._revive()
                time.sleep(0.05)
            except OperationFailure as error:
                raise StoreError(self._refusal(error)) from None
            except PyMongoError as error:
                raise StoreError(f"the database operation failed: {self._redacted(str(error))[:500]}") from None

    def make_indexes(self) -> None:
        """Make the indexes that are missing."""
        for name, models in INDEXES.items():
            self.call(lambda name=name, models=models: self[name].create_indexes(models))  # type: ignore[misc]

    def collection_names(self) -> list[str]:
        """Names of the collections that exist, in alphabetical order."""
        names = self.call(lambda: self._client[self.database_name].list_collection_names())
        return sorted(name for name in names if not name.startswith("system."))

    def drop(self) -> None:
        """Delete the whole database, with all results."""
        self.call(lambda: self._client.drop_database(self.database_name))

    def close(self) -> None:
        """Disconnect, and let the private server go idle."""
        self._client.close()
        if self.lease is not None:
            self.lease.close()

    def _new_client(self, uri: str) -> "MongoClient[Row]":
        try:
            # The driver only warns of an option that it cannot read, and would connect without TLS.
            with warnings.catch_warnings():
                warnings.simplefilter("error", UserWarning)
                return MongoClient(uri, tz_aware=True, **self.client_options)
        except OSError as error:
            raise StoreError(
                f"a TLS file that ESEN_FLOWS_MONGO_URI names cannot be used: {error.filename or 'its content'} "
                f"({error.strerror}); correct tlsCAFile or tlsCertificateKeyFile"
            ) from None
        except (InvalidURI, ConfigurationError, UserWarning, ValueError):
            # The driver's own words may quote the password.
            raise StoreError(
                "ESEN_FLOWS_MONGO_URI is not a valid MongoDB URI (not shown, it may hold a password); write "
                "mongodb://user:password@host:port/?options, escape special characters of the password as %XX and "
                "check the names and values of the options"
            ) from None

    def _revive(self) -> None:
        if self.lease is None:
            return
        self.lease.ensure()
        if self.lease.uri != self._uri:
            self._client.close()
            self._uri = self.lease.uri
            self._client = self._new_client(self._uri)

    def _refusal(self, error: OperationFailure) -> str:
        if error.code == 18:
            return "the database server refuses the credentials of ESEN_FLOWS_MONGO_URI"
        if error.code == 13:
            return (
                f"the database user may not do this in {self.database_name!r}: it needs the role readWrite; to query "
                "only, set ESEN_FLOWS_READ_ONLY=1"
            )
        return f"the database server refuses: {self._redacted(str(error))[:500]}"

    def _redacted(self, text: str) -> str:
        match = re.match(r"[^:]+://([^/?]*)@", self._uri)
        if match is None:
            return text
        password = match.group(1).partition(":")[2]
        for secret in (password, unquote(password)):
            if secret:
                text = text.replace(secret, "***")
        return text


def _reason(error: AutoReconnect) -> str:
    """What the driver says, without its timeouts and what it knows about each server."""
    said = re.sub(r" \(configured timeouts[^)]*\)", "", str(error))
    return said.partition(", Timeout: ")[0][:300]


def without_duplicates(write: Callable[[], object]) -> bool:
    """Carry out a bulk of insertions; False when some met what was there already."""
    try:
        write()
    except BulkWriteError as error:
        if any(fault["code"] != _DUPLICATE for fault in error.details["writeErrors"]):
            raise
        return False
    return True


def connect(settings: Settings) -> Database:
    """A connection as the settings say: to the URI, or else to the private server of this user.

    Raises
    ------
    InputError
        a database cannot have that name.
    ServerUnavailableError, StoreError
        with the one reason and its remedy.
    """
    timeout = settings.server_timeout_seconds
    if not re.fullmatch(r"[A-Za-z0-9_-]{1,63}", settings.database):
        raise InputError(
            f"ESEN_FLOWS_DATABASE is {settings.database[:80]!r}; a database's name has 1 to 63 letters, digits, _ and -"
        )
    if settings.mongo_uri is not None:
        return Database(settings.mongo_uri.get_secret_value(), settings.database, timeout)
    lease = EmbeddedServer.of(settings).connect()
    return Database(lease.uri, settings.database, timeout, lease)
