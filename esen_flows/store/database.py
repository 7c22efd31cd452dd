"""The database: its indexes, and a connection whose operations are repeated while a killed server restarts."""

import re
import time
import warnings
from collections.abc import Callable, Sequence
from typing import Any, TypeVar
from urllib.parse import unquote

from bson.errors import BSONError
from pymongo import ASCENDING, DESCENDING, IndexModel, MongoClient
from pymongo.collection import Collection
from pymongo.errors import (
    AutoReconnect,
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
# A member of a replica set refuses an operation with KeyNotFound for a moment after it was initiated or elected: it has
# not read yet the key that signs the cluster's time.
KEYS_NOT_YET_READ = 211
OUT_OF_DISK_SPACE = 14031
# A server that ends answers writes with ShutdownInProgress or InterruptedAtShutdown, as errors of the write and not of
# the connection.
SHUTTING_DOWN = (91, 11600)
# The order of every list. With the id as last field it is unique, so that pages neither overlap nor leave gaps.
_NEWEST_FIRST = [("created_at", DESCENDING), ("_id", DESCENDING)]


def _index(name: str, *fields: str, then: Sequence[tuple[str, int]] = (), **options: Any) -> IndexModel:
    """An index on fields in ascending order, followed by others in an order of their own."""
    return IndexModel([*((field, ASCENDING) for field in fields), *then], name=name, **options)


INDEXES: dict[str, list[IndexModel]] = {
    "results": [
        _index("one_current", "key", unique=True, partialFilterExpression={"current": True}),
        _index("key_attempt", "key", "attempt", unique=True),
        _index("kind_chemsys", "kind", "chemsys"),
        _index("kind_formula", "kind", "formula"),
        # With the date, because a list of the oxides, say, shows the latest of very many.
        _index("kind_elements_created", "kind", "elements", then=_NEWEST_FIRST),
        _index("kind_space_group", "kind", "space_group_number"),
        _index("kind_model", "kind", "model_label"),
        _index("kind_nsites", "kind", "nsites"),
        _index("kind_tags", "kind", "tags"),
        # In the order of lists, so that the server need not sort.
        _index("kind_state_created", "kind", "state", then=_NEWEST_FIRST),
        _index("summary", "summary.$**"),  # any value that a condition or an order names
        _index("model", "model_key"),
        _index("structure", "structure_key"),
        _index("blobs", "blobs"),
    ],
    "structures": [
        _index("chemsys", "chemsys"),
        _index("formula", "formula"),
        _index("elements_created", "elements", then=_NEWEST_FIRST),
        _index("space_group", "space_group_number"),
        _index("nsites", "nsites"),
        _index("tags", "tags"),
        _index("created", then=_NEWEST_FIRST),
    ],
    "datasets": [
        _index("names", "names"),
        _index("elements", "elements"),
        _index("created", then=_NEWEST_FIRST),
        _index("blobs", "blobs"),
    ],
    "claims": [_index("tokens", "tokens"), _index("blobs", "blobs")],
    "campaign_members": [
        _index("campaign_key", "campaign", "key", unique=True),
        # Covers the status of a campaign: the server answers from the index without reading documents.
        _index("status", "campaign", "state", "failure", "model_label", "cost", "seconds", "value"),
        _index("campaign_chunk", "campaign", "chunk", "state"),
    ],
    "unfinished": [_index("forgotten", "updated_at", expireAfterSeconds=30 * 24 * 3600)],
    "campaign_runs": [_index("campaign_chunk", "campaign", "chunk")],
    "blob_chunks": [_index("sha_write_n", "sha", "write", "n")],
}


class Database:
    """A database whose operations are repeated while a killed server restarts.

    An operation may therefore run twice. The store uses only operations for which that makes no difference.

    Parameters
    ----------
    uri
        MongoDB URI of the server.
    database
        Name of the database.
    timeout_seconds
        Time in seconds for which an operation is repeated while the server does not answer.
    lease
        Use of the private server, which restarts that server if it was killed; None for any other server.

    Attributes
    ----------
    uri
        MongoDB URI, for other libraries. It may hold a password and is therefore never printed or stored.
    database_name
        Name of the database.
    """

    def __init__(self, uri: str, database: str, timeout_seconds: float, lease: Lease | None = None) -> None:
        self.uri = uri
        self.database_name = database
        self.timeout_seconds = timeout_seconds
        self.lease = lease
        self._client = self._new_client()

    @property
    def client_options(self) -> dict[str, Any]:
        """Options of the client: every acknowledged write is in the journal, so that a killed server loses none."""
        # The lease restarts a killed private server, so there is no point in waiting long before that.
        wait = min(self.timeout_seconds, 1.0) if self.lease else self.timeout_seconds
        options: dict[str, Any] = {"journal": True, "serverSelectionTimeoutMS": max(1, int(wait * 1000))}
        if not re.search(r"[?&]w=", self.uri):
            options["w"] = "majority"
        return options

    def __getitem__(self, collection: str) -> Collection[Row]:
        return self._client[self.database_name][collection]

    def call(self, operation: Callable[[], T]) -> T:
        """The result of an operation, which is repeated if the server is killed meanwhile.

        Parameters
        ----------
        operation
            Calls pymongo; has to consume its cursors, because a cursor does not survive its server.

        Returns
        -------
        T
            Result of the operation.

        Raises
        ------
        ServerUnavailableError
            The server does not answer for longer than `timeout_seconds`.
        StoreError
            The server refuses the operation, or a value cannot be in a document.
        DuplicateKeyError
            A unique index forbids the insertion; callers treat this as an answer.
        """
        deadline = time.monotonic() + self.timeout_seconds
        while True:
            try:
                return operation()
            except DuplicateKeyError:
                raise
            except AutoReconnect as error:
                self._await_server(error, deadline)
            except OperationFailure as error:
                if is_away(error):
                    self._await_server(error, deadline)
                    continue
                if error.code == OUT_OF_DISK_SPACE:
                    raise ServerUnavailableError(
                        "the disk of the database server is full; free space there, or compute without a server: "
                        "ESEN_FLOWS_SPOOL=1, with ESEN_FLOWS_SPOOL_DIR on another disk"
                    ) from None
                if error.code != KEYS_NOT_YET_READ or time.monotonic() > deadline:
                    raise StoreError(self._refusal(error)) from None
                time.sleep(0.05)
            except (BSONError, OverflowError, UnicodeError, RecursionError) as error:
                reason = " ".join(str(error).split())[:200]
                raise StoreError(f"a value cannot be in a document of the database: {reason}; correct it") from None
            except PyMongoError as error:
                raise StoreError(f"the database operation failed: {self._redacted(str(error))[:500]}") from None

    def _await_server(self, error: PyMongoError, deadline: float) -> None:
        """Start a private server again, and wait for a moment; an error once the time is up."""
        if time.monotonic() > deadline:
            raise ServerUnavailableError(
                f"the database server does not answer ({self._redacted(_reason(error))}); check that it runs and that "
                "ESEN_FLOWS_MONGO_URI names it"
            ) from None
        self._restart()
        time.sleep(0.05)

    def make_indexes(self) -> None:
        """Create the indexes that are missing."""
        for name, models in INDEXES.items():
            self.call(lambda name=name, models=models: self[name].create_indexes(models))  # type: ignore[misc]

    def collection_names(self) -> list[str]:
        """Names of the collections that exist.

        Returns
        -------
        list of str
            Names in alphabetical order.
        """
        names = self.call(lambda: self._client[self.database_name].list_collection_names())
        return sorted(name for name in names if not name.startswith("system."))

    def drop(self) -> None:
        """Delete the whole database with all results."""
        self.call(lambda: self._client.drop_database(self.database_name))

    def close(self) -> None:
        """Disconnect; the private server stops later if nobody else uses it."""
        self._client.close()
        if self.lease is not None:
            self.lease.close()

    def _new_client(self) -> "MongoClient[Row]":
        try:
            # pymongo only warns of an option that it cannot read and would, for example, connect without TLS.
            with warnings.catch_warnings():
                warnings.simplefilter("error", UserWarning)
                return MongoClient(self.uri, tz_aware=True, **self.client_options)
        except OSError as error:
            raise StoreError(
                f"a TLS file that ESEN_FLOWS_MONGO_URI names cannot be used: {error.filename or 'its content'} "
                f"({error.strerror}); correct tlsCAFile or tlsCertificateKeyFile"
            ) from None
        except (InvalidURI, ConfigurationError, UserWarning, ValueError):
            # The message of pymongo may quote the password, so it is not passed on.
            raise StoreError(
                "ESEN_FLOWS_MONGO_URI is not a valid MongoDB URI (not shown, it may hold a password); write "
                "mongodb://user:password@host:port/?options, escape special characters of the password as %XX and "
                "check the names and values of the options"
            ) from None

    def _restart(self) -> None:
        """Start the private server again if it was killed, and connect to it under its new address."""
        if self.lease is None:
            return
        self.lease.ensure()
        if self.lease.uri != self.uri:
            self._client.close()
            self.uri = self.lease.uri
            self._client = self._new_client()

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
        match = re.match(r"[^:]+://([^/?]*)@", self.uri)
        if match is None:
            return text
        password = match.group(1).partition(":")[2]
        for secret in (password, unquote(password)):
            if secret:
                text = text.replace(secret, "***")
        return text


def is_away(error: BaseException) -> bool:
    """Whether an error of pymongo means that the server is away or about to end.

    Parameters
    ----------
    error
        Any error.

    Returns
    -------
    bool
        True where the same operation can succeed when the server is back.
    """
    return isinstance(error, AutoReconnect) or (isinstance(error, OperationFailure) and error.code in SHUTTING_DOWN)


def _reason(error: PyMongoError) -> str:
    """The message of pymongo without its timeouts and its description of each server."""
    message = re.sub(r" \(configured timeouts[^)]*\)", "", str(error))
    return message.partition(", Timeout: ")[0][:300]


def connect(settings: Settings) -> Database:
    """A connection to the server that the settings name, or else to the private server of this user.

    Parameters
    ----------
    settings
        URI, name of the database, timeout, and the folders of the private server.

    Returns
    -------
    Database
        The connection. A server of the URI is not contacted yet; the private server runs.

    Raises
    ------
    InputError
        The name is not a valid name of a database.
    ServerUnavailableError
        The private server does not start.
    StoreError
        The URI is not valid, or the private server cannot run on this machine.
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
