"""Force fields that cost nothing: Lennard-Jones argon cut off after its nearest neighbours, and EMT metals."""

from collections.abc import Sequence

import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk
from ase.calculators.calculator import Calculator
from ase.calculators.emt import EMT
from ase.calculators.lj import LennardJones

from esen_flows.forcefield.contract import Declaration, Evaluation, ForceField
from esen_flows.forcefield.third_party.any_ase import AseForceField

EPSILON_EV, SIGMA_ANGSTROM = 0.0104, 3.40  # argon, Ashcroft and Mermin, table 20.2
NEAREST_ANGSTROM = 2 ** (1 / 6) * SIGMA_ANGSTROM


def _force_field(calculator: Calculator, *, conservative: bool = True) -> AseForceField:
    name = type(calculator).__name__
    declaration = Declaration(
        conservative=conservative, equivariance="O3", differentiable=False, elements=None, dtype="float64"
    )
    return AseForceField(calculator, key=name, label=name, declaration=declaration)


@pytest.fixture
def argon_force_field() -> AseForceField:
    """Lennard-Jones cut off between first and second neighbours of a close-packed crystal: phonons are analytical."""
    return _force_field(LennardJones(sigma=SIGMA_ANGSTROM, epsilon=EPSILON_EV, rc=1.2 * NEAREST_ANGSTROM))


@pytest.fixture
def argon() -> Atoms:
    """The primitive cell of fcc argon at the minimum of that force field's energy."""
    return bulk("Ar", "fcc", a=np.sqrt(2) * NEAREST_ANGSTROM)


@pytest.fixture
def metals() -> AseForceField:
    """EMT: copper, gold and their neighbours."""
    return _force_field(EMT())


@pytest.fixture
def not_conservative() -> AseForceField:
    """A force field that does not declare forces to be a gradient."""
    return _force_field(EMT(), conservative=False)


class Mirrorless(ForceField):
    """A force field whose forces have a part that is even under inversion, which parity averaging removes exactly."""

    def __init__(self, inner: ForceField) -> None:
        self.inner, self.key, self.label = inner, "mirrorless", "mirrorless"
        self.declaration = Declaration(
            conservative=True, equivariance="SO3", differentiable=False, elements=None, dtype="float64"
        )
        self.batches: list[int] = []

    def evaluate(self, structures: Sequence[Atoms]) -> list[Evaluation]:
        """The inner force field, with the same small force added to every atom."""
        self.batches.append(len(structures))
        self.force_evaluations += len(structures)
        shift = np.array([1e-3, -2e-3, 5e-4])
        return [Evaluation(e.energy, e.forces + shift, e.stress) for e in self.inner.evaluate(structures)]


@pytest.fixture
def mirrorless(argon_force_field: AseForceField) -> Mirrorless:
    """Argon with broken mirrors."""
    return Mirrorless(argon_force_field)
