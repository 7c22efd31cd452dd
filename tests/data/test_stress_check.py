"""Unit and sign of stresses and forces, found by finite strain."""

import re
from dataclasses import replace

import numpy as np
import pytest
from ase.build import bulk
from ase.calculators.emt import EMT

from esen_flows.data.dataset import from_structures, mixture
from esen_flows.data.folders import write_dataset
from esen_flows.data.labelled import LabelledStructure
from esen_flows.data.screening import Rejected, screened
from esen_flows.data.sources.options import SourceOptions
from esen_flows.data.sources.read import read_source
from esen_flows.data.stress_check import Slope, check_labels_by_strain, require_right
from esen_flows.errors import InputError
from esen_flows.forcefield.load import load_force_field


def strained(crystal, count: int, strain: float, rattle: float, seed: int = 0) -> list:
    random = np.random.default_rng(seed)
    structures = []
    for number in range(count):
        atoms = crystal.copy()
        change = random.normal(scale=strain, size=(3, 3))
        atoms.set_cell(atoms.cell.array @ (np.eye(3) + (change + change.T) / 2), scale_atoms=True)
        atoms.rattle(rattle, seed=seed + number)
        structures.append(atoms)
    return structures


@pytest.fixture(scope="module")
def silicon() -> list[LabelledStructure]:
    """Strained and rattled silicon with the labels of the force field that comes with the package."""
    force_field = load_force_field("esen_silicon")
    structures = strained(bulk("Si", a=5.55, cubic=True), 16, 0.005, 0.01)
    return [
        LabelledStructure(atoms, result.energy, np.asarray(result.forces), np.asarray(result.stress), material="Si")
        for atoms, result in zip(structures, force_field.evaluate(structures), strict=True)
    ]


def test_labels_of_a_conservative_model_are_right(silicon):
    forces, *stresses = check_labels_by_strain(from_structures(silicon))
    assert [stress.quantity for stress in stresses] == ["normal stress", "shear stress"]
    for stress in stresses:
        assert stress.slope == pytest.approx(1.0, abs=0.02)
        assert stress.standard_error < 0.02
        assert stress.pairs > 50
        assert stress.verdict == "right"
    assert (forces.slope, forces.pairs, forces.verdict) == (None, 0, "not known")  # no two have the same cell
    require_right((forces, *stresses))


@pytest.mark.parametrize(
    ("factor", "likely"),
    [
        (-1.0, "the sign is turned"),
        (160.21766, "they are in GPa"),
        (1602.1766, "they are in kBar"),
        (-1602.1766, "they are in kBar with the sign turned"),
        (3.0, "slope 0.33"),
        (0.01, "slope 1"),
    ],
)
def test_a_wrong_sign_or_unit_is_found_and_named(silicon, factor, likely):
    wrong = from_structures([replace(item, stress=item.stress * factor) for item in silicon])
    slopes = check_labels_by_strain(wrong)
    # Stresses a thousand times too large make every pair look uncertain; the sign and the size are found all the same.
    assert [slope.slope for slope in slopes[1:]] == pytest.approx([1 / factor] * 2, rel=0.1)
    with pytest.raises(InputError, match=likely):
        require_right(slopes)


# Six numbers xx, yy, zz, yz, xz, xy that are read as xx, yy, zz, xy, yz, zx, and the other way round.
@pytest.mark.parametrize(
    ("read", "advice"),
    [([0, 1, 2, 5, 3, 4], "--stress-order vasp"), ([0, 1, 2, 4, 5, 3], "--stress-order voigt")],
)
@pytest.mark.parametrize("element", ["Cu", "Al"])
def test_another_order_of_six_numbers_is_found_and_named(element, read, advice):
    force_field = load_force_field("emt")
    structures = strained(bulk(element, cubic=True), 16, 0.01, 0.02, seed=3)
    right, wrong = [], []
    for atoms, result in zip(structures, force_field.evaluate(structures), strict=True):
        six = result.stress[[0, 1, 2, 1, 0, 0], [0, 1, 2, 2, 2, 1]]
        right.append(LabelledStructure(atoms, result.energy, result.forces, result.stress))
        wrong.append(replace(right[-1], stress=six[read][[[0, 5, 4], [5, 1, 3], [4, 3, 2]]]))
    assert [slope.verdict for slope in check_labels_by_strain(from_structures(right))[1:]] == ["right", "right"]
    slopes = check_labels_by_strain(from_structures(wrong))
    assert [slope.verdict for slope in slopes] == ["not known", "right", "wrong"]
    with pytest.raises(InputError, match=rf"\(shear stress: slope .* pairs, wrong; as they are read, .*{advice}"):
        require_right(slopes)


@pytest.mark.filterwarnings("error")
def test_labels_that_do_no_work_are_not_judged(silicon):
    still = [replace(item, forces=np.zeros((8, 3)), stress=np.zeros((3, 3))) for item in silicon]
    normal = check_labels_by_strain(from_structures(still))[1]
    assert normal.slope is None
    assert re.fullmatch(r"normal stress: not checked, the labels do no work between \d+ pairs of .*", normal.words())
    one_cell = [replace(item, atoms=item.atoms.copy()) for item in still]
    for item in one_cell:
        item.atoms.set_cell(silicon[0].atoms.cell, scale_atoms=True)
    forces = check_labels_by_strain(from_structures(one_cell))[0]
    assert forces.words().startswith("forces: not checked, the labels do no work between")
    scan = [bulk("Cu", a=a) for a in np.linspace(3.5, 3.7, 6)]  # the stress does work, and its shear part does none
    results = load_force_field("emt").evaluate(scan)
    labelled = [LabelledStructure(a, r.energy, r.forces, r.stress) for a, r in zip(scan, results, strict=True)]
    _, normal, shear = check_labels_by_strain(from_structures(labelled))
    assert normal.slope == pytest.approx(1.0, abs=0.05)
    assert shear.slope is None


def test_forces_are_judged_at_a_fixed_cell():
    items = []
    crystal = bulk("Cu", cubic=True).repeat(2)
    directions = np.random.default_rng(0).normal(size=(32, 3))
    for seed in range(8):
        atoms = crystal.copy()
        atoms.positions += 0.01 * seed * directions
        atoms.calc = EMT()
        labels = (atoms.get_potential_energy(), atoms.get_forces(), atoms.get_stress(voigt=False))
        items.append(LabelledStructure(atoms.copy(), *labels))
    forces, stress, _ = check_labels_by_strain(from_structures(items))
    assert forces.slope == pytest.approx(1.0, abs=0.05)
    assert forces.verdict == "right"
    assert stress.slope is None
    gradients = from_structures([replace(item, forces=-item.forces) for item in items])
    turned = check_labels_by_strain(gradients)
    assert turned[0].slope == pytest.approx(-1.0, abs=0.05)
    with pytest.raises(InputError, match=r"the labels do not belong to the energies \(forces: slope -0\.99"):
        require_right(turned)


def test_pairs_are_of_one_material_and_group(silicon):
    apart = [replace(item, material=f"Si-{number}") for number, item in enumerate(silicon)]
    assert check_labels_by_strain(from_structures(apart))[1].pairs == 0
    apart = [replace(item, group=str(number)) for number, item in enumerate(silicon)]
    assert check_labels_by_strain(from_structures(apart))[1].pairs == 0
    # Another calculation of some of them, with an energy zero of its own, does not turn the line.
    shifted = [replace(item, energy=item.energy + 5.0, material="Si") for item in silicon[:3]]
    both = mixture([(from_structures(silicon), 1), (from_structures(shifted), 1)])
    assert check_labels_by_strain(both)[1].slope == pytest.approx(1.0, abs=0.02)


def test_records_without_stress_and_molecules_have_no_slope(silicon):
    none = from_structures([replace(item, stress=np.full((3, 3), np.nan)) for item in silicon])
    assert check_labels_by_strain(none)[1] == Slope("normal stress", None, None, 0)
    assert check_labels_by_strain(from_structures(silicon[:1]))[1].pairs == 0


def test_verdicts():
    assert Slope("stress", 0.9, 0.02, 100).verdict == "right"
    assert Slope("stress", -1.0, 0.1, 100).verdict == "wrong"
    assert Slope("stress", -1.0, 0.1, 4).verdict == "not known"
    assert Slope("stress", 0.5, 0.4, 100).verdict == "not known"
    assert Slope("stress", 0.9, 0.4, 100).verdict == "not known"
    assert Slope("stress", -1.0, 0.01, 20).document()["verdict"] == "wrong"


@pytest.mark.shared
def test_a_relaxation_by_vasp_is_right(shared_dir, tmp_path):
    path = shared_dir / "data" / "dft_frames" / "chgnet-vasp-no-magmoms.extxyz"
    # Frame 1 of it is an explosion of 16,657 eV/Angstrom.
    good = Rejected()
    dataset = write_dataset(tmp_path / "d", good.keep(screened(read_source(path), path.name)))
    assert good.counts == {"huge force": 1}
    stress = check_labels_by_strain(dataset)[1]
    assert stress.slope == pytest.approx(1.0, abs=0.1)
    assert stress.verdict == "right"
    turned = from_structures(read_source(path, options=SourceOptions(stress_unit="-eV/Angstrom^3")))
    assert check_labels_by_strain(turned)[1].verdict == "wrong"


@pytest.mark.shared
def test_independent_snapshots_give_no_verdict(shared_dir):
    path = shared_dir / "data" / "dft_frames" / "mlip_train.xyz"
    options = SourceOptions("dft_energy", "dft_forces", "dft_stress")
    items = Rejected().keep(read_source(path, options=options))
    assert check_labels_by_strain(from_structures(items))[1].verdict == "not known"
