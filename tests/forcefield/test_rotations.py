"""Degrees of averages over rotations: by the characters of Wigner matrices, and by spherical harmonics themselves."""

import numpy as np
import pytest
from scipy.special import sph_harm_y

from esen_flows.forcefield.rotations import (
    Rotations,
    exact_degree,
    mean_wigner_norms,
    polyhedral,
    random_rotations,
)
from esen_flows.physics.force_symmetry import rotations_of
from esen_flows.schemas.force_symmetry import ForceSymmetry

# Degree L of the mean; the variance of functions up to the degree L // 2 is exact.
DEGREES = {
    "tetrahedral": 2,
    "octahedral": 3,
    "icosahedral": 5,
    "lebedev:6x4": 3,
    "lebedev:6x7": 3,
    "lebedev:14x6": 5,
    "lebedev:14x9": 5,
    "lebedev:26x8": 7,
    "lebedev:50x12": 11,
    "random:60:0": 0,
}


def named(text: str) -> Rotations:
    return rotations_of(ForceSymmetry.model_validate(text))


@pytest.mark.parametrize("text", DEGREES)
def test_degrees_by_characters(text: str) -> None:
    rotations = named(text)
    assert len(rotations.matrices) == ForceSymmetry.model_validate(text).count
    assert rotations.weights.sum() == pytest.approx(1.0, abs=1e-14)
    unit = rotations.matrices @ rotations.matrices.transpose(0, 2, 1)
    np.testing.assert_allclose(unit, np.broadcast_to(np.eye(3), unit.shape), atol=1e-14)
    np.testing.assert_allclose(np.linalg.det(rotations.matrices), 1.0, atol=1e-14)
    assert exact_degree(rotations) == DEGREES[text]


@pytest.mark.parametrize("text", ["tetrahedral", "icosahedral", "lebedev:14x9"])
def test_degrees_by_harmonics(text: str) -> None:
    """The mean of Y_lm(R n) vanishes up to the degree L, and the variance is that of all rotations up to L // 2."""
    rotations, degree = named(text), DEGREES[text]
    directions = np.random.default_rng(1).normal(size=(20, 3))
    directions /= np.linalg.norm(directions, axis=1, keepdims=True)
    turned = np.einsum("kij,nj->kni", rotations.matrices, directions)
    polar, azimuth = np.arccos(turned[..., 2]), np.arctan2(turned[..., 1], turned[..., 0])

    def means(one: int, power: int) -> np.ndarray:
        """(orders, directions) means of |Y|^power or, for power 1, of Y."""
        values = np.array([sph_harm_y(one, order, polar, azimuth) for order in range(one + 1)])
        return np.tensordot(values if power == 1 else np.abs(values) ** power, rotations.weights, (1, 0))

    assert max(np.abs(means(one, 1)).max() for one in range(1, degree + 1)) < 1e-14
    assert np.abs(means(3 if text == "tetrahedral" else 6, 1)).max() > 1e-2
    for one in range(1, degree // 2 + 1):
        np.testing.assert_allclose(means(one, 2), 1 / (4 * np.pi), atol=1e-14)
    beyond = degree // 2 + 1
    assert np.abs(means(beyond, 2) - 1 / (4 * np.pi)).max() > 1e-3


def test_groups_are_closed_and_hold_the_twofold_axes() -> None:
    for name, axes in (("tetrahedral", 3), ("octahedral", 3), ("icosahedral", 3)):
        matrices = polyhedral(name).matrices
        products = np.einsum("aij,bjk->abik", matrices, matrices).reshape(-1, 1, 9)
        assert np.abs(products - matrices.reshape(1, -1, 9)).max(axis=2).min(axis=1).max() < 1e-14
        diagonal = np.abs(matrices - matrices * np.eye(3)).max(axis=(1, 2)) < 1e-14
        assert diagonal.sum() == axes + 1
        np.testing.assert_array_equal(matrices[0], np.eye(3))
    with pytest.raises(ValueError, match="no polyhedron 'cube'"):
        polyhedral("cube")


def test_of_the_icosahedron_the_degrees_6_10_and_12_remain() -> None:
    norms = mean_wigner_norms(polyhedral("icosahedral"), 14)
    assert np.flatnonzero(norms > 1e-6).tolist() == [0, 6, 10, 12]
    # One invariant harmonic of degree 6: the mean of D^6 is a projector of rank one.
    assert norms[6] == pytest.approx(13**-0.5)


def test_random_rotations_are_uniform_and_repeatable() -> None:
    many = random_rotations(4000, np.random.default_rng(5))
    # The squared norm of the mean of D^l has the expectation (2 l + 1) / k, of a norm of (2 l + 1)^1/2.
    np.testing.assert_allclose(mean_wigner_norms(many, 4)[1:] * 4000**0.5, 1.0, atol=0.6)
    first, second = named("random:3:5"), named("random:3:5")
    np.testing.assert_array_equal(first.matrices, second.matrices)
    np.testing.assert_array_equal(first.matrices, many.matrices[:3])
    assert np.abs(first.matrices - named("random:3:6").matrices).max() > 0.1


def test_inversion_doubles() -> None:
    both = rotations_of(ForceSymmetry(average="tetrahedral", inversion=True))
    np.testing.assert_array_equal(both.matrices[12:], -both.matrices[:12])
    assert both.weights.sum() == pytest.approx(1.0)
    assert len(rotations_of(None).matrices) == 1
    np.testing.assert_array_equal(rotations_of(None, inversion=True).matrices, [np.eye(3), -np.eye(3)])
