"""The page of submissions to the leaderboard, from their files alone."""

from collections import Counter
from collections.abc import Sequence
from typing import Any

import numpy as np

from esen_flows.campaigns.compare import flat, settings_of
from esen_flows.campaigns.judged_models import JudgedModel
from esen_flows.campaigns.status import Share
from esen_flows.files import sha256_of_file
from esen_flows.metrics.published import card_metrics, published_rows
from esen_flows.reports.benchmark_charts import benchmark_charts
from esen_flows.reports.board import BoardEntry, board_parts
from esen_flows.reports.lattice import Accumulated, cumulative_chart
from esen_flows.reports.members import Member, distribution_chart, failures_table, members_table
from esen_flows.reports.page import Column, Page, Part, Section, Table, column_of
from esen_flows.reports.settings import settings_table, versions_table
from esen_flows.reports.submission_files import SYMPREC, Submission

_COLUMNS = {
    "label": Column("material"),
    "formula": Column("formula"),
    "nsites": Column("atoms", "", "d"),
    "model": Column("submission"),
    "state": Column("state", is_state=True),
    "failure": Column("failure"),
    "e_form_ev_per_atom": column_of("e_form_ev_per_atom", ".4f"),
    "reference_e_form_ev_per_atom": column_of("reference_e_form_ev_per_atom", ".4f"),
    "e_above_hull_ev_per_atom": column_of("e_above_hull_ev_per_atom", ".4f"),
    "reference_e_above_hull_ev_per_atom": column_of("reference_e_above_hull_ev_per_atom", ".4f"),
    "rmsd": Column("RMSD from DFT", "(V/atom)^⅓", ".4f"),
    "space_group": Column(f"space group at {float(SYMPREC):g} Å", "", "d"),
    "symmetry_operations": Column("symmetry operations", "", "d"),
    "kappa_w_per_m_k": Column("κ at 300 K", "W/m/K", ".4g"),
    "reference_w_per_m_k": Column("κ at 300 K, DFT", "W/m/K", ".4g"),
    "srme": Column("SRME", "", ".3f"),
    "n_steps": Column("steps of the relaxation", "", "d"),
    "converged": Column("converged"),
    "short_key": Column("key"),
}
_DISTRIBUTED = ("e_form_ev_per_atom", "n_steps")


def submission_page(title: str, submissions: Sequence[Submission]) -> Page:
    """The page of one or several submissions.

    Parameters
    ----------
    title
        Name of their folder.
    submissions
        The submissions.

    Returns
    -------
    Page
        The page.
    """
    rows = [member for submission in submissions for member in submission.members.values()]
    columns = dict(_COLUMNS)
    if not any(submission.files for submission in submissions):
        frozen = [submission.manifest.spec for submission in submissions if submission.manifest is not None]
        columns["frozen_value"] = Column(f"principal number of {frozen[0].property}", "", ".6g")
    sections = [Section("Submissions", [_overview(submissions)]), *_metrics(submissions)]
    results: list[Part] = [*benchmark_charts([_judged(each) for each in submissions])]
    curves = [
        Accumulated(f"{submission.members[name]['formula']} {name}, {submission.name}", *_sorted_modes(modes), colour)
        for colour, submission in enumerate(submissions)
        for name, modes in submission.conductivities.items()
        if modes.frequencies_thz is not None
    ]
    if curves:
        results.append(cumulative_chart(curves, as_share=True))
    results += [chart for name in _DISTRIBUTED if (chart := distribution_chart(rows, name, columns[name])) is not None]
    results += dict.fromkeys(remark for submission in submissions for remark in submission.remarks)
    sections.append(Section("Results", results))
    failures = Counter(row["failure"] for row in rows if row["failure"])
    if failures:
        sections.append(Section("Failures", [_failures(rows, failures)]))
    sections += [
        Section("Materials", [members_table(rows, columns, of_all="All are in the files.")]),
        *_settings(submissions),
        Section("Provenance", _provenance(submissions)),
    ]
    description = "; ".join(
        dict.fromkeys(str((each.card.get("notes") or {}).get("description", "")) for each in submissions)
    )
    return Page("submission", title, description, _facts(submissions, rows), sections)


def _facts(submissions: Sequence[Submission], rows: Sequence[Member]) -> list[tuple[str, str]]:
    states = Counter(row["state"] for row in rows)
    tasks = dict.fromkeys(task for submission in submissions for task in submission.files)
    return [
        ("submissions", f"{len(submissions)}"),
        ("tasks", ", ".join(tasks) or "frozen campaign"),
        ("materials", f"{len({row['label'] for row in rows})}"),
        *((state, f"{states[state]}") for state in ("finished", "failed", "pending", "absent") if states[state]),
    ]


def _overview(submissions: Sequence[Submission]) -> Table:
    rows = []
    for submission in submissions:
        card, states = submission.card, Counter(row["state"] for row in submission.members.values())
        model = f"{card.get('model_name', '')} {card.get('model_version', '')}".strip()
        licence = (card.get("license") or {}).get("checkpoint", "")
        trained = ", ".join(map(str, card.get("training_sets") or ()))
        counts = ", ".join(f"{count} {state}" for state, count in states.most_common())
        parameters = card.get("model_params")
        rows.append((submission.name, model, parameters, str(card.get("targets", "")), trained, str(licence), counts))
    columns = (
        Column("submission"), Column("force field"), Column("parameters", "", "d"), Column("targets"),
        Column("training sets"), Column("licence of the checkpoint"), Column("materials"),
    )  # fmt: skip
    return Table(columns, rows)


def _metrics(submissions: Sequence[Submission]) -> list[Section]:
    entries = []
    for submission in submissions:
        metrics = card_metrics(submission.card)
        if metrics:
            entries.append(
                BoardEntry(submission.name, metrics, covered=_covered(submission), published_as=_published(submission))
            )
    parts = board_parts(entries)
    if not parts:
        return []
    text = "Metrics are those of the cards. To compute them again from the files: esen-flows leaderboard score FOLDER"
    return [Section("Metrics beside the leaderboard", [text, *parts])]


def _covered(submission: Submission) -> str:
    """Which materials a partial submission has, as its card says it."""
    sections = (submission.card.get("metrics") or {}).values()
    reasons = [str(each["reason"]) for each in sections if isinstance(each, dict) and each.get("status") == "partial"]
    return ", ".join(dict.fromkeys(reason.partition(":")[0] for reason in reasons))


def _published(submission: Submission) -> str:
    """Name of the published force field that the key of the card begins with; empty if there is none."""
    key = str(submission.card.get("model_key", ""))
    names = [row.key for row in published_rows() if key == row.key or key.startswith(f"{row.key}-")]
    return max(names, key=len, default="")


def _judged(submission: Submission) -> JudgedModel:
    rows = [{**row, "material": row["label"]} for row in submission.members.values()]
    done = sum(row["state"] in ("finished", "failed") for row in rows)
    return JudgedModel(submission.name, len(rows), done, {}, {}, {}, "", rows)


def _sorted_modes(modes: Any) -> tuple[np.ndarray, np.ndarray]:
    """Frequencies in ascending order, and the conductivity of all modes up to each."""
    frequencies, kappa = modes.frequencies_thz.ravel(), modes.mode_kappa_w_per_m_k.ravel()
    order = np.argsort(frequencies)
    return frequencies[order], np.cumsum(kappa[order])


def _failures(rows: Sequence[Member], failures: Counter[str]) -> Table:
    done = sum(row["state"] in ("finished", "failed") for row in rows)
    shares: dict[str, dict[str, Any]] = {
        name: {"members": count, **vars(Share.of(count, done))} for name, count in failures.most_common()
    }
    return failures_table(rows, shares)


def _settings(submissions: Sequence[Submission]) -> list[Section]:
    frozen = [(each.name, each.manifest) for each in submissions if each.manifest is not None]
    if frozen:
        names = [name for name, _ in frozen]
        models = [[{"label": one.label, "key": one.key} for one in manifest.models] for _, manifest in frozen]
        settings = [settings_of(each[1].spec, one) for each, one in zip(frozen, models, strict=True)]
        return [Section("Settings", ["Of the frozen campaigns.", settings_table(names, settings)])]
    cards = [(each.name, dict(flat(each.card.get("hyperparams") or {}))) for each in submissions if each.card]
    if not cards:
        return []
    table = settings_table([name for name, _ in cards], [settings for _, settings in cards])
    return [Section("Settings", ["Of the cards.", table])]


def _provenance(submissions: Sequence[Submission]) -> list[Part]:
    files = [
        (each.name, task, path.name, path.stat().st_size / 1e3, sha256_of_file(path))
        for each in submissions
        for task, path in each.files.items()
    ]
    columns = (Column("submission"), Column("task"), Column("file"), Column("size", "kB", ".1f"), Column("sha256"))
    parts: list[Part] = [Table(columns, files, "Files")] if files else []
    for submission in submissions:
        manifest = submission.manifest
        if manifest is None:
            continue
        hours = ", ".join(f"{seconds / 3600:.3g} h on {device}" for device, seconds in manifest.device_seconds.items())
        parts.append(
            f"{submission.name}: frozen {manifest.created_at:%Y-%m-%d %H:%M} UTC as campaign {manifest.campaign} by "
            f"esen_flows {manifest.package_version} ({manifest.git_revision or 'no checkout'}); computing time "
            f"{hours}; specification, sha256 {manifest.spec_sha256}."
        )
        parts.append(versions_table(manifest.versions))
    return parts
