"""Structure files that are read, and those that are refused."""

import warnings
from pathlib import Path

import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk
from ase.io import write

from esen_flows.assets import asset_dir
from esen_flows.errors import InputError, StructureError, StructureWarning
from esen_flows.schemas.atom_properties import properties_of
from esen_flows.schemas.keys import atoms_key
from esen_flows.structures import files
from esen_flows.structures.checks import check_structure
from esen_flows.structures.files import read_structure

SILICON = bulk("Si", "diamond", a=5.43, cubic=True)


def test_the_silicon_of_the_repository() -> None:
    found = read_structure(asset_dir("workflows") / "silicon_kappa" / "Si.cif")
    assert found.get_chemical_formula() == "Si8"
    # 2.351 Angstrom = sqrt(3)/4 x 5.43: every atom has its four neighbours.
    distances = found.get_all_distances(mic=True)
    assert (np.isclose(distances, np.sqrt(3) / 4 * 5.43).sum(axis=1) == 4).all()


@pytest.mark.parametrize(
    ("name", "format"),
    [("Si.cif", "cif"), ("POSCAR", "vasp"), ("Si.vasp", "vasp"), ("Si.xyz", "extxyz"), ("Si.json", "json")],
)
def test_formats(tmp_path: Path, name: str, format: str) -> None:
    write(tmp_path / name, SILICON, format=format)
    found = read_structure(tmp_path / name)
    assert len(found) == 8
    assert found.pbc.all()
    np.testing.assert_allclose(found.cell.array, SILICON.cell.array, atol=1e-6)


def test_extended_xyz_keeps_every_bit_of_the_key(tmp_path: Path) -> None:
    write(tmp_path / "Si.xyz", SILICON, format="extxyz")
    assert atoms_key(read_structure(tmp_path / "Si.xyz")) == atoms_key(SILICON)


def test_a_format_that_only_pymatgen_reads(tmp_path: Path) -> None:
    from pymatgen.io.ase import AseAtomsAdaptor

    structure = AseAtomsAdaptor.get_structure(SILICON)
    path = tmp_path / "Si.yaml"
    structure.to(filename=str(path))
    assert read_structure(path).get_chemical_formula() == "Si8"


def test_one_frame_of_several(tmp_path: Path) -> None:
    path = tmp_path / "two.xyz"
    write(path, [SILICON, bulk("Ge")])
    with pytest.raises(InputError, match=r"holds 2 structures; name one, the first is .*two.xyz@0"):
        read_structure(path)
    assert read_structure(tmp_path / "two.xyz@1").get_chemical_formula() == "Ge2"
    with pytest.raises(InputError, match=r"holds 2 structures, the first is .*two.xyz@0; there is no .*two.xyz@2"):
        read_structure(tmp_path / "two.xyz@2")
    assert read_structure(tmp_path / "two.xyz@-2").get_chemical_formula() == "Si8"
    with pytest.raises(InputError, match=r"holds 2 structures, .*there is no .*two.xyz@-3"):
        read_structure(tmp_path / "two.xyz@-3")


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("empty.cif", "", "is empty"),
        ("broken.cif", "data_x\nloop_\n_atom_site_label\n", "cannot be read as a structure|holds no structure"),
        ("noise.cif", "not a structure\n", r"cannot be read as a structure: line 1: expected data_NAME"),
        ("noise.xyz", "not a structure at all", "line 1: expected a number of atoms"),
        ("POSCAR", "Si\n1.0\n5 0 0\n0 5 0\n", "cannot be read as a structure"),
        ("letter.txt", "Dear all,\n", "cannot be read as a structure"),
    ],
)
def test_unreadable_files(tmp_path: Path, name: str, content: str, words: str) -> None:
    path = tmp_path / name
    path.write_text(content)
    with pytest.raises(InputError, match=words) as caught:
        read_structure(path)
    assert name in str(caught.value)
    assert "\n" not in str(caught.value)


def test_missing_file_and_folder(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"no such file: .*gone.cif"):
        read_structure(tmp_path / "gone.cif")
    with pytest.raises(InputError, match="is not a file"):
        read_structure(tmp_path)


def test_partial_occupancy_is_refused(tmp_path: Path) -> None:
    text = (asset_dir("workflows") / "silicon_kappa" / "Si.cif").read_text()
    path = tmp_path / "alloy.cif"
    path.write_text(text.replace("Si8  Si  1.0", "Si8  Si  0.5"))
    with pytest.raises(StructureError, match="partially occupied"):
        read_structure(path)


DEUTERIDE = """2
Lattice="4.08 0 0 0 4.08 0 0 0 4.08" Properties=species:S:1:pos:R:3{columns} pbc="T T T"
Li 0 0 0{first}
{hydrogen} 2.04D+00 2.04 2.04{second}
"""


def test_isotopes_and_exponents_in_extended_xyz(tmp_path: Path) -> None:
    path = tmp_path / "LiD.xyz"
    path.write_text(DEUTERIDE.format(columns="", first="", second="", hydrogen="D"))
    assert properties_of(read_structure(path)).lists() == {"masses_u": [0.0, 2.01410178]}
    assert read_structure(path).positions[1] == pytest.approx([2.04] * 3)
    path.write_text(DEUTERIDE.format(columns=":masses:R:1", first=" 6.94", second=" 2.01410178", hydrogen="H"))
    heavy = atoms_key(read_structure(path))
    path.write_text(DEUTERIDE.format(columns="", first="", second="", hydrogen="D"))
    assert atoms_key(read_structure(path)) == heavy
    path.write_text(DEUTERIDE.format(columns=":masses:R:1", first=" 6.94", second=" 1.008", hydrogen="H"))
    natural = atoms_key(read_structure(path))
    path.write_text(DEUTERIDE.format(columns="", first="", second="", hydrogen="H"))
    assert atoms_key(read_structure(path)) == natural != heavy


def test_fixed_atoms_in_extended_xyz(tmp_path: Path) -> None:
    path = tmp_path / "slab.xyz"
    text = DEUTERIDE.format(columns=":move_mask:L:1", first=" F", second=" T", hydrogen="H")
    path.write_text(text)
    assert properties_of(read_structure(path)).lists() == {"fixed_cartesian": [[True] * 3, [False] * 3]}
    path.write_text(DEUTERIDE.format(columns=":move_mask:L:3", first=" F T T", second=" T T T", hydrogen="H"))
    assert properties_of(read_structure(path)).lists() == {"fixed_cartesian": [[True, False, False], [False] * 3]}


@pytest.mark.parametrize("count", ["3", "999999999"])
def test_a_frame_that_the_file_cuts_off(count: str, tmp_path: Path) -> None:
    path = tmp_path / "cut.xyz"
    path.write_text(DEUTERIDE.format(columns="", first="", second="", hydrogen="H").replace("2\n", f"{count}\n", 1))
    with pytest.raises(InputError, match=r"cut.xyz@0 cannot be read: the file ends in it"):
        read_structure(path)


def test_what_readers_warn_of_is_passed_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def reads(*arguments: object, **options: object) -> list[Atoms]:
        warnings.warn("the origin was guessed", UserWarning, stacklevel=1)
        warnings.warn("an argument gets another name", DeprecationWarning, stacklevel=1)
        return [SILICON]

    monkeypatch.setattr(files, "iread", reads)
    (tmp_path / "Si.json").write_text("{}")
    with pytest.warns(StructureWarning) as caught:
        read_structure(tmp_path / "Si.json")
    assert [str(each.message) for each in caught] == [f"{tmp_path / 'Si.json'}: the origin was guessed"]


def test_a_cell_of_absurd_size_is_read_and_refused(tmp_path: Path) -> None:
    path = tmp_path / "huge.xyz"
    path.write_text('1\nLattice="1e300 0 0 0 1e300 0 0 0 1e300" Properties=species:S:1:pos:R:3\nAl 0 0 0\n')
    with pytest.raises(StructureError, match="cell vectors of 1e"):
        check_structure(read_structure(path), path.name)
