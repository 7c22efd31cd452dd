"""atomate2's own Makers with our force fields: their arguments, and the same phonons as ours."""

import json
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from ase.build import bulk
from jobflow import JobStore, run_locally
from maggma.stores import MemoryStore
from monty.json import MontyDecoder, MontyEncoder
from phonopy import Phonopy
from phonopy.structure.atoms import PhonopyAtoms

from esen_flows.errors import ModelError, NotConservativeError
from esen_flows.forcefield.load import load_force_field
from esen_flows.makers.atomate2 import force_field_maker, phonon_maker
from esen_flows.physics.lattice.displacements import displaced_forces
from esen_flows.physics.lattice.harmonic import HarmonicLattice
from esen_flows.physics.lattice.phonon import phonon
from esen_flows.schemas.card import resolve_model
from esen_flows.schemas.lattice_documents import ForcesOutput
from esen_flows.schemas.protocols import DisplacementProtocol, HarmonicProtocol

MESH = (8, 8, 8)  # even, so that phonopy's own mesh leaves Gamma out, where noise decides on the acoustic modes
COARSE = {"kpoint_density_dos": 200, "npoints_band": 11}  # of atomate2's own figures


@dataclass
class Silicon:
    """One run of atomate2's flow, and our forces of the structure that it relaxed.

    Attributes
    ----------
    document
        PhononBSDOSDoc.
    relaxation
        the ForceFieldTaskDocument of its first job.
    forces
        ours, of the same eight atoms.
    """

    document: Any
    relaxation: Any
    forces: ForcesOutput


@pytest.fixture(scope="module")
def silicon(tmp_path_factory: pytest.TempPathFactory) -> Silicon:
    from pymatgen.io.ase import AseAtomsAdaptor

    structure = AseAtomsAdaptor.get_structure(bulk("Si", "diamond", a=5.45, cubic=True))
    maker = phonon_maker(displacement=0.02, generate_frequencies_eigenvectors_kwargs=COARSE)
    flow = maker.make(structure, supercell_matrix=np.eye(3, dtype=int).tolist())
    memory = JobStore(MemoryStore(), additional_stores={"data": MemoryStore()})
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # atomate2's of its dependencies
        responses = run_locally(
            flow, log=False, store=memory, create_folders=True, raise_immediately=True,
            root_dir=str(tmp_path_factory.mktemp("atomate2")),
        )  # fmt: skip
    first, last = (responses[flow.jobs[number].uuid][1].output for number in (0, -1))
    relaxed = AseAtomsAdaptor.get_atoms(first.structure)
    protocol = DisplacementProtocol(displacement_angstrom=0.02, fc2_supercell=(1, 1, 1), parity="as_is")
    return Silicon(last, first, displaced_forces(relaxed, load_force_field("esen_silicon"), protocol))


def test_our_phonons_are_those_of_atomate2(silicon: Silicon) -> None:
    lattice, bands = HarmonicLattice(silicon.forces), silicon.document.phonon_bandstructure
    primitive = np.transpose(silicon.document.primitive_matrix) @ silicon.document.structure.lattice.matrix
    np.testing.assert_allclose(lattice.primitive.cell.array, primitive, atol=1e-8)
    q_points = np.array([point.frac_coords for point in bands.qpoints])
    ours = lattice.modes(q_points)[0].T
    assert bands.bands.max() > 11.0  # THz
    assert np.abs(ours - bands.bands).max() < 1e-5  # THz; the same forces to the last digits


def test_thermal_properties_are_those_of_phonopy(silicon: Silicon) -> None:
    temperatures = (100.0, 300.0, 800.0)
    protocol = HarmonicProtocol(
        mesh=MESH, band_points=3, temperatures_kelvin=temperatures, imaginary_tolerance_thz=0.05
    )
    ours = phonon(silicon.forces, protocol)
    cell = silicon.relaxation.structure
    theirs = Phonopy(
        PhonopyAtoms(symbols=["Si"] * 8, cell=cell.lattice.matrix, scaled_positions=cell.frac_coords),
        supercell_matrix=np.eye(3, dtype=int),
        primitive_matrix=silicon.document.primitive_matrix,
    )
    theirs.force_constants = np.array(silicon.document.force_constants.force_constants)
    theirs.run_mesh(MESH)
    theirs.run_thermal_properties(temperatures=temperatures)
    found = theirs.get_thermal_properties_dict()
    np.testing.assert_allclose(ours.free_energy_kj_per_mol, found["free_energy"], rtol=1e-4)
    np.testing.assert_allclose(ours.entropy_j_per_k_mol, found["entropy"], rtol=1e-3)
    np.testing.assert_allclose(ours.heat_capacity_j_per_k_mol, found["heat_capacity"], rtol=1e-3)


def test_documents_of_atomate2_name_the_force_field(silicon: Silicon) -> None:
    found = resolve_model("esen_silicon")
    assert silicon.relaxation.forcefield_name == "esen_silicon"
    assert silicon.relaxation.tags == [f"model_key:{found.key}"]
    assert silicon.relaxation.is_force_converged
    # 5.46663 Angstrom is the minimum of this force field (models/esen_silicon/card.yaml).
    assert silicon.relaxation.structure.lattice.a == pytest.approx(5.4666, abs=2e-4)


def test_makers_have_plain_arguments(header_only_checkpoint: Path) -> None:
    from atomate2.forcefields.jobs import ForceFieldRelaxMaker, ForceFieldStaticMaker
    from atomate2.forcefields.md import ForceFieldMDMaker

    model = str(header_only_checkpoint)
    names = {"ForceFieldRelaxMaker": "relax", "ForceFieldStaticMaker": "static", "ForceFieldMDMaker": "ASE MD"}
    for kind in (ForceFieldRelaxMaker, ForceFieldStaticMaker, ForceFieldMDMaker):
        maker = force_field_maker(kind, model, dtype="float32", device="cuda:1", tags=["mine"])
        assert type(maker) is kind
        assert maker.name == f"silicon {names[kind.__name__]}"
        assert maker.tags == ["mine", f"model_key:{'5e' * 32}"]
        assert maker.calculator_kwargs == {"model": model, "device": "cuda:1", "dtype": "float32"}
        restored = MontyDecoder().decode(json.dumps(maker, cls=MontyEncoder))
        assert restored.calculator_kwargs == maker.calculator_kwargs
        calculator = restored._get_calculator()
        assert type(calculator).__name__ == "ForceFieldCalculator"
    assert force_field_maker(ForceFieldStaticMaker, model, name="mine").name == "mine"


def test_fields_of_the_phonon_flow_can_be_replaced(header_only_checkpoint: Path) -> None:
    maker = phonon_maker(str(header_only_checkpoint), bulk_relax_maker=None, min_length=15.0, socket=True)
    assert (maker.bulk_relax_maker, maker.min_length, maker.socket) == (None, 15.0, True)
    assert maker.name == "silicon phonon"
    assert maker.static_energy_maker.name == "silicon static"
    assert maker.phonon_displacement_maker.name == "silicon displacement"
    assert phonon_maker(str(header_only_checkpoint)).bulk_relax_maker.relax_kwargs == {"fmax": 1e-5}


def test_force_fields_that_cannot_be_used_are_refused(direct_checkpoint: Path) -> None:
    with pytest.raises(ModelError, match="nobody"):
        phonon_maker("nobody")
    with pytest.raises(NotConservativeError, match="atomate2's PhononMaker needs forces"):
        phonon_maker(str(direct_checkpoint))
