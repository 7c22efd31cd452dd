"""The benchmark of discovery judges relaxations; formation energies are known, because the crystals are elements."""

import gzip
import json
import shutil
from collections.abc import Iterator
from pathlib import Path

import emt_campaigns
import pytest
from ase.build import bulk
from ase.io import write

from esen_flows.campaigns import benchmark_geometry
from esen_flows.campaigns.benchmark import campaign_metrics, write_materials
from esen_flows.cli.app import main
from esen_flows.schemas.campaign import CampaignSpec
from esen_flows.settings import Settings
from esen_flows.store.results import Store

pytestmark = pytest.mark.mongod


@pytest.fixture(scope="module")
def store(embedded_settings: Settings) -> Iterator[Store]:
    """Copper and silver are relaxed, iron fails, and m3 of the reference is no member."""
    with emt_campaigns.empty_database(embedded_settings) as found:
        crystals = [bulk("Cu"), bulk("Ag"), bulk("Fe")]
        emt_campaigns.finish(found, crystals, benchmark="discovery", energy_corrections="add")
        yield found


@pytest.fixture(scope="module")
def folder(store: Store, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """References by which copper has 0.1 and silver -0.2 eV/atom; DFT says 0.12 and 0.05."""
    folder = tmp_path_factory.mktemp("wbm")
    energy = {
        row["label"]: store.get(row["key"]).summary["energy_per_atom_ev"]
        for row in store.database["campaign_members"].find({"campaign": "c", "state": "finished"})
    }
    elements = {"Cu": energy["m0"] - 0.1, "Ag": energy["m1"] + 0.2, "Fe": -8.0}
    entries = {name: {"energy": value, "composition": {name: 1.0}} for name, value in elements.items()}
    (folder / "2023-02-07-mp-elemental-reference-entries.json.gz").write_bytes(
        gzip.compress(json.dumps(entries).encode())
    )
    header = (
        "material_id,formula,e_form_per_atom_mp2020_corrected,e_above_hull_mp2020_corrected_ppd_mp,unique_prototype"
    )
    rows = ["m0,Cu,0.12,-0.01,True", "m1,Ag,0.05,0.1,True", "m2,Fe,0.0,-0.1,True", "m3,Ni,0.0,0.3,False"]
    rows.append("m4,Pd,-6.0,0.0,True")  # beyond 5 eV/atom: not part of the benchmark
    (folder / "2023-12-13-wbm-summary.csv.gz").write_bytes(gzip.compress("\n".join([header, *rows]).encode()))
    return folder


def test_metrics(store: Store, folder: Path) -> None:
    """Copper: -0.01 - 0.02 is stable as in DFT; silver: 0.1 - 0.25 is wrongly stable; iron counts as unstable."""
    (found,) = campaign_metrics(store, "c", folder)
    assert (found.model, found.n_materials, found.n_done) == ("emt", 4, 3)
    assert (found.done["full_TP"], found.done["full_FP"], found.done["full_FN"]) == (1, 1, 1)
    assert found.done["full_MAE"] == pytest.approx((0.02 + 0.25) / 2)
    assert found.done["full_missing_preds"] == 1
    assert found.with_missing_as_failed["full_missing_preds"] == 2
    assert found.with_missing_as_failed["full_TN"] == 1
    assert found.with_missing_as_failed["unique_F1"] == pytest.approx(0.5)
    rows = {row["material"]: row for row in found.materials}
    assert rows["m0"]["e_form_ev_per_atom"] == pytest.approx(0.1)
    assert rows["m1"]["e_above_hull_ev_per_atom"] == pytest.approx(-0.15)
    assert [rows[name]["state"] for name in ("m2", "m3")] == ["failed", "absent"]
    assert rows["m3"]["e_form_ev_per_atom"] is None


def test_a_crystal_with_two_names_counts_twice(store: Store, folder: Path, tmp_path: Path) -> None:
    """m5 is another name of copper, as `duplicates: merge` notes it."""
    (key,) = [row["structure_key"] for row in store.database["campaign_members"].find({"label": "m0"})]
    store.database["structures"].update_one({"_id": key}, {"$addToSet": {"material_ids": "m5"}})
    other = shutil.copytree(folder, tmp_path / "wbm")
    summary = other / "2023-12-13-wbm-summary.csv.gz"
    summary.write_bytes(gzip.compress(gzip.decompress(summary.read_bytes()) + b"\nm5,Cu,0.12,0.01,False"))
    (found,) = campaign_metrics(store, "c", other)
    rows = {row["material"]: row for row in found.materials}
    assert rows["m5"]["e_form_ev_per_atom"] == rows["m0"]["e_form_ev_per_atom"]
    assert (found.n_materials, found.n_done) == (5, 4)


def test_files_and_leaderboard(
    store: Store, folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    written = write_materials(campaign_metrics(store, "c", folder), tmp_path / "materials.csv")
    assert len(written.read_text().splitlines()) == 5
    shutil.copytree(folder, tmp_path / "published" / "discovery")
    monkeypatch.setenv("ESEN_FLOWS_CACHE_DIR", str(tmp_path))
    from esen_flows.settings import get_settings

    get_settings.cache_clear()
    with pytest.raises(SystemExit) as stop:
        main(["leaderboard", "--with", "c", "--sort", "unique_F1", "--rows", "70", "--superseded"])
    out, err = capsys.readouterr()
    assert not stop.value.code
    assert "c: emt has 3 of 4 materials; the rest counts as failed" in err
    lines = out.splitlines()
    ours = next(line for line in lines if line.startswith("emt <"))
    assert ours.split()[2:4] == ["0.500", "0.75"]  # precision 1 of 2, over 2 of 3
    assert "< a force field of this database" in lines


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"benchmark": "discovery"}, "benchmark: discovery and energy_corrections belong together"),
        ({"energy_corrections": "add"}, "belong together"),
        ({"benchmark": "kappa-103"}, "benchmark kappa-103 judges property: conductivity"),
    ],
)
def test_fields_that_contradict_each_other(changes: dict[str, str], message: str) -> None:
    content = {"name": "x", "property": "relax", "structures": {"published": "wbm"}, "models": "emt"}
    with pytest.raises(ValueError, match=message):
        CampaignSpec.model_validate(content | changes)


def test_geometry(
    store: Store, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, embedded_settings: Settings
) -> None:
    """Copper is as DFT has it; silver is face-centred here and body-centred there, which does not match."""
    pytest.importorskip("moyopy", reason="no moyopy")
    other = shutil.copytree(folder, tmp_path / "wbm")
    here = embedded_settings.model_copy(update={"cache_dir": tmp_path})
    monkeypatch.setattr(benchmark_geometry, "get_settings", lambda: here)
    dft = [bulk("Cu"), bulk("Ag", "bcc", a=3.3), bulk("Fe")]
    for number, atoms in enumerate(dft):
        atoms.info["material_id"] = f"m{number}"
    write(other / "2024-08-04-wbm-relaxed-atoms.extxyz", dft)
    (found,) = campaign_metrics(store, "c", other)
    assert found.done["rmsd_1e-2"] == found.done["rmsd_1e-5"] == pytest.approx(0.5, abs=1e-6)
    assert found.done["symmetry_match_1e-2"] == 0.5
    assert found.done["n_sym_ops_mae_1e-2"] == 0.0
    rows = {row["material"]: row["rmsd"] for row in found.materials}
    assert (rows["m0"], rows["m1"], rows["m2"]) == (pytest.approx(0.0, abs=1e-6), 1.0, None)

    # What was compared is not compared again; what a killed process left half-written is.
    lines = (tmp_path / "geometry-1.jsonl").read_text().splitlines(keepends=True)
    (tmp_path / "geometry-1.jsonl").write_text(lines[0] + lines[1][:40])
    asked: list[str] = []
    monkeypatch.setattr(benchmark_geometry, "structure_rmsd", lambda ours, dft: asked.append(ours.formula) or 0.25)
    (again,) = campaign_metrics(store, "c", other)
    assert asked == ["Ag1"]
    assert again.done["rmsd_1e-2"] == pytest.approx(0.125, abs=1e-6)
