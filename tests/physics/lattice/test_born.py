"""Born charges: their assignment to atoms, refusals, and their effect on phonons and conductivities."""

from pathlib import Path

import numpy as np
import pytest
from alloys import copper_gold, phonopy_cell
from ase import Atoms, units
from ase.build import bulk, make_supercell
from ase.calculators.emt import EMT
from ase.spacegroup import crystal
from phonopy import Phonopy

from esen_flows.errors import InputError, StructureError
from esen_flows.forcefield.contract import Declaration
from esen_flows.forcefield.third_party.any_ase import AseForceField
from esen_flows.physics.lattice.adapter import plan_displacements
from esen_flows.physics.lattice.born import born_parameters, check_born, read_born
from esen_flows.physics.lattice.conductivity import conductivity
from esen_flows.physics.lattice.displacements import displaced_forces
from esen_flows.physics.lattice.force_sets import read_phonopy_forces
from esen_flows.physics.lattice.phonon import band_path, phonon
from esen_flows.physics.symmetry import conventional_cell
from esen_flows.schemas.documents import StructureData
from esen_flows.schemas.lattice_documents import ForcesOutput
from esen_flows.schemas.protocols import (
    BornCharges,
    ConductivityProtocol,
    DisplacementProtocol,
    HarmonicProtocol,
    PhononProtocol,
    TransportProtocol,
)

# BORN of phonopy's example TiO2-anatase (BSD-3): titanium, then the oxygen whose two near neighbours are along x.
ANATASE_BORN = """14.400
7.93119430 0 0 0 7.93119430 0 0 0 7.20023817
7.04188 0 0 0 7.04188 0 0 0 6.23070
-5.93192 0 0 0 -1.15699 0 0 0 -3.12063
"""
HARMONIC = HarmonicProtocol.of(PhononProtocol(mesh=(4, 4, 4), band_points=5))
TRANSPORT = TransportProtocol.of(ConductivityProtocol(mesh=(4, 4, 3), temperatures_kelvin=(300.0,)))


def anatase() -> Atoms:
    """Experimental anatase, Burdett et al., J. Am. Chem. Soc. 109, 3639 (1987); oxygen 4 next to titaniums along x."""
    atoms = crystal("TiO", [(0, 0, 0), (0, 0, 0.208)], spacegroup=141, cellpar=[3.784, 3.784, 9.515, 90, 90, 90])
    first = next(i for i in range(4, 12) if abs(near_direction(atoms, i)[0]) > 0.9)
    return atoms[[0, 1, 2, 3, first, *(i for i in range(4, 12) if i != first)]]


def near_direction(atoms: Atoms, oxygen: int) -> np.ndarray:
    """Unit vector from an oxygen to a titanium in (nearly) the same plane across z."""
    around = make_supercell(atoms, 3 * np.eye(3))
    titanium = around.positions[around.numbers == 22]
    middle = atoms.positions[oxygen] + atoms.cell.array.sum(axis=0)
    vectors = titanium - middle
    flat = vectors[(np.linalg.norm(vectors, axis=1) < 2.2) & (np.linalg.norm(vectors[:, :2], axis=1) > 1.0)]
    return flat[0] / np.linalg.norm(flat[0])


def forces_of(atoms: Atoms) -> ForcesOutput:
    """Displaced supercells of the flow with zero forces: these tests read only the cells."""
    cell = conventional_cell(atoms, 1e-5)
    plans = plan_displacements(cell, np.eye(3, dtype=int), None, 0.01, 1e-5)
    assert plans.fc2 is not None
    return ForcesOutput(
        unitcell=StructureData.from_atoms(cell),
        supercell_matrix_fc3=None,
        supercell_matrix_fc2=np.eye(3, dtype=int),
        primitive_matrix=plans.primitive_matrix,
        displacement_angstrom=0.01,
        symprec_angstrom=1e-5,
        parity="as_is",
        parity_averaged=False,
        displacements_fc3=None,
        forces_fc3=None,
        displacements_fc2=plans.fc2.dataset,
        forces_fc2=np.zeros((len(plans.fc2.supercells), len(cell), 3)),
        n_evaluations=0,
        seconds=0.0,
    )


def phonopy_of(cell: Atoms, forces: ForcesOutput) -> Phonopy:
    """phonopy itself, for the cells of a force step."""
    return Phonopy(phonopy_cell(cell), forces.supercell_matrix_fc2, forces.primitive_matrix)


@pytest.fixture
def file(tmp_path: Path) -> Path:
    (tmp_path / "BORN").write_text(ANATASE_BORN)
    return tmp_path / "BORN"


def written(how: str) -> Atoms:
    """The same anatase in another cell, order or position."""
    atoms = anatase()
    if how == "shuffled":
        return atoms[np.random.default_rng(3).permutation(len(atoms))]
    if how == "supercell":
        return atoms.repeat((1, 2, 1))
    if how == "moved":
        atoms.translate([0.3, 0.1, 0.2])
    if how == "relaxed":
        atoms.set_cell(atoms.cell.array * np.array([0.98, 0.98, 1.03]), scale_atoms=True)
    return atoms


@pytest.mark.parametrize("how", ["as read", "shuffled", "supercell", "moved", "relaxed"])
def test_each_atom_gets_its_own_charge_however_the_crystal_is_written(file: Path, how: str) -> None:
    born = read_born(file, anatase(), PhononProtocol())
    forces = forces_of(written(how))
    nac = born_parameters(born, forces)
    cell = forces.unitcell.to_atoms()
    found = phonopy_of(cell, forces).primitive
    primitive = Atoms(found.numbers, found.positions, cell=found.cell, pbc=True)
    assert len(primitive) == len(nac["born"]) == 6
    for index, (number, charge) in enumerate(zip(primitive.numbers, nac["born"], strict=True)):
        if number == 22:
            assert np.diag(charge) == pytest.approx([7.05, 7.05, 6.23], abs=0.02)
        else:  # large towards the near titaniums of this very oxygen
            large = 0 if abs(near_direction(primitive, index)[0]) > 0.9 else 1
            assert [charge[large, large], charge[1 - large, 1 - large]] == pytest.approx([-5.93, -1.15], abs=0.02)
    assert nac["born"].sum(axis=0) == pytest.approx(np.zeros((3, 3)), abs=1e-7)
    assert nac["factor"] == 14.4


def turned(atoms: Atoms, degrees: float, axis: str) -> Atoms:
    atoms.rotate(degrees, axis, rotate_cell=True)
    return atoms


def stretched(atoms: Atoms, factor: float) -> Atoms:
    atoms.set_cell(atoms.cell.array * factor, scale_atoms=True)
    return atoms


REFUSED = {
    "another crystal": (lambda: copper_gold(2.795, 3.581), "has CuAu|has AuCu"),
    "turned in space": (lambda: turned(anatase(), 30, "z"), "turned or strained"),
    "lying down": (lambda: turned(anatase(), 90, "x"), "turned or strained"),
    "larger": (lambda: stretched(anatase(), 1.2), "turned or strained"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_charges_of_another_crystal_or_orientation_are_refused(file: Path, case: str) -> None:
    born = read_born(file, anatase(), PhononProtocol())
    other, words = REFUSED[case]
    with pytest.raises(InputError, match=words):
        check_born(born, other(), 1e-5)


def test_atoms_that_are_elsewhere_are_refused(file: Path) -> None:
    born = read_born(file, anatase(), PhononProtocol())
    other = crystal("TiO", [(0, 0, 0), (0, 0, 0.35)], spacegroup=141, cellpar=[3.784, 3.784, 9.515, 90, 90, 90])
    with pytest.raises(InputError, match=r"more than 0\.5 Angstrom"):
        check_born(born, other, 1e-5)


LINES = ANATASE_BORN.splitlines()
UNREADABLE = {
    "a line missing": (LINES[:3], "cannot be read as phonopy's BORN of O8Ti4: .*not enough"),
    "a line too many": ([*LINES, LINES[3]], "Too many atoms"),
    "a line cut": ([*LINES[:3], "-5.9 0 0"], "is incorrect"),
    "lines exchanged": ([LINES[0], LINES[1], LINES[3], LINES[2]], "charges break the symmetry.*order and orientation"),
    "not neutral": ([*LINES[:3], "-5.9 0 0 0 -1.1 0 0 0 -2.0"], "do not sum to zero, by 0.7"),
    "axes exchanged": ([LINES[0], "7.2 0 0 0 7.9 0 0 0 7.9", *LINES[2:]], "dielectric tensor breaks the symmetry"),
    "not a number": ([*LINES[:3], "nan 0 0 0 -1.1 0 0 0 -1.8"], "BORN holds nan; correct the file"),
    "no dielectric tensor": ([LINES[0], "0 0 0 0 0 0 0 0 0", *LINES[2:]], "BORN: .*positive eigenvalues.*correct"),
    "a negative factor": (["-14.4", *LINES[1:]], "BORN: factor_ev_angstrom: .*greater than 0; correct the file"),
    "an Ewald cutoff": (["14.4 0.5 0.2", *LINES[1:]], "sets G_cutoff, Lambda"),
}


@pytest.mark.parametrize("case", UNREADABLE)
def test_a_file_that_does_not_fit_the_crystal_is_refused(tmp_path: Path, case: str) -> None:
    lines, words = UNREADABLE[case]
    (tmp_path / "BORN").write_text("\n".join(lines) + "\n")
    with pytest.raises(InputError, match=words):
        read_born(tmp_path / "BORN", anatase(), PhononProtocol())


def test_a_file_or_crystal_that_is_not_there(tmp_path: Path, file: Path) -> None:
    with pytest.raises(InputError, match=r"no file .*phonopy_params\.yaml"):
        read_born(tmp_path / "BORNE", anatase(), PhononProtocol())
    with pytest.raises(StructureError, match="needs a crystal"):
        read_born(file, Atoms("TiO2", positions=np.eye(3)), PhononProtocol())


@pytest.fixture(scope="module")
def alloy() -> tuple[ForcesOutput, dict[str, np.ndarray]]:
    """Third-order forces of CuAu by EMT, and charges for its copper and gold, as phonopy takes them."""
    declaration = Declaration(
        conservative=True, equivariance="O3", differentiable=False, elements=None, dtype="float64"
    )
    metals = AseForceField(EMT(), key="emt", label="emt", declaration=declaration)
    protocol = DisplacementProtocol(order=3, fc2_supercell=(2, 2, 2), fc3_supercell=(2, 2, 2))
    charge = np.diag([1.5, 1.5, 1.0])
    nac = {"born": np.array([charge, -charge]), "dielectric": np.diag([3.0, 3.0, 4.0]), "factor": 14.4}
    return displaced_forces(copper_gold(2.795, 3.581), metals, protocol), nac


@pytest.fixture
def alloy_born(tmp_path: Path) -> BornCharges:
    """The same charges through a file."""
    (tmp_path / "BORN").write_text("14.4\n3 0 0 0 3 0 0 0 4\n1.5 0 0 0 1.5 0 0 0 1\n-1.5 0 0 0 -1.5 0 0 0 -1\n")
    return read_born(tmp_path / "BORN", copper_gold(2.795, 3.581), PhononProtocol())


def test_frequencies_are_those_of_phonopy_with_the_same_charges(alloy, alloy_born: BornCharges) -> None:
    forces, nac = alloy
    ours = phonon(forces, HARMONIC.model_copy(update={"born": alloy_born}))
    theirs = phonopy_of(forces.unitcell.to_atoms(), forces)
    theirs.force_constants = ours.force_constants_ev_per_angstrom2
    theirs.nac_params = nac
    paths = band_path(ours.structure.to_atoms(), HARMONIC.band_points, 1e-5).segments
    for one, other in zip(ours.band_frequencies_thz, theirs.run_band_structure(paths).frequencies, strict=True):
        assert one == pytest.approx(np.array(other), abs=1e-6)
    # Gamma splits along a path, by the charges along it (Cochran and Cowley 1962), and not without them.
    optical, plain = (x.band_frequencies_thz[0][0][3:] for x in (ours, phonon(forces, HARMONIC)))
    along = paths[0][1] @ np.linalg.inv(ours.structure.cell_angstrom).T
    axis = int(np.abs(along).argmax())
    mass = 1 / (1 / ours.structure.to_atoms().get_masses()).sum() * units._amu
    volume = ours.structure.to_atoms().get_volume() * 1e-30
    charge, dielectric = nac["born"][0][axis, axis] * units._e, nac["dielectric"][axis, axis]
    rise = charge**2 / (units._eps0 * dielectric * mass * volume) / (2 * np.pi) ** 2 * 1e-24
    assert (optical**2).sum() - (plain**2).sum() == pytest.approx(rise, rel=1e-3)


def test_conductivity_takes_the_charges_of_its_protocol(alloy, alloy_born: BornCharges) -> None:
    forces, nac = alloy
    found = {
        "born": conductivity(forces, TRANSPORT.model_copy(update={"born": alloy_born})),
        "nac": conductivity(forces, TRANSPORT, nac),
        "none": conductivity(forces, TRANSPORT),
    }
    born, same, plain = (output.methods["rta"].kappa_w_per_m_k[0, :3] for output in found.values())
    assert born == pytest.approx(same, rel=1e-6)
    assert np.abs(born / plain - 1).max() > 0.01
    assert found["born"].max_frequency_thz > found["none"].max_frequency_thz + 0.1


def test_a_yaml_file_brings_the_cell_of_its_charges(alloy, alloy_born: BornCharges, tmp_path: Path) -> None:
    forces, nac = alloy
    theirs = phonopy_of(forces.unitcell.to_atoms(), forces)
    theirs.nac_params = nac
    theirs.save(tmp_path / "phonopy_params.yaml")
    swapped = copper_gold(2.795, 3.581)[[1, 0]]  # in another order: atoms are identified by element and position
    found = read_born(tmp_path / "phonopy_params.yaml", swapped, ConductivityProtocol())
    assert found.charges_e == alloy_born.charges_e
    assert born_parameters(found, forces)["born"] == pytest.approx(nac["born"])
    with pytest.raises(InputError, match="turned or strained"):
        read_born(tmp_path / "phonopy_params.yaml", turned(copper_gold(2.795, 3.581), 90, "x"), PhononProtocol())
    theirs.nac_params = None
    theirs.save(tmp_path / "without.yaml")
    with pytest.raises(InputError, match="holds no Born charges"):
        read_born(tmp_path / "without.yaml", copper_gold(2.795, 3.581), PhononProtocol())


@pytest.mark.shared
@pytest.mark.parametrize("name", ["NaCl", "TiO2-anatase"])
def test_published_charges_are_those_of_the_published_calculation(shared_dir: Path, name: str) -> None:
    folder = shared_dir / "data/phonopy/example" / name
    forces, nac = read_phonopy_forces(folder / "phonopy_disp.yaml", folder / "FORCE_SETS", folder / "BORN")
    assert nac is not None
    born = read_born(folder / "BORN", forces.unitcell.to_atoms(), PhononProtocol())
    found = born_parameters(born, forces)
    assert np.abs(found["born"] - nac["born"]).max() < 0.02  # the file's do not sum to zero
    ours, theirs = phonon(forces, HARMONIC.model_copy(update={"born": born})), phonon(forces, HARMONIC, nac)
    assert ours.band_frequencies_thz[0][0] == pytest.approx(theirs.band_frequencies_thz[0][0], abs=0.02)


@pytest.mark.shared
def test_published_charges_of_phono3py_are_read_from_its_yaml(shared_dir: Path) -> None:
    file = shared_dir / "data/phono3py/phono3py_params_NaCl222.yaml.xz"
    salt = bulk("NaCl", "rocksalt", a=5.6)
    born = read_born(file, salt, ConductivityProtocol())
    assert born.charges_e[0][0][0] == pytest.approx(1.10369, abs=1e-5)
    assert born.factor_ev_angstrom == pytest.approx(14.39965, abs=1e-5)
    with pytest.raises(InputError, match="turned or strained"):
        read_born(file, turned(salt, 20, "z"), ConductivityProtocol())
