import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk

from esen_flows.errors import InputError
from esen_flows.schemas.named_protocols import check_supercells, conductivity_protocol, phonon_protocol
from esen_flows.schemas.protocols import ConductivityProtocol, PhononProtocol


@pytest.fixture
def wurtzite() -> Atoms:
    """A structure with its own supercells, as ASE reads it from PhononDB's extended XYZ."""
    atoms = bulk("ZnO", "wurtzite", a=3.25, c=5.2)
    atoms.info.update(fc2_supercell=np.diag([5, 5, 3]), fc3_supercell=np.diag([3, 3, 2]), q_mesh=np.array([19, 19, 15]))
    return atoms


def test_phonondb_v1_is_what_was_published(wurtzite: Atoms) -> None:
    """Protocol of eSEN's entry in Matbench Discovery: one stage, FixSymmetry, no tilts, 1e-4 in 300 steps, 0.03 A."""
    protocol = conductivity_protocol("phonondb-v1", wurtzite.info)
    relax, displacement = protocol.relax, protocol.displacement
    assert (relax.fmax_ev_per_angstrom, relax.max_steps, relax.symmetry, relax.then_free) == (1e-4, 300, "fix", False)
    assert relax.cell_mask == (True, True, True, False, False, False)
    assert displacement.fc2_supercell == ((5, 0, 0), (0, 5, 0), (0, 0, 3))
    assert displacement.fc3_supercell == ((3, 0, 0), (0, 3, 0), (0, 0, 2))
    assert (displacement.displacement_angstrom, displacement.parity) == (0.03, "as_is")
    assert (protocol.mesh, protocol.temperatures_kelvin) == ((19, 19, 15), (300.0,))
    assert (protocol.isotope_scattering, protocol.boundary_mfp_micrometre) == (True, 1e6)
    check_supercells(protocol, "phonondb-v1")


def test_two_stages_differ_in_the_relaxation_alone(wurtzite: Atoms) -> None:
    one, two = (conductivity_protocol(name, wurtzite.info) for name in ("phonondb-v1", "phonondb-v1-two-stage"))
    assert two.relax.then_free
    assert two.model_copy(update={"relax": one.relax}) == one


def test_general_is_the_default(wurtzite: Atoms) -> None:
    assert conductivity_protocol("general", wurtzite.info) == ConductivityProtocol()


def test_missing_supercells_are_refused() -> None:
    protocol = conductivity_protocol("phonondb-v1", {})
    with pytest.raises(InputError, match=r"this one has none; give them with --set displacement.fc2_supercell"):
        check_supercells(protocol, "phonondb-v1")


def test_unknown_names_are_refused() -> None:
    with pytest.raises(InputError, match=r"phonondb-v2.*there are general, phonondb-v1, phonondb-v1-two-stage"):
        conductivity_protocol("phonondb-v2", {})


def test_mdr_is_what_esens_authors_ran() -> None:
    """0.005 eV/Angstrom in 500 free steps, 0.01 Angstrom, symprec 1e-4, raw forces, 20^3, the 300 K of their tables."""
    protocol = phonon_protocol("mdr", {"fc2_supercell": [[2, 0, 0], [0, 2, 0], [0, 0, 2]]})
    relax, displacement = protocol.relax, protocol.displacement
    assert (relax.fmax_ev_per_angstrom, relax.max_steps, relax.symmetry) == (0.005, 500, "free")
    assert displacement.fc2_supercell == ((2, 0, 0), (0, 2, 0), (0, 0, 2))
    assert (displacement.displacement_angstrom, displacement.symprec_angstrom) == (0.01, 1e-4)
    assert displacement.parity == "as_is"
    assert protocol.mesh == (20, 20, 20)
    assert protocol.temperatures_kelvin[4] == 300.0
    assert phonon_protocol("general", {}) == PhononProtocol()
    with pytest.raises(InputError, match="no protocol 'md' of a phonon; there are general, mdr"):
        phonon_protocol("md", {})
