"""Isotopes and fixed atoms from a file to the database: keys and answers of their own, and nothing lost on the way."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from ase.build import fcc111
from ase.calculators.lj import LennardJones
from ase.constraints import FixAtoms
from ase.io import write
from running import run

from esen_flows.errors import StructureError
from esen_flows.forcefield import load
from esen_flows.forcefield.contract import Declaration
from esen_flows.forcefield.third_party.any_ase import AseForceField
from esen_flows.makers.phonon import PhononMaker
from esen_flows.makers.relax import RelaxMaker
from esen_flows.schemas.atom_properties import properties_of
from esen_flows.schemas.documents import RelaxOutput
from esen_flows.schemas.keys import atoms_key
from esen_flows.schemas.lattice_documents import PhononOutput
from esen_flows.schemas.protocols import DisplacementProtocol, PhononProtocol, RelaxProtocol
from esen_flows.store.exchange.ingest import ingest
from esen_flows.store.exchange.spool_store import SpoolStore
from esen_flows.store.queries.crystals import stream_atoms
from esen_flows.store.upkeep.verify import verify
from esen_flows.structures.files import read_structure

# Li and H on the places of Cu and Au in CuAu: with equal Lennard-Jones atoms a stable fcc crystal.
CIF = """data_{name}
_cell_length_a 3.5
_cell_length_b 3.5
_cell_length_c 4.95
_cell_angle_alpha 90
_cell_angle_beta 90
_cell_angle_gamma 90
_symmetry_space_group_name_H-M 'P 4/m m m'
loop_
_atom_site_label
_atom_site_type_symbol
_atom_site_fract_x
_atom_site_fract_y
_atom_site_fract_z
Li1 Li 0 0 0
H1 {hydrogen} 0.5 0.5 0.5
"""
PHONON = PhononProtocol(
    relax=RelaxProtocol(fmax_ev_per_angstrom=1e-4, symmetry="lock"),
    displacement=DisplacementProtocol(fc2_supercell=(2, 2, 2)),
    mesh=(4, 4, 4),
)


@pytest.fixture
def hydride(copper: Any, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A checkpoint that stands for Lennard-Jones lithium hydride."""
    declaration = Declaration(
        conservative=True, equivariance="O3", differentiable=False, elements=frozenset({1, 3}), dtype="float64"
    )
    force_field = AseForceField(
        LennardJones(sigma=3.5 / 2 ** (1 / 6), epsilon=0.05, rc=4.5),
        key=copper.force_field.key,
        label="lj",
        declaration=declaration,
    )
    monkeypatch.setattr(load, "load_force_field", lambda *arguments, **options: force_field)
    return Path(copper.checkpoint)


@pytest.mark.mongod
def test_hydride_and_deuteride_in_one_database(copper: Any, hydride: Path, tmp_path: Path) -> None:
    answers = {}
    for name, hydrogen in (("LiH", "H"), ("LiD", "D")):
        (tmp_path / f"{name}.cif").write_text(CIF.format(name=name, hydrogen=hydrogen))
        crystal = read_structure(tmp_path / f"{name}.cif")
        maker = PhononMaker(force_field_name=str(hydride), protocol=PHONON, material_ids=(name,))
        document = copper.store.get(run(maker.make(crystal), copper)["key"])
        assert document.structure_key == atoms_key(crystal)
        assert atoms_key(copper.store.get_structure(document.structure_key)) == atoms_key(crystal)
        answers[name] = document
    light, heavy = answers["LiH"], answers["LiD"]
    assert light.structure_key != heavy.structure_key
    assert light.key != heavy.key
    assert light.formula == heavy.formula == "LiH"
    output = PhononOutput.model_validate(heavy.output)
    assert sorted(output.structure.masses_u) == [0.0, 2.01410178]  # type: ignore[arg-type]
    assert heavy.summary["isotopes"] == "H 2.0141 u"
    assert "isotopes" not in light.summary
    # The highest mode is hydrogen's, nearly alone: the ratio is near the root of the ratio of masses.
    ratio = light.summary["max_frequency_thz"] / heavy.summary["max_frequency_thz"]
    assert np.sqrt(2.014 / 1.008) * 0.85 < ratio < np.sqrt(2.014 / 1.008)
    assert verify(copper.store).problems == []
    computed = {document.material_ids[0]: atoms for document, atoms in stream_atoms(copper.store, "relax")}
    assert properties_of(computed["LiD"]).masses_u.tolist() == [0.0, 2.01410178]  # type: ignore[union-attr]
    assert properties_of(computed["LiH"]).masses_u is None


@pytest.mark.mongod
def test_a_slab_with_and_without_fixed_atoms(copper: Any, tmp_path: Path) -> None:
    slab = fcc111("Cu", (1, 1, 4), vacuum=6.0, periodic=True)
    slab.positions[:, 2] *= 1.02
    fixed = slab.copy()
    fixed.set_constraint(FixAtoms([0, 1]))
    protocol = RelaxProtocol(relax_cell=False, fmax_ev_per_angstrom=1e-2)
    maker = RelaxMaker(force_field_name=str(copper.checkpoint), protocol=protocol)
    energies = {}
    for name, atoms in (("free", slab), ("fixed", fixed)):
        write(tmp_path / f"{name}.vasp", atoms, format="vasp")
        read = read_structure(tmp_path / f"{name}.vasp")
        document = copper.store.get(run(maker.make(read), copper)["key"])
        output, output_summary = RelaxOutput.model_validate(document.output), document.summary
        energies[name] = output.energy_ev
        if name == "fixed":
            assert output_summary["fixed_atoms"] == 2
            np.testing.assert_array_equal(output.structure.positions_angstrom[:2], read.positions[:2])
            assert output.structure.fixed_cartesian.tolist() == [[True] * 3] * 2 + [[False] * 3] * 2
    assert energies["fixed"] > energies["free"] + 1e-3
    with pytest.raises(StructureError, match="set relax_cell=false"):
        run(RelaxMaker(force_field_name=str(copper.checkpoint)).make(fixed), copper)
    with pytest.raises(StructureError, match="moves every atom"):
        PhononMaker(force_field_name=str(copper.checkpoint)).make(fixed)


@pytest.mark.mongod
def test_the_spool_carries_both(copper: Any, tmp_path: Path) -> None:
    atoms = fcc111("Cu", (1, 1, 3), vacuum=6.0, periodic=True)
    atoms.set_masses([None, 64.9278, None])
    atoms.set_constraint(FixAtoms([0]))
    spool = SpoolStore(tmp_path / "spool")
    key = spool.put_structure(atoms)
    assert key == atoms_key(atoms) == atoms_key(spool.get_structure(key))
    spool.close()
    ingest(copper.store, tmp_path / "spool")
    assert atoms_key(copper.store.get_structure(key)) == key
    assert verify(copper.store).problems == []
