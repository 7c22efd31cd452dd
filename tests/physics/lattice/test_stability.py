import numpy as np
import pytest

from esen_flows.physics.lattice.stability import distance_to_gamma, stability_verdict

PRIMITIVE = 3.0 * np.eye(3)
SUPERCELL = 12.0 * np.eye(3)  # its first q-point is (1/4, 0, 0)
Q_POINTS = np.array([[0.0, 0, 0], [0.1, 0, 0], [0.9, 0, 0], [0.5, 0, 0]])
STABLE = np.array([[0.0, 0, 0, 5], [0.3, 0.3, 0.4, 5], [0.3, 0.3, 0.4, 5], [2.0, 2, 3, 4]])


def verdict(q: int, band: int, frequency: float) -> tuple[str, tuple[int, int] | None]:
    frequencies = STABLE.copy()
    frequencies[q, band] = frequency
    return stability_verdict(frequencies, Q_POINTS, PRIMITIVE, SUPERCELL, 0.05)


@pytest.mark.parametrize(
    ("q", "band", "frequency", "expected"),
    [
        (0, 0, -1e-6, "stable"),  # rounding
        (0, 0, -0.04, "acoustic_noise"),  # Gamma
        (1, 2, -0.04, "acoustic_noise"),  # between Gamma and the first q-point of the supercell
        (2, 2, -0.04, "acoustic_noise"),  # the same from the other side of the zone
        (1, 0, -0.06, "unstable"),  # more than the tolerance
        (3, 0, -0.04, "unstable"),  # zone boundary, where frequencies follow from forces
        (0, 3, -0.04, "unstable"),  # an optical branch at Gamma
    ],
)
def test_noise_and_instability(q: int, band: int, frequency: float, expected: str) -> None:
    found, worst = verdict(q, band, frequency)
    assert found == expected
    assert worst == ((q, band) if expected == "unstable" else None)


def test_worst_mode_is_the_most_negative_one_that_is_not_noise() -> None:
    frequencies = STABLE.copy()
    frequencies[1, 0], frequencies[3, 0], frequencies[3, 1] = -0.049, -0.01, -0.02
    assert stability_verdict(frequencies, Q_POINTS, PRIMITIVE, SUPERCELL, 0.05) == ("unstable", (3, 1))


def test_distance_is_to_the_nearest_reciprocal_lattice_point_of_an_oblique_cell() -> None:
    reciprocal = np.array([[1.0, 0, 0], [0.95, 0.3, 0], [0, 0, 2.0]])
    # (0.5, -0.5, 0) is 0.25 (b1 - b2) x 2: close to Gamma along the short difference vector.
    found = distance_to_gamma(np.array([[0.5, -0.5, 0.0], [0.0, 0.0, 0.25], [1.0, -2.0, 1.0]]), reciprocal)
    assert found == pytest.approx([0.5 * np.hypot(0.05, 0.3), 0.5, 0.0])


@pytest.mark.parametrize(
    ("q", "band", "frequency", "expected"),
    [(0, 0, -0.04, "acoustic_noise"), (0, 0, -0.06, "unstable"), (1, 2, -1e-6, "unstable"), (0, 3, -1e-6, "unstable")],
)
def test_noise_at_gamma_alone_as_in_phonondb(q: int, band: int, frequency: float, expected: str) -> None:
    frequencies = STABLE.copy()
    frequencies[q, band] = frequency
    assert stability_verdict(frequencies, Q_POINTS, PRIMITIVE, SUPERCELL, 0.05, gamma_alone=True)[0] == expected
