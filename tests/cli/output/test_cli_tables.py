"""Tables in a terminal of some width and in a pipe."""

import pytest
from rich.table import Table
from rich.text import Text

from esen_flows.cli.output.tables import natural_width, number_text, show


def example() -> Table:
    table = Table("key", "model", caption="a caption")
    table.add_column("frequency\n(THz)", justify="right")
    table.add_row("669183ac8828", "a_force_field_with_a_long_name", "-0.0000004333")
    table.add_row("ecc5c289d48c", "emt [1] with a name of several words", "12.794")
    return table


@pytest.fixture
def terminal(monkeypatch: pytest.MonkeyPatch):
    """A terminal of some width."""

    def of(width: int) -> None:
        monkeypatch.setenv("FORCE_COLOR", "1")
        monkeypatch.setenv("TERM", "xterm")
        monkeypatch.setenv("NO_COLOR", "1")
        monkeypatch.setenv("COLUMNS", str(width))

    return of


def plain(capsys: pytest.CaptureFixture[str]) -> str:
    """What was printed, without bold type."""
    return Text.from_ansi(capsys.readouterr().out).plain


def test_a_pipe_gets_plain_whole_lines(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setenv("COLUMNS", "20")
    show(example())
    lines = capsys.readouterr().out.splitlines()
    assert lines[2:] == [
        "669183ac8828  a_force_field_with_a_long_name        -0.0000004333",
        "ecc5c289d48c  emt [1] with a name of several words         12.794",
        "a caption",
    ]


@pytest.mark.parametrize("width", [20, 50, 80, 120])
def test_numbers_are_never_cut(terminal, capsys: pytest.CaptureFixture[str], width: int) -> None:
    terminal(width)
    show(example())
    shown = plain(capsys)
    assert "-0.0000004333" in shown
    assert "…" not in shown
    # Eight characters for each text and thirteen for the number are the least that can be read.
    assert max(map(len, shown.splitlines())) <= max(width, 8 + 8 + 13 + 10)


def test_folded_text_is_whole(terminal, capsys: pytest.CaptureFixture[str]) -> None:
    terminal(50)
    assert natural_width(example()) == 12 + 36 + 13 + 10
    show(example())
    cells = [line.split("│")[2].strip() for line in plain(capsys).splitlines() if line.count("│") == 4]
    assert "".join(cells).startswith("a_force_field_with_a_long_name")


@pytest.mark.parametrize(
    ("value", "form", "text"),
    [(-4.333e-07, ".3f", "0.000"), (-0.0006, ".3f", "-0.001"), (-3.2, ".2f", "-3.20"), ("11x11x11", "", "11x11x11")],
)
def test_numbers_that_round_to_zero_have_no_sign(value: object, form: str, text: str) -> None:
    assert number_text(value, form) == text
