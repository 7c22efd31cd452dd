"""What a campaign costs beside its force calls: 10,000 relaxations by a force field that takes no time.

    python benchmarks/campaign_overhead.py [--count 10000]

Made-up metals of 4 and 8 atoms with all the symmetry there is (the slowest for spglib), from an extended XYZ file:
planned, submitted, and run by FireWorks in this process, as rlaunch does. The force field says zero forces, so that
every relaxation converges at its first step. Written to benchmarks/results/campaign_overhead.json: milliseconds per
material of wall time and of CPU time of this process with its children (mongod's are its own), by stage.
"""

import argparse
import json
import os
import platform
import resource
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np
from ase import Atoms
from ase.build import bulk
from ase.io import write

from esen_flows.forcefield import load
from esen_flows.forcefield.contract import Evaluation, ForceField
from esen_flows.forcefield.third_party.emt import emt
from esen_flows.schemas.provenance import library_versions

RESULT = Path(__file__).parent / "results" / "campaign_overhead.json"
METALS = ("Cu", "Ag", "Au", "Ni", "Pd", "Pt", "Al")


class Nothing(ForceField):
    """Says that every structure is at its minimum."""

    def __init__(self) -> None:
        model = emt()
        self.key, self.label, self.declaration, self.force_evaluations = model.key, "nothing", model.declaration, 0

    def evaluate(self, structures: Sequence[Atoms]) -> list[Evaluation]:
        """Zero forces and stress."""
        self.force_evaluations += len(structures)
        return [
            Evaluation(energy=-float(len(a)), forces=np.zeros((len(a), 3)), stress=np.zeros((3, 3)), energies=None)
            for a in structures
        ]


def main() -> None:
    """Measure and write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--count", type=int, default=10_000)
    count = parser.parse_args().count
    with tempfile.TemporaryDirectory() as folder:
        os.environ["ESEN_FLOWS_DATA_DIR"] = folder
        os.environ.pop("ESEN_FLOWS_MONGO_URI", None)
        os.chdir(folder)
        found = measure(Path(folder), count)
    found |= {"machine": platform.processor() or platform.machine(), "load": os.getloadavg(), "count": count}
    found["versions"] = library_versions()
    RESULT.write_text(json.dumps(found, indent=1) + "\n")
    print(json.dumps(found, indent=1))


def measure(folder: Path, count: int) -> dict[str, object]:
    """Milliseconds per material of each stage."""
    from fireworks import FWorker, LaunchPad
    from fireworks.core.rocket_launcher import rapidfire
    from jobflow import SETTINGS

    from esen_flows.campaigns.control import submit_campaign
    from esen_flows.campaigns.plan import plan
    from esen_flows.campaigns.status import campaign_status
    from esen_flows.schemas.campaign import CampaignSpec
    from esen_flows.store.connection import open_store
    from esen_flows.store.jobflow_files import launchpad_spec
    from esen_flows.store.jobflow_store import job_store
    from esen_flows.store.server import embedded

    nothing = Nothing()
    load.load_force_field = lambda *arguments, **options: nothing
    write(folder / "in.extxyz", structures(count), format="extxyz")
    store = open_store()
    spec = CampaignSpec.model_validate(
        {"name": "c", "property": "relax", "models": "emt", "structures": {"file": str(folder / "in.extxyz")}}
    )
    stages: dict[str, dict[str, float]] = {}
    with timed(stages, "plan with its structures", count):
        plan(store, spec, "")
    with timed(stages, "submit", count):
        submit_campaign(store, "c")
    SETTINGS.JOB_STORE = job_store(store)
    launchpad = LaunchPad.from_dict({**launchpad_spec(store.database), "strm_lvl": "ERROR"})
    with timed(stages, "run", count):
        rapidfire(launchpad, FWorker(), nlaunches=0, strm_lvl="ERROR")
    finished = campaign_status(store, "c").finished
    if finished != count:
        raise SystemExit(f"only {finished} of {count} are finished")
    store.close()
    embedded.stop(force=True)
    total = {name: sum(stage[name] for stage in stages.values()) for name in ("wall_ms", "cpu_ms")}
    return {"per_material": {**stages, "in all": total}, "force_evaluations": nothing.force_evaluations}


def structures(count: int) -> Iterator[Atoms]:
    """Cubic metals, each with a volume of its own."""
    for i in range(count):
        atoms = bulk(METALS[i % 7], cubic=True) * ((1, 1, 1) if i % 2 else (2, 1, 1))
        atoms.set_cell(atoms.cell * (1 + 1e-6 * i), scale_atoms=True)
        yield atoms


@contextmanager
def timed(stages: dict[str, dict[str, float]], name: str, count: int) -> Iterator[None]:
    """Note what happens inside."""
    wall, cpu = time.perf_counter(), cpu_seconds()
    yield
    stages[name] = {
        "wall_ms": round(1e3 * (time.perf_counter() - wall) / count, 3),
        "cpu_ms": round(1e3 * (cpu_seconds() - cpu) / count, 3),
    }


def cpu_seconds() -> float:
    """Of this process and of the children that have ended."""
    here, children = resource.getrusage(resource.RUSAGE_SELF), resource.getrusage(resource.RUSAGE_CHILDREN)
    return here.ru_utime + here.ru_stime + children.ru_utime + children.ru_stime


if __name__ == "__main__":
    main()
