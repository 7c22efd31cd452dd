"""CIF files: the settings that symbols name, sites, elements, and what is refused."""

from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import spglib
from ase import Atoms

from esen_flows.errors import InputError, StructureError, StructureWarning
from esen_flows.schemas.atom_properties import properties_of
from esen_flows.schemas.keys import atoms_key
from esen_flows.structures.files import read_structure
from esen_flows.structures.identity import identify

pytestmark = pytest.mark.filterwarnings("ignore:Set OLD_ERROR_HANDLING:DeprecationWarning")  # of spglib
CUBIC = (5.64, 5.64, 5.64, 90, 90, 90)
HEXAGONAL = (3.2, 3.2, 5.2, 90, 90, 120)


def cif(
    sites: list[str],
    cell: tuple[float, ...] = CUBIC,
    head: str = "",
    columns: str = "label type_symbol",
    occupancy: bool = False,
) -> str:
    """Text of a CIF with these sites, whose columns end with the coordinates."""
    names = ("length_a", "length_b", "length_c", "angle_alpha", "angle_beta", "angle_gamma")
    lines = ["data_test", *(f"_cell_{name} {value}" for name, value in zip(names, cell, strict=True)), head, "loop_"]
    tags = [*columns.split(), "fract_x", "fract_y", "fract_z"]
    tags += ["occupancy"] if occupancy else []
    return "\n".join([*lines, *(f"_atom_site_{tag}" for tag in tags), *sites]) + "\n"


@pytest.fixture
def read(tmp_path: Path):
    def reads(*parts, **more) -> Atoms:
        path = tmp_path / "crystal.cif"
        path.write_text(cif(*parts, **more))
        return read_structure(path)

    return reads


def symbol(name: str, number: int | None = None) -> str:
    lines = [f"_symmetry_space_group_name_H-M '{name}'"]
    return "\n".join(lines + ([f"_symmetry_Int_Tables_number {number}"] if number else []))


RHOMBOHEDRAL = (4.75, 4.75, 4.75, 57.0, 57.0, 57.0)
MONOCLINIC = (5.15, 5.2, 5.3, 90, 99.2, 90)
ORTHORHOMBIC = (5.2, 5.5, 7.5, 90, 90, 90)
TETRAGONAL, CORUNDUM = (3.78, 3.78, 9.51, 90, 90, 90), (4.76, 4.76, 13.0, 90, 90, 120)
# Symbol, number, cell, one site; number and choice of the setting in spglib's table, and the atoms in the cell.
SETTINGS = {
    "diamond, second origin": ("F d -3 m :2", None, CUBIC, "C1 C 0.125 0.125 0.125", (227, "2"), 8),
    "diamond, first origin": ("F d -3 m :1", 227, CUBIC, "C1 C 0 0 0", (227, "1"), 8),
    "ICSD's second origin": ("F d -3 m Z", None, CUBIC, "C1 C 0 0 0", (227, "2"), 16),
    "ICSD's first origin": ("F d -3 m S", 227, CUBIC, "C1 C 0.625 0.625 0.625", (227, "1"), 16),
    "tetragonal, second origin": ("I 41/a m d :2", 141, TETRAGONAL, "Ti1 Ti 0 0.75 0.125", (141, "2"), 4),
    "tetragonal, first origin": ("I 41/a m d S", 141, TETRAGONAL, "Ti1 Ti 0 0 0", (141, "1"), 4),
    "hexagonal axes": ("R -3 c :H", None, CORUNDUM, "Al1 Al 0 0 0.352", (167, "H"), 12),
    "rhombohedral axes": ("R -3 c", 167, RHOMBOHEDRAL, "Al1 Al 0.352 0.352 0.352", (167, "R"), 4),
    "rhombohedral axes, named": ("R-3mR", None, RHOMBOHEDRAL, "Bi1 Bi 0.234 0.234 0.234", (166, "R"), 2),
    "other axes": ("P b n m", 62, ORTHORHOMBIC, "Fe1 Fe 0.11 0.21 0.25", (62, "cab"), 4),
    "other axes again": ("P c m n", 62, ORTHORHOMBIC, "Fe1 Fe 0.11 0.25 0.31", (62, "-cba"), 4),
    "cell choice n": ("P 21/n", 14, MONOCLINIC, "Zr1 Zr 0.27 0.04 0.21", (14, "b2"), 4),
    "cell choice a, full": ("P 1 21/a 1", 14, MONOCLINIC, "Zr1 Zr 0.27 0.04 0.21", (14, "b3"), 4),
    "unique axis c": ("P 21/b", None, (5.15, 5.3, 5.2, 90, 90, 99.2), "Zr1 Zr 0.27 0.21 0.04", (14, "c3"), 4),
    "right angles": ("P 21/c", None, ORTHORHOMBIC, "Zr1 Zr 0.27 0.04 0.21", (14, "b1"), 4),
    "old name": ("C m c a", 64, ORTHORHOMBIC, "Fe1 Fe 0 0.15 0.08", (64, ""), 8),
    "new name": ("C m c e", None, ORTHORHOMBIC, "Fe1 Fe 0 0.15 0.08", (64, ""), 8),
    "old name, other axes": ("B m a b", 64, ORTHORHOMBIC, "La1 La 0 0.01 0.36", (64, "a-cb"), 8),
    "old cubic name": ("P m 3 m", None, CUBIC, "Po1 Po 0 0 0", (221, ""), 1),
    "underscore": ("P 6_3/m m c", 194, HEXAGONAL, "Mg1 Mg 0.3333333 0.6666667 0.25", (194, ""), 2),
    "number alone": ("?", 198, CUBIC, "Fe1 Fe 0.13 0.13 0.13", (198, ""), 4),
}


def setting(number: int, choice: str) -> dict:
    """Operations of a setting in spglib's table."""
    for hall in range(1, 531):
        kind = spglib.get_spacegroup_type(hall)
        if (kind.number, kind.choice) == (number, choice):
            return spglib.get_symmetry_from_database(hall)
    raise ValueError(choice)


@pytest.mark.parametrize("case", SETTINGS)
def test_settings_that_symbols_name(case: str, read) -> None:
    name, number, cell, site, expected, atoms = SETTINGS[case]
    found = read([site], cell, symbol(name, number))
    assert len(found) == atoms
    assert keeps(found, setting(*expected))
    np.testing.assert_allclose(found.cell.cellpar(), cell, atol=1e-9)


def keeps(atoms: Atoms, operations: dict) -> bool:
    places = atoms.get_scaled_positions()
    for rotation, translation in zip(operations["rotations"], operations["translations"], strict=True):
        moved = places @ rotation.T + translation
        apart = moved[:, None] - places[None]
        if (np.abs(apart - np.round(apart)).max(axis=2).min(axis=1) > 1e-4).any():
            return False
    return True


@pytest.mark.parametrize("number", [148, 62, 14])
def test_hall_symbols(number: int, read) -> None:
    cells = {148: (4.8, 4.8, 16.0, 90, 90, 120), 62: ORTHORHOMBIC, 14: MONOCLINIC}
    for hall in range(1, 531):
        kind = spglib.get_spacegroup_type(hall)
        if kind.number != number or kind.choice.startswith(("R", "a", "c", "-")):
            continue
        head = f"_space_group_name_Hall '{kind.hall_symbol}'"
        found = read(["Si1 Si 0.11 0.23 0.32"], cells[number], head)
        assert keeps(found, spglib.get_symmetry_from_database(hall))
        assert len(found) == len(spglib.get_symmetry_from_database(hall)["rotations"])


@pytest.mark.parametrize(
    ("name", "number", "cell", "words"),
    [
        ("F d -3 m", 227, CUBIC, "'F d -3 m :1' or 'F d -3 m :2'"),
        ("P n n n", None, ORTHORHOMBIC, "'P n n n :1' or 'P n n n :2'"),
        ("R -3 m :H", None, RHOMBOHEDRAL, r"cell does not have the shape of the symbol 'R -3 m :H'"),
        ("F m -3 m", None, HEXAGONAL, "cell does not have the shape"),
        ("P q r s", None, CUBIC, "'P q r s' is not in the table of the 530 settings"),
        ("P 1 21/x 1", None, MONOCLINIC, "not in the table"),
        ("B 21/c", 14, MONOCLINIC, "'B 21/c' of the number 14 is not in the table"),
        ("F m -3 m", 62, CUBIC, "'F m -3 m' of the number 62 is not in the table"),
    ],
)
def test_settings_that_are_refused_by_name(name: str, number, cell, words: str, read) -> None:
    with pytest.raises(InputError, match=words):
        read(["Si1 Si 0.1 0.2 0.3"], cell, symbol(name, number))


def test_evidence_decides_between_two_origins(read) -> None:
    head = symbol("F d -3 m", 227) + "\n_chemical_formula_sum 'C1'\n_cell_formula_units_Z 8"
    with pytest.warns(StructureWarning, match="read as F d -3 m :1"):
        assert len(read(["C1 C 0 0 0"], CUBIC, head)) == 8
    with pytest.warns(StructureWarning, match="read as F d -3 m :2"):
        assert (
            len(
                read(
                    ["C1 C 8 0.125 0.125 0.125"],
                    CUBIC,
                    symbol("F d -3 m"),
                    columns="label type_symbol symmetry_multiplicity",
                )
            )
            == 8
        )


def test_listed_operations_count(read) -> None:
    listed = "loop_\n_space_group_symop_operation_xyz\n'x, y, z'\n'-x, -y, -z'\n"
    assert len(read(["Si1 Si 0.1 0.2 0.3"], MONOCLINIC, listed)) == 2
    with pytest.warns(StructureWarning, match="lists 2 symmetry operations, but its space group P 21/n has 4"):
        assert len(read(["Si1 Si 0.1 0.2 0.3"], MONOCLINIC, symbol("P 21/n") + "\n" + listed)) == 2
    with pytest.raises(InputError, match="are no group"):
        read(["Si1 Si 0.1 0.2 0.3"], CUBIC, "loop_\n_symmetry_equiv_pos_as_xyz\n'x, y, z'\n'-y, x, z'\n")
    with pytest.raises(InputError, match="do not keep the shape of the cell"):
        read(["Si1 Si 0.1 0.2 0.3"], MONOCLINIC, "loop_\n_symmetry_equiv_pos_as_xyz\n'x, y, z'\n'y, x, -z'\n")
    with pytest.raises(InputError, match="'x, y' is not a symmetry operation"):
        read(["Si1 Si 0.1 0.2 0.3"], CUBIC, "loop_\n_symmetry_equiv_pos_as_xyz\n'x, y'\n")


def test_no_symmetry_is_said(read) -> None:
    with pytest.warns(StructureWarning, match="names no space group"):
        assert len(read(["Si1 Si 0.1 0.2 0.3"])) == 1


@pytest.mark.parametrize("unknown", ["?", "."])
def test_unknown_occupancies_are_one(unknown: str, read) -> None:
    assert (
        len(read([f"Na1 Na 0 0 0 {unknown}", f"Cl1 Cl 0.5 0.5 0.5 {unknown}"], head=symbol("F m -3 m"), occupancy=True))
        == 8
    )


@pytest.mark.parametrize(
    ("sites", "words"),
    [
        (["Cu1 Cu 0 0 0", "Au1 Au 0 0 0"], r"Cu1 and Au1 \(Cu and Au\) are on one place"),
        (["H1 H 0 0 0", "D1 D 1.0 0 0"], r"H1 and D1 \(H and D\) are on one place"),
        (["M1 Cu0.5Au0.5 0 0 0"], "M1 is a mixture"),
        (["M1 '0.3Cu + 0.7Au' 0 0 0"], "M1 is a mixture"),
        (["M1 Cu/Au 0 0 0"], "M1 is a mixture"),
        (["Vac1 Va 0 0 0"], "type symbol 'Va', which is not an element"),
        (["Wat1 Wat 0 0 0"], "type symbol 'Wat', which is not an element"),
        (["X1 X 0 0 0"], "type symbol 'X', which is not an element"),
        (["Cu1 Cu ? 0 0"], r"coordinate x of Cu1 is '\?'"),
        (["Cu1 Cu 0 . 0"], r"coordinate y of Cu1 is '\.'"),
        (["Cu1 Cu 0 0 zero"], "coordinate z of Cu1 is not a finite number: 'zero'"),
        (["Cu1 Cu 0 0 nan"], "coordinate z of Cu1 is not a finite number"),
        (["Cu1 Cu 0 0 1e200"], "far outside"),
    ],
)
def test_sites_that_are_refused(sites: list[str], words: str, read) -> None:
    with pytest.raises(InputError, match=words):
        read(sites, head=symbol("P m -3 m"))


@pytest.mark.parametrize(
    ("cell", "words"),
    [
        ((1e300, 5, 5, 90, 90, 90), "lengths of the cell have to be between"),
        ((5, 5, -5, 90, 90, 90), "lengths of the cell"),
        ((5, 5, 5, 120, 120, 120), "enclose no volume"),
        ((5, 5, 5, 90, 90, 180), "enclose no volume"),
        ((5, 5, "?", 90, 90, 90), r"_cell_length_c is '\?'"),
    ],
)
def test_cells_that_are_refused(cell: tuple, words: str, read) -> None:
    with pytest.raises(InputError, match=words):
        read(["Si1 Si 0 0 0"], cell, symbol("P 1"))


def test_shared_sites_are_refused(read) -> None:
    with pytest.raises(StructureError, match=r"partially occupied sites \(occupancy 0.5\)"):
        read(["Cu1 Cu 0 0 0 0.5", "Au1 Au 0 0 0 0.5"], head=symbol("P m -3 m"), occupancy=True)


def test_two_atoms_of_one_element_on_one_place_are_said(read) -> None:
    with pytest.warns(StructureWarning, match="Au2 repeats an atom of Au1"):
        found = read(["Au1 Au 0 0 0", "Au2 Au 0.5 0.5 0"], head=symbol("F m -3 m"))
    assert len(found) == 4


def test_charges_isotopes_and_capitals_in_type_symbols(read) -> None:
    found = read(["Li1 LI1+ 0 0 0", "D1 D 0.5 0.5 0.5"], (4.08,) * 3 + (90,) * 3, symbol("F m -3 m"))
    assert Counter(found.get_chemical_symbols()) == {"Li": 4, "H": 4}
    assert properties_of(found).masses_u.tolist() == [0.0] * 4 + [2.01410178] * 4  # type: ignore[union-attr]
    heavy = read(["Li1 Li 0 0 0", "T1 T 0.5 0.5 0.5"], (4.08,) * 3 + (90,) * 3, symbol("F m -3 m"))
    plain = read(["Li1 Li 0 0 0", "H1 H- 0.5 0.5 0.5"], (4.08,) * 3 + (90,) * 3, symbol("F m -3 m"))
    assert len({atoms_key(atoms) for atoms in (found, heavy, plain)}) == 3
    with pytest.warns(StructureWarning, match="D1 has the type symbol 'H' and was read as hydrogen of natural mass"):
        assert atoms_key(
            read(["Li1 Li 0 0 0", "D1 H 0.5 0.5 0.5"], (4.08,) * 3 + (90,) * 3, symbol("F m -3 m"))
        ) == atoms_key(plain)


@pytest.mark.parametrize(
    ("labels", "formula", "elements"),
    [
        (("Na1", "Cl2A"), "", ["Na", "Cl"]),
        (("NA1", "CL1"), "", ["Na", "Cl"]),
        (("Si", "OW"), "", ["Si", "O"]),
        (("CA1", "O1"), "C1 O1", ["C", "O"]),
        (("CA1", "O1"), "Ca1 O1", ["Ca", "O"]),
        (("Co1", "O1"), "", ["Co", "O"]),
    ],
)
def test_labels_without_type_symbols(labels, formula: str, elements: list[str], read) -> None:
    sites = [f"{labels[0]} 0 0 0", f"{labels[1]} 0.5 0.5 0.5"]
    head = symbol("P m -3 m") + (f"\n_chemical_formula_sum '{formula}'" if formula else "")
    with pytest.warns(StructureWarning, match=f"from the labels: {labels[0]} as {elements[0]}"):
        assert read(sites, head=head, columns="label").get_chemical_symbols() == elements


@pytest.mark.parametrize("label", ["Vac1", "Wat2", "M1", "X", "Va1"])
def test_labels_that_name_no_element(label: str, read) -> None:
    with pytest.raises(StructureError, match=f"the label '{label}' names no element"):
        read([f"{label} 0 0 0"], head=symbol("P m -3 m"), columns="label")


def test_three_digits_mean_special_positions(read) -> None:
    with pytest.warns(StructureWarning, match=r"B1 at \(0.333, 0.667, 0.5\) was put on the special position"):
        found = read(["Mg1 Mg 0 0 0", "B1 B 0.333 0.667 0.5"], (3.08, 3.08, 3.52, 90, 90, 120), symbol("P 6/m m m"))
    assert len(found) == 3
    np.testing.assert_allclose(found.get_scaled_positions()[1], [1 / 3, 2 / 3, 0.5], atol=1e-12)
    with pytest.warns(StructureWarning, match=r"put on the special position"):
        sixths = read(["C1 C 0.166 0.333 0"], HEXAGONAL, symbol("P 6/m m m"))
    assert len(sixths) == 6  # x, 2x, 0
    np.testing.assert_allclose(sixths.get_scaled_positions()[0], [1 / 6, 1 / 3, 0], atol=4e-4)


def test_three_digits_without_symmetry_too(read) -> None:
    sites = ["B1 B 0.333 0.667 0.5", "B2 B 0.667 0.333 0.5", "Mg1 Mg 0 0 0"]
    with pytest.warns(StructureWarning, match=r"0.333, 0.667 were read as thirds or sixths"):
        found = read(sites, (3.08, 3.08, 3.52, 90, 90, 120), symbol("P 1"))
    assert identify(found, 1e-5)["space_group_number"] == 191
    general = read(["Si1 Si 0.333 0.2 0.1", "C1 C 0.1 0.4 0.6"], (4, 5, 6, 80, 85, 95), symbol("P 1"))
    assert general.get_scaled_positions()[0, 0] == pytest.approx(0.333, abs=1e-12)


def test_numbers_as_crystallographers_write_them(read) -> None:
    found = read(["Na1 Na 0.0D+00 1/2 0.25(3)"], ("5.64D0", "5.64(2)", 5.64, 90, 90, 90), symbol("P 1"))
    np.testing.assert_allclose(found.get_scaled_positions()[0], [0, 0.5, 0.25], atol=1e-12)


@pytest.mark.parametrize(
    ("head", "words"),
    [
        ("_cell_modulation_dimension 1", "modulated"),
        ("loop_\n_space_group_symop_magn_operation.xyz\n'x,y,z,+1'", "magnetic operations alone"),
        ("_symmetry_space_group_name_H-M", "has no value"),
        ("loop_\n_a\n_b\n1 2 3", "a loop of 2 tags has 3 values"),
        ("stray", "the value 'stray' has no tag"),
        ("_a 1\n_a 2", "_a stands twice"),
        (";text\n", "has no tag|does not end"),
    ],
)
def test_what_is_not_a_crystal_or_no_cif(head: str, words: str, read) -> None:
    with pytest.raises(InputError, match=words):
        read(["Si1 Si 0 0 0"], head=head)


def test_comments_quotes_and_text(read) -> None:
    head = "# a comment\n_title 'it''s a #1'\n_text\n;several\nlines with _tags and loop_\n;\n" + symbol("P 1")
    assert len(read(["Si1 Si 0 0 0 # here", "", "'Si 2' Si 0.5 0.5 0.5"], head=head)) == 2
