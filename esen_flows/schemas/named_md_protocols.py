"""Published protocols of molecular dynamics by name."""

from collections.abc import Mapping
from typing import Any

from esen_flows.schemas.md import MDProtocol
from esen_flows.schemas.named_protocols import TEMPERATURE, own_settings
from esen_flows.schemas.protocols import RelaxProtocol


def dynamat_protocol(info: Mapping[str, Any]) -> MDProtocol:
    """The molecular dynamics task "DynaMat v1.0" of Matbench Discovery: 20 ps at each system's own temperature.

    Nose-Hoover chain with 0.25 fs and 25 fs, a frame every 2.5 fs, velocities of numpy's default_rng(0) with their
    drift.

    Parameters
    ----------
    info
        `atoms.info` of the structure with its `temperature_kelvin`.

    Returns
    -------
    MDProtocol
        The protocol; without a temperature if the structure gives none.
    """
    return MDProtocol(
        dynamics="nose-hoover-chain",
        n_steps=80_000,
        time_step=0.25,
        tdamp=25.0,
        temperature=own_settings(info).get(TEMPERATURE),
        traj_interval=10,
        zero_linear_momentum=False,
    )


_BEFORE_NVE = RelaxProtocol(
    fmax_ev_per_angstrom=0.05, max_steps=1000, relax_cell=False, optimizer="lbfgs", keep_unconverged=True
)


def tm23_protocol(info: Mapping[str, Any]) -> MDProtocol:
    """Constant energy for metals of TM23 as eSEN's authors run it: 100 ps of 5 fs from 1.25 melting temperatures.

    Positions are relaxed before, by LBFGS to 0.05 eV/Angstrom in at most 1000 steps. Unlike theirs, velocities have a
    seed.

    Parameters
    ----------
    info
        `atoms.info` of the structure; a `temperature_kelvin` in it is used instead.

    Returns
    -------
    MDProtocol
        The protocol.
    """
    own = own_settings(info).get(TEMPERATURE)
    return MDProtocol(
        ensemble="nve",
        n_steps=20_000,
        time_step=5.0,
        temperature=own,
        temperature_over_melting=1.25 if own is None else None,
        traj_interval=10,
        zero_linear_momentum=False,
        relax=_BEFORE_NVE,
    )


def md22_protocol(info: Mapping[str, Any]) -> MDProtocol:
    """Constant energy for molecules of MD22 as eSEN's authors run it: 100 ps of 1 fs from 500 K.

    Positions are relaxed before, by LBFGS to 0.05 eV/Angstrom in at most 1000 steps. Unlike theirs, velocities have a
    seed.

    Parameters
    ----------
    info
        `atoms.info` of the structure; a `temperature_kelvin` in it is used instead of 500 K, such as 400 for the
        buckyball catcher and the double-walled nanotube.

    Returns
    -------
    MDProtocol
        The protocol.
    """
    return MDProtocol(
        ensemble="nve",
        n_steps=100_000,
        time_step=1.0,
        temperature=own_settings(info).get(TEMPERATURE, 500.0),
        traj_interval=10,
        zero_linear_momentum=False,
        relax=_BEFORE_NVE,
    )
