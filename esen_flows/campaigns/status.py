"""How far a campaign is: counts, failures, rates, time to go. Read from the database alone, cheaply at any size."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from math import sqrt

from esen_flows.schemas.campaign import CampaignSpec, answer_summary_field
from esen_flows.store.campaign_runs import runs
from esen_flows.store.campaigns import campaign_of, counts
from esen_flows.store.claims import holders
from esen_flows.store.database import Row
from esen_flows.store.launchpad import campaign_firework_states
from esen_flows.store.results import Store

# Normal quantile of a two-sided interval of 95 %.
QUANTILE_95 = 1.959964
# A process that holds no claim and has not said anything for so long is not at work.
QUIET_SECONDS = 120.0


@dataclass(frozen=True)
class Share:
    """A fraction with its 95 % interval (Wilson, J. Am. Stat. Assoc. 22, 209 (1927)); it is right for few, too."""

    value: float | None
    low: float
    high: float

    @classmethod
    def of(cls, part: int, whole: int) -> "Share":
        """Of `part` in `whole`; of nothing everything is possible."""
        if whole == 0:
            return cls(None, 0.0, 1.0)
        p, z2 = part / whole, QUANTILE_95**2
        middle = (p + z2 / (2 * whole)) / (1 + z2 / whole)
        half = QUANTILE_95 / (1 + z2 / whole) * sqrt(p * (1 - p) / whole + z2 / (4 * whole**2))
        return cls(p, middle - half if part else 0.0, middle + half if part < whole else 1.0)  # but for rounding


@dataclass(frozen=True)
class Mean:
    """The mean of a property's principal number so far, with its 95 % interval; one number alone has none."""

    model_label: str
    members: int
    value: float
    half_width: float | None


@dataclass(frozen=True)
class Rate:
    """What a process that works on the campaign gets done.

    Attributes
    ----------
    worker
        host and process.
    device
        where its force calls run.
    materials_per_second, atoms_per_second
        since it began with its chunk.
    done
        members of the chunk.
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
    name, state, property
        of the campaign.
    members
        in all.
    finished, failed, pending
        of these.
    failures
        members by the class of their failure.
    failed_share
        of those that are done.
    answer
        name of the principal number, with its unit.
    means
        of it, by force field.
    rates
        of the processes that are at work.
    lost_runs
        processes that died at work.
    fireworks
        by state.
    seconds_left
        at the present rate; None: nobody is at work, or nothing was done yet.
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
    fireworks: dict[str, int] = field(default_factory=dict)
    seconds_left: float | None = None


def campaign_status(store: Store, name: str) -> CampaignStatus:
    """How far a campaign is.

    Raises
    ------
    InputError
        no such campaign.
    """
    campaign = campaign_of(store, name)
    spec = CampaignSpec.model_validate(campaign["spec"])
    rows = counts(store, name)
    states: Counter[str] = Counter()
    for row in rows:
        states[row["state"]] += row["members"]
    failures: Counter[str] = Counter()
    for row in rows:
        if row["state"] == "failed":
            failures[row["failure"]] += row["members"]
    all_runs = runs(store, name)
    working = _at_work(store, [run for run in all_runs if run["state"] == "running"])
    return CampaignStatus(
        name=name,
        state=campaign["state"],
        property=spec.property,
        members=sum(states.values()),
        finished=states["finished"],
        failed=states["failed"],
        pending=states["pending"],
        failures=dict(failures.most_common()),
        failed_share=Share.of(states["failed"], states["failed"] + states["finished"]),
        answer=answer_summary_field(spec),
        means=_means(rows),
        rates=tuple(_rate(run) for run in working),
        lost_runs=sum(run["state"] == "died" for run in all_runs),
        fireworks=campaign_firework_states(store.database, name),
        seconds_left=_seconds_left(rows, working),
    )


def _at_work(store: Store, begun: Sequence[Row]) -> list[Row]:
    """The runs whose process lives, however long ago it said something: one conductivity may take hours."""
    known = holders(store.database) if begun else {}
    return [run for run in begun if known.get(run["worker"], _age(run["updated_at"]) < QUIET_SECONDS)]


def _means(rows: Sequence[Row]) -> tuple[Mean, ...]:
    found = []
    for row in sorted(rows, key=lambda row: row["model_label"]):
        if row["state"] == "finished" and row["measured"]:
            deviation = row["deviation"]
            width = QUANTILE_95 * deviation / sqrt(row["measured"]) if deviation is not None else None
            found.append(Mean(row["model_label"], row["measured"], row["mean"], width))
    return tuple(found)


def _rate(run: Row) -> Rate:
    seconds = max((run["updated_at"] - run["started_at"]).total_seconds(), 1e-3)
    return Rate(run["worker"], run["device"], run["done"] / seconds, run["atoms"] / seconds, run["done"])


def _seconds_left(rows: Sequence[Row], working: Sequence[Row]) -> float | None:
    """Predicted cost that is pending, by what those at work get done of it together."""
    pending = sum(row["cost"] for row in rows if row["state"] == "pending")
    if pending == 0:
        return 0.0
    speed = sum(run["cost"] / max((run["updated_at"] - run["started_at"]).total_seconds(), 1e-3) for run in working)
    return pending / speed if speed else None


def _age(moment: datetime) -> float:
    return (datetime.now(UTC) - moment).total_seconds()
