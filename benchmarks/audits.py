"""Audits of force fields side by side: benchmarks/results/audits.json and docs/figures/audits.png.

    esen-flows audit esen_nano                # and esen_silicon, sevennet_0, chgnet, each with --dtype
    esen-flows label benchmarks/audits/data.yaml --output data.xyz --model esen_nano
    esen-flows train models/esen_nano/pretrain.yaml --data data=data.xyz --folder direct --set epochs=8 \
        --set warmup_steps=50 --set validate_every_epochs=4
    cp direct/checkpoint.safetensors direct.safetensors && esen-flows audit direct.safetensors
    python benchmarks/audits.py

Reads the newest audit by the default limits of each force field and precision from the database; nothing is computed.
Force fields that this database has not audited keep the row that the file has. Times are those of a machine that was
shared with other work.
"""

import json
from pathlib import Path
from typing import Any

from esen_flows.campaigns.audits import verdicts
from esen_flows.plots.audit import plot_audit
from esen_flows.schemas.audit import AuditOutput
from esen_flows.schemas.audit_measures import NVE
from esen_flows.schemas.documents import ResultDocument
from esen_flows.schemas.nve import NveOutput, NveRun
from esen_flows.store.connection import open_store

ROOT = Path(__file__).resolve().parents[1]
RESULTS, FIGURE = ROOT / "benchmarks" / "results" / "audits.json", ROOT / "docs" / "figures" / "audits.png"
SHOWN = "float64"  # precision of the figure, where a force field was audited in it


def _row(audit: ResultDocument, parents: list[ResultDocument]) -> dict[str, Any]:
    output, origin = AuditOutput.model_validate(audit.output), parents[0].provenance
    curves = ("displacements_angstrom", "frequency_errors", "third_derivative_errors")
    best = ("recommended_displacement_angstrom", "recommended_third_order_displacement_angstrom")
    nve = next((NveOutput.model_validate(one.output) for one in parents if one.kind == NVE), None)
    return {
        "model": audit.model_label,
        "model_key": audit.model_key,
        "dtype": output.dtype,
        "verdict": output.verdict,
        "systems": output.systems,
        "failures": output.failures(),
        "not_judged": output.not_judged,
        "not_measured": output.not_measured,
        **{name: getattr(output, name) for name in (*best, *curves)},
        "checks": [{name: check[name] for name in ("measure", "system", "value", "limit")} for check in output.checks],
        **({} if nve is None else {"trajectories": [_trajectory(run) for run in nve.runs]}),
        "force_evaluations": sum(parent.provenance.force_evaluations for parent in parents),
        "seconds": round(sum(parent.provenance.seconds for parent in parents), 1),
        "threads": origin.threads,
        "device": origin.device,
        "libraries": origin.libraries,
    }


def _trajectory(run: NveRun) -> dict[str, Any]:
    names = ("system", "temperature_kelvin", "time_step_fs", "duration_ps", "n_atoms", "failure")
    return {**{name: getattr(run, name) for name in names}, **(run.drift.model_dump() if run.drift else {})}


def _document(row: dict[str, Any], like: ResultDocument) -> ResultDocument:
    """A row of the file as a document that a figure can be drawn from."""
    output = {name: row[name] for name in AuditOutput.model_fields}
    output["checks"] = [{**check, "passed": check["value"] <= check["limit"]} for check in row["checks"]]
    update = {"model_label": row["model"], "model_key": row["model_key"], "output": output}
    return like.model_copy(update={**update, "numeric": {**like.numeric, "dtype": row["dtype"]}})


def main() -> None:
    """Collect the stored audits."""
    store = open_store()
    audits = [audit for verdict in verdicts(store).values() if (audit := store.get(verdict.key)) is not None]
    audits.sort(key=lambda audit: (audit.model_label, audit.numeric["dtype"]))
    rows = []
    for audit in audits:
        keys = audit.parents.values() or [audit.parent_key]
        rows.append(_row(audit, [parent for key in keys if (parent := store.get(key)) is not None]))
    stored = {(row["model_key"], row["dtype"]) for row in rows}
    kept = json.loads(RESULTS.read_text()) if RESULTS.exists() else []
    rows += [row for row in kept if (row["model_key"], row["dtype"]) not in stored]
    rows.sort(key=lambda row: (row["model"], row["dtype"]))
    RESULTS.write_text(json.dumps(rows, indent=1) + "\n")
    shown = {}
    for row in rows:
        if row["model"] not in shown or row["dtype"] == SHOWN:
            shown[row["model"]] = _document(row, audits[0])
    plot_audit(next(iter(shown.values())), FIGURE, list(shown.values())[1:])
    for row in rows:
        print(row["model"], row["dtype"], row["verdict"], *row["failures"], sep="; ")


if __name__ == "__main__":
    main()
