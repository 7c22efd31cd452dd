"""How unlike the atoms of its training data the atoms of a structure are to a network, by its features of them.

The features of an atom after the last layer that do not turn with the structure are compared with those of training
atoms of the same element. Thermal motion and strain move them far in some directions and hardly in others, so they are
whitened first, with their covariance within chemical systems. The extrapolation of an atom is then its distance to the
nearest of some training atoms (prototypes), in units of a distance that nearly all training atoms of its element keep
to prototypes of other structures; that of a structure is the largest one of its atoms. The alternatives that were
measured are in docs/measurements.md.
"""

from collections.abc import Callable, Sequence

import numpy as np
from ase import Atoms
from ase.data import chemical_symbols

from esen_flows.errors import InputError, ModelError
from esen_flows.forcefield.calibration import Calibration, distances_to
from esen_flows.forcefield.contract import ForceField
from esen_flows.forcefield.network import NetworkForceField

PROTOTYPES = 48  # per element; 32 are enough for esen_nano and pet_nano, 16 are not
SHRINKAGE = 0.05  # of the covariance towards a multiple of the identity; 0.01 to 0.2 do as well
FOLDS = 5  # each fifth of the structures is compared with prototypes from the others
ATOM_QUANTILE = 0.99  # of the atoms of an element, whose distance is the unit
STRUCTURE_QUANTILE = 0.99  # of the structures, whose extrapolation is the limit
MOST_ATOMS = 6000  # of an element, among which prototypes are chosen
SMALLEST_UNIT = 1e-3  # of distances of whitened features, which thermal motion makes about 1
NO_SPREAD = 1e-12  # of the features, relative to their squares: rounding
FEWEST_STRUCTURES = 100  # with fewer, the limit would be a guess


def extrapolations(
    force_field: ForceField, structures: Sequence[Atoms], calibration: Calibration | None = None
) -> list[float]:
    """How unlike the training data structures are: one pass through the network each, without derivatives.

    Parameters
    ----------
    force_field
        A network of this package. Its count of evaluations stays.
    structures
        Structures of its elements.
    calibration
        Its calibration; default: the one that it was loaded with.

    Returns
    -------
    list[float]
        The largest extrapolation among the atoms of each structure; at most `calibration.limit` is like the training
        data.

    Raises
    ------
    ModelError
        The force field has no calibration, or is not a network of this package.
    StructureError, UnknownElementError
        A structure cannot be evaluated.
    """
    calibration = calibration or force_field.calibration
    if calibration is None:
        raise ModelError(f"the domain of {force_field.label!r} is not calibrated: run esen-flows models calibrate")
    pairs = zip(structures, atom_features(force_field, structures), strict=True)
    return [float(calibration.of_atoms(atoms.numbers, features).max()) for atoms, features in pairs]


def count_outside(force_field: ForceField, structures: Sequence[Atoms], calibration: Calibration) -> int:
    """How many structures are beyond the limit of a calibration.

    Parameters
    ----------
    force_field
        A network of this package.
    structures
        Structures of any elements; one with an element that the network does not know is beyond.
    calibration
        The calibration.

    Returns
    -------
    int
        Their number.

    Raises
    ------
    StructureError
        A structure cannot be evaluated.
    """
    elements = force_field.declaration.elements
    known = [atoms for atoms in structures if elements is None or set(atoms.numbers.tolist()) <= elements]
    values = extrapolations(force_field, known, calibration)
    return len(structures) - len(known) + sum(value > calibration.limit for value in values)


def atom_features(force_field: ForceField, structures: Sequence[Atoms]) -> list[np.ndarray]:
    """Features of the atoms after the last layer that do not turn with the structure.

    Parameters
    ----------
    force_field
        A network of this package.
    structures
        Structures of its elements.

    Returns
    -------
    list[np.ndarray]
        (atoms, d) for each structure: the scalars of an eSEN, the tokens of an edge transformer.

    Raises
    ------
    ModelError
        The force field is not a network of this package.
    StructureError, UnknownElementError
        A structure cannot be evaluated.
    """
    if not isinstance(force_field, NetworkForceField):
        raise ModelError(f"{force_field.label!r} is no network of this package, and gives no features of atoms")
    found = force_field.embeddings(structures)
    return [each[:, 0] if each.ndim == 3 else each for each in found]


def calibrate(
    force_field: ForceField,
    structures: Sequence[Atoms],
    *,
    seed: int = 0,
    on_structure: Callable[[], None] = lambda: None,
) -> tuple[Calibration, list[float]]:
    """Choose prototypes among training atoms, and the limit by cross-validation.

    Structures are put into random orientations for a network whose features depend on the orientation.

    Parameters
    ----------
    force_field
        A network of this package.
    structures
        Its training structures; all are of its elements.
    seed
        Seed of the split, the orientations and the choice of prototypes.
    on_structure
        Called for each structure whose features are known.

    Returns
    -------
    Calibration
        The calibration.
    list[float]
        The extrapolation of each structure by prototypes from the folds that it is not in.

    Raises
    ------
    InputError
        There are too few structures, or too few with some element.
    ModelError
        The force field is not a network of this package.
    """
    if len(structures) < FEWEST_STRUCTURES:
        raise InputError(f"{len(structures)} structures were given; a limit needs {FEWEST_STRUCTURES}: give more data")
    rng = np.random.default_rng(seed)
    if force_field.declaration.equivariance == "approximate":
        structures = [_turned(atoms, rng) for atoms in structures]
    features: list[np.ndarray] = []
    for first in range(0, len(structures), 64):
        for of_one in atom_features(force_field, structures[first : first + 64]):
            features.append(of_one)
            on_structure()
    counts = [len(atoms) for atoms in structures]
    numbers = np.concatenate([atoms.numbers for atoms in structures])
    systems = np.array(["-".join(sorted(set(atoms.get_chemical_symbols()))) for atoms in structures])
    rows = np.concatenate(features).astype(np.float64)
    whitening = _whitening(rows, numbers, np.repeat(systems, counts))
    rows = rows @ whitening.astype(np.float32).astype(np.float64)
    folds = np.repeat(rng.permutation(len(structures)) % FOLDS, counts)
    distances = np.empty(len(rows))
    centres, prototypes, units = {}, {}, {}
    for z in np.unique(numbers).tolist():
        mine = numbers == z
        centres[z] = rows[mine].mean(axis=0).astype(np.float32)
        rows[mine] -= centres[z]
        distances[mine] = _cross_validated(rows[mine], folds[mine], z, rng)
        units[z] = float(np.quantile(distances[mine], ATOM_QUANTILE))
        if units[z] < SMALLEST_UNIT:
            raise InputError(
                f"nearly all atoms of {chemical_symbols[z]} are alike in these structures, so that no distance says "
                "what is near; add displaced and strained structures with this element"
            )
        prototypes[z] = _prototypes(rows[mine], rng)
        distances[mine] /= units[z]
    starts = np.cumsum([0, *counts[:-1]])
    of_structures = np.maximum.reduceat(distances, starts)
    limit = round(float(np.quantile(of_structures, STRUCTURE_QUANTILE)), 3)
    known = tuple(sorted(set(systems.tolist())))
    found = Calibration(force_field.key, limit, known, whitening.astype(np.float32), centres, prototypes, units)
    return found, of_structures.tolist()


def _cross_validated(rows: np.ndarray, folds: np.ndarray, number: int, rng: np.random.Generator) -> np.ndarray:
    """Distance of each atom of an element to the nearest prototype from the folds that it is not in."""
    result = np.zeros(len(rows))
    for fold in set(folds.tolist()):
        mine = folds == fold
        if mine.all():
            raise InputError(f"too few structures hold {chemical_symbols[number]}; give more of them")
        result[mine] = distances_to(_prototypes(rows[~mine], rng), rows[mine])
    return result


def _prototypes(rows: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Some of the atoms, each the one that is farthest from those before it, so that rare ones are among them."""
    points = rng.permutation(rows)[:MOST_ATOMS]
    chosen = [0]
    nearest = ((points - points[0]) ** 2).sum(axis=1)
    while len(chosen) < min(PROTOTYPES, len(points)) and nearest.max() > 0.0:
        chosen.append(int(nearest.argmax()))
        nearest = np.minimum(nearest, ((points - points[chosen[-1]]) ** 2).sum(axis=1))
    return points[chosen].astype(np.float16)


def _whitening(rows: np.ndarray, numbers: np.ndarray, systems: np.ndarray) -> np.ndarray:
    """(d, d) matrix after which features have unit covariance, over d, about the means of element and system."""
    pooled, elements = np.zeros((rows.shape[1],) * 2), np.unique(numbers)
    for z in elements:
        mine, of_mine = rows[numbers == z], systems[numbers == z]
        deviations = np.concatenate([mine[of_mine == one] - mine[of_mine == one].mean(axis=0) for one in set(of_mine)])
        pooled += deviations.T @ deviations / (len(mine) * len(elements))
    size = len(pooled)
    if np.trace(pooled) < NO_SPREAD * (rows**2).sum(axis=1).mean():
        raise InputError("the atoms of each element and system are all alike; give structures with displaced atoms")
    shrunk = (1 - SHRINKAGE) * pooled + SHRINKAGE * np.trace(pooled) / size * np.eye(size)
    return np.linalg.cholesky(np.linalg.inv(shrunk) / size)


def _turned(atoms: Atoms, rng: np.random.Generator) -> Atoms:
    """The structure in a random orientation, as its mirror image half of the time."""
    q, r = np.linalg.qr(rng.normal(size=(3, 3)))
    matrix = q * np.sign(np.diag(r))  # uniform over O(3)
    return Atoms(atoms.numbers, positions=atoms.positions @ matrix.T, cell=atoms.cell[:] @ matrix.T, pbc=atoms.pbc)
