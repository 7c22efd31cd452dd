import numpy as np
import pytest

from esen_flows.physics.lattice.modes import atom_shares


def test_shares_do_not_depend_on_the_basis_of_a_degenerate_pair() -> None:
    rng = np.random.default_rng(0)
    frequencies = np.array([[1.0, 1.0, 2.0, 3.0, 4.0, 5.0]])
    vectors = np.linalg.qr(rng.normal(size=(6, 6)) + 1j * rng.normal(size=(6, 6)))[0]
    turned = vectors.copy()
    turned[:, :2] = vectors[:, :2] @ np.linalg.qr(rng.normal(size=(2, 2)))[0]
    one, other = (atom_shares(frequencies, v[None], np.array([0, 1])) for v in (vectors, turned))
    assert one == pytest.approx(other, abs=1e-12)
    assert one.sum(axis=-1) == pytest.approx(np.ones((1, 6)))
    assert one[0, 2, 0] == pytest.approx(np.abs(vectors[:3, 2] ** 2).sum())


def test_equivalent_atoms_share_equally() -> None:
    vectors = np.eye(6)[None]
    shares = atom_shares(np.arange(6.0)[None], vectors, np.array([0, 0]))
    assert shares == pytest.approx(np.full((1, 6, 2), 0.5))
