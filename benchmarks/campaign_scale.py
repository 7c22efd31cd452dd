"""Campaigns of the size of WBM: 257,487 structures imported from an extended XYZ file, planned, and counted.

    python benchmarks/campaign_scale.py DATA [COUNT] [IMPORTED]

DATA holds wbm-random-pbe52-equilibrium-2025.1.json.gz (matcalc, BSD-3; WBM CC-BY-4.0): 972 crystals of WBM with their
symmetry, of which the others are made by changing volumes a little, so that all are different. Measured, each in a
process of its own with its peak memory: `campaign plan` of a file of IMPORTED structures (default: all) into an empty
database (they are read one after the other, keyed, checked, their space groups found, and stored, with a member each);
then, with COUNT of them in the store, `campaign plan` of all by a query, once more of the same, and the campaign's
status. Walls and CPU seconds, of the process with its children and of mongod, with the load averages, in
benchmarks/results/campaign_scale.json.
"""

import gzip
import json
import os
import platform
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from importlib.metadata import version
from pathlib import Path
from typing import Any

from ase import Atoms
from ase.io import write
from pymatgen.core import Structure
from pymatgen.io.ase import AseAtomsAdaptor

from esen_flows.settings import Settings
from esen_flows.store.bulk import put_structures
from esen_flows.store.connection import open_store
from esen_flows.store.server import embedded
from esen_flows.structures.identity import identify

WBM = 257_487
CHILD = """
import json, os, resource, sys, time
from esen_flows.settings import get_settings
from esen_flows.store.server import embedded
from esen_flows.store.connection import open_store

def mongod_seconds():
    pid = embedded.status(get_settings())["mongod_pid"]
    fields = open(f"/proc/{pid}/stat").read().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

store = open_store()
before, start = mongod_seconds(), time.perf_counter()
if sys.argv[1] == "plan":
    from esen_flows.campaigns.plan import plan
    from esen_flows.campaigns.spec import find_spec, read_spec
    path = find_spec(sys.argv[2])
    told = lambda done: done % 20000 or print(done, round(time.perf_counter() - start), file=sys.stderr, flush=True)
    answer = str(plan(store, read_spec(path), path.read_text(), told))
else:
    from esen_flows.campaigns.status import campaign_status
    answer = str(campaign_status(store, sys.argv[2]))[:500]
wall = time.perf_counter() - start
print(json.dumps({
    "wall_seconds": wall, "cpu_seconds": sum(os.times()[:4]), "cpu_seconds_mongod": mongod_seconds() - before,
    "peak_memory_bytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024,
    "load_average": os.getloadavg(), "answer": answer.splitlines(),
}))
"""
SPEC = """\
name: {name}
property: relax
structures: {structures}
models: chgnet
dtype: float32
settings: {{fmax_ev_per_angstrom: {fmax}, optimizer: fire, keep_unconverged: true}}
"""


def crystals(data: Path, first: int, last: int) -> Iterator[tuple[Atoms, dict[str, Any]]]:
    """The crystals of the sample, over and over, each time a little larger, and what they are called."""
    with gzip.open(data / "wbm-random-pbe52-equilibrium-2025.1.json.gz", "rt") as stream:
        sample = [AseAtomsAdaptor.get_atoms(Structure.from_dict(row["structure"])) for row in json.load(stream)]
    identities = [identify(atoms) for atoms in sample]
    for number in range(first, last):
        which, again = number % len(sample), number // len(sample)
        atoms = Atoms(sample[which].numbers, positions=sample[which].positions, cell=sample[which].cell, pbc=True)
        atoms.set_cell(atoms.cell.array * (1 + 1e-5 * again), scale_atoms=True)
        atoms.info["material_id"] = f"wbm-{number}"
        yield atoms, identities[which] | {"material_ids": [f"wbm-{number}"]}


def measured(settings: Settings, *words: str) -> dict[str, Any]:
    """What a process of its own took."""
    environment = os.environ | {"ESEN_FLOWS_DATA_DIR": str(settings.data_dir)}
    done = subprocess.run(
        [sys.executable, "-c", CHILD, *words], env=environment, check=True, stdout=subprocess.PIPE, text=True
    )
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    print(words, found, flush=True)
    return found


def main() -> None:
    """Write the file, import, load the others, plan, count, write what came out."""
    data, count = Path(sys.argv[1]), int(sys.argv[2]) if len(sys.argv) > 2 else WBM
    imported = int(sys.argv[3]) if len(sys.argv) > 3 else count
    folder = Path(tempfile.mkdtemp(prefix="campaign_scale-"))
    settings = Settings(mongo_uri=None, data_dir=folder, mongod_idle_seconds=600.0, server_timeout_seconds=60.0)
    file = folder / "crystals.extxyz"
    with file.open("w") as stream:
        for atoms, _ in crystals(data, 0, imported):
            write(stream, atoms, format="extxyz", columns=["symbols", "positions"])
    store = open_store(settings)  # holds the server while the processes come and go
    for name, structures, fmax in (("imported", f"{{file: {file}}}", 0.02), ("planned", "{query: {}}", 0.05)):
        (folder / f"{name}.yaml").write_text(SPEC.format(name=name, structures=structures, fmax=fmax))
    result = {"imported": imported, "import": measured(settings, "plan", str(folder / "imported.yaml"))}
    put_structures(store, crystals(data, imported, count))
    result |= {
        "planned": count,
        "plan_of_stored": measured(settings, "plan", str(folder / "planned.yaml")),
        "plan_again": measured(settings, "plan", str(folder / "planned.yaml")),
        "status": measured(settings, "status", "planned"),
        "cpus": os.cpu_count(),
        "versions": {"python": platform.python_version(), "mongod": embedded.status(settings)["version"]}
        | {name: version(name) for name in ("pymongo", "ase", "spglib", "esen_flows")},
    }
    store.close()
    path = Path(__file__).parent / "results" / "campaign_scale.json"
    path.write_text(json.dumps(result, indent=1) + "\n")
    print(path.read_text())


if __name__ == "__main__":
    main()
