"""Durations as a person types them; tests/queue/test_allocation.py has those that queues write."""

import pytest

from esen_flows.durations import parse_duration


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("0", 0), ("90", 90), ("1.5", 1.5), ("45s", 45), ("30m", 1800), ("2h", 7200), ("1.5d", 129600), ("59:07", 3547),
     ("23:30:00", 84600), (" 1-12:00:00 ", 129600)],
)  # fmt: skip
def test_all_ways_to_write_a_duration(text: str, seconds: float) -> None:
    assert parse_duration(text) == seconds


@pytest.mark.parametrize("text", ["", "h", "-5", "nan", "inf", "1e3", "2 hours", "1w", "2h30m", "\u0661h", "9" * 13])
def test_anything_else_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="is no duration; write seconds as 90, or 30m, 2h, 23:30:00 or 1-12:00:00"):
        parse_duration(text)


@pytest.mark.parametrize("text", ["4000d", "320000001", "99999999999-00:00:00"])
def test_more_than_ten_years_are_refused(text: str) -> None:
    with pytest.raises(ValueError, match="is longer than ten years"):
        parse_duration(text)
