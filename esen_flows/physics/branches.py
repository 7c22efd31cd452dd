"""One branch of an exploration: displaced along an imaginary mode, relaxed in the subgroup, snapped to its symmetry."""

from dataclasses import dataclass

import numpy as np
from ase import Atoms

from esen_flows.forcefield.contract import ForceField
from esen_flows.physics.force_symmetry import along, symmetrized
from esen_flows.physics.lattice.soft_modes import SoftMode
from esen_flows.physics.relax import Progress, relax
from esen_flows.physics.symmetry import operation_count, space_group_number, standard_primitive_cell
from esen_flows.schemas.branch_documents import BranchOutput
from esen_flows.schemas.branches import BranchProtocol
from esen_flows.schemas.documents import RelaxOutput

# Energies per atom of relaxed structures that differ by less are equal: forces of 1e-3 eV/Angstrom leave less.
ENERGY_TOLERANCE_EV = 1e-6
MOST_SNAPS = 3


@dataclass(frozen=True)
class _Scan:
    """Energies along one direction of a mode, in ascending order of amplitudes."""

    amplitudes: np.ndarray
    energies: np.ndarray

    def lowest(self, side: str) -> tuple[float, float]:
        """Amplitude and energy per atom of the lowest displaced structure on a side."""
        signs = np.sign(self.amplitudes)
        least = {sign: self.energies[signs == sign].min() for sign in (1.0, -1.0) if (signs == sign).any()}
        order = sorted(least, key=lambda sign: least[sign])
        chosen = np.flatnonzero(signs == order[0 if side == "lower" else -1])
        best = chosen[self.energies[chosen].argmin()]
        return float(self.amplitudes[best]), float(self.energies[best])


def relax_branch(
    mode: SoftMode, force_field: ForceField, protocol: BranchProtocol, progress: Progress | None = None
) -> BranchOutput:
    """Displace a crystal along a mode, and relax it with the symmetry that remains.

    The start is the structure of lowest energy on a line of amplitudes, in its primitive cell and exactly on its space
    group within the relaxation's `symprec_angstrom`. Where the relaxation ends at a structure with more symmetry
    operations per atom, the structure is put exactly on them and relaxed again; this is undone if the energy rises.

    Parameters
    ----------
    mode
        Imaginary modes of the crystal.
    force_field
        Force field.
    protocol
        Which direction and sign, and how to relax.
    progress
        Called with the number of steps and the largest generalised force (eV/Angstrom).

    Returns
    -------
    BranchOutput
        The relaxed structure, in its primitive cell.

    Raises
    ------
    StructureError, NotConvergedError, SymmetryBrokenError, ExplosionError, EvaluationError
        As `relax`.
    """
    relaxation = protocol.relax
    pattern, two_sided = mode.patterns[protocol.direction], mode.directions[protocol.direction].two_sided
    averaged = along(symmetrized(force_field, relaxation.parity, relaxation.force_symmetry), mode.supercell)
    scan = _scan(mode.supercell, pattern, two_sided, averaged, protocol)
    amplitude, _ = scan.lowest(protocol.side)
    start = standard_primitive_cell(_displaced(mode.supercell, amplitude * pattern), relaxation.symprec_angstrom)
    subgroup = space_group_number(start, relaxation.symprec_angstrom)
    assert subgroup is not None  # the primitive cell was found by it
    relaxed = relax(start, force_field, relaxation, progress)
    settled, snapped = _snapped(relaxed, start, force_field, protocol, progress)
    undisplaced = float(scan.energies[scan.amplitudes == 0.0][0])
    return BranchOutput(
        **{name: getattr(settled, name) for name in RelaxOutput.model_fields} | {"space_group_initial": subgroup},
        frequency_thz=mode.frequency_thz,
        q_point=mode.q_point,
        degeneracy=mode.degeneracy,
        amplitudes_angstrom=scan.amplitudes,
        energies_per_atom_ev=scan.energies,
        amplitude_angstrom=amplitude,
        subgroup=subgroup,
        snapped=snapped,
        energy_change_per_atom_ev=settled.energy_per_atom_ev - undisplaced,
    )


def _displaced(atoms: Atoms, displacements: np.ndarray) -> Atoms:
    moved = atoms.copy()
    moved.positions += displacements
    return moved


def _scan(
    supercell: Atoms, pattern: np.ndarray, two_sided: bool, force_field: ForceField, protocol: BranchProtocol
) -> _Scan:
    positive = np.array(protocol.amplitudes_angstrom)
    amplitudes = np.concatenate([-positive[::-1] if two_sided else [], [0.0], positive])
    found = force_field.evaluate([_displaced(supercell, amplitude * pattern) for amplitude in amplitudes])
    return _Scan(amplitudes, np.array([one.energy for one in found]) / len(supercell))


def _snapped(
    relaxed: RelaxOutput, start: Atoms, force_field: ForceField, protocol: BranchProtocol, progress: Progress | None
) -> tuple[RelaxOutput, bool]:
    """The relaxed structure with all symmetry that it came to within the tolerance."""
    symprec, snapped = protocol.relax.symprec_angstrom, False
    kept = operation_count(start, symprec) / len(start)
    for _ in range(MOST_SNAPS):
        smaller = standard_primitive_cell(relaxed.structure.to_atoms(), symprec)
        found = operation_count(smaller, symprec) / len(smaller)
        if found <= kept:
            break
        again = relax(smaller, force_field, protocol.relax, progress)
        if again.energy_per_atom_ev > relaxed.energy_per_atom_ev + ENERGY_TOLERANCE_EV:
            break
        relaxed, snapped, kept = again, True, found
    return relaxed, snapped
