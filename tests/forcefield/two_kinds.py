"""A force field with two kinds of forces, whose direct ones differ in a known way."""

from dataclasses import dataclass, field, replace

import numpy as np

from esen_flows.forcefield.contract import Declaration, Evaluation, ForceField
from esen_flows.structures.inputs import AnyStructures, as_structures

SPRING = 5.0  # eV/Angstrom^2
CONSERVATIVE = Declaration(True, "approximate", False, None, "float64", direct=True)


@dataclass
class TwoKinds(ForceField):
    """Every atom at its own site on a spring. Direct forces also turn about z, which is no gradient, and push along x.

    Attributes
    ----------
    sites
        (n, 3) sites in Angstrom.
    swirl, push
        Strength of what direct forces have besides, in eV/Angstrom^2 and eV/Angstrom.
    """

    sites: np.ndarray
    swirl: float = 0.5
    push: float = 0.0
    is_direct: bool = False
    key: str = "22" * 32
    label: str = "two kinds"
    declaration: Declaration = CONSERVATIVE
    calls: list[int] = field(default_factory=list)

    def evaluate(self, structures: AnyStructures) -> list[Evaluation]:
        found = []
        for atoms in as_structures(structures):
            moved = atoms.positions - self.sites[: len(atoms)]
            forces = -SPRING * moved
            if self.is_direct:
                forces = forces + self.swirl * np.cross([0.0, 0.0, 1.0], moved) + [self.push, 0.0, 0.0]
            found.append(Evaluation(SPRING / 2 * float((moved**2).sum()), forces, np.full((3, 3), np.nan)))
        self.force_evaluations += len(found)
        self.calls.append(len(found))
        return found

    def direct(self) -> "TwoKinds":
        return replace(self, is_direct=True, declaration=replace(CONSERVATIVE, conservative=False, direct=False))
