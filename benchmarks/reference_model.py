"""The public reference implementations as a call: positions in, energy, forces and stress out.

Runs in an environment of `reference_env.sh`, which has no `esen_flows`. Only public entry points are used. Weights are
ours under their published names; edges are given, so that neither side's neighbour list is timed here.
"""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

Call = Callable[[np.ndarray], dict[str, np.ndarray]]
# Constants that the reference makes itself.
CONSTANTS = ("Jd_", "expand_index", "balance_degree_weight", "offset")
# The second generation always has a charge and a spin; with these at zero they say nothing.
CHARGE_AND_SPIN = ("charge_embedding", "spin_embedding", "mix_csd", "dataset_embedding")


def reference_modules(
    implementation: str, folder: Path, task: dict[str, Any], system: dict[str, np.ndarray]
) -> tuple[nn.Module, nn.Module, Callable[[Tensor], Any]]:
    """Backbone, head, and what makes a batch of positions, of "fairchem-core 1.10.0" or "fairchem-core 2.24.0"."""
    dtype = getattr(torch, task["dtype"])
    torch.set_default_dtype(dtype)
    backbone, head, batch = (_first if implementation.endswith("1.10.0") else _second)(task["options"], system)
    state = torch.load(folder / "published.pt", weights_only=True)
    _load(backbone, {name.removeprefix("backbone."): v for name, v in state.items() if name.startswith("backbone.")})
    head_names = {name.split(".", 2)[2]: v for name, v in state.items() if name.startswith("output_heads.")}
    _load(head, head_names)
    for module in (backbone, head):  # not frozen: that makes the first a quarter slower and does nothing for the second
        module.to(device=task["device"], dtype=dtype).eval()
    return backbone, head, lambda positions: batch(positions.to(dtype)).to(task["device"])


def reference_call(implementation: str, folder: Path, task: dict[str, Any], system: dict[str, np.ndarray]) -> Call:
    """Energy, forces and stress of positions."""
    backbone, head, batch = reference_modules(implementation, folder, task, system)

    def call(positions: np.ndarray) -> dict[str, np.ndarray]:
        data = batch(torch.from_numpy(positions))
        output = head(data, backbone(data))
        shapes = {"energy": (), "forces": (-1, 3), "stress": (3, 3)}
        return {name: output[name].detach().double().cpu().numpy().reshape(s) for name, s in shapes.items()}

    return call


def _load(module: nn.Module, state: Mapping[str, Tensor]) -> None:
    missing, unexpected = module.load_state_dict(state, strict=False)
    missing = [name for name in missing if not any(part in name for part in CONSTANTS)]
    for name in [name for name in missing if name.startswith(CHARGE_AND_SPIN)]:
        nn.init.zeros_(module.get_parameter(name))
        missing.remove(name)
    unexpected = [name for name in unexpected if not any(part in name for part in CONSTANTS)]
    if missing or unexpected:
        raise ValueError(f"weights do not fit the reference: missing {missing[:5]}, unknown {unexpected[:5]}")


def _edges(system: dict[str, np.ndarray]) -> dict[str, Tensor]:
    index = np.stack((system["source"], system["target"]))  # row 0: the neighbour, which carries the image's offset
    dtype = torch.get_default_dtype()
    return {
        "edge_index": torch.from_numpy(index),
        "cell_offsets": torch.from_numpy(system["shifts"]).to(dtype),
        "nedges": torch.tensor([index.shape[1]]),
        "atomic_numbers": torch.from_numpy(system["numbers"]).long(),
        "cell": torch.from_numpy(system["cell"]).to(dtype).unsqueeze(0),
        "natoms": torch.tensor([len(system["numbers"])]),
        "batch": torch.zeros(len(system["numbers"]), dtype=torch.long),
    }


def _first(options: dict[str, Any], system: dict[str, np.ndarray]) -> tuple[nn.Module, nn.Module, Callable[..., Any]]:
    from fairchem.core.models.esen.esen import MLP_EFS_Head, eSEN_Backbone
    from torch_geometric.data import Data

    backbone = eSEN_Backbone(
        **options, otf_graph=False, regress_forces=True, regress_stress=True, mlp_type="spectral", act_type="gate"
    )

    def batch(positions: Tensor) -> Any:
        data = Data(pos=positions, pbc=torch.ones(1, 3, dtype=torch.bool), **_edges(system))
        # Names for a part of a structure on one of several processes; here there is one, and the part is the whole.
        data.atomic_numbers_full, data.batch_full = data.atomic_numbers, data.batch
        return data

    return backbone, MLP_EFS_Head(backbone), batch


def _second(options: dict[str, Any], system: dict[str, np.ndarray]) -> tuple[nn.Module, nn.Module, Callable[..., Any]]:
    from fairchem.core.datasets.atomic_data import AtomicData
    from fairchem.core.models.uma.escn_md import MLP_EFS_Head, eSCNMDBackbone

    options = {name: value for name, value in options.items() if name != "use_envelope"}  # always on
    backbone = eSCNMDBackbone(
        **options,
        otf_graph=False,
        regress_forces=True,
        regress_stress=True,
        ff_type="spectral",
        act_type="gate",
        chg_spin_emb_type="rand_emb",
        use_dataset_embedding=False,
    )
    n_atoms = len(system["numbers"])

    def batch(positions: Tensor) -> Any:
        return AtomicData(
            pos=positions,
            pbc=torch.ones(1, 3, dtype=torch.bool),
            charge=torch.zeros(1, dtype=torch.long),
            spin=torch.zeros(1, dtype=torch.long),
            fixed=torch.zeros(n_atoms, dtype=torch.long),
            tags=torch.zeros(n_atoms, dtype=torch.long),
            **_edges(system),
        )

    return backbone, MLP_EFS_Head(backbone, wrap_property=False), batch
