"""The contract as a test suite, for our force fields and for yours.

    from esen_flows.testing import check_force_field
    check_force_field(my_force_field, [structure, another])

Every check raises AssertionError with the measured number and the tolerance.
"""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from ase import Atoms
from safetensors.torch import load_file

from esen_flows.errors import ModelError, NotDifferentiableError
from esen_flows.forcefield.checkpoint import Checkpoint
from esen_flows.forcefield.contract import Evaluation, ForceField
from esen_flows.forcefield.esen import EsenForceField
from esen_flows.forcefield.published import build
from esen_flows.forcefield.symmetrized import inverted


def load_fixture(folder: str | Path, name: str, dtype: Literal["float32", "float64"] = "float64") -> EsenForceField:
    """A force field in network units (no normaliser, no element references) from a folder of numerical fixtures.

    Parameters
    ----------
    folder
        holds configs.json ({name: {backbone: {...}}}) and <name>.weights.safetensors with published key names.
    name
        configuration.
    dtype
        of the arithmetic.

    Raises
    ------
    ModelError
        unknown name, or weights and configuration that do not fit together.
    """
    folder = Path(folder)
    configs = json.loads((folder / "configs.json").read_text())
    if name not in configs:
        raise ModelError(f"no fixture {name!r} in {folder}; there are {', '.join(sorted(configs))}")
    options = {"max_neighbors": None, **configs[name]["backbone"]}
    network = build(load_file(folder / f"{name}.weights.safetensors"), options)
    elements = tuple(range(1, network.config.max_num_elements))
    checkpoint = Checkpoint(network, 1.0, {}, elements, model_key=f"fixture {name}")
    return EsenForceField(checkpoint, label=name, dtype=dtype)


def check_force_field(
    force_field: ForceField, structures: Sequence[Atoms], *, tolerance: float | None = None, seed: int = 0
) -> dict[str, float]:
    """Check what a force field declares, on structures that it covers.

    Always: shapes, finite values, invariance under translation, permutation and change of image; batch = single; no
    torch global left behind. As declared: rotation, mirror images, forces and stress as derivatives of the energy, the
    Hessian as derivative of the forces (with smaller steps for a force field that is not smooth, whose energy may jump
    inside of a step).

    Parameters
    ----------
    structures
        at least one periodic structure; atoms should not sit at symmetric positions.
    tolerance
        relative to the largest energy per atom, force or stress; default 1e-9 (float64) or 2e-4 (float32).

    Returns
    -------
    dict[str, float]
        The largest relative deviation of each check.
    """
    declared = force_field.declaration
    tolerance = tolerance or (1e-9 if declared.dtype == "float64" else 2e-4)
    random = np.random.default_rng(seed)
    torch_before = (torch.get_default_dtype(), torch.is_grad_enabled(), torch.get_num_threads())
    deviations: dict[str, float] = {}

    def record(name: str, value: float) -> None:
        deviations[name] = max(deviations.get(name, 0.0), value)

    batch = force_field.evaluate(structures)
    for atoms, result in zip(structures, batch, strict=True):
        _check_shapes(atoms, result)
        (alone,) = force_field.evaluate([atoms])
        record("batch", _difference(result, alone))
        for name, changed, back in _symmetric_images(atoms, declared.equivariance, random):
            (image,) = force_field.evaluate([changed])
            record(name, _difference(back(image), alone))
        shorter = 1.0 if declared.smooth else 0.01
        if declared.differentiable:
            error, broken = _hessian_errors(force_field, atoms, random, 5e-4 * shorter)
            record("Hessian is symmetric", broken)
            if declared.dtype == "float64":
                record("Hessian is the derivative of the forces", error)
        else:
            _check_refusal(force_field, atoms)
        if declared.conservative and declared.dtype == "float64":
            record("forces are the gradient", _gradient_error(force_field, atoms, alone, random, 2e-3 * shorter))
            if np.isfinite(alone.stress).all():
                error = _strain_error(force_field, atoms, alone, random, 5e-4 * shorter)
                record("stress is the strain derivative", error)
    after = (torch.get_default_dtype(), torch.is_grad_enabled(), torch.get_num_threads())
    assert after == torch_before, f"torch globals changed from {torch_before} to {after}"
    derivatives = (
        "forces are the gradient",
        "stress is the strain derivative",
        "Hessian is the derivative of the forces",
    )
    limits = dict.fromkeys(derivatives, 1e-6)
    if declared.equivariance == "approximate":
        limits |= {"rotation": np.inf, "inversion": np.inf}
    if declared.equivariance == "SO3":
        limits |= {"inversion": np.inf}
    for name, value in deviations.items():
        limit = limits.get(name, tolerance)
        assert value <= limit, f"{force_field.label}: {name} deviates by {value:.3g}, allowed {limit:.3g}"
    return deviations


def _check_shapes(atoms: Atoms, result: Evaluation) -> None:
    n = len(atoms)
    assert result.forces.shape == (n, 3), f"forces have shape {result.forces.shape}, expected {(n, 3)}"
    assert result.stress.shape == (3, 3), f"stress has shape {result.stress.shape}, expected (3, 3)"
    assert result.forces.dtype == np.float64, f"forces have dtype {result.forces.dtype}, expected float64"
    assert np.isfinite(result.energy), f"energy is {result.energy}"
    assert np.isfinite(result.forces).all(), "forces are not finite"
    if result.energies is not None:
        total = float(result.energies.sum())
        assert abs(total - result.energy) < 1e-4 * max(1.0, n), f"per-atom energies sum to {total}, not {result.energy}"


def _difference(a: Evaluation, b: Evaluation) -> float:
    """Largest deviation, each quantity over max(1, its size); energies per atom."""
    n = len(a.forces)
    parts = [abs(a.energy - b.energy) / n / max(1.0, abs(b.energy) / n)]
    parts.append(float(np.abs(a.forces - b.forces).max()) / max(1.0, float(np.abs(b.forces).max())))
    if np.isfinite(b.stress).all():
        parts.append(float(np.abs(a.stress - b.stress).max()) / max(1.0, float(np.abs(b.stress).max())))
    return max(parts)


def _symmetric_images(atoms: Atoms, equivariance: str, random: np.random.Generator) -> list[tuple[str, Atoms, Any]]:
    """(name, transformed structure, map of its result back to the original)."""
    moved = atoms.copy()
    moved.positions += random.normal(size=3)
    order = random.permutation(len(atoms))
    inverse = np.argsort(order)
    images = atoms.copy()
    images.positions += (random.integers(-2, 3, size=(len(atoms), 3)) * atoms.pbc) @ atoms.cell.array
    rotation, turned = _rotation(random), atoms.copy()
    turned.positions = atoms.positions @ rotation.T
    turned.cell = atoms.cell.array @ rotation.T

    def restore(r: Evaluation) -> Evaluation:
        return Evaluation(r.energy, r.forces[inverse], r.stress)

    def rotate_back(r: Evaluation) -> Evaluation:
        return Evaluation(r.energy, r.forces @ rotation, rotation.T @ r.stress @ rotation)

    def same(r: Evaluation) -> Evaluation:
        return r

    def uninvert(r: Evaluation) -> Evaluation:
        return Evaluation(r.energy, -r.forces, r.stress)

    return [
        ("translation", moved, same),
        ("permutation", atoms[order], restore),
        ("periodic images", images, same),
        ("rotation", turned, rotate_back),
        ("inversion", inverted(atoms), uninvert),
    ]


def _rotation(random: np.random.Generator) -> np.ndarray:
    q, r = np.linalg.qr(random.normal(size=(3, 3)))
    q = q * np.sign(np.diag(r))
    return q * np.sign(np.linalg.det(q))


# Five-point central differences: exact to fourth order in the step.
_STENCIL = ((-2, 1 / 12), (-1, -8 / 12), (1, 8 / 12), (2, -1 / 12))


def _gradient_error(
    force_field: ForceField, atoms: Atoms, result: Evaluation, random: np.random.Generator, step: float
) -> float:
    direction = random.normal(size=(len(atoms), 3))
    direction /= np.linalg.norm(direction)
    displaced = []
    for k, _ in _STENCIL:
        displaced.append(atoms.copy())
        displaced[-1].positions += k * step * direction
    energies = [r.energy for r in force_field.evaluate(displaced)]
    slope = sum(w * e for (_, w), e in zip(_STENCIL, energies, strict=True)) / step
    return abs(-slope - float((result.forces * direction).sum())) / max(1.0, float(np.abs(result.forces).max()))


def _strain_error(
    force_field: ForceField, atoms: Atoms, result: Evaluation, random: np.random.Generator, step: float
) -> float:
    direction = random.normal(size=(3, 3))
    direction = (direction + direction.T) / np.linalg.norm(direction + direction.T)
    strained = []
    for k, _ in _STENCIL:
        deformation = np.eye(3) + k * step * direction
        strained.append(atoms.copy())
        strained[-1].set_cell(atoms.cell.array @ deformation)
        strained[-1].positions = atoms.positions @ deformation
    energies = [r.energy for r in force_field.evaluate(strained)]
    slope = sum(w * e for (_, w), e in zip(_STENCIL, energies, strict=True)) / step
    return abs(slope / atoms.get_volume() - float((result.stress * direction).sum()))


def _hessian_errors(
    force_field: ForceField, atoms: Atoms, random: np.random.Generator, step: float
) -> tuple[float, float]:
    """Deviation from differences of forces, and what is broken of permutation symmetry and of the acoustic sum rule."""
    directions = random.normal(size=(2, len(atoms), 3))
    directions /= np.linalg.norm(directions, axis=(1, 2), keepdims=True)
    products = force_field.hessian_vector_products(atoms, directions)
    assert products.shape == directions.shape, f"products have shape {products.shape}, expected {directions.shape}"
    displaced = []
    for k, _ in _STENCIL:
        displaced.append(atoms.copy())
        displaced[-1].positions += k * step * directions[0]
    forces = [r.forces for r in force_field.evaluate(displaced)]
    slope = -np.sum([w * f for (_, w), f in zip(_STENCIL, forces, strict=True)], axis=0) / step
    size = max(1.0, float(np.abs(products).max()))
    crossed = float((directions[0] * products[1]).sum() - (directions[1] * products[0]).sum())
    drift = float(np.abs(products.sum(axis=1)).max())
    return float(np.abs(slope - products[0]).max()) / size, max(abs(crossed), drift) / size


def _check_refusal(force_field: ForceField, atoms: Atoms) -> None:
    try:
        force_field.hessian_vector_products(atoms, np.zeros((1, len(atoms), 3)))
    except NotDifferentiableError:
        return
    raise AssertionError(f"{force_field.label} declares no exact second derivatives, but gives some")
