"""Minimisers of many structures at once, each with the trajectory of ASE's optimiser of the same name.

No structure influences another: all sums run over the rows of one structure.
"""

from typing import Literal, Protocol

import numpy as np

from esen_flows.physics.segments import Segments

OptimizerName = Literal["fire", "lbfgs"]

MAXIMUM_STEP_ANGSTROM = 0.2  # ASE's default


class Optimizer(Protocol):
    """Steps of a batch of structures that enter and leave."""

    def step(self, coordinates: np.ndarray, forces: np.ndarray, rows: Segments) -> np.ndarray:
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
        np.ndarray
            (rows, 3) in Angstrom.
        """

    def leave(self, keep: np.ndarray, rows: Segments) -> None:
        """Forget the structures that leave the batch.

        Parameters
        ----------
        keep
            (structures,) bool, False for those that leave.
        rows
            Rows of each structure before they leave.
        """

    def enter(self, rows: Segments) -> None:
        """Add structures behind those of the batch.

        Parameters
        ----------
        rows
            Rows of each new structure.
        """


class _Fire:
    """Bitzek et al., Phys. Rev. Lett. 97, 170201 (2006), with ASE's constants and order of operations."""

    def __init__(self) -> None:
        self._velocity = np.zeros((0, 3))
        # Of each structure; moving: False before the first step, downhill: number of steps since the last one uphill.
        self._state = np.zeros(0, [("moving", bool), ("time_step", float), ("mixing", float), ("downhill", int)])

    def enter(self, rows: Segments) -> None:
        state = np.zeros(len(rows.counts), self._state.dtype)
        state["time_step"] = state["mixing"] = 0.1
        self._velocity = np.concatenate((self._velocity, np.zeros((len(rows.owner), 3))))
        self._state = np.concatenate((self._state, state))

    def leave(self, keep: np.ndarray, rows: Segments) -> None:
        self._velocity, self._state = self._velocity[rows.of(keep)], self._state[keep]

    def step(self, coordinates: np.ndarray, forces: np.ndarray, rows: Segments) -> np.ndarray:
        downhill = rows.dot(forces, self._velocity) > 0
        self._turn(forces, rows, downhill)
        self._adapt(downhill)
        self._state["moving"] = True
        time_step = rows.spread(self._state["time_step"])
        self._velocity = self._velocity + time_step * forces
        step = time_step * self._velocity
        length = np.sqrt(rows.dot(step, step))
        return np.asarray(step * rows.spread(_shrink(length)))

    def _turn(self, forces: np.ndarray, rows: Segments, downhill: np.ndarray) -> None:
        """Turn velocities towards the force; stop structures that move uphill."""
        size, speed = np.sqrt(rows.dot(forces, forces)), np.sqrt(rows.dot(self._velocity, self._velocity))
        mixing = self._state["mixing"]
        ratio = mixing * speed / np.where(size > 0, size, 1.0)
        turned = rows.spread(1 - mixing) * self._velocity + rows.spread(ratio) * forces
        self._velocity = np.where(rows.spread(downhill), turned, 0.0)

    def _adapt(self, downhill: np.ndarray) -> None:
        """Lengthen time steps after more than five steps downhill; halve them after one uphill."""
        state = self._state
        lengthened = downhill & (state["downhill"] > 5)
        uphill = ~downhill & state["moving"]
        state["time_step"] = np.where(lengthened, np.minimum(1.1 * state["time_step"], 1.0), state["time_step"])
        state["time_step"][uphill] *= 0.5
        state["mixing"] = np.where(lengthened, 0.99 * state["mixing"], state["mixing"])
        state["mixing"][uphill] = 0.1
        state["downhill"] = np.where(downhill, state["downhill"] + 1, 0)


class _Lbfgs:
    """Limited-memory BFGS (Nocedal and Wright, Numerical Optimization, algorithm 7.4) with ASE's constants."""

    MEMORY = 100
    STIFFNESS = 70.0  # of the first guess of the Hessian, eV/Angstrom^2

    def __init__(self) -> None:
        self._history: list[tuple[np.ndarray, np.ndarray, np.ndarray]] = []  # steps s, gradient changes y, 1/(s.y)
        self._previous: tuple[np.ndarray, np.ndarray] | None = None  # coordinates and forces
        self._moving = np.zeros(0, dtype=bool)

    def enter(self, rows: Segments) -> None:
        none, n = np.zeros((len(rows.owner), 3)), np.zeros(len(rows.counts))
        self._history = [
            (np.concatenate((s, none)), np.concatenate((y, none)), np.concatenate((rho, n)))
            for s, y, rho in self._history
        ]
        if self._previous is not None:
            x, f = self._previous
            self._previous = np.concatenate((x, none)), np.concatenate((f, none))
        self._moving = np.concatenate((self._moving, n.astype(bool)))

    def leave(self, keep: np.ndarray, rows: Segments) -> None:
        kept_rows = rows.of(keep)
        self._history = [(s[kept_rows], y[kept_rows], rho[keep]) for s, y, rho in self._history]
        if self._previous is not None:
            self._previous = self._previous[0][kept_rows], self._previous[1][kept_rows]
        self._moving = self._moving[keep]

    def step(self, coordinates: np.ndarray, forces: np.ndarray, rows: Segments) -> np.ndarray:
        self._remember(coordinates, forces, rows)
        q, factors = -forces, []
        for s, y, rho in reversed(self._history):
            factors.append(rho * rows.dot(s, q))
            q = q - rows.spread(factors[-1]) * y
        z = q / self.STIFFNESS
        for (s, y, rho), factor in zip(self._history, reversed(factors), strict=True):
            z = z + rows.spread(factor - rho * rows.dot(y, z)) * s
        self._previous, self._moving = (coordinates, forces), np.ones(len(rows.counts), dtype=bool)
        return np.asarray(-z * rows.spread(_shrink(rows.longest(z))))

    def _remember(self, coordinates: np.ndarray, forces: np.ndarray, rows: Segments) -> None:
        """Append the last step; structures without a step or without a change of gradient get the weight zero."""
        if self._previous is None:
            return
        moving = rows.spread(self._moving)
        s = np.where(moving, coordinates - self._previous[0], 0.0)
        y = np.where(moving, self._previous[1] - forces, 0.0)
        product = rows.dot(s, y)
        rho = np.divide(1.0, product, out=np.zeros_like(product), where=product != 0)
        self._history = [*self._history[1 - self.MEMORY :], (s, y, rho)]


def new_optimizer(name: OptimizerName) -> Optimizer:
    """An optimiser for an empty batch.

    Parameters
    ----------
    name
        Kind of the optimiser.

    Returns
    -------
    Optimizer
        The optimiser.
    """
    return _Fire() if name == "fire" else _Lbfgs()


def _shrink(lengths: np.ndarray) -> np.ndarray:
    """Factors that leave no step longer than the maximum."""
    return np.asarray(MAXIMUM_STEP_ANGSTROM / np.maximum(lengths, MAXIMUM_STEP_ANGSTROM))
