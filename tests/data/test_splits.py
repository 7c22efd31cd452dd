"""Training and validation sets."""

import json

import numpy as np
import pytest
from ase.build import molecule

from esen_flows.data.dataset import from_structures, mixture, subset
from esen_flows.data.labelled import LabelledStructure
from esen_flows.data.splits import read_split, split_by_material, write_split
from esen_flows.errors import InputError


def record(number: int, group: str = "", material: str = "") -> LabelledStructure:
    atoms = molecule("H2")
    return LabelledStructure(atoms, float(number), np.zeros((2, 3)), np.full((3, 3), np.nan), group, material)


def materials(dataset) -> list[str]:
    return [item.material for item in dataset]


def energies(dataset) -> set[float]:
    return {item.energy for item in dataset}


def test_split_takes_its_share_of_every_group():
    groups = ["a"] * 50 + ["b"] * 20 + ["c"] * 2
    dataset = from_structures([record(i, group) for i, group in enumerate(groups)])
    split = split_by_material(dataset, 0.1, seed=5)
    assert split.records_by_group == {"a": (5, 50), "b": (2, 20), "c": (0, 2)}
    training, validation = split.apply(dataset)
    assert energies(training) | energies(validation) == set(map(float, range(72)))
    assert not energies(training) & energies(validation)
    assert split_by_material(dataset, 0.1, seed=5) == split
    assert split_by_material(dataset, 0.1, seed=6).validation != split.validation


def test_materials_stay_whole():
    random = np.random.default_rng(0)
    sizes = random.integers(1, 30, size=60)
    records = [record(i, "a", f"mp-{m}") for m, size in enumerate(sizes) for i in range(size)]
    dataset = from_structures(records)
    split = split_by_material(dataset, 0.2, seed=1)
    training, validation = split.apply(dataset)
    assert not set(materials(training)) & set(materials(validation))
    assert tuple(sorted(set(materials(validation)))) == split.validation_materials
    assert abs(len(validation) / len(dataset) - 0.2) < 15 / len(dataset) + 1e-12  # half of the largest material


def test_a_material_in_two_groups_and_in_two_datasets_stays_together():
    here = [record(i, "a", "m0") for i in range(3)] + [record(9, "b", "m0")] + [record(i, "b", "m1") for i in range(4)]
    there = from_structures([record(20 + i, "b", "m0") for i in range(2)])
    dataset = mixture([(from_structures(here), 2), (there, 1)])
    split = split_by_material(dataset, 0.4, seed=0)
    training, validation = split.apply(dataset)
    # m0 has 10 records, 6 of them in a; m1 has 8, all in b: both are nearer to none than to two fifths of a group.
    assert set(materials(training)) == {"m0"}
    assert materials(validation) == ["m1"] * 8


def test_repeated_records_stay_together():
    dataset = mixture([(from_structures([record(i) for i in range(40)]), 3)])
    training, validation = split_by_material(dataset, 0.25, seed=3).apply(dataset)
    assert (len(training), len(validation)) == (90, 30)
    assert not energies(training) & energies(validation)


def test_the_split_does_not_depend_on_the_order_of_the_records():
    records = [record(i, "ab"[i % 2], f"mp-{i % 7}" if i % 3 else "") for i in range(60)]
    dataset = from_structures(records)
    shuffled = subset(dataset, np.random.default_rng(1).permutation(60))
    first = split_by_material(dataset, 0.3, seed=2).apply(dataset)[1]
    second = split_by_material(shuffled, 0.3, seed=2).apply(shuffled)[1]
    assert sorted(zip([i.energy for i in first], materials(first), strict=True)) == sorted(
        zip([i.energy for i in second], materials(second), strict=True)
    )


def test_a_written_split_is_read_and_belongs_to_one_dataset(tmp_path):
    dataset = from_structures([record(i, material=f"mp-{i // 2}") for i in range(20)])
    split = split_by_material(dataset, 0.2, seed=4)
    write_split(tmp_path / "s.json", split)
    assert read_split(tmp_path / "s.json") == split
    written = json.loads((tmp_path / "s.json").read_text())
    assert (written["seed"], written["fraction"], written["records"]) == (4, 0.2, 20)
    assert written["validation_materials"] == sorted({f"mp-{i // 2}" for i in written["validation"]})
    with pytest.raises(InputError, match=r"the split is of 20 records with key .* this dataset has 19"):
        split.apply(subset(dataset, range(19)))
    (tmp_path / "t.json").write_text("{}")
    for name in ("t.json", "absent.json"):
        with pytest.raises(InputError, match="is not a split of a dataset"):
            read_split(tmp_path / name)


def test_a_split_that_leaves_one_side_empty_is_refused():
    one = from_structures([record(i, material="mp-1") for i in range(9)])
    with pytest.raises(InputError, match="of 9 records in 1 materials leaves"):
        split_by_material(one, 0.2, seed=0)
    for fraction in (0.0, 1.0, 1.5):
        with pytest.raises(InputError, match=f"must be between 0 and 1, got {fraction}"):
            split_by_material(one, fraction, seed=0)
