"""Networks of any family behind the contract of force fields."""

import copy
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from typing import Self

import numpy as np
import torch
from ase import Atoms
from torch import Tensor

from esen_flows.data.batch import Graph, GraphBatch
from esen_flows.data.batch_state import BatchState
from esen_flows.data.ragged import to_host
from esen_flows.data.state_graphs import state_graphs
from esen_flows.errors import EvaluationError, InsufficientMemoryError
from esen_flows.forcefield.baseline import Baseline
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
from esen_flows.forcefield.lists import evaluate_list, states_of
from esen_flows.forcefield.memory import available_bytes, edges_that_fit
from esen_flows.forcefield.parts import columns_of, in_parts
from esen_flows.forcefield.precision import tensor_float_32
from esen_flows.network.derivatives import EnergyForcesStress, energy_forces_stress
from esen_flows.schemas.declarations import Dtype, ForceKind
from esen_flows.structures.inputs import AnyStructures, as_structures


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
        self.scale_ev, elements = checkpoint.scale_ev, frozenset(checkpoint.elements)
        references_ev = np.zeros(config.max_num_elements)
        references_ev[list(checkpoint.references_ev)] = list(checkpoint.references_ev.values())
        limits, offset = config.charge_and_spin_limits, checkpoint.energy_offset_ev
        self._baseline = Baseline(references_ev, offset, elements, limits, label, self.device)
        self.declaration = Declaration(
            conservative=config.conservative,
            equivariance=config.equivariance,
            differentiable=config.differentiable,
            smooth=config.smooth,
            elements=elements,
            dtype=dtype,
            outputs=("energy", "forces", *(("stress",) if config.gives_stress else ()), "energies"),
            cutoff_angstrom=config.cutoff_angstrom,
            direct=config.has_both_forces,
        )
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
        if self._kind == "direct":
            return self
        view = copy.copy(self)
        view._kind, view._cuda_graphs, view.force_evaluations = "direct", None, 0
        view.label = f"{self.label}, direct forces"
        outputs = ("energy", "forces", *(("stress",) if self.network.config.gives_direct_stress else ()), "energies")
        view.declaration = replace(
            self.declaration, conservative=False, differentiable=False, direct=False, outputs=outputs
        )
        return view

    def _give_back(self) -> bool:
        """Give back memory that is only kept for speed; whether there was any."""
        return self._cuda_graphs is not None and self._cuda_graphs.clear()

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
        return max(ATOMS_AT_ONCE, self.max_edges * len(atoms) // max(1, len(self._graph(atoms).source)))

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
            A structure cannot be evaluated. In long lists, coinciding atoms are found when it is their turn.
        EvaluationError
            A result is NaN or infinite.
        """
        chosen = as_structures(structures)
        self._baseline.check_elements(chosen)
        return evaluate_list(self, chosen)

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
        if not state.n_systems:
            return super().evaluate_batch(state)
        columns = self._in_parts(state, lambda batch: columns_of(self._run(batch), atom_energies=state.atom_energies))
        self.force_evaluations += state.n_systems
        return self._result(state, columns, "forces", "stress")

    def evaluate_both(self, state: BatchState) -> tuple[BatchEvaluation, BatchEvaluation]:
        """Results with the gradient of the energy, and with the forces of direct heads, in one pass.

        Parameters
        ----------
        state
            Structures as those of `evaluate_batch`.

        Returns
        -------
        tuple[BatchEvaluation, BatchEvaluation]
            The result of `evaluate_batch`, and that of `direct().evaluate_batch`; both are one evaluation.

        Raises
        ------
        ModelError
            There are no direct heads beside a gradient.
        InsufficientMemoryError, StructureError, UnknownElementError
            As those of `evaluate_batch`.
        """
        if not self.declaration.direct or not state.n_systems:
            return super().evaluate_both(state)

        def run(batch: GraphBatch) -> dict[str, Tensor]:
            self._evaluator.edges_per_chunk = self.max_edges
            return columns_of(energy_forces_stress(self._evaluator, batch), atom_energies=state.atom_energies)

        columns = self._in_parts(state, run)
        self.force_evaluations += state.n_systems
        heads = self._result(state, columns, "direct_forces", "direct_stress")
        return self._result(state, columns, "forces", "stress"), heads

    def _in_parts(self, state: BatchState, run: Callable[[GraphBatch], dict[str, Tensor]]) -> dict[str, Tensor]:
        """Columns of all atoms and structures, computed for as many structures at once as fit into memory."""
        self._baseline.energies(state)
        config = self.network.config
        reverse, limit = config.reads_reverse_edges, config.neighbor_limit
        charged = config.charge_and_spin_limits is not None

        def graphs() -> tuple[GraphBatch, np.ndarray]:
            edges = state.edges(config.cutoff_angstrom, reverse=reverse, max_neighbors=limit)
            return state_graphs(state, edges, self.torch_dtype, charge_and_spin=charged), edges.counts

        batch, counts = self._found(graphs, state)
        with tensor_float_32(self._tf32):
            return in_parts(self._budget, batch, state, counts, run, self._give_back)

    def _result(self, state: BatchState, columns: dict[str, Tensor], forces: str, stress: str) -> BatchEvaluation:
        """Columns in eV and Angstrom, with the references of the elements."""
        apart, energies = self._baseline.energies(state), None
        if state.atom_energies:
            energies = torch.add(apart.of_atoms, columns["node_energy"], alpha=self.scale_ev)
        energy = torch.add(apart.of_systems, columns["energy"], alpha=self.scale_ev)
        return BatchEvaluation(energy, self.scale_ev * columns[forces], self.scale_ev * columns[stress], energies)

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
        if state.n_systems:
            self._found(partial(state.find_tables, config.cutoff_angstrom, reverse=config.reads_reverse_edges), state)

    def _found(self, find: Callable[[], Result], state: BatchState) -> Result:
        """Tables or edges of a state."""
        found = unless_out_of_memory(find)
        if found is None:
            largest = max(len(atoms) for atoms in state.templates)
            raise InsufficientMemoryError(
                f"the neighbours of {state.n_systems} structures of up to {largest} atoms do not fit into the memory "
                f"of {self.device} together; evaluate fewer at once, or use a device with more memory"
            )
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
        graph = self._graph(atoms)

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
        self._baseline.check_elements(structures)
        found: list[np.ndarray] = []

        def run(batch: GraphBatch) -> dict[str, Tensor]:
            self._evaluator.edges_per_chunk = self.max_edges
            return {"node_embedding": self._evaluator(batch).node_embedding.double()}

        with torch.no_grad():
            for state in states_of(self, structures):
                rows = to_host(self._in_parts(state, run)["node_embedding"])
                found += np.split(rows, state.atoms.starts[1:])
        return found

    def _graph(self, atoms: Atoms) -> Graph:
        """The graph of one structure, on the CPU."""
        self._baseline.check_elements([atoms])
        config = self.network.config
        charged, reverse = config.charge_and_spin_limits is not None, config.reads_reverse_edges
        graph = Graph.from_atoms(
            atoms, config.cutoff_angstrom, config.neighbor_limit, charge_and_spin=charged, reverse=reverse
        )
        self._baseline.check_charges(np.array([[graph.charge, graph.spin]]), lambda _: atoms.get_chemical_formula())
        return graph

    def _run(self, batch: GraphBatch) -> EnergyForcesStress:
        self._evaluator.edges_per_chunk = self.max_edges
        # A structure that is computed in chunks waits for the GPU between them, which a CUDA graph cannot.
        fits = padded_size(batch.n_edges) <= self.max_edges
        return self._cuda_graphs(batch) if self._cuda_graphs and fits else self._compute(batch)
