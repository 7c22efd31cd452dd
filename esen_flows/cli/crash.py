"""The report of an error that nobody expected: one line for the user, and the traceback in a file."""

import os
import platform
import re
import sys
import traceback
from datetime import UTC, datetime
from pathlib import Path

from esen_flows.errors import EsenFlowsError
from esen_flows.files import written_whole
from esen_flows.settings import get_settings
from esen_flows.version import __version__

# Of a URI: a report is made to be sent to others.
_PASSWORD = re.compile(r"//[^/@\s]+@")


def report_of(error: BaseException) -> str:
    """One line that asks for a report, after the traceback was written to a file.

    Parameters
    ----------
    error
        The error.

    Returns
    -------
    str
        What happened, where the traceback is, and what to do. The file is in the data folder of the user, or else in
        the current folder; where neither can be written to, the line says so.
    """
    summary = " ".join(str(error).split())[:200]
    place = _written("".join(traceback.format_exception(error)))
    where = f"its traceback is in {place}" if place else "no file could be written for its traceback"
    line = (
        f"unexpected {type(error).__name__}{': ' if summary else ''}{summary}. This is a fault of esen_flows "
        f"{__version__}, or of the input: {where}; please report it with that file"
    )
    return _PASSWORD.sub("//***@", line)


def _written(text: str) -> Path | None:
    name = f"esen-flows-error-{datetime.now(UTC):%Y%m%dT%H%M%S}-{os.getpid()}.txt"
    # Values of variables and options are left out: they may hold a password.
    head = f"esen_flows {__version__}, Python {platform.python_version()}, {platform.platform()}\n"
    head += f"command: {' '.join(word for word in sys.argv[1:3] if not word.startswith('-'))}\n\n"
    for folder in _folders():
        try:
            folder.mkdir(parents=True, exist_ok=True)
            with written_whole(folder / name) as temporary:
                temporary.touch(mode=0o600)
                temporary.write_text(_PASSWORD.sub("//***@", head + text), encoding="utf-8", errors="backslashreplace")
        except OSError:
            continue
        return folder / name
    return None


def _folders() -> list[Path]:
    try:
        return [get_settings().data_dir / "errors", Path.cwd()]
    except (EsenFlowsError, OSError, ValueError):  # unreadable settings, or a current folder that was removed
        return [Path()]
