"""The words by which a user names formats and units, in a module that the command line imports at no cost."""

from typing import Literal

# "folder" is a dataset folder of this package; "ase" is any file that ASE reads with labels.
SourceFormat = Literal["extxyz", "ase-db", "ase-lmdb", "mptrj", "matpes", "spice", "ase", "folder"]
EnergyUnit = Literal["eV", "hartree", "kcal/mol", "kJ/mol"]
LengthUnit = Literal["Angstrom", "bohr"]
# With a minus: positive under compression, as VASP prints it. "virial": minus volume times stress, in eV.
StressUnit = Literal["eV/Angstrom^3", "GPa", "kBar", "-eV/Angstrom^3", "-GPa", "-kBar", "virial"]
# Order of a stress of six numbers: xx, yy, zz, yz, xz, xy (Voigt's), or xx, yy, zz, xy, yz, zx as VASP prints them.
StressOrder = Literal["voigt", "vasp"]
# Whether a record that cannot be trained on is left out, or ends the import.
OnBad = Literal["skip", "fail"]
