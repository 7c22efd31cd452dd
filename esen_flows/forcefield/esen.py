"""An eSEN behind the contract."""

from collections.abc import Iterator, Sequence
from typing import Literal

import numpy as np
import torch
from ase import Atoms

from esen_flows.data.batch import Graph, GraphBatch
from esen_flows.errors import EvaluationError, UnknownElementError
from esen_flows.forcefield.checkpoint import Checkpoint
from esen_flows.forcefield.contract import Declaration, Evaluation, ForceField
from esen_flows.network.derivatives import energy_forces_stress
from esen_flows.network.so3 import degree_index

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
        self.scale_ev = checkpoint.scale_ev
        config = self.network.config
        references = np.zeros(config.max_num_elements)
        for number, energy in checkpoint.references_ev.items():
            references[number] = energy
        self.references_ev = references
        self.declaration = Declaration(
            conservative=True,
            equivariance="SO3",
            differentiable=True,
            elements=frozenset(checkpoint.elements),
            dtype=dtype,
            outputs=("energy", "forces", "stress", "energies"),
            cutoff_angstrom=config.cutoff_angstrom,
        )
        item = torch.finfo(self.torch_dtype).bits // 8
        row = len(degree_index(config.lmax)) * config.sphere_channels * item
        self.max_edges = max(1, int(memory_bytes / (COPIES_PER_EDGE * config.num_layers * row)))

    def evaluate(self, structures: Sequence[Atoms]) -> list[Evaluation]:
        """Energies, forces and stresses; structures of any sizes and periodicities may be mixed."""
        self._check_elements(structures)
        graphs = [Graph.from_atoms(atoms, self.network.config.cutoff_angstrom) for atoms in structures]
        results: list[Evaluation] = []
        for chunk in self._batches(graphs):
            results += self._evaluate_batch(chunk)
        self.force_evaluations += len(results)
        return results

    def _check_elements(self, structures: Sequence[Atoms]) -> None:
        known = self.declaration.elements or frozenset()
        for index, atoms in enumerate(structures):
            unknown = sorted(set(atoms.symbols[~np.isin(atoms.numbers, list(known))]))
            if unknown:
                raise UnknownElementError(
                    f"structure {index} ({atoms.get_chemical_formula()}) holds {', '.join(unknown)}, which "
                    f"{self.label!r} never saw; it knows atomic numbers {sorted(known)}"
                )

    def _batches(self, graphs: Sequence[Graph]) -> Iterator[list[Graph]]:
        """Consecutive graphs up to `max_edges`; one that is larger goes alone."""
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
            references = self.references_ev[graph.numbers]
            evaluation = Evaluation(
                float(energy[index] + references.sum()), forces[rows], stress[index], node_energy[rows] + references
            )
            finite = np.isfinite(evaluation.energy) and np.isfinite(evaluation.forces).all()
            if not finite or (np.isfinite(graph.volume) and not np.isfinite(evaluation.stress).all()):
                raise EvaluationError(
                    f"{self.label!r} returned NaN or infinity for a structure of {len(graph.numbers)} atoms; "
                    "check its interatomic distances, or use dtype float64"
                )
            evaluations.append(evaluation)
        return evaluations
