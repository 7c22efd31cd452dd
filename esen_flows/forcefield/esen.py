"""An eSEN behind the contract."""

from collections.abc import Iterator, Sequence
from typing import Literal

import numpy as np
import torch
from ase import Atoms

from esen_flows.data.batch import Graph, GraphBatch
from esen_flows.errors import EvaluationError, StructureError, UnknownElementError
from esen_flows.forcefield.checkpoint import Checkpoint
from esen_flows.forcefield.contract import Declaration, Evaluation, ForceField, require_differentiable
from esen_flows.forcefield.hessian import hessian_vector_products
from esen_flows.network.derivatives import energy_forces_stress
from esen_flows.network.esen import MAX_CHARGE, MAX_SPIN

# Measured 180 kB per edge for 2 layers, 128 channels, lmax 2 (9 coefficients), float32: 20 copies of a feature row.
COPIES_PER_EDGE = 20
DEFAULT_MEMORY_BYTES = 1.5e9


class EsenForceField(ForceField):
    """Energies, forces and stresses of an eSEN, in batches bounded by memory."""

    def __init__(
        self,
        checkpoint: Checkpoint,
        *,
        label: str = "esen",
        device: str = "cpu",
        dtype: Literal["float32", "float64"] = "float64",
        memory_bytes: float = DEFAULT_MEMORY_BYTES,
    ) -> None:
        self.key, self.label = checkpoint.model_key, label
        self.torch_dtype = {"float32": torch.float32, "float64": torch.float64}[dtype]
        self.device = torch.device(device)
        self.network = checkpoint.network.to(device=self.device, dtype=self.torch_dtype).eval()
        self.network.requires_grad_(False)
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
        item = torch.finfo(self.torch_dtype).bits // 8
        row = self.network.n_coefficients * config.sphere_channels * item
        self.max_edges = self.network.edges_per_chunk = max(
            1, int(memory_bytes / (COPIES_PER_EDGE * config.num_layers * row))
        )

    def evaluate(self, structures: Sequence[Atoms]) -> list[Evaluation]:
        """Energies, forces and stresses; structures of any sizes and periodicities may be mixed."""
        results: list[Evaluation] = []
        for chunk in self._batches(self._graphs(structures)):
            results += self._evaluate_batch(chunk)
        self.force_evaluations += len(results)
        return results

    def hessian_vector_products(self, atoms: Atoms, vectors: np.ndarray) -> np.ndarray:
        """Exact second derivatives along directions (k, n, 3) in the precision of the force field; see the contract."""
        require_differentiable(self, "a Hessian")
        (graph,) = self._graphs([atoms])
        products = self.scale_ev * hessian_vector_products(
            self.network, graph, vectors, dtype=self.torch_dtype, device=self.device
        )
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
        StructureError, UnknownElementError : as `evaluate`.
        """
        features: list[np.ndarray] = []
        for chunk in self._batches(self._graphs(structures)):
            batch = GraphBatch.collate(chunk, dtype=self.torch_dtype, device=self.device)
            with torch.no_grad():
                joined = self.network(batch).node_embedding.double().cpu().numpy()
            features += np.split(joined, np.cumsum([len(graph.numbers) for graph in chunk])[:-1])
        return features

    def _graphs(self, structures: Sequence[Atoms]) -> list[Graph]:
        self._check_elements(structures)
        config = self.network.config
        reads_state = config.charge_spin_embedding != "none"
        graphs = [
            Graph.from_atoms(atoms, config.cutoff_angstrom, config.max_neighbors, charge_and_spin=reads_state)
            for atoms in structures
        ]
        self._check_charges(graphs)
        return graphs

    def _check_elements(self, structures: Sequence[Atoms]) -> None:
        known = self.declaration.elements or frozenset()
        for index, atoms in enumerate(structures):
            unknown = sorted(set(atoms.symbols[~np.isin(atoms.numbers, list(known))]))
            if unknown:
                raise UnknownElementError(
                    f"structure {index} ({atoms.get_chemical_formula()}) holds {', '.join(unknown)}, which "
                    f"{self.label!r} never saw; it knows atomic numbers {sorted(known)}"
                )

    def _check_charges(self, graphs: Sequence[Graph]) -> None:
        for index, graph in enumerate(graphs):
            if abs(graph.charge) > MAX_CHARGE or not 0 <= graph.spin <= MAX_SPIN:
                raise StructureError(
                    f"structure {index} has charge {graph.charge} and spin multiplicity {graph.spin}; charges from "
                    f"-{MAX_CHARGE} to {MAX_CHARGE} and multiplicities from 0 to {MAX_SPIN} are possible"
                )

    def _batches(self, graphs: Sequence[Graph]) -> Iterator[list[Graph]]:
        """Consecutive graphs up to `max_edges`; one that is larger goes alone, and the network cuts it into chunks."""
        chunk: list[Graph] = []
        edges = 0
        for graph in graphs:
            if chunk and edges + len(graph.source) > self.max_edges:
                yield chunk
                chunk, edges = [], 0
            chunk.append(graph)
            edges += len(graph.source)
        if chunk:
            yield chunk

    def _evaluate_batch(self, graphs: list[Graph]) -> list[Evaluation]:
        batch = GraphBatch.collate(graphs, dtype=self.torch_dtype, device=self.device)
        result = energy_forces_stress(self.network, batch)
        node_energy = result.node_energy.double().cpu().numpy() * self.scale_ev
        forces = result.forces.double().cpu().numpy() * self.scale_ev
        stress = result.stress.double().cpu().numpy() * self.scale_ev
        energy = result.energy.cpu().numpy() * self.scale_ev
        evaluations, start = [], 0
        for index, graph in enumerate(graphs):
            rows = slice(start, start := start + len(graph.numbers))
            references = self.references_ev[graph.numbers] + self.offset_ev / len(graph.numbers)
            evaluation = Evaluation(
                float(energy[index] + references.sum()), forces[rows], stress[index], node_energy[rows] + references
            )
            finite = np.isfinite(evaluation.energy) and np.isfinite(evaluation.forces).all()
            if "stress" in self.declaration.outputs and np.isfinite(graph.volume):
                finite = finite and np.isfinite(evaluation.stress).all()
            if not finite:
                raise EvaluationError(
                    f"{self.label!r} returned NaN or infinity for a structure of {len(graph.numbers)} atoms; "
                    "check its interatomic distances, or use dtype float64"
                )
            evaluations.append(evaluation)
        return evaluations
