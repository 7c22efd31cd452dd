"""Published eSEN state dicts: networks of ours from their names, shapes and configurations.

Files are read by `forcefield.converted`. The names and rules here come from listings of the published models' state
dicts and configurations.
"""

import re
from collections.abc import Mapping
from dataclasses import fields
from typing import Any

import numpy as np
import torch
from torch import Tensor

from esen_flows.errors import ModelError
from esen_flows.network.esen.config import MAX_CHARGE, MAX_SPIN, ESENConfig
from esen_flows.network.esen.esen import ESEN
from esen_flows.network.esen.harmonics import spherical_harmonics
from esen_flows.network.esen.norms import BALANCE, degree_index

# Published names of options that have another name here.
_OPTIONS = {"cutoff": "cutoff_angstrom", "chg_spin_emb_type": "charge_spin_embedding"}
# Options of published configurations that a trained network does not depend on.
_IGNORED = {
    *("model", "otf_graph", "regress_forces", "regress_stress", "use_pbc", "use_pbc_single", "always_use_pbc"),
    *("edge_chunk_size", "activation_checkpointing", "activation_checkpoint"),
    *("use_dataset_embedding", "dataset_list", "dataset_emb_grad", "cs_emb_grad"),
}
_LARGEST = {"lmax": 11, "num_layers": 100}  # published tables of rotations end at degree 11
_NOT_IN_THE_SHAPES = ("use_envelope", "max_neighbors", "grid_resolution")
# The table is the weight of the embedding itself or of a module one level below it.
_TABLE = re.compile(r"backbone\.(charge|spin)_embedding\.(?:\w+\.)?weight$")
_HEAD_PARTS = {
    "energy_block": "energy_block",
    "linear": "force_head.linear",
    "denoising_linear": "force_head.denoising_linear",
    "sphharm_norm": "stress_head.sphharm_norm",
    "xedge_layer_norm": "stress_head.xedge_layer_norm",
    "block": "stress_head.block",
}


def build(state: Mapping[str, Tensor], options: Mapping[str, Any] | None = None) -> ESEN:
    """Network of a published state dict, with its weights.

    Parameters
    ----------
    state
        Tensors by published names ("backbone.*", "output_heads.*", with or without "module." before them).
    options
        Published backbone configuration. Sizes are read from the shapes and have to agree with it. Options that do
        not show in the shapes have to be given here.

    Returns
    -------
    ESEN
        Network in float32.

    Raises
    ------
    ModelError
        Names, options or shapes are unknown, buffers are of another convention, configuration and weights contradict
        each other, or an option is missing.
    """
    state = strip_prefixes(state)
    config = infer_config(state, options or {})
    _check_buffers(state, config)
    tensors: dict[str, Tensor] = {}
    for name, value in state.items():
        if not is_constant(name) and tensors.setdefault(_native_name(name), value) is not value:
            raise ModelError(f"several weights for {_native_name(name)}; one head for each output is possible")
    with torch.device("meta"):
        expected = {name: tuple(value.shape) for name, value in ESEN(config).state_dict().items()}
    if "distance_expansion.offset" in expected and "distance_expansion.offset" not in tensors:
        tensors["distance_expansion.offset"] = torch.linspace(0.0, config.cutoff_angstrom, config.num_distance_basis)
    _check_shapes({name: tuple(value.shape) for name, value in tensors.items()}, expected)
    bad = sorted(name for name, value in tensors.items() if not torch.isfinite(value).all())
    if bad:
        raise ModelError(f"NaN or infinite weights: {', '.join(bad[:5])}; the file is damaged or its training failed")
    network = ESEN(config)
    own = dict(network.named_buffers())
    for name, value in state.items():
        # Weights of degrees that were rounded otherwise than ours are a part of the model.
        if name.endswith(BALANCE):
            native = _native_name(name)
            if native not in own:
                raise ModelError(f"weights without a place: {name}")
            if not torch.equal(own[native], value.float()):
                tensors[native] = value
    network.load_state_dict({name: value.float() for name, value in tensors.items()})
    return network


def strip_prefixes(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Remove the leading "module." of names (one per wrapper of a distributed training).

    Parameters
    ----------
    state
        Tensors by published names.

    Returns
    -------
    dict[str, Tensor]
        The same tensors by the names without prefix.

    Raises
    ------
    ModelError
        Two names become the same.
    """
    stripped = {re.sub(r"^(module\.)+", "", name): value for name, value in state.items()}
    if len(stripped) != len(state):
        raise ModelError("the file has weights twice, with and without 'module.' before their names")
    return stripped


def infer_config(state: Mapping[str, Tensor], options: Mapping[str, Any]) -> ESENConfig:
    """Configuration of a published state dict: from its names and shapes, and the rest from `options`.

    Parameters
    ----------
    state
        Tensors by published names, without prefixes.
    options
        Published backbone configuration.

    Returns
    -------
    ESENConfig
        Configuration in our names.

    Raises
    ------
    ModelError
        An option is unknown, missing, or contradicts the shapes.
    """
    known = {field.name for field in fields(ESENConfig)}
    given = {_OPTIONS.get(name, name): value for name, value in options.items() if name not in _IGNORED}
    if unknown := sorted(set(given) - known):
        raise ModelError(f"the configuration has options that this release does not know: {', '.join(unknown)}")
    limit = given.get("max_neighbors")
    if isinstance(limit, int) and not isinstance(limit, bool) and limit <= 0:
        given["max_neighbors"] = None
    try:
        found = _from_shapes(state)
    except (KeyError, IndexError, ZeroDivisionError) as error:
        raise ModelError(f"the weights are not those of an eSEN: {error} is missing or has another rank") from error
    for name, largest in _LARGEST.items():  # the tables of degree 1,000,000 would fill the memory
        if found[name] > largest:
            raise ModelError(f"the weights say {name} = {found[name]}; no published model has more than {largest}")
    if "cutoff_angstrom" not in found and "cutoff_angstrom" not in given:
        raise ModelError("the shapes do not tell the cutoff of this file: give cutoff")
    needed = _NOT_IN_THE_SHAPES if {found["act_type"], found["mlp_type"]} & {"s2", "grid"} else _NOT_IN_THE_SHAPES[:2]
    if missing := [name for name in needed if name not in given]:
        raise ModelError(f"the shapes of the weights do not tell {', '.join(missing)}: give them")
    for name, value in found.items():
        said = given.get(name, value)
        if said != value and not (name == "cutoff_angstrom" and abs(said - value) < 1e-6 * value):
            raise ModelError(f"the configuration says {name} = {said!r}, the weights say {value!r}")
    try:
        return ESENConfig(**{**found, **given})
    except ValueError as error:
        raise ModelError(f"no network of this configuration: {error}") from error


def _from_shapes(state: Mapping[str, Tensor]) -> dict[str, Any]:
    """Options of the configuration that show in the names and shapes of the weights."""
    block = "backbone.blocks.0."
    max_num_elements, channels = state["backbone.sphere_embedding.weight"].shape
    edge_channels = state["backbone.source_embedding.weight"].shape[1]
    rows = state["backbone.edge_degree_embedding.rad_func.net.6.weight"].shape[0] // channels
    radial = state["backbone.edge_degree_embedding.rad_func.net.0.weight"].shape[1]
    outputs = state[block + "edge_wise.so2_conv_2.so2_m_conv.0.fc.weight"].shape[0]
    stress = next((value for name, value in state.items() if name.endswith(".xedge_layer_norm.weight")), None)
    if "backbone.norm.norm_l0.weight" in state:
        norm = "layer_norm_sh"
    else:
        norm = "rms_norm_sh" if "backbone.norm.balance_degree_weight" in state else "layer_norm"
    offset = state.get("backbone.distance_expansion.offset")
    return {
        "num_layers": len({name.split(".")[2] for name in state if name.startswith("backbone.blocks.")}),
        "lmax": rows - 1,
        "mmax": sum(f"{block}edge_wise.so2_conv_1.so2_m_conv.{m}.fc.weight" in state for m in range(100)),
        "sphere_channels": channels,
        "hidden_channels": state[block + "edge_wise.so2_conv_2.fc_m0.weight"].shape[1] // rows,
        "edge_channels": edge_channels,
        "max_num_elements": max_num_elements,
        "num_distance_basis": radial - 2 * edge_channels,
        **({} if offset is None else {"cutoff_angstrom": float(offset[-1])}),
        "distance_function": "bessel" if "backbone.distance_expansion.rbf.frequencies" in state else "gaussian",
        "norm_type": norm,
        "act_type": "gate" if block + "edge_wise.act.expand_index" in state else "s2",
        "mlp_type": "spectral" if block + "atom_wise.scalar_mlp.0.weight" in state else "grid",
        "so2_weights": "complex" if outputs == 2 * (rows - 1) * channels else "real",
        "direct_forces": any(name.endswith(".linear.weight") for name in state if name.startswith("output_heads.")),
        "direct_stress": "none" if stress is None else "target" if stress.shape[0] == channels else "source_target",
        "denoising": "backbone.force_embedding.weight" in state,
        "charge_spin_embedding": _charge_spin(state),
    }


def _charge_spin(state: Mapping[str, Tensor]) -> str:
    """Kind of the embedding of charge and spin: "rand_emb" (two tables), or "none"."""
    channels = state["backbone.sphere_embedding.weight"].shape[1]
    tables = {name: tuple(value.shape) for name, value in state.items() if _TABLE.match(name)}
    mixing = state.get("backbone.mix_csd.weight")
    if not tables and mixing is None:
        return "none"
    expected = {(2 * MAX_CHARGE + 1, channels), (MAX_SPIN + 1, channels)}
    if set(tables.values()) != expected or mixing is None or tuple(mixing.shape) != (channels, 2 * channels):
        raise ModelError(
            f"charge and spin enter by {tables or 'no table'} and mix_csd of shape "
            f"{None if mixing is None else tuple(mixing.shape)}; this release knows tables of {2 * MAX_CHARGE + 1} "
            f"charges and {MAX_SPIN + 1} multiplicities (rand_emb), without a dataset embedding"
        )
    return "rand_emb"


def is_constant(name: str) -> bool:
    """Whether a published name is that of a constant of the architecture, which is no weight.

    Parameters
    ----------
    name
        Published name of a tensor.

    Returns
    -------
    bool
        True for rotation constants, index tables and balance weights.
    """
    last = name.split(".")[-1]
    return last.startswith("Jd_") or last in ("expand_index", BALANCE)


def _native_name(name: str) -> str:
    if table := _TABLE.match(name):
        return f"{table.group(1)}_embedding.weight"
    if name.startswith("backbone."):
        return name.removeprefix("backbone.")
    parts = name.split(".")
    if parts[0] == "output_heads" and len(parts) > 2:
        # One more level in files of the second generation: output_heads.<name>.head.energy_block
        rest = parts[3:] if parts[2] == "head" else parts[2:]
        if rest[0] in _HEAD_PARTS:
            return ".".join([_HEAD_PARTS[rest[0]], *rest[1:]])
    raise ModelError(f"no place for the weights {name!r}; known are backbone.* and energy, force and stress heads")


def _check_shapes(found: Mapping[str, tuple[int, ...]], expected: Mapping[str, tuple[int, ...]]) -> None:
    if missing := sorted(set(expected) - set(found)):
        raise ModelError(f"weights are missing: {', '.join(missing[:5])} ({len(missing)} in all)")
    if unknown := sorted(set(found) - set(expected)):
        raise ModelError(f"weights without a place: {', '.join(unknown[:5])} ({len(unknown)} in all)")
    for name, shape in expected.items():
        if found[name] != shape:
            raise ModelError(f"{name} has shape {found[name]}, the other weights ask for {shape}")


def _check_buffers(state: Mapping[str, Tensor], config: ESENConfig) -> None:
    """Refuse stored constants of another convention than ours."""
    for name, value in state.items():
        if not is_constant(name):
            continue
        expected = expected_constant(name, config)
        found = value.double().numpy()
        if found.shape != expected.shape or not np.allclose(found, expected, rtol=1e-6, atol=1e-6):
            raise ModelError(f"the constant {name} is not that of eSEN's convention; this is another architecture")


def expected_constant(name: str, config: ESENConfig) -> np.ndarray:
    """Constant of the architecture under a published name.

    Parameters
    ----------
    name
        Published name for which `is_constant` holds.
    config
        Configuration of the network.

    Returns
    -------
    np.ndarray
        Values of the constant.

    Raises
    ------
    ModelError
        The constant is of a degree above lmax.
    """
    parts = name.split(".")
    if parts[-1].startswith("Jd_"):
        degree = int(parts[-1].removeprefix("Jd_"))
        if degree > config.lmax:
            raise ModelError(f"the constant {name} is of a degree that lmax {config.lmax} has no use for")
        return _swap_representation(degree)
    degrees = degree_index(1 if parts[-2] in ("linear", "denoising_linear") else config.lmax)
    if parts[-1] == BALANCE:
        first = 1 if config.norm_type == "layer_norm_sh" else 0
        count = config.lmax + 1 - first
        return np.array([[1 / ((2 * degree + 1) * count)] for degree in degrees if degree >= first])
    if parts[-2] == "act":
        limit = 2 * (config.mmax if "edge_wise" in parts else config.lmax) + 1
        return np.repeat(np.arange(config.lmax), [min(2 * d + 1, limit) for d in range(1, config.lmax + 1)])
    return np.array(degrees)


def _swap_representation(degree: int) -> np.ndarray:
    """Matrix of (x, y, z) -> (-y, -x, z) on the harmonics of a degree, which published files call J."""
    points = np.random.default_rng(0).normal(size=(20 * (degree + 1), 3))
    points /= np.linalg.norm(points, axis=1, keepdims=True)
    swapped = np.stack((-points[:, 1], -points[:, 0], points[:, 2]), axis=1)
    solution, *_ = np.linalg.lstsq(spherical_harmonics(degree, points), spherical_harmonics(degree, swapped))
    return solution.T
