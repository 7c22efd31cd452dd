"""Forces of molecular dynamics: one kind in every step, or direct ones with a correction in every M-th.

The correction is r-RESPA (Tuckerman, Berne and Martyna 1992): the difference between conservative and direct forces
acts as a kick of M time steps. It is added to the forces of that step, M times as large, so that the two half kicks of
any integrator around this step are those of the correction too.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

from ase import Atoms

from esen_flows.errors import EsenFlowsError
from esen_flows.forcefield.contract import Evaluation, ForceField
from esen_flows.forcefield.direct import DirectForces, with_forces
from esen_flows.physics.force_symmetry import about, symmetrized
from esen_flows.physics.relax_batch import evaluate_apart
from esen_flows.schemas.declarations import ForceKind
from esen_flows.schemas.forces import slow_interval
from esen_flows.schemas.md import MDProtocol

Outcome = Evaluation | EsenFlowsError


@dataclass(frozen=True)
class DynamicsForces:
    """The force fields of a trajectory.

    Attributes
    ----------
    accurate
        Force field of energies and stresses of frames.
    fast
        Force field of every step; the same one where there is one kind of forces.
    interval
        Steps from one correction to the next; 1 where there is one kind of forces.
    """

    accurate: ForceField
    fast: ForceField
    interval: int

    @classmethod
    def of(cls, force_field: ForceField, protocol: MDProtocol) -> "DynamicsForces":
        """The forces that a protocol names.

        Parameters
        ----------
        force_field
            Force field as loaded.
        protocol
            Protocol of the dynamics.

        Returns
        -------
        DynamicsForces
            The force fields.

        Raises
        ------
        ModelError
            The protocol names direct forces, and the force field has none.
        """
        asked = protocol.parity, protocol.force_symmetry
        interval = slow_interval(protocol.forces)
        if interval is None:
            kind: ForceKind = "direct" if protocol.forces == "direct" else "conservative"
            chosen = symmetrized(with_forces(force_field, kind), *asked)
            return cls(chosen, chosen, 1)
        accurate = symmetrized(force_field, *asked)
        return cls(accurate, symmetrized(with_forces(force_field, "direct"), *asked), interval)

    def about(self, structure: Atoms) -> "DynamicsForces":
        """The forces for one structure in motion, with the axes at its start where averages need axes.

        Parameters
        ----------
        structure
            The structure at the start.

        Returns
        -------
        DynamicsForces
            The same object where no axes are needed.
        """
        accurate = about(self.accurate, structure)
        if accurate is self.accurate:
            return self
        return replace(self, accurate=accurate, fast=accurate if self.interval == 1 else about(self.fast, structure))

    def at(self, moving: Sequence[tuple[Atoms, int]]) -> list[Outcome]:
        """Results of structures at the steps to which they have moved.

        Parameters
        ----------
        moving
            Each structure with the number of its step, 0 for the start.

        Returns
        -------
        list[Evaluation | EsenFlowsError]
            Energy, stress and the forces by which the momenta change, or why there are none.
        """
        if not moving:
            return []
        corrects = [self.interval > 1 and step % self.interval == 0 for _, step in moving]
        alone = [atoms for (atoms, _), due in zip(moving, corrects, strict=True) if not due]
        both = [atoms for (atoms, _), due in zip(moving, corrects, strict=True) if due]
        fast = iter(evaluate_apart(self.fast.evaluate, alone) if alone else ())
        corrected = iter(evaluate_apart(self._evaluate_corrected, both) if both else ())
        return [next(corrected if due else fast) for due in corrects]

    def _evaluate_corrected(self, structures: list[Atoms]) -> list[Evaluation]:
        if isinstance(self.fast, DirectForces):
            pairs = self.fast.evaluate_beside_gradient(structures)
        else:  # averages are apart
            pairs = list(zip(self.accurate.evaluate(structures), self.fast.evaluate(structures), strict=True))
        return [
            replace(accurate, forces=fast.forces + self.interval * (accurate.forces - fast.forces))
            for accurate, fast in pairs
        ]
