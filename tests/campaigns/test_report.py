"""A report agrees with the documents: all members, totals, examples, figures."""

import csv
import json
from collections.abc import Iterator
from pathlib import Path

import emt_campaigns
import numpy as np
import pytest

from esen_flows.campaigns.report import write_report
from esen_flows.campaigns.status import Share
from esen_flows.schemas.property_lookup import entry_of
from esen_flows.settings import Settings
from esen_flows.store.campaign_progress import Outcome, record_outcomes
from esen_flows.store.results import Store

pytestmark = pytest.mark.mongod
COUNT = 20  # two of them are iron


@pytest.fixture(scope="module")
def finished(embedded_settings: Settings) -> Iterator[Store]:
    with emt_campaigns.empty_database(embedded_settings) as store:
        emt_campaigns.finish(store, emt_campaigns.crystals(COUNT), description="metals")
        yield store


@pytest.fixture(scope="module")
def folder(finished: Store, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("report") / "c"
    seen: list[None] = []
    files = write_report(finished, "c", folder, on_member=lambda: seen.append(None)).files
    assert len(seen) == COUNT
    assert sorted(path.name for path in folder.iterdir()) == sorted(file.name for file in files)
    return folder


def test_every_member_has_a_row_with_its_numbers(finished: Store, folder: Path) -> None:
    rows = list(csv.DictReader((folder / "members.csv").open()))
    assert [row["label"] for row in rows] == sorted(f"m{i}" for i in range(COUNT))
    assert {value.name for value in entry_of("relax").summary} < set(rows[0])
    for row in rows:
        stored = finished.get(row["key"])
        assert (row["state"], row["model"]) == (stored.state, "emt")
        assert int(row["force_evaluations"]) == stored.provenance.force_evaluations
        if stored.failure is None:
            assert float(row["energy_per_atom_ev"]) == stored.summary["energy_per_atom_ev"]
            assert float(row["seconds"]) == stored.provenance.seconds
            assert row["failure"] == row["message"] == ""
        else:
            assert (row["failure"], row["message"]) == (stored.failure.error, stored.failure.message)
            assert row["energy_per_atom_ev"] == ""


def test_sums_are_those_of_the_rows(finished: Store, folder: Path) -> None:
    found = json.loads((folder / "summary.json").read_text())
    rows = list(csv.DictReader((folder / "members.csv").open()))
    assert found["members"] == COUNT
    assert {state: share["members"] for state, share in found["states"].items()} == {
        "finished": 18, "failed": 2, "pending": 0,
    }  # fmt: skip
    assert found["failures"]["UnknownElementError"]["members"] == 2
    share = Share.of(2, COUNT)
    assert found["states"]["failed"] == {"members": 2, "value": 0.1, "low": share.low, "high": share.high}
    energies = np.array([float(row["energy_per_atom_ev"]) for row in rows if row["state"] == "finished"])
    (model,) = found["models"]
    assert model["mean"] == pytest.approx(energies.mean(), rel=1e-12)
    half = 1.959964 * energies.std(ddof=1) / np.sqrt(18)
    assert model["mean_high"] - model["mean"] == pytest.approx(half, rel=1e-9)
    assert found["force_evaluations"] == sum(int(row["force_evaluations"]) for row in rows)
    seconds = [document["provenance"]["seconds"] for document in finished.database["results"].find()]
    assert found["total_device_hours"] == pytest.approx(sum(seconds) / 3600, rel=1e-9)
    assert sum(found["versions"]["ase"].values()) == COUNT
    dates = [document["created_at"].isoformat() for document in finished.database["results"].find()]
    assert (found["first_result"], found["last_result"]) == (min(dates), max(dates))


def test_the_text_has_the_same_numbers(folder: Path) -> None:
    text = (folder / "report.md").read_text()
    assert "# Campaign c\n\nmetals\n" in text
    assert "| failed | 2 | 10.00% (2.79% to 30.10%) |" in text  # Wilson's interval of 2 in 20
    assert "### UnknownElementError, for example" in text
    assert "| m19 | Fe" in text
    assert "## The 10 slowest members" in text
    slowest = text.split("slowest members")[1].split("##")[0].strip().splitlines()[2:]
    took = [float(line.split("|")[6]) for line in slowest]
    assert len(took) == 10
    assert took == sorted(took, reverse=True)
    for name in ("progress", "distribution", "cost"):
        assert f"({name}.png)" in text
        assert (folder / f"{name}.svg").stat().st_size > 3000


def test_a_campaign_that_has_not_begun_has_a_report(named_store: Store, tmp_path: Path) -> None:
    keys = emt_campaigns.plan(named_store, emt_campaigns.crystals(2))
    files = write_report(named_store, "c", tmp_path).files
    assert [file.name for file in files] == ["members.csv", "summary.json", "report.md"]
    found = json.loads((tmp_path / "summary.json").read_text())
    assert found["states"]["pending"]["members"] == 2
    assert found["models"][0]["mean"] is None
    assert found["first_result"] is None
    record_outcomes(named_store, "c", [Outcome(keys[0], "finished", None, 2.0, -1.0)])
    write_report(named_store, "c", tmp_path)
    (model,) = json.loads((tmp_path / "summary.json").read_text())["models"]
    assert (model["mean"], model["mean_low"], model["deviation"]) == (
        -1.0,
        None,
        None,
    )  # one value has no interval
