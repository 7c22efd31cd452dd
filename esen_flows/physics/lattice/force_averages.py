"""Forces of displaced supercells averaged over equivalent supercells or over random orientations.

For a force field that is exact under rotations both averages change nothing. For one that learned them, they remove
what force constants would otherwise inherit from the orientation of the crystal.

"equivalents": each displaced supercell x is evaluated once for every different image g x under the space group of the
perfect supercell (translations apart, under which force fields are exact). Its forces are the mean over all operations
g of the forces on g x, turned back by g. They are therefore exactly equivariant under the space group. phonopy and
phono3py evaluate one representative and copy its forces to the others: from these forces they get what all of them
would give, averaged over the operations that leave a displacement as it is (its stabiliser).

"rotations": every displaced supercell is evaluated in k orientations, turned by random rotations, the same for all
supercells, and so is the perfect supercell: the part of its forces that the space group forbids is subtracted, because
it would be divided by the displacement. Each orientation gives force constants of its own. Their mean is used, and
their spread is an error bar.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from ase import Atoms

from esen_flows.forcefield.rotations import random_rotations
from esen_flows.physics.lattice.datasets import Dataset, DisplacementPlan, DisplacementPlans, zeros_beyond_cutoff
from esen_flows.physics.lattice.supercell_symmetry import SupercellSymmetry, supercell_symmetry
from esen_flows.schemas.lattice_documents import ForcesOutput
from esen_flows.schemas.protocols import DisplacementProtocol

# Positions of images that differ by less are one structure.
SAME_ANGSTROM = 1e-6


@dataclass(frozen=True)
class Averaged:
    """Forces of a plan.

    Attributes
    ----------
    forces
        (n, atoms, 3) mean forces in eV/Angstrom.
    frames
        (k, n, atoms, 3) forces in each orientation, turned back; None without random orientations.
    spread
        Root mean square deviation of a force component from its mean, in eV/Angstrom.
    """

    forces: np.ndarray
    frames: np.ndarray | None
    spread: float


class EquivalentImages:
    """The images of displaced supercells under the space group.

    Parameters
    ----------
    plan
        The displaced supercells.
    symprec_angstrom
        Distance tolerance of the space group in Angstrom.
    """

    def __init__(self, plan: DisplacementPlan, symprec_angstrom: float) -> None:
        self._symmetry = supercell_symmetry(plan.perfect, symprec_angstrom)
        self.supercells: list[Atoms] = []
        self._of: list[tuple[np.ndarray, np.ndarray]] = []  # of each supercell, image and permutation of each operation
        for displaced in plan.supercells:
            self._add(plan.perfect, displaced)

    def _add(self, perfect: Atoms, displaced: Atoms) -> None:
        displacements = displaced.positions - perfect.positions
        first = int(np.flatnonzero(np.abs(displacements).max(axis=1) > SAME_ANGSTROM)[0])
        permutations = _anchored(self._symmetry, first)
        seen: dict[bytes, int] = {}
        images = np.empty(len(permutations), dtype=int)
        for number, (rotation, permutation) in enumerate(zip(self._symmetry.rotations, permutations, strict=True)):
            moved = np.empty_like(displacements)
            moved[permutation] = displacements @ rotation.T
            name = np.rint(moved / SAME_ANGSTROM).astype(np.int64).tobytes()
            if name not in seen:
                seen[name] = len(self.supercells)
                image = perfect.copy()
                image.positions += moved
                self.supercells.append(image)
            images[number] = seen[name]
        self._of.append((images, permutations))

    def average(self, forces: np.ndarray) -> Averaged:
        """Mean forces of the supercells from those of their images.

        Parameters
        ----------
        forces
            (images, atoms, 3) in eV/Angstrom.

        Returns
        -------
        Averaged
            The mean forces.
        """
        means, squares = [], []
        for images, permutations in self._of:
            back = np.array(
                [
                    forces[image][permutation] @ rotation
                    for image, permutation, rotation in zip(images, permutations, self._symmetry.rotations, strict=True)
                ]
            )
            means.append(back.mean(axis=0))
            squares.append(back.var(axis=0).mean())
        return Averaged(np.array(means), None, float(np.sqrt(np.mean(squares))))


class TurnedImages:
    """Displaced supercells in random orientations.

    Parameters
    ----------
    plan
        The displaced supercells.
    protocol
        Number and seed of the orientations.
    """

    def __init__(self, plan: DisplacementPlan, protocol: DisplacementProtocol) -> None:
        random = np.random.default_rng(protocol.fc_seed)
        self._rotations = random_rotations(protocol.fc_frames, random).matrices
        self._symmetry = supercell_symmetry(plan.perfect, protocol.symprec_angstrom)
        each = [plan.perfect, *plan.supercells]
        self.supercells = [_turned(atoms, rotation) for rotation in self._rotations for atoms in each]

    def average(self, forces: np.ndarray) -> Averaged:
        """Mean forces of the supercells, and those in each orientation.

        Parameters
        ----------
        forces
            (orientations * (1 + n), atoms, 3) in eV/Angstrom, the perfect supercell first in each orientation.

        Returns
        -------
        Averaged
            The mean forces.
        """
        frames = forces.reshape(len(self._rotations), -1, *forces.shape[1:]) @ self._rotations[:, None]
        forbidden = frames[:, 0] - np.array([self._symmetry.projected_forces(perfect) for perfect in frames[:, 0]])
        frames = frames[:, 1:] - forbidden[:, None]
        return Averaged(frames.mean(axis=0), frames, float(np.sqrt(frames.var(axis=0).mean())))


Evaluate = Callable[..., np.ndarray]
Images = EquivalentImages | TurnedImages


class AveragedPlans:
    """Plans with the supercells that are evaluated in the place of their own.

    Parameters
    ----------
    plans
        The displaced supercells of both orders.
    protocol
        Protocol of the displacements.

    Attributes
    ----------
    evaluated
        Plans with the supercells to evaluate; the same plans where nothing is averaged.
    """

    def __init__(self, plans: DisplacementPlans, protocol: DisplacementProtocol) -> None:
        self._images: dict[str, Images] = {}
        self._averaged: dict[str, tuple[Dataset, Averaged]] = {}
        self.evaluated = plans
        for order, plan in (("fc2", plans.fc2), ("fc3", plans.fc3)):
            if plan is None or protocol.fc_average == "none":
                continue
            images: Images
            if protocol.fc_average == "equivalents":
                images = EquivalentImages(plan, protocol.symprec_angstrom)
            else:
                images = TurnedImages(plan, protocol)
            self._images[order] = images
            expanded = replace(plan, supercells=images.supercells)
            changed = replace(self.evaluated, fc2=expanded) if order == "fc2" else replace(self.evaluated, fc3=expanded)
            self.evaluated = changed

    def forces(self, plan: DisplacementPlan, evaluate: Evaluate, report: Callable[[int], None]) -> np.ndarray:
        """Forces of the supercells of a plan.

        Parameters
        ----------
        plan
            One of the evaluated plans.
        evaluate
            Gives the forces (images, atoms, 3) of its supercells in eV/Angstrom.
        report
            Handed to `evaluate`.

        Returns
        -------
        np.ndarray
            (n, atoms, 3) mean forces in eV/Angstrom.
        """
        order, forces = "fc3" if plan is self.evaluated.fc3 else "fc2", evaluate(plan, report=report)
        if order not in self._images:
            return forces
        averaged = self._images[order].average(forces)
        self._averaged[order] = plan.dataset, averaged
        return averaged.forces

    def fields(self) -> dict[str, Any]:
        """What a document of displaced forces says of the averages.

        Returns
        -------
        dict[str, Any]
            Fields of a ForcesOutput; none where nothing is averaged.
        """
        if not self._averaged:
            return {}
        found: dict[str, Any] = {}
        for order, (dataset, averaged) in self._averaged.items():
            found[f"force_spread_{order}_ev_per_angstrom"] = averaged.spread
            if averaged.frames is not None:
                frames = np.array([zeros_beyond_cutoff(dataset, one) for one in averaged.frames])
                found[f"frame_forces_{order}"] = frames
        if "fc2" not in self._averaged:  # the single displacements of the third order serve the second one
            dataset, averaged = self._averaged["fc3"]
            found["force_spread_fc2_ev_per_angstrom"] = averaged.spread
            if averaged.frames is not None:
                found["frame_forces_fc2"] = averaged.frames[:, : len(dataset["first_atoms"])]
        return found


def without_frame(forces: ForcesOutput, number: int) -> ForcesOutput:
    """Forces that are the mean over all random orientations except one.

    Parameters
    ----------
    forces
        Forces in random orientations.
    number
        The orientation that is left out.

    Returns
    -------
    ForcesOutput
        The same displacements with other forces.
    """
    means = {
        f"forces_{order}": np.delete(frames, number, axis=0).mean(axis=0)
        for order in ("fc2", "fc3")
        if (frames := getattr(forces, f"frame_forces_{order}")) is not None
    }
    return forces.model_copy(update=means)


def jackknife_error(left_out: np.ndarray) -> np.ndarray:
    """Standard error of a number that follows from a mean over k orientations.

    Parameters
    ----------
    left_out
        (k, ...) values of the number, each from the mean over all orientations except one.

    Returns
    -------
    np.ndarray
        (...) standard errors (Efron and Stein, Ann. Statist. 9, 586 (1981)).
    """
    deviations = left_out - left_out.mean(axis=0)
    return np.asarray(np.sqrt((deviations**2).sum(axis=0) * (len(left_out) - 1) / len(left_out)))


def _turned(atoms: Atoms, rotation: np.ndarray) -> Atoms:
    turned = atoms.copy()
    turned.set_cell(atoms.cell.array @ rotation.T)
    turned.positions = atoms.positions @ rotation.T
    return turned


def _anchored(symmetry: SupercellSymmetry, atom: int) -> np.ndarray:
    """(n, atoms) permutations of the operations with the translation that brings an atom to the first of its copies.

    Images that are translations of one another become one.
    """
    to_first = symmetry.to_first(np.unique(symmetry.translations.min(axis=0)))
    return np.array([to_first[permutation[atom]][permutation] for permutation in symmetry.permutations])
