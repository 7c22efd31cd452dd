"""Fine-tuning on one's own data: default settings, replay of the parent's data, and a report of what was forgotten."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from esen_flows.data.dataset import Dataset, from_structures, mixture
from esen_flows.data.labelled import LabelledStructure
from esen_flows.errors import InputError
from esen_flows.files import written_whole
from esen_flows.forcefield.checkpoint import Checkpoint, load
from esen_flows.forcefield.families import family_of
from esen_flows.forcefield.network import NetworkForceField
from esen_flows.training.config import TrainingConfig, config_from_dict
from esen_flows.training.curvature import ForceConstants
from esen_flows.training.distributed import ALONE, World
from esen_flows.training.evaluate import evaluate_dataset
from esen_flows.training.initial import refitted, starting_point
from esen_flows.training.train import Progress, train

REPORT_NAME = "report.json"
STEPS_WANTED = 3_000  # by default there are as many epochs as give about this many steps
# A tenth of a first training's learning rate: the weights are near a minimum already, and few data would carry them far
# away. Mirror images have the same labels: a network that no longer sees them forgets this symmetry, and its force
# constants suffer.
DEFAULTS: dict[str, Any] = {
    "edges_per_batch": 2_000, "learning_rate": 4e-4, "betas": (0.9, 0.98), "weight_decay": 1e-3, "warmup_steps": 100,
    "final_factor": 0.01, "clip_norm": 20.0, "ema_decay": 0.995, "loss": "relative", "energy_weight": 20.0,
    "force_weight": 1.0, "stress_weight": 0.5, "references": "refit", "scale": "refit", "random_inversion": True,
    "seed": 0,
}  # fmt: skip


@dataclass(frozen=True)
class Parent:
    """Labelled data of the domain that the parent was trained on.

    Attributes
    ----------
    replay
        Data to mix into the training data, or None.
    held_out
        Data that show what is forgotten; never trained on.
    """

    replay: Dataset | None
    held_out: Dataset


def finetune_config(parent: Checkpoint, training: Dataset, changes: Mapping[str, Any] | None = None) -> TrainingConfig:
    """The default stage for a parent and data.

    Species embeddings are frozen unless the data have elements that the parent does not know.

    Parameters
    ----------
    parent
        Force field to fine-tune.
    training
        Structures to train on; their number decides the number of epochs.
    changes
        Settings by name that replace the defaults.

    Returns
    -------
    TrainingConfig
        Settings of the stage.

    Raises
    ------
    InputError
        The parent predicts forces directly, or `config_from_dict` refuses the changes.
    """
    network = parent.network.config
    if not network.conservative:
        raise InputError("the parent predicts forces directly; fine-tune it by a stage file with direct_forces: false")
    values = {"family": family_of(network), **network.to_dict(), **DEFAULTS, "epochs": 1, "validate_every_epochs": 1}
    if network.has_both_forces:
        values["direct_force_weight"] = DEFAULTS["force_weight"]
        if network.gives_direct_stress:
            values["direct_stress_weight"] = DEFAULTS["stress_weight"]
    if training.elements <= set(parent.references_ev):
        # Data with few elements would pull their species embeddings away from those of all other elements.
        values["freeze"] = network.SPECIES_TABLES
    values |= dict(changes or {})
    if "epochs" not in (changes or {}):
        edges = int(training.edge_counts(network.cutoff_angstrom).sum())
        steps = max(1, min(len(training), round(edges / values["edges_per_batch"])))
        values["epochs"] = max(1, round(STEPS_WANTED / steps))
        values["validate_every_epochs"] = max(1, values["epochs"] // 20)
    return config_from_dict(values, "fine-tuning")


def finetune(
    parent: Checkpoint,
    config: TrainingConfig,
    training: Dataset,
    validation: Dataset,
    folder: str | Path,
    *,
    domain: Parent | None = None,
    provenance: Mapping[str, Any] | None = None,
    progress: Progress | None = None,
    world: World = ALONE,
    max_seconds: float | None = None,
    force_constants: Sequence[ForceConstants] = (),
) -> dict[str, Any]:
    """Fine-tune, and report errors before and after on held-out data and, if given, on the parent's domain.

    Parameters
    ----------
    parent
        Force field to fine-tune.
    config
        Settings of the stage, from `finetune_config`.
    training, validation
        Labelled structures to train on, and to report errors on.
    folder, provenance, progress, world, max_seconds, force_constants
        As in `train`.
    domain
        Data of the domain that the parent was trained on.

    Returns
    -------
    dict[str, Any]
        {checkpoint, model_key, parent_model_key, scale_factor_at_start, own: {before, after}, parent_domain: {before,
        after} or None}, with results of `evaluate_dataset`; also written to report.json. Before, references are fitted
        to the training data: another zero of the energy is not an error.
    """
    folder, start = Path(folder), starting_point(config, training, parent)
    begin, together = parent, training
    if domain is not None and domain.replay is not None:
        # Scale and references are those of the own data: fitted once, and not again to the mixture.
        begin = replace(parent, references_ev=start.references_ev, scale_ev=start.scale_ev)
        config = replace(config, references="keep", scale="keep")
        together = mixture([(training, 1), (_translated(domain.replay, parent, start), 1)])
    path = train(
        config, together, validation, folder, initial=begin, provenance=provenance, progress=progress, world=world,
        max_seconds=max_seconds, force_constants=force_constants,
    )  # fmt: skip
    child, device = load(path), str(world.device)
    own = {"before": refitted(parent, training), "after": child}
    report: dict[str, Any] = {
        "checkpoint": str(path),
        "model_key": child.model_key,
        "parent_model_key": parent.model_key,
        "scale_factor_at_start": start.scale_ev / parent.scale_ev,
        "own": {when: _errors(each, validation, device) for when, each in own.items()},
        "parent_domain": None if domain is None else _forgetting(parent, child, domain.held_out, device),
    }
    if world.leads:
        with written_whole(folder / REPORT_NAME, durable=True) as temporary:
            temporary.write_text(json.dumps(report, indent=1) + "\n")
    return report


def _forgetting(parent: Checkpoint, child: Checkpoint, data: Dataset, device: str) -> dict[str, Any]:
    """Errors before and after on the parent's domain, both with references refitted to it."""
    both = {"before": parent, "after": child}
    return {when: _errors(refitted(each, data), data, device) for when, each in both.items()}


def _errors(checkpoint: Checkpoint, data: Dataset, device: str) -> dict[str, dict[str, float]]:
    return evaluate_dataset(NetworkForceField(checkpoint, device=device), data)


def _translated(data: Dataset, parent: Checkpoint, start: Checkpoint) -> Dataset:
    """The parent's data with the scale and the element references that the network has at its start.

    Replayed labels then keep the shape of what the network knew, not its softness.
    """
    factor = start.scale_ev / parent.scale_ev
    old, new = parent.references_ev, start.references_ev

    def translated(item: LabelledStructure) -> LabelledStructure:
        above = item.energy - sum(old[int(z)] for z in item.atoms.numbers)
        energy = factor * above + sum(new[int(z)] for z in item.atoms.numbers)
        return replace(item, energy=energy, forces=factor * item.forces, stress=factor * item.stress)

    return from_structures((translated(item) for item in data), data.provenance)
