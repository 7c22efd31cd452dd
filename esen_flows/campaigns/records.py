"""Members of a campaign with what is stored of each of their steps, one after the other in little memory."""

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from esen_flows.store.bulk import batches
from esen_flows.store.database import Row
from esen_flows.store.queries.query import BATCH, fetch
from esen_flows.store.results import Store

_OF_RESULTS = ("key", "kind", "failure", "summary", "provenance", "created_at")


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
    """All members of a campaign in the order of label, force field and key, which is the same in every database."""
    db = store.database
    order = [("label", 1), ("model_label", 1), ("key", 1)]
    sought = db["campaign_members"]
    ids: list[Any] = db.call(
        lambda: [row["_id"] for row in sought.find({"campaign": name}, {"_id": 1}).sort(order).allow_disk_use(True)]
    )
    return fetch(store, "campaign_members", ids, {})


def member_count(store: Store, name: str, state: str | None = None) -> int:
    """How many members a campaign has, in one state or in all."""
    db = store.database
    query = {"campaign": name} if state is None else {"campaign": name, "state": state}
    return int(db.call(lambda: db["campaign_members"].count_documents(query)))


def records(store: Store, name: str) -> Iterator[MemberRecord]:
    """Members, in the order of `member_rows`, with their current results without arrays."""
    db = store.database
    projection = dict.fromkeys(_OF_RESULTS, True)
    found_members = member_rows(store, name)
    for rows in batches(found_members, BATCH):
        query = {"key": {"$in": [step for row in rows for step in row["steps"]]}, "current": True}
        found = db.call(lambda: list(db["results"].find(query, projection)))  # noqa: B023
        by_key = {result["key"]: result for result in found}
        for row in rows:
            yield MemberRecord(row, tuple(by_key[step] for step in row["steps"] if step in by_key))
