"""Errors on labelled frames, by group."""

import copy
from collections import defaultdict
from collections.abc import Sequence

import torch

from esen_flows.network.derivatives import energy_forces_stress
from esen_flows.network.esen import ESEN
from esen_flows.training.frames import Frame, collate
from esen_flows.training.loss import errors_of
from esen_flows.training.schedule import MovingAverage
from esen_flows.units import EV_PER_ANGSTROM3_TO_GPA


def averaged_copy(network: ESEN, average: MovingAverage) -> ESEN:
    """A copy of the network with the moving average as its weights."""
    result = copy.deepcopy(network)
    average.copy_to(result.parameters())
    return result


def group_errors(network: ESEN, frames: Sequence[Frame], scale_ev: float) -> dict[str, dict[str, float]]:
    """Component root-mean-square errors of each group and of all.

    Returns
    -------
    {group: {frames, energy_mev_per_atom, force_mev_per_angstrom, force_rms_mev_per_angstrom, stress_gpa}}; the force
    rms is that of the labels, for scale.
    """
    sums: dict[str, torch.Tensor] = defaultdict(lambda: torch.zeros(8, dtype=torch.float64))
    for frame in frames:
        batch = collate([frame])
        errors = errors_of(energy_forces_stress(network, batch.graph), batch, scale_ev)
        stress = errors.stress if bool(torch.isfinite(batch.stress).all()) else errors.stress[:0]
        parts = [
            torch.tensor(1.0),
            errors.energy_per_atom.square().sum(),
            errors.forces.square().sum(),
            batch.forces.square().sum(),
            torch.tensor(float(errors.forces.numel())),
            stress.square().sum(),
            torch.tensor(float(stress.numel())),
        ]
        row = torch.stack([part.detach().double() for part in parts] + [torch.zeros((), dtype=torch.float64)])
        for name in (frame.group, "all"):
            sums[name] += row
    return {name: _summary(row) for name, row in sorted(sums.items())}


def _summary(row: torch.Tensor) -> dict[str, float]:
    count, energy, forces, labels, n_forces, stress, n_stress = row.tolist()[:7]
    return {
        "frames": count,
        "energy_mev_per_atom": 1000 * (energy / count) ** 0.5,
        "force_mev_per_angstrom": 1000 * (forces / max(1.0, n_forces)) ** 0.5,
        "force_rms_mev_per_angstrom": 1000 * (labels / max(1.0, n_forces)) ** 0.5,
        "stress_gpa": EV_PER_ANGSTROM3_TO_GPA * (stress / n_stress) ** 0.5 if n_stress else float("nan"),
    }
