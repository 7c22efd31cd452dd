"""Formulas and space groups of many structures: spglib takes milliseconds for each, so several processes share them.

The processes run this module itself. Those of `multiprocessing` would import the user's script once more, and forked
ones would inherit the threads of the database driver.
"""

import os
import pickle
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from ase import Atoms

from esen_flows.errors import StructureError
from esen_flows.structures.identity import identify

FEW = 200  # up to this many structures take less time than starting processes
MOST_PROCESSES = 8
_PART = 250  # structures that a process gets at once
Identities = list[dict[str, Any]]


class Identifier:
    """Processes that identify structures; a context, which ends the processes when it is left."""

    def __init__(self) -> None:
        self._started: list[subprocess.Popen[bytes]] = []
        self._of_thread = threading.local()
        # Each thread starts a process of its own, and waits for it.
        self._threads = ThreadPoolExecutor(min(len(os.sched_getaffinity(0)), MOST_PROCESSES), initializer=self._start)

    def __enter__(self) -> "Identifier":
        return self

    def __exit__(self, *error: object) -> None:
        self._threads.shutdown(cancel_futures=True)
        for process in self._started:
            process.communicate()  # closes its input, which ends it

    def begin(self, structures: Sequence[Atoms]) -> Callable[[], Identities]:
        """Begin to identify structures.

        Parameters
        ----------
        structures
            Structures.

        Returns
        -------
        Callable[[], Identities]
            Function that waits for the processes and returns what `identify` gives for each structure. It raises
            StructureError if spglib has ended a process.
        """
        if len(structures) < FEW:
            found = [identify(atoms) for atoms in structures]
            return lambda: found
        parts = [list(structures[begin : begin + _PART]) for begin in range(0, len(structures), _PART)]
        futures = [self._threads.submit(self._identify, part) for part in parts]
        return lambda: [identity for future in futures for identity in future.result()]

    def _start(self) -> None:
        command = [sys.executable, "-m", __name__]
        self._of_thread.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        self._started.append(self._of_thread.process)

    def _identify(self, structures: list[Atoms]) -> Identities:
        process = self._of_thread.process
        try:
            pickle.dump(structures, process.stdin)
            process.stdin.flush()
            found: Identities = pickle.load(process.stdout)
        except (EOFError, BrokenPipeError):
            raise StructureError(
                f"spglib ended its process at one of {len(structures)} structures, from "
                f"{structures[0].get_chemical_formula()} to {structures[-1].get_chemical_formula()}; look for a broken "
                "one among them"
            ) from None
        return found


def main() -> None:
    """Identify structures that come by the standard input, until it is closed."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the parent process, whose end closes the input
    answers = sys.stdout.buffer
    sys.stdout = sys.stderr  # whatever libraries print is not an answer
    while True:
        try:
            structures: list[Atoms] = pickle.load(sys.stdin.buffer)
        except EOFError:
            return
        pickle.dump([identify(atoms) for atoms in structures], answers)
        answers.flush()


if __name__ == "__main__":
    main()
