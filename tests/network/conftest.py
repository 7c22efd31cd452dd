import pytest
import torch

from esen_flows.network import native


@pytest.fixture(scope="module")
def compiled() -> None:
    """Require the kernels wherever there is a compiler."""
    if native.status().startswith("no C++ compiler"):
        pytest.skip(native.status())
    assert native.kernels(torch.float64) is not None
