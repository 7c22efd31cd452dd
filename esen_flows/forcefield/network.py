"""Networks of any family behind the contract of force fields."""

import copy
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from functools import partial
from itertools import pairwise
from typing import Self

import numpy as np
import torch
from ase import Atoms

from esen_flows.data.batch import Graph, GraphBatch
from esen_flows.data.batch_state import BatchState
from esen_flows.data.neighbor_cache import NeighborCache
from esen_flows.data.ragged import to_device
from esen_flows.data.state_graphs import chosen_graphs, state_graphs
from esen_flows.errors import EvaluationError, InsufficientMemoryError, StructureError, UnknownElementError
from esen_flows.forcefield.batching import EdgeBudget, Result, unless_out_of_memory
from esen_flows.forcefield.checkpoint import Checkpoint
from esen_flows.forcefield.contract import (
    ATOMS_AT_ONCE,
    BatchEvaluation,
    Declaration,
    Evaluation,
    ForceField,
    require_differentiable,
)
from esen_flows.forcefield.cuda_graphs import CudaGraphRunner, padded_size
from esen_flows.forcefield.hessian import hessian_vector_products
from esen_flows.forcefield.memory import available_bytes, edges_that_fit
from esen_flows.forcefield.precision import tensor_float_32
from esen_flows.network.derivatives import EnergyForcesStress, energy_forces_stress
from esen_flows.schemas.declarations import Dtype, ForceKind
from esen_flows.structures.inputs import AnyStructures, as_structures

# Graphs are made for this many edges at a time (40 bytes each), or for a few full batches if these have more.
EDGES_AHEAD, BATCHES_AHEAD = 1_000_000, 4
ATOMS_PER_WINDOW = 2_000
_NO_GRAPH = (
    "the neighbours of structure {} ({} atoms) do not fit into the memory of {}; use a device with more memory, or a "
    "smaller structure"
)
_NO_TABLES = (
    "the neighbours of {} structures of up to {} atoms do not fit into the memory of {} together; relax fewer at once, "
    "or use a device with more memory"
)


class NetworkForceField(ForceField):
    """Force field of a network, which computes in batches bounded by memory.

    Parameters
    ----------
    checkpoint
        Network, scale and reference energies.
    label
        Name for people.
    device
        torch device, such as "cpu" or "cuda:1".
    dtype
        Precision of the arithmetic.
    memory_bytes
        Memory of a batch without the parameters; default: 1.5 GB on a CPU, nine tenths of the free memory of a GPU.
        Batches are as large as is expected to fit. A batch that does not fit is halved, and so are later ones, until
        some have gone well.
    compile
        Whether the network runs through `torch.compile`.
    tf32
        Whether float32 products on a GPU may be rounded to 10 bits.

    Raises
    ------
    InputError
        `compile` is given for a network that cannot be compiled.
    """

    def __init__(
        self,
        checkpoint: Checkpoint,
        *,
        label: str = "network",
        device: str = "cpu",
        dtype: Dtype = "float64",
        memory_bytes: float | None = None,
        compile: bool = False,
        tf32: bool = False,
    ) -> None:
        self.key, self.label = checkpoint.model_key, label
        self.torch_dtype = {"float32": torch.float32, "float64": torch.float64}[dtype]
        self.device = torch.device(device)
        self.network = checkpoint.network.to(device=self.device, dtype=self.torch_dtype).eval()
        self.network.freeze()
        # Second derivatives are always those of the network itself, because compiled code has none.
        self._evaluator = self.network.compiled() if compile else self.network
        config = self.network.config
        # Padded edges are without effect only in a smooth network.
        uses_cuda_graphs = compile and self.device.type == "cuda" and config.smooth and config.conservative
        self._cuda_graphs = CudaGraphRunner(self._compute, config.cutoff_angstrom) if uses_cuda_graphs else None
        self._tf32 = tf32
        self._kind: ForceKind = "conservative" if config.conservative else "direct"
        self.scale_ev, self.offset_ev = checkpoint.scale_ev, checkpoint.energy_offset_ev
        self.references_ev = np.zeros(config.max_num_elements)
        self.references_ev[list(checkpoint.references_ev)] = list(checkpoint.references_ev.values())
        self._references = torch.from_numpy(self.references_ev).to(self.device)
        self._checked: list[Atoms] | None = None  # structures of the last batch, whose elements are known
        self.declaration = Declaration(
            conservative=config.conservative,
            equivariance=config.equivariance,
            differentiable=config.differentiable,
            smooth=config.smooth,
            elements=frozenset(checkpoint.elements),
            dtype=dtype,
            outputs=("energy", "forces", *(("stress",) if config.gives_stress else ()), "energies"),
            cutoff_angstrom=config.cutoff_angstrom,
            direct=config.has_both_forces,
        )
        self.neighbors = NeighborCache(config.cutoff_angstrom, device=self.device, reverse=config.reads_reverse_edges)
        self._is_known = np.isin(np.arange(config.max_num_elements), sorted(checkpoint.elements))
        memory = available_bytes(self.device) if memory_bytes is None else memory_bytes
        self._budget = EdgeBudget(edges_that_fit(self._evaluator.bytes_per_edge(), memory))
        differentiated = self.network.bytes_per_edge(differentiated=True)
        self._hessian_budget = EdgeBudget(edges_that_fit(differentiated, memory))

    def _compute(self, batch: GraphBatch) -> EnergyForcesStress:
        return energy_forces_stress(self._evaluator, batch, kind=self._kind)

    def direct(self) -> Self:
        """The same network with the forces and stress of its direct heads.

        Returns
        -------
        NetworkForceField
            A force field that counts its own evaluations, and shares the memory of this one.

        Raises
        ------
        ModelError
            There are no direct heads.
        """
        super().direct()
        config = self.network.config
        if self._kind == "direct":
            return self
        view = copy.copy(self)
        view._kind, view._cuda_graphs, view.force_evaluations = "direct", None, 0
        view.label = f"{self.label}, direct forces"
        outputs = ("energy", "forces", *(("stress",) if config.gives_direct_stress else ()), "energies")
        view.declaration = replace(
            self.declaration, conservative=False, differentiable=False, direct=False, outputs=outputs
        )
        return view

    def _give_back(self) -> bool:
        """Give back memory that is only kept for speed; whether there was any."""
        graphs = self._cuda_graphs is not None and self._cuda_graphs.clear()
        tables = self.device.type == "cuda" and self.neighbors.clear()  # on a CPU they are small beside a batch
        return graphs or tables

    @property
    def max_edges(self) -> int:
        """Largest number of edges of a batch, and of a chunk of a structure that is larger."""
        return self._budget.max_edges

    def atoms_at_once(self, atoms: Atoms) -> int:
        """Number of atoms in structures like this one that fill a batch.

        Parameters
        ----------
        atoms
            One of the structures.

        Returns
        -------
        int
            Number of atoms, at least the usual one.

        Raises
        ------
        StructureError, UnknownElementError
            The structure cannot be evaluated.
        """
        self._check_elements([atoms])
        (graph,) = next(self._windows([atoms]))
        return max(ATOMS_AT_ONCE, self.max_edges * len(atoms) // max(1, len(graph.source)))

    def evaluate(self, structures: AnyStructures) -> list[Evaluation]:
        """Energies, forces and stresses of structures, in their order.

        Parameters
        ----------
        structures
            Structures of any sizes and periodicities, which may be mixed. The force field chooses the order of the
            evaluation so that batches are full.

        Returns
        -------
        list[Evaluation]
            One result per structure.

        Raises
        ------
        InsufficientMemoryError
            A structure does not fit into memory, not even in small chunks.
        StructureError, UnknownElementError
            A structure cannot be evaluated. In a list of more than a million edges, coinciding atoms are found only
            when the graph of their structure is made.
        EvaluationError
            A result is NaN or infinite.
        """
        results = self._in_batches(as_structures(structures), self._evaluate_batch)
        self.force_evaluations += len(results)
        return results

    def evaluate_both(self, structures: AnyStructures) -> list[tuple[Evaluation, Evaluation]]:
        """Evaluations with the gradient of the energy, and with the forces of direct heads, in one pass.

        Parameters
        ----------
        structures
            Structures as those of `evaluate`.

        Returns
        -------
        list[tuple[Evaluation, Evaluation]]
            For each structure the result of `evaluate`, and that of `direct().evaluate`; both are one evaluation.

        Raises
        ------
        ModelError
            There are no direct heads beside a gradient.
        InsufficientMemoryError, StructureError, UnknownElementError, EvaluationError
            As those of `evaluate`.
        """
        if not self.declaration.direct:
            return super().evaluate_both(structures)
        other = self.direct()

        def compute(graphs: list[Graph]) -> list[tuple[Evaluation, Evaluation]]:
            self._evaluator.edges_per_chunk = self.max_edges
            result = energy_forces_stress(self._evaluator, self._collate(graphs))
            assert result.direct is not None  # the declaration says so
            direct = replace(result, forces=result.direct.forces, stress=result.direct.stress)
            return list(zip(self._evaluations(result, graphs), other._evaluations(direct, graphs), strict=True))

        results = self._in_batches(as_structures(structures), compute)
        self.force_evaluations += len(results)
        return results

    def evaluate_batch(self, state: BatchState) -> BatchEvaluation:
        """Energies, forces and stresses of structures that stay on a device from step to step.

        Parameters
        ----------
        state
            Structures of any sizes and periodicities, which may be mixed.

        Returns
        -------
        BatchEvaluation
            Results of all structures; they may be NaN or infinite.

        Raises
        ------
        InsufficientMemoryError
            A structure does not fit into memory, not even in small chunks.
        StructureError, UnknownElementError
            A structure cannot be evaluated.
        """
        config = self.network.config
        if config.neighbor_limit is not None or config.charge_and_spin_limits is not None:
            return super().evaluate_batch(state)
        if self._checked is not state.templates:
            self._check_elements(state.templates)
            self._checked = state.templates
        edges = self._found(partial(state.edges, config.cutoff_angstrom, reverse=config.reads_reverse_edges), state)
        batch = state_graphs(state, edges, self.torch_dtype)
        energy = state.atoms.reduce(self._references.index_select(0, state.numbers)) + self.offset_ev
        energies = self._references.index_select(0, state.numbers) + self.offset_ev / state.atoms.spread(
            to_device(state.atoms.counts.astype(np.float64), state.device)
        ).squeeze(1)
        forces = torch.empty_like(state.positions)
        stress = torch.empty_like(state.cells)

        def compute(indices: list[int]) -> list[int]:
            everything = len(indices) == state.n_systems
            part = batch if everything else chosen_graphs(batch, indices, state.atoms, edges.counts)
            result = self._run(part)
            rows, systems = state.atoms.of(indices), to_device(np.array(indices), state.device)
            energy.index_add_(0, systems, self.scale_ev * result.energy.double())
            energies.index_add_(0, rows, self.scale_ev * result.node_energy.double())
            forces.index_copy_(0, rows, self.scale_ev * result.forces.double())
            stress.index_copy_(0, systems, self.scale_ev * result.stress.double())
            return indices

        with tensor_float_32(self._tf32):
            self._budget.run(compute, range(state.n_systems), edges.counts.tolist(), self._give_back)
        self.force_evaluations += state.n_systems
        return BatchEvaluation(energy, forces, stress, energies)

    def find_neighbors(self, state: BatchState) -> None:
        """Make the neighbour tables of a state, or search them again where that is needed.

        Parameters
        ----------
        state
            Structures at one geometry.

        Raises
        ------
        StructureError
            Two atoms of a structure coincide, or a coordinate is NaN.
        InsufficientMemoryError
            The tables do not fit into memory.
        """
        config = self.network.config
        if config.neighbor_limit is None and config.charge_and_spin_limits is None:
            self._found(partial(state.find_tables, config.cutoff_angstrom, reverse=config.reads_reverse_edges), state)

    def _found(self, find: Callable[[], Result], state: BatchState) -> Result:
        """Tables or edges of a state."""
        found = unless_out_of_memory(find)
        if found is None:
            largest = max(len(atoms) for atoms in state.templates)
            raise InsufficientMemoryError(_NO_TABLES.format(state.n_systems, largest, self.device))
        return found

    def hessian_vector_products(self, atoms: Atoms, vectors: np.ndarray) -> np.ndarray:
        """Exact second derivatives of the energy along directions, in the precision of the force field.

        Parameters
        ----------
        atoms
            One structure.
        vectors
            (k, n, 3) directions, of any length.

        Returns
        -------
        np.ndarray
            (k, n, 3) in eV/Angstrom^2 times the unit of `vectors`.

        Raises
        ------
        NotDifferentiableError
            The network predicts forces directly.
        StructureError, UnknownElementError
            The structure cannot be evaluated.
        EvaluationError
            A result is NaN or infinite.
        """
        require_differentiable(self, "a Hessian")
        self._check_elements([atoms])
        (graph,) = next(self._windows([atoms]))

        def compute(_: list[Graph]) -> list[np.ndarray]:
            limit = self._hessian_budget.max_edges  # lower after every attempt that ran out of memory
            dtype, device = self.torch_dtype, self.device
            return [hessian_vector_products(self.network, graph, vectors, dtype=dtype, device=device, max_edges=limit)]

        with tensor_float_32(self._tf32):
            (products,) = self._hessian_budget.run(compute, [graph], [len(graph.source)])
        products = self.scale_ev * products
        self.force_evaluations += len(vectors)
        if not np.isfinite(products).all():
            raise EvaluationError(f"{self.label!r} has NaN or infinite second derivatives; check for overlapping atoms")
        return products

    def embeddings(self, structures: Sequence[Atoms]) -> list[np.ndarray]:
        """Node features after the last layer, for analysis.

        Those of an eSEN are (atoms, (lmax + 1)^2, sphere_channels). The first coefficient (l = 0) of an atom does not
        change under rotation. The others turn with the structure as real spherical harmonics do (y is the polar axis,
        l = 1 is x, y, z).

        Parameters
        ----------
        structures
            Structures of any sizes and periodicities.

        Returns
        -------
        list[np.ndarray]
            (atoms, ...) for each structure.

        Raises
        ------
        StructureError, UnknownElementError
            A structure cannot be evaluated.
        """
        return self._in_batches(structures, self._embed_batch)

    def _in_batches(self, structures: Sequence[Atoms], compute: Callable[[list[Graph]], list[Result]]) -> list[Result]:
        self._check_elements(structures)
        results: list[Result] = []
        with tensor_float_32(self._tf32):
            for graphs in self._windows(structures):
                sizes = [len(graph.source) for graph in graphs]
                results += self._budget.run(compute, graphs, sizes, self._give_back)
        return results

    def _windows(self, structures: Sequence[Atoms]) -> Iterator[list[Graph]]:
        """Graphs of consecutive structures, in lists that are long enough to fill batches and fit into memory."""
        graphs: list[Graph] = []
        edges = 0
        ends = np.cumsum([len(atoms) for atoms in structures]) // ATOMS_PER_WINDOW
        starts = [0, *(np.flatnonzero(np.diff(ends)) + 1).tolist(), len(structures)]
        waiting = deque(pairwise(starts))
        while waiting:
            first, last = waiting.popleft()
            new = unless_out_of_memory(partial(self._graphs, structures[first:last], first))
            if new is None:
                if not self.neighbors.clear() and not graphs:
                    if last - first == 1:
                        raise InsufficientMemoryError(_NO_GRAPH.format(first, len(structures[first]), self.device))
                    waiting.appendleft(((first + last) // 2, last))
                    last = (first + last) // 2
                elif graphs:
                    yield graphs
                    graphs.clear()  # computed by now, and still in the hands of the caller
                    edges = 0
                waiting.appendleft((first, last))
                continue
            graphs += new
            edges += sum(len(graph.source) for graph in new)
            if edges >= max(EDGES_AHEAD, BATCHES_AHEAD * self.max_edges):
                yield graphs
                graphs, edges = [], 0
        if graphs:
            yield graphs

    def _graphs(self, structures: Sequence[Atoms], first: int = 0) -> list[Graph]:
        """Graphs of structures whose elements were checked; `first` is the number of the first one, for messages."""
        config = self.network.config
        state = config.charge_and_spin_limits is not None
        if config.neighbor_limit is None:
            edges = self.neighbors.edges(structures)
            pairs = zip(structures, edges, strict=True)
            graphs = [Graph.from_edges(atoms, one, charge_and_spin=state) for atoms, one in pairs]
        else:
            cutoff, limit = config.cutoff_angstrom, config.neighbor_limit
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
        limits = self.network.config.charge_and_spin_limits
        if limits is None:
            return
        charge, spin = limits
        for index, graph in enumerate(graphs, start=first):
            if abs(graph.charge) > charge or not 0 <= graph.spin <= spin:
                raise StructureError(
                    f"structure {index} has charge {graph.charge} and spin multiplicity {graph.spin}; charges from "
                    f"-{charge} to {charge} and multiplicities from 0 to {spin} are possible"
                )

    def _collate(self, graphs: list[Graph]) -> GraphBatch:
        return GraphBatch.collate(graphs, dtype=self.torch_dtype, device=self.device)

    def _embed_batch(self, graphs: list[Graph]) -> list[np.ndarray]:
        with torch.no_grad():
            self._evaluator.edges_per_chunk = self.max_edges
            joined = self._evaluator(self._collate(graphs)).node_embedding.double().cpu().numpy()
        return _split(joined, graphs)

    def _evaluate_batch(self, graphs: list[Graph]) -> list[Evaluation]:
        return self._evaluations(self._run(self._collate(graphs)), graphs)

    def _evaluations(self, result: EnergyForcesStress, graphs: list[Graph]) -> list[Evaluation]:
        of_atoms = torch.cat((result.node_energy.double().unsqueeze(1), result.forces.double()), dim=1)
        of_systems = torch.cat((result.energy.double().unsqueeze(1), result.stress.double().flatten(1)), dim=1)
        atoms, systems = of_atoms.cpu().numpy() * self.scale_ev, of_systems.cpu().numpy() * self.scale_ev
        self._check_finite(graphs, atoms, systems)
        evaluations = []
        for graph, rows, system in zip(graphs, _split(atoms, graphs), systems, strict=True):
            references = self.references_ev[graph.numbers.numpy()] + self.offset_ev / len(graph.numbers)
            energy, forces = float(system[0] + references.sum()), np.ascontiguousarray(rows[:, 1:])
            evaluations.append(Evaluation(energy, forces, system[1:].reshape(3, 3), rows[:, 0] + references))
        return evaluations

    def _run(self, batch: GraphBatch) -> EnergyForcesStress:
        self._evaluator.edges_per_chunk = self.max_edges
        # A structure that is computed in chunks waits for the GPU between them, which a CUDA graph cannot.
        fits = padded_size(batch.n_edges) <= self.max_edges
        return self._cuda_graphs(batch) if self._cuda_graphs and fits else self._compute(batch)

    def _check_finite(self, graphs: list[Graph], atoms: np.ndarray, systems: np.ndarray) -> None:
        """Refuse NaN and infinity, except in the stress of a structure or network that has none."""
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


def _split(rows: np.ndarray, graphs: list[Graph]) -> list[np.ndarray]:
    """Rows of all atoms of a batch, as one array per structure."""
    return np.split(rows, np.cumsum([len(graph.numbers) for graph in graphs])[:-1])
