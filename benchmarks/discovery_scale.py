"""Time and memory of the discovery metrics over all of WBM: 257,487 crystals with the predictions of published models.

    python benchmarks/discovery_scale.py --data ../shared/data

DFT's own values of all crystals are not in that data. Each model is therefore judged against another one's predictions,
as if these were DFT's, with hull distances shifted by a constant that makes 17 % of the crystals stable: the work is
that of the real benchmark, and the metrics mean nothing and are not written down. Rows without a prediction are filled
up to 257,487, the number of rows of WBM. Written to benchmarks/results/discovery_scale.json.
"""

import argparse
import json
import os
import platform
import resource
import time
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import pandas as pd

from esen_flows.metrics.artefacts import read_formation_energies, write_formation_energies
from esen_flows.metrics.discovery import discovery_metrics, read_discovery_reference

N_WBM = 257_487
RESULT = Path(__file__).parent / "results" / "discovery_scale.json"


def write_summary(path: Path, energies: dict[str, float]) -> None:
    """A file in the form of WBM's summary in which one model's energies stand for DFT's."""
    table = pd.DataFrame({"material_id": list(energies), "e_form_per_atom_mp2020_corrected": list(energies.values())})
    missing = N_WBM - len(table)
    filled = pd.DataFrame(
        {"material_id": [f"missing-{i}" for i in range(missing)], "e_form_per_atom_mp2020_corrected": 0.0}
    )
    table = pd.concat([table, filled], ignore_index=True)
    column = table["e_form_per_atom_mp2020_corrected"]
    table["e_above_hull_mp2020_corrected_ppd_mp"] = (column - column.quantile(0.17)).round(6)
    table["unique_prototype"] = np.arange(len(table)) % 6 != 0
    table.to_csv(path, index=False)


def measure(reference_file: Path, predictions: Path) -> dict[str, float | int | str]:
    """Seconds from the two files to all metrics with their intervals."""
    start, cpu = time.perf_counter(), time.process_time()
    reference = read_discovery_reference(reference_file)
    energies = read_formation_energies(predictions)
    found = discovery_metrics(reference, energies, intervals=True)
    return {
        "file": predictions.name,
        "rows_of_the_reference": len(reference.material_ids),
        "predictions": len(energies),
        "missing": found["full_test_set"]["missing_preds"],
        "seconds": round(time.perf_counter() - start, 2),
        "cpu_seconds": round(time.process_time() - cpu, 2),
    }


def main() -> None:
    """Read the command line, measure and write the result."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="folder of matbench_discovery/predictions")
    folder = parser.parse_args().data / "matbench_discovery" / "predictions"
    files = sorted(folder.glob("*.csv.gz"))
    with TemporaryDirectory() as temporary:
        summary = Path(temporary) / "wbm-summary.csv.gz"
        write_summary(summary, read_formation_energies(files[0]))
        rows = [measure(summary, file) for file in files[1:]]
        artefact = Path(temporary) / "discovery.csv.gz"
        start = time.perf_counter()
        write_formation_energies(artefact, read_formation_energies(files[1]))
        write_seconds = round(time.perf_counter() - start, 2)
    result = {
        "models": rows,
        "seconds_to_read_and_write_a_submission_file": write_seconds,
        "max_rss_gb": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6, 3),
        "machine": f"{platform.machine()}, {os.cpu_count()} cores, 1 used",
        "load_average": [round(value, 1) for value in os.getloadavg()],
        "python": platform.python_version(),
        "numpy": np.__version__,
        "pandas": pd.__version__,
    }
    RESULT.write_text(json.dumps(result, indent=1) + "\n")
    print(f"wrote {RESULT}")


if __name__ == "__main__":
    main()
