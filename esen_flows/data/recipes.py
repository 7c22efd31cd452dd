"""Recipes of training structures: flat YAML files, read and checked."""

import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeGuard

from ase.data import atomic_numbers

from esen_flows.data.prototypes import PROTOTYPES, Crystal, guessed, perfect
from esen_flows.errors import InputError

_OF_A_CRYSTAL = ("prototype", "species", "lattice_angstrom", "c_over_a", "u")
_NUMBERS = ("c_over_a", "u", "pair_cutoff_angstrom", "warm_up_femtoseconds", "interval_femtoseconds")
# Larger recipes are refused before any structure is made.
MOST_GROUPS, MOST_STRUCTURES, MOST_ATOMS, MOST_REPEATS = 10_000, 1_000_000, 50_000_000, 100
_LARGEST_CELL = 8  # atoms of a prototype's cell
_LARGEST_NUMBER = 1e6  # of any unit: lengths, Kelvin, femtoseconds, strains
_RANGES = ("lattice_angstrom", "volume_strain", "shear", "rattle_angstrom", "temperature_kelvin")


@dataclass(frozen=True)
class Group:
    """Structures made alike. Ranges are (low, high); in a recipe, a single number stands for both.

    Attributes
    ----------
    name
        Name of the group; every structure carries it in `info["group"]`.
    count
        Number of structures; with `crystals_of`, the number for every crystal.
    prototype
        One of PROTOTYPES, or a name in the `structures` given to `generate`.
    crystals_of
        Prototypes, in the place of `prototype`: structures are made of every crystal of the recipe that has one of
        these prototypes, and carry the crystal's name in `info["crystal"]`.
    species
        Chemical symbols, as many as the prototype takes; ignored for a given structure.
    lattice_angstrom
        Range of the lattice constant a (edge of the cubic cell) in Angstrom, uniform; ignored for a given structure.
    c_over_a
        Ratio c/a, as in `Crystal`.
    u
        Internal parameter of wurtzite, as in `Crystal`.
    cubic
        Whether the conventional cell is taken instead of the primitive one.
    repeat
        Repetitions of the cell along its three vectors.
    volume_strain
        Range of the relative volume change, uniform.
    volume_scan
        Whether volume changes are spread evenly from low to high instead of at random.
    shear
        Range of the Frobenius norm of a random traceless symmetric strain, uniform.
    rattle_angstrom
        Range of the standard deviation of Gaussian displacements per component in Angstrom, log-uniform.
    displaced_atoms
        Number of atoms (0, 1 or 2) that are moved by `displacement_angstrom`, each in a random direction.
    displacement_angstrom
        Lengths in Angstrom, one of which is drawn for each moved atom.
    pair_cutoff_angstrom
        Largest distance in Angstrom between two moved atoms.
    snapshots
        Number of frames of a molecular dynamics that take the place of the structure from which it starts; 0 makes no
        dynamics.
    temperature_kelvin
        Temperatures of the thermostat in Kelvin at the first and at the last snapshot, linear between them.
    warm_up_femtoseconds
        Time in femtoseconds at the first temperature, before the first interval.
    interval_femtoseconds
        Time in femtoseconds from one snapshot to the next.
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


@dataclass(frozen=True)
class Recipe:
    """Everything that decides which structures are made.

    Attributes
    ----------
    seed
        Seed of the numpy generators. Every group, and every crystal in it, draws from a stream of its own, so that
        others can be added or changed and leave its structures as they were.
    groups
        Groups of structures, in order.
    crystals
        Crystals that groups refer to by `crystals_of`. `physics.crystals` relaxes those without a lattice constant.
    minimum_distance_angstrom
        Distance in Angstrom; displacements that bring two atoms closer are drawn again.
    minimum_distance_fraction
        The same, relative to the shortest distance in the crystal without displacements.
    """

    seed: int
    groups: tuple[Group, ...]
    crystals: tuple[Crystal, ...] = ()
    minimum_distance_angstrom: float = 0.0
    minimum_distance_fraction: float = 0.0

    def symbols(self) -> list[str]:
        """Chemical symbols of the recipe's crystals and of its groups that name species.

        Returns
        -------
        list[str]
            Each symbol once, in alphabetical order.
        """
        species = [each.species for each in self.crystals]
        species += [group.species for group in self.groups if group.prototype in PROTOTYPES]
        return sorted({symbol for some in species for symbol in some})


def read_recipe(path: Path | str) -> Recipe:
    """A recipe from one flat YAML file.

    Parameters
    ----------
    path
        File with `seed`, `groups` and, optionally, `crystals` and the minimum distances.

    Returns
    -------
    Recipe
        The checked recipe.

    Raises
    ------
    InputError
        There is no such file, it is not YAML, or `recipe_from_dict` refuses its content.
    """
    from esen_flows.yaml_files import read_yaml  # yaml is not a dependency of a bare GPU machine

    path = Path(path)
    if not path.is_file():
        raise InputError(f"no recipe at {path}; give a YAML file with seed and groups")
    return recipe_from_dict(read_yaml(path), source=str(path))


def recipe_from_dict(content: Any, source: str = "recipe") -> Recipe:
    """A recipe from plain values.

    Parameters
    ----------
    content
        Mapping with the fields of `Recipe`; `crystals` maps names to geometries.
    source
        Name of the recipe for error messages.

    Returns
    -------
    Recipe
        The checked recipe.

    Raises
    ------
    InputError
        A key is unknown or missing, or a value cannot be used; the message names the group and the value.

    Examples
    --------
    >>> group = {"name": "rattled", "prototype": "diamond", "lattice_angstrom": 5.43, "count": 8}
    >>> recipe = recipe_from_dict({"seed": 7, "groups": [group]})
    >>> recipe.groups[0].lattice_angstrom
    (5.43, 5.43)
    """
    if not isinstance(content, Mapping):
        raise InputError(f"{source}: expected a mapping with seed and groups, got {type(content).__name__}")
    _check_keys(source, content, Recipe.__annotations__)
    seed, raw_groups = content.get("seed"), content.get("groups")
    if not _is_integer(seed, 0) or seed >= 2**63:
        raise InputError(f"{source}: seed must be a non-negative integer, got {seed!r:.80}")
    if not isinstance(raw_groups, list | tuple) or not 0 < len(raw_groups) <= MOST_GROUPS:
        raise InputError(f"{source}: groups must be a list of 1 to {MOST_GROUPS} groups, got {raw_groups!r:.200}")
    groups = tuple(_group_from_dict(f"{source}, group {i}", raw) for i, raw in enumerate(raw_groups))
    raw_crystals = content.get("crystals", {})
    if not isinstance(raw_crystals, Mapping) or len(raw_crystals) > MOST_GROUPS:
        raise InputError(f"{source}: crystals must map names to their geometry, got {raw_crystals!r:.200}")
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
    recipe = Recipe(seed=seed, groups=groups, crystals=crystals, **minimum)
    _check_size(source, recipe)
    return recipe


def _check_size(source: str, recipe: Recipe) -> None:
    """Refuse a recipe of more structures or atoms than anybody labels."""
    structures = atoms = 0
    for group in recipe.groups:
        crystals = sum(c.prototype in group.crystals_of for c in recipe.crystals) if group.crystals_of else 1
        made = group.count * crystals * max(1, group.snapshots)
        structures += made
        atoms += made * _LARGEST_CELL * math.prod(group.repeat)
    if structures > MOST_STRUCTURES or atoms > MOST_ATOMS:
        raise InputError(
            f"{source}: it makes {structures:.3g} structures of up to {atoms:.3g} atoms together, at most "
            f"{MOST_STRUCTURES:.3g} and {MOST_ATOMS:.3g} are made; lower count, snapshots or repeat"
        )


def _check_keys(where: str, content: Mapping[str, Any], known: Collection[str], required: Sequence[str] = ()) -> None:
    unknown = sorted(content.keys() - set(known), key=repr)
    if unknown:
        raise InputError(f"{where}: unknown keys {unknown}; known are {sorted(known)}")
    for name in required:
        if name not in content:
            raise InputError(f"{where}: {name!r} is missing")


def _is_integer(value: Any, minimum: int) -> TypeGuard[int]:
    return isinstance(value, int) and not isinstance(value, bool) and value >= minimum


def _pair(where: str, value: Any) -> tuple[float, float]:
    values = list(value) if isinstance(value, list | tuple) else [value, value]
    numeric = all(isinstance(v, int | float) and not isinstance(v, bool) and abs(v) <= _LARGEST_NUMBER for v in values)
    if len(values) != 2 or not numeric or values[0] > values[1]:
        raise InputError(f"{where} must be a number or [low, high], of at most {_LARGEST_NUMBER:g}, got {value!r:.200}")
    return float(values[0]), float(values[1])


def _number(where: str, value: Any) -> float:
    if isinstance(value, list | tuple):
        raise InputError(f"{where} must be a single number, got {value!r:.200}")
    return _pair(where, value)[0]


def _symbols(where: str, value: Any) -> tuple[str, ...]:
    symbols = (value,) if isinstance(value, str) else value
    are_text = isinstance(symbols, list | tuple) and symbols and all(isinstance(symbol, str) for symbol in symbols)
    if not are_text or any(atomic_numbers.get(symbol, 0) < 1 for symbol in symbols):
        raise InputError(
            f"{where}: species must be chemical symbols (quoted in YAML: No is a word), got {value!r:.200}"
        )
    return tuple(symbols)


def _crystal_from_dict(where: str, name: Any, raw: Any) -> Crystal:
    if not isinstance(name, str) or not isinstance(raw, Mapping):
        raise InputError(f"{where}: expected a name and a mapping, got {raw!r:.200}")
    if not isinstance(raw.get("prototype", ""), str):
        raise InputError(f"{where}: prototype must be text, got {raw['prototype']!r:.200}")
    _check_keys(where, raw, _OF_A_CRYSTAL, required=("prototype", "species"))
    if not name or name.startswith(".") or "/" in name:
        raise InputError(f"{where}: a crystal's name is that of its folder of phonons: no / in it, no dot before it")
    given = [key for key in ("lattice_angstrom", "c_over_a", "u") if raw.get(key) is not None]
    numbers: dict[str, float | None] = {key: _number(f"{where}: {key}", raw[key]) for key in given}
    lattice = numbers.pop("lattice_angstrom", None)
    if lattice is None and numbers:
        raise InputError(f"{where}: give lattice_angstrom too, or leave out {list(numbers)}: they are relaxed together")
    crystal = Crystal(name, raw["prototype"], _symbols(where, raw["species"]), lattice, **numbers)
    # Refuses a crystal that cannot be built while the recipe can still be named.
    perfect(crystal if lattice is not None else guessed(crystal))
    return crystal


def _group_from_dict(where: str, raw: Any) -> Group:
    if not isinstance(raw, Mapping):
        raise InputError(f"{where}: expected a mapping, got {raw!r:.200}")
    _check_keys(where, raw, Group.__annotations__, required=("name", "count"))
    where = f"{where} ({raw['name']!r:.80})"
    if ("prototype" in raw) == ("crystals_of" in raw):
        raise InputError(f"{where}: give either prototype or crystals_of")
    if "crystals_of" in raw and any(name in raw for name in _OF_A_CRYSTAL):
        raise InputError(f"{where}: crystals_of takes {list(_OF_A_CRYSTAL)} from the crystals; leave them out")
    for text in ("name", "prototype"):
        if text in raw and not isinstance(raw[text], str):
            raise InputError(f"{where}: {text} must be text, got {raw[text]!r} (quote it in YAML)")
    group = Group(**{name: _group_value(where, name, value) for name, value in raw.items()})
    _check_group(where, group)
    return group


def _group_value(where: str, name: str, value: Any) -> Any:
    """Value of a field of a group, from its value in a recipe."""
    if name in _NUMBERS and value is not None:
        return _number(f"{where}: {name}", value)
    if name in _RANGES:
        return _pair(f"{where}: {name}", value)
    if name == "displacement_angstrom":
        return tuple(_number(f"{where}: {name}", v) for v in (value if isinstance(value, list | tuple) else [value]))
    if name == "species":
        return _symbols(where, value)
    return tuple(value) if isinstance(value, list) else value


def _check_group(where: str, group: Group) -> None:
    low_rattle, high_rattle = group.rattle_angstrom
    prototypes = isinstance(group.crystals_of, tuple) and all(
        isinstance(name, str) and name in PROTOTYPES for name in group.crystals_of
    )
    triple = (
        isinstance(group.repeat, tuple)
        and len(group.repeat) == 3
        and all(_is_integer(n, 1) and n <= MOST_REPEATS for n in group.repeat)
    )
    displaced, lengths = bool(group.displaced_atoms), bool(group.displacement_angstrom)
    warm = group.temperature_kelvin[0] > 0.0
    rules = [
        ("count", _is_integer(group.count, 1) and group.count <= 10**9, "must be a positive integer"),
        ("crystals_of", prototypes, f"must be a list from {list(PROTOTYPES)}"),
        ("repeat", triple, f"must be three positive integers of at most {MOST_REPEATS}"),
        ("cubic", isinstance(group.cubic, bool), "must be true or false"),
        ("volume_scan", isinstance(group.volume_scan, bool), "must be true or false"),
        ("volume_strain", group.volume_strain[0] > -1.0, "must stay above -1"),
        ("shear", group.shear[0] >= 0.0, "must not be negative"),
        ("rattle_angstrom", high_rattle <= 5.0, "must be at most 5: farther atoms are in no crystal"),
        ("rattle_angstrom", low_rattle >= 0.0, "must not be negative"),
        ("rattle_angstrom", low_rattle > 0.0 or high_rattle == 0.0, "is log-uniform: its low end must be above zero"),
        ("displaced_atoms", _is_integer(group.displaced_atoms, 0) and group.displaced_atoms < 3, "must be 0, 1 or 2"),
        ("c_over_a", group.c_over_a is None or group.c_over_a > 0.0, "must be positive"),
        ("volume_strain", group.volume_strain[1] <= 10.0, "must be at most 10"),
        ("shear", group.shear[1] <= 1.0, "must be at most 1"),
        ("displacement_angstrom", displaced == lengths, "and displaced_atoms go together"),
        ("snapshots", _is_integer(group.snapshots, 0) and group.snapshots <= 10**9, "must be a non-negative integer"),
        ("snapshots", bool(group.snapshots) == warm, "and a positive temperature_kelvin go together"),
        ("warm_up_femtoseconds", group.warm_up_femtoseconds >= 0.0, "must not be negative"),
        ("interval_femtoseconds", group.interval_femtoseconds > 0.0, "must be positive"),
    ]
    for name, kept, rule in rules:
        if not kept:
            raise InputError(f"{where}: {name} {rule}, got {getattr(group, name)!r:.200}")
