"""The start of molecular dynamics: velocities and checks."""

import numpy as np
from ase import Atoms, units

from esen_flows.errors import StructureError
from esen_flows.schemas.atom_properties import properties_of
from esen_flows.schemas.md import MDProtocol
from esen_flows.structures.checks import check_size


def start_of_dynamics(atoms: Atoms, protocol: MDProtocol) -> Atoms:
    """A structure with the initial velocities of a protocol.

    Parameters
    ----------
    atoms
        The structure; it is not changed.
    protocol
        The protocol.

    Returns
    -------
    Atoms
        A copy with momenta, masses and constraints, charge and spin, without a calculator.

    Raises
    ------
    StructureError
        The structure has no atoms, NaN, or no atom that can move.
    InputError
        The protocol has no temperature for it.
    """
    formula = atoms.get_chemical_formula()
    if len(atoms) == 0:
        raise StructureError("the structure has no atoms; give at least one")
    check_size(atoms, formula)
    start = Atoms(atoms.numbers, positions=atoms.positions, cell=atoms.cell, pbc=atoms.pbc)
    start.info.update({name: atoms.info[name] for name in ("charge", "spin") if name in atoms.info})
    properties_of(atoms).attach(start)
    kt = units.kB * protocol.temperature_kelvin(atoms.numbers)
    dice = np.random.default_rng(protocol.mb_velocity_seed)
    momenta = dice.standard_normal((len(start), 3)) * np.sqrt(start.get_masses() * kt)[:, None]
    if not start.constraints:
        momenta = _at_rest(start, momenta, protocol)
    start.set_momenta(momenta)  # without those along fixed coordinates
    if degrees_of_freedom(start, protocol) < 1:
        raise StructureError(f"{formula} has no degree of freedom that can move; molecular dynamics needs one")
    return start


def degrees_of_freedom(atoms: Atoms, protocol: MDProtocol) -> int:
    """Directions in which something moves: without fixed coordinates, and without motions of the whole that stay zero.

    Parameters
    ----------
    atoms
        The structure.
    protocol
        The protocol.

    Returns
    -------
    int
        Their number. The noise of Langevin dynamics moves the centre of mass too.
    """
    free = int(atoms.get_number_of_degrees_of_freedom())
    if protocol.integrator == "langevin" or atoms.constraints:
        return free
    if protocol.zero_linear_momentum:
        free -= 3
    if protocol.zero_angular_momentum and not atoms.pbc.any():
        free -= _rotations(atoms)
    return free


def _at_rest(atoms: Atoms, momenta: np.ndarray, protocol: MDProtocol) -> np.ndarray:
    masses = atoms.get_masses()[:, None]
    if protocol.zero_linear_momentum:
        momenta = momenta - masses * momenta.sum(axis=0) / masses.sum()
    if protocol.zero_angular_momentum and not atoms.pbc.any():
        places = atoms.positions - atoms.get_center_of_mass()
        angular = np.cross(places, momenta).sum(axis=0)
        momenta = momenta - masses * np.cross(np.linalg.pinv(_inertia(atoms)) @ angular, places)
    return momenta


def _rotations(atoms: Atoms) -> int:
    """Rotations of the whole: three, two of a linear molecule, none of one atom."""
    tensor = _inertia(atoms)
    return int(np.linalg.matrix_rank(tensor, tol=1e-6 * float(np.trace(tensor)), hermitian=True))


def _inertia(atoms: Atoms) -> np.ndarray:
    """Tensor of inertia in u Angstrom^2, [3, 3]."""
    masses, places = atoms.get_masses()[:, None], atoms.positions - atoms.get_center_of_mass()
    tensor: np.ndarray = (masses * places**2).sum() * np.eye(3) - (masses * places).T @ places
    return tensor
