"""Conductivities of PhononDB's crystals by the published protocol, beside the published values of the same force field.

    python benchmarks/kappa_phonondb.py sevennet_l3i5 --data FOLDER --only mp-1265 mp-10695 [--dtype float32]

FOLDER holds phononDB-PBE-structures.extxyz and kappa-103-analysis.jsonl (Matbench Discovery, MIT). Each crystal is a
ConductivityMaker flow with the protocol `phonondb-v1`, so that an interrupted run goes on from the store, and another
mesh makes no force call. Written to benchmarks/results/kappa_<model>.json (or --output) crystal by crystal.

KCl by SevenNet-0 is 0.27 W/m/K (DFT 6.1) because of its own third order: linewidths are 30 times those of NaCl, and
kappa goes from 3 to 0.2 W/m/K between displacements of 0.03 and 0.01 Angstrom, until at 0.003 the crystal is unstable
(-0.47 THz near X), averaged with its inverse and in float64 too (third order from 16 atoms, as in
displacement_parity.py). SevenNet-l3i5 gives 6.74, the published 6.77.
"""

import argparse
import json
from pathlib import Path
from typing import Any

import numpy as np
from ase import Atoms
from ase.io import read
from jobflow import run_locally
from rich.console import Console
from rich.table import Table

from esen_flows.errors import EsenFlowsError
from esen_flows.makers.conductivity import ConductivityMaker
from esen_flows.progress import listening
from esen_flows.schemas.documents import ResultDocument
from esen_flows.schemas.lattice_documents import ConductivityOutput
from esen_flows.schemas.property_lookup import named_protocol
from esen_flows.schemas.protocols import NumericSettings
from esen_flows.store.connection import open_store
from esen_flows.store.jobflow_store import job_store

RESULTS = Path(__file__).parent / "results"


def main() -> None:
    """Run what is not there yet, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model")
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--only", nargs="+", help="mp_id of the structures; default: all 103")
    parser.add_argument("--protocol", default="phonondb-v1")
    parser.add_argument("--dtype", default="float32", choices=("float32", "float64"))
    parser.add_argument("--published", help="key of the published row to compare with, such as sevennet-l3i5")
    parser.add_argument("--output", type=Path, help="default: benchmarks/results/kappa_<model>.json")
    asked = parser.parse_args()
    structures = {a.info["mp_id"]: a for a in read(asked.data / "phononDB-PBE-structures.extxyz", ":")}
    published = published_kappas(asked.data / "kappa-103-analysis.jsonl", asked.published)
    path = asked.output or RESULTS / f"kappa_{asked.model}.json"
    table: dict[str, Any] = json.loads(path.read_text()) if path.exists() else {}
    for mp_id in asked.only or list(structures):
        if mp_id in table.get("crystals", {}):
            continue
        row = measure(asked.model, structures[mp_id], asked.protocol, asked.dtype)
        row.update(published.get(mp_id, {}))
        table.update({"model": asked.model, "protocol": asked.protocol, "dtype": asked.dtype})
        table.setdefault("crystals", {})[mp_id] = row
        path.write_text(json.dumps(table, indent=1) + "\n")
        print(mp_id, json.dumps(row), flush=True)
    show(table)


def published_kappas(path: Path, key: str | None) -> dict[str, dict[str, float]]:
    """DFT's conductivity and that of a published entry, W/m/K at 300 K, by material."""
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    base = rows[0]["_base"]
    found = {mp_id: {"kappa_dft": kappa} for mp_id, kappa in zip(base["material_ids"], base["kappa_dft"], strict=True)}
    for row in rows[1:]:
        if row["key"] == key:
            for mp_id, kappa in zip(base["material_ids"], row["kappa_ml"], strict=True):
                found[mp_id]["kappa_published"] = kappa
    return found


def measure(model: str, atoms: Atoms, protocol: str, dtype: str) -> dict[str, Any]:
    """Conductivities of one crystal (W/m/K) and what each stage cost, or why there is none."""
    store = open_store()
    maker = ConductivityMaker(
        force_field_name=model,
        protocol=named_protocol("conductivity", protocol, atoms.info),
        numeric=NumericSettings(dtype=dtype),
        material_ids=(atoms.info["mp_id"],),
    )
    flow = maker.make(atoms)
    row: dict[str, Any] = {"name": atoms.info["name"], "space_group": int(atoms.info["symm.no"])}
    try:
        with listening(lambda kind, done, total, words: None):
            run_locally(flow, store=job_store(store), log=False, raise_immediately=True)
    except EsenFlowsError as error:
        return {**row, "failure": type(error).__name__, "message": str(error)}
    relaxed, forces, last = (found(store.get(job.metadata["result_key"])) for job in flow.jobs)
    output = ConductivityOutput.model_validate(last.output)
    kappa = {name: float(np.mean(result.kappa_w_per_m_k[0, :3])) for name, result in output.methods.items()}
    return {
        **row,
        "kappa_rta": kappa["rta"],
        "kappa_wigner": kappa["wigner"],
        "a_angstrom": relaxed.summary["a_angstrom"],
        "relax_converged": relaxed.summary["converged"],
        "relax_steps": relaxed.summary["n_steps"],
        "force_evaluations": forces.provenance.force_evaluations,
        "seconds_forces": round(forces.provenance.seconds, 1),
        "seconds_force_constants": round(output.seconds_force_constants, 1),
        "seconds_transport": round(output.seconds_transport, 1),
        "phono3py": output.phono3py_version,
    }


def found(document: ResultDocument | None) -> ResultDocument:
    """A document that the flow has just stored."""
    assert document is not None
    return document


def show(table: dict[str, Any]) -> None:
    """What was computed, published and found by DFT."""
    out = Table("crystal", "group", "kappa", "published", "deviation", "DFT")
    deviations = []
    for row in table.get("crystals", {}).values():
        ours, theirs = row.get("kappa_wigner"), row.get("kappa_published")
        deviation = None if ours is None or not theirs else ours / theirs - 1
        if deviation is not None:
            deviations.append(abs(deviation))
        cells = (ours, theirs, None if deviation is None else 100 * deviation, row.get("kappa_dft"))
        texts = ["" if value is None else f"{value:.2f}" for value in cells]
        out.add_row(row["name"], str(row["space_group"]), texts[0] or row["failure"], *texts[1:])
    Console().print(out)
    if deviations:
        print(f"deviation from the published values: median {100 * np.median(deviations):.2f} %,", end=" ")
        print(f"worst {100 * max(deviations):.2f} %")


if __name__ == "__main__":
    main()
