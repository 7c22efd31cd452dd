"""A short hostile campaign; `python tests/hostile/campaign.py` runs the whole one."""

import subprocess
import sys
from pathlib import Path

import pytest

from esen_flows.settings import Settings

COUNT = 110


@pytest.mark.mongod
@pytest.mark.slow
def test_hostile_inputs_are_refused(embedded_settings: Settings, tmp_path: Path) -> None:
    script = Path(__file__).with_name("campaign.py")
    command = [sys.executable, script, "--count", str(COUNT), "--seed", "3", "--folder", tmp_path]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=600)
    assert done.returncode == 0, done.stdout[-5000:] + done.stderr[-2000:]
    assert "found: nothing" in done.stdout
    assert int(done.stdout.partition(" inputs in")[0].rpartition("\n")[2]) > 0.9 * COUNT
