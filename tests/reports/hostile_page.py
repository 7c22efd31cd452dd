"""A page of every kind of part whose names would break out of HTML, of a script, or of Plotly's markup."""

from esen_flows.reports.page import Axis, Chart, Column, Page, Picture, Section, Table, Trace

HOSTILE = (
    "</script><script>document.title = 'broken'</script>",
    "<!--<script>",
    "<img src=x onerror=\"document.title='broken'\">",
    "<b>bold</b> & \"quotes\" 'too' %{x} {{ 7 * 7 }}",
    "a\u2028b ]]>",
)


def hostile_page() -> Page:
    """Every text of it is one of `HOSTILE`."""
    rows = [(text, "failed" if number % 2 else "finished", float(number)) for number, text in enumerate(HOSTILE)]
    columns = [Column(HOSTILE[0]), Column("state", is_state=True), Column(HOSTILE[2], HOSTILE[3], ".3f")]
    points = [float(number) for number in range(len(HOSTILE))]
    charts = [
        Chart(text, Axis(text, text), Axis("y", text), [Trace(text, points, points, labels=HOSTILE)], note=text)
        for text in HOSTILE
    ]
    table = Table(columns, rows, HOSTILE[1], HOSTILE[2], is_searchable=True)
    sections = [Section(HOSTILE[1], [HOSTILE[0], *charts, table, Picture(HOSTILE[2], b"png")])]
    return Page(HOSTILE[2], HOSTILE[0], HOSTILE[1], [(HOSTILE[3], HOSTILE[0])], sections)
