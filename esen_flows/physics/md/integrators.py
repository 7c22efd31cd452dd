"""One step of molecular dynamics for one structure, around its force call.

`begin` moves the atoms to where forces are needed, `end` finishes the step with these forces. Lengths are in Angstrom,
energies in eV, masses in u, and times in ASE's unit, Angstrom sqrt(u/eV) = 10.18 fs. A step depends on nothing but the
numbers in a `Body`, its noise included, so that a body that was stored continues with the same bits.
"""

from abc import ABC, abstractmethod
from dataclasses import dataclass

import numpy as np
from ase import Atoms, units

from esen_flows.physics.relax_start import free_directions
from esen_flows.schemas.atom_properties import properties_of
from esen_flows.schemas.md import MDProtocol

# Weights of the fourth-order splitting of Suzuki and Yoshida, by which the chain is integrated.
_OUTER = 1.0 / (2.0 - 2.0 ** (1.0 / 3.0))
_WEIGHTS = (_OUTER, 1.0 - 2.0 * _OUTER, _OUTER)


@dataclass
class Body:
    """A structure in motion.

    Attributes
    ----------
    masses
        (n, 1) masses in u.
    positions
        (n, 3) positions in Angstrom, not wrapped into the cell.
    momenta
        (n, 3) momenta in sqrt(u eV).
    degrees_of_freedom
        Directions in which something can move.
    free
        (n, 3, 3) projectors on the directions in which each atom may move; None where all may.
    forces
        (n, 3) forces in eV/Angstrom at the positions, without those on fixed coordinates.
    energy
        Potential energy in eV.
    stress
        (3, 3) stress in eV/Angstrom^3, NaN without a cell.
    heat
        Energy in eV that a thermostat has given to the atoms.
    step
        Number of finished steps.
    chain
        (2, length) positions (without unit) and momenta (eV times time) of a Nose-Hoover chain.
    """

    masses: np.ndarray
    positions: np.ndarray
    momenta: np.ndarray
    degrees_of_freedom: int
    free: np.ndarray | None
    forces: np.ndarray
    energy: float
    stress: np.ndarray
    heat: float
    step: int
    chain: np.ndarray

    @classmethod
    def at_start(cls, atoms: Atoms, chain_length: int, degrees_of_freedom: int) -> "Body":
        """A structure without forces, whose momenta are those of `atoms`.

        Parameters
        ----------
        atoms
            The structure with its momenta, masses and constraints.
        chain_length
            Thermostats in its Nose-Hoover chain.
        degrees_of_freedom
            Directions in which something can move.

        Returns
        -------
        Body
            The structure before its first force call.
        """
        n = len(atoms)
        return cls(
            masses=atoms.get_masses()[:, None],
            positions=atoms.positions.copy(),
            momenta=atoms.get_momenta(),
            degrees_of_freedom=degrees_of_freedom,
            free=free_directions(properties_of(atoms), atoms.cell.array),
            forces=np.zeros((n, 3)),
            energy=0.0,
            stress=np.full((3, 3), np.nan),
            heat=0.0,
            step=0,
            chain=np.zeros((2, chain_length)),
        )

    @property
    def kinetic_energy(self) -> float:
        """Kinetic energy in eV."""
        return 0.5 * float((self.momenta**2 / self.masses).sum())

    @property
    def temperature(self) -> float:
        """Temperature in K by the kinetic energy; 0 where nothing can move."""
        return 2.0 * self.kinetic_energy / (max(self.degrees_of_freedom, 1) * units.kB)

    def projected(self, vectors: np.ndarray) -> np.ndarray:
        """Vectors without their components along fixed directions.

        Parameters
        ----------
        vectors
            (n, 3).

        Returns
        -------
        np.ndarray
            (n, 3).
        """
        return vectors if self.free is None else np.einsum("aij,aj->ai", self.free, vectors)

    def state(self) -> np.ndarray:
        """Everything that changes, as one array that keeps its bits.

        Returns
        -------
        np.ndarray
            (9 n + 12 + 2 chain,) float64.
        """
        scalars = [float(self.step), self.energy, self.heat]
        parts = (scalars, self.stress, self.chain, self.positions, self.momenta, self.forces)
        return np.concatenate([np.ravel(part) for part in parts]).astype(np.float64)

    def restore(self, state: np.ndarray) -> None:
        """Continue from an earlier `state` of the same structure.

        Parameters
        ----------
        state
            The array.
        """
        sizes = (3, self.stress.size, self.chain.size, *3 * (self.positions.size,))
        scalars, stress, chain, positions, momenta, forces = np.split(state, np.cumsum(sizes)[:-1])
        self.step, self.energy, self.heat = int(scalars[0]), float(scalars[1]), float(scalars[2])
        self.stress, self.chain = stress.reshape(3, 3).copy(), chain.reshape(self.chain.shape).copy()
        self.positions, self.momenta, self.forces = (
            part.reshape(self.positions.shape).copy() for part in (positions, momenta, forces)
        )

    def kick(self, time: float) -> None:
        """Change the momenta by the forces.

        Parameters
        ----------
        time
            How long they act, in ASE's unit.
        """
        self.momenta = self.momenta + time * self.forces

    def drift(self, time: float) -> None:
        """Change the positions by the momenta.

        Parameters
        ----------
        time
            How long, in ASE's unit.
        """
        self.positions = self.positions + time * self.momenta / self.masses


class Integrator(ABC):
    """A step of one structure; `begin`, then new forces, then `end`."""

    @abstractmethod
    def begin(self, body: Body) -> None:
        """Move the atoms to where forces are needed.

        Parameters
        ----------
        body
            The structure; it is changed.
        """

    @abstractmethod
    def end(self, body: Body) -> None:
        """Finish the step with the forces at the new positions.

        Parameters
        ----------
        body
            The structure; it is changed.
        """


class VelocityVerlet(Integrator):
    """Constant energy.

    Parameters
    ----------
    time_step
        In ASE's unit.
    """

    def __init__(self, time_step: float) -> None:
        self.time_step = time_step

    def begin(self, body: Body) -> None:
        """Half a kick, and the drift.

        Parameters
        ----------
        body
            The structure; it is changed.
        """
        body.kick(0.5 * self.time_step)
        body.drift(self.time_step)

    def end(self, body: Body) -> None:
        """Half a kick.

        Parameters
        ----------
        body
            The structure; it is changed.
        """
        body.kick(0.5 * self.time_step)


class Langevin(Integrator):
    """Constant temperature by friction and noise in the middle of the drift: BAOAB, Leimkuhler and Matthews 2013.

    The noise of a step follows from the seed and the number of the step.

    Parameters
    ----------
    time_step
        In ASE's unit.
    kt
        Temperature in eV.
    friction
        In inverse units of time.
    seed
        Seed of the noise.
    """

    def __init__(self, time_step: float, kt: float, friction: float, seed: int) -> None:
        self.time_step, self.kt, self.seed = time_step, kt, seed
        self._kept = float(np.exp(-friction * time_step))

    def begin(self, body: Body) -> None:
        """Half a kick, half the drift, friction and noise, half the drift.

        Parameters
        ----------
        body
            The structure; it is changed.
        """
        body.kick(0.5 * self.time_step)
        body.drift(0.5 * self.time_step)
        before = body.kinetic_energy
        # Streams of different steps are 2^64 numbers apart.
        noise = np.random.Generator(np.random.Philox(key=self.seed, counter=[0, body.step, 0, 0]))
        width = np.sqrt((1.0 - self._kept**2) * self.kt * body.masses)
        kicks = width * noise.standard_normal(body.momenta.shape)
        body.momenta = self._kept * body.momenta + body.projected(kicks)
        body.heat += body.kinetic_energy - before
        body.drift(0.5 * self.time_step)

    def end(self, body: Body) -> None:
        """Half a kick.

        Parameters
        ----------
        body
            The structure; it is changed.
        """
        body.kick(0.5 * self.time_step)


class NoseHooverChain(VelocityVerlet):
    """Constant temperature by a chain of thermostats, deterministic: Martyna, Tuckerman et al. 1992 and 1996.

    Parameters
    ----------
    time_step, tdamp
        In ASE's unit.
    kt
        Temperature in eV.
    tloop
        Sub-steps of the chain in each half step.
    """

    def __init__(self, time_step: float, kt: float, tdamp: float, tloop: int) -> None:
        super().__init__(time_step)
        self.kt, self.tdamp, self.tloop = kt, tdamp, tloop

    def begin(self, body: Body) -> None:
        """Half a step of the chain, half a kick, and the drift.

        Parameters
        ----------
        body
            The structure; it is changed.
        """
        self._thermostat(body)
        super().begin(body)

    def end(self, body: Body) -> None:
        """Half a kick, and half a step of the chain.

        Parameters
        ----------
        body
            The structure; it is changed.
        """
        super().end(body)
        self._thermostat(body)

    def _thermostat(self, body: Body) -> None:
        before = body.kinetic_energy
        chain, doubled, scale = body.chain, 2.0 * before, 1.0
        inertia = np.full(chain.shape[1], self.kt * self.tdamp**2)
        inertia[0] *= body.degrees_of_freedom
        wanted = body.degrees_of_freedom * self.kt
        for weight in _WEIGHTS * self.tloop:
            time = 0.5 * self.time_step * weight / self.tloop
            for number in reversed(range(len(inertia))):
                self._push(chain, inertia, number, scale**2 * doubled - wanted, time)
            scale *= float(np.exp(-time * chain[1, 0] / inertia[0]))
            chain[0] += time * chain[1] / inertia
            for number in range(len(inertia)):
                self._push(chain, inertia, number, scale**2 * doubled - wanted, time)
        body.momenta = scale * body.momenta
        body.heat += before * (scale**2 - 1.0)

    def _push(self, chain: np.ndarray, inertia: np.ndarray, number: int, excess: float, time: float) -> None:
        """Half of a sub-step of one thermostat, between two quarters of the friction by the next one."""
        momenta = chain[1]
        force = excess if number == 0 else momenta[number - 1] ** 2 / inertia[number - 1] - self.kt
        last = number == len(inertia) - 1
        slowed = 1.0 if last else float(np.exp(-0.25 * time * momenta[number + 1] / inertia[number + 1]))
        momenta[number] = slowed * (slowed * momenta[number] + 0.5 * time * force)


def integrator_of(protocol: MDProtocol, numbers: np.ndarray, temperature_kelvin: float) -> Integrator:
    """The integrator of a protocol for a structure.

    Parameters
    ----------
    protocol
        Protocol of the dynamics.
    numbers
        (n,) atomic numbers.
    temperature_kelvin
        Temperature of the thermostat in K.

    Returns
    -------
    Integrator
        The integrator.
    """
    step_fs, kt = protocol.time_step_fs(numbers), units.kB * temperature_kelvin
    step = step_fs * units.fs
    if protocol.integrator == "velocityverlet":
        return VelocityVerlet(step)
    if protocol.integrator == "langevin":
        return Langevin(step, kt, protocol.friction_per_ps / (1000.0 * units.fs), protocol.mb_velocity_seed)
    return NoseHooverChain(step, kt, (protocol.tdamp or 100.0 * step_fs) * units.fs, protocol.tloop)
