"""Pages of a model card and of a stored result."""

import pytest

from esen_flows.errors import InputError
from esen_flows.reports.model import model_page
from esen_flows.reports.page import Chart, Page, Picture, Table
from esen_flows.reports.result import result_page
from esen_flows.schemas.card import read_card
from esen_flows.schemas.documents import Failure, ResultDocument
from esen_flows.schemas.model_card import Measured, Reference


def titles(page: Page) -> list[str]:
    return [section.title for section in page.sections]


def parts(page: Page, title: str) -> list[object]:
    return next(list(section.parts) for section in page.sections if section.title == title)


def first_table(page: Page, title: str) -> Table:
    return next(part for part in parts(page, title) if isinstance(part, Table))


def test_a_card_is_shown_with_its_measurements() -> None:
    card = read_card("esen_nano")
    page = model_page(card, "ab" * 32, [], {"relax": 3})
    measured = first_table(page, "Measured")
    assert len(measured.rows) == sum(max(1, len(entry.reference)) for entry in card.measured)
    chart = next(part for part in parts(page, "Measured") if isinstance(part, Chart) and part.title == "a_angstrom")
    assert (chart.x.title, chart.x.unit, chart.has_diagonal) == ("SevenNet-l3i5 (labeller)", "Å", True)
    assert "ZnO" in chart.traces[0].labels
    assert list(first_table(page, "Stored results").rows) == [("relax", 3)]
    names = [row[0] for row in first_table(page, "Card").rows]
    assert {"model key", "checkpoint.sha256"} <= set(names)


def test_a_published_force_field_is_shown_on_the_leaderboard() -> None:
    page = model_page(read_card("chgnet"), None, [], {})
    assert dict(page.facts)["on this machine"] == "no"
    metrics = first_table(page, "On the leaderboard")
    assert any(row[0] == "κ_SRME" for row in metrics.rows)
    assert parts(page, "Audits") == ["No audit of it is stored in this database."]


@pytest.fixture
def phonons(phonon_document) -> ResultDocument:
    summary = {"verdict": "stable", "max_frequency_thz": 5.19615, "temperature_kelvin": 300.0}
    return phonon_document(summary=summary, protocol={"mesh": [9, 9, 9]})


def test_a_result_has_numbers_charts_and_settings(phonons: ResultDocument) -> None:
    reference = Measured(
        property="max_frequency_thz", value=5.2, unit="THz", reference=(Reference(source="DFT", value=5.3),)
    )
    figures = {"phonon.png": b"charted", "audit.png": b"png"}
    page = result_page([phonons], references={"max_frequency_thz": [reference]}, figures=figures)
    numbers = first_table(page, "Numbers")
    assert ["highest frequency", "THz", "5.196", "DFT 5.3"] in [list(row) for row in numbers.rows]
    shown = parts(page, "Figures")
    assert [type(part) for part in shown] == [Chart, Chart, Picture]
    assert ["phonon.mesh", "[9, 9, 9]"] in [list(row) for row in first_table(page, "Settings").rows]
    assert page.title == "NaCl: phonons"


def test_two_results_lie_over_each_other(phonons: ResultDocument, phonon_document) -> None:
    content = {"protocol": {"mesh": [5, 5, 5]}, "summary": {"max_frequency_thz": 4.0}}
    other = phonon_document(stiffness=5.0, key="d" * 64, model_label="soft", **content)
    page = result_page([phonons], [[other]])
    chart = parts(page, "Figures")[0]
    assert isinstance(chart, Chart)
    assert len(chart.traces) == 2
    settings = first_table(page, "Settings")
    assert list(settings.rows[0]) == ["phonon.mesh", "[9, 9, 9]", "[5, 5, 5]", "yes"]
    row = next(row for row in first_table(page, "Numbers").rows if row[0] == "highest frequency")
    assert list(row) == ["highest frequency", "THz", "5.196", "4.000"]


def test_other_crystals_and_kinds_are_refused(phonons: ResultDocument, phonon_document, conductivity_document) -> None:
    for other in (phonon_document(formula="MgO"), conductivity_document()):
        with pytest.raises(InputError, match="results of one kind and one crystal"):
            result_page([phonons], [[other]])


def test_a_failed_result_says_why(phonon_document) -> None:
    document = phonon_document().model_copy(
        update={
            "output": None,
            "state": "failed",
            "failure": Failure(error="ImaginaryModesError", message="soft <mode>", final=True),
        }
    )
    page = result_page([document])
    assert "Numbers" not in titles(page)
    assert parts(page, "Failure") == ["ImaginaryModesError: soft <mode>", "Computing it again changes nothing."]
