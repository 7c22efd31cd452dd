"""Elastic tensors from the stresses of strained cells, with the symmetry of the crystal and confidence intervals.

Inside, strains and stresses are six-vectors in Mandel's notation (shears times the square root of two), in which a
rotation is an orthogonal 6 x 6 matrix and the elastic tensor an ordinary symmetric one.
"""

from collections.abc import Callable

import numpy as np
import spglib
from ase import Atoms

from esen_flows.errors import EsenFlowsError, StructureError
from esen_flows.forcefield.contract import ForceField
from esen_flows.physics.relax import relax_many
from esen_flows.physics.relax_start import deformed
from esen_flows.schemas.elastic import ElasticOutput, StrainProtocol, StrainsOutput
from esen_flows.units import EV_PER_ANGSTROM3_TO_GPA

CONFIDENCE = 0.95
_PAIRS = ((0, 0), (1, 1), (2, 2), (1, 2), (0, 2), (0, 1))
_MANDEL = np.array([1.0, 1.0, 1.0, 2**0.5, 2**0.5, 2**0.5])
_U_PER_ANGSTROM3_TO_KG_PER_M3 = 1660.53906892
_RANK_TOLERANCE = 1e-6


def strained_stresses(
    atoms: Atoms,
    force_field: ForceField,
    protocol: StrainProtocol,
    progress: Callable[[int, int], None] | None = None,
) -> StrainsOutput:
    """Stresses of a relaxed crystal under the strains that its symmetry leaves necessary, with relaxed positions.

    Parameters
    ----------
    atoms
        Relaxed crystal.
    force_field
        Force field.
    protocol
        Strains, and the relaxation of positions.
    progress
        Called with the number of strained cells that are done, and of all.

    Returns
    -------
    StrainsOutput
        Strains and stresses, point group and density.

    Raises
    ------
    StructureError
        The symmetry of the crystal is not found.
    NotConvergedError, EvaluationError, InsufficientMemoryError
        The positions in a strained cell do not relax, or the force field fails.
    """
    rotations = point_group(atoms, protocol.symprec_angstrom)
    directions = needed_directions(rotations)
    strains = np.zeros((1 + 2 * len(protocol.magnitudes) * len(directions), 6))
    row = 1
    for direction in directions:
        for magnitude in protocol.magnitudes:
            strains[row : row + 2, direction] = magnitude, -magnitude
            row += 2
    cells = [deformed(atoms, np.eye(3) + _tensor(strain)) for strain in strains]
    stresses = np.zeros_like(strains)
    for done, (index, outcome) in enumerate(relax_many(cells, force_field, protocol.relax), start=1):
        if isinstance(outcome, EsenFlowsError):
            raise outcome
        stresses[index] = [outcome.stress_ev_per_angstrom3[pair] for pair in _PAIRS]
        if progress is not None:
            progress(done, len(cells))
    density = atoms.get_masses().sum() / atoms.get_volume() * _U_PER_ANGSTROM3_TO_KG_PER_M3
    return StrainsOutput(
        strains=strains, stresses_ev_per_angstrom3=stresses, rotations=rotations, density_kg_per_m3=float(density)
    )


def point_group(atoms: Atoms, symprec_angstrom: float) -> np.ndarray:
    """Rotations and mirror operations of the point group of a crystal.

    Parameters
    ----------
    atoms
        The crystal.
    symprec_angstrom
        Tolerance of spglib in Angstrom.

    Returns
    -------
    np.ndarray
        (m, 3, 3) Cartesian orthogonal matrices.

    Raises
    ------
    StructureError
        Spglib finds no space group.
    """
    cell = atoms.cell.array
    found = spglib.get_symmetry((cell, atoms.get_scaled_positions(), atoms.numbers), symprec=symprec_angstrom)
    if found is None:
        raise StructureError(f"spglib finds no symmetry of {atoms.get_chemical_formula()} within {symprec_angstrom} A")
    rotations = np.unique(found["rotations"], axis=0)
    cartesian = np.einsum("ia,mab,bj->mij", cell.T, rotations, np.linalg.inv(cell.T))
    left, _, right = np.linalg.svd(cartesian)  # the nearest orthogonal matrices, for cells rounded as in files
    return np.asarray(left @ right)


def invariant_tensors(rotations: np.ndarray) -> np.ndarray:
    """A basis of the elastic tensors that a point group leaves unchanged.

    Parameters
    ----------
    rotations
        (m, 3, 3) Cartesian orthogonal matrices of a group.

    Returns
    -------
    np.ndarray
        (n, 6, 6) orthonormal symmetric matrices in Mandel's notation; n is 3 for cubic and 21 for triclinic crystals.
    """
    first, second = np.array(_PAIRS).T
    turned = np.einsum("mia,mjb->mijab", rotations, rotations)
    both = (turned + turned.swapaxes(3, 4)) / 2.0
    matrices = both[:, first, second][:, :, first, second] * _MANDEL[:, None] * _MANDEL[None, :]
    upper = np.triu_indices(6)
    basis = np.zeros((21, 6, 6))
    basis[np.arange(21), upper[0], upper[1]] = np.where(upper[0] == upper[1], 1.0, 0.5**0.5)
    basis = np.maximum(basis, basis.swapaxes(1, 2))
    averaged = np.einsum("mia,nab,mjb->nij", matrices, basis, matrices) / len(matrices)
    projector = np.einsum("nij,kij->nk", basis, averaged)
    values, vectors = np.linalg.eigh((projector + projector.T) / 2.0)
    return np.einsum("nk,nij->kij", vectors[:, values > 0.5], basis)


def needed_directions(rotations: np.ndarray) -> list[int]:
    """The fewest first strains in Voigt order whose stresses determine an elastic tensor.

    Parameters
    ----------
    rotations
        (m, 3, 3) Cartesian orthogonal matrices of the point group.

    Returns
    -------
    list[int]
        Numbers of the strains: 0 (xx) and 3 (yz) for a cubic crystal along the axes.
    """
    tensors = invariant_tensors(rotations)
    chosen: list[int] = []
    rank = 0
    for direction in range(6):
        stresses = tensors[:, :, [*chosen, direction]].reshape(len(tensors), -1)
        found = int(np.linalg.matrix_rank(stresses, tol=_RANK_TOLERANCE))
        if found > rank:
            chosen.append(direction)
            rank = found
    return chosen


def elastic_tensor(strained: StrainsOutput) -> ElasticOutput:
    """Fit an elastic tensor of the crystal's symmetry to strains and stresses.

    The stress is fitted by least squares as the remaining stress, the linear term, and a quadratic term for each
    direction.

    Parameters
    ----------
    strained
        Strains and stresses.

    Returns
    -------
    ElasticOutput
        Tensor, moduli and velocities, with intervals from the residuals and Student's distribution.

    Examples
    --------
    >>> import numpy as np
    >>> cubic = np.diag([40.0] * 3 + [30.0] * 3) + np.pad(np.full((3, 3), 60.0), (0, 3))  # C11 100, C12 60, C44 30 GPa
    >>> from ase.build import bulk
    >>> strains = np.zeros((9, 6))
    >>> strains[[1, 2, 3, 4], 0] = strains[[5, 6, 7, 8], 3] = 0.01, -0.01, 0.005, -0.005
    >>> exact = StrainsOutput(strains=strains, stresses_ev_per_angstrom3=strains @ cubic / EV_PER_ANGSTROM3_TO_GPA,
    ...                       rotations=point_group(bulk("Cu"), 0.01), density_kg_per_m3=9000.0)
    >>> print(f"{elastic_tensor(exact).bulk_modulus_gpa:.4f} GPa")
    73.3333 GPa
    """
    from scipy.stats import t as student

    tensors = invariant_tensors(strained.rotations)
    design = _design(strained.strains / _MANDEL[None, :], tensors)
    stresses = (strained.stresses_ev_per_angstrom3 * EV_PER_ANGSTROM3_TO_GPA * _MANDEL[None, :]).reshape(-1)
    found, *_ = np.linalg.lstsq(design, stresses, rcond=None)
    residuals = stresses - design @ found
    freedom = max(len(stresses) - np.linalg.matrix_rank(design), 1)
    covariance = (residuals @ residuals / freedom * np.linalg.pinv(design.T @ design))[: len(tensors), : len(tensors)]
    quantile = float(student.ppf(0.5 + CONFIDENCE / 2.0, freedom))

    def width(gradient: np.ndarray) -> float:
        return quantile * float(np.sqrt(max(gradient @ covariance @ gradient, 0.0)))

    coefficients, scale = found[: len(tensors)], _MANDEL[:, None] * _MANDEL[None, :]
    voigt = np.einsum("n,nij->ij", coefficients, tensors) / scale
    spread = np.array([[width(tensors[:, i, j] / scale[i, j]) for j in range(6)] for i in range(6)])
    gradients = _gradients(coefficients, tensors)
    moduli = polycrystal(voigt)
    eigenvalues = np.linalg.eigvalsh(voigt * scale)
    bulk, shear, density = moduli["bulk_modulus_gpa"], moduli["shear_modulus_gpa"], strained.density_kg_per_m3
    sound = bool(eigenvalues[0] > 0.0)
    return ElasticOutput(
        elastic_tensor_gpa=voigt,
        interval_gpa=spread,
        independent=len(tensors),
        eigenvalues_gpa=eigenvalues,
        stable=sound,
        **moduli,
        bulk_modulus_interval_gpa=width(gradients["bulk_modulus_gpa"]),
        shear_modulus_interval_gpa=width(gradients["shear_modulus_gpa"]),
        longitudinal_velocity_m_per_s=float(np.sqrt(1e9 * (bulk + 4.0 / 3.0 * shear) / density)) if sound else None,
        transverse_velocity_m_per_s=float(np.sqrt(1e9 * shear / density)) if sound else None,
        residual_gpa=float(np.sqrt(np.mean(residuals**2))),
    )


def polycrystal(elastic_tensor_gpa: np.ndarray) -> dict[str, float]:
    """Bulk and shear moduli of a polycrystal by Voigt, Reuss and Hill (R. Hill, Proc. Phys. Soc. A 65, 349 (1952)).

    Parameters
    ----------
    elastic_tensor_gpa
        (6, 6) elastic constants in GPa in Voigt notation.

    Returns
    -------
    dict[str, float]
        Moduli in GPa by the names of ElasticOutput.
    """
    c, s = elastic_tensor_gpa, np.linalg.inv(elastic_tensor_gpa)
    found: dict[str, float] = {}
    c_diagonal, c_mixed, c_shear = _sums(c)
    s_diagonal, s_mixed, s_shear = _sums(s)
    found["bulk_modulus_voigt_gpa"] = (c_diagonal + 2.0 * c_mixed) / 9.0
    found["bulk_modulus_reuss_gpa"] = 1.0 / (s_diagonal + 2.0 * s_mixed)
    found["shear_modulus_voigt_gpa"] = (c_diagonal - c_mixed + 3.0 * c_shear) / 15.0
    found["shear_modulus_reuss_gpa"] = 15.0 / (4.0 * (s_diagonal - s_mixed) + 3.0 * s_shear)
    for name in ("bulk", "shear"):
        pair = (found[f"{name}_modulus_voigt_gpa"], found[f"{name}_modulus_reuss_gpa"])
        found[f"{name}_modulus_gpa"] = sum(pair) / 2.0
    return found


def _sums(m: np.ndarray) -> tuple[float, float, float]:
    """Sums of m11 m22 m33, of m12 m13 m23 and of m44 m55 m66."""
    return float(np.trace(m[:3, :3])), float(m[0, 1] + m[0, 2] + m[1, 2]), float(np.trace(m[3:, 3:]))


def _design(strains: np.ndarray, tensors: np.ndarray) -> np.ndarray:
    """Matrix that turns coefficients of tensors, the remaining stress and quadratic terms into stresses."""
    count = len(strains)
    linear = np.einsum("nij,sj->sin", tensors, strains).reshape(6 * count, -1)
    identity = np.tile(np.eye(6), (count, 1))
    squares = [strains[:, direction] ** 2 for direction in range(6) if strains[:, direction].any()]
    quadratic = [square[:, None, None] * np.eye(6) for square in squares]
    return np.hstack([linear, identity, *(part.reshape(6 * count, 6) for part in quadratic)])


def _gradients(coefficients: np.ndarray, tensors: np.ndarray) -> dict[str, np.ndarray]:
    """Derivatives of the moduli with respect to the coefficients of the tensors, by central differences."""
    scale = _MANDEL[:, None] * _MANDEL[None, :]
    step = 1e-4 * float(np.abs(coefficients).max())
    columns = []
    for change in step * np.eye(len(coefficients)):
        up, down = (polycrystal(np.einsum("n,nij->ij", coefficients + s * change, tensors) / scale) for s in (1, -1))
        columns.append({name: (up[name] - down[name]) / (2.0 * step) for name in up})
    return {name: np.array([column[name] for column in columns]) for name in columns[0]}


def _tensor(strain: np.ndarray) -> np.ndarray:
    """Strain tensor from Voigt's six components, whose shears are angles."""
    xx, yy, zz, yz, xz, xy = strain
    return np.array([[xx, xy / 2, xz / 2], [xy / 2, yy, yz / 2], [xz / 2, yz / 2, zz]])
