"""Members of a campaign with what is stored of each of their steps, one after the other in little memory."""

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import datetime

from esen_flows.store.bulk import batches
from esen_flows.store.campaigns import members, step_results
from esen_flows.store.database import Row
from esen_flows.store.results import Store

_RESULT_FIELDS = ("key", "kind", "failure", "summary", "provenance", "created_at")


@dataclass(frozen=True)
class MemberRecord:
    """A member and its results.

    Attributes
    ----------
    member
        its row in `campaign_members`.
    steps
        what is stored of its steps, in order (key, kind, failure, summary, provenance, created_at); without those
        that are not there.
    """

    member: Row
    steps: tuple[Row, ...]

    @property
    def answer(self) -> Row | None:
        """The result of the last step, if it is there and finished."""
        last = self.steps[-1] if self.steps else None
        return last if last is not None and last["key"] == self.member["key"] and not last["failure"] else None

    @property
    def message(self) -> str | None:
        """Why it failed, in the words of the error."""
        if self.member["state"] != "failed":
            return None
        failure = next((step["failure"] for step in self.steps if step["failure"]), None)
        return None if failure is None else str(failure["message"])

    @property
    def force_evaluations(self) -> int:
        """Of all steps that are stored."""
        return sum(int(step["provenance"]["force_evaluations"]) for step in self.steps)


@dataclass
class Origins:
    """Where the results of a campaign come from, in total.

    Attributes
    ----------
    versions
        name, version, how many results have it.
    seconds
        by device.
    force_evaluations
        in all.
    first, last
        dates of results.
    """

    versions: dict[str, Counter[str]] = field(default_factory=dict)
    seconds: Counter[str] = field(default_factory=Counter)
    force_evaluations: int = 0
    first: datetime | None = None
    last: datetime | None = None

    def add(self, record: MemberRecord) -> None:
        """Count the results of a member."""
        for step in record.steps:
            origin = step["provenance"]
            self.seconds[origin["device"]] += origin["seconds"]
            self.force_evaluations += origin["force_evaluations"]
            named = {"esen_flows": origin["package_version"], "python": origin["python"], **origin["libraries"]}
            if origin["git_revision"]:
                named["git revision"] = origin["git_revision"]
            for name, found in named.items():
                self.versions.setdefault(name, Counter())[found] += 1
            date = step["created_at"]
            self.first = date if self.first is None else min(self.first, date)
            self.last = date if self.last is None else max(self.last, date)

    def sorted_versions(self) -> dict[str, dict[str, int]]:
        """Versions in the order of their names."""
        return {name: dict(sorted(found.items())) for name, found in sorted(self.versions.items())}

    def sorted_seconds(self) -> dict[str, float]:
        """Seconds in the order of the devices' names, to milliseconds."""
        return {device: round(seconds, 3) for device, seconds in sorted(self.seconds.items())}


def member_rows(store: Store, name: str) -> Iterator[Row]:
    """All members of a campaign, in an order that is the same in every database.

    Parameters
    ----------
    store
        Store of the campaign.
    name
        Name of the campaign.

    Returns
    -------
    Iterator[Row]
        Rows of `campaign_members`, by label, force field and key.
    """
    return members(store, name, order=(("label", 1), ("model_label", 1), ("key", 1)))


def records(store: Store, name: str) -> Iterator[MemberRecord]:
    """Members of a campaign with their current results, without arrays.

    Parameters
    ----------
    store
        Store of the campaign.
    name
        Name of the campaign.

    Yields
    ------
    MemberRecord
        One member, in the order of `member_rows`.
    """
    for rows in batches(member_rows(store, name)):
        for row, steps in zip(rows, step_results(store, rows, _RESULT_FIELDS), strict=True):
            yield MemberRecord(row, steps)
