"""`campaign report | diff | freeze | reproduce` as they are typed, with their exit codes."""

import csv
import io
import json
from collections.abc import Iterator
from pathlib import Path

import emt_campaigns
import pytest
from click.testing import Result
from typer.testing import CliRunner

from esen_flows.cli.app import app
from esen_flows.cli.usage import UsageError
from esen_flows.errors import InputError
from esen_flows.settings import Settings
from esen_flows.store import campaigns
from esen_flows.store.campaign_progress import Outcome, record_outcomes
from esen_flows.store.campaigns import member_count
from esen_flows.store.results import Store

pytestmark = pytest.mark.mongod
COUNT = 10  # one of them is iron


@pytest.fixture(scope="module")
def finished(embedded_settings: Settings) -> Iterator[Store]:
    with emt_campaigns.empty_database(embedded_settings) as store:
        emt_campaigns.finish(store, emt_campaigns.crystals(COUNT))
        yield store


def run(*arguments: str | Path) -> Result:
    return CliRunner().invoke(app, ["campaign", *map(str, arguments)], env={"COLUMNS": "140"})


def test_a_report(finished: Store, tmp_path: Path) -> None:
    done = run("report", "c", "--output", tmp_path / "new")
    assert done.exit_code == 0, done.output
    assert f"wrote {tmp_path}/new/report.md" in done.output
    assert len(list(csv.DictReader((tmp_path / "new/members.csv").open()))) == COUNT
    assert "<title>c (campaign)</title>" in (tmp_path / "new/report.html").read_text()


def test_a_frozen_campaign_is_reproduced_in_another_database(
    finished: Store, embedded_settings: Settings, tmp_path: Path
) -> None:
    """Without anything stored, interrupted, and then with all of it stored."""
    folder = tmp_path / "frozen"
    assert run("freeze", "c", "-o", folder).exit_code == 0
    assert "10 members (1 failed, 9 finished)" in run("freeze", "c", "-o", tmp_path / "twice").output
    again = run("reproduce", folder)
    assert again.exit_code == 0, again.output
    assert "reproduced: 10 members" in again.output
    with emt_campaigns.empty_database(embedded_settings) as store:
        done = run("reproduce", folder / "manifest.json", "--here", "--name", "there")
        assert done.exit_code == 0, done.output
        assert "10 members in both\n" in done.output
        assert "tolerance, float64: 1e-06 (energy_per_atom_ev)" in done.output
        assert store.database["results"].count_documents({}) == COUNT
        keys = [row["key"] for row in campaigns.members(store, "there", {"label": "m0"})]
        record_outcomes(store, "there", [Outcome(keys[0], "finished", None, 1.0, 7.0)])
        other = run("reproduce", folder, "--name", "there")
        assert other.exit_code == 1
        assert "m0" in other.output


def test_an_interruption_keeps_what_is_done(
    finished: Store, embedded_settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert run("freeze", "c", "-o", tmp_path).exit_code == 0
    monkeypatch.setattr("esen_flows.campaigns.reproduce.SLICE", 3)
    with emt_campaigns.empty_database(embedded_settings) as store:
        with monkeypatch.context() as patch:
            from esen_flows.makers import chunks

            calls: list[str] = []

            def interrupted(*arguments: object) -> object:
                calls.append("chunk")
                if len(calls) == 3:
                    raise KeyboardInterrupt
                return original(*arguments)  # type: ignore[arg-type]

            original = chunks.chunk_job
            patch.setattr(chunks, "chunk_job", interrupted)
            stopped = run("reproduce", tmp_path, "--here")
        assert stopped.exit_code == 130, stopped.output
        assert "the same command continues from there" in stopped.output
        assert member_count(store, "c", "pending") == COUNT - 6
        done = run("reproduce", tmp_path, "--here")
        assert done.exit_code == 0, done.output
        assert store.database["results"].count_documents({}) == COUNT


def test_without_here_the_work_is_submitted(finished: Store, embedded_settings: Settings, tmp_path: Path) -> None:
    assert run("freeze", "c", "-o", tmp_path).exit_code == 0
    with emt_campaigns.empty_database(embedded_settings) as store:
        submitted = run("reproduce", tmp_path, "--name", "q")
        assert submitted.exit_code == 0, submitted.output
        assert "10 members are pending; 1 fireworks were added" in submitted.output
        assert f"then compare: esen-flows campaign reproduce {tmp_path} --name q" in submitted.output.replace("\n", "")
        assert store.database["fireworks"].count_documents({"spec.campaign": "q"}) == 1
        assert store.database["results"].count_documents({}) == 0


def test_differences_as_table_json_and_csv(finished: Store) -> None:
    structures = emt_campaigns.crystals(COUNT)
    emt_campaigns.finish(finished, structures, "d", settings={"fmax_ev_per_angstrom": 0.2, "max_steps": 1})
    table = run("diff", "c", "d")
    assert table.exit_code == 0, table.output
    assert "settings.max_steps" in table.output
    assert "finished → NotConvergedError" in table.output
    found = json.loads(run("diff", "c", "d", "--format", "json").output)
    assert found["settings"] == [{"name": "settings.max_steps", "old": 100, "new": 1}]
    assert found["matched"] == COUNT
    rows = list(csv.DictReader(io.StringIO(run("diff", "c", "d", "--format", "csv").output)))
    assert [row["label"] for row in rows if row["what"] == "class"] == [row["label"] for row in found["changed"]]
    assert run("diff", "c", "d", "--tolerance", "10%").exit_code == 1
    assert run("diff", "c", "c", "--tolerance", "1e-6,0.1%").exit_code == 0
    wrong = run("diff", "c", "d", "--tolerance", "little")
    assert isinstance(wrong.exception, UsageError)
    assert "give a number, a percentage, or both" in str(wrong.exception)
    assert isinstance(run("diff", "c", "d", "--tolerance=-1").exception, UsageError)


def test_an_unknown_campaign_is_refused(finished: Store, tmp_path: Path) -> None:
    for arguments in (("report", "x", "-o", tmp_path), ("freeze", "x", "-o", tmp_path), ("diff", "c", "x")):
        error = run(*arguments).exception
        assert isinstance(error, InputError)
        assert "no campaign 'x'; there are: c" in str(error)
    assert list(tmp_path.iterdir()) == []
