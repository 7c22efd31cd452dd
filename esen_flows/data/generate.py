"""Training structures from a flat recipe: strained, rattled and displaced crystals, the same ones for the same seed."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

import numpy as np
from ase import Atoms
from ase.data import atomic_numbers
from ase.neighborlist import neighbor_list

from esen_flows.data.prototypes import PROTOTYPES, Crystal, perfect
from esen_flows.errors import InputError

_MAX_DRAWS = 200
_OF_A_CRYSTAL = ("prototype", "species", "lattice_angstrom", "c_over_a", "u")


@dataclass(frozen=True)
class Group:
    """Structures made alike; ranges are (low, high), and a single number stands for both.

    Attributes
    ----------
    name
        of the group; every structure carries it in `info["group"]`.
    count
        how many structures; with `crystals_of`, of every crystal.
    prototype
        one of PROTOTYPES, or a name in the `structures` given to `generate`.
    crystals_of
        instead of a prototype: every crystal of the recipe that has one of these prototypes. Its structures
        carry the crystal's name in `info["crystal"]`.
    species
        chemical symbols, as many as the prototype takes; ignored for a given structure.
    lattice_angstrom
        range of the lattice constant a (cubic cell edge), uniform; ignored for a given structure.
    c_over_a, u
        see `Crystal`.
    cubic
        conventional cell instead of the primitive one.
    repeat
        supercell along the three cell vectors.
    volume_strain
        range of the relative volume change, uniform.
    volume_scan
        spread the volume changes evenly from low to high instead of at random.
    shear
        range of the Frobenius norm of a random traceless symmetric strain, uniform.
    rattle_angstrom
        range of the standard deviation of Gaussian displacements per component; log-uniform.
    displaced_atoms
        0, 1 or 2 atoms moved by `displacement_angstrom`, each in a direction of its own.
    displacement_angstrom
        lengths to choose from.
    pair_cutoff_angstrom
        the second moved atom is one of those closer than this to the first.
    snapshots
        frames taken from molecular dynamics that starts at the structure, in its place; 0: no dynamics.
    temperature_kelvin
        the thermostat's temperature at the first and at the last snapshot, linear between them.
    warm_up_femtoseconds
        at the first temperature, before the first interval.
    interval_femtoseconds
        from one snapshot to the next.
    """

    name: str
    count: int
    prototype: str = ""
    crystals_of: tuple[str, ...] = ()
    species: tuple[str, ...] = ("Si",)
    lattice_angstrom: tuple[float, float] = (0.0, 0.0)
    c_over_a: float | None = None
    u: float | None = None
    cubic: bool = False
    repeat: tuple[int, int, int] = (1, 1, 1)
    volume_strain: tuple[float, float] = (0.0, 0.0)
    volume_scan: bool = False
    shear: tuple[float, float] = (0.0, 0.0)
    rattle_angstrom: tuple[float, float] = (0.0, 0.0)
    displaced_atoms: int = 0
    displacement_angstrom: tuple[float, ...] = ()
    pair_cutoff_angstrom: float = 5.0
    snapshots: int = 0
    temperature_kelvin: tuple[float, float] = (0.0, 0.0)
    warm_up_femtoseconds: float = 60.0
    interval_femtoseconds: float = 30.0


# Frames of molecular dynamics from a starting structure, as a group asks for them, with the seed of its noise. It needs
# a force field, which this room knows nothing of; `training.snapshots` has it.
Dynamics = Callable[[Atoms, Group, int], list[Atoms]]


@dataclass(frozen=True)
class Recipe:
    """Everything that decides which structures are made.

    Attributes
    ----------
    seed
        of the numpy Generator; every group, and every crystal in it, draws from a stream of its own, so that others
        can be added or changed without moving it.
    groups
        in order.
    crystals
        that groups refer to by `crystals_of`.
    minimum_distance_angstrom
        displacements that bring two atoms closer are drawn again.
    minimum_distance_fraction
        the same, relative to the shortest distance in the crystal without displacements.
    """

    seed: int
    groups: tuple[Group, ...]
    crystals: tuple[Crystal, ...] = ()
    minimum_distance_angstrom: float = 0.0
    minimum_distance_fraction: float = 0.0


def read_recipe(path: Path | str) -> Recipe:
    """A recipe from one flat YAML file.

    Raises
    ------
    InputError
        no such file, not YAML, or a recipe that `recipe_from_dict` refuses.
    """
    import yaml  # not a dependency of a bare GPU machine

    path = Path(path)
    if not path.is_file():
        raise InputError(f"no recipe at {path}; give a YAML file with seed and groups")
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise InputError(f"{path} is not YAML: {error}") from error
    return recipe_from_dict(content, source=str(path))


def recipe_from_dict(content: Any, source: str = "recipe") -> Recipe:
    """A checked recipe from plain values; unknown keys are errors.

    Raises
    ------
    InputError
        naming the group and the value that cannot be used.
    """
    if not isinstance(content, Mapping):
        raise InputError(f"{source}: expected a mapping with seed and groups, got {type(content).__name__}")
    _refuse_unknown(source, content, {field.name for field in fields(Recipe)})
    seed = content.get("seed")
    if not isinstance(seed, int) or isinstance(seed, bool) or seed < 0:
        raise InputError(f"{source}: seed must be a non-negative integer, got {seed!r}")
    raw_groups = content.get("groups")
    if not isinstance(raw_groups, Sequence) or isinstance(raw_groups, str) or not raw_groups:
        raise InputError(f"{source}: groups must be a list of at least one group, got {raw_groups!r}")
    groups = tuple(_group_from_dict(f"{source}, group {i}", raw) for i, raw in enumerate(raw_groups))
    raw_crystals = content.get("crystals", {})
    if not isinstance(raw_crystals, Mapping):
        raise InputError(f"{source}: crystals must map names to their geometry, got {raw_crystals!r}")
    crystals = tuple(_crystal_from_dict(f"{source}, crystal {name!r}", name, raw) for name, raw in raw_crystals.items())
    names = [group.name for group in groups]
    if len(set(names)) != len(names):
        raise InputError(f"{source}: group names must differ, got {names}")
    absent = sorted({p for group in groups for p in group.crystals_of} - {crystal.prototype for crystal in crystals})
    if absent:
        raise InputError(f"{source}: groups ask for crystals of {absent}, but the recipe lists none; add or leave out")
    minimum = {
        name: _number(f"{source}: {name}", content.get(name, 0.0))
        for name in ("minimum_distance_angstrom", "minimum_distance_fraction")
    }
    return Recipe(seed=seed, groups=groups, crystals=crystals, **minimum)


def _refuse_unknown(where: str, content: Mapping[str, Any], known: set[str]) -> None:
    unknown = sorted(set(content) - known)
    if unknown:
        raise InputError(f"{where}: unknown keys {unknown}; known are {sorted(known)}")


def _pair(where: str, value: Any) -> tuple[float, float]:
    values = list(value) if isinstance(value, list | tuple) else [value, value]
    numeric = all(isinstance(v, int | float) and not isinstance(v, bool) and np.isfinite(v) for v in values)
    if len(values) != 2 or not numeric or values[0] > values[1]:
        raise InputError(f"{where} must be a number or [low, high], got {value!r}")
    return float(values[0]), float(values[1])


def _number(where: str, value: Any) -> float:
    return _pair(where, value)[0]


def _symbols(where: str, value: Any) -> tuple[str, ...]:
    symbols = (value,) if isinstance(value, str) else value
    if not isinstance(symbols, list | tuple) or not symbols or any(symbol not in atomic_numbers for symbol in symbols):
        raise InputError(f"{where}: species must be chemical symbols (quoted in YAML: No is a word), got {value!r}")
    return tuple(symbols)


def _crystal_from_dict(where: str, name: Any, raw: Any) -> Crystal:
    if not isinstance(name, str) or not isinstance(raw, Mapping):
        raise InputError(f"{where}: expected a name and a mapping, got {raw!r}")
    _refuse_unknown(where, raw, set(_OF_A_CRYSTAL))
    for required in ("prototype", "species", "lattice_angstrom"):
        if required not in raw:
            raise InputError(f"{where}: {required!r} is missing")
    numbers = {key: _number(f"{where}: {key}", raw[key]) for key in ("lattice_angstrom", "c_over_a", "u") if key in raw}
    crystal = Crystal(name=name, prototype=raw["prototype"], species=_symbols(where, raw["species"]), **numbers)
    perfect(crystal)  # refuses what cannot be built while the file can still be named
    return crystal


def _group_from_dict(where: str, raw: Any) -> Group:
    if not isinstance(raw, Mapping):
        raise InputError(f"{where}: expected a mapping, got {raw!r}")
    _refuse_unknown(where, raw, {field.name for field in fields(Group)})
    for required in ("name", "count"):
        if required not in raw:
            raise InputError(f"{where}: {required!r} is missing")
    where = f"{where} ({raw['name']!r})"
    if ("prototype" in raw) == ("crystals_of" in raw):
        raise InputError(f"{where}: give either prototype or crystals_of")
    if "crystals_of" in raw and any(name in raw for name in _OF_A_CRYSTAL):
        raise InputError(f"{where}: crystals_of takes {list(_OF_A_CRYSTAL)} from the crystals; leave them out")
    for text in ("name", "prototype"):
        if text in raw and not isinstance(raw[text], str):
            raise InputError(f"{where}: {text} must be text, got {raw[text]!r} (quote it in YAML)")
    values: dict[str, Any] = dict(raw)
    for number in ("c_over_a", "u", "pair_cutoff_angstrom", "warm_up_femtoseconds", "interval_femtoseconds"):
        if raw.get(number) is not None:
            values[number] = _number(f"{where}: {number}", raw[number])
    for name in ("lattice_angstrom", "volume_strain", "shear", "rattle_angstrom", "temperature_kelvin"):
        if name in raw:
            values[name] = _pair(f"{where}: {name}", raw[name])
    if "displacement_angstrom" in raw:
        lengths = raw["displacement_angstrom"]
        lengths = lengths if isinstance(lengths, list | tuple) else [lengths]
        values["displacement_angstrom"] = tuple(_number(f"{where}: displacement_angstrom", v) for v in lengths)
    if "species" in raw:
        values["species"] = _symbols(where, raw["species"])
    for name in ("repeat", "crystals_of"):
        if name in raw:
            values[name] = tuple(raw[name]) if isinstance(raw[name], list | tuple) else raw[name]
    group = Group(**values)
    _check_group(where, group)
    return group


def _check_group(where: str, group: Group) -> None:
    def refuse(what: str, got: Any) -> None:
        raise InputError(f"{where}: {what}, got {got!r}")

    if not isinstance(group.count, int) or isinstance(group.count, bool) or group.count < 1:
        refuse("count must be a positive integer", group.count)
    if not isinstance(group.crystals_of, tuple) or any(name not in PROTOTYPES for name in group.crystals_of):
        refuse(f"crystals_of must be a list from {list(PROTOTYPES)}", group.crystals_of)
    if (
        not isinstance(group.repeat, tuple)
        or len(group.repeat) != 3
        or any(not isinstance(n, int) or n < 1 for n in group.repeat)
    ):
        refuse("repeat must be three positive integers", group.repeat)
    for name in ("cubic", "volume_scan"):
        if not isinstance(getattr(group, name), bool):
            refuse(f"{name} must be true or false", getattr(group, name))
    if group.volume_strain[0] <= -1.0:
        refuse("volume_strain must stay above -1", group.volume_strain)
    if group.shear[0] < 0.0 or group.rattle_angstrom[0] < 0.0:
        refuse("shear and rattle_angstrom must not be negative", (group.shear, group.rattle_angstrom))
    if group.rattle_angstrom[0] == 0.0 and group.rattle_angstrom[1] > 0.0:
        refuse("rattle_angstrom is drawn log-uniformly, so its low end must be above zero", group.rattle_angstrom)
    if group.displaced_atoms not in (0, 1, 2):
        refuse("displaced_atoms must be 0, 1 or 2", group.displaced_atoms)
    if (group.displaced_atoms > 0) != bool(group.displacement_angstrom):
        refuse("displaced_atoms and displacement_angstrom go together", group.displacement_angstrom)
    if not isinstance(group.snapshots, int) or isinstance(group.snapshots, bool) or group.snapshots < 0:
        refuse("snapshots must be a non-negative integer", group.snapshots)
    if (group.snapshots > 0) != (group.temperature_kelvin[0] > 0.0):
        refuse("snapshots and a positive temperature_kelvin go together", group.temperature_kelvin)
    if group.warm_up_femtoseconds < 0.0 or group.interval_femtoseconds <= 0.0:
        refuse("times must be positive", (group.warm_up_femtoseconds, group.interval_femtoseconds))


def generate(
    recipe: Recipe, structures: Mapping[str, Atoms] | None = None, dynamics: Dynamics | None = None
) -> list[Atoms]:
    """All structures of a recipe, in order; the same recipe gives the same structures on every machine.

    Snapshots of molecular dynamics are as reproducible as the force field behind `dynamics`.

    Parameters
    ----------
    recipe
        from `read_recipe` or `recipe_from_dict`.
    structures
        crystals that groups may name as their prototype.
    dynamics
        what runs the molecular dynamics of groups with snapshots.

    Returns
    -------
    list[Atoms]
        ASE Atoms with `info["group"]`, and `info["crystal"]` if they are of a crystal of the recipe.

    Raises
    ------
    InputError
        an unknown prototype, displacements that never keep the minimum distance, snapshots without `dynamics`.
    """
    made: list[Atoms] = []
    for group, info in _each(recipe):
        # Seeded by name and not by position: inserting a group or a crystal leaves all others as they were.
        generator = np.random.default_rng([recipe.seed, *"/".join(info.values()).encode()])
        for index in range(group.count):
            start = _one(group, index, generator, recipe, structures or {})
            frames = [start] if group.snapshots == 0 else _frames(group, start, generator, dynamics)
            for frame in frames:
                frame.info = dict(info)
            made += frames
    return made


def _each(recipe: Recipe) -> Iterator[tuple[Group, dict[str, str]]]:
    """Every group with what its structures carry; a group of crystals as one group of each."""
    for group in recipe.groups:
        if not group.crystals_of:
            yield group, {"group": group.name}
            continue
        for crystal in recipe.crystals:
            if crystal.prototype in group.crystals_of:
                one = replace(
                    group,
                    prototype=crystal.prototype,
                    species=crystal.species,
                    lattice_angstrom=(crystal.lattice_angstrom, crystal.lattice_angstrom),
                    c_over_a=crystal.c_over_a,
                    u=crystal.u,
                )
                yield one, {"group": group.name, "crystal": crystal.name}


def _frames(group: Group, start: Atoms, generator: np.random.Generator, dynamics: Dynamics | None) -> list[Atoms]:
    if dynamics is None:
        raise InputError(
            f"group {group.name!r} asks for snapshots of molecular dynamics, which need a force field; "
            "give `dynamics` (training.snapshots), or make it with `esen-flows label`"
        )
    return dynamics(start, group, int(generator.integers(2**63)))


def _one(
    group: Group, index: int, generator: np.random.Generator, recipe: Recipe, structures: Mapping[str, Atoms]
) -> Atoms:
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
    """Between two atoms of a crystal, in Angstrom; an atom and its own image are never farther than a cell vector."""
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
    # Traceless to first order only: the determinant is divided out so that `change` is the whole volume change.
    return np.cbrt((1.0 + change) / np.linalg.det(shear)) * shear


def _displacements(group: Group, crystal: Atoms, generator: np.random.Generator) -> np.ndarray:
    """(n, 3) displacements in Angstrom: a rattle, or one or two atoms, or both."""
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
