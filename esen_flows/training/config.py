"""One flat file says what ran: everything a training needs, no includes, no defaults hidden elsewhere."""

from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, Literal

from esen_flows.errors import InputError
from esen_flows.network.config import (
    Activation,
    DirectStress,
    ESENConfig,
    NodeBlockType,
    NormType,
    RadialBasis,
    SO2Weights,
)


@dataclass(frozen=True)
class TrainingConfig:
    """A training stage. Energies in eV, lengths in Angstrom, losses without unit.

    Attributes
    ----------
    num_layers .. cutoff_angstrom, distance_function .. direct_stress : the network, see ESENConfig.
    epochs : passes over the data; group_share says which share of a group an epoch sees.
    edges_per_batch : a batch is filled up to this many directed edges (at least one structure).
    learning_rate, betas, weight_decay : AdamW.
    warmup_steps, warmup_factor, final_factor : learning rate from warmup_factor x peak, linearly, then a cosine to
        final_factor x peak.
    clip_norm : global gradient norm.
    ema_decay : of the exponential moving average that is validated and saved.
    loss : "absolute" (the paper's: per-atom energy, force 2-norm, stress, in units of the scale) or "relative" (each
        structure's errors relative to its own forces, stress and energy above the reference, so that a rattle of
        0.01 Angstrom counts as much as one of 0.3).
    energy_weight, force_weight, stress_weight : coefficients.
    relative_floors : eV/atom, eV/Angstrom, eV/Angstrom^3 below which relative errors become absolute.
    random_inversion : feed half of the structures as their mirror image; for labels that are mirror-symmetric.
    initial_head_factor : factor on the last energy layer's initial weights, for a calm start.
    """

    num_layers: int
    lmax: int
    mmax: int
    sphere_channels: int
    hidden_channels: int
    edge_channels: int
    num_distance_basis: int
    cutoff_angstrom: float
    epochs: int
    edges_per_batch: int
    learning_rate: float
    weight_decay: float
    warmup_steps: int
    clip_norm: float
    ema_decay: float
    loss: Literal["absolute", "relative"]
    energy_weight: float
    force_weight: float
    stress_weight: float
    seed: int
    betas: tuple[float, float] = (0.9, 0.999)
    warmup_factor: float = 0.2
    final_factor: float = 0.01
    relative_floors: tuple[float, float, float] = (0.02, 0.02, 0.01)
    random_inversion: bool = False
    initial_head_factor: float = 1.0
    group_share: dict[str, float] | None = None
    validate_every_epochs: int = 1
    distance_function: RadialBasis = "gaussian"
    norm_type: NormType = "rms_norm_sh"
    use_envelope: bool = True
    act_type: Activation = "gate"
    mlp_type: NodeBlockType = "spectral"
    grid_resolution: int | None = None
    so2_weights: SO2Weights = "complex"
    max_neighbors: int | None = None
    direct_forces: bool = False
    direct_stress: DirectStress = "none"

    def __post_init__(self) -> None:
        if self.loss not in ("absolute", "relative"):
            raise InputError(f"loss must be 'absolute' or 'relative', got {self.loss!r}")
        for name in ("epochs", "edges_per_batch", "learning_rate", "clip_norm", "validate_every_epochs"):
            if getattr(self, name) <= 0:
                raise InputError(f"{name} must be positive, got {getattr(self, name)!r}")
        if not 0 <= self.ema_decay < 1:
            raise InputError(f"ema_decay must be in [0, 1), got {self.ema_decay}")
        try:
            _ = self.architecture
        except ValueError as error:
            raise InputError(str(error)) from error

    @property
    def architecture(self) -> ESENConfig:
        """The network's sizes and options."""
        return ESENConfig(**{f.name: getattr(self, f.name) for f in fields(ESENConfig) if hasattr(self, f.name)})


def read_config(path: str | Path) -> TrainingConfig:
    """Read a flat YAML file.

    Raises
    ------
    InputError : missing file, unknown or missing keys, wrong types; the message names them.
    """
    import yaml  # not on a bare GPU machine, where a TrainingConfig is made in Python

    path = Path(path)
    if not path.is_file():
        raise InputError(f"no training file at {path}")
    try:
        values: Any = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise InputError(f"{path} is not valid YAML: {error}") from error
    if not isinstance(values, dict):
        raise InputError(f"{path} must be a flat mapping of names to values, got {type(values).__name__}")
    known = {f.name for f in fields(TrainingConfig)}
    if unknown := sorted(set(values) - known):
        raise InputError(f"{path}: unknown keys {unknown}; known are {sorted(known)}")
    for name in ("betas", "relative_floors"):
        if name in values:
            values[name] = tuple(values[name])
    try:
        return TrainingConfig(**values)
    except TypeError as error:
        raise InputError(f"{path}: {error}") from error
