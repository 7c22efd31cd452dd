"""Flows as fireworks, on the launchpad that lives in the same database as our results.

A firework carries a job: the task and the key of its result, never the address of the database. A worker finds
jobflow's store by a jobflow.yaml, and ours by the settings of the machine that it is on. FireWorks decides what runs
where; the store makes sure that a result is computed only once.
"""

from collections.abc import Sequence
from copy import copy
from dataclasses import dataclass
from typing import Any
from urllib.parse import unquote, urlsplit

from jobflow import Flow, Job
from jobflow.managers.fireworks import flow_to_workflow

from esen_flows.errors import InputError
from esen_flows.makers.compute import raise_if_failed
from esen_flows.queue.fireworks_adapter import open_launchpad, set_category
from esen_flows.schemas.documents import ResultDocument
from esen_flows.schemas.properties import PROPERTIES
from esen_flows.store.connection import open_store
from esen_flows.store.database import Database
from esen_flows.store.jobflow_files import document_bytes
from esen_flows.store.launchpad import pending_fireworks, prepare_launchpad, remove_fireworks
from esen_flows.store.results import Store

# A firework is one document of at most 16 MB, and its launches are written into it.
MOST_FIREWORK_BYTES = 12_000_000
_SHORTEST_SECRET = 8  # a shorter password may occur as an ordinary word


@dataclass(frozen=True)
class Submission:
    """What `submit` has done; as a string, a sentence.

    Attributes
    ----------
    launchpad
        Name of the launchpad's database.
    firework_ids
        Ids of the fireworks that were added, in the order of work; empty if nothing was added.
    result_keys
        Result keys of the jobs, in the order of work; the last one is that of the flow's answer.
    pending
        Ids and states of fireworks of earlier submissions that will bring the missing results.
    """

    launchpad: str
    firework_ids: tuple[int, ...]
    result_keys: tuple[str, ...]
    pending: tuple[tuple[int, str], ...] = ()

    def __str__(self) -> str:
        if self.firework_ids:
            return f"submitted to launchpad {self.launchpad}: fireworks {', '.join(map(str, self.firework_ids))}"
        if self.pending:
            known = ", ".join(f"{number} ({state})" for number, state in self.pending)
            return f"nothing added: submitted before to launchpad {self.launchpad}, fireworks {known}"
        return "nothing added: every result is stored"


def submit(work: Flow | Job, *, store: Store | None = None) -> Submission:
    """Add a flow to the launchpad of our database, unless its results are stored or on their way.

    Parameters
    ----------
    work
        Flow or job of any Maker, ours or another package's. Its jobs get the category of their kind
        (`schemas.properties`): a worker whose my_fworker.yaml says `category: gpu` takes those alone, one with
        `category: ''` takes all. A job that has a `_category` in its manager_config keeps it.
    store
        Store of the results, in whose database the launchpad is; None: the store of the settings.

    Returns
    -------
    Submission
        What was added, or why nothing was.

    Raises
    ------
    InputError
        A job is too large for a firework, or carries the database's password.
    EsenFlowsError
        Nothing is left to compute, and a step failed for good before; its own type and reason.
    StoreError
        There is no server (`ESEN_FLOWS_SPOOL`), it refuses, or nothing may be written.
    """
    store = store or open_store()
    database = store.database
    flow = work if isinstance(work, Flow) else _flow_of(work)
    keys = tuple(job.metadata["result_key"] for job, _ in flow.iterflow() if "result_key" in job.metadata)
    missing = _missing(flow, store)
    if not missing:
        return Submission(database.database_name, (), keys)
    make_launchpad(database)
    wanted = [job.metadata.get("result_key") for job in missing]
    pending = pending_fireworks(database, [key for key in wanted if key is not None])
    if set(wanted) <= {row["spec"]["result_key"] for row in pending}:
        known = tuple((row["fw_id"], row["state"]) for row in pending)
        return Submission(database.database_name, (), keys, known)
    return Submission(database.database_name, add_flow(database, flow), keys)


def _flow_of(job: Job) -> Flow:
    """A flow of one job, which may have run in another flow."""
    single = copy(job)
    single.hosts = []
    return Flow([single], name=job.name)


def _missing(flow: Flow, store: Store) -> list[Job]:
    """The jobs that have something to compute: neither stored, nor failed for good, nor after one that has.

    Raises
    ------
    EsenFlowsError
        No job has, because of a stored failure.
    """
    missing: list[Job] = []
    failed: dict[str, ResultDocument] = {}
    for job, parents in flow.iterflow():
        key = job.metadata.get("result_key")
        document = None if key is None else store.get(key, load_arrays=False)
        before = next((failed[parent] for parent in parents if parent in failed), None)
        if document is None or (document.failure is not None and not document.failure.final):
            if before is None:
                missing.append(job)
            else:
                failed[job.uuid] = before
        elif document.failure is not None:
            failed[job.uuid] = document
    if not missing and failed:
        raise_if_failed(next(iter(failed.values())))
    return missing


def make_launchpad(database: Database) -> None:
    """Make the launchpad of a database ready for use; its fireworks stay.

    Parameters
    ----------
    database
        Database of the launchpad.
    """
    if prepare_launchpad(database):
        with open_launchpad(database) as launchpad:
            database.call(launchpad.tuneup)


def add_flow(database: Database, flow: Flow) -> tuple[int, ...]:
    """Add the fireworks of a flow.

    Parameters
    ----------
    database
        Database of the launchpad.
    flow
        Flow whose jobs get the category of their kind, as in `submit`.

    Returns
    -------
    tuple[int, ...]
        Ids of the fireworks, in the order of work.

    Raises
    ------
    InputError
        A job is too large for a firework, or carries the database's password.
    """
    for job, _ in flow.iterflow():
        kind = job.metadata.get("kind")
        if kind in PROPERTIES:
            set_category(job, PROPERTIES[kind].category)
    attempt: list[Any] = []  # fireworks, which have ids below zero until they are added

    def add() -> tuple[int, ...]:
        # A broken connection may leave fireworks without their workflow, which stop every worker that takes them.
        remove_fireworks(database, [firework.fw_id for firework in attempt if firework.fw_id > 0])
        workflow = flow_to_workflow(flow)  # without a store, whose password would go into every firework
        attempt[:] = workflow.fws
        for firework in attempt:
            _check(firework.name, document_bytes(firework.to_db_dict()), database.uri)
        with open_launchpad(database) as launchpad:
            launchpad.add_wf(workflow)
        return tuple(firework.fw_id for firework in attempt)

    return database.call(add)


def _check(job_name: str, content: bytes, uri: str) -> None:
    """Refuse what must not or cannot be written into a firework.

    Raises
    ------
    InputError
        The firework is too large, or holds a secret of the database's URI; with what to do instead.
    """
    if len(content) > MOST_FIREWORK_BYTES:
        raise InputError(
            f"job {job_name!r} takes {len(content) / 1e6:.1f} MB, more than the "
            f"{MOST_FIREWORK_BYTES / 1e6:.0f} MB that fit into a firework; hand large data on by reference (a stored "
            "dataset's key, another job's output) or split the job"
        )
    if any(secret in content for secret in _secrets(uri)):
        raise InputError(
            f"job {job_name!r} carries the password of the database, which every reader of the launchpad would see; "
            "take the store out of its arguments: a job opens the store of the machine that it runs on"
        )


def _secrets(uri: str) -> Sequence[bytes]:
    """Parts of a URI that must not be public: user and password, and the password alone unless it is a short word."""
    account = urlsplit(uri)
    if account.password is None:
        return []
    password = unquote(account.password)
    forms = [f"{account.username}:{account.password}@", *([password] if len(password) >= _SHORTEST_SECRET else [])]
    return [form.encode() for form in forms]
