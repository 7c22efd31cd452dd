"""A worker of the kill tests: claims chunks of results, computes them, and returns to results of other workers.

The environment names the store. Arguments: file for names of computed results, file for acknowledged results, seed of
the order, seconds per result, names of results.
"""

import os
import random
import sys
import time

from result_documents import document, key_of, large_array

from esen_flows.store import blobs
from esen_flows.store.connection import open_store

CHUNK = 8
blobs.CHUNK_BYTES = 2**16  # several chunks to an array, so that some kills come between two of them


def note(file: str, line: str) -> None:
    """Append a line in one write, so that lines of several processes do not mix."""
    descriptor = os.open(file, os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    os.write(descriptor, f"{line}\n".encode())
    os.close(descriptor)


def main(computed: str, acknowledged: str, seed: str, seconds: str, *names: str) -> None:
    """Work until there is a result for every name."""
    dice = random.Random(seed)
    store = open_store()
    left = {key_of(name): name for name in names}
    keys = list(left)
    dice.shuffle(keys)
    print("ready", flush=True)
    while left:
        missing = [key for key in keys if key in left]
        for start in range(0, len(missing), CHUNK):
            chunk = store.claim_many(missing[start : start + CHUNK])
            for claim in chunk.claims:
                note(computed, left[claim.key])
                time.sleep(dice.uniform(0.0, 2 * float(seconds)))
                # The time makes every attempt different, as rounding errors on a GPU would.
                noise = time.time() + os.getpid()
                output = {"fc2": large_array(int(claim.key[:8], 16), 0.25), "noise": noise}
                stored = store.commit(claim, document(claim.key, output=output))
                assert stored.output is not None
                note(acknowledged, f"{left[claim.key]} {stored.output['noise']!r}")
            for key in (*chunk.settled, *(claim.key for claim in chunk.claims)):
                del left[key]
        if left:
            time.sleep(0.2)
    store.close()
    print("done", flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
