"""Hostile inputs at every entrance of the command line: `python tests/hostile/campaign.py --count 1600`.

Each input is judged: no traceback, no signal, no vast memory or time, no success on what is known to be bad, nothing
executed that a file names, nothing half-written. The exit status is 1 if anything is found; what is found stays in the
folder. The inputs are the same for the same seed.
"""

import argparse
import os
import sys
import tempfile
import time
import traceback
from collections import Counter, defaultdict
from collections.abc import Callable
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT), *(str(ROOT / "tests" / name) for name in ("", "store", "forcefield"))]

from hostile import seeds  # noqa: E402
from hostile.inputs import campaign  # noqa: E402
from hostile.runner import Verdict, run_all, warm_up  # noqa: E402


def in_child(work: Callable[[], None]) -> None:
    """Do something quietly in a forked process: this one forks later, and may hold no connection."""
    sys.stdout.flush()
    pid = os.fork()
    if pid == 0:
        status = 1
        try:
            os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
            work()
            sys.stdout.flush()
            status = 0
        except BaseException:
            traceback.print_exc()
        finally:
            os._exit(status)
    if status := os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]):
        raise RuntimeError(f"a forked process ended with status {status}; its messages are above")


def stop_database() -> None:
    """Stop the private server of the settings."""
    from esen_flows.settings import get_settings
    from esen_flows.store.server.embedded import stop

    stop(get_settings(), force=True)


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
    warm_up()
    valid = folder / "seeds"
    if not valid.is_dir():
        made = folder / "seeds.partial"
        in_child(lambda: seeds.make_all(made))
        made.rename(valid)
    began, counts, found = time.monotonic(), Counter[str](), defaultdict[str, list[Verdict]](list)
    cases = (case for case in campaign(valid, options.count, options.seed) if options.only in case.entrance)
    for verdict in run_all(cases, folder / f"cases-{os.getpid()}", options.jobs):
        counts[verdict.case.entrance] += 1
        for fault in verdict.faults:
            found[fault].append(verdict)
            print(f"{fault}: {verdict.case.entrance}: {verdict.case.what}: status {verdict.status}", flush=True)
            print("    " + verdict.messages.strip().replace("\n", "\n    ")[-400:], flush=True)
    in_child(stop_database)
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
