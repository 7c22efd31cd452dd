"""The page of a campaign, from its report, the store, and another campaign to compare with."""

from typing import Any

from esen_flows.campaigns.audits import AuditVerdict, audit_command, verdicts
from esen_flows.campaigns.compare import CampaignDifference, compare_campaigns, settings_of
from esen_flows.campaigns.records import member_rows, refreshed_campaign
from esen_flows.campaigns.report import CampaignReport
from esen_flows.reports.benchmark_charts import benchmark_charts
from esen_flows.reports.board import board_parts, judged_entry
from esen_flows.reports.lattice import campaign_charts
from esen_flows.reports.members import (
    Member,
    cost_chart,
    distribution_chart,
    failures_table,
    joined,
    member_label,
    members_table,
    read_members,
)
from esen_flows.reports.page import (
    Axis,
    Cell,
    Chart,
    Column,
    Page,
    Part,
    Section,
    Table,
    Trace,
    compact_table,
    title_of,
)
from esen_flows.reports.settings import settings_table, versions_table
from esen_flows.schemas.property_lookup import entry_of
from esen_flows.store.results import Store

_LARGEST = 20  # changes of another campaign that are listed


def campaign_page(store: Store, report: CampaignReport, other: str | None = None) -> Page:
    """The page of a campaign.

    Parameters
    ----------
    store
        Store of the campaign.
    report
        Its report, which was just written.
    other
        Name of a campaign of the same quantity to compare with.

    Returns
    -------
    Page
        The page.

    Raises
    ------
    InputError
        There is no such other campaign, or it computes another quantity.
    """
    spec, summary = report.spec, report.summary
    entry = entry_of(spec.property)
    rows, columns = read_members(report.members, entry)
    principal = columns[summary["field"]]
    materials = {(each.model, str(row["material"])): row for each in report.judged for row in each.materials}
    columns = _inserted(columns, joined(rows, materials))
    known = verdicts(store)
    charts = (distribution_chart(rows, summary["field"], principal), cost_chart(rows))
    results: list[Part] = [*campaign_charts(store, spec, rows), *(each for each in charts if each is not None)]
    sections = [
        Section("Force fields", [_models_table(summary, principal)]),
        *_benchmark(report),
        *([Section("Results", results)] if results else []),
        *([Section("Failures", [failures_table(rows, summary["failures"])])] if summary["failures"] else []),
        Section("Members", [members_table(rows, columns, of_all=f"All are in {report.members.name}.")]),
        *([] if other is None else [_comparison(store, report, other, principal)]),
        Section("Audits", [_audits(summary, spec.dtype, known)]),
        Section("Settings", [_settings(store, report, other)]),
        Section("Provenance", _provenance(summary)),
    ]
    return Page("campaign", spec.name, spec.description, _facts(summary, entry.title), sections)


def _inserted(columns: dict[str, Column], added: dict[str, Column]) -> dict[str, Column]:
    """Columns with those of the benchmark before the ones of the cost."""
    last = ("seconds", "force_evaluations", "short_key", "message")
    before = {name: column for name, column in columns.items() if name not in last}
    return {**before, **added, **{name: columns[name] for name in last}}


def _facts(summary: dict[str, Any], title: str) -> list[tuple[str, str]]:
    states = {state: share["members"] for state, share in summary["states"].items()}
    hours = ", ".join(f"{hours:.3g} h on {device}" for device, hours in summary["device_hours"].items()) or "none"
    return [
        ("property", title),
        ("protocol", f"{summary['protocol']}, {summary['dtype']}"),
        ("members", f"{summary['members']}"),
        *((state, f"{count}") for state, count in states.items()),
        ("computing time", hours),
        ("force evaluations", f"{summary['force_evaluations']}"),
    ]


def _models_table(summary: dict[str, Any], principal: Column) -> Table:
    rows: list[tuple[Cell, ...]] = []
    for model in summary["models"]:
        interval = "" if model["mean_low"] is None else f"{model['mean_low']:.6g} to {model['mean_high']:.6g}"
        counts = (model["finished"], model["failed"], model["pending"])
        rows.append((model["label"], *counts, model["mean"], interval, model["deviation"], model["key"][:16]))
    columns = (
        Column("force field"), Column("finished", "", "d"), Column("failed", "", "d"), Column("pending", "", "d"),
        Column(f"mean {principal.title}", principal.unit, ".6g"), Column("95 % interval", principal.unit),
        Column("standard deviation", principal.unit, ".4g"), Column("model key"),
    )  # fmt: skip
    return Table(columns, rows)


def _benchmark(report: CampaignReport) -> list[Section]:
    benchmark = report.summary.get("benchmark")
    if benchmark is None:
        return []
    title = f"Benchmark {benchmark['name']}"
    if "missing" in benchmark:
        return [Section(title, [f"Not judged: {benchmark['missing']}"])]
    parts: list[Part] = [*benchmark_charts(report.judged), *board_parts([judged_entry(one) for one in report.judged])]
    return [Section(title, parts)]


def _audits(summary: dict[str, Any], dtype: str, known: dict[tuple[str, str], AuditVerdict]) -> Table | str:
    rows: list[tuple[Cell, ...]] = []
    for model in summary["models"]:
        own = [verdict for (key, _), verdict in known.items() if key == model["key"]]
        rows += [verdict_row(verdict) for verdict in own]
        if not any(verdict.dtype == dtype for verdict in own):
            command = audit_command({"location": model["label"]}, dtype)
            rows.append((model["label"], dtype, "not audited", None, f"make one with: {command}", "", ""))
    return compact_table(AUDIT_COLUMNS, rows)


AUDIT_COLUMNS = (
    Column("force field"), Column("precision"), Column("verdict", is_state=True), Column("checks", "", "d"),
    Column("failed, with value and limit"), Column("crystals"), Column("key"),
)  # fmt: skip


def verdict_row(verdict: AuditVerdict) -> tuple[Cell, ...]:
    """The row of a verdict in a table of `AUDIT_COLUMNS`.

    Parameters
    ----------
    verdict
        The verdict.

    Returns
    -------
    tuple
        The cells.
    """
    word = "passed" if verdict.passed else "failed"
    key = verdict.key[:12]
    return verdict.model_label, verdict.dtype, word, verdict.checks, verdict.failures, verdict.systems, key


def _settings(store: Store, report: CampaignReport, other: str | None) -> Table:
    names, settings = [report.spec.name], [settings_of(report.spec, report.summary["models"])]
    if other is not None:
        campaign, spec = refreshed_campaign(store, other)
        names.append(other)
        settings.append(settings_of(spec, campaign["models"]))
    return settings_table(names, settings)


def _provenance(summary: dict[str, Any]) -> list[Part]:
    facts = {
        "specification, sha256": summary["spec_sha256"],
        "planned": summary["created_at"],
        "first result": summary["first_result"],
        "last result": summary["last_result"],
    }
    return [Table((Column("fact"), Column("value")), list(facts.items())), versions_table(summary["versions"])]


def _comparison(store: Store, report: CampaignReport, other: str, principal: Column) -> Section:
    found = compare_campaigns(store, other, report.spec.name, most=_LARGEST)
    members = found.members
    sentence = (
        f"{members.matched} members are in both campaigns, {members.only_old} only in {other} and {members.only_new} "
        f"only here; {members.pending} are pending in one of them."
    )
    if members.compared:
        change = f"{members.mean_absolute or 0.0:.3g} {principal.unit}".rstrip()
        sentence += f" {members.compared} have a number in both: its mean absolute change is {change}."
    chart = _parity(store, report, other, principal)
    parts: list[Part] = [sentence, *([] if chart is None else [chart])]
    if members.changed:
        rows = [(each.label, each.formula, each.model, each.old, each.new) for each in members.changed]
        names = ("member", "formula", "force field", other, report.spec.name)
        parts.append(compact_table([Column(name) for name in names], rows, title="Other outcomes"))
    if members.moved:
        parts.append(_moves(found, principal))
    return Section(f"Comparison with {other}", parts)


def _moves(found: CampaignDifference, principal: Column) -> Table:
    rows = [
        (each.label, each.formula, each.model, each.old, each.new, each.absolute, 100 * each.relative)
        for each in found.members.moved
    ]
    numbers = [Column(name, principal.unit, ".6g") for name in (found.old, found.new)]
    changes = [Column("change", principal.unit, "+.3g"), Column("relative change", "%", "+.3g")]
    columns = [Column("member"), Column("formula"), Column("force field"), *numbers, *changes]
    return compact_table(columns, rows, title=f"Largest changes of {principal.title}")


def _parity(store: Store, report: CampaignReport, other: str, principal: Column) -> Chart | None:
    """Principal numbers of the members whose structure is in both campaigns, of one force field each."""
    ours, theirs = (
        {row["structure_key"]: row for row in member_rows(store, name)} for name in (report.spec.name, other)
    )
    if len(report.summary["models"]) > 1 or len({row["model_key"] for row in theirs.values()}) > 1:
        return None
    both: list[tuple[Member, Member]] = [
        (row, theirs[key])
        for key, row in ours.items()
        if row["value"] is not None and theirs.get(key, {}).get("value") is not None
    ]
    if not both:
        return None
    x, y = ([float(pair[i]["value"]) for pair in both] for i in (1, 0))
    trace = Trace(report.spec.name, x, y, [member_label(dict(pair[0])) for pair in both])
    axes = [Axis(f"{principal.title}, {name}", principal.unit) for name in (other, report.spec.name)]
    title = f"{title_of(principal.title)} in both campaigns"
    return Chart(title, axes[0], axes[1], [trace], has_diagonal=True)
