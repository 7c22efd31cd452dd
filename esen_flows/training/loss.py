"""Losses: energy per atom, forces, stress, and the noise of DeNS.

Each term is a sum over one part of a batch, divided by the counts of the whole batch. Parts on several processes, or
computed one after the other, therefore add up to the mean over the batch.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from esen_flows.network.derivatives import DirectOutputs, EnergyForcesStress
from esen_flows.network.symmetric_tensors import stress_components
from esen_flows.training.config import TrainingConfig
from esen_flows.training.frames import LabelledBatch


@dataclass(frozen=True)
class Counts:
    """What the terms of a whole batch are divided by, over all processes and passes.

    Parameters
    ----------
    systems, atoms
        Structures and atoms.
    stresses
        Structures with a stress label.
    moved
        Noised atoms: the network predicts their noise, and the forces of the others.
    """

    systems: float
    atoms: float
    stresses: float
    moved: float

    @classmethod
    def of(cls, parts: Sequence[LabelledBatch]) -> "Counts":
        """Count parts of a batch.

        Parameters
        ----------
        parts
            The parts, possibly none.

        Returns
        -------
        Counts
            Their counts together.
        """
        moved = sum(int(part.moved.sum()) for part in parts if part.moved is not None)
        stresses = sum(int(_labelled(part).sum()) for part in parts)
        return cls(
            sum(part.graph.n_systems for part in parts), sum(len(part.forces) for part in parts), stresses, moved
        )


@dataclass(frozen=True)
class PredictionErrors:
    """Prediction minus label.

    Attributes
    ----------
    energy_per_atom
        (systems,) in eV.
    forces
        (atoms, 3) in eV/Angstrom.
    stress
        (systems, 3, 3) in eV/Angstrom^3; zero for structures without a stress label.
    """

    energy_per_atom: Tensor
    forces: Tensor
    stress: Tensor


def _errors_of(
    prediction: EnergyForcesStress, outputs: EnergyForcesStress | DirectOutputs, batch: LabelledBatch, scale_ev: float
) -> PredictionErrors:
    """Errors of an energy and of forces and stress (`outputs`) in network units, of which each is `scale_ev`."""
    labelled = _labelled(batch).view(-1, 1, 1)
    stress = torch.where(labelled, outputs.stress * scale_ev - torch.nan_to_num(batch.stress), 0.0)
    energy = (prediction.energy * scale_ev - batch.energy) / batch.n_atoms
    return PredictionErrors(energy, outputs.forces * scale_ev - batch.forces, stress)


def training_loss(
    prediction: EnergyForcesStress,
    batch: LabelledBatch,
    config: TrainingConfig,
    scale_ev: float,
    counts: Counts | None = None,
) -> dict[str, Tensor]:
    """The weighted terms of the configured loss; a stage minimises their sum.

    Parameters
    ----------
    prediction
        Output of the network, in network units.
    batch
        Its input and labels.
    config
        Settings of the stage: kind of loss and coefficients.
    scale_ev
        eV of one network unit.
    counts
        Counts of the whole batch, where `batch` is a part of it; None: it is the whole.

    Returns
    -------
    dict[str, Tensor]
        "energy", "forces", "stress", "denoising", "direct_forces" and "direct_stress", as far as the stage has them.
    """
    counts = counts or Counts.of([batch])
    errors = _errors_of(prediction, prediction, batch, scale_ev)
    direct = None if prediction.direct is None else _errors_of(prediction, prediction.direct, batch, scale_ev)
    if config.loss == "relative":
        return _relative(errors, direct, batch, config, counts)
    return _absolute(errors, direct, prediction, batch, config, scale_ev, counts)


def _absolute(
    errors: PredictionErrors,
    direct: PredictionErrors | None,
    prediction: EnergyForcesStress,
    batch: LabelledBatch,
    config: TrainingConfig,
    scale_ev: float,
    counts: Counts,
) -> dict[str, Tensor]:
    """The paper's loss; all terms are in units of one scale, so that their coefficients do not depend on the data."""
    terms = {
        "energy": config.energy_weight * errors.energy_per_atom.abs().sum() / (scale_ev * counts.systems),
        "forces": config.force_weight * _force_term(errors.forces / scale_ev, batch, config, counts),
    }
    if config.stress_weight:
        is_direct = not config.network.conservative
        terms["stress"] = config.stress_weight * _stress_term(errors.stress / scale_ev, is_direct, counts)
    if direct is not None:
        term = _force_term(direct.forces / scale_ev, batch, config, counts)
        terms["direct_forces"] = config.direct_force_weight * term
        if config.direct_stress_weight:
            terms["direct_stress"] = config.direct_stress_weight * _stress_term(direct.stress / scale_ev, True, counts)
    if batch.moved is not None and batch.noise is not None and prediction.noise is not None:
        missed = prediction.noise - batch.noise / config.denoising_std_angstrom
        distance = torch.where(batch.moved, _norm(missed, 1), 0.0)
        terms["denoising"] = config.denoising_weight * distance.sum() / max(1.0, counts.moved)
    return terms


def _force_term(errors: Tensor, batch: LabelledBatch, config: TrainingConfig, counts: Counts) -> Tensor:
    """Mean force error of the atoms that were not noised; of noised atoms the noise is predicted, not the force."""
    if config.force_loss == "mse":
        per_atom = errors.square().sum(dim=1) / 3
    else:
        per_atom = _norm(errors, 1)
    if batch.moved is not None:
        per_atom = torch.where(batch.moved, 0.0, per_atom)
    return per_atom.sum() / max(1.0, counts.atoms - counts.moved)


def _stress_term(errors: Tensor, is_direct: bool, counts: Counts) -> Tensor:
    """Mean absolute error of nine components, or of a direct head's isotropic one plus that of its five others."""
    stresses = max(1.0, counts.stresses)
    if not is_direct:
        return errors.abs().sum() / (9 * stresses)
    isotropic, anisotropic = stress_components(errors)
    return isotropic.abs().sum() / stresses + anisotropic.abs().sum() / (5 * stresses)


def _relative(
    errors: PredictionErrors,
    direct: PredictionErrors | None,
    batch: LabelledBatch,
    config: TrainingConfig,
    counts: Counts,
) -> dict[str, Tensor]:
    """Errors of each structure, divided by the size of its own force, stress and energy above the references.

    Small displacements decide phonons and their transport, and an absolute loss hardly sees them.
    """
    energy_floor, force_floor, stress_floor = config.relative_floors
    above = (batch.energy / batch.n_atoms).abs()
    energy = 0.01 * errors.energy_per_atom.abs() / (above + energy_floor)
    force_size = _mean_per_system(batch.forces.square().sum(dim=1), batch).sqrt() + force_floor
    stress_size = torch.linalg.vector_norm(torch.nan_to_num(batch.stress), dim=(1, 2)) + stress_floor

    def forces_and_stress(found: PredictionErrors) -> tuple[Tensor, Tensor]:
        forces = _mean_per_system(_norm(found.forces, 1), batch) / force_size
        return forces, _norm(found.stress, (1, 2)) / stress_size

    forces, stress = forces_and_stress(errors)
    weighted = {"energy": (config.energy_weight, energy), "forces": (config.force_weight, forces)}
    weighted["stress"] = (config.stress_weight, stress)
    if direct is not None:
        forces, stress = forces_and_stress(direct)
        weighted["direct_forces"] = (config.direct_force_weight, forces)
        if config.direct_stress_weight:  # without a stress head the stress is NaN
            weighted["direct_stress"] = (config.direct_stress_weight, stress)
    return {name: weight * term.sum() / counts.systems for name, (weight, term) in weighted.items()}


def _labelled(batch: LabelledBatch) -> Tensor:
    """(systems,) bool, which structures have a stress label."""
    return torch.isfinite(batch.stress).all(dim=2).all(dim=1)


def _mean_per_system(values: Tensor, batch: LabelledBatch) -> Tensor:
    """Mean over the atoms of each system."""
    total = values.new_zeros(batch.graph.n_systems).index_add(0, batch.graph.system, values)
    return total / batch.n_atoms


def _norm(values: Tensor, dim: tuple[int, ...] | int) -> Tensor:
    # A bare square root has an infinite slope at an error of exactly zero.
    return (values.square().sum(dim=dim) + 1e-16).sqrt()
