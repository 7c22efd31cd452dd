"""The test site is a queue that gives each GPU to one job at a time."""

from pathlib import Path

import pytest
from one_node import SlurmSite, wait_for

pytestmark = pytest.mark.slurm

HOLD = """#!/bin/bash
echo "$CUDA_VISIBLE_DEVICES" >"$1/$SLURM_JOB_ID"
while [ ! -e "$1/done" ]; do sleep 0.1; done
"""


def test_two_jobs_have_a_gpu_each_and_a_third_waits(slurm_site: SlurmSite, tmp_path: Path) -> None:
    script = tmp_path / "hold.sh"
    script.write_text(HOLD)
    options = ("--gres=gpu:1", "--cpus-per-task=1", "--mem=10", f"--output={tmp_path}/log-%j", str(script))
    jobs = [slurm_site.submit(*options, str(tmp_path)) for _ in range(3)]
    wait_for("two jobs", lambda: all((tmp_path / job).exists() for job in jobs[:2]))
    assert sorted((tmp_path / job).read_text().strip() for job in jobs[:2]) == ["0", "1"]
    assert slurm_site.state(jobs[2]) == "PENDING"
    (tmp_path / "done").touch()
    assert slurm_site.wait(*jobs) == ["COMPLETED"] * 3
    assert (tmp_path / jobs[2]).read_text().strip() in ("0", "1")
