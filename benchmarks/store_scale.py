"""The store at the size of WBM: 257,487 relaxations with their structures on the private mongod.

    python benchmarks/store_scale.py [COUNT] [FOLDER]

loads made-up results (synthetic_results.py), asks every query example, exports everything, and adds what it measured to
benchmarks/results/store_scale.json. FOLDER (default: a temporary one) keeps the data: a second run with it does not
load again. Times are walls; beside them stand the CPU seconds of this process and of mongod and the load averages,
because on a machine that does other work as well the walls say little.
"""

import json
import os
import platform
import re
import resource
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from functools import partial
from importlib.metadata import version
from itertools import islice
from multiprocessing import get_context
from pathlib import Path
from statistics import median
from typing import Any

from synthetic_results import conductivities, relaxations

from esen_flows.settings import Settings
from esen_flows.store.bulk import insert_results, put_structures
from esen_flows.store.connection import open_store
from esen_flows.store.queries.query import query, query_structures
from esen_flows.store.queries.selection import select
from esen_flows.store.results import Store
from esen_flows.store.server import embedded

WBM = 257_487
CONDUCTIVITIES = 10_000
BATCH = 5000  # generated, then stored; only the storing is timed
LOADERS = 2  # processes
REPETITIONS = 5
PEAK = """
import resource, sys
from esen_flows.cli.app import main
try:
    main(sys.argv[1:])
except SystemExit as end:
    assert not end.code, end.code
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)
"""
QUERIES: dict[str, tuple[str, dict[str, Any]]] = {
    "query relax": ("relax", {}),
    "query relax --chemsys Ga-As": ("relax", {"chemsys": "Ga-As"}),
    "query relax --elements Si,O": ("relax", {"elements": ["Si", "O"]}),
    "query relax --elements Si,O --limit 10000": ("relax", {"elements": ["Si", "O"], "limit": 10_000}),
    "query relax --formula GaAs": ("relax", {"formula": "GaAs"}),
    "query relax --spacegroup 216": ("relax", {"spacegroup": 216}),
    "query relax --spacegroup F-43m --elements O": ("relax", {"spacegroup": "F-43m", "elements": ["O"]}),
    "query relax --model esen_silicon": ("relax", {"model": "esen_silicon"}),
    "query relax --campaign step-3": ("relax", {"campaign": "step-3"}),
    "query relax --failed": ("relax", {"failed": True}),
    'query relax --where "energy_per_atom < -9 and converged"': (
        "relax",
        {"where": "energy_per_atom < -9 and converged"},
    ),
    'query relax --where "5.43 < a < 5.44 and nsites < 5"': ("relax", {"where": "5.43 < a < 5.44 and nsites < 5"}),
    "query relax --sort energy_per_atom --limit 20": ("relax", {"sort": "energy_per_atom", "limit": 20}),
    "query relax --sort formula --limit 20": ("relax", {"sort": "formula", "limit": 20}),
    "query relax --sort -nsites --limit 20": ("relax", {"sort": "-nsites", "limit": 20}),
    'query kappa --where "kappa_300K > 10 and converged"': ("conductivity", {"where": "kappa_300K > 10 and converged"}),
    'query kappa --where "kappa_300K > 100" --sort -kappa_300K': (
        "conductivity",
        {"where": "kappa_300K > 100", "sort": "-kappa_300K"},
    ),
    "query structures --chemsys Ga-As": ("structures", {"chemsys": "Ga-As"}),
    "query structures --elements Si,O": ("structures", {"elements": ["Si", "O"]}),
    "query structures --spacegroup 216": ("structures", {"spacegroup": 216}),
}


@dataclass
class Clock:
    """Wall seconds, CPU seconds of this process and of mongod, summed over what is timed."""

    mongod_pid: int
    wall: float = 0.0
    here: float = 0.0
    mongod: float = 0.0
    start: tuple[float, float, float] = (0.0, 0.0, 0.0)

    def __enter__(self) -> None:
        self.start = self._now()

    def __exit__(self, *_: object) -> None:
        wall, here, mongod = (after - before for after, before in zip(self._now(), self.start, strict=True))
        self.wall, self.here, self.mongod = self.wall + wall, self.here + here, self.mongod + mongod

    def _now(self) -> tuple[float, float, float]:
        fields = Path(f"/proc/{self.mongod_pid}/stat").read_text().rsplit(")", 1)[1].split()
        ticks = (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
        return time.perf_counter(), time.process_time(), ticks


def load(settings: Settings, part: int, count: int) -> dict[str, Any]:
    """One of the loading processes: results and structures, a batch at a time."""
    store = open_store(settings)
    pid = embedded.status(settings)["mongod_pid"]
    clocks = {"results": Clock(pid), "structures": Clock(pid)}
    source, inserted = relaxations(count, first=part * WBM, seed=part), 0
    while batch := list(islice(source, BATCH)):
        with clocks["results"]:
            inserted += insert_results(store, (document for _, _, document in batch))
        with clocks["structures"]:
            put_structures(store, [(atoms, identity) for atoms, identity, _ in batch])
        print(part, inserted, {name: round(inserted / clock.wall) for name, clock in clocks.items()}, flush=True)
    store.close()
    return {"inserted": inserted, **{name: vars(clock) for name, clock in clocks.items()}}


def load_all(store: Store, settings: Settings, count: int) -> dict[str, Any]:
    """All documents, by several processes at once; how fast, with and without what generating them took."""
    pid, before = embedded.status(settings)["mongod_pid"], os.getloadavg()
    shares = [count // LOADERS + (part < count % LOADERS) for part in range(LOADERS)]
    everything = Clock(pid)
    with everything, ProcessPoolExecutor(LOADERS, mp_context=get_context("spawn")) as pool:
        parts = list(pool.map(load, [settings] * LOADERS, range(LOADERS), shares))
    after = os.getloadavg()
    client = sum(part[name]["here"] for part in parts for name in ("results", "structures"))
    rate = sum(part["inserted"] / (part["results"]["wall"] + part["structures"]["wall"]) for part in parts)
    return {
        "relaxations": sum(part["inserted"] for part in parts),
        "processes": LOADERS,
        "wall_seconds_with_generation": everything.wall,
        "documents_per_second_wall": 2 * rate,
        "relaxations_with_structure_per_second_wall": rate,
        "cpu_ms_per_document_client": 1000 * client / count,
        "cpu_ms_per_document_mongod": 1000 * everything.mongod / count,
        "load_average_before": before,
        "load_average_after": after,
    }


def sizes(store: Store, relaxations_: int) -> dict[str, float]:
    """Bytes on disk of a relaxed structure: its result, its input structure, the indexes of both."""
    found: dict[str, float] = {}
    for name in ("results", "structures"):
        stats = next(iter(store.database[name].aggregate([{"$collStats": {"storageStats": {}}}])))["storageStats"]
        found[f"{name}_documents"] = stats["storageSize"] / relaxations_
        found[f"{name}_indexes"] = stats["totalIndexSize"] / relaxations_
    return found | {"bytes_per_relaxed_structure": sum(found.values())}


def _query(kind: Any, store: Store, **filters: Any) -> list[Any]:
    return query(store, kind, **filters)


def ask(store: Store) -> dict[str, Any]:
    """Each query example: how many it finds, how long it takes (the first time, then the median), by which index."""
    answers = {}
    for name, (kind, filters) in QUERIES.items():
        filters = {"limit": 50, **filters}
        search = query_structures if kind == "structures" else partial(_query, kind)
        seconds = []
        for _ in range(REPETITIONS):
            start = time.perf_counter()
            found = search(store, **filters)
            seconds.append(time.perf_counter() - start)
        plan = str(select(kind, **filters).cursor(store, {"_id": 1}).explain()["queryPlanner"]["winningPlan"])
        answers[name] = {
            "found": len(found),
            "seconds_first": seconds[0],
            "seconds_median": median(seconds),
            "index": "IXSCAN" in plan and "COLLSCAN" not in plan,
            "indexes": sorted(set(re.findall(r"'indexName': '(\w+)'", plan))),
        }
        print(name, answers[name], flush=True)
    return answers


def command(settings: Settings, *words: str) -> dict[str, float]:
    """A command in a process of its own, its start included: seconds, CPU seconds, peak memory."""
    environment = os.environ | {"ESEN_FLOWS_DATA_DIR": str(settings.data_dir), "COLUMNS": "120"}
    before, start = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    child = subprocess.run(
        [sys.executable, "-c", PEAK, *words], env=environment, check=True, capture_output=True, text=True
    )
    seconds, after = time.perf_counter() - start, resource.getrusage(resource.RUSAGE_CHILDREN)
    cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return {"seconds": seconds, "cpu_seconds": cpu, "peak_memory_bytes": int(child.stdout.split()[-1]) * 1024}


def export(settings: Settings, form: str, folder: Path) -> dict[str, float]:
    """The full export by the command: seconds, bytes, peak memory."""
    path = folder / f"all.{form}"
    found = command(settings, "query", "relax", "--format", form, "--output", str(path))
    found["bytes"] = path.stat().st_size
    path.unlink()
    print(form, found, flush=True)
    return found


def main() -> None:
    """Load unless done, ask, export, write."""
    count = int(sys.argv[1]) if len(sys.argv) > 1 else WBM
    folder = Path(sys.argv[2]) if len(sys.argv) > 2 else Path(tempfile.mkdtemp(prefix="store_scale-"))
    settings = Settings(mongo_uri=None, data_dir=folder, mongod_idle_seconds=60.0, server_timeout_seconds=60.0)
    store = open_store(settings)
    notes = store.database["benchmark"]
    loaded = notes.find_one({"_id": "load"}, {"_id": 0})
    stored = store.database["results"].count_documents({"kind": "relax"})
    if loaded is None and stored == 0:
        loaded = load_all(store, settings, count)
        notes.insert_one({"_id": "load", **loaded})
        stored = store.database["results"].count_documents({"kind": "relax"})
    insert_results(store, conductivities(CONDUCTIVITIES))
    result = {
        "relaxations": stored,
        "load": loaded or "interrupted: no figures",
        "sizes": sizes(store, stored),
        "load_average": os.getloadavg(),
        "queries": ask(store),
        "command: query relax --chemsys Ga-As": command(settings, "query", "relax", "--chemsys", "Ga-As"),
        "exports": {form: export(settings, form, folder) for form in ("jsonl", "extxyz")},
        "cpus": os.cpu_count(),
        "versions": {"python": platform.python_version(), "mongod": embedded.status(settings)["version"]}
        | {name: version(name) for name in ("pymongo", "esen_flows")},
    }
    store.close()
    path = Path(__file__).parent / "results" / "store_scale.json"
    runs = json.loads(path.read_text()) if path.exists() else []
    path.write_text(json.dumps([*runs, result], indent=1) + "\n")
    print(path.read_text())


if __name__ == "__main__":
    main()
