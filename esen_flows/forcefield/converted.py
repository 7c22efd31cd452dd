"""Published checkpoint files, of both generations, as native ones.

First generation: a dict with state_dict, config, normalizers, elementrefs and, in files of a training, ema. Second
generation: a record with model_config, model_state_dict, ema_state_dict and tasks_config. Nothing in them is run.

Open for the second generation, until somebody holds a published file: the names inside of tasks_config (here: name,
property, normalizer.mean and rmsd, element_references.element_references), what the tables of charge and spin are
called (here: one weight at or below charge_embedding and spin_embedding), the formulas of the other two ways in which
charge and spin can enter (pos_emb, lin_emb), and the dataset embedding; files with these are refused by name.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from esen_flows.errors import ModelError
from esen_flows.forcefield.checkpoint import Checkpoint
from esen_flows.forcefield.published import build, is_constant, strip_prefixes
from esen_flows.forcefield.safe_checkpoint import Record, plain, read_torch_file

# What older files call the two targets.
_TARGETS = {"target": "energy", "grad_target": "forces"}
RELATIVE_TOLERANCE = 1e-6  # between scales that have to be the same number


@dataclass(frozen=True)
class Published:
    """What a published file says, as plain values.

    Attributes
    ----------
    generation
        1 or 2.
    state
        published names.
    weights
        "ema" (moving average) or "model".
    options
        the backbone's configuration.
    normalizers
        {target: (mean, rmsd)}.
    references_ev
        by atomic number; None where the file has none.
    """

    generation: int
    state: Mapping[str, Tensor]
    weights: str
    options: dict[str, Any]
    normalizers: dict[str, tuple[float, float]]
    references_ev: dict[int, float] | None
    notes: dict[str, Any] = field(default_factory=dict)


def read_published(
    path: str | Path,
    *,
    options: Mapping[str, Any] | None = None,
    ignore: Sequence[str] = (),
    elements: Sequence[int] | None = None,
    task: str | None = None,
) -> Checkpoint:
    """A published file as a native checkpoint in eV.

    Parameters
    ----------
    options
        backbone options that the file does not say, such as {"use_envelope": True}; they may not contradict it.
    ignore
        backbone options of the file that do not matter for evaluation.
    elements
        atomic numbers seen in training; default: those with a reference energy.
    task
        whose normaliser and references to take from a file of several tasks.

    Raises
    ------
    ModelError
        not such a file, a hostile one, weights that do not make a network, or scales that contradict each
        other; the message says which.
    """
    content = read_torch_file(path)
    try:
        published = _first_generation(content, task) if isinstance(content, dict) else _second_generation(content, task)
        given = {name: value for name, value in published.options.items() if name not in ignore}
        for name, value in (options or {}).items():
            if name in given and given[name] != value:
                raise ModelError(f"the file says {name} = {given[name]!r}, you say {value!r}")
        given.update(options or {})
        network = build(published.state, given)
        scale, offset = _one_scale(published.normalizers, network.config.direct_forces)
        references = published.references_ev or {}
        known = sorted(set(elements or [number for number, energy in references.items() if energy != 0.0]))
        if not known:
            raise ModelError("the file has no element references, which tell the elements it knows: give elements")
        too_heavy = [z for z in known if not 0 < z < network.config.max_num_elements]
        if too_heavy:
            raise ModelError(
                f"atomic numbers {too_heavy} are beyond the {network.config.max_num_elements} of the network"
            )
        if references and (lacking := [z for z in known if not references.get(z)]):
            raise ModelError(f"the file has no reference energy for atomic numbers {lacking}")
    except ModelError as error:
        raise ModelError(f"{path}: {error}") from error
    except (LookupError, TypeError, ValueError, AttributeError, OverflowError, RecursionError) as error:
        raise ModelError(
            f"{path} is not laid out like a published checkpoint: {type(error).__name__} {error}"
        ) from error
    training = {
        "converted_from": {
            "file": Path(path).name,
            "generation": published.generation,
            "weights": published.weights,
            "options": {name: value for name, value in given.items() if _is_plain(value)},
            **published.notes,
        }
    }
    return Checkpoint(
        network,
        scale,
        {number: references.get(number, 0.0) for number in known},
        tuple(known),
        training,
        energy_offset_ev=offset,
    )


def _first_generation(content: Mapping[str, Any], task: str | None) -> Published:
    if task is not None:
        raise ModelError(f"the file is of the first generation, which has no tasks; leave out task {task!r}")
    if "state_dict" not in content:
        raise ModelError(f"no state_dict in the file; it has {', '.join(map(str, list(content)[:8]))}")
    state = strip_prefixes(_tensors(content["state_dict"]))
    weights = "model"
    shadow = plain(content["ema"]).get("shadow_params") if content.get("ema") is not None else None
    if shadow is not None:
        state, weights = _with_average(state, shadow), "ema"
    config = plain(content.get("config") or {})
    options = (config.get("model") or {}).get("backbone") or {} if isinstance(config, dict) else {}
    for name, head in ((config.get("model") or {}).get("heads") or {}).items() if isinstance(config, dict) else ():
        if isinstance(head, dict) and head.get("reduce", "sum") != "sum":
            raise ModelError(f"head {name} reduces by {head['reduce']!r}: its energy is not a sum over atoms")
    normalizers = {
        _TARGETS.get(name, name): (_number(value.get("mean", 0.0)), _number(value.get("rmsd", value.get("std", 1.0))))
        for name, value in (content.get("normalizers") or {}).items()
    }
    references = _energy_entry(content.get("elementrefs") or {})
    if references is not None:
        references = references["element_references"]
    return Published(1, state, weights, dict(options), normalizers, _references(references))


def _energy_entry(entries: Mapping[str, Any]) -> Any:
    return next((value for name, value in entries.items() if _TARGETS.get(name, name) == "energy"), None)


def _second_generation(content: Any, task: str | None) -> Published:
    fields = content.fields if isinstance(content, Record) else {}
    if "model_config" not in fields or "model_state_dict" not in fields:
        what = content.path if isinstance(content, Record) else type(content).__name__
        raise ModelError(f"the file holds {what}, neither of the two layouts of published checkpoints")
    state, weights = fields.get("ema_state_dict"), "ema"
    if not state:
        state, weights = fields["model_state_dict"], "model"
    state = strip_prefixes({name: value for name, value in _tensors(state).items() if name != "n_averaged"})
    config = plain(fields["model_config"])
    options = {"use_envelope": True, **(config.get("backbone") or {})}
    normalizers: dict[str, tuple[float, float]] = {}
    references, names = None, set[str]()
    for item in plain(fields.get("tasks_config") or []):
        entry = plain(item.fields) if isinstance(item, Record) else item
        name, quantity = str(entry.get("name", "")), str(entry.get("property", ""))
        names.add(name)
        if task is not None and not name.startswith(task):
            continue
        if quantity in normalizers:
            raise ModelError(f"the file has several tasks for {quantity}: give task, such as {name.split('_')[0]!r}")
        normalizer = _fields_of(entry.get("normalizer") or {})
        normalizers[quantity] = (_number(normalizer.get("mean", 0.0)), _number(normalizer.get("rmsd", 1.0)))
        if quantity == "energy" and entry.get("element_references"):
            references = _fields_of(entry["element_references"])["element_references"]
    if task is not None and not normalizers:
        raise ModelError(f"the file has no task {task!r}; it has {', '.join(sorted(names)) or 'none'}")
    return Published(2, state, weights, options, normalizers, _references(references), {"task": task})


def _fields_of(value: Any) -> dict[str, Any]:
    return plain(value.fields) if isinstance(value, Record) else value


def _tensors(state: Any) -> dict[str, Tensor]:
    if not isinstance(state, Mapping) or not all(isinstance(v, Tensor) for v in state.values()):
        raise ModelError("its state dict holds something that is not a tensor")
    return dict(state)


def _with_average(state: Mapping[str, Tensor], shadow: Sequence[Tensor]) -> dict[str, Tensor]:
    """The state with the parameters' moving average, which is a list in the order of the parameters."""
    names = [name for name in state if not is_constant(name) and not name.endswith("distance_expansion.offset")]
    if len(names) != len(shadow) or any(state[n].shape != value.shape for n, value in zip(names, shadow, strict=True)):
        raise ModelError("its moving average does not fit its weights")
    return {**state, **dict(zip(names, shadow, strict=True))}


def _number(value: Any) -> float:
    if isinstance(value, Tensor):
        value = value.double().reshape(-1).tolist()
    value = plain(value)
    if isinstance(value, list):
        if len(value) != 1:
            raise ModelError(f"a normaliser of {len(value)} numbers, one is needed")
        value = value[0]
    return float(value)


def _references(values: Any) -> dict[int, float] | None:
    if values is None:
        return None
    if isinstance(values, Tensor):
        values = values.double().reshape(-1).tolist()
    values = plain(values)
    if isinstance(values, list):
        values = dict(enumerate(values))
    numbers = {int(z): float(energy) for z, energy in values.items()}
    if not all(torch.isfinite(torch.tensor(list(numbers.values())))):
        raise ModelError("element references hold NaN or infinity")
    return numbers


def _one_scale(normalizers: Mapping[str, tuple[float, float]], direct: bool) -> tuple[float, float]:
    """The factor for energy, forces and stress, and the energy to add to each structure.

    Raises
    ------
    ModelError
        several factors, a force or stress that is shifted, or a factor that is none.
    """
    mean, scale = normalizers.get("energy", (0.0, 1.0))
    if not scale > 0 or scale == float("inf") or not abs(mean) < float("inf"):
        raise ModelError(f"the energy normaliser has mean {mean} and scale {scale}")
    for name, (shift, factor) in normalizers.items():
        if name == "energy":
            continue
        if shift != 0.0 or abs(factor - scale) > RELATIVE_TOLERANCE * scale:
            why = "one scale is needed for all outputs" if direct else "then forces are not the gradient of the energy"
            raise ModelError(f"normalisers disagree: energy x {scale}, {name} x {factor} + {shift}; {why}")
    if "forces" not in normalizers and scale != 1.0 and not direct:
        raise ModelError(f"the energy is scaled by {scale} and the forces by nothing: they are not its gradient")
    return scale, mean


def _is_plain(value: Any) -> bool:
    return value is None or isinstance(value, bool | int | float | str)
