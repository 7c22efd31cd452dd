"""Report of a campaign in files: a table of all members, totals, a text for people, and figures."""

import csv
import heapq
import json
from array import array
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from datetime import datetime
from math import isfinite, sqrt
from pathlib import Path
from typing import Any, TextIO

import numpy as np

from esen_flows.campaigns.audits import verdicts
from esen_flows.campaigns.benchmark import benchmark_of, campaign_metrics, plain_metrics, write_materials
from esen_flows.campaigns.benchmark_figures import draw_all
from esen_flows.campaigns.judged_models import JudgedModel
from esen_flows.campaigns.records import MemberRecord, Origins, records, refreshed_campaign
from esen_flows.campaigns.status import QUANTILE_95, Share
from esen_flows.errors import InputError
from esen_flows.files import written_whole
from esen_flows.schemas.campaign import CampaignSpec, answer_summary_field
from esen_flows.schemas.property_lookup import entry_of
from esen_flows.store.campaign_progress import number
from esen_flows.store.database import Row
from esen_flows.store.results import Store

MEMBERS, SUMMARY, TEXT, MATERIALS = "members.csv", "summary.json", "report.md", "benchmark.csv"
SLOWEST, EXAMPLES = 10, 3
_STATES = ("finished", "failed", "pending")
_LONGEST_MESSAGE = 300  # characters, in the text; the table has whole messages


@dataclass
class ModelTotals:
    """Members of one force field: counts, and the numbers that figures show.

    Attributes
    ----------
    states
        Number of members by state.
    values
        Principal numbers of finished members.
    atoms
        Number of atoms of each member whose time is known.
    seconds
        Seconds that each of these took.
    """

    states: Counter[str] = field(default_factory=Counter)
    values: "array[float]" = field(default_factory=lambda: array("d"))
    atoms: "array[float]" = field(default_factory=lambda: array("d"))
    seconds: "array[float]" = field(default_factory=lambda: array("d"))


@dataclass
class Totals:
    """Totals over all members, counted while they are written.

    Attributes
    ----------
    models
        Totals by the label of the force field.
    failures
        Number of members by the class of their failure.
    examples
        A few members of each class of failure, with their messages.
    slowest
        Heap of seconds, key and row of the slowest members.
    done_at
        When members were done, POSIX seconds by state.
    origins
        Versions and computing time of the results.
    """

    models: dict[str, ModelTotals] = field(default_factory=dict)
    failures: Counter[str] = field(default_factory=Counter)
    examples: dict[str, list[dict[str, Any]]] = field(default_factory=dict)
    slowest: list[tuple[float, str, Row]] = field(default_factory=list)
    done_at: dict[str, "array[float]"] = field(default_factory=lambda: defaultdict(lambda: array("d")))
    origins: Origins = field(default_factory=Origins)

    def add(self, record: MemberRecord) -> None:
        """Count a member.

        Parameters
        ----------
        record
            The member.
        """
        row = record.member
        model = self.models.setdefault(row["model_label"], ModelTotals())
        model.states[row["state"]] += 1
        self.origins.add(record)
        if row["state"] == "pending":
            return
        self.done_at[row["state"]].append(row["finished_at"].timestamp())
        if row["state"] == "failed":
            self.failures[row["failure"]] += 1
            examples = self.examples.setdefault(row["failure"], [])
            if len(examples) < EXAMPLES:
                known = {name: row[name] for name in ("label", "formula", "model_label")}
                examples.append(known | {"message": record.message})
        elif row["value"] is not None and isfinite(row["value"]):
            model.values.append(row["value"])
        if row["seconds"] is not None:
            model.atoms.append(row["nsites"])
            model.seconds.append(row["seconds"])
            add = heapq.heappush if len(self.slowest) < SLOWEST else heapq.heappushpop
            add(self.slowest, (row["seconds"], row["key"], row))


@dataclass(frozen=True)
class CampaignReport:
    """What a report of a campaign says, and its files.

    Attributes
    ----------
    spec
        Specification.
    summary
        Content of summary.json.
    totals
        Totals over all members.
    judged
        Metrics of each force field in the campaign's benchmark; empty without one, or where its reference is not here.
    members
        File of the table of all members.
    files
        All files that were written.
    """

    spec: CampaignSpec
    summary: dict[str, Any]
    totals: Totals
    judged: tuple[JudgedModel, ...]
    members: Path
    files: tuple[Path, ...]


def write_report(
    store: Store, name: str, folder: Path, *, on_member: Callable[[], None] | None = None
) -> CampaignReport:
    """Write the report of a campaign, finished or not.

    Parameters
    ----------
    store
        Store of the campaign.
    name
        Name of the campaign.
    folder
        Folder, which is made if it is missing; files of an earlier report are replaced.
    on_member
        Called for each member.

    Returns
    -------
    CampaignReport
        What was written.

    Raises
    ------
    InputError
        There is no such campaign.
    """
    campaign, spec = refreshed_campaign(store, name)
    folder.mkdir(parents=True, exist_ok=True)
    totals = Totals()
    with written_whole(folder / MEMBERS) as temporary, temporary.open("w", newline="", encoding="utf-8") as out:
        _write_members(out, spec, records(store, name, on_member), totals)
    summary = _summarise(spec, campaign, totals)
    audits = verdicts(store)
    for model in summary["models"]:
        audit = audits.get((model["key"], spec.dtype))
        model["audit"] = "not audited" if audit is None else f"{audit}{audit.failures and ': '}{audit.failures}"
    judged = _judge(store, spec, summary)
    shown = [write_materials(judged, folder / MATERIALS), *draw_all(judged, folder, spec.name)] if judged else []
    with written_whole(folder / SUMMARY) as temporary:
        temporary.write_text(json.dumps(summary, indent=1) + "\n", encoding="utf-8")
    figures = _draw(name, answer_summary_field(spec), totals, folder)
    with written_whole(folder / TEXT) as temporary:
        temporary.write_text(_text(summary, totals, [file.name for file in (*shown, *figures)]), encoding="utf-8")
    files = (folder / MEMBERS, folder / SUMMARY, folder / TEXT, *shown, *figures)
    return CampaignReport(spec, summary, totals, judged, folder / MEMBERS, files)


def _judge(store: Store, spec: CampaignSpec, summary: dict[str, Any]) -> tuple[JudgedModel, ...]:
    """Metrics of the campaign's benchmark, which are added to the summary; empty if there are none."""
    benchmark = benchmark_of(spec)
    if benchmark is None:
        return ()
    try:
        found = campaign_metrics(store, spec.name)
    except InputError as error:  # the reference is not on this machine; the rest of the report does not need it
        summary["benchmark"] = {"name": benchmark, "missing": str(error)}
        return ()
    summary["benchmark"] = {"name": benchmark, "models": plain_metrics(found)}
    return found


def _benchmark_text(benchmark: Mapping[str, Any]) -> str:
    heading = f"## Benchmark {benchmark['name']}\n\n"
    if "missing" in benchmark:
        return heading + f"Not judged: {benchmark['missing']}"
    rows = []
    for model in benchmark["models"]:
        for kind, metrics in (("done", model["done"]), ("missing count as failed", model["with_missing_as_failed"])):
            if metrics:
                n = model["n_done"] if kind == "done" else model["n_materials"]
                rows.append((model["model"], f"{kind} ({n})", *(_short(value) for value in metrics.values())))
    names = benchmark["models"][0]["with_missing_as_failed"]
    return heading + _table(("force field", "materials", *names), rows)


def _summarise(spec: CampaignSpec, campaign: Row, totals: Totals) -> dict[str, Any]:
    """The numbers of the report, as JSON takes them; intervals hold 95 %, those of shares are Wilson's."""
    states: Counter[str] = Counter()
    for model in totals.models.values():
        states.update(model.states)
    origins, members = totals.origins, states.total()
    return {
        "campaign": spec.name,
        "description": spec.description,
        "property": spec.property,
        "protocol": spec.protocol or "general",
        "dtype": spec.dtype,
        "spec_sha256": spec.sha256,
        "created_at": campaign["created_at"].isoformat(),
        "members": members,
        "states": {state: _share(states[state], members) for state in _STATES},
        "failures": {
            failure: _share(count, states["finished"] + states["failed"])
            for failure, count in totals.failures.most_common()
        },
        "field": answer_summary_field(spec),
        "models": [
            {"label": model["label"], "key": model["key"], **_of_model(totals.models.get(model["label"]))}
            for model in campaign["models"]
        ],
        "device_hours": {device: seconds / 3600 for device, seconds in sorted(origins.seconds.items())},
        "total_device_hours": sum(origins.seconds.values()) / 3600,
        "force_evaluations": origins.force_evaluations,
        "versions": origins.sorted_versions(),
        "first_result": None if origins.first is None else origins.first.isoformat(),
        "last_result": None if origins.last is None else origins.last.isoformat(),
    }


def _text(summary: Mapping[str, Any], totals: Totals, figures: list[str]) -> str:
    """The report for people, in Markdown."""
    parts = [f"# Campaign {summary['campaign']}", summary["description"], _facts(summary)]
    rows = [(state, share["members"], _percent(share)) for state, share in summary["states"].items()]
    parts.append("## Members\n\n" + _table(("state", "members", "share (95 % interval)"), rows))
    models = [_model_row(model) for model in summary["models"]]
    of_results = (f"mean {summary['field']}", "95 % interval", "deviation")
    heading = ("force field", "finished", "failed", "pending", *of_results, f"audit in {summary['dtype']}")
    parts.append("## Force fields\n\n" + _table(heading, models))
    if "benchmark" in summary:
        parts.append(_benchmark_text(summary["benchmark"]))
    if totals.failures:
        rows = [(name, share["members"], _percent(share)) for name, share in summary["failures"].items()]
        parts.append(
            "## Failures\n\nShares of the members that are done.\n\n" + _table(("class", "members", "share"), rows)
        )
        parts += [_examples(name, examples) for name, examples in sorted(totals.examples.items())]
    slowest = [
        (row["label"], row["formula"], row["nsites"], row["model_label"], row["failure"] or row["state"], f"{cost:.3g}")
        for cost, _, row in sorted(totals.slowest, key=lambda each: (-each[0], each[1]))
    ]
    of_slowest = ("member", "formula", "atoms", "force field", "outcome", "seconds")
    parts.append(f"## The {len(slowest)} slowest members\n\n" + _table(of_slowest, slowest))
    versions = [
        (name, ", ".join(f"{found} ({count})" for found, count in counted.items()))
        for name, counted in summary["versions"].items()
    ]
    parts.append("## Versions\n\nThe number of results in brackets.\n\n" + _table(("package", "versions"), versions))
    parts += [f"![{Path(figure).stem}]({figure})" for figure in figures if figure.endswith(".png")]
    return "\n\n".join(part for part in parts if part) + "\n"


def _write_members(out: TextIO, spec: CampaignSpec, found: Iterator[MemberRecord], totals: Totals) -> None:
    """Write the table of all members, which are counted on the way."""
    summary = [field.name for field in entry_of(spec.property).summary]
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(
        ("label", "formula", "nsites", "model", "state", "failure", "message", *summary, "seconds", "force_evaluations",
         "key")
    )  # fmt: skip
    for record in found:
        totals.add(record)
        row, answer = record.member, record.answer
        values = {} if answer is None else answer["summary"]
        numbers = (_cell(values.get(name)) for name in summary)
        identity = (row["label"], row["formula"], row["nsites"], row["model_label"], row["state"], row["failure"])
        writer.writerow(
            (*identity, record.message, *numbers, _cell(row["seconds"]), record.force_evaluations, row["key"])
        )


def _cell(value: Any) -> Any:
    """A value of the table; numbers are written so that they can be read back exactly."""
    return value if number(value) is None else repr(value)


def _draw(name: str, field: str, totals: Totals, folder: Path) -> list[Path]:
    """Draw the figures for which there are numbers."""
    # matplotlib takes a second to import, so the numbers are written before.
    from esen_flows.plots.campaign import plot_cost, plot_distribution, plot_progress

    finished, failed = (np.asarray(totals.done_at[state]) for state in ("finished", "failed"))
    values, atoms, seconds = (
        {label: np.asarray(getattr(model, what)) for label, model in totals.models.items()}
        for what in ("values", "atoms", "seconds")
    )
    draw: tuple[Callable[[], Path], ...] = (
        lambda: plot_progress(finished, failed, folder / "progress.png", name),
        lambda: plot_distribution(values, field, folder / "distribution.png", name),
        lambda: plot_cost(atoms, seconds, folder / "cost.png", name),
    )
    figures: list[Path] = []
    for each in draw:
        with suppress(InputError):  # nothing to show yet
            png = each()
            figures += [png, png.with_suffix(".svg")]
    return figures


def _share(part: int, whole: int) -> dict[str, Any]:
    return {"members": part, **asdict(Share.of(part, whole))}


def _of_model(model: ModelTotals | None) -> dict[str, Any]:
    """Number of members by state, and mean, 95 % interval of the mean, and standard deviation of their numbers."""
    found = model or ModelTotals()
    values = np.asarray(found.values)
    mean = float(values.mean()) if len(values) else None
    deviation = float(values.std(ddof=1)) if len(values) > 1 else None
    width = None if deviation is None else QUANTILE_95 * deviation / sqrt(len(values))
    return {
        **{state: found.states[state] for state in _STATES},
        "measured": len(values),
        "mean": mean,
        "mean_low": None if mean is None or width is None else mean - width,
        "mean_high": None if mean is None or width is None else mean + width,
        "deviation": deviation,
    }


def _facts(summary: Mapping[str, Any]) -> str:
    hours = ", ".join(f"{hours:.3g} h on {device}" for device, hours in summary["device_hours"].items()) or "none"
    return "\n".join(
        (
            f"- property: {summary['property']} by protocol {summary['protocol']} in {summary['dtype']}",
            f"- members: {summary['members']}",
            f"- computing time: {hours}; {summary['force_evaluations']} force evaluations",
            f"- results from {_day(summary['first_result'])} to {_day(summary['last_result'])}",
            f"- specification: sha256 {summary['spec_sha256']}",
        )
    )


def _day(moment: str | None) -> str:
    return "never" if moment is None else f"{datetime.fromisoformat(moment):%Y-%m-%d %H:%M} UTC"


def _model_row(model: Mapping[str, Any]) -> tuple[object, ...]:
    counted = (model["label"], *(model[state] for state in _STATES))
    interval = "" if model["mean_low"] is None else f"{model['mean_low']:.6g} to {model['mean_high']:.6g}"
    return (*counted, _short(model["mean"]), interval, _short(model["deviation"]), model["audit"])


def _examples(failure: str, examples: list[dict[str, Any]]) -> str:
    rows = [(each["label"], each["formula"], each["model_label"], each["message"] or "") for each in examples]
    return f"### {failure}, for example\n\n" + _table(("member", "formula", "force field", "message"), rows)


def _table(heading: tuple[str, ...], rows: list[Any]) -> str:
    lines = [heading, ("---",) * len(heading), *rows]
    return "\n".join("| " + " | ".join(_plain(cell) for cell in line) + " |" for line in lines)


def _plain(cell: object) -> str:
    """Text of a cell without characters that would end the cell or its row."""
    text = " ".join(str(cell).split())
    return (text if len(text) <= _LONGEST_MESSAGE else text[:_LONGEST_MESSAGE] + " ...").replace("|", "\\|")


def _short(value: float | None) -> str:
    return "" if value is None else f"{value:.6g}"


def _percent(share: Mapping[str, Any]) -> str:
    if share["value"] is None:
        return ""
    return f"{share['value']:.2%} ({share['low']:.2%} to {share['high']:.2%})"
