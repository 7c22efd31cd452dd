"""Training and validation sets, drawn at random: the same for the same seed, and written to a file."""

import json
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from esen_flows.data.dataset import Dataset, subset
from esen_flows.errors import InputError
from esen_flows.files import written_whole

FORMAT = "esen_flows split"
FORMAT_VERSION = 1


@dataclass(frozen=True)
class Split:
    """Records of a dataset that are held out of training.

    Attributes
    ----------
    dataset_key
        Key of the dataset that was split. The indices have no meaning for another one.
    records
        Number of records of the dataset.
    fraction
        Fraction of the records that was to be held out.
    seed
        Seed of the draw.
    validation
        Sorted indices of the records held out; training takes all others.
    validation_materials
        Sorted names of the materials held out; every material is held out whole or not at all.
    records_by_group
        Number of records held out and of all records, by the name of the group.
    """

    dataset_key: str
    records: int
    fraction: float
    seed: int
    validation: tuple[int, ...]
    validation_materials: tuple[str, ...]
    records_by_group: dict[str, tuple[int, int]]

    def apply(self, dataset: Dataset) -> tuple[Dataset, Dataset]:
        """Training and validation set.

        Parameters
        ----------
        dataset
            The dataset that was split.

        Returns
        -------
        tuple[Dataset, Dataset]
            Training set and validation set, as views.

        Raises
        ------
        InputError
            The dataset is not the one that was split.
        """
        if dataset.key != self.dataset_key:
            raise InputError(
                f"the split is of {self.records} records with key {self.dataset_key[:16]}..., this dataset has "
                f"{len(dataset)} with key {dataset.key[:16]}...; split it anew, or give the dataset of the split"
            )
        training = np.setdiff1d(np.arange(len(dataset)), self.validation, assume_unique=True)
        return subset(dataset, training), subset(dataset, self.validation)


def split_by_material(dataset: Dataset, fraction: float, seed: int) -> Split:
    """Hold out about a fraction of the records of every group, and never a part of a material.

    Materials are drawn in an order that depends on the seed and their names alone, not on the order of the records.
    Records without a material are drawn one by one by their content, equal ones together. Materials of a group are held
    out until the next one would make the fraction worse; a material in several groups counts in the one with most of
    its records. If every material is too large, the smallest one is held out.

    Parameters
    ----------
    dataset
        Records to split.
    fraction
        Fraction of the records to hold out, between 0 and 1.
    seed
        Seed of the draw.

    Returns
    -------
    Split
        The records held out.

    Raises
    ------
    InputError
        The fraction is not between 0 and 1, or one of the two sets would be empty.
    """
    if not 0.0 < fraction < 1.0:
        raise InputError(f"the validation fraction must be between 0 and 1, got {fraction}")
    unit, names = _units(dataset)
    # Groups are numbered by their names, so that the order of the records in the dataset does not matter.
    rank = np.argsort(np.argsort(np.array(dataset.group_names, dtype=object)))
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
    counts = (np.bincount(g, minlength=len(rank)).tolist() for g in (dataset.group[validation], dataset.group))
    return Split(
        dataset_key=dataset.key,
        records=len(dataset),
        fraction=fraction,
        seed=seed,
        validation=tuple(validation.tolist()),
        validation_materials=tuple(sorted(materials)),
        records_by_group=dict(zip(dataset.group_names, zip(*counts, strict=True), strict=True)),
    )


def _units(dataset: Dataset) -> tuple[np.ndarray, np.ndarray]:
    """Units that are drawn whole: (n,) number of each record's unit, and a name of each unit to sort by."""
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
    """(units,) group that has most records of each unit; the first one of several with as many."""
    n_groups = int(group.max()) + 1
    pairs, counts = np.unique(unit * n_groups + group, return_counts=True)
    home = np.empty(n_units, np.int64)
    order = np.lexsort((-pairs, counts))  # the group with most records is written last, and stays
    home[pairs[order] // n_groups] = pairs[order] % n_groups
    return home


def _nearest_prefix(sizes: np.ndarray, fraction: float) -> int:
    """Number of first entries whose sum is nearest to a fraction of the sum of all entries."""
    sums = np.concatenate([[0], np.cumsum(sizes)])
    return int(np.argmin(np.abs(sums - fraction * sums[-1])))


def write_split(path: Path | str, split: Split) -> None:
    """Write a split as JSON.

    Parameters
    ----------
    path
        File to write.
    split
        The records held out.
    """
    content = {"format": FORMAT, "format_version": FORMAT_VERSION, **asdict(split)}
    with written_whole(Path(path), durable=True) as temporary:
        temporary.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")


def read_split(path: Path | str) -> Split:
    """A split that `write_split` wrote.

    Parameters
    ----------
    path
        File to read.

    Returns
    -------
    Split
        The records held out.

    Raises
    ------
    InputError
        The file does not exist, or it is not a split.
    """
    try:
        content = json.loads(Path(path).read_text(encoding="utf-8"))
        if content.pop("format") != FORMAT or content.pop("format_version") > FORMAT_VERSION:
            raise ValueError(f"it should say format {FORMAT!r}, version {FORMAT_VERSION}")
        for name in ("validation", "validation_materials"):
            content[name] = tuple(content[name])
        content["records_by_group"] = {name: tuple(counts) for name, counts in content["records_by_group"].items()}
        split = Split(**content)
        rows = split.validation
        if not (type(split.records) is int and 0 < len(rows) < split.records and all(type(row) is int for row in rows)):
            raise ValueError("it does not hold out some of its records")
        if min(rows) < 0 or max(rows) >= split.records or len(set(rows)) < len(rows):
            raise ValueError(f"it holds out records that are none of {split.records}, or one of them twice")
        if not (isinstance(split.fraction, float) and type(split.seed) is int and isinstance(split.dataset_key, str)):
            raise ValueError("its fraction, seed or dataset_key has another type")
        return split
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise InputError(f"{path} is not a split of a dataset: {error}; make one anew") from error
