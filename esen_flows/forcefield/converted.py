"""Published checkpoint files, of both generations, read as native checkpoints.

First generation: a dict with state_dict, config, normalizers, elementrefs and, in files of a training, ema. Second
generation: an object with model_config, model_state_dict, ema_state_dict and tasks_config. Nothing in them is executed.

Nobody here has a published file of the second generation. Not verified are therefore the names inside of tasks_config
(here: name, property, normalizer.mean and rmsd, element_references.element_references) and the names of the tables of
charge and spin (here: one weight at or below charge_embedding and spin_embedding). Not known are the formulas of the
other two embeddings of charge and spin (pos_emb, lin_emb) and the dataset embedding: files with these are refused, and
the message names what they have.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor

from esen_flows.errors import ModelError
from esen_flows.forcefield.checkpoint import Checkpoint
from esen_flows.forcefield.safe_checkpoint import Record, plain, read_torch_file
from esen_flows.network.esen.published import build, is_constant, strip_prefixes

_TARGETS = {"target": "energy", "grad_target": "forces"}  # names of the two targets in older files
RELATIVE_TOLERANCE = 1e-6  # between scales that have to be the same number


@dataclass(frozen=True)
class Published:
    """Content of a published file, as plain values.

    Attributes
    ----------
    state
        Tensors by their published names.
    options
        Configuration of the backbone.
    normalizers
        (mean, rmsd) of each target, in eV and Angstrom.
    references_ev
        Energy of each element in eV, by atomic number; None where the file has none.
    notes
        Entries for the record of the conversion: the generation of the file (1 or 2), and which weights were taken
        ("ema", the moving average, or "model").
    """

    state: Mapping[str, Tensor]
    options: dict[str, Any]
    normalizers: dict[str, tuple[float, float]]
    references_ev: dict[int, float] | None
    notes: dict[str, Any]


def read_published(
    path: str | Path,
    *,
    options: Mapping[str, Any] | None = None,
    ignore: Sequence[str] = (),
    elements: Sequence[int] | None = None,
    task: str | None = None,
) -> Checkpoint:
    """Read a published file as a native checkpoint in eV.

    Parameters
    ----------
    path
        File as its publishers distribute it.
    options
        Backbone options that the file does not hold, such as {"use_envelope": True}; they may not contradict it.
    ignore
        Names of backbone options of the file that do not matter for evaluation.
    elements
        Atomic numbers seen in training; default: those with a reference energy.
    task
        Task whose normaliser and references to take from a file of several tasks.

    Returns
    -------
    Checkpoint
        Network, scale and reference energies, with a record of the conversion.

    Raises
    ------
    ModelError
        The file is not a published checkpoint, is hostile, its weights do not make a network, or its scales contradict
        each other; the message says which.
    """
    content = read_torch_file(path)
    try:
        published = _first_generation(content, task) if isinstance(content, dict) else _second_generation(content, task)
        given = {name: value for name, value in published.options.items() if name not in ignore}
        for name, value in (options or {}).items():
            if given.setdefault(name, value) != value:
                raise ModelError(f"the file says {name} = {given[name]!r}, you say {value!r}")
        network = build(published.state, given)
        scale, offset = _one_scale(published.normalizers, not network.config.conservative)
        references = _known_references(published.references_ev or {}, elements, network.config.max_num_elements)
    except ModelError as error:
        raise ModelError(f"{path}: {error}") from error
    except (LookupError, TypeError, ValueError, AttributeError, OverflowError, RecursionError) as error:
        raise ModelError(
            f"{path} is not laid out like a published checkpoint: {type(error).__name__} {error}"
        ) from error
    converted_from = {
        "file": Path(path).name,
        "options": {name: value for name, value in given.items() if isinstance(value, bool | int | float | str | None)},
        **published.notes,
    }
    training = {"converted_from": converted_from}
    return Checkpoint(network, scale, references, tuple(references), training, energy_offset_ev=offset)


def _known_references(
    references: Mapping[int, float], elements: Sequence[int] | None, max_num_elements: int
) -> dict[int, float]:
    """Reference energy in eV of each element seen in training, in the order of atomic numbers."""
    known = sorted(set(elements or [number for number, energy in references.items() if energy != 0.0]))
    if not known:
        raise ModelError("the file has no element references, which tell the elements it knows: give elements")
    if too_heavy := [z for z in known if not 0 < z < max_num_elements]:
        raise ModelError(f"atomic numbers {too_heavy} are beyond the {max_num_elements} of the network")
    if references and (lacking := [z for z in known if not references.get(z)]):
        raise ModelError(f"the file has no reference energy for atomic numbers {lacking}")
    return {number: references.get(number, 0.0) for number in known}


def _first_generation(content: Mapping[str, Any], task: str | None) -> Published:
    if task is not None:
        raise ModelError(f"the file is of the first generation, which has no tasks; leave out task {task!r}")
    if "state_dict" not in content:
        raise ModelError(f"no state_dict in the file; it has {', '.join(map(str, list(content)[:8]))}")
    state, weights = strip_prefixes(_tensors(content["state_dict"])), "model"
    shadow = (content.get("ema") or {}).get("shadow_params")
    if shadow is not None:
        state, weights = _with_average(state, shadow), "ema"
    config = plain(content.get("config") or {})
    model = (config.get("model") or {}) if isinstance(config, dict) else {}
    for name, head in (model.get("heads") or {}).items():
        if isinstance(head, dict) and head.get("reduce", "sum") != "sum":
            raise ModelError(f"head {name} reduces by {head['reduce']!r}: its energy is not a sum over atoms")
    normalizers = {
        _TARGETS.get(name, name): (_number(value.get("mean", 0.0)), _number(value.get("rmsd", value.get("std", 1.0))))
        for name, value in (content.get("normalizers") or {}).items()
    }
    tables = {_TARGETS.get(name, name): table for name, table in (content.get("elementrefs") or {}).items()}
    references = tables["energy"]["element_references"] if "energy" in tables else None
    notes = {"generation": 1, "weights": weights}
    return Published(state, dict(model.get("backbone") or {}), normalizers, _references(references), notes)


def _second_generation(content: Any, task: str | None) -> Published:
    fields = content.fields if isinstance(content, Record) else {}
    if "model_config" not in fields or "model_state_dict" not in fields:
        what = content.path if isinstance(content, Record) else type(content).__name__
        raise ModelError(f"the file holds {what}, neither of the two layouts of published checkpoints")
    averaged = fields.get("ema_state_dict")
    state = _tensors(averaged or fields["model_state_dict"])
    state = strip_prefixes({name: value for name, value in state.items() if name != "n_averaged"})
    # The envelope is always on in the second generation, whose configurations do not name it.
    options = {"use_envelope": True, **(plain(fields["model_config"]).get("backbone") or {})}
    normalizers: dict[str, tuple[float, float]] = {}
    references, names = None, set[str]()
    for entry in plain(fields.get("tasks_config") or []):
        name, quantity = str(entry.get("name", "")), str(entry.get("property", ""))
        names.add(name)
        if task is not None and not name.startswith(task):
            continue
        if quantity in normalizers:
            raise ModelError(f"the file has several tasks for {quantity}: give task, such as {name.split('_')[0]!r}")
        normalizer = entry.get("normalizer") or {}
        normalizers[quantity] = (_number(normalizer.get("mean", 0.0)), _number(normalizer.get("rmsd", 1.0)))
        if quantity == "energy" and entry.get("element_references"):
            references = entry["element_references"]["element_references"]
    if task is not None and not normalizers:
        raise ModelError(f"the file has no task {task!r}; it has {', '.join(sorted(names)) or 'none'}")
    notes = {"generation": 2, "weights": "ema" if averaged else "model", "task": task}
    return Published(state, options, normalizers, _references(references), notes)


def _tensors(state: Any) -> dict[str, Tensor]:
    if not isinstance(state, Mapping) or not all(isinstance(v, Tensor) for v in state.values()):
        raise ModelError("its state dict holds something that is not a tensor")
    return {name: value.detach() for name, value in state.items()}


def _with_average(state: Mapping[str, Tensor], shadow: Sequence[Tensor]) -> dict[str, Tensor]:
    """The state with the parameters' moving average, which is a list in the order of the parameters."""
    names = [name for name in state if not is_constant(name) and not name.endswith("distance_expansion.offset")]
    if len(names) != len(shadow) or any(state[n].shape != value.shape for n, value in zip(names, shadow, strict=True)):
        raise ModelError("its moving average does not fit its weights")
    return {**state, **dict(zip(names, shadow, strict=True))}


def _number(value: Any) -> float:
    numbers = np.ravel(plain(value))
    if len(numbers) != 1:
        raise ModelError(f"a normaliser of {len(numbers)} numbers, one is needed")
    return float(numbers[0])


def _references(values: Any) -> dict[int, float] | None:
    if values is None:
        return None
    values = plain(values)
    entries = values.items() if isinstance(values, dict) else enumerate(np.ravel(values))
    numbers = {int(z): float(energy) for z, energy in entries}
    if not all(map(math.isfinite, numbers.values())):
        raise ModelError("element references hold NaN or infinity")
    return numbers


def _one_scale(normalizers: Mapping[str, tuple[float, float]], direct: bool) -> tuple[float, float]:
    """The one factor of energy, forces and stress, and the energy to add to each structure, both in eV.

    One factor is needed because forces and stress of other factors are not derivatives of the energy.
    """
    mean, scale = normalizers.get("energy", (0.0, 1.0))
    if not scale > 0 or scale == float("inf") or not abs(mean) < float("inf"):
        raise ModelError(f"the energy normaliser has mean {mean} and scale {scale}")
    for name, (shift, factor) in normalizers.items():
        if name != "energy" and (shift != 0.0 or abs(factor - scale) > RELATIVE_TOLERANCE * scale):
            why = "one scale is needed for all outputs" if direct else "then forces are not the gradient of the energy"
            raise ModelError(f"normalisers disagree: energy x {scale}, {name} x {factor} + {shift}; {why}")
    if "forces" not in normalizers and scale != 1.0 and not direct:
        raise ModelError(f"the energy is scaled by {scale} and the forces by nothing: they are not its gradient")
    return scale, mean
