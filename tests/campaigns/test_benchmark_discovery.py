"""The benchmark of discovery judges relaxations; formation energies are known, because the crystals are elements."""

import gzip
import json
import shutil
from collections.abc import Iterator
from datetime import date
from pathlib import Path

import emt_campaigns
import pytest
from ase.build import bulk
from ase.io import write

from esen_flows.campaigns import benchmark_geometry
from esen_flows.campaigns.benchmark import campaign_metrics, write_materials
from esen_flows.campaigns.benchmark_figures import draw
from esen_flows.campaigns.judged_models import JudgedModel
from esen_flows.campaigns.report import write_report
from esen_flows.campaigns.submission import write_submission
from esen_flows.cli.app import main
from esen_flows.errors import InputError
from esen_flows.metrics import geometry
from esen_flows.metrics.artefacts import write_formation_energies
from esen_flows.schemas.campaign import CampaignSpec
from esen_flows.schemas.documents import StructureData
from esen_flows.settings import Settings
from esen_flows.store.results import Store
from esen_flows.yaml_files import read_yaml

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
    store.database["structures"].update_one({"_id": key}, {"$pull": {"material_ids": "m5"}})  # for the other tests
    rows = {row["material"]: row for row in found.materials}
    assert rows["m5"]["e_form_ev_per_atom"] == rows["m0"]["e_form_ev_per_atom"]
    assert (found.n_materials, found.n_done) == (5, 4)


def test_submission(
    store: Store,
    folder: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    embedded_settings: Settings,
) -> None:
    """Nickel has no hull distance; DFT's silver is 1 % larger; the files give what the campaign's metrics say."""
    pytest.importorskip("moyopy", reason="no moyopy")
    here = embedded_settings.model_copy(update={"cache_dir": tmp_path})
    monkeypatch.setattr(benchmark_geometry, "get_settings", lambda: here)
    place = shutil.copytree(folder, tmp_path / "wbm")
    summary = place / "2023-12-13-wbm-summary.csv.gz"
    summary.write_bytes(gzip.compress(gzip.decompress(summary.read_bytes()).replace(b"0.0,0.3,False", b"0.0,,False")))
    dft = []
    for row in store.database["campaign_members"].find({"campaign": "c", "state": "finished"}):
        document = store.get(row["key"])
        assert document is not None
        assert document.output is not None
        atoms = StructureData(**document.output["structure"]).to_atoms()
        atoms.set_cell(atoms.cell * (1.01 if row["label"] == "m1" else 1.0), scale_atoms=True)
        atoms.info["material_id"] = row["label"]
        dft.append(atoms)
    write(place / "2024-08-04-wbm-relaxed-atoms.extxyz", dft)
    (judged,) = campaign_metrics(store, "c", place)
    # Atoms of one-atom cells are where they should be, so that the lengths alone differ and no atom moves.
    assert judged.done["rmsd_1e-2"] == pytest.approx(0, abs=1e-6)
    assert judged.done["symmetry_match_1e-5"] == 1
    assert judged.with_missing_as_failed["full_missing_preds"] == 1  # iron; nickel is not part of the subset
    assert judged.with_missing_as_failed["e_form_missing_preds"] == 2

    author, output = tmp_path / "submission.yaml", tmp_path / "out"
    author.write_text(emt_campaigns.AUTHOR)
    found = write_submission(store, "c", author, output, references=place, day=date(2026, 11, 29))
    with pytest.raises(SystemExit) as stop:
        main(["leaderboard", "score", str(output), "--folder", str(place), "--json"])
    scored = json.loads(capsys.readouterr().out)
    assert (stop.value.code or 0, scored) == (0, found.metrics)
    assert {name: scored[name] for name in judged.with_missing_as_failed} == judged.with_missing_as_failed
    card = read_yaml(output / "models/emt/emt.yml")
    assert card["metrics"]["discovery"]["unique_prototypes"]["F1"] == 0.5
    assert "3 of the 256,963 crystals of WBM" in card["metrics"]["discovery"]["reason"]
    assert card["metrics"]["geo_opt"]["symprec=1e-2"]["n_structures"] == 2
    # Written again, the files have the same bytes.
    before = {path: path.read_bytes() for path in output.rglob("*.gz")}
    write_submission(store, "c", author, output, references=place, day=date(2026, 11, 29))
    assert len(before) == 6
    assert all(path.read_bytes() == content for path, content in before.items())


def test_everything_that_a_card_lacks_is_named_at_once(store: Store, folder: Path, tmp_path: Path) -> None:
    author = tmp_path / "submission.yaml"
    with pytest.raises(InputError, match=r"submission\.yaml is missing: write into it"):
        write_submission(store, "c", author, tmp_path / "out", references=folder)
    kept = [line for line in emt_campaigns.AUTHOR.splitlines() if not line.startswith(("doi", "repo"))]
    author.write_text("\n".join(kept).replace(", email: nobody@example.org", "").replace("OSOD", "open"))
    with pytest.raises(InputError) as caught:
        write_submission(store, "c", author, tmp_path / "out", references=folder)
    assert "missing: doi, repo, authors.0.email; wrong: openness: 'open' is not one of" in str(caught.value)
    assert not (tmp_path / "out").exists()


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

    # Curves of the campaign and of a file of predictions; the report of the campaign has them too.
    file = tmp_path / "another" / "2026-11-29-discovery.csv.gz"
    file.parent.mkdir()
    write_formation_energies(file, {"m0": 0.12, "m1": 0.05, "m2": 0.01})
    for kind in ("roc", "rolling-mae", "precision-recall", "parity"):
        figure = tmp_path / f"{kind}.png"
        arguments = ["--with", "c", "--predictions", str(file), "--figure", str(figure), "--kind", kind]
        with pytest.raises(SystemExit) as stop:
            main(["leaderboard", *arguments])
        assert (stop.value.code or 0, figure.is_file()) == (0, True), capsys.readouterr().err
        svg = figure.with_suffix(".svg").read_text()
        assert ("emt" in svg, "another" in svg) == (True, True)
    for arguments, words in (
        (["--figure", str(figure), "--kind", "roc"], "name a campaign by --with"),
        (["--kind", "roc"], "belong to a figure"),
        (
            ["--predictions", str(file), "--predictions", str(file), "--figure", str(figure), "--kind", "roc"],
            "one name",
        ),
        (["--with", "c", "--figure", str(figure), "--kind", "rmsd"], "no relaxed structure was compared"),
    ):
        with pytest.raises(SystemExit) as stop:
            main(["leaderboard", *arguments])
        assert stop.value.code
        assert words in capsys.readouterr().err
    write_report(store, "c", tmp_path / "report")
    assert "](roc.png)" in (tmp_path / "report" / "report.md").read_text()


def test_curves_of_different_crystals_say_so(tmp_path: Path) -> None:
    def judged(model: str, own: list[float | None]) -> JudgedModel:
        rows = [
            {"e_above_hull_ev_per_atom": value, "reference_e_above_hull_ev_per_atom": dft, "unique_prototype": True,
             "state": "finished"}
            for value, dft in zip(own, (-0.1, 0.1, 0.2), strict=False)
        ]  # fmt: skip
        return JudgedModel(model, 3, len(rows), {}, {}, {}, "", rows)

    models = [judged("whole", [-0.1, 0.2, 0.3]), judged("half", [0.1, 0.2]), judged("none", [])]
    drawn = draw("roc", models, tmp_path / "roc.png", "test")
    assert drawn.left_out == ["none has no hull distance of a unique prototype that DFT knows"]
    svg = drawn.path.with_suffix(".svg").read_text()
    assert ("whole, 3 crystals" in svg, "half, 2 crystals" in svg) == (True, True)
    draw("roc", models[::2], tmp_path / "one.png", "test")
    assert "3 crystals" not in (tmp_path / "one.svg").read_text()


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
    lines = (tmp_path / "geometry-2.jsonl").read_text().splitlines(keepends=True)
    (tmp_path / "geometry-2.jsonl").write_text(lines[0] + lines[1][:40])
    asked: list[str] = []
    monkeypatch.setattr(geometry, "structure_rmsd", lambda ours, dft: asked.append(ours.formula) or 0.25)
    (again,) = campaign_metrics(store, "c", other)
    assert asked == ["Ag1"]
    assert again.done["rmsd_1e-2"] == pytest.approx(0.125, abs=1e-6)
    write(other / "2024-08-04-wbm-relaxed-atoms.extxyz", dft[1:])  # another reference under the same name
    (changed,) = campaign_metrics(store, "c", other)
    assert asked == ["Ag1", "Ag1"]
    assert changed.done["rmsd_1e-2"] == pytest.approx(0.25, abs=1e-6)
