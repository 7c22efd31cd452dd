"""Any ASE calculator behind the contract, and the checks that force fields of other packages share."""

from collections.abc import Sequence

import numpy as np
from ase import Atoms
from ase.calculators.calculator import Calculator

from esen_flows.errors import EvaluationError, StructureError, UnknownElementError
from esen_flows.forcefield.contract import Declaration, Evaluation, ForceField
from esen_flows.forcefield.third_party.calculator_child import evaluate_one
from esen_flows.structures.inputs import AnyStructures, as_structures


class AseForceField(ForceField):
    """Force field of an ASE calculator, which evaluates one structure after the other.

    Parameters
    ----------
    calculator
        ASE calculator that gives at least energy and forces.
    key
        Model key; `schemas.keys.third_party_key` makes one of package, version and arguments.
    label
        Name for people.
    declaration
        Known properties of the calculator; `testing.check_force_field` checks them.
    """

    def __init__(self, calculator: Calculator, *, key: str, label: str, declaration: Declaration) -> None:
        self.calculator = calculator
        self.key = key
        self.label = label
        self.declaration = declaration

    def evaluate(self, structures: AnyStructures) -> list[Evaluation]:
        """Energies, forces and stresses of structures, in their order.

        Parameters
        ----------
        structures
            Structures of any size and periodicity; neither they nor their calculators are changed.

        Returns
        -------
        list[Evaluation]
            Results; the stress is NaN where the structure or the calculator has none.

        Raises
        ------
        StructureError, UnknownElementError
            A structure cannot be evaluated; nothing was computed.
        EvaluationError
            A result is NaN or infinite.
        """
        structures = as_structures(structures)
        check_structures(structures, self.declaration.elements, self.label)
        return [self._evaluate_one(index, atoms) for index, atoms in enumerate(structures)]

    def _evaluate_one(self, index: int, atoms: Atoms) -> Evaluation:
        # A copy, so that neither the caller's calculator nor its cached results are touched.
        energy, forces, stress, energies = evaluate_one(atoms.copy(), self.calculator)
        self.force_evaluations += 1
        if not (np.isfinite(energy) and np.isfinite(forces).all()):
            raise not_finite(self.label, index, atoms)
        if stress is None:
            stress = np.full((3, 3), np.nan)
        elif not np.isfinite(stress).all():
            raise EvaluationError(
                f"{self.label!r} gave a NaN or infinite stress for {atoms.get_chemical_formula()}; check its cell"
            )
        return Evaluation(energy=energy, forces=forces, stress=stress, energies=energies)


def check_structures(structures: Sequence[Atoms], elements: frozenset[int] | None, label: str) -> None:
    """Refuse structures that a force field cannot evaluate.

    Parameters
    ----------
    structures
        Structures to check.
    elements
        Atomic numbers that the force field was trained on; None: any.
    label
        Name of the force field, for the message.

    Raises
    ------
    StructureError
        A structure has no atoms, or NaN or infinite positions or cell vectors.
    UnknownElementError
        A structure holds another element.
    """
    for index, atoms in enumerate(structures):
        name = f"structure {index} ({atoms.get_chemical_formula()})"
        if len(atoms) == 0:
            raise StructureError(f"structure {index} has no atoms; give at least one")
        if not (np.isfinite(atoms.positions).all() and np.isfinite(atoms.cell.array).all()):
            raise StructureError(f"{name} has NaN or infinite positions or cell vectors; check the file it came from")
        if elements is not None and not set(atoms.numbers.tolist()) <= elements:
            foreign = sorted(set(atoms.numbers.tolist()) - elements)
            raise UnknownElementError(
                f"{name} holds atomic numbers {foreign}, which {label!r} never saw in training; use another one"
            )


def not_finite(label: str, index: int, atoms: Atoms) -> EvaluationError:
    """Make the error for an energy or force that is NaN or infinite.

    Parameters
    ----------
    label
        Name of the force field.
    index
        Number of the structure in the list that was given, from 0.
    atoms
        The structure.

    Returns
    -------
    EvaluationError
        Error to raise.
    """
    return EvaluationError(
        f"{label!r} gave a NaN or infinite energy or force for structure {index} "
        f"({atoms.get_chemical_formula()}); check it for overlapping atoms"
    )
