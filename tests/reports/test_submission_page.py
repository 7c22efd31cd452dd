"""Pages of the committed submissions, from their files alone."""

import gzip
import json
from pathlib import Path

import numpy as np
import pytest

from esen_flows.errors import InputError
from esen_flows.metrics.artefacts import read_formation_energies
from esen_flows.reports.page import Chart, Page, Part, Table
from esen_flows.reports.render import page_html
from esen_flows.reports.submission import submission_page
from esen_flows.reports.submission_files import Submission, read_submissions
from esen_flows.settings import get_settings

RESULTS = Path(__file__).resolve().parents[2] / "benchmarks" / "results"
NAME, FILE = "sevennet-l3i5-kappa", "2026-12-01-phonons-kappa-103.json.gz"


@pytest.fixture(scope="module")
def references(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """DFT's conductivities, twice those of one submission, and DFT's energies, 0.1 eV/atom above the submission's.

    The folder `alone` has three materials of that submission.
    """
    folder = tmp_path_factory.mktemp("references")
    columns = json.loads(gzip.decompress((RESULTS / "kappa_103" / NAME / FILE).read_bytes()))
    there = [index for index, modes in columns["mode_kappa_tot_rta"].items() if modes is not None][:3]
    weights = {index: np.array(columns["mode_weights"][index]) for index in there}
    means = {index: np.trace(columns["mode_kappa_tot_rta"][index][0], axis1=-2, axis2=-1) / 3 for index in there}
    table = {
        "mp_id": [columns["material_id"][index] for index in there],
        "kappa_TOT_ave": [[2 * float((means[i] / weights[i].sum()).sum())] for i in there],
        "mode_kappa_TOT_ave": [[(2 * means[i]).tolist()] for i in there],
        "frequencies": [columns["ph_freqs"][index] for index in there],
        "weights": [weights[index].tolist() for index in there],
    }
    (folder / "kappas-PBE-noNAC.json.gz").write_bytes(gzip.compress(json.dumps(table).encode(), 1))
    (folder / "alone").mkdir()
    few = {name: {index: column[index] for index in there} for name, column in columns.items()}
    (folder / "alone" / FILE).write_bytes(gzip.compress(json.dumps(few).encode(), 1))
    energies = read_formation_energies(next((RESULTS / "wbm_random").rglob("*-discovery.csv.gz")))
    lines = ["material_id,e_form_per_atom_mp2020_corrected,e_above_hull_mp2020_corrected_ppd_mp,unique_prototype"]
    lines += [f"{name},{energy + 0.1:.4f},0.05,True" for name, energy in energies.items()]
    (folder / "wbm-summary.csv.gz").write_bytes(gzip.compress("\n".join(lines).encode(), 1))
    return folder


@pytest.fixture(scope="module")
def found(references: Path) -> dict[str, list[Submission]]:
    """The submissions, and some of the conductivities where no reference is on the machine."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("ESEN_FLOWS_REFERENCE_DIR", str(references))
        get_settings.cache_clear()
        submissions = {name: read_submissions(RESULTS / name) for name in ("kappa_103", "wbm_random")}
        patch.setenv("ESEN_FLOWS_REFERENCE_DIR", str(references / "nowhere"))
        get_settings.cache_clear()
        submissions["alone"] = read_submissions(references / "alone")
    get_settings.cache_clear()
    return submissions


@pytest.fixture(scope="module")
def kappa(found: dict[str, list[Submission]]) -> Page:
    return submission_page("kappa_103", found["kappa_103"])


@pytest.fixture(scope="module")
def wbm(found: dict[str, list[Submission]]) -> Page:
    return submission_page("wbm_random", found["wbm_random"])


def parts(page: Page, title: str) -> list[Part]:
    return next(list(section.parts) for section in page.sections if section.title == title)


def charts(page: Page, title: str) -> dict[str, Chart]:
    return {part.title: part for part in parts(page, title) if isinstance(part, Chart)}


def table(page: Page, title: str) -> tuple[list[str], list[list[object]]]:
    found = next(part for part in parts(page, title) if isinstance(part, Table))
    return [column.title for column in found.columns], [list(row) for row in found.rows]


def test_both_conductivity_submissions_are_on_one_page(kappa: Page) -> None:
    facts = dict(kappa.facts)
    assert (facts["materials"], facts["finished"], facts["failed"], facts["absent"]) == ("103", "114", "17", "75")
    titles, rows = table(kappa, "Materials")
    assert len(rows) == 2 * 103
    silicon_like = next(row for row in rows if row[titles.index("material")] == "mp-1000")
    assert silicon_like[titles.index("κ at 300 K")] == pytest.approx(0.8755, abs=1e-4)
    titles, rows = table(kappa, "Failures")
    assert rows[0][:2] == ["ImaginaryModesError", 17]


def test_conductivities_are_compared_with_the_reference(kappa: Page) -> None:
    chart = charts(kappa, "Results")["κ against DFT"]
    trace = next(trace for trace in chart.traces if trace.name == NAME)
    assert len(trace.x) == 3
    assert np.asarray(trace.y, float) / np.asarray(trace.x, float) == pytest.approx(0.5, rel=1e-6)
    assert (chart.x.logarithmic, chart.x.unit, chart.has_diagonal) == (True, "W/m/K", True)
    titles, rows = table(kappa, "Materials")
    srme = [row[titles.index("SRME")] for row in rows if row[titles.index("submission")] == NAME]
    assert [value for value in srme if value is not None] == pytest.approx(
        [2 / 3] * 3, rel=1e-6
    )  # 2 |k - 2k| / (k + 2k)


def test_cumulative_conductivities_end_at_all_of_it(kappa: Page) -> None:
    chart = charts(kappa, "Results")["Cumulative conductivity"]
    assert len(chart.traces) == 60
    assert [trace.y[-1] for trace in chart.traces] == pytest.approx([100.0] * 60)
    assert {trace.colour for trace in chart.traces} == {0, 1}


def test_metrics_are_those_of_the_card(kappa: Page) -> None:
    titles, rows = table(kappa, "Metrics beside the leaderboard")
    srme = {row[titles.index("force field")]: row[titles.index("value")] for row in rows if row[0] == "κ_SRME"}
    assert srme["chgnet-0.3.0-kappa"] == 1.7093
    ranks = {row[titles.index("force field")]: row[titles.index("rank")] for row in rows if row[0] == "κ_SRME"}
    assert ranks == {"chgnet-0.3.0-kappa": "37 of 41", NAME: ""}  # 28 of the 103 crystals get no rank


def test_settings_of_two_frozen_campaigns(kappa: Page) -> None:
    settings = next(part for part in parts(kappa, "Settings") if isinstance(part, Table))
    differing = [row[0] for row in settings.rows if row[-1] == "yes"]
    models = {"models.chgnet", "models.sevennet_l3i5"}
    assert set(differing) == {"structures.folder", "protocol", "settings.relax.then_free"} | models


def test_the_972_crystals(wbm: Page) -> None:
    titles, rows = table(wbm, "Materials")
    assert len(rows) == 972
    first = dict(zip(titles, rows[0], strict=True))
    assert (first["material"], first["formula"], first["formation energy"]) == ("wbm-1-10144", "MnInCl3", -1.3346)
    assert first["RMSD from DFT"] == pytest.approx(0.10630622)
    assert first["steps of the relaxation"] == 37
    chart = charts(wbm, "Results")["Formation energy against DFT"]
    assert len(chart.traces[0].x) == 972
    assert "mean absolute difference 0.1 eV/atom, 972 materials" in chart.note
    hull = charts(wbm, "Results")["Hull distance against DFT"]
    assert np.asarray(hull.traces[0].x, float) - np.asarray(hull.traces[0].y, float) == pytest.approx(0.1, abs=1e-9)


def test_pages_are_small(wbm: Page, kappa: Page) -> None:
    for page in (wbm, kappa):
        assert len(page_html(page).encode()) < 3e6


def test_without_a_reference_the_page_says_how_to_get_it(found: dict[str, list[Submission]]) -> None:
    page = submission_page("alone", found["alone"])
    assert "κ against DFT" not in charts(page, "Results")
    (text,) = [part for part in parts(page, "Results") if isinstance(part, str)]
    assert text.startswith("Not compared with DFT's conductivities: phonondb-103-kappa is not in ")
    assert "esen-flows data pull phonondb-103-kappa" in text


def test_a_frozen_campaign_alone_is_shown(tmp_path: Path) -> None:
    frozen = RESULTS / "kappa_103" / "sevennet-l3i5-kappa" / "frozen-kappa_sevennet_l3i5_cubic"
    page = submission_page("frozen", read_submissions(frozen))
    titles, rows = table(page, "Materials")
    assert len(rows) == 24
    assert rows[0][titles.index("principal number of conductivity")] == pytest.approx(0.91539, abs=1e-5)


def test_a_folder_without_a_submission_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no file of a submission"):
        read_submissions(tmp_path)
