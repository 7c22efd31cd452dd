"""SevenNet behind the contract, in float32 as published or in float64."""

import warnings
from importlib.metadata import version
from typing import Any

import torch

from esen_flows.errors import ModelError
from esen_flows.forcefield.contract import Declaration
from esen_flows.forcefield.third_party.any_ase import AseForceField
from esen_flows.schemas.declarations import Dtype
from esen_flows.schemas.keys import third_party_key


def sevennet(model: str = "7net-l3i5", device: str = "cpu", dtype: Dtype = "float32") -> AseForceField:
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
    AseForceField
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
    if dtype == "float64":
        _compute_in_float64(calculator)
    package_version = version("sevenn")
    return AseForceField(
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
        graph, atoms = arguments[0], calculator.atoms
        rounded = graph["edge_vec"].double()
        positions = torch.as_tensor(atoms.positions, dtype=torch.float64, device=rounded.device)
        cell = torch.as_tensor(atoms.cell.complete().array, dtype=torch.float64, device=rounded.device)
        source, target = graph["edge_index"]
        difference = positions[target] - positions[source]
        images = torch.round((rounded - difference) @ torch.linalg.inv(cell))
        graph["edge_vec"] = difference + images @ cell
        graph["pos"] = positions
        if atoms.cell.rank == 3:
            graph["cell_volume"] = torch.linalg.det(cell).abs()

    calculator.model.double()
    calculator.model.register_forward_pre_hook(exact_graph)
    for part in calculator.model.children():
        part.register_forward_pre_hook(_raise_to_float64)


def _raise_to_float64(module: torch.nn.Module, arguments: tuple[dict[str, Any]]) -> None:
    graph = arguments[0]
    for name, value in list(graph.items()):
        if torch.is_tensor(value) and value.dtype == torch.float32:
            graph[name] = value.double()
