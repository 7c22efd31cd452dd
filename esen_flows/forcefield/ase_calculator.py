"""Any force field as an ASE calculator, for ASE, atomate2 and other programs that take such calculators."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from ase import Atoms
from ase.calculators.calculator import Calculator, PropertyNotImplementedError, all_changes

from esen_flows.data.batch_state import BatchState
from esen_flows.errors import EvaluationError, ModelError, StructureError
from esen_flows.forcefield.contract import Evaluation, ForceField
from esen_flows.forcefield.lists import evaluations
from esen_flows.schemas.declarations import Dtype

# Rows and columns of the (3, 3) stress in Voigt order xx, yy, zz, yz, xz, xy.
_VOIGT = ([0, 1, 2, 1, 0, 0], [0, 1, 2, 2, 2, 1])


class ForceFieldCalculator(Calculator):
    """ASE calculator of a force field: energy and free energy (eV), forces (eV/Angstrom), stress (eV/Angstrom^3).

    The stress is in Voigt order with ASE's sign. The keyword arguments other than `force_field` are plain values, which
    the JSON of a job can hold, for example for atomate2:
    `calculator_meta="esen_flows.forcefield.ase_calculator.ForceFieldCalculator"`,
    `calculator_kwargs={"model": "esen_silicon"}`.

    Parameters
    ----------
    force_field
        Force field to present; not together with `model`.
    model
        Name of a model card, or path of a checkpoint; loaded by `load_force_field` at the first calculation.
    device
        torch device of the loaded model; has no effect with `force_field`.
    dtype
        Precision of the loaded model; has no effect with `force_field`.
    kwargs
        Arguments of `ase.calculators.calculator.Calculator`.

    Raises
    ------
    ModelError
        Neither or both of `force_field` and `model` are given.

    Examples
    --------
    >>> from ase.build import bulk
    >>> from esen_flows.forcefield.ase_calculator import ForceFieldCalculator
    >>> copper = bulk("Cu", a=3.6)
    >>> copper.calc = ForceFieldCalculator(model="emt")
    >>> print(f"{copper.get_potential_energy():.4f} eV")
    -0.0067 eV
    """

    implemented_properties: ClassVar[list[str]] = ["energy", "free_energy", "forces", "stress", "energies"]
    ignored_changes: ClassVar[set[str]] = set()

    def __init__(
        self,
        force_field: ForceField | None = None,
        *,
        model: str | Path | None = None,
        device: str = "cpu",
        dtype: Dtype = "float64",
        **kwargs: Any,
    ) -> None:
        if (force_field is None) == (model is None):
            raise ModelError(
                f"give ForceFieldCalculator either a force field or a model, got force_field={force_field!r} "
                f"and model={model!r}"
            )
        super().__init__(**kwargs)
        self._force_field = force_field
        self._model, self._device, self._dtype = model, device, dtype
        self._last: BatchState | None = None
        self.spread: np.ndarray | None = None  # of the last calculation, as that of `Evaluation`

    @property
    def force_field(self) -> ForceField:
        """Force field behind this calculator, loaded at the first use."""
        if self._force_field is None:
            from esen_flows.forcefield.load import load_force_field

            assert self._model is not None  # checked by __init__
            self._force_field = load_force_field(self._model, device=self._device, dtype=self._dtype)
        return self._force_field

    def calculate(
        self,
        atoms: Atoms | None = None,
        properties: Sequence[str] = ("energy",),
        system_changes: Sequence[str] = tuple(all_changes),
    ) -> None:
        """Evaluate the structure once and keep all results, whichever properties are asked for.

        Parameters
        ----------
        atoms
            Structure; None: the last one.
        properties
            Names of properties that the results have to hold.
        system_changes
            Names of the changes since the last calculation.

        Raises
        ------
        PropertyNotImplementedError
            The structure is not periodic along three lattice vectors, so that there is no stress, or the force field
            has no energies of atoms.
        StructureError, UnknownElementError, EvaluationError
            The force field cannot evaluate the structure.
        """
        super().calculate(atoms, list(properties), list(system_changes))
        result = self._evaluated(self.atoms)
        self.spread = result.spread
        self.results = {"energy": result.energy, "free_energy": result.energy, "forces": result.forces}
        if np.isfinite(result.stress).all():
            self.results["stress"] = result.stress[_VOIGT]
        if result.energies is not None:
            self.results["energies"] = result.energies
        missing = sorted(set(properties) - set(self.results))
        if missing:
            raise PropertyNotImplementedError(
                f"{self.force_field.label!r} gives no {', '.join(missing)} for {self.atoms.get_chemical_formula()}; "
                "a stress needs a cell with three vectors"
            )

    def _evaluated(self, atoms: Atoms) -> Evaluation:
        """The result of a structure, with the neighbour pairs of the last one where these contain its own."""
        if len(atoms) == 0:
            raise StructureError("the structure has no atoms; leave it out")
        state = BatchState.of([atoms], self.force_field.device, atom_energies=True)
        last = self._last
        if last is not None and (last.templates[0].pbc == atoms.pbc).all() and len(last.templates[0]) == len(atoms):
            state.tables = last.tables
        (result,) = evaluations(self.force_field, self.force_field.evaluate_batch(state), state)
        if isinstance(result, EvaluationError):
            raise result
        self._last = state
        return result
