"""`esen-flows report`: what a name stands for, and the file that is written."""

import re
from collections.abc import Iterator
from pathlib import Path

import emt_campaigns
import pytest
from click.testing import Result
from typer.testing import CliRunner

from esen_flows.cli.app import app
from esen_flows.errors import InputError
from esen_flows.settings import Settings
from esen_flows.store.results import Store

pytestmark = pytest.mark.mongod
SUBMISSION = Path(__file__).resolve().parents[3] / "benchmarks" / "results" / "kappa_103" / "sevennet-l3i5-kappa"


@pytest.fixture(scope="module")
def finished(embedded_settings: Settings) -> Iterator[Store]:
    with emt_campaigns.empty_database(embedded_settings) as store:
        emt_campaigns.finish(store, emt_campaigns.crystals(3))
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr("esen_flows.campaigns.report._draw", lambda *arguments: [])  # tests/campaigns draws them
            yield store


def run(*arguments: str | Path) -> Result:
    return CliRunner().invoke(app, [str(each) for each in arguments])


def test_a_campaign_has_all_its_files(finished: Store, tmp_path: Path) -> None:
    done = run("report", "c", "-o", tmp_path)
    assert done.exit_code == 0, done.output
    assert {"members.csv", "summary.json", "report.md", "report.html"} <= {path.name for path in tmp_path.iterdir()}
    assert f"wrote {tmp_path}/report.html" in done.output
    assert "<title>c (campaign)</title>" in (tmp_path / "report.html").read_text()


def test_a_result_by_its_key(finished: Store, tmp_path: Path) -> None:
    key = finished.database["results"].find_one({"state": "finished"})["key"]
    done = run("report", key[:10], "-o", tmp_path)
    assert done.exit_code == 0, done.output
    text = (tmp_path / "report.html").read_text()
    assert "relaxation (result)</title>" in text
    assert 'src="data:image/png;base64,' in text  # the figure of the relaxation


def test_a_model_card_and_a_folder(finished: Store, tmp_path: Path) -> None:
    assert run("report", "emt", "-o", tmp_path / "emt").exit_code == 0
    assert "<h1>emt</h1>" in (tmp_path / "emt/report.html").read_text()
    assert run("report", SUBMISSION, "-o", tmp_path / "files").exit_code == 0
    assert "mp-1000" in (tmp_path / "files/report.html").read_text()


def test_the_default_folder_is_named_after_the_target(
    finished: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert run("report", "emt").exit_code == 0
    assert (tmp_path / "results/report-emt/report.html").is_file()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["nothing"], "no campaign .* no model card .* no result key .* and no folder"),
        (["emt", "--against", "chgnet"], "a model card has its comparisons in it"),
        (["c", "--against", "x"], "no campaign"),
        (["c", "--against", "c", "--against", "c"], "takes one campaign"),
        ([str(SUBMISSION), "--against", "c"], "a folder is compared with another folder"),
    ],
)
def test_refusals(finished: Store, arguments: list[str], message: str, tmp_path: Path) -> None:
    done = run("report", *arguments, "-o", tmp_path)
    assert isinstance(done.exception, InputError)
    assert re.search(message, str(done.exception))
    assert not list(tmp_path.glob("*.html"))


def test_a_name_of_two_things_is_asked_back(finished: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    emt_campaigns.plan(finished, emt_campaigns.crystals(1), "emt")
    done = run("report", "emt", "-o", tmp_path)
    named = "emt is the name of a model and of a campaign; say which by --as model or --as campaign"
    assert str(done.exception) == named
    assert run("report", "emt", "--as", "campaign", "-o", tmp_path).exit_code == 0
