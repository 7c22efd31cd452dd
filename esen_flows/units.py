"""Conversion factors, each with its meaning; everything else in the package is eV, Angstrom, amu, K and THz."""

from typing import Literal

EV_PER_ANGSTROM3_TO_GPA = 160.21766339999996  # CODATA 2018: 1 eV/Angstrom^3 in GPa
THZ_PER_ROOT_CURVATURE = 15.633304  # sqrt(1 eV/amu/Angstrom^2) / 2 pi in THz
THZ_TO_CM1 = 33.35640951981521
KELVIN_PER_THZ = 47.99243073366221  # h/k_B in K/THz
KB_EV_PER_KELVIN = 8.617330337217213e-05  # of ASE, CODATA 2014
MEV_PER_THZ = 4.135667696923859  # h in meV/THz, exact in SI

# Stored documents are in THz; figures and tables convert where a reader asks for another unit of frequency.
FrequencyUnit = Literal["THz", "cm-1", "meV"]
PER_THZ: dict[FrequencyUnit, float] = {"THz": 1.0, "cm-1": THZ_TO_CM1, "meV": MEV_PER_THZ}
