"""Forces of molecular dynamics: one kind in every step, or direct ones with a correction in every M-th.

The correction is r-RESPA (Tuckerman, Berne and Martyna 1992): the difference between conservative and direct forces
acts as a kick of M time steps. It is added to the forces of that step, M times as large, so that the two half kicks of
any integrator around this step are those of the correction too.
"""

import contextlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from ase import Atoms

from esen_flows.data.batch_state import BatchState
from esen_flows.data.ragged import to_device
from esen_flows.errors import EsenFlowsError, InsufficientMemoryError, StructureError
from esen_flows.forcefield.contract import BatchEvaluation, Evaluation, ForceField
from esen_flows.forcefield.direct import DirectForces, with_forces
from esen_flows.forcefield.lists import evaluations
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

    def evaluate(self, state: BatchState, steps: Sequence[int]) -> list[Outcome]:
        """Results of structures at the steps to which they have moved.

        Parameters
        ----------
        state
            The structures.
        steps
            Number of the step of each, 0 for the start.

        Returns
        -------
        list[Evaluation | EsenFlowsError]
            Energy, stress and the forces by which the momenta change, or why there are none.
        """
        corrects = np.array([self.interval > 1 and step % self.interval == 0 for step in steps], dtype=bool)
        if corrects.any() and not corrects.all():  # both parts share what is searched again
            with contextlib.suppress(EsenFlowsError):  # the structure that it is about meets it again below
                self.accurate.find_neighbors(state)
        outcomes: dict[int, Outcome] = {}
        for due, call in ((False, self.fast.evaluate_batch), (True, self._corrected)):
            places = np.flatnonzero(corrects == due)
            if len(places):
                part = state if len(places) == state.n_systems else state.select(places)
                result, errors = evaluate_apart(call, part)
                found = evaluations(self.accurate if due else self.fast, result, part)
                outcomes |= {int(place): errors.get(k, found[k]) for k, place in enumerate(places)}
        return [outcomes[place] for place in range(state.n_systems)]

    def _corrected(self, state: BatchState) -> BatchEvaluation:
        if isinstance(self.fast, DirectForces):
            accurate, fast = self.fast.evaluate_beside_gradient(state)
        else:  # averages are apart
            accurate, fast = self.accurate.evaluate_batch(state), self.fast.evaluate_batch(state)
        return replace(accurate, forces=fast.forces + self.interval * (accurate.forces - fast.forces))


class MovingBatch:
    """Structures that share their forces, with neighbour tables that stay with them from step to step.

    Parameters
    ----------
    forces
        Their forces.
    """

    def __init__(self, forces: DynamicsForces) -> None:
        self._forces = forces
        self._numbers: list[int] = []
        self._state = BatchState.of([], forces.fast.device)

    def at(self, moving: Mapping[int, tuple[Atoms, int]]) -> dict[int, Outcome]:
        """Results of structures at the steps to which they have moved. Structures that are not named leave.

        Parameters
        ----------
        moving
            Each structure with the number of its step, by a number of its own. Elements and cells stay.

        Returns
        -------
        dict[int, Evaluation | EsenFlowsError]
            Outcomes as those of `DynamicsForces.evaluate`, by these numbers.
        """
        gone = [place for place, number in enumerate(self._numbers) if number not in moving]
        if gone:
            stay = np.setdiff1d(np.arange(len(self._numbers)), gone)
            self._state, self._numbers = self._state.select(stay), [self._numbers[place] for place in stay]
        known = set(self._numbers)
        outcomes = self._enter({number: atoms for number, (atoms, _) in moving.items() if number not in known})
        if not self._numbers:
            return outcomes
        positions = np.concatenate([moving[number][0].positions for number in self._numbers])
        self._state = self._state.moved(to_device(positions, self._state.device))
        found = self._forces.evaluate(self._state, [moving[number][1] for number in self._numbers])
        return outcomes | dict(zip(self._numbers, found, strict=True))

    def _enter(self, entering: Mapping[int, Atoms]) -> dict[int, Outcome]:
        """Take in structures; the errors of those that cannot have neighbours."""
        if not entering:
            return {}
        try:
            new = BatchState.of(list(entering.values()), self._state.device)
            self._forces.fast.find_neighbors(new)
        except (StructureError, InsufficientMemoryError) as error:
            half, rows = len(entering) // 2, list(entering.items())
            if not half:
                return dict.fromkeys(entering, error)
            return self._enter(dict(rows[:half])) | self._enter(dict(rows[half:]))
        self._state = self._state.joined(new)
        self._numbers += entering
        return {}
