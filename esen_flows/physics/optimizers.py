"""Minimisers of many structures at once, each with the trajectory of ASE's optimiser of the same name.

No structure influences another: all sums run over the rows of one structure.
"""

from typing import Literal, Protocol

import numpy as np
import torch
from torch import Tensor

from esen_flows.data.ragged import Rows, to_device

OptimizerName = Literal["fire", "lbfgs"]

MAXIMUM_STEP_ANGSTROM = 0.2  # ASE's default


class Optimizer(Protocol):
    """Steps of a batch of structures that enter and leave."""

    def step(self, coordinates: Tensor, forces: Tensor, rows: Rows) -> Tensor:
        """The next step of all structures.

        Parameters
        ----------
        coordinates
            (rows, 3) variables in Angstrom.
        forces
            (rows, 3) negative gradient in eV/Angstrom.
        rows
            Rows of each structure.

        Returns
        -------
        Tensor
            (rows, 3) in Angstrom.
        """

    def keep(self, structures: np.ndarray, rows: Rows) -> None:
        """Forget all structures except some.

        Parameters
        ----------
        structures
            Numbers of those that stay.
        rows
            Rows of each structure before the others leave.
        """

    def enter(self, rows: Rows) -> None:
        """Add structures behind those of the batch.

        Parameters
        ----------
        rows
            Rows of each new structure.
        """


class _Fire:
    """Bitzek et al., Phys. Rev. Lett. 97, 170201 (2006), with ASE's constants and order of operations."""

    def __init__(self, device: torch.device) -> None:
        self._velocity = torch.zeros((0, 3), dtype=torch.float64, device=device)
        # Of each structure: whether it has moved, its time step, its mixing, and its steps since the last one uphill.
        self._moving = torch.zeros(0, dtype=torch.bool, device=device)
        self._time_step, self._mixing, self._downhill = (self._velocity.new_zeros(0) for _ in range(3))

    def enter(self, rows: Rows) -> None:
        n = len(rows.counts)
        self._velocity = torch.cat((self._velocity, self._velocity.new_zeros(rows.total, 3)))
        self._moving = torch.cat((self._moving, self._moving.new_zeros(n)))
        self._time_step, self._mixing = (
            torch.cat((each, each.new_full((n,), 0.1))) for each in (self._time_step, self._mixing)
        )
        self._downhill = torch.cat((self._downhill, self._downhill.new_zeros(n)))

    def keep(self, structures: np.ndarray, rows: Rows) -> None:
        places = to_device(structures, rows.device)
        self._velocity = self._velocity.index_select(0, rows.of(structures))
        self._moving, self._time_step, self._mixing, self._downhill = (
            each.index_select(0, places) for each in (self._moving, self._time_step, self._mixing, self._downhill)
        )

    def step(self, coordinates: Tensor, forces: Tensor, rows: Rows) -> Tensor:
        downhill = rows.dot(forces, self._velocity) > 0
        self._turn(forces, rows, downhill)
        self._adapt(downhill)
        time_step = rows.spread(self._time_step)
        self._velocity = self._velocity + time_step * forces
        step = time_step * self._velocity
        return step * rows.spread(_shrink(rows.dot(step, step).sqrt()))

    def _turn(self, forces: Tensor, rows: Rows, downhill: Tensor) -> None:
        """Turn velocities towards the force; stop structures that move uphill."""
        size, speed = rows.dot(forces, forces).sqrt(), rows.dot(self._velocity, self._velocity).sqrt()
        ratio = self._mixing * speed / torch.where(size > 0, size, 1.0)
        turned = rows.spread(1 - self._mixing) * self._velocity + rows.spread(ratio) * forces
        self._velocity = torch.where(rows.spread(downhill), turned, 0.0)

    def _adapt(self, downhill: Tensor) -> None:
        """Lengthen time steps after more than five steps downhill; halve them after one uphill."""
        lengthened, uphill = downhill & (self._downhill > 5), ~downhill & self._moving
        longer = torch.where(lengthened, (1.1 * self._time_step).clamp(max=1.0), self._time_step)
        self._time_step = torch.where(uphill, 0.5 * longer, longer)
        self._mixing = torch.where(uphill, 0.1, torch.where(lengthened, 0.99 * self._mixing, self._mixing))
        self._downhill = torch.where(downhill, self._downhill + 1, 0.0)
        self._moving = torch.ones_like(self._moving)


class _Lbfgs:
    """Limited-memory BFGS (Nocedal and Wright, Numerical Optimization, algorithm 7.4) with ASE's constants."""

    MEMORY = 100
    STIFFNESS = 70.0  # of the first guess of the Hessian, eV/Angstrom^2

    def __init__(self, device: torch.device) -> None:
        self._history: list[tuple[Tensor, Tensor, Tensor]] = []  # steps s, gradient changes y, 1/(s.y)
        self._previous: tuple[Tensor, Tensor] | None = None  # coordinates and forces
        self._moving = torch.zeros(0, dtype=torch.bool, device=device)

    def enter(self, rows: Rows) -> None:
        def longer(each: Tensor, count: int) -> Tensor:
            return torch.cat((each, each.new_zeros(count, *each.shape[1:])))

        n_rows, n = rows.total, len(rows.counts)
        self._history = [(longer(s, n_rows), longer(y, n_rows), longer(rho, n)) for s, y, rho in self._history]
        if self._previous is not None:
            self._previous = longer(self._previous[0], n_rows), longer(self._previous[1], n_rows)
        self._moving = longer(self._moving, n)

    def keep(self, structures: np.ndarray, rows: Rows) -> None:
        kept, places = rows.of(structures), to_device(structures, rows.device)
        self._history = [
            (s.index_select(0, kept), y.index_select(0, kept), rho.index_select(0, places))
            for s, y, rho in self._history
        ]
        if self._previous is not None:
            self._previous = self._previous[0].index_select(0, kept), self._previous[1].index_select(0, kept)
        self._moving = self._moving.index_select(0, places)

    def step(self, coordinates: Tensor, forces: Tensor, rows: Rows) -> Tensor:
        self._remember(coordinates, forces, rows)
        q, factors = -forces, []
        for s, y, rho in reversed(self._history):
            factors.append(rho * rows.dot(s, q))
            q = q - rows.spread(factors[-1]) * y
        z = q / self.STIFFNESS
        for (s, y, rho), factor in zip(self._history, reversed(factors), strict=True):
            z = z + rows.spread(factor - rho * rows.dot(y, z)) * s
        self._previous, self._moving = (coordinates, forces), torch.ones_like(self._moving)
        return -z * rows.spread(_shrink(rows.longest(z)))

    def _remember(self, coordinates: Tensor, forces: Tensor, rows: Rows) -> None:
        """Append the last step; structures without a step or without a change of gradient get the weight zero."""
        if self._previous is None:
            return
        moving = rows.spread(self._moving)
        s = torch.where(moving, coordinates - self._previous[0], 0.0)
        y = torch.where(moving, self._previous[1] - forces, 0.0)
        product = rows.dot(s, y)
        rho = torch.where(product != 0, 1.0 / product, 0.0)
        self._history = [*self._history[1 - self.MEMORY :], (s, y, rho)]


def new_optimizer(name: OptimizerName, device: torch.device) -> Optimizer:
    """An optimiser for an empty batch.

    Parameters
    ----------
    name
        Kind of the optimiser.
    device
        torch device of coordinates and forces.

    Returns
    -------
    Optimizer
        The optimiser.
    """
    return _Fire(device) if name == "fire" else _Lbfgs(device)


def _shrink(lengths: Tensor) -> Tensor:
    """Factors that leave no step longer than the maximum."""
    return MAXIMUM_STEP_ANGSTROM / lengths.clamp(min=MAXIMUM_STEP_ANGSTROM)
