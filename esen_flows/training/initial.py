"""The network that a stage starts from: random weights and fitted references, or another stage's network."""

from dataclasses import fields, replace

import numpy as np
import torch

from esen_flows.data.dataset import Dataset
from esen_flows.data.references import fit_references, force_scale
from esen_flows.errors import InputError
from esen_flows.forcefield.checkpoint import Checkpoint
from esen_flows.forcefield.families import family_of, make_network
from esen_flows.forcefield.network import NetworkForceField
from esen_flows.network.interface import Network
from esen_flows.training.config import TrainingConfig
from esen_flows.training.evaluate import evaluated


def starting_point(config: TrainingConfig, training: Dataset, initial: Checkpoint | None) -> Checkpoint:
    """Random weights with references and scale fitted to the data, or weights, references and scale of `initial`.

    Parameters
    ----------
    config
        Settings of the stage.
    training
        Structures to train on.
    initial
        Network of another stage; None: random weights.

    Returns
    -------
    Checkpoint
        The network in the stage's precision, with the parameters that it freezes as constants.

    Raises
    ------
    InputError
        `initial` is another network, or has no reference energy of an element of the data.
    """
    torch.manual_seed(config.seed)
    network = make_network(config.network)
    with torch.no_grad():
        network.energy_head[-1].get_parameter("weight").mul_(config.initial_head_factor)
    if initial is None:
        references = fit_references(training)
        start = Checkpoint(network, force_scale(training), references, tuple(references))
    else:
        check_initial(initial, config, training)
        network.take_over(initial.network, energy_head=config.initial_energy_head)
        start = Checkpoint(network, initial.scale_ev, initial.references_ev, tuple(initial.references_ev))
        start = refitted(start, training, scale=config.scale == "refit", references=config.references == "refit")
    return replace(start, network=prepared(network, config))


def prepared(network: Network, config: TrainingConfig) -> Network:
    """Put a network into the stage's precision, and make the parameters that the stage freezes constants.

    Parameters
    ----------
    network
        Network to change.
    config
        Settings of the stage.

    Returns
    -------
    Network
        The same network.

    Raises
    ------
    InputError
        No parameter is left to train.
    """
    for name, parameter in network.named_parameters():
        parameter.requires_grad_(not name.startswith(tuple(config.freeze)))
    if not any(parameter.requires_grad for parameter in network.parameters()):
        raise InputError(f"freeze: {list(config.freeze)} leaves no parameter to train; shorten it")
    network.edges_per_chunk = config.edges_per_chunk
    return network.to(getattr(torch, config.dtype))


def check_initial(initial: Checkpoint, config: TrainingConfig, training: Dataset) -> None:
    """Refuse a network from which a stage cannot start.

    Parameters
    ----------
    initial
        Network of another stage.
    config
        Settings of the stage.
    training
        Structures to train on.

    Raises
    ------
    InputError
        It is another network, or has no reference energy of an element of the data.
    """
    had, wanted = initial.network.config, config.network
    if type(had) is not type(wanted):
        raise InputError(
            f"the initial checkpoint is a network of family {family_of(had)!r}, the stage says {family_of(wanted)!r}; "
            "give the same"
        )
    names = [field.name for field in fields(had) if field.name not in had.MAY_DIFFER]  # type: ignore[arg-type]
    if changed := [name for name in names if getattr(had, name) != getattr(wanted, name)]:
        differences = ", ".join(
            f"{name}={getattr(wanted, name)!r} instead of {getattr(had, name)!r}" for name in changed
        )
        raise InputError(f"the initial checkpoint is another network: the stage says {differences}; give the same")
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


def refitted(checkpoint: Checkpoint, data: Dataset, *, scale: bool = False, references: bool = True) -> Checkpoint:
    """Refit a force field's element energies, its scale, or both, to labels of another level of theory.

    The scale is that of least squares on forces. Element energies are shifted by the minimum-norm solution of least
    squares on energies per atom, so that combinations that the compositions do not determine stay as they were.

    Parameters
    ----------
    checkpoint
        The force field; not changed.
    data
        Labelled structures.
    scale, references
        Whether to refit the factor of energies, forces and stresses, and the element energies.

    Returns
    -------
    Checkpoint
        The same network with another scale and other element energies.
    """
    if not (scale or references):
        return checkpoint
    elements = sorted(data.elements)
    known = {z: checkpoint.references_ev.get(z, 0.0) for z in elements}
    force_field = NetworkForceField(replace(checkpoint, references_ev=known, elements=tuple(elements)))
    rows, labels, products, squares = [], [], 0.0, 0.0
    for _, item, result in evaluated(force_field, data, range(len(data))):
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
    table_of_energies = {**checkpoint.references_ev, **known}
    scale_ev = factor * checkpoint.scale_ev
    return replace(checkpoint, scale_ev=scale_ev, references_ev=table_of_energies, elements=tuple(table_of_energies))
