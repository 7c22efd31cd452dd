"""Force fields of other packages behind the one contract; each is imported inside the function that builds it."""

import warnings
from collections.abc import Sequence
from importlib.metadata import version

import numpy as np
from ase import Atoms
from ase.calculators.calculator import Calculator, PropertyNotImplementedError

from esen_flows.errors import EvaluationError, ModelError, StructureError, UnknownElementError
from esen_flows.forcefield.contract import Declaration, Evaluation, ForceField
from esen_flows.schemas.keys import third_party_key


class AseForceField(ForceField):
    """Any ASE calculator as a force field; structures are evaluated one after the other.

    Parameters
    ----------
    calculator : an ASE calculator that gives at least energy and forces.
    key : model key; `schemas.keys.third_party_key` makes one of package, version and arguments.
    label : a name for people.
    declaration : what the calculator is known to do; `testing.check_force_field` checks it.
    """

    def __init__(self, calculator: Calculator, *, key: str, label: str, declaration: Declaration) -> None:
        self.calculator = calculator
        self.key = key
        self.label = label
        self.declaration = declaration
        self.force_evaluations = 0

    def evaluate(self, structures: Sequence[Atoms]) -> list[Evaluation]:
        """Energies (eV), forces (eV/Angstrom) and stresses (eV/Angstrom^3), one Evaluation per structure, in order.

        The stress is NaN where the cell has no volume or the calculator has no stress.

        Raises
        ------
        StructureError, UnknownElementError : before anything is computed, naming the structure.
        EvaluationError : a result is NaN or infinite.
        """
        for index, atoms in enumerate(structures):
            self._check(index, atoms)
        return [self._evaluate_one(index, atoms) for index, atoms in enumerate(structures)]

    def _check(self, index: int, atoms: Atoms) -> None:
        name = f"structure {index} ({atoms.get_chemical_formula()})"
        if len(atoms) == 0:
            raise StructureError(f"structure {index} has no atoms; give at least one")
        if not (np.isfinite(atoms.positions).all() and np.isfinite(atoms.cell.array).all()):
            raise StructureError(f"{name} has NaN or infinite positions or cell vectors; check the file it came from")
        known = self.declaration.elements
        if known is not None and not set(atoms.numbers.tolist()) <= known:
            foreign = sorted(set(atoms.numbers.tolist()) - known)
            raise UnknownElementError(
                f"{name} holds atomic numbers {foreign}, which {self.label!r} never saw in training; use another one"
            )

    def _evaluate_one(self, index: int, atoms: Atoms) -> Evaluation:
        # A copy, so that neither the caller's calculator nor its cached results are touched.
        work = atoms.copy()
        work.calc = self.calculator
        energy = float(work.get_potential_energy())
        forces = np.array(work.get_forces(apply_constraint=False), dtype=np.float64)
        stress = self._stress(work)
        self.force_evaluations += 1
        if not (np.isfinite(energy) and np.isfinite(forces).all()):
            raise EvaluationError(
                f"{self.label!r} gave a NaN or infinite energy or force for structure {index} "
                f"({atoms.get_chemical_formula()}); check it for overlapping atoms"
            )
        return Evaluation(energy=energy, forces=forces, stress=stress, energies=self._energies(work))

    def _stress(self, work: Atoms) -> np.ndarray:
        missing = np.full((3, 3), np.nan)
        if work.cell.rank < 3 or "stress" not in self.calculator.implemented_properties:
            return missing
        try:
            stress = np.array(work.get_stress(voigt=False, apply_constraint=False), dtype=np.float64)
        except PropertyNotImplementedError:  # several ASE calculators have a stress for some periodicities only
            return missing
        if not np.isfinite(stress).all():
            raise EvaluationError(
                f"{self.label!r} gave a NaN or infinite stress for {work.get_chemical_formula()}; check its cell"
            )
        return stress

    def _energies(self, work: Atoms) -> np.ndarray | None:
        if "energies" not in self.calculator.implemented_properties:
            return None
        energies = np.array(self.calculator.get_property("energies", work), dtype=np.float64)
        return energies if energies.shape == (len(work),) else None


def sevennet(model: str = "7net-l3i5", device: str = "cpu") -> AseForceField:
    """SevenNet with the weights that its wheel carries; the labeller of `models/esen_silicon`.

    Park et al., J. Chem. Theory Comput. 20, 4857 (2024). Proper rotations are exact but mirror images are not: the
    forces of a rattled 64-atom silicon cell and of its inverse differ by 3.3 meV/Angstrom (measured, 7net-l3i5).

    Parameters
    ----------
    model : a name that `sevenn.calculator.SevenNetCalculator` knows; of those in the wheel, 7net-l3i5 is the best.
    device : "cpu" or "cuda"; not part of the key.

    Raises
    ------
    ModelError : sevenn is not installed, or does not know the model.
    """
    try:
        from sevenn.calculator import SevenNetCalculator
    except ImportError as error:
        raise ModelError(
            f"the force field {model!r} needs the package sevenn ({error}); pip install 'esen_flows[label]'"
        ) from error
    with warnings.catch_warnings():
        # It recommends GPU kernels that do not exist for the CPU.
        warnings.filterwarnings("ignore", message="No tensor product accelerator")
        try:
            calculator = SevenNetCalculator(model, device=device)
        except (ValueError, FileNotFoundError, KeyError, OSError) as error:
            raise ModelError(f"sevenn cannot load {model!r} ({error}); try 7net-l3i5 or 7net-0") from error
    declaration = Declaration(
        conservative=True,
        equivariance="SO3",
        differentiable=False,
        elements=frozenset(int(number) for number in calculator.type_map),
        dtype="float32",
        cutoff_angstrom=float(calculator.cutoff),
    )
    package_version = version("sevenn")
    return AseForceField(
        calculator,
        key=third_party_key("sevenn", package_version, {"model": model}),
        label=f"{model} (sevenn {package_version})",
        declaration=declaration,
    )
