"""The allocator is tuned with glibc, and waiting threads sleep unless the user has chosen otherwise."""

import os
import platform
import subprocess
import sys

import pytest

from esen_flows.cli.machine import grow_gpu_segments, yield_waiting_threads


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="mallopt is glibc's")
def test_large_blocks_are_kept() -> None:
    # A freed block of 256 MB stays in the process once trimming and mmap are off, and goes back otherwise.
    code = (
        "import sys, resource, re\n"
        "import numpy as np\n"
        "from esen_flows.cli.machine import tune_allocator\n"
        "if sys.argv[1] == 'tuned': assert tune_allocator()\n"
        "block = np.ones(32_000_000)\n"
        "del block\n"
        "print(int(re.search(r'VmRSS:\\s+(\\d+)', open('/proc/self/status').read()).group(1)) // 1000)"
    )
    resident = {
        mode: int(subprocess.run([sys.executable, "-c", code, mode], capture_output=True, check=True).stdout)
        for mode in ("tuned", "as it is")
    }
    assert resident["tuned"] - resident["as it is"] > 200  # MB


@pytest.mark.parametrize(("own", "expected"), [(None, "passive"), ("active", "active")])
def test_waiting_threads_sleep_unless_the_user_chose(monkeypatch, own, expected):
    monkeypatch.delenv("OMP_WAIT_POLICY", raising=False)
    if own:
        monkeypatch.setenv("OMP_WAIT_POLICY", own)
    yield_waiting_threads()
    assert os.environ["OMP_WAIT_POLICY"] == expected


@pytest.mark.parametrize("own", [None, "PYTORCH_ALLOC_CONF", "PYTORCH_CUDA_ALLOC_CONF"])
def test_memory_on_gpus_grows_in_place_unless_the_user_chose(monkeypatch, own):
    for name in ("PYTORCH_ALLOC_CONF", "PYTORCH_CUDA_ALLOC_CONF"):
        monkeypatch.delenv(name, raising=False)
    if own:
        monkeypatch.setenv(own, "max_split_size_mb:128")
    grow_gpu_segments()
    expected = {None: "expandable_segments:True", "PYTORCH_ALLOC_CONF": None}.get(own, "max_split_size_mb:128")
    assert os.environ.get("PYTORCH_CUDA_ALLOC_CONF") == expected
    monkeypatch.delenv("PYTORCH_CUDA_ALLOC_CONF", raising=False)
