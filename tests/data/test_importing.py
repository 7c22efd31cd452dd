"""From sources to a dataset folder."""

import json

import ase.io
import numpy as np
import pytest
from ase.build import bulk
from ase.calculators.emt import EMT
from ase.calculators.singlepoint import SinglePointCalculator

from esen_flows.data.folders import open_dataset
from esen_flows.data.importing import import_sources
from esen_flows.data.screening import Limits
from esen_flows.data.sources.options import SourceOptions
from esen_flows.errors import InputError


@pytest.fixture
def copper(tmp_path):
    """Two files of strained copper by EMT, a frame of the second with a NaN; stresses in GPa under `GPa`."""
    for name, seeds in (("a", range(8)), ("b", range(8, 14))):
        frames = []
        for seed in seeds:
            atoms = bulk("Cu", a=3.6 + 0.01 * seed, cubic=True)
            atoms.rattle(0.02, seed=seed)
            atoms.calc = EMT()
            energy, forces, stress = atoms.get_potential_energy(), atoms.get_forces(), atoms.get_stress()
            if seed == 9:
                energy = np.nan
            atoms.calc = SinglePointCalculator(atoms, energy=energy, forces=forces, stress=stress)
            atoms.info["GPa"] = stress * 160.21766
            frames.append(atoms)
        ase.io.write(tmp_path / f"{name}.xyz", frames, format="extxyz")
    return [tmp_path / "a.xyz", tmp_path / "b.xyz"]


def test_sources_become_one_folder(copper, tmp_path):
    read, counted = [], []
    dataset = import_sources(
        copper,
        tmp_path / "d",
        options=SourceOptions(group="copper"),
        cutoff_angstrom=4.0,
        on_record=read.append,
        on_edges=lambda *progress: counted.append(progress),
    )
    assert len(dataset) == 13
    assert (read[-1], counted[-1]) == (14, (13, 13))
    assert (tmp_path / "d" / "edges_4.0.npy").is_file()
    index = json.loads((tmp_path / "d" / "index.json").read_text())
    assert index["group_names"] == ["copper"]
    assert [source["name"] for source in index["provenance"]["sources"]] == ["a.xyz", "b.xyz"]
    assert index["provenance"]["limits"] == {
        "max_force_ev_per_angstrom": 50.0, "require_stress": False, "elements": None
    }  # fmt: skip
    assert index["rejected"]["counts"] == {"the energy is NaN or infinite": 1}
    assert index["rejected"]["listed"][0]["where"].startswith("record 1 of ")
    stress = index["check_by_strain"][1]
    assert stress["slope"] == pytest.approx(1.0, abs=0.05)
    assert stress["verdict"] == "right"


def test_labels_that_are_not_derivatives_end_the_import(copper, tmp_path):
    wrong = SourceOptions(stress_key="GPa")
    with pytest.raises(InputError, match="as they are read, they are in GPa"):
        import_sources(copper, tmp_path / "d", options=wrong)
    assert not (tmp_path / "d").exists()
    import_sources(copper, tmp_path / "d", options=wrong, check_strain=False)
    assert json.loads((tmp_path / "d" / "index.json").read_text())["check_by_strain"][1]["verdict"] == "wrong"
    right = import_sources(copper, tmp_path / "e", options=SourceOptions(stress_key="GPa", stress_unit="GPa"))
    np.testing.assert_allclose(right[0].stress, import_sources(copper, tmp_path / "f")[0].stress, rtol=1e-7)


def test_limits_and_fatal_records(copper, tmp_path):
    with pytest.raises(InputError, match=r"record 1 of .*b\.xyz: the energy is NaN"):
        import_sources(copper, tmp_path / "d", on_bad="fail")
    with pytest.raises(InputError, match=r"no good record, and 14 bad ones; the first: .*: huge force"):
        import_sources(copper, tmp_path / "d", limits=Limits(max_force_ev_per_angstrom=1e-6))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.xyz", "b.xyz"]
    import_sources(copper, tmp_path / "d")
    with pytest.raises(InputError, match="d exists; give another --output"):
        import_sources(copper, tmp_path / "d")
    again = import_sources([tmp_path / "d"], tmp_path / "e")
    assert again.key == open_dataset(tmp_path / "d").key
