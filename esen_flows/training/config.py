"""The settings of a training stage: one flat file says what ran, without includes or defaults hidden elsewhere."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any, Literal, get_args, get_origin, get_type_hints

from esen_flows.errors import InputError, ModelError
from esen_flows.forcefield.families import DEFAULT_FAMILY, family_named, family_of
from esen_flows.network.interface import NetworkConfig

Refit = Literal["keep", "refit"]


@dataclass(frozen=True)
class TrainingConfig:
    """A training stage: direct pre-training and conservative fine-tuning differ in values, not in kind.

    Parameters
    ----------
    network
        Sizes and options of the network. In a file its fields stand beside those of the stage, with all sizes, and
        `family` names the family of the network, where it is not eSEN.
    epochs
        Passes over the data.
    edges_per_batch
        A batch, over all processes, is filled up to this many directed edges, or has one larger structure.
    learning_rate, betas, weight_decay
        Settings of AdamW.
    clip_norm
        Largest norm of the gradient of all parameters.
    ema_decay
        Decay of the exponential moving average of the weights, which is validated and saved.
    loss
        "absolute" (the paper's: per-atom energy MAE, force_loss, stress MAE, in units of the scale) or "relative"
        (each structure's errors relative to its own forces, stress and energy above the references, so that a rattle
        of 0.01 Angstrom counts as much as one of 0.3).
    energy_weight, force_weight, stress_weight
        Coefficients of the terms of the loss. With a direct stress head, the isotropic and the anisotropic part have
        this coefficient each.
    seed
        Decides the random weights, the order of the structures and the noise.
    structures_per_batch
        Most structures of a batch; None: no limit.
    edges_per_pass
        Most directed edges that one process holds in memory at once. A larger share of a batch is computed in several
        passes, whose gradients are added up; None: in one pass.
    edges_per_chunk
        Messages of at most this many edges are kept in memory, and computed again for the gradient; None: all are kept.
    warmup_steps, warmup_epochs
        Length of the warm-up; one of them is given. In it the learning rate rises linearly.
    warmup_factor, final_factor
        Share of the learning rate at the start of the warm-up, and at the end of the training: a cosine over the whole
        training lowers it to that share.
    force_loss
        Force term of the absolute loss: "l2mae", the mean over atoms of the 2-norm of the force error, or "mse", the
        squared 2-norm over 3 atoms. The paper prints the second, its public sibling configurations use the first.
        l2mae is the default because a few extreme frames dominate a mean of squares.
    relative_floors
        eV/atom, eV/Angstrom, eV/Angstrom^3 below which relative errors become absolute.
    random_inversion
        Whether half of the structures are replaced by their mirror images; for labels that are mirror-symmetric.
    denoising_probability, denoising_std_angstrom, denoising_weight
        DeNS (arXiv 2403.09549), for networks with `denoising`: probability that a batch is noised, standard deviation
        of the Gaussian noise per coordinate, and coefficient that replaces force_weight for noised atoms.
    denoising_atoms
        Probability that an atom of a noised batch is displaced.
    initial_head_factor
        Factor on the initial weights of the last energy layer, for a calm start.
    initial_energy_head
        Whether a stage that starts from another stage's network takes over the energy head too; the paper takes over
        only the layers below it.
    references, scale
        For a stage that starts from another one: "keep" its element energies, and the one factor of its energies,
        forces and stresses, or "refit" them to the data, for labels of another level of theory. Force fields trained
        near equilibria are too soft by nearly the same factor (arXiv 2405.07105), harmonic and anharmonic parts alike.
        A factor corrects both parts, while training on small displacements corrects the harmonic part only.
    freeze
        Parameters whose names start with one of these are not trained.
    group_share
        Share of a group's structures that an epoch sees, by the group's name; other groups are seen whole.
    validate_every_epochs
        Epochs between two validations.
    autocast
        "bfloat16" multiplies matrices in this precision; only for direct-force stages.
    dtype
        Precision of parameters and arithmetic.
    """

    network: NetworkConfig
    epochs: int
    edges_per_batch: int
    learning_rate: float
    weight_decay: float
    clip_norm: float
    ema_decay: float
    loss: Literal["absolute", "relative"]
    energy_weight: float
    force_weight: float
    stress_weight: float
    seed: int
    structures_per_batch: int | None = None
    edges_per_pass: int | None = None
    edges_per_chunk: int | None = None
    betas: tuple[float, float] = (0.9, 0.999)
    warmup_steps: int | None = None
    warmup_epochs: float | None = None
    warmup_factor: float = 0.2
    final_factor: float = 0.01
    force_loss: Literal["l2mae", "mse"] = "l2mae"
    relative_floors: tuple[float, float, float] = (0.02, 0.02, 0.01)
    random_inversion: bool = False
    denoising_probability: float = 0.5
    denoising_std_angstrom: float = 0.1
    denoising_weight: float = 10.0
    denoising_atoms: float = 1.0
    initial_head_factor: float = 1.0
    initial_energy_head: bool = True
    references: Refit = "keep"
    scale: Refit = "keep"
    freeze: tuple[str, ...] = ()
    group_share: dict[str, float] | None = None
    validate_every_epochs: int = 1
    autocast: Literal["none", "bfloat16"] = "none"
    dtype: Literal["float32", "float64"] = "float32"

    def __post_init__(self) -> None:
        for name, choices in _CHOICES.items():
            if getattr(self, name) not in choices:
                raise InputError(f"{name} must be one of {', '.join(choices)}, got {getattr(self, name)!r}")
        for name in _POSITIVE:
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, int | float) or not value > 0:
                raise InputError(f"{name} must be a positive number, got {value!r}")
        for name in ("structures_per_batch", "edges_per_pass", "edges_per_chunk"):
            value = getattr(self, name)
            if value is not None and (isinstance(value, bool) or not isinstance(value, int) or value < 1):
                raise InputError(f"{name} must be a positive integer or null, got {value!r}")
        if not 0 <= self.ema_decay < 1:
            raise InputError(f"ema_decay must be in [0, 1), got {self.ema_decay}")
        for name in ("denoising_probability", "denoising_atoms"):
            if not 0 <= getattr(self, name) <= 1:
                raise InputError(f"{name} must be in [0, 1], got {getattr(self, name)}")
        if (self.warmup_steps is None) == (self.warmup_epochs is None):
            raise InputError("give one of warmup_steps and warmup_epochs; 0 for no warm-up")
        self._check_network()

    def _check_network(self) -> None:
        direct, head = not self.network.conservative, self.network.gives_stress
        if self.autocast != "none" and not direct:
            raise InputError(
                "autocast is for direct-force stages: forces that are derivatives of an energy in bfloat16 are noise; "
                "set autocast: none"
            )
        if direct and not head and self.stress_weight:
            raise InputError(
                f"stress_weight is {self.stress_weight}, but a direct-force network without a stress head has no "
                "stress; set direct_stress, or stress_weight: 0"
            )
        if self.loss == "relative" and (direct or self.network.denoises):
            raise InputError("loss: relative is for conservative stages; set loss: absolute")

    def to_dict(self) -> dict[str, Any]:
        """The stage as flat values, as they stand in a file.

        Returns
        -------
        dict[str, Any]
            Values by name, of the network and of the stage; `config_from_dict` restores the stage.
        """
        values = {field.name: getattr(self, field.name) for field in fields(self) if field.name != "network"}
        family = family_of(self.network)
        named = {} if family == DEFAULT_FAMILY else {"family": family}
        return {**named, **asdict(self.network), **values}  # type: ignore[call-overload]


_HINTS = get_type_hints(TrainingConfig)
_CHOICES = {name: get_args(hint) for name, hint in _HINTS.items() if get_origin(hint) is Literal}
_POSITIVE = ("epochs", "edges_per_batch", "learning_rate", "clip_norm", "validate_every_epochs")
_TUPLES = ("betas", "relative_floors", "freeze")


def config_from_dict(values: Mapping[str, Any], source: str = "training stage") -> TrainingConfig:
    """Make a stage from flat values: those of the network and those of the stage side by side.

    Parameters
    ----------
    values
        Values by name.
    source
        Where they are from, for messages.

    Returns
    -------
    TrainingConfig
        The checked stage.

    Raises
    ------
    InputError
        Names are unknown or missing, or values have the wrong type or are out of range; the message says which.

    Examples
    --------
    >>> config_from_dict({"epochs": 3, "speed": 9}, "stage.yaml")
    Traceback (most recent call last):
    ...
    esen_flows.errors.InputError: stage.yaml: unknown keys ['speed']; known are [...]
    """
    try:
        kind = family_named(str(values.get("family", DEFAULT_FAMILY))).CONFIG
    except ModelError as error:
        raise InputError(f"{source}: {error}") from error
    values = {name: value for name, value in values.items() if name != "family"}
    network_names = {field.name for field in fields(kind)}  # type: ignore[arg-type]
    stage_names = {field.name for field in fields(TrainingConfig)} - {"network"}
    if unknown := sorted(set(values) - network_names - stage_names):
        raise InputError(f"{source}: unknown keys {unknown}; known are {sorted(network_names | stage_names)}")
    if missing := sorted(set(kind.SIZES) - {"max_num_elements"} - set(values)):
        raise InputError(f"{source}: missing {missing}: the sizes of the network are written out")
    try:
        network = kind(**{name: value for name, value in values.items() if name in network_names})
        stage = {name: value for name, value in values.items() if name in stage_names}
        stage |= {name: tuple(stage[name]) for name in _TUPLES if name in stage}
        return TrainingConfig(network=network, **stage)
    except (TypeError, ValueError, InputError) as error:
        raise InputError(f"{source}: {error}") from error


def read_config(path: str | Path) -> TrainingConfig:
    """Read a stage from a flat YAML file.

    Parameters
    ----------
    path
        File with values by name.

    Returns
    -------
    TrainingConfig
        The checked stage.

    Raises
    ------
    InputError
        The file is missing, is not a flat mapping in YAML, or has values that `config_from_dict` refuses.
    """
    from esen_flows.yaml_files import read_yaml  # a bare GPU machine lacks yaml and makes a TrainingConfig in Python

    path = Path(path)
    if not path.is_file():
        raise InputError(f"no training file at {path}")
    values: Any = read_yaml(path)
    if not isinstance(values, dict):
        raise InputError(f"{path} must be a flat mapping of names to values, got {type(values).__name__}")
    return config_from_dict(values, str(path))
