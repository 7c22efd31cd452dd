"""Equations of state, fitted to the energies of relaxations at a series of volumes."""

from collections.abc import Callable, Sequence

import numpy as np

from esen_flows.errors import InputError, NotConvergedError
from esen_flows.schemas.documents import RelaxOutput
from esen_flows.schemas.eos import EosFit, EosFitProtocol, EosOutput
from esen_flows.units import EV_PER_ANGSTROM3_TO_GPA

CONFIDENCE = 0.95
_PARAMETERS = 4


def birch_murnaghan(
    volume: np.ndarray, energy0: float, volume0: float, modulus: float, derivative: float
) -> np.ndarray:
    """Energy by the equation of Birch and Murnaghan of third order (F. Birch, Phys. Rev. 71, 809 (1947)).

    Parameters
    ----------
    volume
        (n,) volumes.
    energy0
        Least energy.
    volume0
        Volume of least energy.
    modulus
        Bulk modulus there, in units of energy per volume.
    derivative
        Its derivative with respect to the pressure.

    Returns
    -------
    np.ndarray
        (n,) energies.
    """
    x = (volume0 / volume) ** (2.0 / 3.0) - 1.0
    return energy0 + 9.0 / 16.0 * volume0 * modulus * x**2 * (2.0 + x * (derivative - 4.0))


def vinet(volume: np.ndarray, energy0: float, volume0: float, modulus: float, derivative: float) -> np.ndarray:
    """Energy by the equation of Vinet et al., J. Phys. Condens. Matter 1, 1941 (1989).

    Parameters
    ----------
    volume, energy0, volume0, modulus, derivative
        As in `birch_murnaghan`.

    Returns
    -------
    np.ndarray
        (n,) energies.
    """
    x, slope = (volume / volume0) ** (1.0 / 3.0) - 1.0, 1.5 * (derivative - 1.0)
    return energy0 + 9.0 * modulus * volume0 / slope**2 * (1.0 - (1.0 + slope * x) * np.exp(-slope * x))


EQUATIONS: dict[str, Callable[..., np.ndarray]] = {"birch_murnaghan": birch_murnaghan, "vinet": vinet}


def equation_of_state(relaxations: Sequence[RelaxOutput], protocol: EosFitProtocol) -> EosOutput:
    """Fit both equations to the energies of relaxations at several volumes.

    Parameters
    ----------
    relaxations
        Relaxations of one crystal at different volumes, in any order.
    protocol
        Which equation is the answer.

    Returns
    -------
    EosOutput
        Volumes, energies and fits.

    Raises
    ------
    InputError
        There are fewer than six volumes.
    NotConvergedError
        The least energy is at an end of the volumes, or no equation describes the energies.
    """
    pairs = sorted((each.volume_per_atom_angstrom3, each.energy_per_atom_ev) for each in relaxations)
    volumes, energies = np.array(pairs).T
    fits = {name: fit(name, volumes, energies) for name in EQUATIONS}
    return EosOutput(
        volumes_per_atom_angstrom3=volumes, energies_per_atom_ev=energies, equation=protocol.equation, fits=fits
    )


def evaluated(equation: str, found: EosFit, volumes: np.ndarray) -> np.ndarray:
    """Energies by a fitted equation.

    Parameters
    ----------
    equation
        "birch_murnaghan" or "vinet".
    found
        Its parameters.
    volumes
        (n,) volumes per atom in Angstrom^3.

    Returns
    -------
    np.ndarray
        (n,) energies per atom in eV.
    """
    modulus = found.bulk_modulus_gpa / EV_PER_ANGSTROM3_TO_GPA
    parameters = (found.energy_per_atom_ev, found.volume_per_atom_angstrom3, modulus, found.bulk_modulus_derivative)
    return EQUATIONS[equation](volumes, *parameters)


def fit(equation: str, volumes: np.ndarray, energies: np.ndarray) -> EosFit:
    """Fit one equation by least squares.

    Parameters
    ----------
    equation
        "birch_murnaghan" or "vinet".
    volumes
        (n,) volumes per atom in Angstrom^3, ascending.
    energies
        (n,) energies per atom in eV.

    Returns
    -------
    EosFit
        Parameters with the half-widths of their intervals, from the residuals and Student's distribution.

    Raises
    ------
    InputError
        There are fewer than six volumes.
    NotConvergedError
        The least energy is at an end of the volumes, or the equation does not describe the energies.

    Examples
    --------
    >>> volumes = np.linspace(17.0, 23.0, 9)
    >>> found = fit("vinet", volumes, vinet(volumes, -5.0, 20.0, 0.6, 4.2))
    >>> print(f"{found.volume_per_atom_angstrom3:.4f} {found.bulk_modulus_derivative:.4f}")
    20.0000 4.2000
    """
    from scipy.optimize import curve_fit
    from scipy.stats import t as student

    freedom = len(volumes) - _PARAMETERS
    if freedom < 2:
        raise InputError(f"an equation of state needs at least six volumes, got {len(volumes)}")
    if np.argmin(energies) in (0, len(volumes) - 1):
        raise NotConvergedError(
            f"the least energy is at an end of the volumes, {volumes[0]:.2f} to {volumes[-1]:.2f} Angstrom^3/atom; "
            "relax the cell first (relax.relax_cell=true), or choose a wider linear_strain"
        )
    a, b, c = np.polyfit(volumes, energies, 2)
    start = (c - b**2 / (4.0 * a), -b / (2.0 * a), -b, 4.0)  # of the parabola: B = V d2E/dV2
    try:
        found, covariance = curve_fit(EQUATIONS[equation], volumes, energies, p0=start, xtol=1e-14, ftol=1e-14)
    except RuntimeError as error:
        raise NotConvergedError(f"no {equation} equation describes the energies at these volumes: {error}") from error
    energy0, volume0, modulus, derivative = map(float, found)
    if not (volumes[0] < volume0 < volumes[-1] and modulus > 0.0):
        raise NotConvergedError(
            f"the {equation} equation has its minimum at {volume0:.2f} Angstrom^3/atom with a bulk modulus of "
            f"{modulus * EV_PER_ANGSTROM3_TO_GPA:.1f} GPa, outside of the volumes; choose another linear_strain"
        )
    widths = student.ppf(0.5 + CONFIDENCE / 2.0, freedom) * np.sqrt(np.diag(covariance))
    residuals = energies - EQUATIONS[equation](volumes, *found)
    return EosFit(
        energy_per_atom_ev=energy0,
        volume_per_atom_angstrom3=volume0,
        bulk_modulus_gpa=modulus * EV_PER_ANGSTROM3_TO_GPA,
        bulk_modulus_derivative=derivative,
        volume_interval_angstrom3=float(widths[1]),
        bulk_modulus_interval_gpa=float(widths[2]) * EV_PER_ANGSTROM3_TO_GPA,
        bulk_modulus_derivative_interval=float(widths[3]),
        rms_residual_mev_per_atom=1000.0 * float(np.sqrt(np.mean(residuals**2))),
    )
