"""Jobs that note their devices and wait to be stopped, for workers in queue jobs."""

import os
import time
from pathlib import Path

from jobflow import job

from esen_flows.stopping import raise_if_stopping


def note(file: str, *words: object) -> int:
    """Append a line; the number of lines."""
    with Path(file).open("a") as opened:
        opened.write(" ".join(map(str, words)) + "\n")
    return len(Path(file).read_text().splitlines())


@job
def obey(file: str) -> str:
    """The first time, wait until the process has to end."""
    first = note(file, os.environ.get("CUDA_VISIBLE_DEVICES"), os.environ["OMP_NUM_THREADS"]) == 1
    while first:
        raise_if_stopping()
        time.sleep(0.05)
    return file


@job
def hang(file: str) -> str:
    """The first time, never end."""
    if note(file, os.environ.get("CUDA_VISIBLE_DEVICES"), os.environ["OMP_NUM_THREADS"]) == 1:
        time.sleep(600)
    return file
