"""Linewidths by both implementations, as a fixture."""

from collections.abc import Callable, Sequence

import numpy as np
import pytest
from compared_linewidths import TEMPERATURES, Both, calculator
from phono3py import Phono3py
from phonopy.phonon.grid import get_ir_grid_points

from esen_flows.physics.lattice.native_transport import NativeLinewidths


@pytest.fixture(scope="session")
def both() -> Callable[[Phono3py, Sequence[int] | float], Both]:
    def compute(ph3: Phono3py, mesh: Sequence[int] | float) -> Both:
        ph3.mesh_numbers = mesh
        ph3.init_phph_interaction(
            average_degenerate_weights=True, symmetrize_tetrahedra=True, exclude_gamma_acoustic=True
        )
        ph3.run_phonon_solver()
        points = np.array(ph3.grid.grg2bzg)[get_ir_grid_points(ph3.grid)[0]]
        return Both(ph3, points, NativeLinewidths(ph3, TEMPERATURES), np.array(calculator(ph3, points).gamma[0]))

    return compute
