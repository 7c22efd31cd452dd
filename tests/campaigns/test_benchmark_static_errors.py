"""The benchmark of static errors gives what an evaluation of the same dataset gives."""

from collections.abc import Iterator
from pathlib import Path

import emt_campaigns
import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk
from ase.calculators.emt import EMT
from ase.calculators.singlepoint import SinglePointCalculator
from ase.io import write

from esen_flows.campaigns.benchmark import campaign_metrics
from esen_flows.campaigns.plan import plan
from esen_flows.campaigns.reproduce import compute_here
from esen_flows.campaigns.sources import labelled_structures
from esen_flows.campaigns.spec import read_spec
from esen_flows.cli.app import main
from esen_flows.data.importing import read_dataset
from esen_flows.data.label_errors import error_sums, mean_errors
from esen_flows.errors import InputError
from esen_flows.forcefield.load import load_force_field
from esen_flows.schemas.campaign import CampaignSpec
from esen_flows.schemas.structure_source import StructureSource
from esen_flows.settings import Settings
from esen_flows.store.results import Store
from esen_flows.training.evaluate import evaluate_dataset

SPEC = """\
name: static
description: Copper, silver and iron, a stand-in.
property: static
structures: {dataset: [metals.xyz, iron.xyz]}
models: emt
duplicates: merge
benchmark: static-errors
"""


def labelled(atoms: Atoms, seed: int, group: str) -> Atoms:
    """A frame with labels that are EMT's with errors."""
    rng = np.random.default_rng(seed)
    atoms.calc = EMT()
    try:
        energy, forces, stress = atoms.get_potential_energy(), atoms.get_forces(), atoms.get_stress()
    except NotImplementedError:
        energy, forces, stress = 0.0, np.zeros((len(atoms), 3)), np.zeros(6)
    atoms.info["group"] = group
    atoms.calc = SinglePointCalculator(
        atoms,
        energy=energy + rng.normal(0.1),
        forces=forces + rng.normal(size=forces.shape),
        stress=stress + 0.01 * rng.normal(size=6),
    )
    return atoms


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Eight frames of copper and silver, the last of which has the structure of the first and other labels."""
    folder = tmp_path_factory.mktemp("frames")
    frames = [bulk(("Cu", "Ag")[i % 2], cubic=True) for i in range(7)]
    for seed, atoms in enumerate(frames):
        atoms.rattle(0.05, seed=seed)
    frames.append(frames[0].copy())
    write(
        folder / "metals.xyz",
        [labelled(atoms, seed, ("copper", "silver")[seed % 2]) for seed, atoms in enumerate(frames)],
    )
    iron = labelled(bulk("Fe", cubic=True), 9, "")
    del iron.info["group"]
    write(folder / "iron.xyz", [iron])
    (folder / "spec.yaml").write_text(SPEC)
    return folder


@pytest.fixture(scope="module")
def store(embedded_settings: Settings, folder: Path) -> Iterator[Store]:
    with emt_campaigns.empty_database(embedded_settings) as found:
        assert plan(found, read_spec(folder), SPEC).structures == 8
        compute_here(found, "static")
        yield found


@pytest.mark.mongod
def test_the_errors_are_those_of_an_evaluation(store: Store, folder: Path) -> None:
    (found,) = campaign_metrics(store, "static")
    assert (found.n_materials, found.n_done) == (9, 9)
    expected = evaluate_dataset(load_force_field("emt"), read_dataset(folder / "metals.xyz"))
    for group, errors in expected.items():
        prefix = "" if group == "all" else f"{group}: "
        for name in ("energy_mae_mev_per_atom", "force_mae_mev_per_angstrom", "stress_mae_mev_per_angstrom3"):
            assert found.done[prefix + name] == pytest.approx(errors[name], rel=1e-9)
    assert {name.partition(":")[0] for name in found.done if ":" in name} == {"copper", "silver"}
    rows = {row["material"]: row for row in found.materials}
    assert rows["iron@0"]["state"] == "failed"
    assert rows["iron@0"]["subset"] == "iron"
    assert rows["iron@0"]["energy_error_mev_per_atom"] is None
    assert rows["metals@0"]["energy_error_mev_per_atom"] != rows["metals@7"]["energy_error_mev_per_atom"]
    low, high = found.intervals[found.headline]
    assert low < found.done[found.headline] < high
    assert found.with_missing_as_failed[found.headline] is None  # iron has no error


@pytest.mark.mongod
def test_the_command_says_what_the_frames_are(store: Store, capsys: pytest.CaptureFixture[str]) -> None:
    for command, text in (("metrics", "a stand-in"), ("status", "_mev_per_angstrom unknown while members are missing")):
        with pytest.raises(SystemExit) as stop:
            main(["campaign", command, "static"])
        assert not stop.value.code
        assert text in capsys.readouterr().out


def test_a_sample_is_always_the_same(folder: Path) -> None:
    source = StructureSource(dataset=(str(folder / "metals.xyz"),), sample=3)
    first, again = ([one.label for one, _ in labelled_structures(source)] for _ in range(2))
    assert first == again
    assert len(set(first)) == 3
    with pytest.raises(InputError, match="sample: 30 of 8 records"):
        list(labelled_structures(source.model_copy(update={"sample": 30})))


@pytest.mark.parametrize(
    ("structures", "message"),
    [
        ({"file": "a.cif"}, "benchmark static-errors compares with labels"),
        ({"file": "a.cif", "sample": 3}, "`sample` draws from `dataset`"),
        ({"file": "a.cif", "dataset": "a"}, "exactly one of file, query, published and dataset, got file, dataset"),
    ],
)
def test_fields_that_contradict_each_other(structures: dict[str, str], message: str) -> None:
    content = {"name": "x", "property": "static", "models": "emt", "benchmark": "static-errors"}
    with pytest.raises(ValueError, match=message):
        CampaignSpec.model_validate(content | {"structures": structures})


@pytest.mark.shared
def test_frames_of_many_elements(shared_dir: Path) -> None:
    """A force field of zeros has the mean size of DFT's labels as its errors."""
    file = shared_dir / "data/dft_frames/mattersim/random-TP.xyz.gz"
    sums = 0.0
    for planned, item in labelled_structures(StructureSource(dataset=(str(file),), sample=50)):
        assert item.group == "random-TP"
        assert planned.label.startswith("random-TP@")
        sums = sums + error_sums(item, item.energy, np.zeros_like(item.forces), np.zeros((3, 3)))
    errors = mean_errors(np.asarray(sums))
    assert errors["frames"] == 50
    assert errors["force_mae_mev_per_angstrom"] == pytest.approx(1394.28, rel=1e-4)
    assert errors["stress_mae_mev_per_angstrom3"] == pytest.approx(231.996, rel=1e-4)
