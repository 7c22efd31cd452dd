"""Flows as fireworks, on the launchpad that lives in the same database as our results.

A firework carries a job: what is asked for and the key of its result, never where the database is. Whoever runs it
(`rlaunch`) finds jobflow's store by a jobflow.yaml, and ours by the settings of the machine that it is on. FireWorks
decides what runs where; that it is computed once is the store's doing.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from copy import copy
from dataclasses import dataclass
from urllib.parse import unquote, urlsplit

from fireworks import Firework, LaunchPad
from jobflow import Flow, Job
from jobflow.managers.fireworks import flow_to_workflow

from esen_flows.errors import InputError
from esen_flows.makers.compute import raise_if_failed
from esen_flows.schemas.documents import ResultDocument
from esen_flows.store.connection import open_store
from esen_flows.store.database import Database
from esen_flows.store.jobflow_files import document_bytes, launchpad_spec
from esen_flows.store.results import Store

# Where a job of a kind belongs: a worker whose my_fworker.yaml says `category: gpu` takes those alone, one with
# `category: ''` takes all. A job that has a `_category` in its manager_config keeps it.
CATEGORIES = {
    "relax": "gpu",
    "forces": "gpu",
    "labelling": "gpu",
    "training": "gpu",
    "evaluation": "gpu",
    "phonon": "cpu",
    "conductivity": "cpu",
}
# A firework is one document of at most 16 MB, and its launches are written into it.
MOST_FIREWORK_BYTES = 12_000_000
_WILL_RUN = ("WAITING", "READY", "RESERVED", "RUNNING", "PAUSED")
_WORKFLOW_ENDED = ("FIZZLED", "DEFUSED", "ARCHIVED")
_SHORTEST_SECRET = 8  # a shorter password may be any word


@dataclass(frozen=True)
class Submission:
    """What `submit` did; as a string, in a sentence.

    Attributes
    ----------
    launchpad
        name of its database.
    firework_ids
        of the fireworks that were added, in the order of work; empty: nothing was added.
    result_keys
        of the jobs, in the order of work; the last one is the flow's answer.
    pending
        fireworks of earlier submissions, with their states, that will bring what is missing.
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
        a flow or job of any Maker, ours or another package's; its jobs are noted the category of their kind
        (`CATEGORIES`).
    store
        where results are and the launchpad will be; None: the store of the settings.

    Raises
    ------
    InputError
        a job too large for a firework, or one that carries the database's password.
    EsenFlowsError
        nothing is left to compute, and a step failed for good before; its own type and reason.
    StoreError
        there is no server (`ESEN_FLOWS_SPOOL`), it refuses, or nothing may be written.
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
    pending = _pending(database, [key for key in wanted if key is not None])
    if set(wanted) <= {key for _, _, key in pending}:
        return Submission(database.database_name, (), keys, tuple((number, state) for number, state, _ in pending))
    return Submission(database.database_name, add_flow(database, flow), keys)


def _flow_of(job: Job) -> Flow:
    """A flow of one job, which may have run in another flow."""
    alone = copy(job)
    alone.hosts = []
    return Flow([alone], name=job.name)


def _missing(flow: Flow, store: Store) -> list[Job]:
    """The jobs that have something to compute: neither stored, nor failed for good, nor after one that has.

    Raises
    ------
    EsenFlowsError
        none has, because of a stored failure.
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
    """See to a launchpad in the database; FireWorks' own way, `lpad reset`, deletes what is there."""
    of_a_campaign = [("spec.campaign", 1), ("state", 1), ("spec.chunk", 1)]
    for fields in ([("spec.result_key", 1)], of_a_campaign):
        database.call(lambda: database["fireworks"].create_index(fields))  # noqa: B023
    if database.call(lambda: database["fw_id_assigner"].find_one({})) is None:
        first = {"$setOnInsert": {"next_fw_id": 1, "next_launch_id": 1}}
        database.call(lambda: database["fw_id_assigner"].update_one({"_id": -1}, first, upsert=True))
        with open_launchpad(database) as launchpad:
            database.call(launchpad.tuneup)


@contextmanager
def open_launchpad(database: Database) -> Iterator[LaunchPad]:
    """The launchpad of a database, while it is needed."""
    launchpad = LaunchPad.from_dict({**launchpad_spec(database), "strm_lvl": "WARNING"})
    try:
        yield launchpad
    finally:
        launchpad.connection.close()


def _pending(database: Database, keys: Sequence[str]) -> list[tuple[int, str, str]]:
    """Id, state and result key of the fireworks that will bring these results, if somebody runs them."""
    query = {"spec.result_key": {"$in": list(keys)}, "state": {"$in": list(_WILL_RUN)}}
    fields = {"fw_id": True, "state": True, "spec.result_key": True}
    found = database.call(lambda: list(database["fireworks"].find(query, fields).sort("fw_id")))
    ids = [row["fw_id"] for row in found]
    # What waits for a firework that fizzled will never run.
    alive = {"nodes": {"$in": ids}, "state": {"$nin": list(_WORKFLOW_ENDED)}}
    workflows = database.call(lambda: list(database["workflows"].find(alive, {"nodes": True})))
    nodes = {number for workflow in workflows for number in workflow["nodes"]}
    return [(row["fw_id"], row["state"], row["spec"]["result_key"]) for row in found if row["fw_id"] in nodes]


def add_flow(database: Database, flow: Flow) -> tuple[int, ...]:
    """Add the fireworks of a flow; their ids, in the order of work."""
    for job, _ in flow.iterflow():
        category = CATEGORIES.get(job.metadata.get("kind", ""))
        if category is not None:  # in the job, not only in its firework: one that takes its place inherits it
            job.config.manager_config = {"_category": category, **job.config.manager_config}
    attempt: list[Firework] = []

    def add() -> tuple[int, ...]:
        _take_back(database, [firework.fw_id for firework in attempt])
        workflow = flow_to_workflow(flow)  # without a store, whose password would go into every firework
        attempt[:] = workflow.fws
        for firework in attempt:
            _check(firework, database.uri)
        with open_launchpad(database) as launchpad:
            launchpad.add_wf(workflow)
        return tuple(firework.fw_id for firework in attempt)

    return database.call(add)


def _take_back(database: Database, ids: Sequence[int]) -> None:
    """Remove what a broken connection left: a firework without its workflow stops every worker that meets it."""
    added = [number for number in ids if number > 0]
    if added:
        database["workflows"].delete_many({"nodes": {"$in": added}})
        database["fireworks"].delete_many({"fw_id": {"$in": added}})


def _check(firework: Firework, uri: str) -> None:
    """Refuse what must not or cannot be written into a firework.

    Raises
    ------
    InputError
        with what to do instead.
    """
    content = document_bytes(firework.to_db_dict())
    if len(content) > MOST_FIREWORK_BYTES:
        raise InputError(
            f"job {firework.name!r} takes {len(content) / 1e6:.1f} MB, more than the "
            f"{MOST_FIREWORK_BYTES / 1e6:.0f} MB that fit into a firework; hand large data on by reference (a stored "
            "dataset's key, another job's output) or split the job"
        )
    if any(secret in content for secret in _secrets(uri)):
        raise InputError(
            f"job {firework.name!r} carries the password of the database, which every reader of the launchpad would "
            "see; take the store out of its arguments: a job opens the store of the machine that it runs on"
        )


def _secrets(uri: str) -> list[bytes]:
    """What of a URI nobody else may read: user and password, and the password alone unless it could be any word."""
    account = urlsplit(uri)
    if account.password is None:
        return []
    alone = unquote(account.password)
    forms = [f"{account.username}:{account.password}@", *([alone] if len(alone) >= _SHORTEST_SECRET else [])]
    return [form.encode() for form in forms]
