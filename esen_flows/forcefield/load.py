"""Force fields, loaded by the name of a card or the path of a checkpoint."""

from collections.abc import Callable
from pathlib import Path

import torch

from esen_flows.errors import InputError, ModelError
from esen_flows.forcefield.calibration import calibration_beside, load_calibration
from esen_flows.forcefield.checkpoint import load
from esen_flows.forcefield.contract import ForceField
from esen_flows.forcefield.network import NetworkForceField
from esen_flows.forcefield.third_party.calculator import calculator
from esen_flows.forcefield.third_party.chgnet import chgnet
from esen_flows.forcefield.third_party.emt import emt
from esen_flows.forcefield.third_party.sevennet import sevennet
from esen_flows.schemas.declarations import Dtype

# Values of `builder` in a card of a third-party force field.
THIRD_PARTY: dict[str, Callable[..., ForceField]] = {"sevennet": sevennet, "chgnet": chgnet, "emt": emt}


def load_force_field(
    card_or_path: str | Path,
    *,
    device: str = "cpu",
    dtype: Dtype = "float64",
    compile: bool = False,
    tf32: bool = False,
) -> ForceField:
    """Load a force field.

    Parameters
    ----------
    card_or_path
        Name of a card in models/ ("esen_silicon"), or path of a native .safetensors checkpoint or of a calculator card
        (.yaml).
    device
        torch device, such as "cpu", "cuda" or "cuda:1".
    dtype
        Precision of the arithmetic. A third-party force field whose card names a precision keeps that one.
    compile
        Whether a network of this package runs through `torch.compile`: a minute or more at the first call, then faster
        on GPUs. On CPUs the package's own compiled kernels, which are used without this option, are faster.
    tf32
        Whether float32 products on a GPU may be rounded to 10 bits: faster, and for screening only.

    Returns
    -------
    ForceField
        Force field that is ready to evaluate structures.

    Raises
    ------
    ModelError
        The card is unknown, or the checkpoint or the calibration of its domain is missing, corrupted or another one's.
    InputError
        The device is not there, the dtype is unknown, or `compile` or `tf32` has no effect here.

    Examples
    --------
    >>> from esen_flows import load_force_field
    >>> load_force_field("emt").declaration.conservative
    True
    """
    _check_options(device, dtype, tf32)
    text = str(card_or_path)
    is_card = text.endswith((".yaml", ".yml"))
    if not is_card and (text.endswith(".safetensors") or "/" in text):
        checkpoint, label = load(text), Path(text).stem
        beside = calibration_beside(Path(text))
        domain = beside if beside.is_file() else None
    else:
        # Cards need YAML and pydantic, which a bare GPU machine does not have; paths of checkpoints work there as well.
        from esen_flows.schemas.card import calibration_path, checkpoint_path, find_card

        card, file = find_card(text)
        if not card.is_network:
            if compile or tf32:
                raise InputError(
                    f"compile and tf32 are options of this package's own networks; leave them out for {text!r}"
                )
            if card.calculator is not None:
                if card.builder is not None:
                    _builder(text, card.builder)  # whose key the card has: a wrong name is refused
                return calculator(card, file.parent, device=device, dtype=dtype)
            return _builder(text, card.builder)(**card.arguments, device=device, dtype=card.dtype or dtype)
        checkpoint, label, domain = load(checkpoint_path(card)), card.name, calibration_path(card)
    result = NetworkForceField(checkpoint, label=label, device=device, dtype=dtype, compile=compile, tf32=tf32)
    result.calibration = None if domain is None else load_calibration(domain, result.key)
    return result


def _check_options(device: str, dtype: str, tf32: bool) -> None:
    if dtype not in ("float32", "float64"):
        raise InputError(f"dtype must be 'float32' or 'float64', got {dtype!r}")
    check_device(device)
    if tf32 and (dtype != "float32" or not device.startswith("cuda")):
        raise InputError(f"tf32 is for dtype float32 on a CUDA device, got {dtype} on {device!r}; leave it out")


def _builder(card: str, name: str | None) -> Callable[..., ForceField]:
    if name not in THIRD_PARTY:
        raise ModelError(f"card {card!r} names the builder {name!r}; known are {sorted(THIRD_PARTY)}")
    return THIRD_PARTY[name]


def check_device(device: str) -> None:
    """Refuse a device that torch cannot use on this machine.

    Parameters
    ----------
    device
        torch device, such as "cuda:1".

    Raises
    ------
    InputError
        The device cannot be used; the message lists those that can.
    """
    try:
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as error:
        available = ["cpu", *(f"cuda:{i}" for i in range(torch.cuda.device_count()))]
        reason = str(error).splitlines()[0]
        raise InputError(f"device {device!r} cannot be used ({reason}); available: {', '.join(available)}") from error
