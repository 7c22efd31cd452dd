"""The part of an energy that depends on the elements alone, and which structures a network can take."""

from collections.abc import Callable, Sequence, Set
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from ase import Atoms
from torch import Tensor

from esen_flows.data.batch_state import BatchState
from esen_flows.data.ragged import Rows, to_device, to_host
from esen_flows.errors import StructureError, UnknownElementError


@dataclass(frozen=True)
class BaselineEnergies:
    """Energies of a batch apart from those of a network.

    Attributes
    ----------
    templates
        The structures of the batch.
    atoms
        Which atoms belong to which structure.
    of_elements
        (atoms,) float64 reference energies of the elements in eV.
    offset_ev
        Energy of every structure in eV.
    """

    templates: list[Atoms]
    atoms: Rows
    of_elements: Tensor
    offset_ev: float

    @cached_property
    def of_systems(self) -> Tensor:
        """(structures,) float64 in eV."""
        return self.atoms.reduce(self.of_elements) + self.offset_ev

    @cached_property
    def of_atoms(self) -> Tensor:
        """(atoms,) float64 in eV, with an equal share of the offset for each atom of a structure."""
        if not self.offset_ev:
            return self.of_elements
        counts = self.atoms.counts
        return self.of_elements + to_device(np.repeat(self.offset_ev / counts, counts), self.of_elements.device)


class Baseline:
    """Reference energies of elements, for structures that were checked.

    Parameters
    ----------
    references_ev
        (elements,) energy of an atom in eV, by atomic number.
    offset_ev
        Energy of every structure in eV.
    elements
        Atomic numbers that the network knows.
    charge_and_spin_limits
        Largest absolute charge and largest spin multiplicity; None where neither is an input.
    label
        Name of the force field, for messages.
    device
        torch device of the batches.
    """

    def __init__(
        self,
        references_ev: np.ndarray,
        offset_ev: float,
        elements: Set[int],
        charge_and_spin_limits: tuple[int, int] | None,
        label: str,
        device: torch.device,
    ) -> None:
        self.references_ev = to_device(references_ev, device)
        self.offset_ev, self.elements, self.label = offset_ev, elements, label
        self.charge_and_spin_limits = charge_and_spin_limits
        self._is_known = np.isin(np.arange(len(references_ev)), sorted(elements))
        self._last: BaselineEnergies | None = None

    def energies(self, state: BatchState) -> BaselineEnergies:
        """Energies of a batch; a batch that goes from step to step is checked and computed once.

        Parameters
        ----------
        state
            Structures.

        Returns
        -------
        BaselineEnergies
            Their energies.

        Raises
        ------
        StructureError, UnknownElementError
            A structure has an element, a charge or a spin that the network does not know.
        """
        last = self._last
        if last is None or last.templates is not state.templates:
            self.check_elements(state.templates, state.name)
            if self.charge_and_spin_limits is not None:
                self.check_charges(to_host(state.charges_and_spins()), state.name)
            last = BaselineEnergies(
                state.templates, state.atoms, self.references_ev.index_select(0, state.numbers), self.offset_ev
            )
            self._last = last
        return last

    def check_elements(self, structures: Sequence[Atoms], name: Callable[[int], str] | None = None) -> None:
        """Refuse structures without atoms or with unknown elements.

        Parameters
        ----------
        structures
            Structures.
        name
            The name of a structure in messages, from its place; None: its place, counted from 0, and its formula.

        Raises
        ------
        StructureError
            A structure has no atoms.
        UnknownElementError
            A structure holds an element that the network never saw.
        """
        for place, atoms in enumerate(structures):
            if len(atoms) == 0:
                raise StructureError(f"structure {place} has no atoms; leave it out")
            numbers = atoms.numbers
            if numbers.max() < len(self._is_known) and self._is_known[numbers].all():
                continue
            unknown = sorted(set(atoms.symbols[~np.isin(numbers, list(self.elements))]))
            called = f"structure {place} ({atoms.get_chemical_formula()})" if name is None else name(place)
            raise UnknownElementError(
                f"{called} holds {', '.join(unknown)}, which {self.label!r} never saw; it knows "
                f"atomic numbers {sorted(self.elements)}"
            )

    def check_charges(self, charges_and_spins: np.ndarray, name: Callable[[int], str]) -> None:
        """Refuse charges and spins beyond the limits of the network.

        Parameters
        ----------
        charges_and_spins
            (structures, 2) charges and spin multiplicities.
        name
            The name of a structure in messages, from its place.

        Raises
        ------
        StructureError
            A structure is beyond the limits.
        """
        if self.charge_and_spin_limits is None:
            return
        most_charge, most_spin = self.charge_and_spin_limits
        for place, (charge, spin) in enumerate(charges_and_spins.tolist()):
            if abs(charge) > most_charge or not 0 <= spin <= most_spin:
                raise StructureError(
                    f"{name(place)} has charge {charge} and spin multiplicity {spin}; charges from "
                    f"-{most_charge} to {most_charge} and multiplicities from 0 to {most_spin} are possible"
                )
