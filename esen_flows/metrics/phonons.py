"""Harmonic phonons against DFT: the quantities of the MDR benchmark (A. Loew et al., npj Comput. Mater. 2025)."""

import bz2
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from esen_flows.errors import InputError
from esen_flows.units import KELVIN_PER_THZ
from esen_flows.yaml_files import plain_value, sections

TEMPERATURE_KELVIN = 300.0
_SECTIONS = ("entropy:", "free_e:", "heat_capacity:", "phonon_freq:", "temperatures:")


@dataclass(frozen=True)
class HarmonicValues:
    """The four quantities of a crystal, per mole of primitive cells and at 300 K.

    Attributes
    ----------
    max_frequency_k
        Highest frequency at the commensurate q-points, as a temperature in K.
    entropy_j_per_k_mol
        Vibrational entropy in J/K/mol.
    free_energy_kj_per_mol
        Helmholtz free energy in kJ/mol.
    heat_capacity_j_per_k_mol
        Heat capacity at constant volume in J/K/mol.
    """

    max_frequency_k: float
    entropy_j_per_k_mol: float
    free_energy_kj_per_mol: float
    heat_capacity_j_per_k_mol: float


# Names of the mean absolute errors, by quantity.
METRICS = {
    "max_frequency_k": "mdr_max_frequency_mae_k",
    "entropy_j_per_k_mol": "mdr_entropy_mae_j_per_k_mol",
    "free_energy_kj_per_mol": "mdr_free_energy_mae_kj_per_mol",
    "heat_capacity_j_per_k_mol": "mdr_heat_capacity_mae_j_per_k_mol",
}


def read_mdr_reference(path: Path) -> HarmonicValues:
    """DFT's values in a file of the MDR benchmark, as its authors computed them from its forces.

    Their recipe is the protocol `mdr-loew`. Modes at Gamma that are zero but for rounding enter their entropies, which
    adds up to 0.03 J/K/mol (BaTe: 104.146 instead of 104.125).

    Parameters
    ----------
    path
        File such as mp-1000.yaml.bz2.

    Returns
    -------
    HarmonicValues
        The values.

    Raises
    ------
    InputError
        The file cannot be read, or has no values at 300 K.
    """
    try:
        with bz2.open(path, "rt", encoding="utf-8") as stream:
            content = plain_value("".join(sections(stream, _SECTIONS)))
        place = [float(kelvin) for kelvin in content["temperatures"]].index(TEMPERATURE_KELVIN)
        return HarmonicValues(
            max_frequency_k=float(np.max(content["phonon_freq"])) * KELVIN_PER_THZ,
            entropy_j_per_k_mol=float(content["entropy"][place]),
            free_energy_kj_per_mol=float(content["free_e"][place]),
            heat_capacity_j_per_k_mol=float(content["heat_capacity"][place]),
        )
    except (OSError, EOFError, ValueError, KeyError, TypeError) as error:
        raise InputError(f"{path} is not a phonopy file of the MDR set ({error}); fetch it again") from None


def mdr_metrics(pairs: Sequence[tuple[HarmonicValues, HarmonicValues]]) -> dict[str, float]:
    """Mean absolute errors over the crystals that have phonons; failures do not count, as in the published tables.

    Parameters
    ----------
    pairs
        Values of the force field and of DFT.

    Returns
    -------
    dict
        Errors under the names of `METRICS`; NaN without any crystal.
    """
    found = {}
    for quantity, name in METRICS.items():
        errors = [abs(getattr(ours, quantity) - getattr(dft, quantity)) for ours, dft in pairs]
        found[name] = float(np.mean(errors)) if errors else float("nan")
    return found
