"""Numbers of the command line and the environment that no work could have: refused before anything begins."""

import pytest
from command_line import run
from hypothesis import given
from hypothesis import strategies as st

from esen_flows.durations import clock_seconds
from esen_flows.errors import InputError
from esen_flows.schemas.protocol_fields import parse_value
from esen_flows.settings import get_settings


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--processes", "100000"], "should be less than or equal to 1024"),
        (["--threads", "100000"], "should be less than or equal to 1024"),
        (["--walltime", "99999999999-00:00:00"], "longer than ten years"),
        (["--walltime", "9" * 500 + "-00:00:00"], "is no duration; write seconds as 90"),
        (["--idle", "nan"], "--idle"),
        (["--idle", "-5"], "--idle"),
        (["--idle", "2 hours"], "write seconds as 90, or 30m, 2h"),
        (["--grace", "4000d"], "longer than ten years"),
        (["--margin", "inf"], "--margin"),
        (["--query", "[" * 100_000], "--query is not JSON"),
        (["--query", "1" * 5000], "--query is not JSON"),
    ],
)
def test_options_of_a_worker(options: list[str], words: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("worker", *options) == 2
    assert words in " ".join(capsys.readouterr().err.replace("│", " ").split())


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("THREADS", "100000"), ("THREADS", "0"), ("MONGOD_IDLE_SECONDS", "nan"), ("MONGOD_IDLE_SECONDS", "-1"),
        ("SERVER_TIMEOUT_SECONDS", "inf"), ("SPOOL_AFTER_SECONDS", "1e300"), ("SPOOL", "perhaps"),
    ],
)  # fmt: skip
def test_variables(name: str, value: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(f"ESEN_FLOWS_{name}", value)
    get_settings.cache_clear()
    try:
        with pytest.raises(InputError, match=f"ESEN_FLOWS_{name}: Input should be"):
            get_settings()
    finally:
        get_settings.cache_clear()


def test_a_variable_that_is_no_text(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setenv("ESEN_FLOWS_MONGO_URI_FILE", "\udc80")
    get_settings.cache_clear()
    try:
        assert run("query", "relax") == 1
        assert "a variable holds bytes that are no text" in capsys.readouterr().err
    finally:
        get_settings.cache_clear()


@given(st.text(alphabet="0123456789-:[]{},.\"' ae\u0661x", max_size=60))
def test_any_text_is_a_value_and_perhaps_a_duration(text: str) -> None:
    parse_value(text)
    seconds = clock_seconds(text)
    assert seconds is None or 0 <= seconds < 1e18
