"""What an isolated cluster must obey: no net force or torque, and no influence of atoms far away."""

import numpy as np
from ase import Atoms

from esen_flows.forcefield.contract import ForceField

# Empty space around a cluster in Angstrom, more than the cutoff of any force field here.
VACUUM_ANGSTROM = 15.0


def cluster(crystal: Atoms, size: int) -> Atoms:
    """The atoms around the centre of a crystal, alone in a large periodic box.

    Parameters
    ----------
    crystal
        The crystal.
    size
        Number of atoms.

    Returns
    -------
    Atoms
        The cluster in the middle of its box.
    """
    large = crystal.repeat(3)
    distances = np.linalg.norm(large.positions - large.cell.array.sum(axis=0) / 2, axis=1)
    found: Atoms = large[np.argsort(distances, kind="stable")[:size]]
    found.set_cell(np.eye(3))  # the axes of the box, not those of the crystal
    found.center(vacuum=VACUUM_ANGSTROM)
    return found


def net_force_and_torque(force_field: ForceField, isolated: Atoms) -> tuple[float, float]:
    """Net force and torque of an isolated cluster, relative to its largest force.

    Parameters
    ----------
    force_field
        Force field to measure.
    isolated
        A cluster that does not cross the boundary of its box.

    Returns
    -------
    tuple[float, float]
        Norm of the sum of the forces over the largest force, and norm of the torque over the largest force times the
        largest distance from the centre. Forces below 1 eV/Angstrom count as 1 eV/Angstrom.
    """
    (result,) = force_field.evaluate(isolated)
    arms = isolated.positions - isolated.positions.mean(axis=0)
    size = max(1.0, float(np.linalg.norm(result.forces, axis=1).max()))
    torque = float(np.linalg.norm(np.cross(arms, result.forces).sum(axis=0)))
    reach = float(np.linalg.norm(arms, axis=1).max())
    return float(np.linalg.norm(result.forces.sum(axis=0))) / size, torque / size / reach


def far_influence(force_field: ForceField, isolated: Atoms) -> tuple[float, float]:
    """How far a second cluster in the same box changes forces and energy, beyond all cutoffs.

    Parameters
    ----------
    force_field
        Force field to measure.
    isolated
        A cluster with `VACUUM_ANGSTROM` around it.

    Returns
    -------
    tuple[float, float]
        Locality: largest change of a force component in eV/Angstrom; and extensivity: the energy of both clusters
        less twice that of one, in eV/atom.
    """
    both = isolated.copy()
    width = both.cell.array[0, 0]
    other = isolated.copy()
    other.positions[:, 0] += width
    both.set_cell(both.cell.array * [[2.0], [1.0], [1.0]])
    both += other
    together, alone = force_field.evaluate([both, isolated])
    change = float(np.abs(together.forces[: len(isolated)] - alone.forces).max())
    return change, abs(together.energy - 2 * alone.energy) / len(both)


def extensivity(force_field: ForceField, crystal: Atoms) -> float:
    """Difference of the energies per atom of a cell and of two of it, in eV/atom.

    Parameters
    ----------
    force_field
        Force field to measure.
    crystal
        A periodic structure.

    Returns
    -------
    float
        Absolute difference.
    """
    one, two = force_field.evaluate([crystal, crystal.repeat((1, 2, 1))])
    return abs(one.energy - two.energy / 2) / len(crystal)
