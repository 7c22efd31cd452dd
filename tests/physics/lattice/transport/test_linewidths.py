"""Our linewidths against phono3py's, in several symmetries, meshes and ways to compute them."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import phono3py
import pytest
import springs
import torch
from compared_linewidths import TEMPERATURES, Both, calculator
from phono3py import Phono3py

from esen_flows import native
from esen_flows.physics.lattice.masses import mass_variance
from esen_flows.physics.lattice.native_transport import NativeLinewidths
from esen_flows.physics.lattice.transport import kernel, linewidths

# Of linewidths of springs, whose high symmetry makes terms cancel; DFT crystals agree to 1e-13.
SPRINGS = 5e-12
Compute = Callable[[Phono3py, Any], Both]
SOURCES = {"silicon": springs.silicon, "ZnO": springs.zinc_oxide, "monoclinic": springs.monoclinic}


@pytest.fixture(scope="module")
def crystals() -> dict[str, Phono3py]:
    return {name: make() for name, make in SOURCES.items()}


@pytest.fixture
def no_compiler(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setenv("ESEN_FLOWS_NATIVE", "off")
    for cached in (native.load, kernel._functions):
        cached.cache_clear()
    yield
    monkeypatch.undo()
    for cached in (native.load, kernel._functions):
        cached.cache_clear()


@pytest.mark.parametrize(
    ("crystal", "mesh"),
    [
        ("silicon", (5, 5, 5)),
        ("silicon", (8, 8, 8)),
        ("silicon", (11, 11, 11)),
        ("silicon", 30.0),  # a generalised regular grid
        ("ZnO", (5, 5, 3)),
        ("ZnO", (6, 6, 4)),
        ("monoclinic", (4, 3, 3)),
    ],
)
def test_linewidths_are_those_of_phono3py(
    crystals: dict[str, Phono3py], both: Compute, crystal: str, mesh: Any
) -> None:
    compared = both(crystals[crystal], mesh)
    assert compared.relative_error(compared.native.by_phonons(compared.points)) < SPRINGS


@pytest.mark.parametrize("crystal", SOURCES)
def test_numpy_gives_the_same_as_the_kernel(
    crystals: dict[str, Phono3py], both: Compute, no_compiler: None, crystal: str
) -> None:
    compared = both(crystals[crystal], (4, 4, 3) if crystal != "silicon" else (5, 5, 5))
    assert compared.relative_error(compared.native.by_phonons(compared.points)) < SPRINGS


def test_threads_and_parts_change_no_bit(
    crystals: dict[str, Phono3py], both: Compute, monkeypatch: pytest.MonkeyPatch
) -> None:
    compared = both(crystals["ZnO"], (5, 5, 3))
    alone = compared.native.by_phonons(compared.points)
    before = torch.get_num_threads()
    torch.set_num_threads(3)
    try:
        assert np.array_equal(compared.native.by_phonons(compared.points), alone)
        assert torch.get_num_threads() == 3
    finally:
        torch.set_num_threads(before)
    monkeypatch.setattr(linewidths, "TENSOR_BYTES", 1.0)  # one mode of q0 at a time
    assert np.allclose(compared.native.by_phonons(compared.points), alone, rtol=1e-12, atol=0)


def test_full_force_constants_are_taken_as_compact_ones(crystals: dict[str, Phono3py], both: Compute) -> None:
    ph3 = springs.silicon()
    ph3.produce_fc3(is_compact_fc=False)
    ph3.symmetrize_fc3()
    compared = both(ph3, (4, 4, 4))
    assert compared.relative_error(compared.native.by_phonons(compared.points)) < SPRINGS


def test_isotopes_are_those_of_phono3py_where_these_are_defined(crystals: dict[str, Phono3py], both: Compute) -> None:
    """Most modes of a crystal without symmetry have no ties of energies; each gives phono3py's linewidth."""
    compared = both(crystals["monoclinic"], (5, 4, 4))
    theirs = np.array(calculator(compared.ph3, compared.points, is_isotope=True).gamma_isotope[0])
    ours = compared.native.by_isotopes(compared.points, _variances(compared.ph3))
    scattered = (theirs > 0) & (ours > 0)
    ratio = ours[scattered] / theirs[scattered]
    assert np.median(np.abs(ratio - 1)) < 1e-12
    assert np.mean(np.abs(ratio - 1) < 1e-9) > 0.6


@pytest.mark.parametrize("crystal", SOURCES)
def test_isotopes_by_numpy_and_kernel_agree(
    crystals: dict[str, Phono3py], both: Compute, no_compiler: None, crystal: str
) -> None:
    compared = both(crystals[crystal], (5, 5, 5) if crystal == "silicon" else (4, 4, 3))
    by_numpy = compared.native.by_isotopes(compared.points, _variances(compared.ph3))
    by_kernel = _with_kernel(compared.ph3).by_isotopes(compared.points, _variances(compared.ph3))
    assert by_kernel.any()
    assert np.allclose(by_numpy, by_kernel, rtol=1e-11, atol=1e-15 * by_kernel.max())


def _variances(ph3: Phono3py) -> np.ndarray:
    return np.array([mass_variance(symbol) for symbol in ph3.primitive.symbols])


def _with_kernel(ph3: Phono3py) -> NativeLinewidths:
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv("ESEN_FLOWS_NATIVE")
        for cached in (native.load, kernel._functions):
            cached.cache_clear()
        return NativeLinewidths(ph3, TEMPERATURES)


@pytest.mark.parametrize("crystal", ["silicon", "ZnO"])
def test_noise_on_the_frequencies_hardly_moves_isotope_linewidths(
    crystals: dict[str, Phono3py], both: Compute, crystal: str
) -> None:
    """phono3py's move by up to 43 % under a hundredth of this noise."""
    compared = both(crystals[crystal], (7, 7, 7) if crystal == "silicon" else (6, 6, 4))
    exact = compared.native.by_isotopes(compared.points, _variances(compared.ph3))
    frequencies = compared.ph3.get_phonon_data()[0]
    noise = 1e-12 * np.random.default_rng(1).standard_normal(frequencies.shape)
    kept = frequencies.copy()
    frequencies += np.where(kept > 0.1, noise, 0.0)
    try:
        noisy = NativeLinewidths(compared.ph3, TEMPERATURES).by_isotopes(compared.points, _variances(compared.ph3))
    finally:
        frequencies[:] = kept
    assert not np.array_equal(noisy, exact)
    scattered = exact > 1e-12 * exact.max()  # below is what symmetry forbids
    assert np.abs(noisy[scattered] / exact[scattered] - 1).max() < 1e-8


@pytest.mark.shared
@pytest.mark.parametrize("mesh", [(5, 5, 5), (8, 8, 8), (11, 11, 11)])
def test_linewidths_of_silicon_from_dft_forces(shared_dir: Path, both: Compute, mesh: tuple[int, int, int]) -> None:
    folder = shared_dir / "data" / "phono3py" / "Si-PBEsol"
    ph3 = phono3py.load(folder / "phono3py_disp.yaml", forces_fc3_filename=folder / "FORCES_FC3", log_level=0)
    compared = both(ph3, mesh)
    assert compared.relative_error(compared.native.by_phonons(compared.points)) < 1e-12


@pytest.mark.shared
def test_linewidths_of_a_polar_crystal(shared_dir: Path, both: Compute) -> None:
    """With a non-analytical correction q and q + G are equivalent to 1e-8 only, and phono3py takes other images."""
    ph3 = phono3py.load(shared_dir / "data/phono3py/phono3py_params_NaCl222.yaml.xz", log_level=0)
    assert ph3.nac_params is not None
    compared = both(ph3, (9, 9, 9))
    ours, scattered = compared.native.by_phonons(compared.points), compared.theirs > 0
    assert compared.relative_error(ours) < 2e-7
    assert np.median(np.abs(ours[scattered] / compared.theirs[scattered] - 1)) < 1e-8
