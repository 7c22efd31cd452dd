"""A worker that the tests kill: it trains one stage as a flow, and prints each step.

The environment names the store. Arguments: key of the dataset, seed of the stage.
"""

import sys

from copper_stages import stage
from jobflow import run_locally

from esen_flows.makers.training import TrainMaker
from esen_flows.progress import listening
from esen_flows.store.connection import open_store
from esen_flows.store.jobflow_store import job_store


def main(dataset: str, seed: str) -> None:
    """Train to the end."""
    work = TrainMaker(config=stage(seed=int(seed), epochs=8)).make(dataset)
    with listening(lambda kind, done, total, words: print(done, words, flush=True)):
        run_locally(work, log=False, store=job_store(open_store()), raise_immediately=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
