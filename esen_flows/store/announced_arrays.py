"""Writing arrays before the documents that name them, safe against kills and beside sweeps of other processes."""

import uuid
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

import numpy as np

from esen_flows.store.blobs import BlobStore, is_named_by_document
from esen_flows.store.claims import Claim, Claims
from esen_flows.store.database import Database


@contextmanager
def announced_arrays(
    database: Database, claims: Claims, shas: Sequence[str], array: Callable[[str], np.ndarray]
) -> Iterator[Claim]:
    """Store arrays, protected by a claim that lists them while the block writes the documents that name them.

    Parameters
    ----------
    database
        Open database.
    claims
        Claims of this process.
    shas
        Content keys of the arrays.
    array
        Returns the array of a content key.

    Yields
    ------
    Claim
        The claim. After an error in the block, arrays that no document names are removed.
    """
    blobs = BlobStore(database)
    claim = claims.try_claim(f"arrays {uuid.uuid4().hex}")
    assert claim is not None  # the random name is claimed by nobody else
    try:
        claims.announce_blobs(claim, shas)
        for sha in shas:
            blobs.put(sha, array(sha), claim.token)
        yield claim
    except BaseException:
        blobs.remove_orphans(shas, by_token=claim.token)
        claims.forget(claim)
        raise
    if not claims.forget(claim):
        # Another process took this one for dead, and may have removed the arrays before documents named them.
        for sha in shas:
            if is_named_by_document(database, sha):
                blobs.repair(sha, array(sha))
