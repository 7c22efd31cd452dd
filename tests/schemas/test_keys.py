"""Keys: the changes that count and those that do not, and the values with which results were first stored."""

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk, molecule

from esen_flows.schemas.keys import array_key, atoms_key, canonical_json, result_key, sha256_of

GOLDEN = json.loads((Path(__file__).parents[1] / "data" / "golden_keys.json").read_text())


def moved(atoms: Atoms, by: float) -> Atoms:
    atoms.positions[0, 0] += by
    return atoms


def charged(atoms: Atoms) -> Atoms:
    atoms.info["charge"] = 1.0
    return atoms


STRUCTURES: dict[str, Callable[[], Atoms]] = {
    "silicon primitive": lambda: bulk("Si", "diamond", 5.43),
    "gallium arsenide cubic": lambda: bulk("GaAs", "zincblende", 5.65, cubic=True),
    "water": lambda: molecule("H2O"),
    "charged water": lambda: charged(molecule("H2O")),
}
ARRAYS: dict[str, Callable[[], np.ndarray]] = {
    "float64 range": lambda: np.arange(6.0).reshape(2, 3),
    "float32 range": lambda: np.arange(6, dtype=np.float32).reshape(2, 3),
    "booleans": lambda: np.array([True, False, True]),
    "empty": lambda: np.zeros((0, 3)),
}
RESULT = {
    "kind": "relax",
    "protocol_hash": "11" * 32,
    "parent_key": "22" * 32,
    "model_key": "33" * 32,
    "numeric": {"dtype": "float64", "tf32": False, "compile": False},
    "numerics_revision": 1,
}


@pytest.mark.parametrize("name", STRUCTURES)
def test_golden_structures(name: str) -> None:
    assert atoms_key(STRUCTURES[name]()) == GOLDEN["structures"][name]


@pytest.mark.parametrize("name", ARRAYS)
def test_golden_arrays(name: str) -> None:
    assert array_key(ARRAYS[name]()) == GOLDEN["arrays"][name]


def test_golden_result() -> None:
    assert result_key(**RESULT) == GOLDEN["results"]["plain"]


def test_keys_are_the_same_in_another_process() -> None:
    """Python's own hashes differ between processes; ours may not."""
    code = "from ase.build import bulk; from esen_flows.schemas.keys import atoms_key; print(atoms_key(bulk('Si')))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == atoms_key(bulk("Si"))


def test_noise_of_file_formats_does_not_change_a_structure() -> None:
    # 2e-9 Angstrom on a coordinate of 0 is far from a rounding boundary of 1e-8.
    silicon = bulk("Si", "diamond", 5.43)
    assert atoms_key(moved(silicon.copy(), 2e-9)) == atoms_key(silicon)
    assert atoms_key(moved(silicon.copy(), -2e-9)) == atoms_key(silicon)  # rounds to -0.0
    assert atoms_key(moved(silicon.copy(), 2e-8)) != atoms_key(silicon)


def test_order_wrapping_and_periodicity_are_part_of_a_structure() -> None:
    cubic = bulk("GaAs", "zincblende", 5.65, cubic=True)
    key = atoms_key(cubic)
    assert atoms_key(cubic[::-1]) != key
    wrapped = cubic.copy()
    wrapped.positions[0] += wrapped.cell[0]
    assert atoms_key(wrapped) != key
    slab = cubic.copy()
    slab.pbc = (True, True, False)
    assert atoms_key(slab) != key


def test_names_and_memory_layout_are_no_part_of_a_structure() -> None:
    silicon = bulk("Si")
    labelled = silicon.copy()
    labelled.info["name"] = "mp-149"
    labelled.positions = np.asfortranarray(labelled.positions)
    assert atoms_key(labelled) == atoms_key(silicon)


def test_array_key_is_of_content_type_and_shape() -> None:
    array = np.arange(6.0).reshape(2, 3)
    assert array_key(np.asfortranarray(array)) == array_key(array)
    assert array_key(array.astype(">f8")) == array_key(array)
    assert array_key(array.reshape(3, 2)) != array_key(array)
    assert array_key(array.astype(np.float32)) != array_key(array)
    assert array_key(array + 1e-15) != array_key(array)


@pytest.mark.parametrize(
    "change",
    [
        {"kind": "phonon"},
        {"protocol_hash": "44" * 32},
        {"parent_key": "44" * 32},
        {"model_key": "44" * 32},
        {"numeric": {"dtype": "float32", "tf32": False, "compile": False}},
        {"numerics_revision": 2},
    ],
)
def test_every_part_of_a_request_changes_its_key(change: dict[str, Any]) -> None:
    assert result_key(**RESULT | change) != result_key(**RESULT)


def test_canonical_json_knows_no_order_and_no_nan() -> None:
    assert canonical_json({"b": 1, "a": [0.1, None]}) == '{"a":[0.1,null],"b":1}'
    assert sha256_of({"a": 1, "b": 2}) == sha256_of({"b": 2, "a": 1})
    with pytest.raises(ValueError, match="not JSON compliant"):
        canonical_json({"a": float("nan")})
