"""Losses of a conservative model: energy per atom, forces, stress."""

from dataclasses import dataclass

import torch
from torch import Tensor

from esen_flows.network.derivatives import EnergyForcesStress
from esen_flows.training.config import TrainingConfig
from esen_flows.training.frames import LabelledBatch


@dataclass(frozen=True)
class Errors:
    """Prediction minus label in eV, eV/Angstrom, eV/Angstrom^3.

    Attributes
    ----------
    energy_per_atom : (systems,).
    forces : (atoms, 3).
    stress : (systems, 3, 3); zero for structures without a stress label.
    """

    energy_per_atom: Tensor
    forces: Tensor
    stress: Tensor


def errors_of(prediction: EnergyForcesStress, batch: LabelledBatch, scale_ev: float) -> Errors:
    """Errors of a prediction in network units times `scale_ev`."""
    labelled = torch.isfinite(batch.stress).all(dim=(1, 2)).view(-1, 1, 1)
    stress = torch.where(labelled, prediction.stress * scale_ev - torch.nan_to_num(batch.stress), 0.0)
    energy = (prediction.energy * scale_ev - batch.energy) / batch.n_atoms
    return Errors(energy, prediction.forces * scale_ev - batch.forces, stress)


def _mean_per_system(values: Tensor, batch: LabelledBatch) -> Tensor:
    """Mean over the atoms of each system."""
    total = values.new_zeros(batch.graph.n_systems).index_add(0, batch.graph.system, values)
    return total / batch.n_atoms


def _norm(values: Tensor, dim: tuple[int, ...] | int) -> Tensor:
    # A bare square root has an infinite slope at an error of exactly zero.
    return (values.square().sum(dim=dim) + 1e-16).sqrt()


def absolute_loss(errors: Errors, config: TrainingConfig, scale_ev: float) -> Tensor:
    """The paper's: per-atom energy MAE, mean 2-norm of force errors, stress MAE, all in units of one scale."""
    energy = errors.energy_per_atom.abs().mean()
    forces = _norm(errors.forces, 1).mean()
    stress = errors.stress.abs().mean()
    total = config.energy_weight * energy + config.force_weight * forces + config.stress_weight * stress
    return total / scale_ev


def relative_loss(errors: Errors, batch: LabelledBatch, config: TrainingConfig) -> Tensor:
    """Errors of each structure over its own size of force, stress and energy above the references.

    Small rattles decide phonons and conductivity, and an absolute loss hardly sees them.
    """
    energy_floor, force_floor, stress_floor = config.relative_floors
    above = (batch.energy / batch.n_atoms).abs()
    energy = 0.01 * errors.energy_per_atom.abs() / (above + energy_floor)
    rms = _mean_per_system(batch.forces.square().sum(dim=1), batch).sqrt()
    forces = _mean_per_system(_norm(errors.forces, 1), batch) / (rms + force_floor)
    size = torch.linalg.vector_norm(torch.nan_to_num(batch.stress), dim=(1, 2))
    stress = _norm(errors.stress, (1, 2)) / (size + stress_floor)
    return (config.energy_weight * energy + config.force_weight * forces + config.stress_weight * stress).mean()


def training_loss(
    prediction: EnergyForcesStress, batch: LabelledBatch, config: TrainingConfig, scale_ev: float
) -> Tensor:
    """The configured loss of a batch."""
    errors = errors_of(prediction, batch, scale_ev)
    if config.loss == "absolute":
        return absolute_loss(errors, config, scale_ev)
    return relative_loss(errors, batch, config)
