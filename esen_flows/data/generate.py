"""Training structures of a recipe: strained, rattled and displaced crystals, the same ones for the same seed."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace

import numpy as np
from ase import Atoms
from ase.neighborlist import neighbor_list

from esen_flows.data.prototypes import PROTOTYPES, Crystal, perfect
from esen_flows.data.recipes import Group, Recipe
from esen_flows.errors import InputError

_MAX_DRAWS = 200
# Frames of molecular dynamics from a starting structure, as a group asks for them, with the seed of the thermostat's
# noise. They need a force field, which this room does not import; `training.snapshots` has such a function.
Dynamics = Callable[[Atoms, Group, int], list[Atoms]]


def generate(
    recipe: Recipe, structures: Mapping[str, Atoms] | None = None, dynamics: Dynamics | None = None
) -> list[Atoms]:
    """All structures of a recipe, in order; the same recipe gives the same structures on every machine.

    Snapshots of molecular dynamics are as reproducible as the force field behind `dynamics`.

    Parameters
    ----------
    recipe
        Recipe from `read_recipe` or `recipe_from_dict`.
    structures
        Crystals by name, which groups may give as their prototype.
    dynamics
        Function that runs the molecular dynamics of groups with snapshots.

    Returns
    -------
    list[Atoms]
        Structures with `info["group"]`, and with `info["crystal"]` if they are made of a crystal of the recipe.

    Raises
    ------
    InputError
        A prototype is unknown, displacements never keep the minimum distance, or there are snapshots and no `dynamics`.

    Examples
    --------
    >>> from esen_flows.data.recipes import recipe_from_dict
    >>> group = {"name": "rattled", "prototype": "fcc", "species": "Cu", "lattice_angstrom": 3.6, "count": 2}
    >>> structures = generate(recipe_from_dict({"seed": 1, "groups": [{**group, "rattle_angstrom": 0.05}]}))
    >>> structures[1].info
    {'group': 'rattled'}
    """
    made: list[Atoms] = []
    for group, info in _single_crystal_groups(recipe):
        # Seeded by name and not by position: inserting a group or a crystal leaves all others as they were.
        generator = np.random.default_rng([recipe.seed, *"/".join(info.values()).encode()])
        for index in range(group.count):
            start = _structure(group, index, generator, recipe, structures or {})
            frames = [start] if group.snapshots == 0 else _snapshots(group, start, generator, dynamics)
            for frame in frames:
                frame.info = dict(info)
            made += frames
    return made


def _single_crystal_groups(recipe: Recipe) -> Iterator[tuple[Group, dict[str, str]]]:
    """Every group with the info of its structures; a group of several crystals as one group for each crystal."""
    for group in recipe.groups:
        if not group.crystals_of:
            yield group, {"group": group.name}
            continue
        for crystal in recipe.crystals:
            if crystal.prototype in group.crystals_of:
                perfect(crystal)  # refuses a crystal whose lattice constant is not known yet
                assert crystal.lattice_angstrom is not None
                lattice = (crystal.lattice_angstrom, crystal.lattice_angstrom)
                geometry = {name: getattr(crystal, name) for name in ("prototype", "species", "c_over_a", "u")}
                info = {"group": group.name, "crystal": crystal.name}
                yield replace(group, lattice_angstrom=lattice, **geometry), info


def _snapshots(group: Group, start: Atoms, generator: np.random.Generator, dynamics: Dynamics | None) -> list[Atoms]:
    if dynamics is None:
        raise InputError(
            f"group {group.name!r} asks for snapshots of molecular dynamics, which need a force field; "
            "give `dynamics` (training.snapshots), or make it with `esen-flows label`"
        )
    return dynamics(start, group, int(generator.integers(2**63)))


def _structure(
    group: Group, index: int, generator: np.random.Generator, recipe: Recipe, structures: Mapping[str, Atoms]
) -> Atoms:
    """Structure number `index` of a group: a crystal that is strained, repeated and displaced."""
    crystal = _prototype(group, generator, structures)
    crystal.set_cell(crystal.cell.array @ _deformation(group, index, generator), scale_atoms=True)
    closest = recipe.minimum_distance_angstrom
    if recipe.minimum_distance_fraction > 0.0:
        closest = max(closest, recipe.minimum_distance_fraction * _shortest_distance(crystal))
    crystal = crystal.repeat(group.repeat)
    perfect_positions = crystal.positions.copy()
    for _ in range(_MAX_DRAWS):
        crystal.positions = perfect_positions + _displacements(group, crystal, generator)
        if not len(neighbor_list("i", crystal, closest)):
            return crystal
    raise InputError(
        f"group {group.name!r}: {_MAX_DRAWS} draws brought atoms closer than {closest:g} "
        f"Angstrom with rattle_angstrom {group.rattle_angstrom}; lower the rattle or the minimum distance"
    )


def _shortest_distance(crystal: Atoms) -> float:
    """Shortest distance between two atoms of a crystal in Angstrom.

    An atom and its own image are never farther apart than the length of the shortest cell vector.
    """
    cutoff = float(np.linalg.norm(crystal.cell.array, axis=1).min())
    return float(neighbor_list("d", crystal, cutoff * (1.0 + 1e-9)).min())


def _prototype(group: Group, generator: np.random.Generator, structures: Mapping[str, Atoms]) -> Atoms:
    if group.prototype in structures:
        return structures[group.prototype].copy()
    if group.prototype not in PROTOTYPES:
        known = [*PROTOTYPES, *structures]
        raise InputError(f"group {group.name!r}: unknown prototype {group.prototype!r}; known are {known}")
    a = float(generator.uniform(*group.lattice_angstrom))
    return perfect(Crystal(group.name, group.prototype, group.species, a, group.c_over_a, group.u), group.cubic)


def _deformation(group: Group, index: int, generator: np.random.Generator) -> np.ndarray:
    """(3, 3) matrix that right-multiplies row vectors: volume change times a traceless symmetric strain."""
    low, high = group.volume_strain
    if group.volume_scan:
        change = low + (high - low) * index / max(1, group.count - 1)
    else:
        change = float(generator.uniform(low, high))
    strain = generator.standard_normal((3, 3))
    strain = strain + strain.T
    strain -= np.trace(strain) / 3 * np.eye(3)
    strain *= generator.uniform(*group.shear) / np.linalg.norm(strain)
    shear = np.eye(3) + strain
    # A traceless strain keeps the volume to first order only. Dividing by the determinant makes `change` exact.
    return np.cbrt((1.0 + change) / np.linalg.det(shear)) * shear


def _displacements(group: Group, crystal: Atoms, generator: np.random.Generator) -> np.ndarray:
    """(n, 3) displacements in Angstrom: a rattle of all atoms, and the moves of one or two atoms."""
    moved = np.zeros((len(crystal), 3))
    low, high = group.rattle_angstrom
    if high > 0.0:
        amplitude = np.exp(generator.uniform(np.log(low), np.log(high)))
        moved += amplitude * generator.standard_normal(moved.shape)
    if group.displaced_atoms:
        atoms = [int(generator.integers(len(crystal)))]
        if group.displaced_atoms == 2:
            distances = crystal.get_distances(atoms[0], range(len(crystal)), mic=True)
            near = np.flatnonzero((distances < group.pair_cutoff_angstrom) & (distances > 0.0))
            if not len(near):
                raise InputError(
                    f"group {group.name!r}: no second atom within pair_cutoff_angstrom "
                    f"{group.pair_cutoff_angstrom} Angstrom of atom {atoms[0]}; raise it or repeat the cell"
                )
            atoms.append(int(generator.choice(near)))
        for atom in atoms:
            direction = generator.standard_normal(3)
            length = float(generator.choice(group.displacement_angstrom))
            moved[atom] += length * direction / np.linalg.norm(direction)
    return moved
