"""The command line, called as a user calls it."""

from pathlib import Path

import pytest

from esen_flows.cli.app import main


def run(*arguments: str | Path) -> int:
    """Exit status of a command."""
    with pytest.raises(SystemExit) as end:
        main([str(argument) for argument in arguments])
    return int(end.value.code or 0)
