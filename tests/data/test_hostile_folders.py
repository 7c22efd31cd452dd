"""Dataset folders, splits and their indexes of any content: used as they are, or refused in one message."""

import json
import shutil

import numpy as np
import pytest
from ase import Atoms
from hypothesis import given
from hypothesis import strategies as st

from esen_flows.data.folders import open_dataset, read_index, verify, write_dataset
from esen_flows.data.labelled import LabelledStructure
from esen_flows.data.splits import read_split, split_by_material, write_split
from esen_flows.errors import InputError
from esen_flows.schemas.dataset_index import checked_index

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=5,
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    items = []
    for number in range(6):
        atoms = Atoms("SiC", [[0, 0, 0], [1.9, 0, 0.01 * number]], cell=[5, 5, 5], pbc=True)
        labels = (-1.0 * number, np.zeros((2, 3)), np.eye(3))
        items.append(LabelledStructure(atoms, *labels, group="ab"[number % 2], material=f"m{number // 2}"))
    path = tmp_path_factory.mktemp("data") / "d"
    write_dataset(path, items, provenance={"sources": []})
    return path


def paths_into(value, path=()):
    yield path
    pairs = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for name, inner in pairs:
        yield from paths_into(inner, (*path, name))


def use(folder):
    """What commands do with a folder."""
    index = read_index(folder)
    checked_index(index, str(folder))
    dataset = open_dataset(folder)
    for item in dataset:
        assert len(item.atoms)
    assert len(dataset.species) == len(dataset)
    verify(dataset, index["key"])


@given(data=st.data())
def test_any_index_is_used_or_refused(folder, tmp_path_factory, data):
    copy = tmp_path_factory.getbasetemp() / "index"
    shutil.copytree(folder, copy, dirs_exist_ok=True)
    name = data.draw(st.sampled_from(["index.json", "material_names.json"]))
    content = json.loads((copy / name).read_text())
    path = data.draw(st.sampled_from(list(paths_into(content))))
    value = data.draw(JSON)
    if not path:
        content = value
    else:
        inner = content
        for step in path[:-1]:
            inner = inner[step]
        inner[path[-1]] = value
    (copy / name).write_text(json.dumps(content))
    try:
        use(copy)
    except InputError as error:
        assert "\n" not in str(error)  # noqa: PT017


@given(
    name=st.sampled_from(["n_atoms", "groups", "materials", "numbers", "atoms", "records", "digests", "has_stress"]),
    place=st.integers(0, 500),
    value=st.binary(min_size=1, max_size=8),
    cut=st.integers(0, 3) | st.integers(0, 400),
)
def test_any_column_is_used_or_refused(folder, tmp_path_factory, name, place, value, cut):
    copy = tmp_path_factory.getbasetemp() / "columns"
    shutil.copytree(folder, copy, dirs_exist_ok=True)
    content = bytearray((copy / f"{name}.npy").read_bytes())
    content[place : place + len(value)] = value
    (copy / f"{name}.npy").write_bytes(content[: len(content) - cut])
    try:
        use(copy)
    except InputError as error:
        assert "\n" not in str(error)  # noqa: PT017


@given(data=st.data())
def test_any_split_is_used_or_refused(folder, tmp_path_factory, data):
    dataset, file = open_dataset(folder), tmp_path_factory.getbasetemp() / "split.json"
    write_split(file, split_by_material(dataset, 0.3, 0))
    content = json.loads(file.read_text())
    name = data.draw(st.sampled_from([*content, "colour"]))
    content[name] = data.draw(JSON | st.lists(st.integers(-2, 8), max_size=8))
    file.write_text(json.dumps(content))
    try:
        training, validation = read_split(file).apply(dataset)
    except InputError:
        return
    assert len(training) + len(validation) == len(dataset)


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("records", 10**12, "records is not what an index says, got 1000000000000"),
        ("records", None, "records is not what an index says, got None"),
        ("group_names", "ab", "group_names is not what an index says, got 'ab'"),
        ("group_names", ["a"], r"groups\.npy gives a number without a name"),
        ("provenance", [], "provenance is not what an index says"),
        ("format_version", "1", "format_version is not what an index says, got '1'"),
    ],
)
def test_lies_of_an_index_are_named(folder, tmp_path, name, value, message):
    copy = shutil.copytree(folder, tmp_path / "d")
    index = json.loads((copy / "index.json").read_text())
    (copy / "index.json").write_text(json.dumps(index | {name: value}))
    with pytest.raises(InputError, match=message):
        open_dataset(copy)


def test_deep_json_is_refused(folder, tmp_path):
    copy = shutil.copytree(folder, tmp_path / "d")
    (copy / "index.json").write_text("[" * 100_000)
    with pytest.raises(InputError, match="cannot be read: maximum recursion depth"):
        open_dataset(copy)
