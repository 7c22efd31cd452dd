"""Tests of force fields: the contract as a function, for our force fields and for those of other packages.

Every check raises AssertionError with the measured number and the tolerance.
"""

import json
from collections.abc import Collection, Iterator, Sequence
from pathlib import Path

import numpy as np
import torch
from ase import Atoms
from ase.build import bulk
from ase.data import chemical_symbols, covalent_radii
from safetensors.torch import load_file

from esen_flows.errors import ModelError, NotDifferentiableError
from esen_flows.forcefield.checkpoint import Checkpoint
from esen_flows.forcefield.contract import Evaluation, ForceField
from esen_flows.forcefield.network import NetworkForceField
from esen_flows.network.esen.published import build
from esen_flows.physics.conservation.derivatives import gradient_error, hessian_errors, strain_error
from esen_flows.physics.conservation.symmetry import batch_differences, image_differences, neighbor_differences
from esen_flows.schemas.declarations import Dtype

# Names of the checks that compare with finite differences.
_FORCES, _STRESS = "forces are the gradient", "stress is the strain derivative"
_HESSIAN = "Hessian is the derivative of the forces"
_DERIVATIVES = (_FORCES, _STRESS, _HESSIAN)


def load_fixture(folder: str | Path, name: str, dtype: Dtype = "float64") -> NetworkForceField:
    """Load a force field in network units (no normaliser, no element references) from numerical fixtures.

    Parameters
    ----------
    folder
        Folder with configs.json ({name: {backbone: {...}}}) and <name>.weights.safetensors with published names.
    name
        Name of the configuration.
    dtype
        Precision of the arithmetic.

    Returns
    -------
    NetworkForceField
        Force field whose energies and forces are those of the bare network.

    Raises
    ------
    ModelError
        The name is unknown, or weights and configuration do not fit together.
    """
    folder = Path(folder)
    configs = json.loads((folder / "configs.json").read_text())
    if name not in configs:
        raise ModelError(f"no fixture {name!r} in {folder}; there are {', '.join(sorted(configs))}")
    options = {"max_neighbors": None, **configs[name]["backbone"]}
    network = build(load_file(folder / f"{name}.weights.safetensors"), options)
    elements = tuple(range(1, network.config.max_num_elements))
    checkpoint = Checkpoint(network, 1.0, {}, elements, model_key=f"fixture {name}")
    return NetworkForceField(checkpoint, label=name, dtype=dtype)


def sample_structures(elements: Collection[int] | None) -> list[Atoms]:
    """Small rattled crystals for `check_force_field`, of elements that a force field knows.

    Parameters
    ----------
    elements
        Atomic numbers; None: any.

    Returns
    -------
    list[Atoms]
        Two crystals of 8 and 4 atoms where silicon, or sodium and chlorine, are known; otherwise a face-centred cubic
        crystal of the first element.
    """
    known = frozenset(range(1, 119)) if elements is None else frozenset(elements)
    crystals = (bulk("Si", cubic=True), bulk("NaCl", "rocksalt", a=5.6).repeat((2, 1, 1)))
    found = [atoms for atoms in crystals if set(atoms.numbers.tolist()) <= known]
    if not found:
        number = min(known)
        spacing = 2.0**0.5 * 2.0 * covalent_radii[number]  # neighbours at the sum of their radii
        found = [bulk(chemical_symbols[number], "fcc", a=spacing, cubic=True)]
    for seed, atoms in enumerate(found):
        atoms.rattle(0.08, seed=seed)
    return found


def check_force_field(
    force_field: ForceField, structures: Sequence[Atoms], *, tolerance: float | None = None, seed: int = 0
) -> dict[str, float]:
    """Check the declared properties of a force field, on structures that it covers.

    Always checked: shapes, finite values, invariance under translation, permutation and choice of periodic images,
    equal results in a batch and alone, and unchanged globals of torch. Checked where declared: rotations, mirror
    images, forces and stress as derivatives of the energy, and the Hessian as derivative of the forces. A force field
    that is not smooth is differentiated with smaller steps, because its energy may jump inside of a step.

    Parameters
    ----------
    force_field
        Force field to check.
    structures
        At least one periodic structure; the atoms should not be at symmetric positions.
    tolerance
        Largest deviation relative to energy per atom, force or stress; default: 1e-9 (float64) or 2e-4 (float32).
    seed
        Seed of the random displacements, rotations and directions.

    Returns
    -------
    dict[str, float]
        Largest relative deviation of each check.

    Raises
    ------
    AssertionError
        A declared property does not hold.

    Examples
    --------
    >>> from ase.build import bulk
    >>> from esen_flows import load_force_field
    >>> from esen_flows.testing import check_force_field
    >>> copper = bulk("Cu", cubic=True)
    >>> copper.rattle(0.05, seed=1)
    >>> deviations = check_force_field(load_force_field("emt"), [copper])
    >>> deviations["forces are the gradient"] < 1e-6
    True
    """
    declared = force_field.declaration
    limits = dict.fromkeys(_DERIVATIVES, 1e-6)
    if declared.equivariance != "O3":
        limits["inversion"] = np.inf
    if declared.equivariance == "approximate":
        limits["rotation"] = np.inf
    tolerance = tolerance or (1e-9 if declared.dtype == "float64" else 2e-4)
    before = _torch_globals()
    deviations: dict[str, float] = {}
    for name, value in _deviations(force_field, structures, np.random.default_rng(seed)):
        limit = limits.get(name, tolerance)
        assert value <= limit, f"{force_field.label}: {name} deviates by {value:.3g}, allowed {limit:.3g}"
        deviations[name] = max(deviations.get(name, 0.0), value)
    after = _torch_globals()
    assert after == before, f"torch globals changed from {before} to {after}"
    return deviations


def _torch_globals() -> tuple[torch.dtype, bool, int]:
    return torch.get_default_dtype(), torch.is_grad_enabled(), torch.get_num_threads()


def _deviations(
    force_field: ForceField, structures: Sequence[Atoms], random: np.random.Generator
) -> Iterator[tuple[str, float]]:
    """Names of checks and their deviations."""
    declared = force_field.declaration
    shorter = 1.0 if declared.smooth else 0.01
    for deviation in batch_differences(force_field, structures):
        yield "batch", deviation
    for number in neighbor_differences(force_field, structures, np.random.default_rng(0)) or ():
        yield "neighbours in a batch", float(number)
    for atoms in structures:
        (alone,) = force_field.evaluate(atoms)
        _check_shapes(atoms, alone)
        yield from image_differences(force_field, atoms, alone, random).items()
        if declared.differentiable:
            error, asymmetry = hessian_errors(force_field, atoms, random, 5e-4 * shorter)
            yield "Hessian is symmetric", asymmetry
            if declared.dtype == "float64":
                yield _HESSIAN, error
        else:
            _check_refusal(force_field, atoms)
        if declared.conservative and declared.dtype == "float64":
            direction = random.normal(size=(1, len(atoms), 3))
            direction /= np.linalg.norm(direction)
            yield _FORCES, gradient_error(force_field, atoms, alone, direction, 2e-3 * shorter)
            if np.isfinite(alone.stress).all():
                yield _STRESS, strain_error(force_field, atoms, alone, random, 5e-4 * shorter)


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


def _check_refusal(force_field: ForceField, atoms: Atoms) -> None:
    try:
        force_field.hessian_vector_products(atoms, np.zeros((1, len(atoms), 3)))
    except NotDifferentiableError:
        return
    raise AssertionError(f"{force_field.label} declares no exact second derivatives, but gives some")
