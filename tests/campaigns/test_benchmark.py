"""The benchmark of conductivities judges the documents of a campaign; its reference is made of one of them."""

import gzip
import hashlib
import json
import shutil
from collections.abc import Iterator
from datetime import date
from pathlib import Path

import emt_campaigns
import numpy as np
import pytest
from ase.build import bulk

from esen_flows.campaigns.benchmark import benchmark_of, campaign_metrics, write_materials
from esen_flows.campaigns.report import write_report
from esen_flows.campaigns.submission import write_submission
from esen_flows.cli.app import main
from esen_flows.errors import InputError
from esen_flows.metrics.artefact_scores import score_artefacts
from esen_flows.metrics.artefacts import read_conductivities
from esen_flows.schemas.campaign import CampaignSpec
from esen_flows.settings import Settings
from esen_flows.store.results import Store
from esen_flows.yaml_files import read_yaml

pytestmark = pytest.mark.mongod
SMALL = {
    "relax.fmax_ev_per_angstrom": 0.05,
    "relax.symmetry": "lock",
    "displacement.fc2_supercell": [1, 1, 1],
    "displacement.fc3_supercell": [2, 2, 2],
    "mesh": [3, 3, 3],
    "temperatures_kelvin": [300.0],
    "methods": ["rta", "wigner"],
}


@pytest.fixture(scope="module")
def store(embedded_settings: Settings) -> Iterator[Store]:
    """Copper is finished, iron fails because EMT does not know it, silver is pending."""
    with emt_campaigns.empty_database(embedded_settings) as found:
        crystals = [bulk("Cu", cubic=True), bulk("Fe", cubic=True)]
        emt_campaigns.finish(
            found, crystals, property="conductivity", settings=SMALL, benchmark="kappa-103", lattice_backend="native"
        )
        yield found


@pytest.fixture(scope="module")
def reference(store: Store, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """DFT's file, in which copper (m0) has twice our conductivity, and m1 and m7 what they like."""
    copper = next(row for row in _members(store) if row["label"] == "m0")
    document = store.get(copper["key"])
    assert document is not None
    assert document.output is not None
    modes = 2 * np.asarray(document.output["mode_kappa_w_per_m_k"]["wigner"])
    weights = np.asarray(document.output["q_weights"])
    table = {
        "mp_id": ["m0", "m1", "m7"],
        "kappa_TOT_ave": [[float(modes.sum())]] * 3,
        "mode_kappa_TOT_ave": [[(modes * weights.sum()).tolist()]] * 3,
        "frequencies": [(np.asarray(document.output["frequencies_thz"]) + 0.25).tolist()] * 3,
        "weights": [weights.tolist()] * 3,
    }
    path = tmp_path_factory.mktemp("reference") / "kappas-phononDB-PBE-noNAC.json.gz"
    path.write_bytes(gzip.compress(json.dumps(table).encode()))
    return path


def _members(store: Store) -> list[dict[str, object]]:
    return list(store.database["campaign_members"].find({"campaign": "c"}))


def test_metrics(store: Store, reference: Path) -> None:
    """SRD of half the conductivity is -2/3, and so is SRME; a failure costs 2; m7 is no member."""
    (found,) = campaign_metrics(store, "c", reference.parent)
    assert (found.model, found.n_materials, found.n_done) == ("emt", 3, 2)
    assert found.done["κ_SRME"] == pytest.approx((2 / 3 + 2) / 2)
    assert found.done["κ_SRD"] == pytest.approx((-2 / 3 - 2) / 2)
    assert found.done["κ_failure_rate"] == 0.5
    assert found.done["spectrum_w1"] == pytest.approx(0.25, abs=1e-4)
    assert found.with_missing_as_failed["κ_SRME"] == pytest.approx((2 / 3 + 4) / 3)
    assert [material["state"] for material in found.materials] == ["finished", "failed", "absent"]
    assert found.materials[1]["failure"] == "UnknownElementError"
    assert found.intervals["κ_SRME"][0] == pytest.approx(2 / 3)


def test_files_and_commands(
    store: Store, reference: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    written = write_materials(campaign_metrics(store, "c", reference.parent), tmp_path / "errors.csv")
    assert len(written.read_text().splitlines()) == 4

    def run(*arguments: str) -> tuple[int, str, str]:
        with pytest.raises(SystemExit) as stop:
            main(["campaign", *arguments])
        out, err = capsys.readouterr()
        return int(stop.value.code or 0), out, err

    code, out, _ = run("metrics", "c", "--folder", str(reference.parent), "--json")
    assert code == 0
    assert json.loads(out)[0]["done"]["κ_SRME"] == pytest.approx(4 / 3)
    code, out, _ = run("status", "c")
    assert (code, "kappa-103: not judged, phonondb-103-kappa is not in" in out) == (0, True)
    code, _, err = run("metrics", "c")
    assert code == 1
    assert "fetch 2024-11-09-kappas-phononDB-PBE-noNAC.json.gz from https://figshare.com/files/59988539" in err
    # Where users keep what they download.
    monkeypatch.setenv("ESEN_FLOWS_CACHE_DIR", str(tmp_path))
    from esen_flows.settings import get_settings

    get_settings.cache_clear()
    place = tmp_path / "published" / "kappa-103"
    place.mkdir(parents=True)
    (place / reference.name).write_bytes(reference.read_bytes())
    code, out, _ = run("status", "c")
    assert (
        "kappa-103, emt: κ_SRME 1.5556 with missing members as failures, 1.3333 (0.6667 to 2.0000) over 2 of 3" in out
    )
    files = write_report(store, "c", tmp_path / "report").files
    assert tmp_path / "report" / "benchmark.csv" in files
    assert "## Benchmark kappa-103" in (tmp_path / "report" / "report.md").read_text()
    assert json.loads((tmp_path / "report" / "summary.json").read_text())["benchmark"]["models"][0]["n_done"] == 2


def test_submission(store: Store, reference: Path, tmp_path: Path) -> None:
    """The file has all crystals of the reference, and gives the metrics of the campaign to the last digits."""
    author = tmp_path / "submission.yaml"
    author.write_text(emt_campaigns.AUTHOR)
    folder = tmp_path / "out"
    found = write_submission(store, "c", author, folder, references=reference.parent, day=date(2026, 11, 29))
    (judged,) = campaign_metrics(store, "c", reference.parent)
    scored = score_artefacts(folder, lambda name: reference, lambda: ()).metrics
    assert scored == found.metrics
    for name, value in judged.with_missing_as_failed.items():
        assert scored[name] == pytest.approx(value, rel=1e-9), name
    rows = read_conductivities(folder / "models/emt/emt/2026-11-29-phonons-kappa-103.json.gz")
    assert list(rows) == ["m0", "m1", "m7"]
    assert rows["m1"].kappa_w_per_m_k is None
    card = read_yaml(folder / "models/emt/emt.yml")
    section = card["metrics"]["phonons"]
    assert (section["status"], section["kappa_103"]["κ_SRME"]) == ("partial", 1.5556)
    named = section["kappa_103"]["pred_file"]
    file = folder / named["name"]
    assert (named["size"], named["md5"]) == (file.stat().st_size, hashlib.md5(file.read_bytes()).hexdigest())
    assert card["hyperparams"]["evaluation"]["kappa"] == {"protocol": "phonondb-v1", "displacement_distance": 0.03}
    info = json.loads((folder / section["kappa_103"]["run_info_file"]["name"]).read_text())
    assert info["manifest"]["settings"]["sha256"] == info["manifest"]["spec_sha256"]
    assert info["run_metadata"]["run_time_sec"] > 0
    other = file.parent.parent / "another-emt" / file.name
    other.parent.mkdir()
    shutil.copy(file, other)
    with pytest.raises(InputError, match=r"has files of several submissions; name one of their .*another-emt"):
        score_artefacts(folder, lambda name: reference, lambda: ())
    assert score_artefacts(other.parent, lambda name: reference, lambda: ()).metrics == scored
    (other.parent / "old").mkdir()  # what lies below a folder with files is not part of its submission
    shutil.copy(file, other.parent / "old")
    assert score_artefacts(other.parent, lambda name: reference, lambda: ()).files == {"conductivity": other}
    other.rename(other.with_name("2026-11-29-discovery.csv.gz"))  # files of two force fields are not one submission
    with pytest.raises(InputError, match="has files of several submissions"):
        score_artefacts(folder, lambda name: reference, lambda: ())


def test_a_campaign_without_a_benchmark(store: Store) -> None:
    emt_campaigns.plan(store, [bulk("Cu")], name="plain")
    with pytest.raises(InputError, match="campaign plain has no benchmark"):
        campaign_metrics(store, "plain")


def test_the_field_does_not_change_other_campaigns() -> None:
    content = {"name": "x", "property": "conductivity", "structures": {"published": "phonondb-103"}, "models": "emt"}
    plain, judged = (CampaignSpec.model_validate(content | more) for more in ({}, {"benchmark": "kappa-103"}))
    assert "benchmark" not in plain.model_dump(exclude_defaults=True)
    assert plain.sha256 != judged.sha256
    assert benchmark_of(plain) == benchmark_of(judged) == "kappa-103"
    assert benchmark_of(CampaignSpec.model_validate(content | {"property": "phonon"})) is None
