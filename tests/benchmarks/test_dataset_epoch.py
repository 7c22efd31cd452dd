"""The benchmark of a dataset's first batch: that it measures what it says, and leaves nothing behind."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

BENCHMARK = Path(__file__).resolve().parents[2] / "benchmarks" / "dataset_epoch.py"
if not BENCHMARK.is_file():
    pytest.skip("benchmarks are in the checkout only", allow_module_level=True)


def test_a_small_run_writes_what_it_measured(tmp_path: Path) -> None:
    options = ["--records", "1100", "--folder", str(tmp_path / "d"), "--result", str(tmp_path / "r.json")]
    subprocess.run([sys.executable, str(BENCHMARK), *options], check=True, capture_output=True, timeout=600)
    assert [path.name for path in tmp_path.iterdir()] == ["r.json"]
    result = json.loads((tmp_path / "r.json").read_text())
    assert (result["records"], result["structures_per_batch"], result["batches_of_the_epoch"]) == (1100, 512, 3)
    assert 20 <= result["atoms_per_record"] <= 40
    assert result["open_seconds"] <= result["open_to_order_of_epoch_seconds"] <= result["open_to_first_batch_seconds"]
    peaks = [value for name, value in result.items() if name.startswith("peak_gigabytes")]
    assert len(peaks) == 3
    assert peaks == sorted(peaks)


def test_the_committed_result_keeps_the_bar() -> None:
    result = json.loads((BENCHMARK.parent / "results" / "dataset_epoch.json").read_text())
    assert result["records"] == 1_000_000
    assert result["open_to_first_batch_seconds"] < 30
    assert result["peak_gigabytes_after_the_epoch"] < 2
