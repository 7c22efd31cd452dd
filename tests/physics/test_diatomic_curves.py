"""Curves of diatomic molecules by EMT, and by force fields that fail at some separations or with some elements."""

from collections.abc import Iterable
from typing import Any

import numpy as np
import pytest

from esen_flows.errors import EvaluationError
from esen_flows.forcefield.load import load_force_field
from esen_flows.physics.diatomics import diatomic_curves
from esen_flows.schemas.diatomics import DiatomicsProtocol


class Failing:
    """EMT that has no finite energy below a separation."""

    label = "failing"

    def __init__(self, below_angstrom: float) -> None:
        self.below_angstrom, self.inner = below_angstrom, load_force_field("emt")

    def evaluate(self, pairs: Iterable[Any]) -> Any:
        if any(pair.get_distance(0, 1) < self.below_angstrom for pair in pairs):
            raise EvaluationError("not finite")
        return self.inner.evaluate(pairs)


def test_forces_are_the_slope_of_the_energies() -> None:
    protocol = DiatomicsProtocol(elements=("Cu",), smallest_angstrom=2.0, largest_angstrom=2.1, points=21)
    found = diatomic_curves(load_force_field("emt"), protocol)
    slope = np.gradient(found.energies_ev[0], protocol.separations_angstrom)
    # The force on the first atom pulls it towards the second one, along x, where the energy rises with the distance.
    np.testing.assert_allclose(found.forces_ev_per_angstrom[0, 1:-1, 0, 0], slope[1:-1], atol=1e-3)
    assert not found.forces_ev_per_angstrom[:, :, :, 1:].any()


def test_a_point_without_an_energy_costs_no_other() -> None:
    protocol = DiatomicsProtocol(elements=("Cu", "W"), smallest_angstrom=1.0, points=12)
    failing: Any = Failing(1.5)
    found = diatomic_curves(failing, protocol)
    assert found.elements == ["Cu"]
    assert "never saw" in found.excluded["W"] or "W" in found.excluded
    assert np.array_equal(np.isnan(found.energies_ev[0]), protocol.separations_angstrom < 1.5)
    whole = diatomic_curves(failing.inner, protocol)
    finite = np.isfinite(found.energies_ev)
    np.testing.assert_array_equal(found.energies_ev[finite], whole.energies_ev[finite])


def test_no_curve_at_all_is_a_failure() -> None:
    failing: Any = Failing(7.0)
    with pytest.raises(EvaluationError, match="no curve of any element"):
        diatomic_curves(failing, DiatomicsProtocol(elements=("Cu",), points=5))
