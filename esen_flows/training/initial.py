"""Where a stage begins: random weights and fitted references, or another stage's network."""

from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np
import torch

from esen_flows.data.dataset import Dataset
from esen_flows.data.labelled import LabelledStructure
from esen_flows.data.references import fit_references, force_scale
from esen_flows.errors import InputError
from esen_flows.forcefield.checkpoint import Checkpoint
from esen_flows.forcefield.contract import Evaluation
from esen_flows.forcefield.esen import EsenForceField
from esen_flows.network.config import ESENConfig
from esen_flows.network.esen import ESEN
from esen_flows.training.config import TrainingConfig
from esen_flows.training.evaluate import AT_ONCE

# What a conservative model does not have; with DeNS, the rest of the input is the mean effect of `force_embedding`.
_DIRECT_PARTS = ("force_head.", "stress_head.", "force_embedding.")
_ENERGY_HEAD = "energy_block."
# Options that may differ between two stages of one network: they change heads or the graph, no shared weight.
_MAY_DIFFER = ("direct_forces", "direct_stress", "denoising", "max_neighbors")


@dataclass(frozen=True)
class InitialNetwork:
    """A network before its first step.

    Attributes
    ----------
    network
        its weights.
    scale_ev
        one factor for energy, forces and stress: anything else would break forces = -dE/dx.
    references_ev
        eV per atom of each element.
    """

    network: ESEN
    scale_ev: float
    references_ev: dict[int, float]


def starting_point(config: TrainingConfig, training: Dataset, initial: Checkpoint | None) -> InitialNetwork:
    """Random weights with references and scale fitted to the data, or those of `initial`.

    Raises
    ------
    InputError
        `initial` is another network, or has no reference energy of an element of the data.
    """
    torch.manual_seed(config.seed)
    network = ESEN(config.network)
    with torch.no_grad():
        network.get_parameter("energy_block.4.weight").mul_(config.initial_head_factor)
    if initial is None:
        start = InitialNetwork(network, force_scale(training), fit_references(training))
    else:
        _check_initial(initial, config, training)
        _take_over(network, initial.network, energy_head=config.initial_energy_head)
        start = InitialNetwork(network, initial.scale_ev, initial.references_ev)
        start = _refitted(start, training, scale=config.scale == "refit", references=config.references == "refit")
    return replace(start, network=prepared(network, config))


def prepared(network: ESEN, config: TrainingConfig) -> ESEN:
    """The network in the stage's precision, with the parameters that it freezes as constants.

    Raises
    ------
    InputError
        nothing is left to train.
    """
    for name, parameter in network.named_parameters():
        parameter.requires_grad_(not name.startswith(tuple(config.freeze)))
    if not any(parameter.requires_grad for parameter in network.parameters()):
        raise InputError(f"freeze: {list(config.freeze)} leaves no parameter to train; shorten it")
    network.edges_per_chunk = config.edges_per_chunk
    return network.to(getattr(torch, config.dtype))


def _check_initial(initial: Checkpoint, config: TrainingConfig, training: Dataset) -> None:
    had, wanted = initial.network.config, config.network
    changed = [name for name, value in _shared(had).items() if value != _shared(wanted)[name]]
    if changed:
        told = ", ".join(f"{name}={getattr(wanted, name)!r} instead of {getattr(had, name)!r}" for name in changed)
        raise InputError(f"the initial checkpoint is another network: the stage says {told}; give the same")
    if initial.energy_offset_ev:
        raise InputError(
            "the initial checkpoint adds an offset to each structure, which a stage does not; fold it first"
        )
    unknown = training.elements - set(initial.references_ev)
    if unknown and config.references == "keep":
        raise InputError(
            f"the initial checkpoint has no reference energy for atomic numbers {sorted(unknown)}; "
            "set references: refit"
        )


def _shared(config: ESENConfig) -> dict[str, object]:
    return {name: getattr(config, name) for name in config.__dataclass_fields__ if name not in _MAY_DIFFER}


def _take_over(network: ESEN, source: ESEN, *, energy_head: bool) -> None:
    """Copy weights by name; heads of the source that the network lacks are dropped, its own new ones stay random."""
    theirs = dict(source.state_dict())
    if source.force_embedding is not None and network.force_embedding is None:
        # A structure that was not noised still got the bias of the force encoding, on its scalars.
        bias = source.force_embedding.bias.detach()
        theirs["sphere_embedding.weight"] = theirs["sphere_embedding.weight"] + bias
    own = network.state_dict()
    taken = {
        name: value
        for name, value in theirs.items()
        if (energy_head or not name.startswith(_ENERGY_HEAD))
        and not (name.startswith(_DIRECT_PARTS) and name not in own)
    }
    network.load_state_dict({**own, **taken})


def with_references_of(checkpoint: Checkpoint, data: Dataset) -> Checkpoint:
    """The same force field with element energies refitted to data, for comparisons across zeros of the energy."""
    start = InitialNetwork(checkpoint.network, checkpoint.scale_ev, checkpoint.references_ev)
    references = _refitted(start, data, scale=False, references=True).references_ev
    return replace(checkpoint, references_ev=references, elements=tuple(references))


def _refitted(start: InitialNetwork, training: Dataset, *, scale: bool, references: bool) -> InitialNetwork:
    """Scale and element energies, as far as asked for, with which the network as it is meets the labels best.

    The scale is that of least squares on forces. Element energies are shifted by the smallest amounts that least
    squares on energies per atom allow, so that what composition does not tell stays as it was.
    """
    if not (scale or references):
        return start
    elements = sorted(training.elements)
    known = {z: start.references_ev.get(z, 0.0) for z in elements}
    rows, labels, products, squares = [], [], 0.0, 0.0
    for item, result in _evaluated(replace(start, references_ev=known), training):
        products += float((item.forces * result.forces).sum())
        squares += float((result.forces**2).sum())
        n = len(item.atoms)
        counts = np.array([np.count_nonzero(item.atoms.numbers == z) for z in elements])
        above = result.energy - counts @ [known[z] for z in elements]
        rows.append([*counts / n, above / n])
        labels.append(item.energy / n)
    factor = products / squares if scale and products > 0 and squares > 0 else 1.0
    if references:
        table = np.array(rows)
        missed = np.array(labels) - factor * table[:, -1] - table[:, :-1] @ [known[z] for z in elements]
        shift = np.linalg.lstsq(table[:, :-1], missed, rcond=None)[0]
        known = {z: known[z] + float(s) for z, s in zip(elements, shift, strict=True)}
    return replace(start, scale_ev=factor * start.scale_ev, references_ev={**start.references_ev, **known})


def _evaluated(start: InitialNetwork, data: Dataset) -> Iterator[tuple[LabelledStructure, Evaluation]]:
    checkpoint = Checkpoint(start.network, start.scale_ev, start.references_ev, tuple(start.references_ev))
    force_field = EsenForceField(checkpoint)
    for first in range(0, len(data), AT_ONCE):
        items = [data[index] for index in range(first, min(first + AT_ONCE, len(data)))]
        yield from zip(items, force_field.evaluate([item.atoms for item in items]), strict=True)
