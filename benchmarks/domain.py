"""Whether calibrated force fields tell structures like their training data from others.

    python benchmarks/domain.py esen_nano [--shared ../shared/data]

Structures that should be inside: the crystals of the recipes beside the card, perfect and rattled, at linear strains of
up to 3 % along all axes and along one, and benchmarks/data/unseen.xyz.xz. Structures that should be outside:
benchmarks/data/outside.xyz, compounds of known elements that training had not together, and known compounds in other
structures, at rounded experimental lattice constants (those of hypothetical structures are guesses). With `--shared`,
the DFT structures of MatCalc's sets of binary crystals (matcalc/*.json.gz), by whether training had their elements
together. Written to benchmarks/results/domain_<model>.json.
"""

import argparse
import gzip
import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from ase import Atoms
from ase.build import bulk
from ase.io import read

from esen_flows.data.importing import read_dataset
from esen_flows.data.prototypes import Crystal, perfect
from esen_flows.data.recipes import read_recipe
from esen_flows.forcefield.contract import ForceField
from esen_flows.forcefield.extrapolation import extrapolations
from esen_flows.forcefield.load import load_force_field
from esen_flows.schemas.card import card_path, read_card
from esen_flows.schemas.domain import chemical_system
from esen_flows.version import __version__

HERE = Path(__file__).parent
SILICON_ANGSTROM = 5.46667
RELAXED = HERE / "data" / "nano103.xyz.crystals.json"  # of crystals whose recipe has no lattice constants
STRAIN, RATTLE_ANGSTROM = 0.03, 0.03
SETS = ("alexandria-binary-pbe-phonon-2025.1", "mp-binary-pbe-elasticity-2025.1")


def main() -> None:
    """Measure, write, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model")
    parser.add_argument("--shared", type=Path)
    asked = parser.parse_args()
    torch.set_num_threads(1)
    force_field = load_force_field(asked.model, dtype="float32")
    systems = set(read_card(asked.model).chemical_systems or ())
    near = list(training_crystals(asked.model))
    unseen = [item.atoms for item in read_dataset(HERE / "data" / "unseen.xyz.xz")]
    unseen = [atoms for atoms in unseen if not systems or system_of(atoms) in systems]
    groups = {
        f"training crystals, rattled by {RATTLE_ANGSTROM} A, strained by up to {STRAIN:.0%}": ("inside", near),
        "unseen.xyz.xz": ("inside", covered(unseen, force_field)),
        "outside.xyz, new compounds": ("outside", outsiders(force_field, systems, "compound")),
        "outside.xyz, new structures": ("outside", outsiders(force_field, systems, "structure")),
    }
    if asked.shared:
        for known, title in ((False, "new compounds"), (True, "known compounds")):
            found = [a for a in covered(published(asked.shared), force_field) if (system_of(a) in systems) == known]
            groups[f"binary crystals by DFT, {title}"] = ("unknown" if known else "outside", found)
    limit = force_field.calibration.limit
    result: dict[str, Any] = {"model": asked.model, "key": force_field.key, "limit": limit, "esen_flows": __version__}
    result["groups"] = {
        title: {"expected": expected, **measured(force_field, structures, limit)}
        for title, (expected, structures) in groups.items()
        if structures
    }
    path = HERE / "results" / f"domain_{asked.model}.json"
    path.write_text(json.dumps(result, indent=1) + "\n")
    print(path.read_text())


def training_crystals(model: str) -> Iterator[Atoms]:
    """The crystals of the recipe beside a card, and silicon, each perfect and rattled at several strains.

    A card without a recipe of structures is of a model that learned those of esen_nano.
    """
    recipe = card_path(model).with_name("data.yaml")
    recipe = recipe if recipe.exists() else card_path("esen_nano").with_name("data.yaml")
    known = json.loads(RELAXED.read_text())["crystals"]
    found = {one["name"]: Crystal(**(one | {"species": tuple(one["species"])})) for one in known}
    written = read_recipe(recipe).crystals
    crystals = [perfect(one if one.lattice_angstrom else found[one.name]) for one in written]
    crystals.insert(0, bulk("Si", a=SILICON_ANGSTROM))
    elements = set(read_card(model).elements or ())
    for number, crystal in enumerate(crystals):
        if not set(crystal.get_chemical_symbols()) <= elements:
            continue
        for strain in ([0, 0, 0], [STRAIN] * 3, [-STRAIN] * 3, [STRAIN, 0, 0], [0, 0, -STRAIN]):
            strained = crystal * (2, 2, 2)
            strained.set_cell(strained.cell[:] @ np.diag(1.0 + np.array(strain)), scale_atoms=True)
            yield strained
            rattled = strained.copy()
            rattled.rattle(RATTLE_ANGSTROM, seed=number)
            yield rattled


def outsiders(force_field: ForceField, systems: set[str], kind: str) -> list[Atoms]:
    """Structures of outside.xyz whose elements a force field knows: of new sets of them, or of known ones."""
    found = [atoms for atoms in read(HERE / "data" / "outside.xyz", ":") if atoms.info["kind"] == kind]
    return [a for a in covered(found, force_field) if (system_of(a) in systems) == (kind == "structure")]


def published(shared: Path) -> Iterator[Atoms]:
    """Binary crystals relaxed by DFT."""
    from pymatgen.core import Structure

    for name in SETS:
        with gzip.open(shared / "matcalc" / f"{name}.json.gz") as file:
            for entry in json.load(file):
                structure = Structure.from_dict(entry["structure"])
                numbers, cell = structure.atomic_numbers, structure.lattice.matrix
                yield Atoms(numbers, positions=structure.cart_coords, cell=cell, pbc=True)


def covered(structures: Sequence[Atoms] | Iterator[Atoms], force_field: ForceField) -> list[Atoms]:
    """Those of the structures whose elements a force field knows."""
    elements = force_field.declaration.elements
    return [atoms for atoms in structures if elements is None or set(atoms.numbers.tolist()) <= elements]


def system_of(atoms: Atoms) -> str:
    """The set of elements of a structure."""
    return chemical_system(atoms.get_chemical_symbols())


def measured(force_field: ForceField, structures: Sequence[Atoms], limit: float) -> dict[str, Any]:
    """How many structures are outside, the range of their extrapolations, and those nearest to the limit."""
    values = np.array(extrapolations(force_field, structures))
    order = np.argsort(np.abs(np.log(values / limit)))[:5]
    return {
        "structures": len(values),
        "outside": int((values > limit).sum()),
        "smallest": round(float(values.min()), 3),
        "median": round(float(np.median(values)), 3),
        "largest": round(float(values.max()), 3),
        "nearest_to_the_limit": {
            str(structures[i].info.get("name") or structures[i].get_chemical_formula()): round(float(values[i]), 3)
            for i in order
        },
    }


if __name__ == "__main__":
    main()
