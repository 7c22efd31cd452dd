"""Pages as HTML: nothing that a user names becomes markup or script, and a page holds what it needs and no more."""

import base64
import hashlib
import json
import math
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
from hostile_page import HOSTILE, hostile_page

from esen_flows.reports import render
from esen_flows.reports.page import MOST_POINTS, Axis, Chart, Column, Page, Section, Table, Trace

VENDOR = Path(render.__file__).with_name("vendor")


class Elements(HTMLParser):
    """Elements of a page with their texts."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.found: list[tuple[str, dict[str, str | None], str]] = []
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found.append((tag, dict(attrs), ""))

    def handle_endtag(self, tag: str) -> None:
        self.found.append(("", {}, ""))  # what follows is no text of it

    def handle_data(self, data: str) -> None:
        if self.found:
            tag, attributes, text = self.found[-1]
            self.found[-1] = (tag, attributes, text + data)

    def texts(self, tag: str) -> list[str]:
        return [text for name, _, text in self.found if name == tag]

    def data(self) -> str:
        return next(text for _, attributes, text in self.found if attributes.get("id") == "charts")

    def charts(self) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = json.loads(self.data())
        return found


@pytest.fixture(scope="module")
def hostile() -> str:
    return render.page_html(hostile_page())


def test_hostile_names_stay_text(hostile: str) -> None:
    page = Elements(hostile)
    tags = [tag for tag, _, _ in page.found]
    assert tags.count("script") == 3  # data, Plotly and the page's own
    assert tags.count("img") == 1  # the picture
    assert "b" not in tags
    assert [text.strip() for text in page.texts("td")][::3] == [text.strip() for text in HOSTILE]
    assert page.texts("h1") == [HOSTILE[0]]
    assert not [name for _, attributes, _ in page.found for name in attributes if name.startswith("on")]


def test_hostile_names_survive_in_the_data_of_charts(hostile: str) -> None:
    page = Elements(hostile)
    assert not set(page.data()) & set("<>&")
    charts = page.charts()
    assert len(charts) == len(HOSTILE)
    for chart, text in zip(charts, HOSTILE, strict=True):
        (trace,) = chart["traces"]
        # Plotly reads entities and %{...}.
        assert (
            trace["name"]
            .replace("&lt;", "<")
            .replace("&gt;", ">")
            .replace("&amp;", "&")
            .replace("\N{ZERO WIDTH NON-JOINER}", "")
            == text
        )
        assert not set("<>") & set("".join([*trace["labels"], chart["x"]["title"]]))
        assert "%{" not in "".join(trace["labels"])


def test_only_the_scripts_of_the_page_may_run(hostile: str) -> None:
    page = Elements(hostile)
    policy = next(attributes["content"] for tag, attributes, _ in page.found if "http-equiv" in attributes)
    assert policy is not None
    assert policy.startswith("default-src 'none'; script-src 'sha256-")
    scripts = [text for tag, attributes, text in page.found if tag == "script" and "type" not in attributes]
    for script in scripts:
        digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
        assert f"'sha256-{digest}'" in policy
    assert "unsafe-inline" not in policy.partition("style-src")[0]


def test_a_page_without_charts_is_small() -> None:
    html = render.page_html(Page("model", "m", sections=[Section("Use", ["Silicon."])]))
    assert len(html) < 20_000
    assert "plotly.js" not in html


def test_numbers_that_json_does_not_have_are_left_out() -> None:
    y = [1.0, math.nan, math.inf, None, 1 / 3]
    chart = Chart("c", Axis("x"), Axis("y", "eV"), [Trace("t", [1.0, 2.0, 3.0, 4.0, 5.0], y)], has_diagonal=True)
    html = render.page_html(Page("model", "m", sections=[Section("s", [chart])]))
    (found,) = json.loads(
        next(text for _, attributes, text in Elements(html).found if attributes.get("id") == "charts")
    )
    assert found["traces"][0]["y"] == [1.0, None, None, None, 0.33333]
    assert found["diagonal"] == [0.33333, 5.0]
    assert found["y"]["title"] == "y (eV)"


def test_limits_of_a_logarithmic_axis_are_powers_of_ten() -> None:
    axes = Axis("x", limits=(1.0, 3.0)), Axis("y", logarithmic=True, limits=(0.01, 1000.0))
    chart = Chart("c", *axes, [Trace("t", [1.0], [1.0])])
    html = render.page_html(Page("model", "m", sections=[Section("s", [chart])]))
    (found,) = Elements(html).charts()
    assert (found["x"]["range"], found["y"]["range"]) == ([1.0, 3.0], [-2.0, 3.0])
    with pytest.raises(ValueError, match="'y': ends of a logarithmic axis must be above zero"):
        Axis("y", logarithmic=True, limits=(0.0, 1.0))


def test_points_that_are_not_drawn_are_counted() -> None:
    many = [float(i) for i in range(2 * MOST_POINTS)]
    chart = Chart("c", Axis("x"), Axis("y", logarithmic=True), [Trace("t", many, many)])
    html = render.page_html(Page("model", "m", sections=[Section("s", [chart])]))
    assert f"{MOST_POINTS} of {2 * MOST_POINTS} points are drawn, evenly chosen." in html
    assert "1 points at or below zero have no place on a logarithmic axis." in html
    (found,) = json.loads(
        next(text for _, attributes, text in Elements(html).found if attributes.get("id") == "charts")
    )
    assert len(found["traces"][0]["x"]) == MOST_POINTS


def test_every_heading_of_a_table_has_its_unit_and_can_be_pressed() -> None:
    table = Table([Column("energy", "eV/atom", ".3f"), Column("name")], [(1.0, "a"), (None, "b")])
    page = Elements(render.page_html(Page("model", "m", sections=[Section("s", [table])])))
    assert [text.strip() for text in page.texts("button")] == ["energy", "name"]
    assert page.texts("span") == ["(eV/atom)"]
    assert [text.strip() for text in page.texts("td")] == ["1.000", "a", "", "b"]


def test_the_vendored_plotly_is_the_published_one() -> None:
    content = (VENDOR / "plotly-basic.min.js").read_bytes()
    digest = hashlib.sha256(content).hexdigest()
    assert digest == "99784e3abfb07b142a15e521a439e6d9addceadb3f79553fd24c72774f0649ba"
    assert b"</script" not in content.lower()
    assert b"<!--" not in content
    assert "MIT" in (VENDOR / "LICENSE").read_text()
