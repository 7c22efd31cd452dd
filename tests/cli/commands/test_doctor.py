"""`esen-flows doctor`: one level per line, and a status that a script can use."""

import pytest
from command_line import run

from esen_flows.cli.commands import doctor
from esen_flows.errors import ModelError
from esen_flows.schemas import card


def levels(capsys: pytest.CaptureFixture[str]) -> dict[str, str]:
    """Level of each line, by what it is about."""
    lines = capsys.readouterr().out.splitlines()
    return {line[9:].split("  ")[0].strip(): line.split()[0] for line in lines[1:-1]}


@pytest.fixture
def healthy(monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine whose server is in order, as this one need not be."""
    monkeypatch.setattr(doctor, "_database", lambda: iter([("mongod", "8.0", "ok")]))


def test_packages_that_are_not_there_are_no_fault(
    healthy: None, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("esen_flows.schemas.model_card.find_spec", lambda name: None)

    def absent(name: str) -> None:
        raise ModelError("not installed")

    monkeypatch.setattr(card, "resolve_model", absent)
    assert run("doctor") == 0
    found = levels(capsys)
    assert found["model sevennet_0"] == found["model esen_30m_oam"] == "ok"
    assert found["model esen_silicon"] == "warning"  # its checkpoint is part of the checkout


def test_what_prevents_computing_is_an_error(
    healthy: None, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(doctor, "_database", lambda: iter([("mongod", "none was found", "error")]))
    assert run("doctor") == 1
    out = capsys.readouterr().out
    assert ["error", "mongod", "none", "was", "found"] in [line.split() for line in out.splitlines()]
    assert "1 errors" in out
