"""Files in the layout of published checkpoints, written from networks of this package."""

from collections import OrderedDict

import torch

from esen_flows.network.esen.config import ESENConfig
from esen_flows.network.esen.esen import ESEN
from esen_flows.network.esen.published import expected_constant

SMALL = {
    "sphere_channels": 6,
    "hidden_channels": 8,
    "edge_channels": 5,
    "cutoff_angstrom": 4.0,
    "num_distance_basis": 7,
}
HEADS = {"energy_block": "energy", "force_head": "forces", "stress_head": "stress"}


def small_network(seed=0, **options):
    torch.manual_seed(seed)
    network = ESEN(ESENConfig(**SMALL | options))
    for parameter in network.parameters():
        parameter.data.add_(0.1 * torch.randn_like(parameter))
    return network


def published_state(network):
    """State dict as its publishers write it: with their names, and with the constants that ours leaves out."""
    state = OrderedDict()
    for name, value in network.state_dict().items():
        first, _, rest = name.partition(".")
        if first in HEADS:
            part = name if first == "energy_block" else rest
            state[f"output_heads.{HEADS[first]}.{part}"] = value.clone()
        else:
            state[f"backbone.{name}"] = value.clone()
    config = network.config
    names = [f"backbone.Jd_{degree}" for degree in range(config.lmax + 1)]
    for layer in range(config.num_layers):
        block = f"backbone.blocks.{layer}."
        if config.act_type == "gate":
            names.append(block + "edge_wise.act.expand_index")
        if config.mlp_type == "spectral":
            names += [block + f"atom_wise.{part}.expand_index" for part in ("act", "so3_linear_1", "so3_linear_2")]
        if config.norm_type != "layer_norm":
            names += [block + f"norm_{i}.balance_degree_weight" for i in (1, 2)]
        if config.norm_type == "rms_norm_sh":
            names += [block + f"norm_{i}.expand_index" for i in (1, 2)]
    if config.norm_type != "layer_norm":
        names.append("backbone.norm.balance_degree_weight")
    for name in names:
        dtype = torch.float64 if "Jd_" in name else torch.int64 if "expand" in name else torch.float32
        state[name] = torch.from_numpy(expected_constant(name, config)).to(dtype)
    return state


def backbone_options(config, **changes):
    return {
        "model": "esen_backbone",
        "max_num_elements": config.max_num_elements,
        "sphere_channels": config.sphere_channels,
        "hidden_channels": config.hidden_channels,
        "edge_channels": config.edge_channels,
        "lmax": config.lmax,
        "mmax": config.mmax,
        "otf_graph": True,
        "cutoff": config.cutoff_angstrom,
        "max_neighbors": 300,
        "distance_function": config.distance_function,
        "num_distance_basis": config.num_distance_basis,
        "direct_forces": config.direct_forces,
        "regress_forces": True,
        "regress_stress": True,
        "num_layers": config.num_layers,
        "norm_type": config.norm_type,
        "act_type": config.act_type,
        "mlp_type": config.mlp_type,
        "use_envelope": config.use_envelope,
        **changes,
    }


def first_generation(network, scale=1.7, references=None):
    """Content of a file of the first generation: three targets on one scale, element references by atomic number."""
    table = torch.zeros(119, dtype=torch.float64)
    for number, energy in (references or {14: -5.4, 8: -2.0}).items():
        table[number] = energy
    normalizer = {"mean": torch.tensor(0.0), "rmsd": torch.tensor(scale, dtype=torch.float64)}
    return {
        "state_dict": published_state(network),
        "normalizers": {name: dict(normalizer) for name in ("energy", "forces", "stress")},
        "elementrefs": {"energy": {"element_references": table}},
        "config": {
            "model": {
                "name": "hydra",
                "backbone": backbone_options(network.config),
                "heads": {"mptrj": {"module": "esen_mlp_efs_head"}},
            }
        },
        "val_metrics": {},
        "amp": None,
    }
