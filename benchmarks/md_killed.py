"""A trajectory that is killed and run again equals one that was not, to the bit: benchmarks/results/md_killed.json.

    python benchmarks/md_killed.py

5 ps of MgO at constant temperature with esen_nano, by the command line, in two new data folders. In the second one
`kill -9` ends the process after half of the time that the first run took, and the same command runs again.
"""

import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from ase.build import bulk
from ase.io import write

RESULTS = Path(__file__).parent / "results" / "md_killed.json"
MGO = bulk("MgO", "rocksalt", a=4.2555, cubic=True)  # esen_nano's lattice constant
SETTINGS = {"ensemble": "nvt", "n_steps": 2500, "time_step": 2.0, "temperature": 600.0}  # 5 ps, Langevin, seed 0
COMPARED = (
    "positions_angstrom", "velocities_angstrom_per_fs", "potential_energies_ev", "kinetic_energies_ev", "heat_ev",
    "stresses_ev_per_angstrom3", "structure",
)  # fmt: skip


def start(folder: Path) -> subprocess.Popen[str]:
    """The command in a process of its own, with a data folder of its own."""
    folder.mkdir(exist_ok=True)
    write(folder / "MgO.extxyz", MGO)
    settings = [word for name, value in SETTINGS.items() for word in ("--set", f"{name}={value}")]
    command = [str(Path(sys.executable).with_name("esen-flows")), "md", "MgO.extxyz", "--model", "esen_nano", *settings]
    environment = {**os.environ, "ESEN_FLOWS_DATA_DIR": str(folder / "data"), "ESEN_FLOWS_THREADS": "1"}
    return subprocess.Popen([*command, "--json"], cwd=folder, env=environment, stdout=subprocess.PIPE, text=True)


def finished(process: subprocess.Popen[str]) -> dict[str, Any]:
    """What the command prints: the stored document, whose numbers keep all their bits."""
    printed, _ = process.communicate()
    if process.returncode:
        raise SystemExit(f"esen-flows md ended with exit status {process.returncode}")
    return json.loads(printed)


def main() -> None:
    """Run three times, compare two results."""
    with tempfile.TemporaryDirectory() as name:
        whole_at, killed_at = Path(name) / "whole", Path(name) / "killed"
        began = time.monotonic()
        whole = finished(start(whole_at))
        seconds = time.monotonic() - began
        victim = start(killed_at)
        time.sleep(seconds / 2)
        victim.send_signal(signal.SIGKILL)
        assert victim.wait() == -signal.SIGKILL, "the command was faster than before; run this again"
        resumed = finished(start(killed_at))
    outputs = whole["output"], resumed["output"]
    done_again = resumed["provenance"]["force_evaluations"]
    result = {
        "command": "esen-flows md MgO.extxyz --model esen_nano "
        + " ".join(f"--set {k}={v}" for k, v in SETTINGS.items()),
        "atoms": len(MGO),
        "frames": len(outputs[0]["positions_angstrom"]),
        "steps_kept_at_the_kill": SETTINGS["n_steps"] - done_again,
        "steps_after_it": done_again,
        "equal": {field: outputs[0][field] == outputs[1][field] for field in COMPARED},
        "all_outputs_equal": outputs[0] == outputs[1] and whole["summary"] == resumed["summary"],
        "final_potential_energy_ev": [output["potential_energies_ev"][-1].hex() for output in outputs],
        "key": whole["key"],
        "threads": whole["provenance"]["threads"],
        "libraries": whole["provenance"]["libraries"],
    }
    RESULTS.write_text(json.dumps(result, indent=1) + "\n")
    print(json.dumps(result, indent=1))


if __name__ == "__main__":
    main()
