"""Training where memory runs out: the same gradients in smaller passes, and one clear line where nothing fits."""

from collections.abc import Callable

import pytest
import torch
from stages import DENS, argon_data, stage

from esen_flows.errors import InsufficientMemoryError
from esen_flows.forcefield.checkpoint import load
from esen_flows.network import derivatives
from esen_flows.network.interface import Network
from esen_flows.training import steps
from esen_flows.training.state import newest_state, saved_states
from esen_flows.training.train import train


def scarce(monkeypatch: pytest.MonkeyPatch, limit: int) -> list[int]:
    """Let the memory hold this many edges; returns the sizes of all passes."""
    sizes: list[int] = []
    original: Callable[..., object] = derivatives.energy_forces_stress

    def watched(network: Network, graph: object, **options: object) -> object:
        sizes.append(min(graph.n_edges, network.edges_per_chunk or graph.n_edges))
        if sizes[-1] > limit:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return original(network, graph, **options)

    monkeypatch.setattr(steps, "energy_forces_stress", watched)
    return sizes


@pytest.mark.parametrize("changes", [{}, DENS], ids=["conservative", "denoising"])
def test_a_step_that_does_not_fit_is_computed_in_smaller_passes(changes, monkeypatch, tmp_path) -> None:
    wanted = {"epochs": 2, "edges_per_batch": 2000, "dtype": "float64", **changes}
    expected = load(train(stage(**wanted), *argon_data(), tmp_path / "plenty"))
    sizes = scarce(monkeypatch, 600)
    with pytest.warns(UserWarning, match="memory ran out: passes of at most"):
        path = train(stage(**wanted), *argon_data(), tmp_path / "scarce")
    assert sum(size > 600 for size in sizes) <= 3  # what fits is remembered
    found = load(path)
    for name, value in expected.network.state_dict().items():
        torch.testing.assert_close(found.network.state_dict()[name], value, rtol=1e-5, atol=1e-7)
    saved = torch.load(saved_states(tmp_path / "scarce")[-1], weights_only=True)
    assert saved["limits"]["edges_per_pass"] <= 600
    assert newest_state(tmp_path / "scarce", saved["identity"]) is not None


@pytest.mark.filterwarnings("ignore:memory ran out")
def test_a_structure_that_does_not_fit_is_computed_in_chunks(monkeypatch, tmp_path) -> None:
    scarce(monkeypatch, 100)
    with pytest.warns(UserWarning, match="memory ran out: chunks of at most"):
        train(stage(epochs=1, cutoff_angstrom=7.5), *argon_data(), tmp_path)
    assert torch.load(saved_states(tmp_path)[-1], weights_only=True)["limits"]["edges_per_chunk"] <= 100


@pytest.mark.filterwarnings("ignore:memory ran out")
def test_where_nothing_fits_one_line_says_so(monkeypatch, tmp_path) -> None:
    scarce(monkeypatch, 10)
    with pytest.raises(InsufficientMemoryError, match=r"of \d+ edges does not fit .*chunks of 64 edges; use a device"):
        train(stage(epochs=1, cutoff_angstrom=7.5), *argon_data(), tmp_path)
    assert not list(tmp_path.glob("*.safetensors"))
