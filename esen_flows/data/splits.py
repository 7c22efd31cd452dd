"""Training and validation sets: drawn at random, the same ones for the same seed, and written down."""

import json
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from esen_flows.data.dataset import Dataset, subset
from esen_flows.data.extxyz import write_atomically
from esen_flows.errors import InputError

FORMAT = "esen_flows split"
FORMAT_VERSION = 1


@dataclass(frozen=True)
class Split:
    """Which records of a dataset are held out.

    Attributes
    ----------
    dataset_key
        of the dataset that was split; indices mean nothing for another one.
    records
        how many it has.
    fraction, seed
        what was asked for.
    validation
        sorted indices of the records held out; training is all others.
    validation_materials
        sorted names of the materials that went there whole.
    records_by_group
        held out and in all, by the group's name.
    """

    dataset_key: str
    records: int
    fraction: float
    seed: int
    validation: tuple[int, ...]
    validation_materials: tuple[str, ...]
    records_by_group: dict[str, tuple[int, int]]

    def apply(self, dataset: Dataset) -> tuple[Dataset, Dataset]:
        """Training and validation set as views.

        Raises
        ------
        InputError
            another dataset than the one that was split.
        """
        if dataset.key != self.dataset_key:
            raise InputError(
                f"the split is of {self.records} records with key {self.dataset_key[:16]}..., this dataset has "
                f"{len(dataset)} with key {dataset.key[:16]}...; split it anew, or give the dataset of the split"
            )
        training = np.setdiff1d(np.arange(len(dataset)), self.validation, assume_unique=True)
        return subset(dataset, training), subset(dataset, self.validation)


def split_by_material(dataset: Dataset, fraction: float, seed: int) -> Split:
    """Hold out about `fraction` of the records of every group, never a part of a material.

    Materials are drawn in an order that depends on seed and names alone, not on where the records are in the dataset;
    those without a material are drawn one by one (equal ones together), in the order of their content. Records are held
    out until adding the next material would miss the fraction of the group by more. A material in several groups
    counts in the one that has most of it. Where every material is so large that this holds out nothing, the smallest
    one is held out.

    Raises
    ------
    InputError
        a fraction outside of 0..1, or so few materials that one of the two sets is empty.
    """
    if not 0.0 < fraction < 1.0:
        raise InputError(f"the validation fraction must be between 0 and 1, got {fraction}")
    unit, names = _units(dataset)
    rank = np.argsort(np.argsort(np.array(dataset.group_names, dtype=object)))  # as their names, not their order
    home = _home_groups(unit, len(names), rank[dataset.group])
    sizes = np.bincount(unit, minlength=len(names))
    held_out = np.zeros(len(names), dtype=bool)
    random = np.random.default_rng(seed)
    for group in range(len(rank)):
        members = np.flatnonzero(home == group)
        order = random.permutation(members[np.argsort(names[members], kind="stable")])
        held_out[order[: _nearest_prefix(sizes[order], fraction)]] = True
    if not held_out.any():
        held_out[np.lexsort((names, sizes))[0]] = True
    validation = np.flatnonzero(held_out[unit])
    if not 0 < len(validation) < len(dataset):
        raise InputError(
            f"holding out {fraction:g} of {len(dataset)} records in {len(names)} materials leaves "
            f"{len(dataset) - len(validation)} for training and {len(validation)} for validation; change the fraction, "
            "or give separate training and validation data"
        )
    materials = {dataset.material_names[index] for index in np.unique(dataset.material[validation]) if index >= 0}
    counts = (np.bincount(g, minlength=len(dataset.group_names)) for g in (dataset.group[validation], dataset.group))
    return Split(
        dataset_key=dataset.key,
        records=len(dataset),
        fraction=fraction,
        seed=seed,
        validation=tuple(validation.tolist()),
        validation_materials=tuple(sorted(materials)),
        records_by_group={
            name: (int(out), int(all_)) for name, out, all_ in zip(dataset.group_names, *counts, strict=True)
        },
    )


def _units(dataset: Dataset) -> tuple[np.ndarray, np.ndarray]:
    """What is drawn together: (n,) number of each record's unit, and a name of each unit to sort by."""
    alone = dataset.material < 0
    materials, unit_of_material = np.unique(dataset.material[~alone], return_inverse=True)
    contents = np.ascontiguousarray(dataset.digests[alone]).view("V16").ravel()
    content, unit_of_alone = np.unique(contents, return_inverse=True)
    unit = np.empty(len(dataset), np.int64)
    unit[~alone] = unit_of_material
    unit[alone] = unit_of_alone + len(materials)
    names = [f"material {dataset.material_names[index]}" for index in materials]
    return unit, np.array([*names, *(f"record {one.tobytes().hex()}" for one in content)], dtype=object)


def _home_groups(unit: np.ndarray, n_units: int, group: np.ndarray) -> np.ndarray:
    """(units,) the group that has most records of each; of equal ones the first."""
    n_groups = int(group.max()) + 1
    pairs, counts = np.unique(unit * n_groups + group, return_counts=True)
    home = np.empty(n_units, np.int64)
    order = np.lexsort((-pairs, counts))  # the last write wins
    home[pairs[order] // n_groups] = pairs[order] % n_groups
    return home


def _nearest_prefix(sizes: np.ndarray, fraction: float) -> int:
    """How many of the first entries have a sum as near as can be to a fraction of that of all."""
    sums = np.concatenate([[0], np.cumsum(sizes)])
    return int(np.argmin(np.abs(sums - fraction * sums[-1])))


def write_split(path: Path | str, split: Split) -> None:
    """Write a split as JSON."""
    content = {"format": FORMAT, "format_version": FORMAT_VERSION, **asdict(split)}
    write_atomically(Path(path), json.dumps(content, indent=1) + "\n")


def read_split(path: Path | str) -> Split:
    """A split that `write_split` wrote.

    Raises
    ------
    InputError
        no such file, or something else.
    """
    try:
        content = json.loads(Path(path).read_text(encoding="utf-8"))
        if content.pop("format") != FORMAT or content.pop("format_version") > FORMAT_VERSION:
            raise ValueError(f"it should say format {FORMAT!r}, version {FORMAT_VERSION}")
        for name in ("validation", "validation_materials"):
            content[name] = tuple(content[name])
        content["records_by_group"] = {name: tuple(counts) for name, counts in content["records_by_group"].items()}
        return Split(**content)
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise InputError(f"{path} is not a split of a dataset: {error}; make one anew") from error
