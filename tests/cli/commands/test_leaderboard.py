"""`esen-flows leaderboard`: the published table and its correlations."""

import json
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest

from esen_flows.campaigns.audits import AuditVerdict
from esen_flows.cli.app import main
from esen_flows.cli.commands import leaderboard
from esen_flows.metrics import correlations
from esen_flows.metrics.correlations import passing
from esen_flows.metrics.published import LeaderboardRow, published_rows
from esen_flows.metrics.statistics import correlation
from esen_flows.schemas.card import resolve_model


def run(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str, str]:
    with pytest.raises(SystemExit) as stop:
        main(["leaderboard", *arguments])
    out, err = capsys.readouterr()
    return int(stop.value.code or 0), out, err


def test_a_table_that_fits_the_terminal(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    code, out, _ = run(capsys, "--rows", "60", "--superseded")
    assert code == 0
    assert max(map(len, out.splitlines())) <= 80
    lines = {line.split()[0]: line.split()[1:] for line in out.splitlines() if line.strip()}
    assert lines["esen-30m-mp"] == ["0.797", "0.831", "5.26", "0.033", "0.340", "0.075", "0.417", "0.593"]
    assert "0.019*" in lines["sevennet-0"]
    assert "2 more models; show them with --rows 62" in out


def test_compliant_models_in_another_order(capsys: pytest.CaptureFixture[str]) -> None:
    code, out, _ = run(capsys, "--compliant", "--sort", "κ_SRME", "--json")
    assert code == 0
    rows = json.loads(out)
    assert all(row["compliant"] for row in rows)
    srme = [row["metrics"]["κ_SRME"] for row in rows if "κ_SRME" in row["metrics"]]
    assert srme == sorted(srme)
    code, _, err = run(capsys, "--sort", "f1")
    assert code == 1
    assert "no model has the metric 'f1'" in err


def test_figure(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    code, out, _ = run(capsys, "--figure", str(tmp_path / "board.png"), "--rows", "1")
    assert (code, (tmp_path / "board.png").is_file(), "board.png" in out) == (0, True, True)


def test_errors_tell_of_physics_among_conservative_models(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The claim of the eSEN paper, from the cards: the correlation with kappa is stronger without direct forces."""
    monkeypatch.setattr(correlations, "correlation", partial(correlation, resamples=50))  # thousands take 4 s
    code, out, _ = run(capsys, "correlation", "--json")
    assert code == 0
    found = json.loads(out)
    every, conservative = found["all with forces"]["κ_SRME"], found["conservative"]["κ_SRME"]
    assert conservative["pearson"] > every["pearson"] + 0.1
    assert conservative["n"] < every["n"]
    code, out, _ = run(capsys, "correlation")
    assert (code, "conservative" in out) == (0, True)
    assert "entropy" not in out  # which no card has


def test_a_correlation_as_a_figure(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    # Their bootstrap intervals take seconds, and are tested above.
    monkeypatch.setattr("esen_flows.cli.commands.leaderboard.error_correlations", lambda rows, error: {})
    code, _, _ = run(capsys, "correlation", "--figure", str(tmp_path / "one.png"), "--against", "unique_F1")
    assert (code, (tmp_path / "one.png").is_file()) == (0, True)
    code, _, err = run(capsys, "correlation", "--error", "n_parameters", "--figure", str(tmp_path), "--against", "x")
    assert (code, "no model has both n_parameters and x" in err) == (1, True)


def test_models_are_judged_by_the_audits_of_the_database(monkeypatch: pytest.MonkeyPatch) -> None:
    own = LeaderboardRow("emt", "emt", False, True, False, {}, "a campaign")
    published = [row for row in published_rows() if row.key in ("chgnet-0.3.0", "sevennet-0")]
    failed = AuditVerdict(resolve_model("emt").key, "emt", "float64", False, "rotation 1 > 0 (Cu)", 25, "Cu", "")
    # The second is a file of a user that is called as a published force field.
    verdicts = [
        failed,
        replace(failed, model_key="b", model_label="chgnet"),
        replace(failed, model_key="c", model_label="sevennet_0"),
    ]
    monkeypatch.setattr(leaderboard, "_key_of_card", {"sevennet_0": "c", "chgnet": "another"}.get)
    monkeypatch.setattr("esen_flows.cli.store.existing_store", lambda: True)
    by_model = {one.model_key: one for one in verdicts}
    monkeypatch.setattr("esen_flows.campaigns.audits.verdicts_by_model", lambda store: by_model)
    audited = leaderboard._audited([own, *published])
    assert audited == {"emt": False, "sevennet-0": False}
    assert [row.key for row in passing([own, *published], audited)] == ["chgnet-0.3.0"]
    assert passing([own]) == [own]
    monkeypatch.setattr("esen_flows.cli.store.existing_store", lambda: None)
    assert leaderboard._audited([own, *published]) == {}
