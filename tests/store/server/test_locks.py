"""Locks end with their holder, and child processes inherit them."""

import os
import subprocess
import sys
from pathlib import Path

from esen_flows.store.server.locks import FileLock


def test_shared_and_exclusive(tmp_path: Path) -> None:
    first, second, third = (FileLock(tmp_path / "lock") for _ in range(3))
    assert first.shared(timeout_seconds=0)
    assert second.shared(timeout_seconds=0)
    assert not third.try_exclusive()
    first.close()
    assert not third.try_exclusive()
    second.unlock()
    assert third.try_exclusive()
    assert not second.shared(timeout_seconds=0.05)
    third.close()
    third.close()  # closing again has no effect
    assert second.shared(timeout_seconds=0.05)
    second.close()


def test_a_child_that_inherits_the_descriptor_holds_the_lock(tmp_path: Path) -> None:
    lock, other = FileLock(tmp_path / "lock"), FileLock(tmp_path / "lock")
    assert lock.try_exclusive()
    child = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE, pass_fds=(lock.descriptor,))
    lock.close()
    assert not other.try_exclusive()
    child.kill()
    child.communicate()
    assert other.try_exclusive()
    other.close()


def test_a_child_without_the_descriptor_does_not_hold_the_lock(tmp_path: Path) -> None:
    lock, other = FileLock(tmp_path / "lock"), FileLock(tmp_path / "lock")
    assert lock.try_exclusive()
    child = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    lock.close()
    assert other.try_exclusive()
    child.kill()
    child.communicate()
    other.close()
    assert (tmp_path / "lock").stat().st_mode & 0o777 == 0o600
    assert os.listdir(tmp_path) == ["lock"]
