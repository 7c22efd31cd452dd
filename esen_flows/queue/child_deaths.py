"""Deaths of a worker's child processes: their fireworks become READY again, and too many deaths end the worker."""

from esen_flows.errors import StoreError
from esen_flows.queue.fireworks_adapter import READY_AGAIN, Pad, complete_or_put_back, fizzle
from esen_flows.queue.worker_process import ChildProcess
from esen_flows.queue.worker_settings import WorkDone
from esen_flows.store.claims import Claims
from esen_flows.store.database import Row
from esen_flows.store.launchpad import (
    DEATHS,
    claim_key,
    count_mishap,
    firework_row,
    fireworks_claimed_by,
    has_ended_launch,
)

MOST_DEATHS = 3  # how often a firework of another package may kill its process before it fails
# Deaths in a row of processes that had not even begun with a firework, and of all processes. A campaign halves a chunk
# that kills its process until the structure that does it is the only one, which takes a dozen deaths.
_MOST_DEATHS_WITHOUT_WORK, _MOST_DEATHS_IN_A_ROW = 5, 25
_REASON = f"it killed its process {MOST_DEATHS} times"
_GIVEN_UP = f"FIZZLED: {_REASON}"


class ChildDeaths:
    """Puts back the fireworks of dead children, and counts the deaths.

    Parameters
    ----------
    pad
        Launchpad of the fireworks.
    claims
        Claims of the supervisor.
    done
        Totals of the worker, in which failed and returned fireworks are counted.
    """

    def __init__(self, pad: Pad, claims: Claims, done: WorkDone) -> None:
        self._pad = pad
        self._claims = claims
        self._done = done
        self._in_a_row = self._without_work = 0

    def forget(self) -> None:
        """Begin to count anew, because a process has finished a firework."""
        self._in_a_row = self._without_work = 0

    def return_fireworks(self, child: ChildProcess, *, blame: bool) -> dict[int, str]:
        """Make the fireworks of a dead child READY again, or FIZZLED if one has killed too many processes.

        Parameters
        ----------
        child
            Child that has ended, with what it had said until then. Its claim alone would not tell what it ran: any
            process that opens the store clears away the claims of dead processes.
        blame
            Whether its firework may be the reason for its death.

        Returns
        -------
        dict[int, str]
            What became of each firework, in words, by its id; "" if there was nothing to do.
        """
        numbers = set(self._pad.retrying(lambda: fireworks_claimed_by(self._pad.database, child.identity)))
        numbers |= {child.work[0]} if child.work is not None else set()
        return {number: self._return(number, blame) for number in sorted(numbers)}

    def limit(self, child: ChildProcess, *, had_work: bool) -> None:
        """End a worker on a machine where nothing can run.

        Parameters
        ----------
        child
            Child that has died.
        had_work
            Whether it had begun with a firework.

        Raises
        ------
        StoreError
            Too many processes in a row have died; with the last lines of the child's output.
        """
        self._in_a_row += 1
        self._without_work = 0 if had_work else self._without_work + 1
        if self._in_a_row >= _MOST_DEATHS_IN_A_ROW or self._without_work >= _MOST_DEATHS_WITHOUT_WORK:
            raise StoreError(
                f"{self._in_a_row} processes in a row died before they finished a firework; the last one:\n"
                f"{child.log_tail()}\nthe whole output is in {child.log}"
            )

    def _return(self, number: int, blame: bool) -> str:
        if blame:
            self._pad.retrying(lambda: self._count(number))
        # Another process may hold the claim for a moment, to see whether the firework is READY: recovery comes later.
        claim = self._claims.try_claim(claim_key(number))
        if claim is None:
            return ""
        words = self._pad.retrying(lambda: self._put_right(number))
        self._claims.forget(claim)
        return words

    def _count(self, number: int) -> None:
        row = _begun(self._pad, number)
        # A campaign finds the crashing structure by itself.
        if row is not None and "campaign" not in row["spec"] and not has_ended_launch(self._pad.database, row):
            count_mishap(self._pad.database, number, DEATHS)

    def _put_right(self, number: int) -> str:
        row = _begun(self._pad, number)
        words = put_right(self._pad, row) if row is not None else ""
        self._done.handed_back += words == READY_AGAIN
        self._done.failed += words == _GIVEN_UP
        return words


def put_right(pad: Pad, firework: Row) -> str:
    """End the run of a firework whose process is gone.

    Parameters
    ----------
    pad
        Launchpad of the firework.
    firework
        Row of `firework_row`; the caller holds its claim.

    Returns
    -------
    str
        What was done, in words: FIZZLED if it has killed too many processes, `READY_AGAIN`, or its end completed.
    """
    if firework["spec"].get(DEATHS, 0) >= MOST_DEATHS:
        fizzle(pad, firework["fw_id"], _REASON)
        return _GIVEN_UP
    return complete_or_put_back(pad, firework)


def _begun(pad: Pad, number: int) -> Row | None:
    row = firework_row(pad.database, number)
    return row if row is not None and row["state"] in ("RUNNING", "RESERVED") else None
