"""Molecular dynamics: its protocol and steps."""

from math import ceil
from typing import ClassVar, Literal

import numpy as np
from ase.data import chemical_symbols
from pydantic import Field, PositiveFloat, PositiveInt, model_validator

from esen_flows.errors import InputError
from esen_flows.schemas.declarations import Parity
from esen_flows.schemas.force_symmetry import ForceSymmetry
from esen_flows.schemas.forces import MDForces, slow_interval
from esen_flows.schemas.frozen import Frozen
from esen_flows.schemas.property_entry import Step
from esen_flows.schemas.protocol_types import HIGHEST_KELVIN, Steps
from esen_flows.schemas.protocols import RelaxProtocol

Ensemble = Literal["nve", "nvt"]
Dynamics = Literal["velocityverlet", "langevin", "nose-hoover-chain"]
_ENSEMBLES: dict[Dynamics, Ensemble] = {"velocityverlet": "nve", "langevin": "nvt", "nose-hoover-chain": "nvt"}
_HYDROGEN = 1
# Of the metals of TM23 as eSEN's authors have them, and some others, in K.
MELTING_KELVIN = {
    "Ag": 1235, "Au": 1337, "Cd": 594, "Co": 1768, "Cr": 2180, "Cu": 1358, "Fe": 1811, "Hf": 2506, "Hg": 234,
    "Ir": 2739, "Mn": 1519, "Mo": 2896, "Nb": 2750, "Ni": 1728, "Os": 3306, "Pd": 1828, "Pt": 2041, "Re": 3459,
    "Rh": 2237, "Ru": 2607, "Ta": 3290, "Tc": 2430, "Ti": 1941, "V": 2183, "W": 3695, "Zn": 693, "Zr": 2128,
    "Al": 933, "Mg": 923, "Si": 1687, "Ge": 1211, "Na": 371, "Li": 454, "K": 337, "Pb": 601, "Sn": 505,
}  # fmt: skip


class MDProtocol(Frozen):
    """Molecular dynamics in a constant cell, with atomate2's names where it has such a setting.

    Attributes
    ----------
    ensemble
        "nvt", the default as in atomate2: constant temperature. "nve": constant energy.
    dynamics
        Integrator. None, the default: "langevin" for nvt (splitting BAOAB), "velocityverlet" for nve. The third is
        "nose-hoover-chain", for nvt, which is deterministic and that of ASE's NoseHooverChainNVT.
    n_steps
        Number of steps; 1000 as in atomate2.
    time_step
        Time step in fs. None, the default as in atomate2: 0.5 fs for structures with hydrogen, otherwise 2 fs.
    temperature
        Temperature in K of the initial velocities, and of the thermostat for nvt; 300 by default. None where
        `temperature_over_melting` says it.
    temperature_over_melting
        Temperature as a multiple of the melting temperature of the only element, in the place of `temperature`; None
        by default.
    traj_interval
        Steps from one recorded frame to the next. By default 10, because vibrations take longer than ten steps.
    mb_velocity_seed
        Seed of the Maxwell-Boltzmann velocities and of the noise of Langevin dynamics. 0 by default, so that a run can
        be repeated.
    zero_linear_momentum
        Whether the centre of mass is at rest at the start. On, because a drifting crystal has no other use.
    zero_angular_momentum
        Whether a structure without a cell does not rotate at the start; off as in atomate2.
    friction_per_ps
        Friction of Langevin dynamics in 1/ps; 10 as in atomate2.
    tdamp
        Characteristic time of the Nose-Hoover chain in fs. None, the default as ASE advises: 100 time steps.
    tchain
        Number of thermostats in the chain; 3 as in ASE.
    tloop
        Sub-steps of the chain in each half step; 1 as in ASE.
    parity
        "average": use (E(x) + E(-x)) / 2 for a force field that is not O(3)-equivariant; "as_is": use the force field
        as it is, the default, because an average doubles the cost.
    force_symmetry
        Average over rotations, as text such as "octahedral" or "random:8:1"; None, the default, takes the forces as
        they are. Nothing is projected, because moving atoms leave the space group. It holds for `relax` too.
    relax
        Relaxation before the dynamics, with the `parity` and `force_symmetry` of the dynamics and, where these are
        "direct", its `forces`; None, the default, starts from the structure as it is given.
    forces
        "conservative", the default: the forces that the force field gives, which declares whether they are the gradient
        of its energy. "direct": those of its direct heads, whose energy drifts. "mts(M)", such as mts(8): direct forces
        in every step and, in every M-th, M times what conservative ones differ from them (r-RESPA), which conserves
        energy nearly as conservative forces do and costs little more than direct ones. Frames are then taken in steps
        with conservative forces: M divides `traj_interval`.
    """

    added_later: ClassVar[frozenset[str]] = frozenset({"force_symmetry", "forces"})

    ensemble: Ensemble = "nvt"
    dynamics: Dynamics | None = None
    n_steps: Steps = 1000
    time_step: PositiveFloat | None = Field(default=None, le=100.0)
    temperature: PositiveFloat | None = Field(default=300.0, le=HIGHEST_KELVIN)
    temperature_over_melting: PositiveFloat | None = Field(default=None, le=100.0)
    traj_interval: PositiveInt = 10
    mb_velocity_seed: int = Field(default=0, ge=0, lt=2**63)
    zero_linear_momentum: bool = True
    zero_angular_momentum: bool = False
    friction_per_ps: PositiveFloat = Field(default=10.0, le=1e6)
    tdamp: PositiveFloat | None = Field(default=None, le=1e9)
    tchain: int = Field(default=3, ge=1, le=100)
    tloop: int = Field(default=1, ge=1, le=100)
    parity: Parity = "as_is"
    relax: RelaxProtocol | None = None
    forces: MDForces = "conservative"
    force_symmetry: ForceSymmetry | None = None

    @model_validator(mode="after")
    def _possible(self) -> "MDProtocol":
        if self.dynamics is not None and _ENSEMBLES[self.dynamics] != self.ensemble:
            raise ValueError(f"dynamics={self.dynamics} is for ensemble={_ENSEMBLES[self.dynamics]}")
        if self.temperature is not None and self.temperature_over_melting is not None:
            raise ValueError("temperature and temperature_over_melting contradict each other; set temperature=null")
        if self.force_symmetry is not None and self.force_symmetry.project:
            raise ValueError("force_symmetry: moving atoms leave the space group; average, and leave project out")
        if self.n_steps < self.traj_interval:
            raise ValueError(f"traj_interval={self.traj_interval} is longer than the run of n_steps={self.n_steps}")
        interval = slow_interval(self.forces) or 1
        if self.traj_interval % interval or self.n_steps % interval:
            raise ValueError(
                f"forces={self.forces} needs multiples of {interval} for traj_interval and n_steps, because only every "
                f"{interval} steps momenta and positions are of the same time; got {self.traj_interval} and "
                f"{self.n_steps}; set e.g. traj_interval={interval * ceil(self.traj_interval / interval)} and "
                f"n_steps={interval * ceil(self.n_steps / interval)}"
            )
        if self.relax is not None:
            self._check_relaxation(self.relax)
        return self

    def _check_relaxation(self, relaxation: RelaxProtocol) -> None:
        if relaxation.symmetry == "explore":
            raise ValueError(
                "relax.symmetry=explore is more than one relaxation; run `esen-flows relax --set symmetry=explore` "
                "first, and start the dynamics from its result"
            )
        for name in ("parity", "force_symmetry", "forces"):
            asked, default = getattr(relaxation, name), RelaxProtocol.model_fields[name].default
            if asked not in (default, getattr(self, name)):
                raise ValueError(
                    f"relax.{name}={asked}: the relaxation has that of the dynamics, {name}={getattr(self, name)}; "
                    f"leave relax.{name} out"
                )

    @property
    def integrator(self) -> Dynamics:
        """The integrator, that of the ensemble where none was chosen."""
        return self.dynamics or ("velocityverlet" if self.ensemble == "nve" else "langevin")

    def time_step_fs(self, numbers: np.ndarray) -> float:
        """The time step for a structure.

        Parameters
        ----------
        numbers
            (n,) atomic numbers.

        Returns
        -------
        float
            Time step in fs.
        """
        return self.time_step or (0.5 if _HYDROGEN in numbers else 2.0)

    def temperature_kelvin(self, numbers: np.ndarray) -> float:
        """The temperature for a structure.

        Parameters
        ----------
        numbers
            (n,) atomic numbers.

        Returns
        -------
        float
            Temperature in K.

        Raises
        ------
        InputError
            There is none, or it is a multiple of a melting temperature that is not known.
        """
        if self.temperature is not None:
            return self.temperature
        if self.temperature_over_melting is None:
            raise InputError(
                "no temperature is given, neither by the structure (temperature_kelvin in an extended XYZ file) nor by "
                "a setting; set temperature"
            )
        symbols = [chemical_symbols[z] for z in sorted(set(np.asarray(numbers).tolist()))]
        if len(symbols) != 1 or symbols[0] not in MELTING_KELVIN:
            raise InputError(
                f"no melting temperature of {'-'.join(symbols)} is known; set temperature, and "
                "temperature_over_melting=null"
            )
        return self.temperature_over_melting * MELTING_KELVIN[symbols[0]]


def md_steps(protocol: MDProtocol) -> tuple[Step, ...]:
    """The only step of molecular dynamics.

    Parameters
    ----------
    protocol
        Protocol of the dynamics.

    Returns
    -------
    tuple[Step, ...]
        The dynamics, with its relaxation.
    """
    return (Step("md", protocol),)
