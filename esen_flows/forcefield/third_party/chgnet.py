"""CHGNet behind the contract, in float32 as published or in float64, in batches of structures."""

import contextlib
import io
import warnings
from collections.abc import Sequence
from importlib.metadata import version
from typing import Any

import numpy as np
import torch
from ase import Atoms
from ase.units import GPa

from esen_flows.errors import ModelError, StructureError
from esen_flows.forcefield.contract import Declaration, Evaluation, ForceField
from esen_flows.forcefield.third_party.any_ase import check_structures, not_finite
from esen_flows.schemas.declarations import Dtype
from esen_flows.schemas.keys import third_party_key
from esen_flows.structures.inputs import AnyStructures, as_structures

# MPtrj, on which it was trained, has all elements up to Pu except Po, At, Rn, Fr and Ra.
ELEMENTS = frozenset(range(1, 95)) - frozenset(range(84, 89))
# On one CPU thread batches save a quarter of the time for cells of 8 atoms, and nothing for 64.
ATOMS_PER_BATCH = 128


class ChgnetForceField(ForceField):
    """Force field of a CHGNet, by the package's own `CHGNet.predict_graph`, without its magnetic moments.

    Parameters
    ----------
    network
        A `chgnet.model.model.CHGNet`.
    model
        Name of the weights in the package, such as "0.3.0".
    package_version
        Version of chgnet; part of the key.
    dtype
        Precision of the arithmetic.
    """

    def __init__(self, network: Any, model: str, package_version: str, dtype: Dtype) -> None:
        self.key = third_party_key("chgnet", package_version, {"model": model})
        self.label = f"CHGNet {model} (chgnet {package_version})"
        self.declaration = Declaration(
            conservative=True,
            equivariance="O3",  # its features are distances and angles
            differentiable=False,
            elements=ELEMENTS,
            dtype=dtype,
            cutoff_angstrom=float(network.graph_converter.atom_graph_cutoff),
            # No jump was found, but the energy bends on a scale of 0.01 Angstrom: a third derivative of perfect silicon
            # is 103 eV/Angstrom^3 by differences of 0.001 Angstrom, 25 by 0.01, and has the other sign by 0.03.
            smooth=False,
        )
        self._network = network.double() if dtype == "float64" else network
        self._network.graph_converter.set_isolated_atom_response("ignore")
        # Counts of elements, for the reference energies, are made in float32 (exact).
        if dtype == "float64":
            self._network.composition_model.fc.register_forward_pre_hook(lambda _, arguments: (arguments[0].double(),))

    def evaluate(self, structures: AnyStructures) -> list[Evaluation]:
        """Energies, forces and stresses of structures, in their order.

        Parameters
        ----------
        structures
            Structures that are periodic in three directions.

        Returns
        -------
        list[Evaluation]
            One result per structure.

        Raises
        ------
        StructureError, UnknownElementError
            A structure cannot be evaluated; nothing was computed.
        EvaluationError
            A result is NaN or infinite.
        """
        return self._evaluate(structures, "efs")

    def evaluate_forces(self, structures: AnyStructures) -> list[Evaluation]:
        """Energies and forces of structures, in 0.6 to 0.8 of the time of `evaluate`.

        The package differentiates the energy once for forces and a second time for the stress.

        Parameters
        ----------
        structures
            Structures that are periodic in three directions.

        Returns
        -------
        list[Evaluation]
            One result per structure, with the forces of `evaluate` to the bit and a stress of NaN.

        Raises
        ------
        StructureError, UnknownElementError
            A structure cannot be evaluated; nothing was computed.
        EvaluationError
            A result is NaN or infinite.
        """
        return self._evaluate(structures, "ef")

    def _evaluate(self, structures: AnyStructures, task: str) -> list[Evaluation]:
        structures = as_structures(structures)
        check_structures(structures, self.declaration.elements, self.label)
        for index, atoms in enumerate(structures):
            if not atoms.pbc.all() or atoms.cell.rank < 3:
                raise StructureError(
                    f"structure {index} ({atoms.get_chemical_formula()}) is not periodic in three directions, and "
                    f"{self.label!r} is for crystals; give it a cell with vacuum and pbc=True"
                )
        results: list[Evaluation] = []
        first = 0
        while first < len(structures):
            last, atoms_in_batch = first + 1, len(structures[first])
            while last < len(structures) and atoms_in_batch + len(structures[last]) <= ATOMS_PER_BATCH:
                atoms_in_batch += len(structures[last])
                last += 1
            results += self._evaluate_batch(structures[first:last], first, task)
            first = last
        return results

    def _evaluate_batch(self, structures: Sequence[Atoms], first: int, task: str) -> list[Evaluation]:
        with warnings.catch_warnings():
            # The warnings are about a volume that is not differentiated, and about rare gases.
            warnings.filterwarnings("ignore", message="Converting a tensor with requires_grad=True to a scalar")
            warnings.filterwarnings("ignore", message="No Pauling electronegativity")
            graphs = [self._graph(atoms) for atoms in structures]
            predictions = self._network.predict_graph(graphs, task=task, batch_size=len(graphs))
        if len(graphs) == 1:  # predict_graph gives no list for one graph
            predictions = [predictions]
        self.force_evaluations += len(structures)
        results = []
        for index, (atoms, found) in enumerate(zip(structures, predictions, strict=True), start=first):
            numbers = {name: np.array(found[name], dtype=np.float64) for name in task}
            if not all(np.isfinite(values).all() for values in numbers.values()):
                raise not_finite(self.label, index, atoms)
            # It divides by a volume that is negative in a left-handed cell.
            stress = numbers["s"] * GPa * atoms.cell.handedness if "s" in numbers else np.full((3, 3), np.nan)
            results.append(Evaluation(float(numbers["e"]) * len(atoms), numbers["f"], stress))
        return results

    def _graph(self, atoms: Atoms) -> Any:
        from pymatgen.core import Structure

        structure = Structure(atoms.cell.array, atoms.numbers, atoms.positions, coords_are_cartesian=True)
        graph = self._network.graph_converter(structure)
        if self.declaration.dtype == "float64":  # the converter rounds to float32
            graph.atom_frac_coord = torch.tensor(structure.frac_coords, dtype=torch.float64, requires_grad=True)
            graph.lattice = torch.tensor(atoms.cell.array, dtype=torch.float64, requires_grad=True)
            graph.neighbor_image = graph.neighbor_image.double()
        return graph.to(next(self._network.parameters()).device)


def chgnet(model: str = "0.3.0", device: str = "cpu", dtype: Dtype = "float32") -> ChgnetForceField:
    """CHGNet with the weights of its wheel (0.3.0, 0.2.0, r2scan).

    Deng et al., Nat. Mach. Intell. 5, 1031 (2023).

    Parameters
    ----------
    model
        Name of the weights.
    device
        torch device; not part of the key.
    dtype
        Precision of the arithmetic. The authors use float32; float64 has the same weights and is a quarter slower. As
        for our own networks, it is not part of the model key but of the key of a result.

    Returns
    -------
    ChgnetForceField
        Force field of 89 elements.

    Raises
    ------
    ModelError
        chgnet is not installed, or does not know the model.
    """
    try:
        from chgnet.model.model import CHGNet
    except ImportError as error:
        raise ModelError(
            f"the force field CHGNet {model} needs the package chgnet ({error}); pip install 'esen_flows[chgnet]'"
        ) from error
    with contextlib.redirect_stdout(io.StringIO()):  # it prints its size
        try:
            network = CHGNet.load(model_name=model, use_device="cpu", verbose=False)
        except (ValueError, FileNotFoundError, KeyError, OSError) as error:
            raise ModelError(f"chgnet cannot load {model!r} ({error}); try 0.3.0") from error
    return ChgnetForceField(network.to(device), model, version("chgnet"), dtype)
