"""Audits of force fields side by side: benchmarks/results/audits.json and docs/figures/audits.png.

    esen-flows audit esen_nano                # and esen_silicon, sevennet_0, chgnet, each with --dtype
    esen-flows label benchmarks/audits/data.yaml --output data.xyz --model esen_nano
    esen-flows train models/esen_nano/pretrain.yaml --data data=data.xyz --folder direct --set epochs=8 \
        --set warmup_steps=50 --set validate_every_epochs=4
    cp direct/checkpoint.safetensors direct.safetensors && esen-flows audit direct.safetensors
    python benchmarks/audits.py

Reads the newest audit by the default limits of each force field and precision from the database; nothing is computed.
Prints the tables of docs/audit.md.
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
LEFT_OUT = "emt"  # a stand-in of the tests
MEASURES = {
    "jacobian_asymmetry": "Jacobian asymmetry, differences",
    "jacobian_asymmetry_exact": "Jacobian asymmetry, exact",
    "loop_work_relative": "work around loops",
    "gradient_error": "forces less -dE/dx",
    "net_force": "net force of a cluster",
    "energy_jump_ev": "jump of the energy (eV)",
    "cutoff_force_jump_ev_per_angstrom": "jump of forces at the cutoff (eV/A)",
    "bond_scan_work_error_ev": "energy less work, bond (eV)",
    "rotation_mae_ev_per_angstrom": "rotated forces (eV/A)",
    "residual_force_ev_per_angstrom": "forces of perfect crystals (eV/A)",
    "left_handed_cell": "left-handed cells",
    "batch": "batch and alone",
    "batch_neighbors": "neighbours, batch and alone",
    "frequency_error": "frequencies at 0.01 A",
    "third_derivative_error": "third derivatives at 0.03 A",
    "nve_drift_ev_per_atom_ps": "largest drift (eV/atom/ps)",
}
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


def _print_tables(rows: list[dict[str, Any]]) -> None:
    """Measurements side by side, those over their limit in bold, and the trajectories."""
    shown = [row for row in rows if row["model"] != LEFT_OUT]
    counts = [sum(check["value"] > check["limit"] for check in row["checks"]) for row in shown]
    verdicts = [
        f"**{row['verdict']}**" + (f" ({count} of {len(row['checks'])})" if count else "")
        for row, count in zip(shown, counts, strict=True)
    ]
    lines = [["", *(f"{row['model']}, {row['dtype']}" for row in shown)], ["---"] * (len(shown) + 1)]
    lines += [["systems", *(", ".join(row["systems"]) for row in shown)], ["**verdict**", *verdicts]]
    for name, title in MEASURES.items():
        found = [next((check for check in row["checks"] if check["measure"] == name), None) for row in shown]
        texts = ["-" if check is None else f"{check['value']:.1e}".replace("0.0e+00", "0") for check in found]
        over = [check is not None and check["value"] > check["limit"] for check in found]
        lines.append([title, *(f"**{text}**" if bold else text for text, bold in zip(texts, over, strict=True))])
    for name, title in (("", "frequencies"), ("third_order_", "third order")):
        best = [row[f"recommended_{name}displacement_angstrom"] for row in shown]
        lines.append([f"best displacement, {title} (A)", *("-" if one is None else f"{one:g}" for one in best)])
    lines.append(["force evaluations", *(str(row["force_evaluations"]) for row in shown)])
    lines += [
        [""],
        ["force field, system", "duration, step", "drift (meV/atom/ps)", "fluctuation (meV/atom)"],
        ["---"] * 4,
    ]
    for row in shown:
        for run in row.get("trajectories", []):
            drift = run["failure"] or "{slope_mev_per_atom_ps:.1e} ± {slope_interval_mev_per_atom_ps:.0e}".format(**run)
            start = [f"{row['model']}, {run['system']}", f"{run['duration_ps']:g} ps, {run['time_step_fs']:g} fs"]
            lines.append([*start, drift, "" if run["failure"] else f"{run['fluctuation_mev_per_atom']:.2g}"])
    print("\n".join("| " + " | ".join(line) + " |" if line != [""] else "" for line in lines))


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
    FIGURE.with_suffix(".svg").unlink()  # one format is enough for the page
    for row in rows:
        print(row["model"], row["dtype"], row["verdict"], *row["failures"], sep="; ")
    _print_tables(rows)


if __name__ == "__main__":
    main()
