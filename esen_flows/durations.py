"""Durations, as a person types them and as queues write them, in seconds."""

import re

LONGEST_SECONDS = 3.2e8  # ten years
_UNITS = {"": 1.0, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}


def parse_duration(text: str) -> float:
    """Seconds of a duration as a person types it.

    Parameters
    ----------
    text
        Seconds (90, 1.5), a number with a unit (45s, 30m, 2h, 1.5d), or [D-]H:MM:SS or MM:SS as queues write it.

    Returns
    -------
    float
        Seconds, from 0 to ten years.

    Raises
    ------
    ValueError
        The text is no duration, or one of more than ten years.

    Examples
    --------
    >>> parse_duration("90"), parse_duration("2h"), parse_duration("1-00:30:00")
    (90.0, 7200.0, 88200.0)
    """
    seconds = clock_seconds(text)
    number = re.fullmatch(r"(\d{1,12}(?:\.\d{0,12})?|\.\d{1,12})\s*([smhd]?)", text.strip(), flags=re.ASCII)
    if seconds is None and number is not None:
        seconds = float(number[1]) * _UNITS[number[2]]
    if seconds is None:
        raise ValueError(f"{text[:40]!r} is no duration; write seconds as 90, or 30m, 2h, 23:30:00 or 1-12:00:00")
    if seconds > LONGEST_SECONDS:
        raise ValueError(f"{text[:40]!r} is longer than ten years; give a shorter time")
    return seconds


def clock_seconds(text: str) -> float | None:
    """Seconds of a duration as queues write it.

    Parameters
    ----------
    text
        D-HH:MM:SS, HH:MM:SS or MM:SS.

    Returns
    -------
    float | None
        Seconds; None for UNLIMITED and anything else.

    Examples
    --------
    >>> clock_seconds("1-00:30:00"), clock_seconds("UNLIMITED")
    (88200.0, None)
    """
    match = re.fullmatch(r"(?:(\d{1,12})-)?(?:(\d{1,12}):)?(\d{1,12}):(\d{1,12})", text.strip())
    if match is None:
        return None
    days, hours, minutes, seconds = (int(part or 0) for part in match.groups())
    return float(((days * 24 + hours) * 60 + minutes) * 60 + seconds)
