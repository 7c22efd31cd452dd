"""Pages in Debian's Chromium: opened, sorted, filtered and hovered at 400 and 1,600 px, without errors or requests."""

import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from hostile_page import HOSTILE, hostile_page

from esen_flows.reports.members import Member, members_table
from esen_flows.reports.page import Axis, Chart, Column, Page, Section, Table, Trace
from esen_flows.reports.render import write_page

pytestmark = pytest.mark.chromium
COUNT = 972
COLUMNS = {
    "label": Column("member"),
    "formula": Column("formula"),
    "state": Column("state", is_state=True),
    "kappa": Column("κ at 300 K", "W/m/K", ".4g"),
    "energy": Column("energy", "eV/atom", ".6f"),
    "message": Column("message"),
}


def members() -> list[Member]:
    """Every tenth has failed and has no numbers."""
    rows = []
    for i in range(COUNT):
        failed = i % 10 == 9
        value = None if failed else 0.1 + (i * 37 % COUNT)
        message = "imaginary modes at the zone boundary, as a sentence that is too long for one line" if failed else ""
        rows.append(
            {
                "label": f"wbm-{i}", "formula": f"Cu{i % 7 + 1}O", "state": "failed" if failed else "finished",
                "kappa": value, "energy": value and -value, "message": message,
            }
        )  # fmt: skip
    return rows


@pytest.fixture(scope="module")
def pages(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("pages")
    rows = members()
    known = [row for row in rows if row["kappa"] is not None]
    numbers = [row["kappa"] for row in known]
    trace = Trace("emt", numbers, numbers, [f"{row['label']} · {row['formula']}" for row in known])
    axes = Axis("κ, DFT", "W/m/K", logarithmic=True), Axis("κ, force field", "W/m/K", logarithmic=True)
    sections = [
        Section("Results", [Chart("κ against DFT", *axes, [trace], has_diagonal=True)]),
        Section("Members", [members_table(rows, COLUMNS)]),
    ]
    page = Page("campaign", "many", "A campaign.", [("members", f"{COUNT}")] * 8, sections)
    # Two points of which the mouse knows the places, and a table that is no table of members before theirs.
    points = Trace("t", [1.0, 2.0], [2.0, 3.0], [f"{HOSTILE[3]} · a", "wbm-1 · Cu2O"])
    few = [{**rows[0], "label": HOSTILE[3]}, *rows[1:13]]
    parts = [
        Chart("Two", Axis("x"), Axis("y", "eV"), [points]),
        Table([Column("class")], [("wbm-1",), ("wbm-2",)], is_searchable=True),
        members_table(few, COLUMNS),
    ]
    return {
        "few": write_page(Page("campaign", "few", sections=[Section("Results", parts)]), folder / "few.html"),
        "many": write_page(page, folder / "many.html"),
        "hostile": write_page(hostile_page(), folder / "hostile.html"),
    }


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    webdriver = pytest.importorskip("selenium.webdriver", reason="selenium is not installed")
    chromium, driver = (shutil.which(name) for name in ("chromium", "chromedriver"))
    if chromium is None or driver is None:
        pytest.skip("no chromium or no chromedriver on PATH; .ci/install.sh chromium installs them")
    options = webdriver.ChromeOptions()
    options.binary_location = chromium
    for argument in ("--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage"):
        options.add_argument(argument)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    found = webdriver.Chrome(options=options, service=webdriver.ChromeService(driver))
    yield found
    found.quit()


@pytest.fixture
def opened(browser: Any, pages: dict[str, Path]) -> Iterator[Callable[..., Any]]:
    """Open a page at a width; at the end of the test nothing may be in the console."""

    def open_page(name: str, width: int = 1600, scheme: str = "light") -> Any:
        size = {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": False}
        browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
        preference = {"name": "prefers-color-scheme", "value": scheme}
        browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": [preference]})
        browser.get(pages[name].as_uri())
        return browser

    yield open_page
    assert browser.get_log("browser") == []


def wait(browser: Any, condition: str, *arguments: Any) -> Any:
    from selenium.webdriver.support.ui import WebDriverWait

    return WebDriverWait(browser, 60).until(lambda one: one.execute_script(f"return {condition}", *arguments))


def cells(browser: Any, column: int, count: int = 5) -> list[str]:
    """Texts of a column in the first rows that are shown."""
    script = """return [...document.querySelectorAll('tbody tr')].filter(row => !row.hidden)
        .slice(0, arguments[1]).map(row => row.cells[arguments[0]].textContent.trim())"""
    return list(browser.execute_script(script, column, count))


def test_rows_are_sorted_by_mouse_and_by_keyboard(opened: Callable[..., Any]) -> None:
    page = opened("many")
    buttons = page.find_elements("css selector", "th button")
    numbers = sorted((row["kappa"] for row in members() if row["kappa"] is not None), reverse=True)
    page.execute_script("arguments[0].scrollIntoView({block: 'center'})", buttons[3])
    buttons[3].click()
    assert [float(text) for text in cells(page, 3)] == pytest.approx(numbers[:5], rel=1e-3)
    buttons[3].send_keys("\ue007")  # Enter
    assert [float(text) for text in cells(page, 3)] == pytest.approx(numbers[::-1][:5], rel=1e-3)
    assert buttons[3].find_element("xpath", "..").get_attribute("aria-sort") == "ascending"
    assert cells(page, 3, COUNT)[-1] == ""  # members without a number stay at the end
    buttons[0].click()
    assert cells(page, 0) == ["wbm-0", "wbm-1", "wbm-2", "wbm-3", "wbm-4"]  # by number, not by letter


def test_rows_are_chosen_by_text_and_by_state(opened: Callable[..., Any]) -> None:
    page = opened("many")
    field, output = (page.find_element("css selector", f"form.tools {tag}") for tag in ("input", "output"))
    page.execute_script("arguments[0].scrollIntoView({block: 'center'})", field)
    assert output.text == f"{COUNT} of {COUNT} rows"
    field.send_keys("CU3O")
    expected = [row for row in members() if row["formula"] == "Cu3O"]
    assert output.text == f"{len(expected)} of {COUNT} rows"
    page.find_element("xpath", "//form//option[text()='failed']").click()
    failed = [row["label"] for row in expected if row["state"] == "failed"]
    assert output.text == f"{len(failed)} of {COUNT} rows"
    assert cells(page, 0, COUNT) == failed


def test_a_point_shows_its_name_and_a_click_chooses_its_row(opened: Callable[..., Any]) -> None:
    from selenium.webdriver.common.action_chains import ActionChains

    page = opened("few")
    wait(page, "document.querySelector('.chart .point') !== null")
    hostile, plain = page.find_elements("css selector", ".chart .point")
    other, members = page.find_elements("css selector", "form.tools output")
    ActionChains(page).move_to_element(hostile).perform()
    text = wait(page, "(document.querySelector('.hovertext') || {}).textContent")
    shown = text.replace("\N{ZERO WIDTH NON-JOINER}", "")
    assert HOSTILE[3] in shown  # as it was written, and not as markup
    assert "y (eV): 2" in shown
    for point, name in ((hostile, HOSTILE[3]), (plain, "wbm-1")):
        ActionChains(page).move_to_element(point).click().perform()
        wait(page, "document.querySelector('form[data-members] input').value === arguments[0]", f'"{name}"')
        assert members.text == "1 of 13 rows"  # wbm-10 is another one
        row = page.find_element("xpath", "//tbody/tr[not(@hidden)][td[text()='finished']]/td")
        assert row.text == name
    assert other.text == "2 of 2 rows"


@pytest.mark.parametrize("width", [400, 1600])
@pytest.mark.parametrize("name", ["many", "hostile"])
def test_pages_fit_the_window(
    opened: Callable[..., Any], name: str, width: int, record_property: Callable[[str, object], None]
) -> None:
    page = opened(name, width)
    wait(page, "document.querySelector('.chart .main-svg') !== null")
    loaded = page.execute_script("return performance.getEntriesByType('navigation')[0].loadEventEnd")
    record_property(f"load_milliseconds_{name}_{width}", loaded)  # measured and not judged: the machine may be busy
    for section in page.find_elements("css selector", "section"):
        page.execute_script("arguments[0].scrollIntoView()", section)
        assert page.execute_script("return document.documentElement.scrollWidth") <= width
    smallest = """return Math.min(...[...document.querySelectorAll('p, td, th button, .unit, dt, dd, figcaption')]
        .map(each => parseFloat(getComputedStyle(each).fontSize)))"""
    assert page.execute_script(smallest) >= 11


def test_hostile_names_run_nothing_and_load_nothing(opened: Callable[..., Any]) -> None:
    page = opened("hostile")
    wait(page, "document.querySelector('.chart .main-svg') !== null")
    assert page.title == f"{HOSTILE[0]} ({HOSTILE[2]})"
    assert page.execute_script("return document.querySelectorAll('b, img[src=x]').length") == 0
    assert [text.strip() for text in cells(page, 0)] == [text.strip() for text in HOSTILE]
    requests = page.execute_script("return performance.getEntriesByType('resource').map(each => each.name)")
    assert [name for name in requests if not name.startswith("data:")] == []


def test_a_dark_scheme_has_a_dark_page(opened: Callable[..., Any]) -> None:
    page = opened("many", scheme="dark")
    colour = page.execute_script("return getComputedStyle(document.body).backgroundColor")
    assert max(int(part) for part in colour.removeprefix("rgb(").removesuffix(")").split(",")) < 60
