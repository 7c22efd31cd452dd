"""Structures of a campaign: from files, from the store, and of published sets that the user has downloaded."""

import bz2
import gzip
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk
from ase.io import write

from esen_flows.campaigns.sources import (
    PlannedStructure,
    ReferenceNotHereError,
    planned_structures,
    published_files,
    reference_file,
)
from esen_flows.errors import InputError
from esen_flows.makers.compute import Context, result_document
from esen_flows.makers.summaries import relax_summary
from esen_flows.schemas.campaign import CampaignSpec
from esen_flows.schemas.documents import RelaxOutput, StructureData
from esen_flows.schemas.keys import atoms_key
from esen_flows.schemas.protocols import NumericSettings, RelaxProtocol
from esen_flows.schemas.requests import property_requests
from esen_flows.settings import get_settings
from esen_flows.store.bulk import insert_results, put_structures
from esen_flows.store.results import Store
from esen_flows.structures.files import read_structures
from esen_flows.structures.identity import identify

SILICON, COPPER = bulk("Si"), bulk("Cu")
PHONOPY = """\
displacements:
- atom: 1
force_constants:
- [not, read]
supercell_matrix:
- [2, 0, 0]
- [0, 2, 0]
- [0, 0, 2]
unit_cell:
  lattice:
  - [4.2, 0.0, 0.0]
  - [0.0, 4.2, 0.0]
  - [0.0, 0.0, 4.2]
  points:
  - coordinates: [0.0, 0.0, 0.0]
    mass: 132.9
    symbol: Cs
  - coordinates: [0.5, 0.5, 0.5]
    mass: 35.45
    symbol: Cl
volume: 74.1
"""


def spec_of(**source: Any) -> CampaignSpec:
    return CampaignSpec.model_validate({"name": "a", "property": "relax", "structures": source, "models": "emt"})


def found_in(store: Any, **source: Any) -> list[PlannedStructure]:
    bad: list[str] = []
    found = list(planned_structures(spec_of(**source), store, bad.append))
    assert bad == []
    return found


def named(structures: list[PlannedStructure]) -> dict[str, str]:
    """Labels and formulas."""
    return {structure.label: str(structure.atoms.symbols) for structure in structures}


def test_files_of_one_and_of_many(tmp_path: Path) -> None:
    write(tmp_path / "Si.cif", SILICON)
    write(tmp_path / "POSCAR", COPPER, format="vasp")
    germanium = bulk("Ge")
    germanium.info |= {"material_id": "mp-32", "charge": 1}
    write(tmp_path / "many.extxyz", [SILICON, germanium, COPPER])
    with gzip.open(tmp_path / "packed.xyz.gz", "wt") as stream:
        write(stream, [SILICON], format="extxyz")
    files = [str(tmp_path / name) for name in ("Si.cif", "POSCAR", "many.extxyz", "many.extxyz@2", "packed.xyz.gz")]
    found = found_in(None, file=files)
    assert [structure.label for structure in found] == [
        "Si@0", "POSCAR@0", "many@0", "mp-32", "many@2", "many@2", "packed@0",
    ]  # fmt: skip
    assert found[3].material_ids == ("mp-32",)
    assert found[3].atoms.info == {"charge": 1}
    assert found[3].key == atoms_key(germanium) != atoms_key(bulk("Ge"))  # the charge counts
    assert found[2].key == found[6].key == atoms_key(SILICON)
    assert found[4].key == found[5].key


def test_only_one_frame_is_read_at_a_time(tmp_path: Path) -> None:
    write(tmp_path / "many.xyz", [SILICON] * 3, format="extxyz")
    with (tmp_path / "many.xyz").open("a") as stream:
        stream.write("3\nbroken\n")
    bad: list[str] = []
    source = spec_of(file=str(tmp_path / "many.xyz"))
    structures = planned_structures(source, None, bad.append)  # type: ignore[arg-type]
    assert [next(structures).label for _ in range(3)] == ["many@0", "many@1", "many@2"]
    assert bad == []
    assert list(structures) == []
    assert [line.partition(" ")[0] for line in bad] == [f"{tmp_path}/many.xyz@3"]


def test_every_bad_structure_is_named_and_the_others_keep_their_indices(tmp_path: Path) -> None:
    for name in ("a.xyz", "b.xyz"):
        write(tmp_path / name, [SILICON, COPPER, SILICON, COPPER], format="extxyz")
        lines = (tmp_path / name).read_text().splitlines()
        lines[3] = "Si one two three"  # in the first frame, of a number, a comment and two atoms
        lines[9] = "Si 1.0 2.0"  # in the third frame
        (tmp_path / name).write_text("\n".join(lines) + ("\nnot a number\n" if name == "b.xyz" else "\n"))
    (tmp_path / "c.cif").write_text("not a crystal\n")
    bad: list[str] = []
    files = [str(tmp_path / name) for name in ("a.xyz", "c.cif", "b.xyz")]
    found = list(planned_structures(spec_of(file=files), None, bad.append))  # type: ignore[arg-type]
    assert [one.label for one in found] == ["a@1", "a@3", "b@1", "b@3"]
    places = [
        "a.xyz@0",
        "a.xyz@2",
        "c.cif cannot be read",
        "b.xyz@0",
        "b.xyz@2",
        "b.xyz@4 cannot be read, nor what follows",
    ]
    assert len(bad) == len(places)
    for line, place in zip(bad, places, strict=True):
        assert place in line
    with pytest.raises(
        InputError, match=r"(?s)3 structures cannot be read; .*@0 .*@2 .*@4 cannot be read, nor what follows: "
    ):
        list(read_structures(tmp_path / "b.xyz"))


@pytest.fixture
def relaxed(store: Store) -> Atoms:
    """Silicon and copper in the store, and a relaxation of silicon; its relaxed structure."""
    put_structures(store, [(SILICON, {"material_ids": ["mp-149"]}), (COPPER, {})])
    atoms = bulk("Si", a=5.47)
    output = RelaxOutput(
        structure=StructureData.from_atoms(atoms),
        energy_ev=-10.8,
        energy_per_atom_ev=-5.4,
        forces_ev_per_angstrom=np.zeros((2, 3)),
        stress_ev_per_angstrom3=np.zeros((3, 3)),
        n_steps=3,
        converged=True,
        fmax_ev_per_angstrom=1e-5,
        volume_per_atom_angstrom3=20.4,
        space_group_initial=227,
        space_group_final=227,
        energies_ev=np.zeros(4),
    )
    (request,) = property_requests(atoms_key(SILICON), "bb" * 32, RelaxProtocol(), NumericSettings())
    context = Context(identity=identify(SILICON), model_label="someone", material_ids=("mp-149",))
    said = {"output": output, "summary": relax_summary(output), "seconds": 1.0, "evaluations": 4}
    insert_results(store, [result_document(request, context, **said)])  # type: ignore[arg-type]
    return atoms


@pytest.mark.mongod
def test_structures_and_relaxed_structures_of_the_store(store: Store, relaxed: Atoms) -> None:
    found = {structure.label: structure for structure in found_in(store, query={"elements": "Si"})}
    assert list(found) == ["mp-149"]
    assert found["mp-149"].key == atoms_key(SILICON)
    assert found["mp-149"].known["formula"] == "Si"
    copper = found_in(store, query={"where": "nsites < 2"})
    assert named(copper) == {f"Cu {atoms_key(COPPER)[:12]}": "Cu"}
    (computed,) = found_in(store, query={"of": "relax", "model": "someone", "where": "energy_per_atom < -5"})
    assert (computed.label, computed.key, computed.known) == ("mp-149", atoms_key(relaxed), None)
    with pytest.raises(InputError, match="energy_per_atm"):
        found_in(store, query={"of": "relax", "where": "energy_per_atm < -5"})


def test_published_sets_are_where_they_were_put(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ESEN_FLOWS_CACHE_DIR", str(tmp_path))
    get_settings.cache_clear()
    words = r"fetch 2024-11-09-phononDB-PBE-103-structures\.extxyz from https://figshare\.com/files/52179965 \(.*CC-BY"
    here = f"{tmp_path}/published: run esen-flows data pull phonondb-103, or {words}"
    with pytest.raises(ReferenceNotHereError, match=f"phonondb-103 is not in {here}"):
        published_files("phonondb-103", None)
    place = tmp_path / "published" / "phonondb-103"
    place.mkdir(parents=True)
    (place / "phononDB-PBE-structures.extxyz").touch()
    assert published_files("phonondb-103", None) == [place / "phononDB-PBE-structures.extxyz"]
    with pytest.raises(ReferenceNotHereError, match=f"wbm is not in {place}"):
        published_files("wbm", str(place))


def test_a_reference_is_first_looked_for_in_the_folder_of_the_campaign(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ESEN_FLOWS_REFERENCE_DIR", str(tmp_path / "mine"))
    get_settings.cache_clear()
    with pytest.raises(ReferenceNotHereError, match=f"wbm-summary is not in {tmp_path}/other or {tmp_path}/mine"):
        reference_file("wbm-summary", str(tmp_path / "other"))
    for place in ("mine/matbench/wbm", "other"):
        (tmp_path / place).mkdir(parents=True)
    (tmp_path / "mine/matbench/wbm/2023-12-13-wbm-summary.csv.gz").touch()
    (tmp_path / "other/wbm-summary.csv").touch()
    assert reference_file("wbm-summary", str(tmp_path / "other")) == tmp_path / "other/wbm-summary.csv"
    assert reference_file("wbm-summary", None).parent == tmp_path / "mine/matbench/wbm"


def test_wbm_is_an_archive_of_small_files(tmp_path: Path) -> None:
    archive = tmp_path / "2024-08-04-wbm-initial-atoms.extxyz.zip"
    with zipfile.ZipFile(archive, "w") as stream:
        for number, atoms in enumerate((SILICON, COPPER), start=1):
            write(tmp_path / "one.xyz", atoms, format="extxyz")
            stream.write(tmp_path / "one.xyz", f"wbm-1-{number}.extxyz")
    assert named(found_in(None, published="wbm", folder=str(tmp_path))) == {"wbm-1-1": "Si2", "wbm-1-2": "Cu"}
    archive.write_bytes(archive.read_bytes()[:100])
    with pytest.raises(InputError, match=r"not a zip archive or is broken off .*; fetch it again"):
        found_in(None, published="wbm", folder=str(tmp_path))


def test_mdr_is_a_folder_of_phonopy_files(tmp_path: Path) -> None:
    (tmp_path / "mp-573697.yaml.bz2").write_bytes(bz2.compress(PHONOPY.encode()))
    (found,) = found_in(None, published="mdr", folder=str(tmp_path))
    assert (found.label, found.material_ids) == ("mp-573697", ("mp-573697",))
    assert found.own == {"fc2_supercell": [[2, 0, 0], [0, 2, 0], [0, 0, 2]]}
    np.testing.assert_allclose(found.atoms.cell.array, np.diag([4.2, 4.2, 4.2]))
    assert str(found.atoms.symbols) == "CsCl"
    np.testing.assert_allclose(found.atoms.positions[1], 2.1)
    (tmp_path / "mp-1.yaml.bz2").write_bytes(bz2.compress(b"nothing: 1"))
    bad: list[str] = []
    source = spec_of(published="mdr", folder=str(tmp_path))
    others = list(planned_structures(source, None, bad.append))  # type: ignore[arg-type]
    assert "mp-1.yaml.bz2 is not a phonopy file of the MDR set" in "".join(bad)
    assert len(bad) == 1
    assert "mp-1" not in [one.label for one in others]


@pytest.mark.shared
def test_phonondb_has_supercells_and_meshes(shared_dir: Path) -> None:
    found = found_in(None, published="phonondb-103", folder=str(shared_dir / "data" / "phonondb_103"))
    assert len({structure.key for structure in found}) == 103
    lead_telluride = next(structure for structure in found if structure.label == "mp-19717")
    assert lead_telluride.own == {
        "fc2_supercell": np.diag([4, 4, 4]).tolist(), "fc3_supercell": np.diag([2, 2, 2]).tolist(),
        "q_mesh": [19, 19, 19],
    }  # fmt: skip


@pytest.mark.shared
def test_a_real_file_of_mdr(shared_dir: Path) -> None:
    (found,) = found_in(None, published="mdr", folder=str(shared_dir / "data" / "mdr"))
    assert (found.label, str(found.atoms.symbols)) == ("mp-1000", "Te4Ba4")
    assert found.own["fc2_supercell"] == np.diag([2, 2, 2]).tolist()
    assert found.atoms.get_volume() == pytest.approx(338.56118385527594)  # as the file says
