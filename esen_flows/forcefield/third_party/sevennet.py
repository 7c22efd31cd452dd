"""SevenNet behind the contract, in float32 as published or in float64."""

import warnings
from collections.abc import Sequence
from importlib.metadata import version
from typing import Any

import numpy as np
import torch
from ase import Atoms

from esen_flows.data.labelled import can_have_stress
from esen_flows.errors import ModelError
from esen_flows.forcefield.contract import Declaration, Evaluation
from esen_flows.forcefield.third_party.any_ase import AseForceField, check_structures, not_finite
from esen_flows.schemas.declarations import Dtype
from esen_flows.schemas.keys import third_party_key
from esen_flows.structures.inputs import AnyStructures, as_structures

ATOMS_PER_BATCH = 128


class SevenNetForceField(AseForceField):
    """Force field of a SevenNet calculator, whose network takes several structures as one graph.

    Parameters
    ----------
    calculator
        A `sevenn.calculator.SevenNetCalculator`.
    key, label, declaration
        As in `AseForceField`.
    """

    def evaluate(self, structures: AnyStructures) -> list[Evaluation]:
        """Energies, forces and stresses of structures, in their order.

        Parameters
        ----------
        structures
            Structures of any size and periodicity; neither they nor their calculators are changed.

        Returns
        -------
        list[Evaluation]
            Results; the stress is NaN where the structure has none.

        Raises
        ------
        StructureError, UnknownElementError
            A structure cannot be evaluated; nothing was computed.
        EvaluationError
            A result is NaN or infinite.
        """
        structures = as_structures(structures)
        check_structures(structures, self.declaration.elements, self.label)
        results: list[Evaluation] = []
        first = 0
        while first < len(structures):
            last, atoms_in_batch = first + 1, len(structures[first])
            while last < len(structures) and atoms_in_batch + len(structures[last]) <= ATOMS_PER_BATCH:
                atoms_in_batch += len(structures[last])
                last += 1
            if last == first + 1:
                results.append(self._evaluate_one(first, structures[first]))
            else:
                results += self._evaluate_batch(structures[first:last], first)
            first = last
        return results

    def _evaluate_batch(self, structures: Sequence[Atoms], first: int) -> list[Evaluation]:
        from sevenn.atom_graph_data import AtomGraphData
        from sevenn.train.dataload import unlabeled_atoms_to_graph
        from torch_geometric.data import Batch

        calculator = self.calculator
        graphs = [
            AtomGraphData.from_numpy_dict(unlabeled_atoms_to_graph(atoms, calculator.cutoff)) for atoms in structures
        ]
        calculator.batch = structures
        calculator.model.set_is_batch_data(True)
        try:
            output = calculator.model(Batch.from_data_list(graphs).to(calculator.device))
        finally:
            calculator.model.set_is_batch_data(False)
            calculator.batch = None
        self.force_evaluations += len(structures)
        energy, forces, energies, stress = (
            output[name].detach().cpu().numpy().astype(np.float64)
            for name in ("inferred_total_energy", "inferred_force", "atomic_energy", "inferred_stress")
        )
        # xx yy zz xy yz zx, with the opposite sign of ASE's.
        stress = -stress.reshape(-1, 6)[:, [[0, 3, 5], [3, 1, 4], [5, 4, 2]]]
        results, begin = [], 0
        for index, atoms in enumerate(structures):
            own = slice(begin, begin + len(atoms))
            begin += len(atoms)
            if not (np.isfinite(energy[index]) and np.isfinite(forces[own]).all()):
                raise not_finite(self.label, first + index, atoms)
            has_stress = can_have_stress(atoms)
            results.append(
                Evaluation(
                    energy=float(energy[index]),
                    forces=forces[own],
                    stress=stress[index] if has_stress else np.full((3, 3), np.nan),
                    energies=energies[own].reshape(-1),
                )
            )
        return results


def sevennet(model: str = "7net-l3i5", device: str = "cpu", dtype: Dtype = "float32") -> SevenNetForceField:
    """SevenNet with the weights of its wheel, which labelled the data of `models/esen_silicon`.

    Park et al., J. Chem. Theory Comput. 20, 4857 (2024). Proper rotations are exact but mirror images are not: the
    forces of a rattled 64-atom silicon cell and of its inverse differ by 3.3 meV/Angstrom (measured, 7net-l3i5).

    Parameters
    ----------
    model
        Name that `sevenn.calculator.SevenNetCalculator` knows; of those in the wheel, 7net-l3i5 is the best.
    device
        "cpu" or "cuda"; not part of the key.
    dtype
        Precision of the arithmetic. The authors use float32; float64 has the same weights and is 1.7 times slower. As
        for our own networks, it is not part of the model key but of the key of a result.

    Returns
    -------
    SevenNetForceField
        Force field of the elements that the weights know.

    Raises
    ------
    ModelError
        sevenn is not installed, or does not know the model.
    """
    try:
        from sevenn.calculator import SevenNetCalculator
    except ImportError as error:
        raise ModelError(
            f"the force field {model!r} needs the package sevenn ({error}); pip install 'esen_flows[sevennet]'"
        ) from error
    with warnings.catch_warnings():
        # sevenn recommends GPU kernels, which do not exist for the CPU.
        warnings.filterwarnings("ignore", message="No tensor product accelerator")
        try:
            calculator = SevenNetCalculator(model, device=device)
        except (ValueError, FileNotFoundError, KeyError, OSError) as error:
            raise ModelError(f"sevenn cannot load {model!r} ({error}); try 7net-l3i5 or 7net-0") from error
    calculator.batch = None
    if dtype == "float64":
        _compute_in_float64(calculator)
    package_version = version("sevenn")
    return SevenNetForceField(
        calculator,
        key=third_party_key("sevenn", package_version, {"model": model}),
        label=f"{model} (sevenn {package_version})",
        declaration=Declaration(
            conservative=True,
            equivariance="SO3",
            differentiable=False,
            elements=frozenset(int(number) for number in calculator.type_map),
            dtype=dtype,
            cutoff_angstrom=float(calculator.cutoff),
        ),
    )


def _compute_in_float64(calculator: Any) -> None:
    """Make a SevenNet calculator compute in float64, by `Module.double` and forward pre-hooks of torch.

    The calculator gives its network a graph in float32. The first hook replaces the edge vectors, from positions in
    float64. The other hooks convert the tensors that parts of the network make in float32 (one-hot vectors, exact).
    """

    def exact_graph(module: torch.nn.Module, arguments: tuple[dict[str, Any]]) -> None:
        graph, structures = arguments[0], calculator.batch or [calculator.atoms]
        rounded = graph["edge_vec"].double()
        where = {"dtype": torch.float64, "device": rounded.device}
        positions = torch.as_tensor(np.concatenate([atoms.positions for atoms in structures]), **where)
        cells = torch.as_tensor(np.stack([atoms.cell.complete().array for atoms in structures]), **where)
        source, target = graph["edge_index"]
        counts = torch.tensor([len(atoms) for atoms in structures], device=rounded.device)
        of_edge = torch.repeat_interleave(cells, counts, dim=0)[source]
        difference = positions[target] - positions[source]
        rows = (rounded - difference)[:, None, :]
        images = torch.round(rows @ torch.linalg.inv(of_edge))
        graph["edge_vec"] = difference + (images @ of_edge)[:, 0, :]
        graph["pos"] = positions
        if all(atoms.cell.rank == 3 for atoms in structures):
            volumes = torch.linalg.det(cells).abs()
            graph["cell_volume"] = volumes if calculator.batch else volumes[0]

    calculator.model.double()
    calculator.model.register_forward_pre_hook(exact_graph)
    for part in calculator.model.children():
        part.register_forward_pre_hook(_raise_to_float64)


def _raise_to_float64(module: torch.nn.Module, arguments: tuple[dict[str, Any]]) -> None:
    graph = arguments[0]
    for name, value in list(graph.items()):
        if torch.is_tensor(value) and value.dtype == torch.float32:
            graph[name] = value.double()
