"""Files of phonopy and phono3py are read as plain values: what a file names is never executed."""

import gzip
import lzma
import os
import re
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest
from alloys import phonopy_cell
from ase.build import bulk
from hypothesis import given
from hypothesis import strategies as st
from phonopy import Phonopy

from esen_flows.errors import InputError
from esen_flows.physics.lattice.born import read_born
from esen_flows.physics.lattice.files import read_phonopy_file
from esen_flows.physics.lattice.force_sets import read_phono3py_forces, read_phonopy_forces
from esen_flows.schemas.protocols import PhononProtocol

SALT = bulk("NaCl", "rocksalt", a=5.64)
ATTACKS = {
    "apply": "x: !!python/object/apply:os.mkdir [CANARY]",
    "new": "x: !!python/object/new:os.mkdir [CANARY]",
    "another prefix": "%TAG !p! tag:yaml.org,2002:python/\n---\nx: !p!object/apply:os.mkdir [CANARY]",
    "inside": "unit_cell: {lattice: !!python/object/apply:os.mkdir [CANARY]}",
    "as a key": "? !!python/object/apply:os.mkdir [CANARY]\n: 1",
}


@pytest.fixture(scope="module")
def good(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """phonopy_params.yaml of NaCl with charges and forces."""
    phonon = Phonopy(phonopy_cell(SALT), 2 * np.eye(3, dtype=int), primitive_matrix="auto")
    phonon.generate_displacements(distance=0.01)
    phonon.forces = np.zeros((len(phonon.supercells_with_displacements), 16, 3))
    charges = np.array([np.eye(3) * 1.1, np.eye(3) * -1.1])
    phonon.nac_params = {"born": charges, "dielectric": np.eye(3) * 2.4, "factor": 14.4}
    path = tmp_path_factory.mktemp("phonopy") / "phonopy_params.yaml"
    phonon.save(path, settings={"force_sets": True, "displacements": True})
    return path


def read_all(path: Path) -> None:
    """Every reader of such a file."""
    for read in (
        lambda: read_born(path, SALT, PhononProtocol()),
        lambda: read_phonopy_forces(path),
        lambda: read_phono3py_forces(path),
    ):
        with pytest.raises(InputError):
            read()


def test_the_good_file_is_read(good: Path, tmp_path: Path) -> None:
    born = read_born(good, SALT, PhononProtocol())
    np.testing.assert_allclose(np.diag(born.charges_e[0]), 1.1)
    for compress in (gzip.compress, lzma.compress):
        packed = tmp_path / "phonopy_params.yaml.packed"
        packed.write_bytes(compress(good.read_bytes()))
        assert read_born(packed, SALT, PhononProtocol()) == born
    assert read_phonopy_forces(good)[0].forces_fc2.shape[1:] == (16, 3)


@pytest.mark.parametrize("compress", [bytes, gzip.compress, lzma.compress])
@pytest.mark.parametrize("attack", ATTACKS)
def test_nothing_in_a_file_is_executed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, attack: str, compress: "type[bytes]"
) -> None:
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "phonopy_params.yaml.xz"
    path.write_bytes(compress(ATTACKS[attack].encode()))
    read_all(path)
    assert os.listdir() == [path.name]


@pytest.mark.parametrize("text", ["[" * 50_000, "a: &a [*a]", "", "- 1", "unit_cell: 1", "unit_cell: {}", "a: \0"])
def test_texts_that_are_no_calculation(tmp_path: Path, text: str) -> None:
    path = tmp_path / "phonopy_params.yaml.xz"
    path.write_bytes(lzma.compress(text.encode()))
    read_all(path)


def test_a_small_file_that_becomes_a_vast_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("esen_flows.physics.lattice.files.MOST_BYTES", 10**6)
    path = tmp_path / "phonopy_params.yaml.gz"
    path.write_bytes(gzip.compress(b"#" * 10**7))
    with pytest.raises(InputError, match="more than 1 MB"):
        read_phonopy_file(path)


@given(
    st.integers(0, 10**6),
    st.sampled_from(["cut", "swap", "number"]),
    st.sampled_from(["nan", "1e400", "[]", "-1", "x"]),
)
def test_any_damage_is_read_or_refused(good: Path, tmp_path: Path, place: int, how: str, value: str) -> None:
    lines = good.read_text().splitlines()
    place %= len(lines)
    if how == "cut":
        lines = lines[:place]
    elif how == "swap":
        lines[place], lines[place - 1] = lines[place - 1], lines[place]
    else:
        name, _, rest = lines[place].partition(":" if ":" in lines[place] else "[")
        lines[place] = f"{name}: {value}" if ":" in lines[place] else f"{name}[ {value}, {rest.partition(',')[2]}"
    path = tmp_path / "phonopy_params.yaml"
    path.write_text("\n".join(lines))
    for read in (lambda: read_born(path, SALT, PhononProtocol()), lambda: read_phonopy_forces(path)):
        with suppress(InputError):
            read()


IMPOSSIBLE = [
    ("supercell_matrix:\n- [ 2, 0, 0 ]", "supercell_matrix:\n- [ 1000000, 0, 0 ]", "at most 20000 atoms"),
    ("supercell_matrix:\n- [ 2, 0, 0 ]", "supercell_matrix:\n- [ 0, 0, 0 ]", "at least one unit cell"),
    ("supercell_matrix:\n- [ 2, 0, 0 ]", "supercell_matrix:\n- [ 2.5, 0, 0 ]", "no 3 x 3 matrix of integers"),
    ("supercell_matrix:\n- [ 2, 0, 0 ]", "supercell_matrix:\n- [ .nan, 0, 0 ]", "no 3 x 3 matrix of integers"),
    ("symbol: Cl", "symbol: Qq", "cannot be read"),
    ("unit_cell:", "unknown_cell:", "no unit cell"),
]


@pytest.mark.parametrize(("before", "after", "words"), IMPOSSIBLE)
def test_cells_that_would_end_the_process(good: Path, tmp_path: Path, before: str, after: str, words: str) -> None:
    text = " ".join(good.read_text().split(" "))
    text = re.sub(r"supercell_matrix:\n- \[ +2, +0, +0 \]", "supercell_matrix:\n- [ 2, 0, 0 ]", text)
    assert before in text
    path = tmp_path / "phonopy_params.yaml"
    path.write_text(text.replace(before, after))
    with pytest.raises(InputError, match=words):
        read_phonopy_forces(path)


def test_a_vast_cell(good: Path, tmp_path: Path) -> None:
    path = tmp_path / "phonopy_params.yaml"
    path.write_text(re.sub(r"lattice:\n  - \[ +[\d.]+", "lattice:\n  - [ 1.0e+300", good.read_text()))
    for read in (lambda: read_born(path, SALT, PhononProtocol()), lambda: read_phonopy_forces(path)):
        with pytest.raises(InputError):
            read()
