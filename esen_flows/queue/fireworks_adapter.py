"""All that needs FireWorks itself: running one firework on a server that may be killed meanwhile, and ending it after.

This is the only file that imports fireworks and knows its private names. Documents of the launchpad are read and
repaired by `esen_flows.store.launchpad` and `esen_flows.store.launchpad_repair`.
"""

import re
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing, contextmanager
from typing import TYPE_CHECKING, Any, TypeVar

from fireworks import FWorker, LaunchPad
from fireworks.core.launchpad import WFLock
from fireworks.core.rocket import Rocket
from fireworks.utilities.fw_utilities import get_my_host

from esen_flows.errors import ServerUnavailableError
from esen_flows.stopping import Stopped, is_stopping
from esen_flows.store.database import Database, Row
from esen_flows.store.jobflow_files import launchpad_spec
from esen_flows.store.launchpad import OUTAGES, count_mishap, firework_row, has_ended_launch
from esen_flows.store.launchpad_repair import undo_half_written_end, unlock
from esen_flows.store.server_outages import is_outage, retry_until_available

if TYPE_CHECKING:
    from jobflow import Job

# In the environment that a launch notes of its worker. Such a launch holds a claim from before its start to its end.
WORKER_MARK = "esen_flows_worker"
T = TypeVar("T")
# jobflow's name of its task, whose module loads every store that jobflow knows.
_JOB_TASK = "{{jobflow.managers.fireworks.JobFiretask}}"
# Fireworks all of whose tasks are jobs of jobflow or tasks of this package. Background tasks and duplicate finders
# name classes that FireWorks loads and calls as well.
KNOWN_TASKS: dict[str, Any] = {
    "spec._tasks": {
        "$type": "array",
        "$not": {"$elemMatch": {"_fw_name": {"$not": {"$in": [_JOB_TASK, re.compile(r"^\{\{esen_flows\.")]}}}},
    },
    "spec._background_tasks": {"$exists": False},
    "spec._dupefinder": {"$exists": False},
}
MOST_OUTAGES = 10  # how often one firework may lose a server before that counts as its failure
READY_AGAIN = "READY again"


class _ServerAway(BaseException):
    """The server was away; not an Exception, so that no `except Exception` of FireWorks handles it."""


class Pad(LaunchPad):
    """Launchpad of our database, on which operations of a running firework are repeated when the server was away.

    Parameters
    ----------
    database
        Database of the launchpad.
    patience_seconds
        Longest time in seconds for which the server may stay away.

    Attributes
    ----------
    handed_back
        Whether the last firework was made READY again instead of FIZZLED, because its process has to end or the server
        was away. Neither says anything about the work.
    """

    def __init__(self, database: Database, patience_seconds: float) -> None:
        spec = launchpad_spec(database)
        super().__init__(
            host=spec["host"], uri_mode=True, name=spec["name"], mongoclient_kwargs=spec["mongoclient_kwargs"],
            strm_lvl="WARNING",
        )  # fmt: skip
        self.database = database
        self.patience_seconds = patience_seconds
        self.handed_back = False

    def checkout_fw(self, fworker: FWorker, *arguments: Any, **options: Any) -> Any:
        """Take a firework, as LaunchPad does.

        Parameters
        ----------
        fworker
            Worker whose query asks for one firework by its id.
        arguments
            Further arguments of `LaunchPad.checkout_fw`.
        options
            Further options of `LaunchPad.checkout_fw`.

        Returns
        -------
        Any
            Firework and launch id; None and None if another process was faster.

        Raises
        ------
        ServerUnavailableError
            The server stays away for longer than `patience_seconds`.
        """
        number = fworker.query["fw_id"]

        def check_out(failures: int) -> Any:
            if failures:
                self._take_back(number, fworker)
            try:
                return super(Pad, self).checkout_fw(fworker, *arguments, **options)
            except _ServerAway as away:
                raise ServerUnavailableError("the server was away while a firework was read") from away.__cause__

        return retry_until_available(self.database, check_out, self.patience_seconds)

    def get_fw_by_id(self, fw_id: int) -> Any:
        """Read a firework, as LaunchPad does, but let no checkout take an outage for a broken firework.

        Parameters
        ----------
        fw_id
            Id of the firework.

        Returns
        -------
        Any
            The firework.
        """
        try:
            return super().get_fw_by_id(fw_id)
        except Exception as error:
            if is_outage(error):
                raise _ServerAway from error
            raise

    def retrying(self, operation: Callable[[], T]) -> T:
        """The result of an operation, which is repeated if the server was away during it.

        Parameters
        ----------
        operation
            Operation that may be repeated.

        Returns
        -------
        T
            Result of the operation.

        Raises
        ------
        ServerUnavailableError
            The server stays away for longer than `patience_seconds`.
        """
        return retry_until_available(self.database, lambda _: operation(), self.patience_seconds)

    def ping_launch(self, *arguments: Any, **options: Any) -> None:
        """Note that a launch is alive, as LaunchPad does.

        Parameters
        ----------
        arguments
            Arguments of `LaunchPad.ping_launch`.
        options
            Options of `LaunchPad.ping_launch`.
        """
        self.retrying(lambda: super(Pad, self).ping_launch(*arguments, **options))

    def complete_launch(self, launch_id: int, action: Any = None, state: str = "COMPLETED") -> Any:
        """End a launch, as LaunchPad does, but hand the firework back if its failure says nothing about the work.

        Parameters
        ----------
        launch_id
            Id of the launch.
        action
            What the job has returned to FireWorks.
        state
            COMPLETED or FIZZLED.

        Returns
        -------
        Any
            What `LaunchPad.complete_launch` returns.
        """
        error = sys.exc_info()[1]  # FireWorks reports a failure while it handles the error

        def complete(failures: int) -> Any:
            number = self.launches.find_one({"launch_id": launch_id}, {"fw_id": True})["fw_id"]
            if state == "FIZZLED" and self._says_nothing_of_the_work(number, error):
                self.handed_back = True
                return put_back(self, number)
            if failures:
                undo_half_written_end(self.database, number)
            return super(Pad, self).complete_launch(launch_id, action, state)

        return retry_until_available(self.database, complete, self.patience_seconds)

    def _says_nothing_of_the_work(self, number: int, error: BaseException | None) -> bool:
        """Whether a job was broken off because its process has to end, or because a server was away."""
        if isinstance(error, Stopped) or (is_stopping() and isinstance(error, SystemExit | KeyboardInterrupt)):
            return True
        # The job may use another server than ours, which may stay away for ever. Hence the limit.
        return is_outage(error) and count_mishap(self.database, number, OUTAGES) <= MOST_OUTAGES

    def _refresh_wf(self, fw_id: int) -> None:
        """Update a workflow, as LaunchPad does, which would take an outage for a broken firework and write that."""
        try:
            with WFLock(self, fw_id):
                workflow = self.get_wf_by_fw_id_lzyfw(fw_id)
                self._update_wf(workflow, workflow.refresh(fw_id))
        except Exception as error:
            if is_outage(error):
                raise
            super()._refresh_wf(fw_id)  # meets the same error again, and handles it in FireWorks' way

    def _take_back(self, number: int, fworker: FWorker) -> None:
        """Make READY what our own interrupted checkout has taken; what a plain `rlaunch` took meanwhile stays its."""
        row = firework_row(self.database, number)
        if row is None or row["state"] not in ("RESERVED", "RUNNING"):
            return
        launches = self.launches.find({"launch_id": {"$in": row["launches"]}}, {"fworker.env": True})
        if all(launch["fworker"]["env"] == fworker.env for launch in launches):
            put_back(self, number)


@contextmanager
def open_launchpad(database: Database) -> Iterator[LaunchPad]:
    """FireWorks' launchpad of a database, connected as long as the context lasts.

    Parameters
    ----------
    database
        Database of the launchpad.

    Yields
    ------
    LaunchPad
        The launchpad.
    """
    launchpad = LaunchPad.from_dict({**launchpad_spec(database), "strm_lvl": "WARNING"})
    with closing(launchpad.connection):
        yield launchpad


def worker_query(name: str, category: str, query: Mapping[str, Any], *, any_task: bool = False) -> dict[str, Any]:
    """Conditions on the fireworks that a worker takes: those of FireWorks' own workers, and that it knows the tasks.

    Parameters
    ----------
    name
        Name of the worker, which fireworks may ask for.
    category
        Category of the fireworks; "" for all.
    query
        Further conditions.
    any_task
        Whether fireworks with tasks of other packages are taken, such as ScriptTask, which runs a shell command.

    Returns
    -------
    dict[str, Any]
        Conditions for `esen_flows.store.launchpad.find_ready`.
    """
    found: dict[str, Any] = FWorker(name, category, dict(query)).query
    return found if any_task else {"$and": [found, KNOWN_TASKS]}


def set_category(job: "Job", category: str) -> None:
    """Have a job run by workers of a category, unless the job names a category itself.

    The category is noted in the job and not only in its firework, so that a job that takes its place inherits it.
    Jobs of other kinds that take its place get the category of their own kind.

    Parameters
    ----------
    job
        Job, which is changed.
    category
        Category of workers.
    """
    from esen_flows.makers.references import CATEGORY_OF_KIND

    if "_category" not in job.config.manager_config:
        # Not in place: jobflow shares this dictionary with the update that it hands on.
        job.config.manager_config = {**job.config.manager_config, "_category": category, CATEGORY_OF_KIND: True}


def is_of_this_host(launch: Row) -> bool:
    """Whether a launch or reservation was made on this machine, by FireWorks' name of the machine.

    Parameters
    ----------
    launch
        Row of the launch.

    Returns
    -------
    bool
        True if the launch is of this machine.
    """
    return bool(launch["host"] == get_my_host())


def run_firework(pad: Pad, number: int, name: str, worker_id: str) -> bool:
    """Run one READY firework in this process and in the current folder.

    Parameters
    ----------
    pad
        Launchpad of the firework.
    number
        Id of the firework; the caller holds its claim.
    name
        Name of the worker, which the firework may ask for.
    worker_id
        Id of the worker, which is noted with the launch.

    Returns
    -------
    bool
        False if another process was faster.
    """
    pad.handed_back = False
    ran = Rocket(pad, FWorker(name, "", {"fw_id": number}, {WORKER_MARK: worker_id}), 0).run()
    pad.backup_launch_data.clear()  # FireWorks keeps a copy of every firework that this process ever ran
    pad.backup_fw_data.clear()
    return bool(ran)


def put_back(pad: Pad, number: int) -> None:
    """Make a firework READY again whose process is gone.

    Parameters
    ----------
    pad
        Launchpad of the firework.
    number
        Id of the firework; the caller holds its claim.
    """
    unlock(pad.database, number)
    pad.rerun_fw(number)


def complete_or_put_back(pad: Pad, firework: Mapping[str, Any]) -> str:
    """Complete the end of a firework whose process is gone if the end was half written, else make it READY again.

    Parameters
    ----------
    pad
        Launchpad of the firework.
    firework
        Its fw_id and launches; the caller holds its claim.

    Returns
    -------
    str
        What was done, in words; `READY_AGAIN` if the firework is READY again.
    """
    number = firework["fw_id"]
    if not has_ended_launch(pad.database, firework):
        put_back(pad, number)
        return READY_AGAIN
    if undo_half_written_end(pad.database, number):
        pad.detect_lostruns(expiration_secs=10**9, refresh=True, query={"fw_id": number})
    return "its end was written half, and is complete now"


def fizzle(pad: Pad, number: int, reason: str) -> None:
    """End a firework as failed.

    Parameters
    ----------
    pad
        Launchpad of the firework.
    number
        Id of the firework.
    reason
        Why, which `lpad get_fws` shows.
    """
    row = pad.fireworks.find_one({"fw_id": number}, {"launches": True})
    unlock(pad.database, number)
    pad.fireworks.update_one({"fw_id": number}, {"$set": {"spec._exception_details": {"_message": reason}}})
    pad.mark_fizzled(row["launches"][-1])
