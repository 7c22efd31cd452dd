"""A writer that the kill tests kill: requests results, computes missing ones, and notes their names.

Arguments: data folder, file for names, names of results.
"""

import os
import sys
import time
from pathlib import Path

import numpy as np
from result_documents import document, key_of, large_array

from esen_flows.settings import Settings
from esen_flows.store import blobs
from esen_flows.store.claims import Claim
from esen_flows.store.connection import open_store

blobs.CHUNK_BYTES = 2**17  # many chunks, so that some kills come between two of them


def main(data_dir: str, notes: str, *names: str) -> None:
    """Request the results in their order."""
    print("imported", flush=True)
    store = open_store(Settings(mongo_uri=None, data_dir=Path(data_dir), mongod_idle_seconds=120.0))
    for name in names:
        found = store.get_or_claim(key_of(name), wait_seconds=60.0)
        if isinstance(found, Claim):
            with open(notes, "a") as file:
                file.write(f"{name}\n")
            time.sleep(0.01)
            seed = int(key_of(name)[:8], 16)
            # The time makes every attempt different, as rounding errors on a GPU would.
            noise = np.full(40_000, time.time() + os.getpid())
            output = {"fc2": large_array(seed), "noise": noise, "small": np.arange(3)}
            found = store.commit(found, document(key_of(name), output=output))
        assert found.output is not None
        assert found.output["fc2"].shape == (131_072,)
    store.close()
    print("done", flush=True)


main(*sys.argv[1:])
