"""Linewidths by both implementations."""

from dataclasses import dataclass
from typing import Any

import numpy as np
from phono3py import Phono3py
from phono3py.conductivity.factory import conductivity_calculator

from esen_flows.physics.lattice.native_transport import NativeLinewidths

TEMPERATURES = (100.0, 300.0, 900.0)


@dataclass
class Both:
    """Our linewidths and phono3py's at the irreducible points of one mesh."""

    ph3: Phono3py
    points: np.ndarray
    native: NativeLinewidths
    theirs: np.ndarray

    def relative_error(self, ours: np.ndarray) -> float:
        assert np.array_equal(ours > 0, self.theirs > 0)
        scattered = self.theirs > 0
        return float(np.abs(ours[scattered] / self.theirs[scattered] - 1).max())


def calculator(ph3: Phono3py, points: np.ndarray, **options: Any) -> Any:
    temperatures = np.array(TEMPERATURES)
    made = conductivity_calculator(
        ph3.phph_interaction, temperatures, [None], method="std-rta", lang="Rust", grid_points=points, **options
    )
    made.run()
    return made
