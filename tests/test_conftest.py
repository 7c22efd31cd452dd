"""How the suite is run: skips that CI must not have are failures; folders of tests get several processes."""

import os
import shutil
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

TESTS = """
import pytest

@pytest.mark.mongod
def test_marked():
    pytest.skip("no mongod found")

@pytest.mark.mongod
@pytest.mark.xfail(reason="known")
def test_expected_failure():
    assert False

@pytest.mark.mongod
@pytest.mark.skipif(True, reason="wrong platform")
def test_skipped_by_mark():
    pass

def test_unmarked():
    pytest.skip("not needed")
"""


@pytest.mark.parametrize(
    ("required", "counts"),
    [
        ("shared", "3 skipped, 1 xfailed"),
        ("mongod", "1 failed, 1 skipped, 1 xfailed, 1 error"),
    ],
)
def test_required_markers_may_not_be_skipped(tmp_path: Path, required: str, counts: str) -> None:
    shutil.copy(Path(__file__).with_name("conftest.py"), tmp_path)
    (tmp_path / "test_some.py").write_text(TESTS)
    (tmp_path / "pytest.ini").write_text("[pytest]\nmarkers =\n    mongod\n    shared\n")
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", str(tmp_path)],
        cwd=tmp_path,
        env={**os.environ, "ESEN_FLOWS_REQUIRE": required},
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
    )
    # A skip during set-up becomes an error, one in the body a failure; either fails the run.
    assert f"{counts} in" in done.stdout
    if required == "mongod":
        assert "ESEN_FLOWS_REQUIRE names mongod: Skipped: no mongod found" in done.stdout


@pytest.mark.parametrize(("cores", "for_folders"), [(1, 0), (2, 2), (3, 3), (64, 4)])
def test_folders_of_tests_get_processes_and_single_files_do_not(
    pytestconfig: pytest.Config, monkeypatch: pytest.MonkeyPatch, cores: int, for_folders: int
) -> None:
    folder, file = str(Path(__file__).parent), __file__
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: set(range(cores)))
    processes = pytestconfig.hook.pytest_xdist_auto_num_workers
    assert processes(config=SimpleNamespace(args=[folder])) == for_folders
    assert processes(config=SimpleNamespace(args=[folder, file])) == 0
    assert processes(config=SimpleNamespace(args=[f"{file}::test_one"])) == 0
