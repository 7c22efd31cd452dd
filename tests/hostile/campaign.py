"""Hostile inputs at every entrance of the command line: `python tests/hostile/campaign.py --count 1600`.

Each input is judged: no traceback, no signal, no vast memory or time, no success on what is known to be bad, nothing
executed that a file names, nothing half-written. The exit status is 1 if anything is found; what is found stays in the
folder. The inputs are the same for the same seed.
"""

import argparse
import os
import subprocess
import sys
import tempfile
import time
from collections import Counter, defaultdict
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT), str(ROOT / "tests")]

from hostile.inputs import campaign  # noqa: E402
from hostile.runner import Verdict, run_all, warm_up  # noqa: E402


def main() -> int:
    """Run a campaign and print what was found; the exit status."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--count", type=int, default=1600, help="number of inputs")
    parser.add_argument("--seed", type=int, default=16)
    parser.add_argument("--jobs", type=int, default=2, help="inputs at a time")
    parser.add_argument("--only", default="", help="only entrances whose names contain this")
    parser.add_argument("--folder", type=Path, help="where to work; default: a new folder")
    options = parser.parse_args()
    folder = options.folder or Path(tempfile.mkdtemp(prefix="hostile-"))
    os.environ |= {
        "ESEN_FLOWS_DATA_DIR": str(folder / "data_dir"),
        "ESEN_FLOWS_DATABASE": "hostile",
        "OMP_NUM_THREADS": "1",
    }
    for name in ("ESEN_FLOWS_MONGO_URI", "ESEN_FLOWS_SPOOL", "ESEN_FLOWS_READ_ONLY"):
        os.environ.pop(name, None)
    seeds = folder / "seeds"
    if not seeds.is_dir():
        made = folder / "seeds.partial"
        command = [sys.executable, Path(__file__).with_name("seeds.py"), made]
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
        made.rename(seeds)
    warm_up()
    began, counts, found = time.monotonic(), Counter[str](), defaultdict[str, list[Verdict]](list)
    cases = (case for case in campaign(seeds, options.count, options.seed) if options.only in case.entrance)
    for verdict in run_all(cases, folder / f"cases-{os.getpid()}", options.jobs):
        counts[verdict.case.entrance] += 1
        for fault in verdict.faults:
            found[fault].append(verdict)
            print(f"{fault}: {verdict.case.entrance}: {verdict.case.what}: status {verdict.status}", flush=True)
            print("    " + verdict.messages.strip().replace("\n", "\n    ")[-400:], flush=True)
    stop = [sys.executable, "-m", "esen_flows.cli.entry"]
    subprocess.run([*stop, "db", "stop", "--force"], check=False, stdout=subprocess.DEVNULL, cwd=ROOT)
    print(
        f"{sum(counts.values())} inputs in {time.monotonic() - began:.0f} s:",
        ", ".join(f"{n} {e}" for e, n in counts.items()),
    )
    print(
        "found:", ", ".join(f"{len(these)} {fault}" for fault, these in found.items()) or "nothing", f"(see {folder})"
    )
    return 1 if found else 0


if __name__ == "__main__":
    raise SystemExit(main())
