"""Members of a campaign with the stored results of their steps, one after the other in little memory."""

from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import datetime

from esen_flows.schemas.campaign import CampaignSpec, answer_summary_field
from esen_flows.store.bulk import batches
from esen_flows.store.campaign_progress import refresh_states
from esen_flows.store.campaigns import campaign_of, members, step_results
from esen_flows.store.database import Row
from esen_flows.store.results import Store

_RESULT_FIELDS = ("key", "kind", "failure", "summary", "provenance", "created_at")


@dataclass(frozen=True)
class MemberRecord:
    """A member and its results.

    Attributes
    ----------
    member
        Its row in `campaign_members`.
    steps
        Stored results of its steps, in the order of the steps and without those that are missing: key, kind, failure,
        summary, provenance and created_at.
    """

    member: Row
    steps: tuple[Row, ...]

    @property
    def answer(self) -> Row | None:
        """Result of the last step, if it is stored and has not failed."""
        last = self.steps[-1] if self.steps else None
        return last if last is not None and last["key"] == self.member["key"] and not last["failure"] else None

    @property
    def message(self) -> str | None:
        """Message of the error if the member has failed."""
        if self.member["state"] != "failed":
            return None
        failure = next((step["failure"] for step in self.steps if step["failure"]), None)
        return None if failure is None else str(failure["message"])

    @property
    def force_evaluations(self) -> int:
        """Number of force evaluations of all stored steps."""
        return sum(int(step["provenance"]["force_evaluations"]) for step in self.steps)


@dataclass
class Origins:
    """Where the results of a campaign come from, in total.

    Attributes
    ----------
    versions
        Number of results by package and version.
    seconds
        Seconds of computing time by device.
    force_evaluations
        Number of force evaluations.
    first
        Date of the first result; None: there is no result.
    last
        Date of the last result; None: there is no result.
    """

    versions: dict[str, Counter[str]] = field(default_factory=dict)
    seconds: Counter[str] = field(default_factory=Counter)
    force_evaluations: int = 0
    first: datetime | None = None
    last: datetime | None = None

    def add(self, record: MemberRecord) -> None:
        """Count the results of a member.

        Parameters
        ----------
        record
            The member.
        """
        for step in record.steps:
            origin = step["provenance"]
            self.seconds[origin["device"]] += origin["seconds"]
            self.force_evaluations += origin["force_evaluations"]
            versions = {"esen_flows": origin["package_version"], "python": origin["python"], **origin["libraries"]}
            if origin["git_revision"]:
                versions["git revision"] = origin["git_revision"]
            for name, version in versions.items():
                self.versions.setdefault(name, Counter())[version] += 1
            date = step["created_at"]
            self.first, self.last = min(self.first or date, date), max(self.last or date, date)

    def sorted_versions(self) -> dict[str, dict[str, int]]:
        """Versions in alphabetical order.

        Returns
        -------
        dict[str, dict[str, int]]
            Number of results by package and version.
        """
        return {name: dict(sorted(counts.items())) for name, counts in sorted(self.versions.items())}


def refreshed_campaign(store: Store, name: str) -> tuple[Row, CampaignSpec]:
    """A campaign whose members have the states that follow from the stored results.

    Parameters
    ----------
    store
        Store of the campaign.
    name
        Name of the campaign.

    Returns
    -------
    tuple[Row, CampaignSpec]
        Document of the campaign, and its specification.

    Raises
    ------
    InputError
        There is no such campaign.
    """
    campaign = campaign_of(store, name)
    spec = CampaignSpec.model_validate(campaign["spec"])
    refresh_states(store, name, answer_summary_field(spec))
    return campaign, spec


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


def records(store: Store, name: str, on_member: Callable[[], None] | None = None) -> Iterator[MemberRecord]:
    """Members of a campaign with their current results, without arrays.

    Parameters
    ----------
    store
        Store of the campaign.
    name
        Name of the campaign.
    on_member
        Called for each member.

    Yields
    ------
    MemberRecord
        One member, in the order of `member_rows`.
    """
    for rows in batches(member_rows(store, name)):
        for row, steps in zip(rows, step_results(store, rows, _RESULT_FIELDS), strict=True):
            if on_member is not None:
                on_member()
            yield MemberRecord(row, steps)
