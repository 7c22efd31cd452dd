"""Native checkpoints: safetensors with a JSON header; nothing in them is ever executed."""

import hashlib
import json
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from esen_flows.errors import ModelError
from esen_flows.network.config import ESENConfig
from esen_flows.network.esen import ESEN
from esen_flows.schemas.checkpoint_header import FORMAT_VERSION, METADATA_NAME, read_header
from esen_flows.schemas.keys import canonical_json


@dataclass(frozen=True)
class Checkpoint:
    """A network and what turns its units into eV.

    Attributes
    ----------
    network
        the weights, float32 as trained.
    scale_ev
        one factor for energy, forces and stress: anything else would break forces = -dE/dx.
    references_ev
        energy of each element to add per atom, by atomic number.
    elements
        atomic numbers seen in training.
    training
        what ran (flat, JSON-able); not part of the key.
    model_key
        sha256, filled by `save` and `load`.
    """

    network: ESEN
    scale_ev: float
    references_ev: dict[int, float]
    elements: tuple[int, ...]
    training: dict[str, Any] = field(default_factory=dict)
    model_key: str = ""
    energy_offset_ev: float = 0.0  # added once to each structure: the mean that some published normalisers take off


def model_key(tensors: Mapping[str, Tensor], identity: Mapping[str, Any]) -> str:
    """sha256 over the tensors (name, dtype, shape, bytes) and the architecture, scale, references and elements."""
    digest = hashlib.sha256(canonical_json(dict(identity)).encode())
    for name in sorted(tensors):
        array = np.ascontiguousarray(tensors[name].detach().cpu().numpy())
        digest.update(f"{name}{array.dtype.str}{array.shape}".encode())
        digest.update(array.tobytes())
    return digest.hexdigest()


def _identity(checkpoint: Checkpoint) -> dict[str, Any]:
    return {
        "family": "esen",
        "architecture": checkpoint.network.config.to_dict(),
        "scale_ev": checkpoint.scale_ev,
        "references_ev": {str(z): e for z, e in sorted(checkpoint.references_ev.items())},
        "elements": sorted(checkpoint.elements),
        **({"energy_offset_ev": checkpoint.energy_offset_ev} if checkpoint.energy_offset_ev else {}),
    }


def save(path: str | Path, checkpoint: Checkpoint) -> str:
    """Write a checkpoint atomically and return its model key.

    Raises
    ------
    ModelError
        the file cannot be written; nothing is left of it.
    """
    path = Path(path)
    tensors = {name: value.detach().cpu().contiguous() for name, value in checkpoint.network.state_dict().items()}
    identity, config = _identity(checkpoint), checkpoint.network.config
    key = model_key(tensors, identity)
    header = {
        **identity,
        "format_version": FORMAT_VERSION,
        "declaration": {
            "conservative": not config.direct_forces,
            "equivariance": config.equivariance,
            "differentiable": not config.direct_forces,
        },
        "training": checkpoint.training,
        "model_key": key,
    }
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        save_file(tensors, temporary, metadata={METADATA_NAME: json.dumps(header, sort_keys=True)})
        os.replace(temporary, path)
    except (SafetensorError, OSError) as error:
        raise ModelError(f"{path} cannot be written: {error}") from error
    finally:
        temporary.unlink(missing_ok=True)
    return key


def load(path: str | Path) -> Checkpoint:
    """Read a checkpoint and check it against its own key.

    Raises
    ------
    ModelError
        missing, truncated, corrupted, wrong shapes, NaN weights, or tensors that do not match the key.
    """
    header = read_header(path)
    try:
        config = ESENConfig(**header["architecture"])
        network = ESEN(config)
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
    except (SafetensorError, RuntimeError, TypeError, ValueError, KeyError, AttributeError) as error:
        raise ModelError(
            f"{path} cannot be loaded: {error}; the file is corrupted or not an eSEN, fetch it again"
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
