"""Files on which an import was wrong once, with what is right for each."""

import numpy as np
import pytest

from esen_flows.data.folders import read_index
from esen_flows.data.importing import import_sources, read_dataset
from esen_flows.data.labelled import STRESS_LEFT_OUT
from esen_flows.data.sources.options import SourceOptions
from esen_flows.errors import InputError
from esen_flows.forcefield.load import load_force_field
from esen_flows.training.config import read_config
from esen_flows.training.metrics import read_rows
from esen_flows.training.train import train

pytestmark = pytest.mark.shared
NAMED = {"energy_key": "REF_energy", "forces_key": "REF_forces"}


@pytest.fixture
def cases(shared_dir):
    return shared_dir / "cases" / "data"


def imported(path, tmp_path, **options):
    """Index and dataset of an import."""
    dataset = import_sources([path], tmp_path / "d", options=SourceOptions(**options))
    return read_index(tmp_path / "d"), dataset


def test_a_stress_of_slabs_is_dropped_and_training_goes_on(cases, tmp_path):
    index, dataset = imported(cases / "slab-zero-vector" / "mix.extxyz", tmp_path)
    assert (index["records"], index["remarks"], index["statistics"]["stress_records"]) == (24, {STRESS_LEFT_OUT: 4}, 20)
    train(read_config(cases / "slab-zero-vector" / "tiny.yaml"), dataset, dataset, tmp_path / "run")
    assert all(np.isfinite(row["loss"]) for row in read_rows(tmp_path / "run" / "steps.csv"))


def test_a_molecule_in_a_box_has_no_stress(cases, tmp_path):
    index, dataset = imported(cases / "stress-nonperiodic" / "box.extxyz", tmp_path)
    assert (index["remarks"], index["statistics"]["stress_records"]) == ({STRESS_LEFT_OUT: 6}, 0)
    (result,) = load_force_field("esen_silicon").evaluate([dataset[0].atoms])
    assert np.isnan(result.stress).all()


def test_finished_steps_of_a_cut_run_are_kept(cases, tmp_path):
    index, dataset = imported(cases / "truncated-vasprun", tmp_path)
    (bad,) = index["rejected"]["listed"]
    assert bad["where"].endswith("run1/vasprun.xml")
    assert bad["found"].startswith("1 finished ionic steps are kept")
    assert len(dataset) == 2


def test_the_order_of_six_stresses_is_checked(cases, tmp_path):
    path, names = cases / "voigt-order" / "e_vaspvoigt.extxyz", {**NAMED, "stress_key": "REF_stress"}
    with pytest.raises(InputError, match=r"shear stress: .* wrong; .* VASP's order: --stress-order vasp"):
        imported(path, tmp_path, **names)
    index, _ = imported(path, tmp_path, **names, stress_order="vasp")
    assert [slope["verdict"] for slope in index["check_by_strain"]] == ["not known", "right", "right"]


def test_a_stress_that_is_not_named_is_pointed_at(cases, tmp_path):
    path = cases / "stress-not-named" / "c_virial.extxyz"
    with pytest.raises(InputError, match=r"found REF_virials: name it with --stress-key \(--stress-unit virial\)"):
        imported(path, tmp_path, **NAMED)
    index, _ = imported(path, tmp_path, **NAMED, stress_key="REF_virials", stress_unit="virial")
    assert [slope["verdict"] for slope in index["check_by_strain"]] == ["not known", "right", "right"]


def test_an_unconverged_step_is_bad_or_counted(cases, tmp_path):
    path = cases / "unconverged-scf" / "vasprun.xml.gz"
    with pytest.raises(InputError, match=r"the electronic loop did not converge .*--keep-unconverged"):
        imported(path, tmp_path)
    index, _ = imported(path, tmp_path, keep_unconverged=True)
    assert index["remarks"] == {"the electronic loop did not converge": 1}


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("name", ["zero_forces.extxyz", "eos.extxyz"])
def test_frames_without_force_or_strain_between_them(cases, tmp_path, name):
    index, dataset = imported(cases / name, tmp_path)
    assert len(dataset) >= 6
    assert {slope["slope"] for slope in index["check_by_strain"]} == {None}
    assert len(read_dataset(cases / name)) == len(dataset)
