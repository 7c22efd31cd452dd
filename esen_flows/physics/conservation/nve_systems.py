"""The systems that run at constant energy: those of the eSEN paper, four crystals of known elements, or named ones.

Starting frames of TM23 and MD22 are read where they were pulled (`esen-flows data pull`). Without them, metals are
generated supercells, and molecules are conformations of SPICE where its geometries are. Every system says which.
"""

import io
import re
import zipfile
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from ase import Atoms
from ase.build import bulk
from ase.data import atomic_masses, atomic_numbers
from ase.io import read

from esen_flows.data.reference_sets.files import find
from esen_flows.errors import InputError
from esen_flows.physics.conservation.systems import choose_systems, crystal_or_molecule
from esen_flows.schemas.md import MDProtocol
from esen_flows.schemas.named_md_protocols import md22_protocol, tm23_protocol
from esen_flows.schemas.nve import Systems

TM23 = (
    "Ag", "Au", "Cd", "Co", "Cr", "Cu", "Fe", "Hf", "Hg", "Ir", "Mn", "Mo", "Nb", "Ni", "Os", "Pd", "Pt", "Re", "Rh",
    "Ru", "Ta", "Tc", "Ti", "V", "W", "Zn", "Zr",
)  # fmt: skip
# ASE has no simple cell of these: rhombohedral mercury and the 58 atoms of manganese, as cubic ones of their volumes.
_CUBIC = {"Hg": ("fcc", 4.58), "Mn": ("bcc", 2.90)}
MD22 = (
    "Ac-Ala3-NHMe", "DHA", "stachyose", "AT-AT", "AT-AT-CG-CG", "buckyball-catcher", "double-walled_nanotube",
)  # fmt: skip
_AT_400_KELVIN = ("buckyball-catcher", "double-walled_nanotube")
# Geometries of SPICE's authors: conformations in nm, with a mapped SMILES for each molecule.
_SPICE_FILES, _NANOMETRE = ("water.hdf5", "solvated-amino-acids.hdf5"), 10.0
_MAPPED_ATOM = re.compile(r"\[\d*(Cl|Br|[A-Za-z])[^\]:]*:(\d+)\]")
_LEAST_METAL_ATOMS, _LEAST_CRYSTAL_ATOMS, _CRYSTALS, _LIGHT_U = 32, 8, 4, 12.0


@dataclass(frozen=True)
class NveSystem:
    """A structure and how it runs.

    Attributes
    ----------
    name
        Name, such as "Cu" or "Ac-Ala3-NHMe".
    benchmark
        "TM23", "MD22", "full" (crystals) or "molecules", over whose systems statistics are averaged.
    start
        Where the structure is from.
    atoms
        The structure.
    protocol
        Time step, temperature and relaxation; the number of steps is that of the benchmark.
    """

    name: str
    benchmark: str
    start: str
    atoms: Atoms
    protocol: MDProtocol


def nve_systems(
    systems: Systems | Sequence[str],
    elements: Collection[int] | None,
    chemical_systems: Collection[str] | None = None,
    root: Path | None = None,
) -> list[NveSystem]:
    """The systems that a force field can run.

    Parameters
    ----------
    systems
        "full", "published", or names of crystals and molecules (`systems.crystal_or_molecule`).
    elements
        Atomic numbers that the force field knows; None: any.
    chemical_systems
        Exact sets of elements of its training structures, from which those of "full" are chosen; None: not known.
    root
        Folder of reference sets and of SPICE's geometries; None for generated structures alone.

    Returns
    -------
    list[NveSystem]
        At least one system.

    Raises
    ------
    InputError
        The force field knows the elements of none of them, or not those of one that is named, or there is no system of
        this name.

    Examples
    --------
    >>> [system.name for system in nve_systems("full", {14})]
    ['Si']
    >>> len(nve_systems("published", None))
    27
    >>> [(system.name, system.protocol.time_step) for system in nve_systems(("CH4", "W"), None)]
    [('CH4', 1.0), ('W', 2.0)]
    """
    if systems == "full":
        return [_own(name) for name in choose_systems(elements, chemical_systems, _CRYSTALS)]
    named = systems != "published"
    found = [_own(name) for name in systems] if named else [*_metals(root), *_molecules(root)]
    known = [one for one in found if elements is None or set(one.atoms.numbers.tolist()) <= set(elements)]
    if named and len(known) < len(found):
        unknown = ", ".join(one.name for one in found if one not in known)
        raise InputError(f"the force field does not know all elements of {unknown}; leave it out of nve.systems")
    if not known:
        raise InputError("the force field knows the elements of none of the published systems; use systems=full")
    return known


def _own(name: str) -> NveSystem:
    atoms = crystal_or_molecule(name)
    if not atoms.pbc.any():  # as MD22's
        return NveSystem(name, "molecules", "molecule of ASE's set G2, relaxed before", atoms, md22_protocol({}))
    atoms = _repeated(atoms, _LEAST_CRYSTAL_ATOMS)
    light = bool(atomic_masses[atoms.numbers].min() < _LIGHT_U)
    protocol = MDProtocol(ensemble="nve", time_step=1.0 if light else 2.0, temperature=600.0)
    return NveSystem(name, "full", "generated crystal, lattice constant from experiment", atoms, protocol)


def _repeated(atoms: Atoms, least: int) -> Atoms:
    """A supercell of at least some number of atoms, by doubling the shortest lattice vector."""
    while len(atoms) < least:
        copies = [1, 1, 1]
        copies[int(np.argmin(atoms.cell.lengths()))] = 2
        atoms = atoms.repeat(copies)
    return atoms


def _metals(root: Path | None) -> Iterator[NveSystem]:
    files = [] if root is None else find("tm23", root)
    for symbol in TM23:
        atoms, start = _published_frame(files, symbol), "first frame of TM23's molten test set"
        if atoms is None:
            structure, a = _CUBIC.get(symbol, (None, None))
            atoms = _repeated(bulk(symbol, structure, a=a), _LEAST_METAL_ATOMS)
            start = "generated supercell; TM23 is not on this machine (esen-flows data pull tm23)"
        yield NveSystem(symbol, "TM23", start, atoms, tm23_protocol({}))


def _published_frame(files: Collection[Path], symbol: str) -> Atoms | None:
    """The first frame of a metal from a file, a folder or the archive of TM23."""
    name = f"{symbol}_melt_nequip_test.xyz"
    for path in files:
        text = None
        if path.is_file() and path.suffix == ".zip":
            with zipfile.ZipFile(path) as archive:
                member = next((one for one in archive.namelist() if one.rpartition("/")[2] == name), None)
                text = None if member is None else archive.read(member).decode()
        else:
            found = [path] if path.name == name else sorted(path.rglob(name)) if path.is_dir() else []
            text = found[0].read_text(encoding="utf-8") if found else None
        if text is not None:
            frame = read(io.StringIO(text), index=0, format="extxyz")
            return Atoms(frame.numbers, positions=frame.positions, cell=frame.cell, pbc=frame.pbc)
    return None


def _molecules(root: Path | None) -> Iterator[NveSystem]:
    files = {} if root is None else {path.stem: path for path in find("md22", root)}
    for name in MD22 if files else ():
        if f"md22_{name}" in files:
            with np.load(files[f"md22_{name}"], allow_pickle=False) as arrays:
                atoms = Atoms(arrays["z"], positions=arrays["R"][0])
            own = {"temperature_kelvin": 400.0} if name in _AT_400_KELVIN else {}
            yield NveSystem(name, "MD22", "first frame of MD22", atoms, md22_protocol(own))
    if not files and root is not None:
        yield from _of_spice(root)


def _of_spice(root: Path) -> Iterator[NveSystem]:
    """First conformations of as many molecules as MD22 has, from SPICE's files of geometries."""
    paths = {path.name: path for path in (*root.glob("*.hdf5"), *root.glob("*/*.hdf5"))}
    names = [name for name in _SPICE_FILES if name in paths]
    if not names:
        return
    try:
        import h5py
    except ImportError as error:
        raise InputError("SPICE's geometries need the library h5py; pip install 'esen_flows[datasets]'") from error
    count = 0
    for file in names:
        with h5py.File(paths[file], "r") as groups:
            for molecule in groups:
                if count == len(MD22):
                    return
                smiles = groups[molecule]["smiles"].asstr()[0]
                places = {int(number): symbol.capitalize() for symbol, number in _MAPPED_ATOM.findall(smiles)}
                symbols = [atomic_numbers[places[number]] for number in sorted(places)]
                positions = _NANOMETRE * np.asarray(groups[molecule]["conformations"][0], dtype=float)
                if len(symbols) != len(positions):
                    raise InputError(
                        f"{molecule} of {paths[file]} has {len(positions)} atoms, its SMILES {len(symbols)}"
                    )
                start = f"conformation 0 of SPICE's {file}; MD22 is not on this machine (esen-flows data pull md22)"
                yield NveSystem(molecule, "MD22", start, Atoms(symbols, positions=positions), md22_protocol({}))
                count += 1
