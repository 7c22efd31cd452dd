"""How far a campaign is: counts, failures, rates and remaining time, read from the database alone and cheaply."""

from collections import Counter
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from math import sqrt

from esen_flows.errors import StoreError
from esen_flows.schemas.campaign import CampaignSpec, answer_summary_field
from esen_flows.store.campaign_progress import counts, refresh_states
from esen_flows.store.campaign_runs import runs
from esen_flows.store.campaigns import campaign_of
from esen_flows.store.claims import holders
from esen_flows.store.database import Row
from esen_flows.store.launchpad import LIVE_CHUNK, campaign_firework_states
from esen_flows.store.results import Store

# Normal quantile of a two-sided interval of 95 %.
QUANTILE_95 = 1.959964
# A process that holds no claim and has noted nothing for this long is not at work.
QUIET_SECONDS = 120.0


@dataclass(frozen=True)
class Share:
    """A fraction with its 95 % interval (Wilson, J. Am. Stat. Assoc. 22, 209 (1927)), also right for few cases.

    Attributes
    ----------
    value
        The fraction; None: there was nothing to count.
    low
        Lower end of the interval.
    high
        Upper end of the interval.
    """

    value: float | None
    low: float
    high: float

    @classmethod
    def of(cls, part: int, whole: int) -> "Share":
        """Fraction of `part` in `whole`.

        Parameters
        ----------
        part
            Number of cases that are counted.
        whole
            Number of all cases; 0: the interval is from 0 to 1.

        Returns
        -------
        Share
            The fraction.

        Examples
        --------
        >>> share = Share.of(2, 20)
        >>> share.value, round(share.low, 4), round(share.high, 4)
        (0.1, 0.0279, 0.301)
        """
        if whole == 0:
            return cls(None, 0.0, 1.0)
        p, z2 = part / whole, QUANTILE_95**2
        middle = (p + z2 / (2 * whole)) / (1 + z2 / whole)
        half = QUANTILE_95 / (1 + z2 / whole) * sqrt(p * (1 - p) / whole + z2 / (4 * whole**2))
        # The ends are exactly 0 and 1 for none and all, which rounding would miss.
        return cls(p, middle - half if part else 0.0, middle + half if part < whole else 1.0)


@dataclass(frozen=True)
class Mean:
    """Mean of a property's principal number so far, for one force field.

    Attributes
    ----------
    model_label
        Label of the force field.
    members
        Number of members with a value.
    value
        The mean.
    half_width
        Half of its 95 % interval; None: one value alone has no interval.
    """

    model_label: str
    members: int
    value: float
    half_width: float | None


@dataclass(frozen=True)
class Rate:
    """Speed of a process that works on the campaign, since it began with its chunk.

    Attributes
    ----------
    worker
        Host and process.
    device
        Device of its force calls.
    materials_per_second
        Members per second.
    atoms_per_second
        Atoms of members per second.
    done
        Number of members of the chunk that are done.
    """

    worker: str
    device: str
    materials_per_second: float
    atoms_per_second: float
    done: int


@dataclass(frozen=True)
class CampaignStatus:
    """How far a campaign is.

    Attributes
    ----------
    name
        Name of the campaign.
    state
        State of the campaign: planned, submitted, paused or cancelled; done if no member is pending.
    property
        Property that is computed.
    members
        Number of members.
    finished
        Number of finished members.
    failed
        Number of failed members.
    pending
        Number of pending members.
    failures
        Number of failed members by the class of their failure.
    failed_share
        Fraction of failed members among those that are done.
    answer
        Name of the principal number, with its unit.
    means
        Means of the principal number, by force field.
    rates
        Speeds of the processes that are at work.
    lost_runs
        Number of processes that died at work.
    fireworks
        Number of fireworks by state.
    seconds_left
        Remaining time in seconds at the present speed; None: no process is at work, or nothing was done yet.
    """

    name: str
    state: str
    property: str
    members: int
    finished: int
    failed: int
    pending: int
    failures: dict[str, int]
    failed_share: Share
    answer: str
    means: tuple[Mean, ...]
    rates: tuple[Rate, ...]
    lost_runs: int
    fireworks: dict[str, int]
    seconds_left: float | None


def campaign_status(store: Store, name: str) -> CampaignStatus:
    """How far a campaign is.

    Parameters
    ----------
    store
        Store of the campaign.
    name
        Name of the campaign.

    Returns
    -------
    CampaignStatus
        Counts, failures, rates and remaining time.

    Raises
    ------
    InputError
        There is no such campaign.
    """
    campaign = campaign_of(store, name)
    spec = CampaignSpec.model_validate(campaign["spec"])
    answer, fireworks = answer_summary_field(spec), campaign_firework_states(store.database, name)
    rows = counts(store, name)
    if campaign["state"] != "planned" and _pending(rows) and not set(LIVE_CHUNK) & set(fireworks):
        # Nothing works on it: its results may have come from a spool, another campaign or a command.
        with suppress(StoreError):  # of a database that is only read
            refresh_states(store, name, answer)
            rows = counts(store, name)
    states: Counter[str] = Counter()
    failures: Counter[str] = Counter()
    for row in rows:
        states[row["state"]] += row["members"]
        if row["state"] == "failed":
            failures[row["failure"]] += row["members"]
    all_runs = runs(store, name)
    working = _at_work(store, [run for run in all_runs if run["state"] == "running"])
    return CampaignStatus(
        name=name,
        state="done" if campaign["state"] != "planning" and rows and not _pending(rows) else campaign["state"],
        property=spec.property,
        members=states.total(),
        finished=states["finished"],
        failed=states["failed"],
        pending=states["pending"],
        failures=dict(failures.most_common()),
        failed_share=Share.of(states["failed"], states["failed"] + states["finished"]),
        answer=answer,
        means=tuple(_means(rows)),
        rates=tuple(_rate(run) for run in working),
        lost_runs=sum(run["state"] == "died" for run in all_runs),
        fireworks=fireworks,
        seconds_left=_seconds_left(rows, working),
    )


def _pending(rows: Sequence[Row]) -> int:
    return sum(row["members"] for row in rows if row["state"] == "pending")


def _at_work(store: Store, begun: Sequence[Row]) -> list[Row]:
    """Runs whose process lives, however long ago it noted something: linewidths may take hours."""
    alive = holders(store.database) if begun else {}
    return [run for run in begun if alive.get(run["worker"], _age(run["updated_at"]) < QUIET_SECONDS)]


def _means(rows: Sequence[Row]) -> list[Mean]:
    found = []
    for row in sorted(rows, key=lambda row: row["model_label"]):
        if row["state"] == "finished" and row["measured"]:
            width = None if row["deviation"] is None else QUANTILE_95 * row["deviation"] / sqrt(row["measured"])
            found.append(Mean(row["model_label"], row["measured"], row["mean"], width))
    return found


def _rate(run: Row) -> Rate:
    seconds = _seconds(run)
    return Rate(run["worker"], run["device"], run["done"] / seconds, run["atoms"] / seconds, run["done"])


def _seconds_left(rows: Sequence[Row], working: Sequence[Row]) -> float | None:
    """Predicted cost that is pending, divided by what the working processes together get done of it per second."""
    pending = sum(row["cost"] for row in rows if row["state"] == "pending")
    if pending == 0:
        return 0.0
    speed = sum(run["cost"] / _seconds(run) for run in working)
    return pending / speed if speed else None


def _seconds(run: Row) -> float:
    """Time between the beginning of a run and its last note."""
    return max((run["updated_at"] - run["started_at"]).total_seconds(), 1e-3)


def _age(moment: datetime) -> float:
    return (datetime.now(UTC) - moment).total_seconds()
