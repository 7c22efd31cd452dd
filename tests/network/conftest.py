import pytest
import torch

from esen_flows.native import status
from esen_flows.network.backends.cpu.native import SOURCE, kernels


@pytest.fixture(scope="module")
def compiled() -> None:
    """Require the kernels wherever there is a compiler."""
    if status(SOURCE).startswith("no C++ compiler"):
        pytest.skip(status(SOURCE))
    assert kernels(torch.float64) is not None
