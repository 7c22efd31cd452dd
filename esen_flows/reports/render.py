"""Pages as one HTML file each, which needs no network: styles, scripts, data and Plotly are in the file.

Text is escaped by jinja2 in HTML and in the embedded JSON, and here for Plotly, which reads tags and entities in names.
A content security policy forbids any other script and any request.
"""

import base64
import hashlib
import math
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from functools import cache
from itertools import groupby
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from esen_flows.files import written_whole
from esen_flows.reports.page import MOST_POINTS, Axis, Chart, Page, Part, Table, Trace, cell_text, spread
from esen_flows.version import __version__

_HERE = Path(__file__).parent
_LONG_TEXT = 40  # characters in a cell
_DIGITS = 5  # of a number in a chart, more than a screen shows


def write_page(page: Page, path: Path) -> Path:
    """Write a page.

    Parameters
    ----------
    page
        The page.
    path
        HTML file to write, whole or not at all; its folder is made.

    Returns
    -------
    Path
        The file.

    Raises
    ------
    OSError
        The file cannot be written.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with written_whole(path) as temporary:
        temporary.write_text(page_html(page), encoding="utf-8")
    return path


def page_html(page: Page) -> str:
    """A page as HTML.

    Parameters
    ----------
    page
        The page.

    Returns
    -------
    str
        The whole document.
    """
    parts = [part for section in page.sections for part in section.parts]
    numbers = {id(part): number for number, part in enumerate(parts)}
    charts = [part for part in parts if isinstance(part, Chart)]
    numbers |= {id(chart): number for number, chart in enumerate(charts)}
    drawn = [_chart(chart) for chart in charts]
    script, plotly = _text("templates/page.js"), _text("vendor/plotly-basic.min.js")
    scripts = [script, plotly] if charts else [script]

    def grouped(found: Sequence[Part]) -> Iterator[tuple[str, list[tuple[int, Part]]]]:
        for kind, each in groupby(found, key=lambda part: type(part).__name__):
            yield kind, [(numbers[id(part)], part) for part in each]

    return (
        _environment()
        .get_template("page.html.jinja")
        .render(
            page=page,
            grouped=grouped,
            states_of=_states_of,
            wide_columns=_wide_columns,
            cell_text=cell_text,
            note_of=_note,
            base64=lambda content: base64.b64encode(content).decode(),
            charts=drawn,
            policy=_policy(scripts),
            style=Markup(_text("templates/page.css")),
            script=Markup(script),
            plotly=Markup(plotly),
            footer=f"esen_flows {__version__}, {datetime.now(UTC):%Y-%m-%d %H:%M} UTC"
            + ("; charts by plotly.js 4.1.1 (MIT)" if charts else ""),
        )
    )


@cache
def _text(name: str) -> str:
    return (_HERE / name).read_text(encoding="utf-8")


@cache
def _environment() -> Environment:
    found = Environment(
        loader=FileSystemLoader(_HERE / "templates"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    # NaN is no JSON; lists without blanks are a tenth smaller.
    found.policies["json.dumps_kwargs"] = {"allow_nan": False, "separators": (",", ":"), "ensure_ascii": False}
    return found


def _policy(scripts: Sequence[str]) -> str:
    """Content security policy: these scripts, styles of the page, and nothing from elsewhere."""
    digests = " ".join(
        f"'sha256-{base64.b64encode(hashlib.sha256(each.encode()).digest()).decode()}'" for each in scripts
    )
    return f"default-src 'none'; script-src {digests}; style-src 'unsafe-inline'; img-src data: blob:"


def _states_of(table: Table) -> list[str]:
    places = [i for i, column in enumerate(table.columns) if column.is_state]
    return sorted({str(row[i]) for row in table.rows for i in places})


def _wide_columns(table: Table) -> set[int]:
    """Places of columns with long texts, which are folded."""
    texts = [i for i, column in enumerate(table.columns) if not column.form and not column.is_state]
    return {i for i in texts if any(len(str(row[i] or "")) > _LONG_TEXT for row in table.rows)}


def _chart(chart: Chart) -> dict[str, Any]:
    """A chart as the script of the page takes it."""
    found: dict[str, Any] = {
        "x": _axis(chart.x),
        "y": _axis(chart.y),
        "traces": [_trace(trace) for trace in chart.traces],
        "legend": len({trace.name for trace in chart.traces}) > 1 and len(chart.traces) <= 8,
    }
    if chart.has_diagonal:
        found["diagonal"] = _ends(chart)
    return found


def _note(chart: Chart) -> str:
    """The chart's remark, and which points are not drawn."""
    remarks = [chart.note] if chart.note else []
    most = max((len(trace.x) for trace in chart.traces if trace.mode == "markers"), default=0)
    if most > MOST_POINTS:
        remarks.append(f"{MOST_POINTS} of {most} points are drawn, evenly chosen.")
    hidden = sum(_is_hidden(chart, *point) for trace in chart.traces for point in zip(trace.x, trace.y, strict=True))
    if hidden:
        remarks.append(f"{hidden} points at or below zero have no place on a logarithmic axis.")
    return " ".join(remarks)


def _is_hidden(chart: Chart, x: float | None, y: float | None) -> bool:
    pairs = ((chart.x, x), (chart.y, y))
    return any(axis.logarithmic and value is not None and value <= 0 for axis, value in pairs)


def _axis(axis: Axis) -> dict[str, Any]:
    found: dict[str, Any] = {"title": _plain(f"{axis.title} ({axis.unit})" if axis.unit else axis.title)}
    if axis.logarithmic:
        found["log"] = True
    if axis.ticks:
        found["ticks"] = [[_rounded(place), _plain(text)] for place, text in axis.ticks]
    if axis.limits is not None:
        # Plotly takes the ends of a logarithmic axis as exponents of ten.
        found["range"] = [_rounded(math.log10(end) if axis.logarithmic else end) for end in axis.limits]
    return found


def _trace(trace: Trace) -> dict[str, Any]:
    places = spread(len(trace.x), MOST_POINTS) if trace.mode == "markers" else range(len(trace.x))
    found: dict[str, Any] = {
        "name": _plain(trace.name),
        "mode": trace.mode,
        "colour": trace.colour,
        "x": [_rounded(trace.x[i]) for i in places],
        "y": [_rounded(trace.y[i]) for i in places],
    }
    if trace.labels:
        found["labels"] = [_plain(trace.labels[i]) for i in places]
    if trace.emphasised:
        found["emphasised"] = True
    return found


def _ends(chart: Chart) -> list[float | None]:
    """The smallest and the largest number on either axis."""
    found = [value for trace in chart.traces for value in (*trace.x, *trace.y) if value is not None]
    numbers = [value for value in found if math.isfinite(value) and (value > 0 or not chart.x.logarithmic)]
    return [_rounded(min(numbers, default=0.0)), _rounded(max(numbers, default=1.0))]


def _rounded(value: float | None) -> float | None:
    return None if value is None or not math.isfinite(value) else float(f"{value:.{_DIGITS}g}")


def _plain(text: str) -> str:
    """Text that Plotly shows as it is: it reads tags and entities, and %{...} in its templates."""
    escaped = text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    return escaped.replace("%{", "%\N{ZERO WIDTH NON-JOINER}{")
