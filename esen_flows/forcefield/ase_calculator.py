"""Any force field as an ASE calculator, for ASE itself, for atomate2 and for everything else that speaks ASE."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar, Literal

import numpy as np
from ase import Atoms
from ase.calculators.calculator import Calculator, PropertyNotImplementedError, all_changes

from esen_flows.errors import ModelError
from esen_flows.forcefield.contract import ForceField

# Rows and columns of the (3, 3) stress in Voigt order xx, yy, zz, yz, xz, xy.
_VOIGT = ([0, 1, 2, 1, 0, 0], [0, 1, 2, 2, 2, 1])


class ForceFieldCalculator(Calculator):
    """ASE calculator of a force field: energy and free energy (eV), forces (eV/Angstrom), stress (eV/Angstrom^3).

    The stress is in Voigt order with ASE's sign. With plain keyword arguments it can be built from a job's JSON, for
    example by atomate2: `calculator_meta="esen_flows.forcefield.ase_calculator.ForceFieldCalculator"`,
    `calculator_kwargs={"model": "esen_silicon"}`.

    Parameters
    ----------
    force_field
        what to present; not together with `model`.
    model
        a model card or path, loaded by `load_force_field` at the first calculation.
    device, dtype
        of the loaded model; ignored with `force_field`.
    kwargs
        of `ase.calculators.calculator.Calculator`.

    Raises
    ------
    ModelError
        neither or both of `force_field` and `model`; when loading: whatever `load_force_field` refuses.
    """

    implemented_properties: ClassVar[list[str]] = ["energy", "free_energy", "forces", "stress", "energies"]
    ignored_changes: ClassVar[set[str]] = set()

    def __init__(
        self,
        force_field: ForceField | None = None,
        *,
        model: str | Path | None = None,
        device: str = "cpu",
        dtype: Literal["float32", "float64"] = "float64",
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

    @property
    def force_field(self) -> ForceField:
        """The force field behind this calculator, loaded when first asked for."""
        if self._force_field is None:
            from esen_flows.forcefield.load import load_force_field

            assert self._model is not None  # the constructor saw to it
            self._force_field = load_force_field(self._model, device=self._device, dtype=self._dtype)
        return self._force_field

    def calculate(
        self,
        atoms: Atoms | None = None,
        properties: Sequence[str] = ("energy",),
        system_changes: Sequence[str] = tuple(all_changes),
    ) -> None:
        """Evaluate once and keep everything that the force field says.

        Raises
        ------
        PropertyNotImplementedError
            stress of a cell without volume, or per-atom energies that the model has not.
        StructureError, UnknownElementError, EvaluationError
            from the force field.
        """
        super().calculate(atoms, list(properties), list(system_changes))
        result = self.force_field.evaluate([self.atoms])[0]
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
