"""Native checkpoints: safetensors files with a JSON header; nothing in them is executed."""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from safetensors.torch import save as as_bytes
from torch import Tensor

from esen_flows.errors import ModelError
from esen_flows.files import written_whole
from esen_flows.forcefield.families import DEFAULT_FAMILY, family_of, make_config, make_network
from esen_flows.network.interface import Network, NetworkConfig
from esen_flows.schemas.checkpoint_header import (
    FORMAT_VERSION,
    METADATA_NAME,
    TensorPlace,
    read_header,
    read_tensors,
)
from esen_flows.schemas.keys import canonical_json


@dataclass(frozen=True)
class Checkpoint:
    """A network, and the numbers that turn its units into eV.

    Attributes
    ----------
    network
        Network, in float32 as trained.
    scale_ev
        Factor of energy, forces and stress. It is one factor because others would break forces = -dE/dx.
    references_ev
        Energy of each element, added for each atom, by atomic number.
    elements
        Atomic numbers seen in training.
    training
        Record of the training (flat, JSON-able); not part of the key.
    model_key
        sha256 of the checkpoint; filled by `load`.
    energy_offset_ev
        Energy added once to each structure: the mean that some published normalisers subtract.
    """

    network: Network
    scale_ev: float
    references_ev: dict[int, float]
    elements: tuple[int, ...]
    training: dict[str, Any] = field(default_factory=dict)
    model_key: str = ""
    energy_offset_ev: float = 0.0

    def __post_init__(self) -> None:
        if not 0.0 < self.scale_ev < float("inf"):
            raise ModelError(f"the scale of a force field must be a positive number, got {self.scale_ev!r} eV")


def model_key(tensors: Mapping[str, Tensor], identity: Mapping[str, Any]) -> str:
    """Model key: sha256 over tensors (name, dtype, shape, bytes) and everything else that defines the force field.

    Parameters
    ----------
    tensors
        Weights by name.
    identity
        Architecture, scale, references and elements, as JSON-able values.

    Returns
    -------
    str
        64 hexadecimal digits.
    """
    digest = hashlib.sha256(canonical_json(dict(identity)).encode())
    for name in sorted(tensors):
        array = np.ascontiguousarray(tensors[name].detach().cpu().numpy())
        digest.update(f"{name}{array.dtype.str}{array.shape}".encode())
        digest.update(array.tobytes())
    return digest.hexdigest()


def _identity(checkpoint: Checkpoint) -> dict[str, Any]:
    return {
        "family": family_of(checkpoint.network.config),
        "architecture": checkpoint.network.config.to_dict(),
        "scale_ev": checkpoint.scale_ev,
        "references_ev": {str(z): e for z, e in sorted(checkpoint.references_ev.items())},
        "elements": sorted(checkpoint.elements),
        **({"energy_offset_ev": checkpoint.energy_offset_ev} if checkpoint.energy_offset_ev else {}),
    }


def save(path: str | Path, checkpoint: Checkpoint) -> str:
    """Write a checkpoint, whole or not at all.

    Parameters
    ----------
    path
        File to write, ending in .safetensors.
    checkpoint
        Checkpoint to write.

    Returns
    -------
    str
        Model key of the checkpoint.

    Raises
    ------
    ModelError
        The file cannot be written.
    """
    path = Path(path)
    tensors = {name: value.detach().cpu().contiguous() for name, value in checkpoint.network.state_dict().items()}
    identity, config = _identity(checkpoint), checkpoint.network.config
    key = model_key(tensors, identity)
    header = {
        **identity,
        "format_version": FORMAT_VERSION,
        "declaration": {
            "conservative": config.conservative,
            "equivariance": config.equivariance,
            "differentiable": config.differentiable,
        },
        "training": checkpoint.training,
        "model_key": key,
    }
    try:
        with written_whole(path) as temporary:
            # Bytes, because safetensors makes files that only their owner may read.
            temporary.write_bytes(as_bytes(tensors, metadata={METADATA_NAME: json.dumps(header, sort_keys=True)}))
    except (SafetensorError, OSError) as error:
        raise ModelError(f"{path} cannot be written: {error}") from error
    return key


def load(path: str | Path) -> Checkpoint:
    """Read a checkpoint and check it against its own key.

    Parameters
    ----------
    path
        File that `save` wrote.

    Returns
    -------
    Checkpoint
        Network, scale and reference energies, with their model key.

    Raises
    ------
    ModelError
        The file is missing, truncated or corrupted, has wrong shapes or NaN weights, or does not match its key.
    """
    header = read_header(path)
    try:
        config = make_config(header.get("family", DEFAULT_FAMILY), header["architecture"])
        _check_sizes(config, read_tensors(path), header)
        network = make_network(config)
        tensors = load_file(path)
        network.load_state_dict(tensors)
        checkpoint = Checkpoint(
            network,
            float(header["scale_ev"]),
            {int(z): float(e) for z, e in header["references_ev"].items()},
            tuple(header["elements"]),
            header.get("training", {}),
            header["model_key"],
            float(header.get("energy_offset_ev", 0.0)),
        )
    except ModelError as error:
        raise ModelError(f"{path} cannot be loaded: {error}") from error
    except (SafetensorError, RuntimeError, TypeError, ValueError, KeyError, AttributeError) as error:
        raise ModelError(
            f"{path} cannot be loaded: {error}; the file is corrupted or of another release, fetch it again"
        ) from error
    if not all(torch.isfinite(value).all() for value in tensors.values()):
        raise ModelError(f"{path} holds NaN or infinite weights; the training that wrote it failed")
    found = model_key(tensors, _identity(checkpoint))
    if found != checkpoint.model_key:
        raise ModelError(
            f"{path} does not match its own key (header {checkpoint.model_key[:12]}, contents {found[:12]}); "
            "the file is corrupted, fetch it again"
        )
    return checkpoint


def _check_sizes(config: NetworkConfig, tensors: Mapping[str, TensorPlace], header: Mapping[str, Any]) -> None:
    """Compare the sizes that a header gives with the shapes of tensors, before memory is taken for a network."""
    for name, shape in config.telling_shapes.items():
        found = tensors[name].shape if name in tensors else None
        if found != shape:
            raise ValueError(f"its header describes a tensor {name} of shape {shape}, it has {found}")
    if max(map(int, (*header["references_ev"], *header["elements"]))) >= config.max_num_elements:
        raise ValueError(f"its elements go beyond the {config.max_num_elements} rows of its tables")
