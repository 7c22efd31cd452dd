"""CUDA graphs for calls whose shapes recur, as in molecular dynamics: hundreds of kernels are launched as one.

The number of edges changes from step to step. Batches are therefore padded to one of few numbers of edges, with edges
longer than the cutoff, whose messages the envelope makes exactly zero.
"""

from collections import OrderedDict
from collections.abc import Callable
from dataclasses import fields, replace
from typing import Any

import torch
from torch import Tensor

from esen_flows.data.batch import GraphBatch
from esen_flows.network.derivatives import EnergyForcesStress

KEPT = 4  # graphs; each holds the memory of a call
WARM_UP_CALLS = 3
# A capture takes the time of this many calls. A shape that has come so often before may be expected to come as often
# again; one that does not come back has then cost at most twice what it would have without captures.
CALLS_BEFORE_CAPTURE = WARM_UP_CALLS + 1
COUNTED = 64  # shapes whose calls are counted
Compute = Callable[[GraphBatch], EnergyForcesStress]
Replay = Callable[[], None]
Shape = tuple[int, int, int]  # atoms, edges, systems


class CudaGraphRunner:
    """Energies, forces and stresses of batches, by CUDA graphs for shapes that recur.

    Parameters
    ----------
    compute
        Function of a batch that is captured; it may not wait for the GPU.
    cutoff_angstrom
        Cutoff of the network, which must have an envelope.
    capture
        Function that runs a call once and gives its replay and its result; default: by a CUDA graph.
    """

    def __init__(
        self,
        compute: Compute,
        cutoff_angstrom: float,
        capture: Callable[[Callable[[], EnergyForcesStress]], tuple[Replay, EnergyForcesStress]] | None = None,
    ) -> None:
        self._compute, self._cutoff = compute, cutoff_angstrom
        self._capture = capture or _cuda_graph
        # Input of each captured call, which is overwritten before a replay, its output, and the replay.
        self._captured: OrderedDict[Shape, tuple[GraphBatch, EnergyForcesStress, Replay]] = OrderedDict()
        self._seen: OrderedDict[Shape, int] = OrderedDict()  # calls of shapes without a graph, the last one last

    def clear(self) -> bool:
        """Give back the memory of all graphs.

        Returns
        -------
        bool
            Whether there was any.
        """
        had = bool(self._captured)
        self._captured.clear()
        self._seen.clear()
        return had

    def __call__(self, batch: GraphBatch) -> EnergyForcesStress:
        """Energies, forces and stresses of a batch; a shape is captured when it has come often enough to be worth it.

        Parameters
        ----------
        batch
            Graphs to compute.

        Returns
        -------
        EnergyForcesStress
            Results, in tensors that the next call of the same shape overwrites.
        """
        size = padded_size(batch.n_edges)
        shape = (batch.numbers.shape[0], size, batch.n_systems)
        call = self._captured.get(shape)
        if call is None and not self._is_worth_it(shape):
            return self._compute(batch)
        batch = padded(batch, size, self._cutoff)
        if call is None:
            own = replace(batch, **{name: value.clone() for name, value in _tensors(batch).items()})
            replay, result = self._capture(lambda: self._compute(own))
            call = self._captured[shape] = (own, result, replay)
            if len(self._captured) > KEPT:
                self._captured.popitem(last=False)
        own, result, replay = call
        self._captured.move_to_end(shape)
        for name, value in _tensors(batch).items():
            getattr(own, name).copy_(value)
        replay()
        return result

    def _is_worth_it(self, shape: Shape) -> bool:
        """Whether a shape without a graph has been seen often enough; counts this call."""
        count = self._seen.pop(shape, 0)
        if count >= CALLS_BEFORE_CAPTURE:
            return True
        self._seen[shape] = count + 1
        if len(self._seen) > COUNTED:
            self._seen.popitem(last=False)
        return False


def padded_size(n_edges: int) -> int:
    """Number of edges to which a batch is padded: the next of few numbers, at most an eighth more.

    Parameters
    ----------
    n_edges
        Edges of the batch.

    Returns
    -------
    int
        Edges of the padded batch.
    """
    step = max(256, 1 << max(0, n_edges.bit_length() - 4))
    return -(-n_edges // step) * step


def padded(batch: GraphBatch, size: int, cutoff_angstrom: float) -> GraphBatch:
    """Add edges from the last atom to itself that are longer than the cutoff.

    Parameters
    ----------
    batch
        Graphs; they are not changed.
    size
        Number of edges of the result.
    cutoff_angstrom
        Cutoff of the network.

    Returns
    -------
    GraphBatch
        Padded copy.
    """
    missing = size - batch.n_edges
    last = batch.numbers.shape[0] - 1

    def filled(values: Tensor, value: int) -> Tensor:
        return torch.cat((values, values.new_full((missing,), value)))

    vectors = batch.vectors.new_zeros(missing, 3)
    vectors[:, 1] = 2 * cutoff_angstrom
    own = torch.arange(batch.n_edges, size, device=batch.source.device)  # an added edge is its own reverse
    return replace(
        batch,
        source=filled(batch.source, last),
        target=filled(batch.target, last),
        vectors=torch.cat((batch.vectors, vectors)),
        edge_system=filled(batch.edge_system, batch.n_systems - 1),
        reverse=None if batch.reverse is None else torch.cat((batch.reverse, own)),
    )


def _tensors(batch: GraphBatch) -> dict[str, Any]:
    values = {field.name: getattr(batch, field.name) for field in fields(batch)}
    return {name: value for name, value in values.items() if isinstance(value, Tensor)}


def _cuda_graph(call: Callable[[], EnergyForcesStress]) -> tuple[Replay, EnergyForcesStress]:
    # PyTorch requires some calls on another stream before the one that is captured.
    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        for _ in range(WARM_UP_CALLS):
            call()
    torch.cuda.current_stream().wait_stream(stream)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        result = call()
    return graph.replay, result
