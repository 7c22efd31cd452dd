"""The page of a campaign holds the numbers of its report."""

import csv
from collections.abc import Iterator

import emt_campaigns
import pytest

from esen_flows.campaigns.report import CampaignReport, write_report
from esen_flows.errors import InputError
from esen_flows.reports.campaign import campaign_page
from esen_flows.reports.page import Chart, Page, Part, Table
from esen_flows.reports.render import page_html
from esen_flows.settings import Settings
from esen_flows.store.results import Store

pytestmark = pytest.mark.mongod
COUNT = 10  # one of them is iron
DESCRIPTION = "metals </script><b>of</b> EMT"


@pytest.fixture(scope="module")
def store(embedded_settings: Settings) -> Iterator[Store]:
    """Campaign c, and d of the same structures with a looser limit of forces."""
    with emt_campaigns.empty_database(embedded_settings) as found:
        crystals = emt_campaigns.crystals(COUNT)
        emt_campaigns.finish(found, crystals, description=DESCRIPTION)
        emt_campaigns.finish(found, crystals, "d", settings=emt_campaigns.SETTINGS | {"fmax_ev_per_angstrom": 0.5})
        yield found


@pytest.fixture(scope="module")
def report(store: Store, tmp_path_factory: pytest.TempPathFactory) -> CampaignReport:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("esen_flows.campaigns.report._draw", lambda *arguments: [])  # pages draw their own figures
        return write_report(store, "c", tmp_path_factory.mktemp("report"))


@pytest.fixture(scope="module")
def page(store: Store, report: CampaignReport) -> Page:
    return campaign_page(store, report, "d")


def parts(page: Page, title: str) -> list[Part]:
    return next(list(section.parts) for section in page.sections if section.title == title)


def table(page: Page, title: str) -> Table:
    return next(part for part in parts(page, title) if isinstance(part, Table))


def column(found: Table, title: str) -> list[object]:
    place = [each.title for each in found.columns].index(title)
    return [row[place] for row in found.rows]


def test_every_member_is_a_row_with_its_numbers(page: Page, report: CampaignReport) -> None:
    rows = list(csv.DictReader(report.members.open()))
    members = table(page, "Members")
    assert members.is_searchable
    assert column(members, "member") == [row["label"] for row in rows]
    assert column(members, "state") == [row["state"] for row in rows]
    energies = [float(row["energy_per_atom_ev"]) if row["energy_per_atom_ev"] else None for row in rows]
    assert column(members, "energy") == energies
    assert column(members, "key") == [row["key"][:12] for row in rows]
    assert column(members, "message") == [row["message"] for row in rows]


def test_headings_have_units(page: Page) -> None:
    units = {each.title: each.unit for each in table(page, "Members").columns}
    assert units["energy"] == "eV/atom"
    assert units["volume"] == "Å³/atom"
    assert units["pressure"] == "GPa"
    assert units["a"] == "Å"
    assert units["computing time"] == "s"


def test_facts_failures_and_force_fields(page: Page) -> None:
    facts = dict(page.facts)
    assert (facts["members"], facts["finished"], facts["failed"], facts["pending"]) == ("10", "9", "1", "0")
    failures = table(page, "Failures")
    assert list(failures.rows[0])[:2] == ["UnknownElementError", 1]
    assert column(table(page, "Force fields"), "finished") == [9]


def test_the_charts_have_a_name_for_every_point(page: Page) -> None:
    cost = next(part for part in parts(page, "Results") if isinstance(part, Chart) and part.x.logarithmic)
    assert len(cost.traces[0].labels) == len(cost.traces[0].x) == 9
    assert "m0 · Cu" in cost.traces[0].labels


def test_settings_that_differ_come_first(page: Page) -> None:
    settings = table(page, "Settings")
    assert list(settings.rows[0]) == ["settings.fmax_ev_per_angstrom", "0.2", "0.5", "yes"]
    assert [row[-1] for row in settings.rows[1:]] == [""] * (len(settings.rows) - 1)


def test_members_are_compared_with_the_other_campaign(page: Page, store: Store) -> None:
    found = parts(page, "Comparison with d")
    assert str(found[0]).startswith("10 members are in both campaigns, 0 only in d and 0 only here")
    chart = next(part for part in found if isinstance(part, Chart))
    assert chart.has_diagonal
    assert len(chart.traces[0].x) == 9
    assert chart.x.unit == chart.y.unit == "eV/atom"
    moves = next(part for part in found if isinstance(part, Table) and "Largest" in part.title)
    changes = [abs(float(value)) for value in column(moves, "change")]  # type: ignore[arg-type]
    assert changes == sorted(changes, reverse=True)


def test_unaudited_force_fields_and_provenance(page: Page) -> None:
    assert column(table(page, "Audits"), "verdict") == ["not audited"]
    versions = next(part for part in parts(page, "Provenance") if isinstance(part, Table) and part.title == "Versions")
    assert dict(zip(column(versions, "package"), column(versions, "results"), strict=True))["ase"] == COUNT


def test_the_page_escapes_the_description(page: Page) -> None:
    html = page_html(page)
    assert "metals &lt;/script&gt;&lt;b&gt;of&lt;/b&gt; EMT" in html
    assert DESCRIPTION not in html


def test_an_unknown_other_campaign(store: Store, report: CampaignReport) -> None:
    with pytest.raises(InputError, match="no campaign"):
        campaign_page(store, report, "e")
