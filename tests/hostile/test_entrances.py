"""Readers of files: any change of a valid file, and any words of its grammar, are read or refused by our own error."""

from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from random import Random
from typing import Any

import pytest
import yaml
from hostile import seeds
from hostile.mutations import BINARY, NUMBERS, TEXT, WORDS, change_value, mutate
from hypothesis import given, settings
from hypothesis import strategies as st

from esen_flows.campaigns.spec import read_spec
from esen_flows.data.folders import open_dataset
from esen_flows.data.recipes import read_recipe
from esen_flows.errors import EsenFlowsError
from esen_flows.schemas import card
from esen_flows.schemas.card import read_card
from esen_flows.schemas.checkpoint_header import read_header, read_tensors
from esen_flows.structures.files import read_structures
from esen_flows.training.config import read_config

CIF = [
    "data_x\n",
    "loop_\n",
    "_cell_length_a",
    "_cell_length_b 4\n",
    "_cell_length_c 4\n",
    "_cell_angle_alpha",
    "90",
    "_atom_site_label\n",
    "_atom_site_fract_x\n",
    "_atom_site_fract_y\n",
    "_atom_site_occupancy\n",
    "Cu 0 0 0\n",
    "?",
    ".",
    "_symmetry_space_group_name_H-M 'F m -3 m'\n",
    "_space_group_symop_operation_xyz\n",
    "'x,y,z'\n",
    ";\n",
    "#",
    "'",
]
POSCAR = [
    "x\n",
    "1.0\n",
    "-30.0\n",
    "3 0 0\n",
    "0 3 0\n",
    "0 0 3\n",
    "Cu\n",
    "Cu Au\n",
    "1\n",
    "1 1\n",
    "Direct\n",
    "Selective dynamics\n",
    "0 0 0 T F T\n",
    "0.5 0.5 0.5\n",
    "\n",
]
EXTXYZ = [
    "1\n",
    "2\n",
    "Lattice=",
    '"3 0 0 0 3 0 0 0 3" ',
    "Properties=species:S:1:pos:R:3",
    ":forces:R:3",
    ' pbc="T T F"',
    " pbc=",
    " energy=",
    "\n",
    "Cu 0 0 0\n",
    "Cu 0 0\n",
    '"',
    "=",
    " stress=",
    " a=_JSON {",
]
FIELDS = [
    "name: x\n",
    "property: relax\n",
    "structures:\n",
    "  file: [metals.extxyz]\n",
    "models: emt\n",
    "settings: {\n",
    "seed: 7\n",
    "groups:\n",
    "  - name: a\n",
    "    prototype: fcc\n",
    "    count: 3\n",
    "family: third_party\n",
    "elements: [Cu]\n",
    "num_layers: 1\n",
    "- ",
    "{",
    "}",
    "[",
    "]",
    ": ",
    "&a ",
    "*a",
    "\n",
    "  ",
]


def _structures(path: Path) -> None:
    for _ in read_structures(path):
        pass


def _card(path: Path) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(card, "asset_dir", lambda name: path.parent.parent)
        read_card(path.parent.name)


def _checkpoint(path: Path) -> None:
    read_header(path)
    read_tensors(path)


def _index(path: Path) -> None:
    for index in range(len(dataset := open_dataset(path.parent))):
        dataset[index]


# Valid file below the folder of seeds, its reader, and words of its grammar.
ENTRANCES: dict[str, tuple[str, Callable[[Path], Any], list[str]]] = {
    "cif": ("structures/a.cif", _structures, CIF),
    "poscar": ("structures/a.vasp", _structures, POSCAR),
    "extxyz": ("structures/a.extxyz", _structures, EXTXYZ),
    "specification": ("specs/spec.yaml", read_spec, FIELDS),
    "recipe": ("data/recipe.yaml", read_recipe, FIELDS),
    "training": ("training.yaml", read_config, FIELDS),
    "card": ("cards/emt/card.yaml", _card, FIELDS),
    "checkpoint": ("small.safetensors", _checkpoint, ["{", "}", '"__metadata__"', ":", '"a"', "[0,1]", ","]),
    "dataset": (
        "data/dataset/index.json",
        _index,
        ["{", "}", '"format"', ":", '"esen_flows dataset"', ",", "[", "1", "NaN"],
    ),
}


@pytest.fixture(scope="module")
def valid(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of seeds that need no database."""
    folder = tmp_path_factory.mktemp("seeds")
    seeds.make_structures(folder / "structures")
    seeds.make_models(folder)
    seeds.make_data(folder / "data")
    seeds.make_specs(folder / "specs")
    return folder


@pytest.fixture(params=ENTRANCES)
def entrance(request: pytest.FixtureRequest, valid: Path) -> Iterator[tuple[Path, Callable[[Path], Any], list[str]]]:
    """A file that may be changed, which is whole again afterwards; its reader; its words."""
    name, read, words = ENTRANCES[request.param]
    path = valid / name
    content = path.read_bytes()
    yield path, read, words
    path.write_bytes(content)


@settings(max_examples=40)
@given(random=st.randoms(use_true_random=False))
def test_a_changed_file(entrance: tuple[Path, Callable[[Path], Any], list[str]], random: Random) -> None:
    path, read, _ = entrance
    original = path.read_bytes()
    kinds = BINARY if path.suffix in (".safetensors", ".json") else TEXT
    changed = mutate(original, random, kinds)
    if path.suffix == ".yaml" and random.random() < 0.6:
        changed = yaml.safe_dump(change_value(yaml.safe_load(original), random)).encode("utf-8", "replace")
    try:
        path.write_bytes(changed)
        with suppress(EsenFlowsError):
            read(path)
    finally:
        path.write_bytes(original)


@settings(max_examples=30)
@given(data=st.data())
def test_any_words_of_its_grammar(entrance: tuple[Path, Callable[[Path], Any], list[str]], data: st.DataObject) -> None:
    path, read, words = entrance
    original = path.read_bytes()
    drawn = data.draw(st.lists(st.sampled_from(words) | st.sampled_from([*NUMBERS, *WORDS]), max_size=25))
    text = "".join(drawn).encode("utf-8", "surrogatepass")
    try:
        path.write_bytes(len(text).to_bytes(8, "little") + text if path.suffix == ".safetensors" else text)
        with suppress(EsenFlowsError):
            read(path)
    finally:
        path.write_bytes(original)


def test_the_valid_files_are_read(entrance: tuple[Path, Callable[[Path], Any], list[str]]) -> None:
    path, read, _ = entrance
    read(path)
