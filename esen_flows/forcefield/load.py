"""Force fields by the name of a card or the path of a checkpoint."""

from pathlib import Path
from typing import Literal

import torch

from esen_flows.errors import InputError, ModelError
from esen_flows.forcefield.checkpoint import load
from esen_flows.forcefield.contract import ForceField
from esen_flows.forcefield.esen import EsenForceField
from esen_flows.forcefield.third_party import sevennet

# A closed choice: a card's `builder` names one of these.
THIRD_PARTY = {"sevennet": sevennet}


def load_force_field(
    card_or_path: str | Path, *, device: str = "cpu", dtype: Literal["float32", "float64"] = "float64"
) -> ForceField:
    """A force field, ready to evaluate.

    Parameters
    ----------
    card_or_path : name of a card in models/ ("esen_silicon"), or path of a native .safetensors checkpoint.
    device : a torch device, such as "cpu", "cuda" or "cuda:1".
    dtype : of the arithmetic. A third-party force field keeps its own, see its declaration.

    Raises
    ------
    ModelError : unknown card, missing or corrupted checkpoint.
    InputError : a device that is not there, or an unknown dtype.
    """
    if dtype not in ("float32", "float64"):
        raise InputError(f"dtype must be 'float32' or 'float64', got {dtype!r}")
    check_device(device)
    text = str(card_or_path)
    if text.endswith(".safetensors") or "/" in text:
        return EsenForceField(load(text), label=Path(text).stem, device=device, dtype=dtype)
    # Cards are YAML checked by pydantic, which a bare GPU machine lacks; a path works there without them.
    from esen_flows.schemas.card import checkpoint_path, read_card

    card = read_card(text)
    if card.family == "third_party":
        builder = THIRD_PARTY.get(card.builder or "")
        if builder is None:
            raise ModelError(f"card {text!r} names the builder {card.builder!r}; known are {sorted(THIRD_PARTY)}")
        return builder(**card.arguments, device=device)
    return EsenForceField(load(checkpoint_path(card)), label=card.name, device=device, dtype=dtype)


def check_device(device: str) -> None:
    """Refuse a device that torch cannot use here.

    Raises
    ------
    InputError : with what there is.
    """
    try:
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as error:
        available = ["cpu", *(f"cuda:{i}" for i in range(torch.cuda.device_count()))]
        reason = str(error).splitlines()[0]
        raise InputError(f"device {device!r} cannot be used ({reason}); available: {', '.join(available)}") from error
