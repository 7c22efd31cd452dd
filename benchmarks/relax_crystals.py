"""The crystals of a recipe at the lattice constants that a force field gives them, as lines for the recipe.

    python benchmarks/relax_crystals.py models/esen_nano/data.yaml --model sevennet_l3i5

prints the `crystals:` of the recipe anew. Every relaxation starts from bonds as long as the sum of ASE's covalent radii
and from ideal c/a and u, so that no number of the recipe, and none from any table of lattice constants, goes in.
Protocol: FIRE, fmax 1e-4 eV/Angstrom, symmetry kept.
"""

import argparse
import sys
import time
from pathlib import Path

import numpy as np
from ase import Atoms
from ase.data import atomic_numbers, covalent_radii

from esen_flows.data.prototypes import Crystal, perfect
from esen_flows.data.recipes import read_recipe
from esen_flows.forcefield.contract import ForceField
from esen_flows.forcefield.load import load_force_field
from esen_flows.physics.relax import relax
from esen_flows.schemas.protocols import RelaxProtocol

# Without inversion averaging: each of these crystals is its own inverse, or a proper rotation of it.
PROTOCOL = RelaxProtocol(fmax_ev_per_angstrom=1e-4, max_steps=1000, symmetry="fix", parity="as_is")
# The lattice constant over the length of a bond.
LATTICE_OVER_BOND = {"diamond": 4 / 3**0.5, "zincblende": 4 / 3**0.5, "rocksalt": 2.0, "wurtzite": (8 / 3) ** 0.5}


def guessed(crystal: Crystal) -> Crystal:
    """The crystal with bonds as long as the sum of covalent radii."""
    pair = (crystal.species[0], crystal.species[-1])
    bond = sum(float(covalent_radii[atomic_numbers[symbol]]) for symbol in pair)
    return Crystal(crystal.name, crystal.prototype, crystal.species, bond * LATTICE_OVER_BOND[crystal.prototype])


def geometry(crystal: Crystal, atoms: Atoms) -> Crystal:
    """The crystal with the lattice constant (and c/a and u) of a primitive cell of it."""
    if crystal.prototype != "wurtzite":
        return Crystal(crystal.name, crystal.prototype, crystal.species, float(np.cbrt(4.0 * atoms.get_volume())))
    a, _, c = (float(length) for length in atoms.cell.lengths())
    z = atoms.get_scaled_positions()[:, 2]
    u = float(np.mean([(z[0] - z[3]) % 1.0, (z[2] - z[1]) % 1.0]))
    return Crystal(crystal.name, crystal.prototype, crystal.species, a, c / a, u)


def line(crystal: Crystal) -> str:
    """The crystal as one line of a recipe."""
    values = {"prototype": crystal.prototype, "species": f"[{', '.join(crystal.species)}]"}
    for key in ("lattice_angstrom", "c_over_a", "u"):
        number = getattr(crystal, key)
        if number is not None:
            values[key] = f"{number:.5f}"
    return f"  {crystal.name}: {{{', '.join(f'{key}: {value}' for key, value in values.items())}}}"


def relaxed(crystal: Crystal, force_field: ForceField) -> Crystal:
    """The crystal as the force field wants it; what it took goes to stderr."""
    began = time.perf_counter()
    output = relax(perfect(guessed(crystal)), force_field, PROTOCOL)
    seconds = time.perf_counter() - began
    print(
        f"{crystal.name}: {output.n_steps} steps, {seconds:.1f} s, space group {output.space_group_final}, "
        f"{output.energy_per_atom_ev:.4f} eV/atom",
        file=sys.stderr,
        flush=True,
    )
    return geometry(crystal, output.structure.to_atoms())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("recipe", type=Path)
    parser.add_argument("--model", default="sevennet_l3i5")
    parser.add_argument(
        "--part", type=int, nargs=2, default=(0, 1), metavar=("K", "N"), help="every Nth crystal from K"
    )
    arguments = parser.parse_args()
    crystals = read_recipe(arguments.recipe).crystals[arguments.part[0] :: arguments.part[1]]
    force_field = load_force_field(arguments.model)
    for crystal in crystals:
        print(line(relaxed(crystal, force_field)), flush=True)


if __name__ == "__main__":
    main()
