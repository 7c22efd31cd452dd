import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk

from esen_flows.errors import InputError
from esen_flows.schemas.named_protocols import mdr_protocol, phonondb_protocol
from esen_flows.schemas.property_lookup import named_protocol, require_settings
from esen_flows.schemas.protocols import ConductivityProtocol, PhononProtocol


@pytest.fixture
def wurtzite() -> Atoms:
    """A structure with its own supercells, as ASE reads it from PhononDB's extended XYZ."""
    atoms = bulk("ZnO", "wurtzite", a=3.25, c=5.2)
    atoms.info.update(fc2_supercell=np.diag([5, 5, 3]), fc3_supercell=np.diag([3, 3, 2]), q_mesh=np.array([19, 19, 15]))
    return atoms


def test_phonondb_v1_is_what_was_published(wurtzite: Atoms) -> None:
    """Protocol of eSEN's entry in Matbench Discovery: one stage, FixSymmetry, no tilts, 1e-4 in 300 steps, 0.03 A."""
    protocol = phonondb_protocol(wurtzite.info)
    relax, displacement = protocol.relax, protocol.displacement
    assert (relax.fmax_ev_per_angstrom, relax.max_steps, relax.symmetry, relax.then_free) == (1e-4, 300, "fix", False)
    assert relax.cell_mask == (True, True, True, False, False, False)
    assert displacement.fc2_supercell == ((5, 0, 0), (0, 5, 0), (0, 0, 3))
    assert displacement.fc3_supercell == ((3, 0, 0), (0, 3, 0), (0, 0, 2))
    assert (displacement.displacement_angstrom, displacement.parity) == (0.03, "as_is")
    assert (protocol.mesh, protocol.temperatures_kelvin) == ((19, 19, 15), (300.0,))
    assert (protocol.isotope_scattering, protocol.boundary_mfp_micrometre) == (True, 1e6)
    require_settings("conductivity", "phonondb-v1", protocol, "them")


def test_two_stages_differ_in_the_relaxation_alone(wurtzite: Atoms) -> None:
    one, two = (
        named_protocol("conductivity", name, wurtzite.info) for name in ("phonondb-v1", "phonondb-v1-two-stage")
    )
    assert two.relax.then_free
    assert two.model_copy(update={"relax": one.relax}) == one


def test_general_is_the_default(wurtzite: Atoms) -> None:
    assert named_protocol("conductivity", "general", wurtzite.info) == ConductivityProtocol()


def test_missing_supercells_are_refused() -> None:
    protocol = phonondb_protocol({})
    with pytest.raises(InputError, match=r"this one has none; give them so"):
        require_settings("conductivity", "phonondb-v1", protocol, "them so")


def test_unknown_names_are_refused() -> None:
    with pytest.raises(InputError, match=r"phonondb-v2.*there are general, phonondb-v1, phonondb-v1-two-stage"):
        named_protocol("conductivity", "phonondb-v2", {})


def test_mdr_is_what_esens_authors_ran() -> None:
    """0.005 eV/Angstrom in 500 free steps, 0.01 Angstrom, symprec 1e-4, raw forces, 20^3, the 300 K of their tables."""
    protocol = mdr_protocol({"fc2_supercell": [[2, 0, 0], [0, 2, 0], [0, 0, 2]]})
    relax, displacement = protocol.relax, protocol.displacement
    assert (relax.fmax_ev_per_angstrom, relax.max_steps, relax.symmetry) == (0.005, 500, "free")
    assert displacement.fc2_supercell == ((2, 0, 0), (0, 2, 0), (0, 0, 2))
    assert (displacement.displacement_angstrom, displacement.symprec_angstrom) == (0.01, 1e-4)
    assert displacement.parity == "as_is"
    assert protocol.mesh == (20, 20, 20)
    assert protocol.temperatures_kelvin[4] == 300.0
    assert named_protocol("phonon", "mdr-esen", {}) == mdr_protocol({}).model_copy(update={"symmetrize": False})
    loew = named_protocol("phonon", "mdr-loew", {})
    assert isinstance(loew, PhononProtocol)
    assert (loew.relax.symmetry, loew.displacement.symprec_angstrom, loew.mesh_length_angstrom) == ("fix", 1e-5, 100.0)
    assert (loew.remove_drift, loew.symmetrize, loew.temperatures_kelvin[3]) == (True, True, 300.0)
    assert named_protocol("phonon", "general", {}) == PhononProtocol()
    with pytest.raises(InputError, match="no protocol 'md' of the property phonon; there are general, mdr"):
        named_protocol("phonon", "md", {})
