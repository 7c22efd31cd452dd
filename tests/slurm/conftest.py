"""A private SLURM, for tests that submit jobs to a real queue."""

from collections.abc import Iterator

import one_node
import pytest
from one_node import SlurmSite


@pytest.fixture(scope="session")
def slurm_site() -> Iterator[SlurmSite]:
    """One node with two stand-in GPUs and the partitions `gpu` and `cpu`; skips if SLURM's programs are missing."""
    if missing := one_node.missing_programs():
        pytest.skip(f"no {', '.join(missing)}; on Debian: .ci/install.sh slurm")
    site = one_node.start()
    yield site
    site.stop()
