"""The words by which a user names formats and units; importing them costs a command line nothing."""

from typing import Literal

# "folder" is a dataset of our own, "ase" whatever ASE reads with labels.
SourceFormat = Literal["extxyz", "ase-db", "ase-lmdb", "mptrj", "spice", "ase", "folder"]
EnergyUnit = Literal["eV", "hartree", "kcal/mol", "kJ/mol"]
LengthUnit = Literal["Angstrom", "bohr"]
# A minus: positive under compression, as VASP prints it. "virial": eV, minus volume times stress.
StressUnit = Literal["eV/Angstrom^3", "GPa", "kBar", "-eV/Angstrom^3", "-GPa", "-kBar", "virial"]
# What happens to a record that cannot be trained on.
OnBad = Literal["skip", "fail"]
