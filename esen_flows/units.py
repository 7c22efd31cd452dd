"""Conversion factors, each with its meaning; everything else in the package is eV, Angstrom, amu, K and THz."""

EV_PER_ANGSTROM3_TO_GPA = 160.21766339999996  # CODATA 2018: 1 eV/Angstrom^3 in GPa
THZ_TO_CM1 = 33.35640951981521
KELVIN_PER_THZ = 47.99243073366221  # h/k_B in K/THz
KB_EV_PER_KELVIN = 8.617330337217213e-05  # of ASE, CODATA 2014
