"""Advisory file locks, which the kernel releases when their holder dies for any reason."""

import contextlib
import fcntl
import os
import time
from pathlib import Path


class FileLock:
    """A lock on a file: shared by many holders, or exclusive to one.

    The lock belongs to the open file: a child process that inherits the descriptor holds the lock as well.

    Parameters
    ----------
    path
        File of the lock; made if it is missing.
    """

    def __init__(self, path: Path) -> None:
        self.descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)

    def try_exclusive(self) -> bool:
        """Take the exclusive lock without waiting.

        Returns
        -------
        bool
            Whether the lock is held.
        """
        return self._try(fcntl.LOCK_EX)

    def shared(self, timeout_seconds: float) -> bool:
        """Take the shared lock, waiting for the holder of an exclusive one.

        Parameters
        ----------
        timeout_seconds
            Longest time to wait.

        Returns
        -------
        bool
            Whether the lock is held.
        """
        deadline = time.monotonic() + timeout_seconds
        while not self._try(fcntl.LOCK_SH):
            if time.monotonic() > deadline:
                return False
            time.sleep(0.01)
        return True

    def unlock(self) -> None:
        """Release the lock and keep the file open."""
        fcntl.flock(self.descriptor, fcntl.LOCK_UN)

    def close(self) -> None:
        """Close the file; the lock is released with the last open descriptor of this file."""
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
