"""Structure files: what is read, and what is refused before anything heavy happens."""

from pathlib import Path
from typing import get_args

import numpy as np
import pytest
import yaml
from ase import Atoms
from ase.build import bulk, fcc111, graphene, molecule
from ase.io import write

from esen_flows.assets import asset_dir
from esen_flows.cli.questions import Property
from esen_flows.cli.structure_files import check_crystal, check_elements, check_structure, read_structure
from esen_flows.errors import InputError, StructureError, UnknownElementError
from esen_flows.schemas.card import resolve_model
from esen_flows.schemas.keys import atoms_key
from esen_flows.schemas.protocols import NumericSettings

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


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("empty.cif", "", "is empty"),
        ("broken.cif", "data_x\nloop_\n_atom_site_label\n", "cannot be read as a structure|holds no structure"),
        ("noise.xyz", "not a structure at all", "cannot be read as a structure"),
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


def test_atoms_that_are_too_close_also_across_the_cell() -> None:
    close = SILICON.copy()
    close.positions[3] = close.positions[0] + [0.3, 0.0, 0.0] + close.cell[1]
    with pytest.raises(StructureError, match=r"atoms 0 \(Si\) and 3 \(Si\) are 0.300 Angstrom apart"):
        check_structure(close, "Si.cif")
    thin = Atoms("Si", cell=[0.4, 5, 5], pbc=True)
    with pytest.raises(StructureError, match=r"its periodic image are 0\.400"):
        check_structure(thin, "thin.cif")
    same = Atoms("Si2", positions=[[0, 0, 0], [0, 0, 0]])
    with pytest.raises(StructureError, match=r"are 0\.000 Angstrom apart"):
        check_structure(same, "same.xyz")
    check_structure(molecule("H2"), "H2.xyz")  # 0.74 Angstrom


def test_not_a_number() -> None:
    broken = SILICON.copy()
    broken.positions[2, 1] = np.nan
    with pytest.raises(StructureError, match="NaN"):
        check_structure(broken, "Si.cif")


def test_flat_cell_and_no_atoms_and_dummies() -> None:
    with pytest.raises(StructureError, match="flat or missing lattice vector"):
        check_structure(Atoms("Si", cell=[[5, 0, 0], [5, 0, 0], [0, 0, 5]], pbc=True), "flat.cif")
    with pytest.raises(StructureError, match="flat or missing lattice vector"):
        check_structure(Atoms("Si", pbc=True), "none.xyz")
    with pytest.raises(StructureError, match="holds no atoms"):
        check_structure(Atoms(cell=[5, 5, 5], pbc=True), "nothing.cif")
    with pytest.raises(StructureError, match="dummy"):
        check_structure(Atoms("XSi", positions=[[0, 0, 0], [2, 2, 2]]), "dummy.xyz")


def test_elements_that_the_model_never_saw(header_only_checkpoint: Path) -> None:
    model = resolve_model(header_only_checkpoint)
    check_elements(SILICON, model)
    with pytest.raises(UnknownElementError, match="silicon never saw Na, Cl; it knows Si"):
        check_elements(bulk("NaCl", "rocksalt", a=5.64), model)


@pytest.mark.parametrize(
    "crystal",
    [SILICON, bulk("Si"), bulk("Cs", "bcc", a=6.1), bulk("Xe", "fcc", a=6.2), bulk("Mg")],
    ids=["Si8", "Si2", "Cs", "Xe", "Mg"],
)
def test_crystals_are_crystals(crystal: Atoms) -> None:
    check_crystal(crystal, "crystal", "kappa")


def test_layered_crystals_are_crystals_but_one_layer_is_not() -> None:
    layer = graphene()
    layer.pbc = True
    layer.cell[2] = [0, 0, 3.35]
    check_crystal(layer, "graphite", "kappa")
    layer.cell[2] = [0, 0, 20.0]
    with pytest.raises(StructureError, match=r"20\.0 Angstrom of vacuum along c"):
        check_crystal(layer, "graphene", "kappa")


def test_molecules_and_slabs_are_not_crystals() -> None:
    with pytest.raises(StructureError, match=r"kappa needs a crystal, but H2O\.xyz is periodic in 0 of 3"):
        check_crystal(molecule("H2O"), "H2O.xyz", "kappa")
    boxed = molecule("SiH4", vacuum=6.0)
    boxed.pbc = True
    with pytest.raises(StructureError, match="vacuum along"):
        check_crystal(boxed, "box.cif", "kappa")
    slab = fcc111("Al", (1, 1, 3), vacuum=6.0)
    with pytest.raises(StructureError, match="periodic in 2 of 3"):
        check_crystal(slab, "slab.cif", "phonon")


def test_the_silicon_workflow_names_what_exists() -> None:
    folder = asset_dir("workflows") / "silicon_kappa"
    spec = yaml.safe_load((folder / "spec.yaml").read_text())
    assert spec["property"] in get_args(Property)
    assert NumericSettings(dtype=spec["dtype"])
    silicon = read_structure(folder / spec["structures"])
    check_structure(silicon, "Si.cif")
    check_crystal(silicon, "Si.cif", "kappa")
