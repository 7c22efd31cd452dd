"""CUDA graphs for calls whose shapes recur, as in molecular dynamics: hundreds of kernels are launched as one.

The number of edges changes from step to step, so it is filled up to one of few sizes by edges longer than the cutoff,
whose messages the envelope makes exactly zero.
"""

from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass, fields, replace

import torch
from torch import Tensor

from esen_flows.data.batch import GraphBatch
from esen_flows.network.derivatives import EnergyForcesStress

KEPT = 4  # graphs; each holds the memory of a call
WARM_UP_CALLS = 3
Compute = Callable[[GraphBatch], EnergyForcesStress]
Repeat = Callable[[], None]
Shape = tuple[int, int, int]  # atoms, edges, systems


@dataclass(frozen=True)
class _Recording:
    batch: GraphBatch  # what the recorded call reads; overwritten before each repetition
    result: EnergyForcesStress  # what it writes
    repeat: Repeat


class CudaGraphRunner:
    """Computes batches; of shapes that have come before, by repeating a recorded call.

    Parameters
    ----------
    compute
        what is recorded; it may not wait for the GPU.
    cutoff_angstrom
        of the network, which must have an envelope.
    record
        runs a call once and returns how to repeat it, and its result; default: a CUDA graph.
    """

    def __init__(
        self,
        compute: Compute,
        cutoff_angstrom: float,
        record: Callable[[Callable[[], EnergyForcesStress]], tuple[Repeat, EnergyForcesStress]] | None = None,
    ) -> None:
        self._compute, self._cutoff = compute, cutoff_angstrom
        self._record = record or _cuda_graph
        self._recordings: OrderedDict[Shape, _Recording] = OrderedDict()
        self._last: Shape | None = None

    def __call__(self, batch: GraphBatch) -> EnergyForcesStress:
        """Energies, forces and stresses of a batch; a shape is recorded when it comes twice in a row."""
        size = padded_size(batch.n_edges)
        shape = (batch.numbers.shape[0], size, batch.n_systems)
        recurs, self._last = shape == self._last, shape
        known = self._recordings.get(shape)
        if known is None and not recurs:
            return self._compute(batch)
        batch = padded(batch, size, self._cutoff)
        if known is None:
            known = self._recorded(batch)
            self._recordings[shape] = known
            if len(self._recordings) > KEPT:
                self._recordings.popitem(last=False)
        self._recordings.move_to_end(shape)
        for mine, theirs in zip(_tensors(known.batch), _tensors(batch), strict=True):
            mine.copy_(theirs)
        known.repeat()
        return known.result

    def _recorded(self, batch: GraphBatch) -> _Recording:
        own = replace(batch, **{f.name: getattr(batch, f.name).clone() for f in fields(batch) if f.name != "n_systems"})
        repeat, result = self._record(lambda: self._compute(own))
        return _Recording(own, result, repeat)


def padded_size(n_edges: int) -> int:
    """The next of few sizes: at most an eighth more."""
    step = max(256, 1 << max(0, n_edges.bit_length() - 4))
    return -(-n_edges // step) * step


def padded(batch: GraphBatch, size: int, cutoff_angstrom: float) -> GraphBatch:
    """The batch with edges added from the last atom to itself that are longer than the cutoff."""
    missing = size - batch.n_edges
    last = batch.numbers.shape[0] - 1

    def filled(values: Tensor, value: int) -> Tensor:
        return torch.cat((values, values.new_full((missing,), value)))

    vectors = batch.vectors.new_zeros(missing, 3)
    vectors[:, 1] = 2 * cutoff_angstrom
    return replace(
        batch,
        source=filled(batch.source, last),
        target=filled(batch.target, last),
        vectors=torch.cat((batch.vectors, vectors)),
        edge_system=filled(batch.edge_system, batch.n_systems - 1),
    )


def _tensors(batch: GraphBatch) -> list[Tensor]:
    return [getattr(batch, f.name) for f in fields(batch) if f.name != "n_systems"]


def _cuda_graph(call: Callable[[], EnergyForcesStress]) -> tuple[Repeat, EnergyForcesStress]:
    # As PyTorch asks for: some calls on a stream of their own before the recorded one.
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
