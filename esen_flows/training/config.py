"""The settings of a training stage: one flat file says what ran, without includes or defaults hidden elsewhere."""

from collections.abc import Mapping, Sequence
from dataclasses import MISSING, asdict, dataclass, fields
from pathlib import Path
from types import UnionType
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
    direct_force_weight, direct_stress_weight
        The same for the direct heads of a network with `both_heads`, beside those of the derivatives of the energy.
    asymmetry_weight
        Coefficient of a term that direct forces have if their Jacobian is not symmetric, as that of conservative
        forces is (`training.asymmetry`). A step with it costs about three times as much.
    seed
        Decides the random weights, the order of the structures, the noise and the directions of `asymmetry_weight`.
    structures_per_batch
        Most structures of a batch; None: no limit.
    edges_per_pass
        Most directed edges that one process holds in memory at once. A larger share of a batch is computed in several
        passes, whose gradients are added up; None: in one pass.
    edges_per_chunk
        Messages of at most this many edges are kept in memory, and computed again for the gradient; None: all are kept,
        as they always are for the loss on curvature.
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
    curvature_weight
        Coefficient of the loss on products of the Hessian with random directions (`training.curvature`), which needs
        force constants beside the structures. 0: no such loss.
    curvature_every
        Ordinary steps between two steps on the curvature alone, counted over all epochs; 4 is the published schedule
        (arXiv 2601.07742). None: the curvature is a further term of every step.
    curvature_supercells, curvature_directions
        Supercells of a step, drawn at random, and random directions of each.
    validate_every_epochs
        Epochs between two validations.
    autocast
        "bfloat16" multiplies matrices in this precision; only for direct-force stages.
    dtype
        Precision of parameters and arithmetic.
    tf32
        Whether float32 products on a GPU may be rounded to 10 bits.
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
    tf32: bool = False
    direct_force_weight: float = 0.0
    direct_stress_weight: float = 0.0
    asymmetry_weight: float = 0.0
    curvature_weight: float = 0.0
    curvature_every: int | None = None
    curvature_supercells: int = 1
    curvature_directions: int = 1

    def __post_init__(self) -> None:
        for name, hint in _HINTS.items():
            value = getattr(self, name)
            is_whole = name in _WHOLE and isinstance(value, float) and value.is_integer()  # 2e5 on a command line
            if name != "network" and not is_whole and not _fits(value, hint):
                raise InputError(f"{name} must be {_rule(name, hint)}, got {value!r:.200}")
        for name, (low, high) in _LIMITS.items():
            value = getattr(self, name)
            if value is not None and not all(low <= one <= high for one in _numbers(value)):
                raise InputError(f"{name} must be {_rule(name, _HINTS[name])}, got {value!r:.200}")
        for name in ("ema_decay", "betas"):
            if not all(0 <= one < 1 for one in _numbers(getattr(self, name))):
                raise InputError(f"{name} must be in [0, 1), got {getattr(self, name)}")
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
        if self.network.has_both_forces != (self.direct_force_weight > 0):
            raise InputError(
                "direct_force_weight is for networks with both_heads, and these need it, because their direct heads "
                f"would not be trained; got direct_force_weight {self.direct_force_weight}"
            )
        if self.direct_stress_weight and not (self.network.has_both_forces and self.network.gives_direct_stress):
            raise InputError(
                f"direct_stress_weight is {self.direct_stress_weight}, but the network has no stress head besides the "
                "derivatives of its energy; set both_heads and direct_stress, or direct_stress_weight: 0"
            )
        if self.asymmetry_weight and not (direct or self.network.has_both_forces):
            raise InputError(
                f"asymmetry_weight is {self.asymmetry_weight}, but the forces are derivatives of an energy, whose "
                "Jacobian is symmetric already; leave it out, or set direct_forces"
            )
        if self.asymmetry_weight and self.autocast != "none":
            raise InputError("asymmetry_weight needs derivatives of forces, which are noise in bfloat16; leave out one")
        if self.asymmetry_weight and self.network.denoises and self.denoising_probability == 1.0:
            raise InputError("asymmetry_weight acts on batches without noise; lower denoising_probability below 1")
        idle = [name for name in _OF_CURVATURE if getattr(self, name) != _DEFAULTS[name]]
        if idle and not self.curvature_weight:
            raise InputError(f"{idle[0]} does nothing without a curvature_weight; give one, or leave {idle[0]} out")
        if direct and self.curvature_weight:
            raise InputError("curvature_weight is for conservative stages: direct forces have no Hessian; set it to 0")
        if self.tf32 and self.dtype != "float32":
            raise InputError(f"tf32 is for dtype float32, got {self.dtype}; leave it out")
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
        for name in _LATER:
            if values[name] == _DEFAULTS[name]:  # the keys of trainings stay what they were
                del values[name]
        family = family_of(self.network)
        named = {} if family == DEFAULT_FAMILY else {"family": family}
        return {**named, **asdict(self.network), **values}  # type: ignore[call-overload]


_HINTS = get_type_hints(TrainingConfig)
_DEFAULTS = {field.name: field.default for field in fields(TrainingConfig)}
_OF_CURVATURE = ("curvature_every", "curvature_supercells", "curvature_directions")
# Fields that were added after the first keys; at their default they are not written.
_LATER = (
    "tf32", "direct_force_weight", "direct_stress_weight", "asymmetry_weight", "curvature_weight", *_OF_CURVATURE,
)  # fmt: skip
# Smallest and largest values; a wrong digit is refused before memory or years are taken.
_POSITIVE, _ANY, _SHARE = (1e-300, 1e300), (0.0, 1e300), (0.0, 1.0)
_COUNT = (1, 10**9)
_LIMITS: dict[str, tuple[float, float]] = {
    **dict.fromkeys(("learning_rate", "clip_norm", "denoising_std_angstrom", "initial_head_factor"), _POSITIVE),
    **dict.fromkeys(("weight_decay", "energy_weight", "force_weight", "stress_weight", "denoising_weight"), _ANY),
    **dict.fromkeys(("direct_force_weight", "direct_stress_weight", "curvature_weight", "asymmetry_weight"), _ANY),
    **dict.fromkeys(_OF_CURVATURE, (1, 10**6)),
    **dict.fromkeys(("denoising_probability", "denoising_atoms", "warmup_factor", "final_factor"), _SHARE),
    **dict.fromkeys(("edges_per_batch", "structures_per_batch", "edges_per_pass", "edges_per_chunk"), _COUNT),
    **{"epochs": (1, 10**6), "validate_every_epochs": (1, 10**6), "warmup_steps": (0, 10**9), "warmup_epochs": _ANY},
    **{"seed": (0, 2**63 - 1), "relative_floors": _ANY, "group_share": _SHARE},
}
_WHOLE = ("epochs", "edges_per_batch", "validate_every_epochs", "curvature_supercells", "curvature_directions")
_KINDS_ALONE = {"true or false": "true or false", "integer": "an integer"}
_KINDS = {int: "integer", float: "number", bool: "true or false", str: "text"}


def _fits(value: Any, hint: Any) -> bool:
    """Whether a value is of a type; options come from files and command lines, where "false" would be true."""
    origin, arguments = get_origin(hint), get_args(hint)
    if origin is Literal:
        return isinstance(value, str) and value in arguments
    if origin is UnionType:
        return any(_fits(value, one) for one in arguments)
    if origin is tuple:
        hints = [arguments[0]] * len(value) if arguments[-1] is Ellipsis and isinstance(value, tuple) else arguments
        return isinstance(value, tuple) and len(value) == len(hints) and all(map(_fits, value, hints))
    if origin is dict:
        return isinstance(value, dict) and all(
            _fits(k, arguments[0]) and _fits(v, arguments[1]) for k, v in value.items()
        )
    if hint is float:
        return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) <= 1e300  # not NaN either
    return isinstance(value, hint) and (hint is bool or not isinstance(value, bool))


def _numbers(value: Any) -> Sequence[float]:
    return list(value.values()) if isinstance(value, dict) else value if isinstance(value, tuple) else [value]


def _rule(name: str, hint: Any) -> str:
    """What a value must be, in words."""
    null = " or null" if get_origin(hint) is UnionType else ""
    hint = get_args(hint)[0] if null else hint
    if get_origin(hint) is Literal:
        return f"one of {', '.join(get_args(hint))}"
    kind = _KINDS[hint if hint in _KINDS else get_args(hint)[-1 if get_origin(hint) is dict else 0]]
    several = {tuple: f"a list: each {kind} of it", dict: "a mapping of names to numbers: each number of it"}
    words = several.get(get_origin(hint), _KINDS_ALONE.get(kind, f"a {kind}"))
    if (limits := _LIMITS.get(name)) is None:
        return words + null
    if limits == _SHARE:
        return f"in [0, 1]{null}" if get_origin(hint) is None else f"{words} in [0, 1]"
    if limits[0] > 0:
        return (
            f"a positive {words.split(maxsplit=1)[1]}"
            + (f" of at most {limits[1]:,.0f}" if limits[1] < 1e300 else "")
            + null
        )
    return f"{words} of at least 0{null}"


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
    if unknown := sorted(set(values) - network_names - stage_names, key=repr):
        raise InputError(f"{source}: unknown keys {unknown}; known are {sorted(network_names | stage_names)}")
    required = {f.name for f in fields(TrainingConfig) if f.default is MISSING and f.default_factory is MISSING}
    if missing := sorted((required | set(kind.SIZES)) - {"network", "max_num_elements"} - set(values)):
        raise InputError(
            f"{source}: missing {missing}: sizes, loss and learning rate are written out; "
            "models/esen_silicon/training.yaml is an example"
        )
    try:
        network = kind(**{name: value for name, value in values.items() if name in network_names})
        stage = {name: value for name, value in values.items() if name in stage_names}
        stage |= {name: tuple(stage[name]) for name in _TUPLES if isinstance(stage.get(name), list)}
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
