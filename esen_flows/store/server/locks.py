"""Advisory file locks that the kernel gives back when their holder dies, however it dies."""

import contextlib
import fcntl
import os
import time
from pathlib import Path


class FileLock:
    """A lock on a file: shared by many or exclusive to one.

    The lock belongs to the open file, so a descriptor handed to a child process hands over the lock.
    """

    def __init__(self, path: Path, descriptor: int | None = None) -> None:
        self.path = path
        flags = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC
        self.descriptor = os.open(path, flags, 0o600) if descriptor is None else descriptor

    def try_exclusive(self) -> bool:
        """Take the lock alone, at once or not at all."""
        return self._try(fcntl.LOCK_EX)

    def try_shared(self) -> bool:
        """Take the lock together with others, at once or not at all."""
        return self._try(fcntl.LOCK_SH)

    def shared(self, timeout_seconds: float) -> bool:
        """Take the lock together with others, waiting for an exclusive holder; False when the time is over."""
        deadline = time.monotonic() + timeout_seconds
        while not self.try_shared():
            if time.monotonic() > deadline:
                return False
            time.sleep(0.01)
        return True

    def unlock(self) -> None:
        """Give the lock back and keep the file open."""
        fcntl.flock(self.descriptor, fcntl.LOCK_UN)

    def close(self) -> None:
        """Close the file; the lock goes with its last open descriptor."""
        if self.descriptor >= 0:
            descriptor, self.descriptor = self.descriptor, -1
            with contextlib.suppress(OSError):
                os.close(descriptor)

    def _try(self, operation: int) -> bool:
        try:
            fcntl.flock(self.descriptor, operation | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        return True
