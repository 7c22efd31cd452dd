"""Training structures from a flat recipe: strained, rattled and displaced crystals, the same ones for the same seed."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np
from ase import Atoms
from ase.build import bulk
from ase.data import atomic_numbers
from ase.neighborlist import neighbor_list

from esen_flows.errors import InputError

PROTOTYPES = ("diamond", "hexagonal_diamond", "beta_tin", "fcc", "bcc", "sc")
_MAX_DRAWS = 200


@dataclass(frozen=True)
class Group:
    """Structures made alike; ranges are (low, high), and a single number stands for both.

    Attributes
    ----------
    name : of the group; every structure carries it in `info["group"]`.
    prototype : one of PROTOTYPES, or a name in the `structures` given to `generate`.
    element : chemical symbol; ignored for a given structure.
    lattice_angstrom : range of the lattice constant a (cubic cell edge), uniform; ignored for a given structure.
    c_over_a : of beta_tin and hexagonal_diamond.
    cubic : conventional cell instead of the primitive one (diamond, fcc, bcc).
    repeat : supercell along the three cell vectors.
    count : how many structures.
    volume_strain : range of the relative volume change, uniform.
    volume_scan : spread the volume changes evenly from low to high instead of at random.
    shear : range of the Frobenius norm of a random traceless symmetric strain, uniform.
    rattle_angstrom : range of the standard deviation of Gaussian displacements per component; log-uniform.
    displaced_atoms : 0, 1 or 2 atoms moved by `displacement_angstrom`, each in a direction of its own.
    displacement_angstrom : lengths to choose from.
    pair_cutoff_angstrom : the second moved atom is one of those closer than this to the first.
    """

    name: str
    prototype: str
    count: int
    element: str = "Si"
    lattice_angstrom: tuple[float, float] = (0.0, 0.0)
    c_over_a: float | None = None
    cubic: bool = False
    repeat: tuple[int, int, int] = (1, 1, 1)
    volume_strain: tuple[float, float] = (0.0, 0.0)
    volume_scan: bool = False
    shear: tuple[float, float] = (0.0, 0.0)
    rattle_angstrom: tuple[float, float] = (0.0, 0.0)
    displaced_atoms: int = 0
    displacement_angstrom: tuple[float, ...] = ()
    pair_cutoff_angstrom: float = 5.0


@dataclass(frozen=True)
class Recipe:
    """Everything that decides which structures are made.

    Attributes
    ----------
    seed : of the numpy Generator; every group draws from a stream of its own, so that groups can be added or changed
        without moving the others.
    minimum_distance_angstrom : displacements that bring two atoms closer are drawn again.
    groups : in order.
    """

    seed: int
    groups: tuple[Group, ...]
    minimum_distance_angstrom: float = 0.0


def read_recipe(path: Path | str) -> Recipe:
    """A recipe from one flat YAML file.

    Raises
    ------
    InputError : no such file, not YAML, or a recipe that `recipe_from_dict` refuses.
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
    InputError : naming the group and the value that cannot be used.
    """
    if not isinstance(content, Mapping):
        raise InputError(f"{source}: expected a mapping with seed and groups, got {type(content).__name__}")
    _refuse_unknown(source, content, {"seed", "groups", "minimum_distance_angstrom"})
    seed = content.get("seed")
    if not isinstance(seed, int) or isinstance(seed, bool) or seed < 0:
        raise InputError(f"{source}: seed must be a non-negative integer, got {seed!r}")
    raw_groups = content.get("groups")
    if not isinstance(raw_groups, Sequence) or isinstance(raw_groups, str) or not raw_groups:
        raise InputError(f"{source}: groups must be a list of at least one group, got {raw_groups!r}")
    groups = tuple(_group_from_dict(f"{source}, group {i}", raw) for i, raw in enumerate(raw_groups))
    names = [group.name for group in groups]
    if len(set(names)) != len(names):
        raise InputError(f"{source}: group names must differ, got {names}")
    minimum = _pair(f"{source}: minimum_distance_angstrom", content.get("minimum_distance_angstrom", 0.0))[0]
    return Recipe(seed=seed, groups=groups, minimum_distance_angstrom=minimum)


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


def _group_from_dict(where: str, raw: Any) -> Group:
    if not isinstance(raw, Mapping):
        raise InputError(f"{where}: expected a mapping, got {raw!r}")
    _refuse_unknown(where, raw, {field.name for field in fields(Group)})
    for required in ("name", "prototype", "count"):
        if required not in raw:
            raise InputError(f"{where}: {required!r} is missing")
    where = f"{where} ({raw['name']!r})"
    for text in ("name", "prototype", "element"):
        if text in raw and not isinstance(raw[text], str):
            raise InputError(f"{where}: {text} must be text, got {raw[text]!r} (quote it in YAML)")
    values: dict[str, Any] = dict(raw)
    for number in ("c_over_a", "pair_cutoff_angstrom"):
        if raw.get(number) is not None:
            values[number] = _pair(f"{where}: {number}", raw[number])[0]
    for name in ("lattice_angstrom", "volume_strain", "shear", "rattle_angstrom"):
        if name in raw:
            values[name] = _pair(f"{where}: {name}", raw[name])
    if "displacement_angstrom" in raw:
        lengths = raw["displacement_angstrom"]
        lengths = lengths if isinstance(lengths, list | tuple) else [lengths]
        values["displacement_angstrom"] = tuple(_pair(f"{where}: displacement_angstrom", v)[0] for v in lengths)
    if "repeat" in raw:
        values["repeat"] = tuple(raw["repeat"]) if isinstance(raw["repeat"], list | tuple) else raw["repeat"]
    group = Group(**values)
    _check_group(where, group)
    return group


def _check_group(where: str, group: Group) -> None:
    def refuse(what: str, got: Any) -> None:
        raise InputError(f"{where}: {what}, got {got!r}")

    if not isinstance(group.count, int) or isinstance(group.count, bool) or group.count < 1:
        refuse("count must be a positive integer", group.count)
    if group.element not in atomic_numbers:
        refuse("element must be a chemical symbol", group.element)
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


def generate(recipe: Recipe, structures: Mapping[str, Atoms] | None = None) -> list[Atoms]:
    """All structures of a recipe, in order; the same recipe gives the same structures on every machine.

    Parameters
    ----------
    recipe : from `read_recipe` or `recipe_from_dict`.
    structures : crystals that groups may name as their prototype.

    Returns
    -------
    ASE Atoms with `info["group"]`.

    Raises
    ------
    InputError : an unknown prototype, or displacements that never keep the minimum distance.
    """
    made: list[Atoms] = []
    for group in recipe.groups:
        # Seeded by name and not by position: inserting a group leaves all others as they were.
        generator = np.random.default_rng([recipe.seed, *group.name.encode()])
        made += [_one(group, index, generator, recipe, structures or {}) for index in range(group.count)]
    return made


def _one(
    group: Group, index: int, generator: np.random.Generator, recipe: Recipe, structures: Mapping[str, Atoms]
) -> Atoms:
    crystal = _prototype(group, generator, structures)
    crystal.set_cell(crystal.cell.array @ _deformation(group, index, generator), scale_atoms=True)
    crystal = crystal.repeat(group.repeat)
    perfect = crystal.positions.copy()
    for _ in range(_MAX_DRAWS):
        crystal.positions = perfect + _displacements(group, crystal, generator)
        if not len(neighbor_list("i", crystal, recipe.minimum_distance_angstrom)):
            crystal.info = {"group": group.name}
            return crystal
    raise InputError(
        f"group {group.name!r}: {_MAX_DRAWS} draws brought atoms closer than {recipe.minimum_distance_angstrom} "
        f"Angstrom with rattle_angstrom {group.rattle_angstrom}; lower the rattle or the minimum distance"
    )


def _prototype(group: Group, generator: np.random.Generator, structures: Mapping[str, Atoms]) -> Atoms:
    if group.prototype in structures:
        return structures[group.prototype].copy()
    low, high = group.lattice_angstrom
    if group.prototype not in PROTOTYPES:
        known = [*PROTOTYPES, *structures]
        raise InputError(f"group {group.name!r}: unknown prototype {group.prototype!r}; known are {known}")
    if low <= 0.0:
        raise InputError(f"group {group.name!r}: lattice_angstrom must be positive, got {group.lattice_angstrom}")
    a = float(generator.uniform(low, high))
    if group.prototype == "beta_tin":
        return _beta_tin(group.element, a, group.c_over_a or 0.55)
    if group.prototype == "hexagonal_diamond":
        return _hexagonal_diamond(group.element, a, group.c_over_a or float(np.sqrt(8 / 3)))
    return bulk(group.element, group.prototype, a=a, cubic=group.cubic and group.prototype != "sc")


def _beta_tin(element: str, a: float, c_over_a: float) -> Atoms:
    """I4_1/amd, site 4a; conventional tetragonal cell of four atoms."""
    scaled = [[0, 0, 0], [0.5, 0, 0.25], [0.5, 0.5, 0.5], [0, 0.5, 0.75]]
    return Atoms(f"{element}4", scaled_positions=scaled, cell=[a, a, a * c_over_a], pbc=True)


def _hexagonal_diamond(element: str, a: float, c_over_a: float) -> Atoms:
    """P6_3/mmc, site 4f with the ideal z = 1/16; four atoms."""
    cell = [[a, 0, 0], [-a / 2, a * np.sqrt(3) / 2, 0], [0, 0, a * c_over_a]]
    scaled = [[1 / 3, 2 / 3, z] for z in (1 / 16, 7 / 16)] + [[2 / 3, 1 / 3, z] for z in (9 / 16, 15 / 16)]
    return Atoms(f"{element}4", scaled_positions=scaled, cell=cell, pbc=True)


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
