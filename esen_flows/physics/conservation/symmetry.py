"""How far results change under operations that change no physics, or with the structures in the same batch."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from ase import Atoms

from esen_flows.data.batch_state import BatchState
from esen_flows.data.ragged import to_host
from esen_flows.forcefield.contract import Evaluation, ForceField
from esen_flows.forcefield.symmetry_images import inverted


def difference(a: Evaluation, b: Evaluation) -> float:
    """Largest deviation of energy per atom, forces and stress, relative to their sizes or to 1, whichever is larger.

    Parameters
    ----------
    a, b
        Results for the same structure; the sizes are those of `b`.

    Returns
    -------
    float
        The largest of the three deviations; without the stress where there is none.
    """
    n = len(a.forces)
    parts = [abs(a.energy - b.energy) / n / max(1.0, abs(b.energy) / n)]
    parts.append(float(np.abs(a.forces - b.forces).max()) / max(1.0, float(np.abs(b.forces).max())))
    if np.isfinite(b.stress).all():
        parts.append(float(np.abs(a.stress - b.stress).max()) / max(1.0, float(np.abs(b.stress).max())))
    return max(parts)


@dataclass(frozen=True)
class Image:
    """A structure after an operation that changes no physics, and how its results are mapped back.

    Attributes
    ----------
    name
        Name of the operation.
    atoms
        The structure after it.
    order
        Indices that bring its atoms back into their order.
    turn
        (3, 3) matrix that turns row vectors back.
    """

    name: str
    atoms: Atoms
    order: np.ndarray | slice
    turn: np.ndarray

    def back(self, result: Evaluation) -> Evaluation:
        """A result for the image as one for the original.

        Parameters
        ----------
        result
            Result for `atoms`.

        Returns
        -------
        Evaluation
            Energy, forces and stress of the original.
        """
        return Evaluation(result.energy, result.forces[self.order] @ self.turn, self.turn.T @ result.stress @ self.turn)


def symmetric_images(atoms: Atoms, random: np.random.Generator) -> list[Image]:
    """A structure moved, reordered, with other periodic images and lattice vectors, rotated, and inverted.

    Parameters
    ----------
    atoms
        The structure.
    random
        Source of the operations.

    Returns
    -------
    list[Image]
        One image for each operation. Structures with three lattice vectors have a left-handed cell too, and crystals
        an oblique one of the same lattice.
    """
    moved = atoms.copy()
    moved.positions += random.normal(size=3)
    order = random.permutation(len(atoms))
    images = atoms.copy()
    images.positions += (random.integers(-2, 3, size=(len(atoms), 3)) * atoms.pbc) @ atoms.cell.array
    same, identity = slice(None), np.eye(3)
    found = [
        Image("translation", moved, same, identity),
        Image("permutation", atoms[order], np.argsort(order), identity),
        Image("periodic images", images, same, identity),
        rotated(atoms, random),
        Image("inversion", inverted(atoms), same, -identity),
    ]
    if atoms.cell.rank == 3:
        exchange = [1, 0, 2] if atoms.cell.handedness > 0 else [0, 1, 2]
        left = atoms.copy()
        left.set_cell(atoms.cell.array[exchange])
        left.pbc = atoms.pbc[exchange]
        found.append(Image("left-handed cell", left, same, identity))
    if atoms.pbc.all():
        oblique = atoms.copy()
        oblique.set_cell(np.array([[1, 0, 0], [0, 1, 0], [1, -1, 1]]) @ atoms.cell.array)
        found.append(Image("oblique cell", oblique, same, identity))
    return found


def rotated(atoms: Atoms, random: np.random.Generator) -> Image:
    """A structure after a random proper rotation.

    Parameters
    ----------
    atoms
        The structure.
    random
        Source of the rotation.

    Returns
    -------
    Image
        The rotated structure.
    """
    q, r = np.linalg.qr(random.normal(size=(3, 3)))
    q = q * np.sign(np.diag(r))
    rotation = q * np.sign(np.linalg.det(q))
    turned = atoms.copy()
    turned.positions = atoms.positions @ rotation.T
    turned.cell = atoms.cell.array @ rotation.T
    return Image("rotation", turned, slice(None), rotation)


def image_differences(
    force_field: ForceField, atoms: Atoms, result: Evaluation, random: np.random.Generator
) -> dict[str, float]:
    """Deviations of the results for the symmetric images of a structure.

    Parameters
    ----------
    force_field
        Force field to measure.
    atoms
        The structure.
    result
        Its result.
    random
        Source of the operations.

    Returns
    -------
    dict[str, float]
        `difference` by the name of the operation.
    """
    images = symmetric_images(atoms, random)
    results = [force_field.evaluate([image.atoms])[0] for image in images]
    return {image.name: difference(image.back(one), result) for image, one in zip(images, results, strict=True)}


def batch_differences(force_field: ForceField, structures: Sequence[Atoms]) -> list[float]:
    """Deviations of results of structures that are evaluated together from those of each alone.

    Parameters
    ----------
    force_field
        Force field to measure.
    structures
        Structures of any sizes and periodicities.

    Returns
    -------
    list[float]
        `difference` for each structure.
    """
    together = force_field.evaluate(structures)
    alone = [force_field.evaluate(atoms)[0] for atoms in structures]  # not in a list
    return [difference(a, b) for a, b in zip(together, alone, strict=True)]


def neighbor_differences(
    force_field: ForceField, structures: Sequence[Atoms], random: np.random.Generator
) -> list[int] | None:
    """Deviations of the numbers of neighbours in a batch that has moved from those of each structure alone.

    The batch is searched with a skin and then moved by about 0.1 Angstrom, as relaxations and molecular dynamics do, so
    that stale or wrapped neighbours count too. Each structure alone is searched where it is then.

    Parameters
    ----------
    force_field
        Force field whose neighbour tables are compared.
    structures
        Structures of any sizes and periodicities.
    random
        Source of the displacements.

    Returns
    -------
    list[int] | None
        For each structure the largest difference of the number of neighbours of an atom within the cutoff, before any
        limit on them; None for a force field without tables of this package.
    """
    state = BatchState.of(structures, force_field.device)
    force_field.find_neighbors(state)
    if state.tables is None:
        return None
    moves = random.uniform(-0.1, 0.1, size=state.positions.shape)
    moved = state.moved(state.positions + torch.from_numpy(moves).to(state.device))
    alone = [_neighbors(force_field, BatchState.of([one], force_field.device, once=True)) for one in moved.structures()]
    together = np.split(_neighbors(force_field, moved), np.cumsum([len(one) for one in structures])[:-1])
    return [int(np.abs(a - b).max()) for a, b in zip(together, alone, strict=True)]


def _neighbors(force_field: ForceField, state: BatchState) -> np.ndarray:
    """(atoms,) number of neighbours of each atom within the cutoff."""
    force_field.find_neighbors(state)
    assert state.tables is not None
    edges = state.edges(state.tables.cutoff, reverse=state.tables.reverse is not None)
    return to_host(torch.bincount(edges.target, minlength=state.atoms.total))


def rotation_force_error(
    force_field: ForceField, atoms: Atoms, result: Evaluation, random: np.random.Generator, rotations: int
) -> float:
    """Mean absolute deviation of the force components over random rotations, in eV/Angstrom.

    Parameters
    ----------
    force_field
        Force field to measure.
    atoms
        The structure.
    result
        Its result.
    random
        Source of the rotations.
    rotations
        Number of rotations.

    Returns
    -------
    float
        The mean over rotations, atoms and components.
    """
    images = [rotated(atoms, random) for _ in range(rotations)]
    results = force_field.evaluate([image.atoms for image in images])
    turned = [image.back(one).forces for image, one in zip(images, results, strict=True)]
    return float(np.abs(np.array(turned) - result.forces).mean())


def residuals(force_field: ForceField, crystal: Atoms) -> tuple[float, float]:
    """Forces and anisotropic stress of a perfect cubic crystal, which its symmetry forbids.

    Parameters
    ----------
    force_field
        Force field to measure.
    crystal
        Cubic crystal whose atoms have no free coordinates.

    Returns
    -------
    tuple[float, float]
        Largest component of the forces in eV/Angstrom, and of the stress without its isotropic part in eV/Angstrom^3;
        NaN for a force field without stress.
    """
    (result,) = force_field.evaluate(crystal)
    anisotropic = result.stress - np.eye(3) * np.trace(result.stress) / 3
    return float(np.abs(result.forces).max()), float(np.abs(anisotropic).max())
