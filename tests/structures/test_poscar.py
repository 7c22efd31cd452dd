"""POSCAR files: elements that are named, coordinates that are fixed, and what is refused."""

from pathlib import Path

import numpy as np
import pytest

from esen_flows.errors import InputError, StructureError, StructureWarning
from esen_flows.schemas.atom_properties import properties_of
from esen_flows.structures.files import read_structure

HEAD = "Si C\n1.0\n4.36 0 0\n0 4.36 0\n0 0 4.36\n"


@pytest.fixture
def read(tmp_path: Path):
    def reads(text: str):
        (tmp_path / "POSCAR").write_text(text)
        return read_structure(tmp_path / "POSCAR")

    return reads


def test_plain(read) -> None:
    found = read(HEAD + "Si C\n1 1\nDirect\n0 0 0 Si\n0.25 0.25 0.25 C\n")
    assert found.get_chemical_symbols() == ["Si", "C"]
    np.testing.assert_allclose(found.positions[1], 1.09, atol=1e-12)


@pytest.mark.parametrize("comment", ["Si C", "my crystal", "SiC_zincblende"])
def test_vasp_4_is_refused_whatever_its_comment_looks_like(comment: str, read) -> None:
    text = HEAD.replace("Si C", comment) + "1 1\nDirect\n0 0 0\n0.25 0.25 0.25\n"
    with pytest.raises(StructureError, match="the elements are missing: line 6 holds numbers of atoms, as in VASP 4"):
        read(text)


def test_potentials_isotopes_scales_and_exponents(read) -> None:
    text = HEAD.replace("1.0", "-8.2881856D+01").replace("4.36", "0.1D+01")
    found = read(text + "Si_sv_GW D/3f2a ! as VASP writes them\n1 1 # atoms\nCartesian\n0 0 0\n.25D0 .25D0 .25D0\n")
    assert found.get_chemical_symbols() == ["Si", "H"]
    assert properties_of(found).lists() == {"masses_u": [0.0, 2.01410178]}
    assert found.cell.lengths() == pytest.approx([4.36] * 3, abs=1e-6)
    assert found.positions[1] == pytest.approx([1.09] * 3, abs=1e-6)


def test_selective_dynamics_in_all_of_fortrans_spellings(read) -> None:
    rows = "0 0 0 F F F\n0.25 0.25 0.25 .FALSE. .true. T\n"
    found = read(HEAD + "Si C\n1 1\nselective\nDirect\n" + rows)
    assert properties_of(found).lists() == {
        "fixed_cartesian": [[True] * 3, [False] * 3],
        "fixed_fractional": [[False] * 3, [True, False, False]],
    }


def test_three_digits_mean_thirds(read) -> None:
    head = "MgB2\n1.0\n3.08 0 0\n-1.54 2.66735824372 0\n0 0 3.52\nMg B\n1 2\nDirect\n0 0 0\n"
    with pytest.warns(StructureWarning, match=r"0.333, 0.667 were read as thirds"):
        found = read(head + "0.333 0.667 0.5\n0.667 0.333 0.5\n")
    np.testing.assert_allclose(found.get_scaled_positions()[1:, 0], [1 / 3, 2 / 3], atol=1e-12)


@pytest.mark.parametrize(
    ("rest", "words"),
    [
        ("Si Vac\n1 1\nDirect\n0 0 0\n0 0 0.5\n", "line 6 does not name elements: 'Vac'"),
        ("Si C\n1\nDirect\n0 0 0\n", "line 7 does not give a number of atoms for each of Si C"),
        ("Si C\n1 -1\nDirect\n0 0 0\n", "line 7 does not give"),
        ("Si C\n1 1\nDirect\n0 0 0\n", "line 7 gives 2 atoms, but 1 lines"),
        ("Si C\n1 1\n0 0 0\n0.25 0.25 0.25\n", "line 8 says neither Direct nor Cartesian"),
        ("Si C\n1 1\nDirect\n0 0 ?\n0.25 0.25 0.25\n", r"a coordinate in line 9 is '\?'"),
        ("Si C\n1 1\nDirect\n0 0 nan\n0.25 0.25 0.25\n", "a coordinate in line 9 is not a finite number: 'nan'"),
        ("Si C\n1 1\nS\nDirect\n0 0 0 F F\n0.25 0.25 0.25 F F F\n", "line 10 does not hold three coordinates and"),
        ("Si C\n1 1\nS\nDirect\n0 0 0 F F X\n0.25 0.25 0.25 F F F\n", "flags other than T and F: 'F F X'|F F X"),
        ("Si C\n99999999999 1\nDirect\n0 0 0\n", "line 7 gives 100000000000 atoms"),
    ],
)
def test_faults_are_named(rest: str, words: str, read) -> None:
    with pytest.raises(InputError, match=words):
        read(HEAD + rest)


@pytest.mark.parametrize("scale", ["0 0", "one", "1e400", ""])
def test_scales_that_are_no_numbers(scale: str, read) -> None:
    with pytest.raises(InputError, match="scale"):
        read(HEAD.replace("1.0", scale) + "Si C\n1 1\nDirect\n0 0 0\n0.25 0.25 0.25\n")
