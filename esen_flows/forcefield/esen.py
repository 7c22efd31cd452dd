"""An eSEN behind the contract."""

from collections.abc import Callable, Iterator, Sequence
from itertools import pairwise
from typing import Literal

import numpy as np
import torch
from ase import Atoms

from esen_flows.data.batch import Graph, GraphBatch
from esen_flows.data.neighbor_cache import NeighborCache
from esen_flows.errors import EvaluationError, StructureError, UnknownElementError
from esen_flows.forcefield.batching import EdgeBudget, Result
from esen_flows.forcefield.checkpoint import Checkpoint
from esen_flows.forcefield.contract import Declaration, Evaluation, ForceField, require_differentiable
from esen_flows.forcefield.cuda_graphs import CudaGraphRunner, padded_size
from esen_flows.forcefield.hessian import hessian_vector_products
from esen_flows.forcefield.memory import available_bytes, edges_that_fit
from esen_flows.forcefield.precision import compiled, tensor_float_32
from esen_flows.network.derivatives import EnergyForcesStress, energy_forces_stress
from esen_flows.network.esen import MAX_CHARGE, MAX_SPIN

# Graphs are made for so many edges at a time (40 bytes each), or for a few full batches.
EDGES_AHEAD, BATCHES_AHEAD = 1_000_000, 4
ATOMS_AT_ONCE = 2_000


class EsenForceField(ForceField):
    """Energies, forces and stresses of an eSEN, in batches bounded by memory.

    Parameters
    ----------
    memory_bytes
        for what a batch holds beside the parameters; default: 1.5 GB on a CPU, on a GPU four fifths of what
        is free. Batches are as large as is expected to fit; those that do not fit are halved, and so are all later
        ones of this object.
    compile, tf32
        see `load_force_field`.
    """

    def __init__(
        self,
        checkpoint: Checkpoint,
        *,
        label: str = "esen",
        device: str = "cpu",
        dtype: Literal["float32", "float64"] = "float64",
        memory_bytes: float | None = None,
        compile: bool = False,
        tf32: bool = False,
    ) -> None:
        self.key, self.label = checkpoint.model_key, label
        self.torch_dtype = {"float32": torch.float32, "float64": torch.float64}[dtype]
        self.device = torch.device(device)
        self.network = checkpoint.network.to(device=self.device, dtype=self.torch_dtype).eval()
        self.network.freeze()
        # Second derivatives are always those of the network itself.
        self._evaluator = compiled(self.network) if compile else self.network
        self._replayed = (
            CudaGraphRunner(self._compute, self.network.config.cutoff_angstrom)
            if self._may_use_cuda_graphs(compile)
            else None
        )
        self._tf32 = tf32
        self.scale_ev, self.offset_ev = checkpoint.scale_ev, checkpoint.energy_offset_ev
        config = self.network.config
        references = np.zeros(config.max_num_elements)
        for number, energy in checkpoint.references_ev.items():
            references[number] = energy
        self.references_ev = references
        has_stress = not config.direct_forces or config.direct_stress != "none"
        self.declaration = Declaration(
            conservative=not config.direct_forces,
            equivariance=config.equivariance,
            differentiable=not config.direct_forces,
            smooth=config.smooth,
            elements=frozenset(checkpoint.elements),
            dtype=dtype,
            outputs=("energy", "forces", *(("stress",) if has_stress else ()), "energies"),
            cutoff_angstrom=config.cutoff_angstrom,
        )
        self.neighbors = NeighborCache(config.cutoff_angstrom, device=self.device)
        self._is_known = np.isin(np.arange(config.max_num_elements), sorted(checkpoint.elements))
        memory = available_bytes(self.device) if memory_bytes is None else memory_bytes
        fused = self._evaluator.fused is not None
        self._budget = EdgeBudget(edges_that_fit(config, self.torch_dtype, memory, compiled=fused))
        # Of second derivatives: the compiled kernels have none, and the modules keep more of an edge.
        self._hessian_budget = EdgeBudget(edges_that_fit(config, self.torch_dtype, memory, compiled=False))

    def _compute(self, batch: GraphBatch) -> EnergyForcesStress:
        return energy_forces_stress(self._evaluator, batch)

    def _may_use_cuda_graphs(self, compile: bool) -> bool:
        config = self.network.config
        return compile and self.device.type == "cuda" and config.use_envelope and not config.direct_forces

    @property
    def max_edges(self) -> int:
        """Edges of a batch, and of a chunk of a structure that is larger."""
        return self._budget.max_edges

    def evaluate(self, structures: Sequence[Atoms]) -> list[Evaluation]:
        """Energies, forces and stresses; structures of any sizes and periodicities may be mixed.

        They are evaluated in whatever order fills batches, and returned in the given one.

        Raises
        ------
        InsufficientMemoryError
            a structure does not fit into memory, not even in small chunks.
        StructureError, UnknownElementError, EvaluationError
            see the contract; of more than a million edges, atoms
            that coincide are found only when it is their turn.
        """
        results = self._in_batches(structures, self._evaluate_batch)
        self.force_evaluations += len(results)
        return results

    def hessian_vector_products(self, atoms: Atoms, vectors: np.ndarray) -> np.ndarray:
        """Exact second derivatives along directions (k, n, 3) in the precision of the force field; see the contract."""
        require_differentiable(self, "a Hessian")
        self._check_elements([atoms])
        (graph,) = self._graphs([atoms])

        budget = self._hessian_budget

        def compute(graphs: list[Graph]) -> list[np.ndarray]:
            return [
                hessian_vector_products(
                    self.network, one, vectors, dtype=self.torch_dtype, device=self.device, max_edges=budget.max_edges
                )
                for one in graphs
            ]

        with tensor_float_32(self._tf32):
            (products,) = budget.run(compute, [graph], [len(graph.source)])
        products = self.scale_ev * products
        self.force_evaluations += len(vectors)
        if not np.isfinite(products).all():
            raise EvaluationError(f"{self.label!r} has NaN or infinite second derivatives; check for overlapping atoms")
        return products

    def embeddings(self, structures: Sequence[Atoms]) -> list[np.ndarray]:
        """Node features after the last layer, for analysis: (atoms, (lmax + 1)^2, sphere_channels) of each structure.

        The first coefficient (l = 0) of an atom does not change under rotation; the others turn with it, as real
        spherical harmonics do (y is the polar axis, l = 1 is x, y, z).

        Raises
        ------
        StructureError, UnknownElementError
            as `evaluate`.
        """
        return self._in_batches(structures, self._embed_batch)

    def _in_batches(self, structures: Sequence[Atoms], compute: Callable[[list[Graph]], list[Result]]) -> list[Result]:
        self._check_elements(structures)
        results: list[Result] = []
        with tensor_float_32(self._tf32):
            for graphs in self._windows(structures):
                results += self._budget.run(compute, graphs, [len(graph.source) for graph in graphs])
        return results

    def _windows(self, structures: Sequence[Atoms]) -> Iterator[list[Graph]]:
        """Graphs of consecutive structures: enough to fill batches from, and not all of a long list."""
        graphs: list[Graph] = []
        edges = 0
        ends = np.cumsum([len(atoms) for atoms in structures]) // ATOMS_AT_ONCE
        starts = [0, *(np.flatnonzero(np.diff(ends)) + 1).tolist(), len(structures)]
        for first, last in pairwise(starts):
            new = self._graphs(structures[first:last], first)
            graphs += new
            edges += sum(len(graph.source) for graph in new)
            if edges >= max(EDGES_AHEAD, BATCHES_AHEAD * self.max_edges):
                yield graphs
                graphs, edges = [], 0
        if graphs:
            yield graphs

    def _graphs(self, structures: Sequence[Atoms], first: int = 0) -> list[Graph]:
        """Graphs of structures whose elements were checked; `first` is the number of the first one, for errors."""
        config = self.network.config
        state = config.charge_spin_embedding != "none"
        if config.max_neighbors is None:
            edges = self.neighbors.edges(structures)
            pairs = zip(structures, edges, strict=True)
            graphs = [Graph.from_edges(atoms, one, charge_and_spin=state) for atoms, one in pairs]
        else:
            cutoff, limit = config.cutoff_angstrom, config.max_neighbors
            graphs = [Graph.from_atoms(atoms, cutoff, limit, charge_and_spin=state) for atoms in structures]
        self._check_charges(graphs, first)
        return graphs

    def _check_elements(self, structures: Sequence[Atoms]) -> None:
        for index, atoms in enumerate(structures):
            if len(atoms) == 0:
                raise StructureError(f"structure {index} has no atoms; leave it out")
            numbers = atoms.numbers
            if numbers.max() < len(self._is_known) and self._is_known[numbers].all():
                continue
            known = self.declaration.elements or frozenset()
            unknown = sorted(set(atoms.symbols[~np.isin(numbers, list(known))]))
            raise UnknownElementError(
                f"structure {index} ({atoms.get_chemical_formula()}) holds {', '.join(unknown)}, which "
                f"{self.label!r} never saw; it knows atomic numbers {sorted(known)}"
            )

    def _check_charges(self, graphs: Sequence[Graph], first: int) -> None:
        for index, graph in enumerate(graphs, start=first):
            if abs(graph.charge) > MAX_CHARGE or not 0 <= graph.spin <= MAX_SPIN:
                raise StructureError(
                    f"structure {index} has charge {graph.charge} and spin multiplicity {graph.spin}; charges from "
                    f"-{MAX_CHARGE} to {MAX_CHARGE} and multiplicities from 0 to {MAX_SPIN} are possible"
                )

    def _collate(self, graphs: list[Graph]) -> GraphBatch:
        self._evaluator.edges_per_chunk = self.max_edges
        return GraphBatch.collate(graphs, dtype=self.torch_dtype, device=self.device)

    def _embed_batch(self, graphs: list[Graph]) -> list[np.ndarray]:
        with torch.no_grad():
            joined = self._evaluator(self._collate(graphs)).node_embedding.double().cpu().numpy()
        return np.split(joined, np.cumsum([len(graph.numbers) for graph in graphs])[:-1])

    def _evaluate_batch(self, graphs: list[Graph]) -> list[Evaluation]:
        batch = self._collate(graphs)
        # A structure that is computed in chunks waits for the GPU between them, which no recording can.
        recorded = self._replayed is not None and padded_size(batch.n_edges) <= self.max_edges
        result = self._replayed(batch) if self._replayed and recorded else self._compute(batch)
        of_atoms = torch.cat((result.node_energy.double().unsqueeze(1), result.forces.double()), dim=1)
        of_systems = torch.cat((result.energy.double().unsqueeze(1), result.stress.double().flatten(1)), dim=1)
        atoms, systems = of_atoms.cpu().numpy() * self.scale_ev, of_systems.cpu().numpy() * self.scale_ev
        self._check_finite(graphs, atoms, systems)
        forces = np.ascontiguousarray(atoms[:, 1:])
        evaluations, start = [], 0
        for graph, system in zip(graphs, systems, strict=True):
            rows = slice(start, start := start + len(graph.numbers))
            references = self.references_ev[graph.numbers.numpy()] + self.offset_ev / len(graph.numbers)
            energy = float(system[0] + references.sum())
            stress = system[1:].reshape(3, 3)
            evaluations.append(Evaluation(energy, forces[rows], stress, atoms[rows, 0] + references))
        return evaluations

    def _check_finite(self, graphs: list[Graph], atoms: np.ndarray, systems: np.ndarray) -> None:
        """Refuse NaN and infinity, but for the stress where there is none."""
        expected = np.ones_like(systems, dtype=bool)
        volumes = np.array([graph.volume for graph in graphs])
        expected[:, 1:] = np.isfinite(volumes)[:, None] & ("stress" in self.declaration.outputs)
        bad = (expected & ~np.isfinite(systems)).any(axis=1)
        system = np.repeat(np.arange(len(graphs)), [len(graph.numbers) for graph in graphs])
        bad[system[~np.isfinite(atoms).all(axis=1)]] = True
        if bad.any():
            raise EvaluationError(
                f"{self.label!r} returned NaN or infinity for a structure of {len(graphs[bad.argmax()].numbers)} "
                "atoms; check its interatomic distances, or use dtype float64"
            )
