"""How often a relaxation waits for a GPU: once a step.

Without a GPU, everything that would wait for one is counted: numbers that are read from tensors, and operations whose
result has a size that depends on data.
"""

from collections import Counter

import pytest
import torch
from ase.build import bulk
from torch.utils._python_dispatch import TorchDispatchMode

from esen_flows.data import neighbor_tables, ragged
from esen_flows.data.edges import _true_rows_without_waiting
from esen_flows.forcefield.load import load_force_field
from esen_flows.network.backends import edge_sums
from esen_flows.physics.relax import relax_many
from esen_flows.physics.relax_batch import BatchRelaxation
from esen_flows.schemas.protocols import RelaxProtocol

READING = ("numpy", "item", "tolist", "__bool__", "__int__", "__float__", "__index__", "__array__")
WAITING = ("nonzero", "_local_scalar_dense", "masked_select", "_unique2", "unique_dim", "bincount", "equal")


class Waits(TorchDispatchMode):
    """Counts operations that wait for a GPU."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: Counter[str] = Counter()

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        name = func.__name__.split(".")[0]
        by_mask = name in ("index", "index_put_") and any(
            index is not None and index.dtype == torch.bool for index in args[1]
        )
        if name in WAITING or by_mask or (name == "repeat_interleave" and "output_size" not in (kwargs or {})):
            self.seen[name] += 1
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize(("optimizer", "symmetry"), [("fire", "free"), ("lbfgs", "lock")])
def test_a_step_waits_once_for_the_device(optimizer, symmetry, monkeypatch):
    waits = Waits()

    def counted(name):
        original = getattr(torch.Tensor, name)

        def read(tensor, *arguments, **options):
            waits.seen[name] += 1
            return original(tensor, *arguments, **options)

        monkeypatch.setattr(torch.Tensor, name, read)

    monkeypatch.setattr(edge_sums, "BACKENDS", {})  # a GPU has no compiled code of ours
    monkeypatch.setattr(neighbor_tables, "true_rows", _true_rows_without_waiting)
    monkeypatch.setattr(neighbor_tables, "pair_kernels", lambda: None)
    monkeypatch.setattr(ragged, "on_host", lambda tensor: False)
    force_field = load_force_field("esen_silicon")
    steps: list[tuple[int, int, int]] = []  # structures before and after a step, and its waits
    step = BatchRelaxation._step

    def watched(self):
        before, seen = len(self._members), waits.seen.total()
        yield from step(self)
        steps.append((before, len(self._members), waits.seen.total() - seen))

    monkeypatch.setattr(BatchRelaxation, "_step", watched)
    for name in READING:
        counted(name)
    structures = [bulk("Si", a=5.4), bulk("Si", a=5.44), bulk("Si", a=5.469)]  # the last one leaves early
    for seed, atoms in enumerate(structures[:2]):
        atoms.rattle(0.03, seed=seed)
    protocol = RelaxProtocol(
        optimizer=optimizer, symmetry=symmetry, symprec_angstrom=1e-3, fmax_ev_per_angstrom=0.02, max_steps=6,
        keep_unconverged=True, parity="as_is",
    )  # fmt: skip
    with waits:
        outcomes = dict(relax_many(structures, force_field, protocol))
    assert len(outcomes) == 3
    alike = [count for before, after, count in steps if before == after]
    assert len(alike) >= 2
    assert set(alike) == {1}, waits.seen
    assert all(count <= 2 for before, after, count in steps if before != after)
    assert waits.seen.total() > sum(count for *_, count in steps)  # the search when the structures entered
