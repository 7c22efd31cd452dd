"""Three hundred relaxations on a queue where jobs, workers and the server are killed: each result is stored once.

ESEN_FLOWS_CHAOS_SEED repeats the choices of a run; their effects depend on the machine.
"""

import os
import random
import signal
import subprocess
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import quote_plus

import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk
from ase.io import write
from one_node import ENDED, SlurmSite, wait_for

from esen_flows.campaigns import pack
from esen_flows.campaigns.control import submit_campaign
from esen_flows.campaigns.plan import plan
from esen_flows.campaigns.spec import read_spec
from esen_flows.campaigns.status import campaign_status
from esen_flows.errors import StoreError
from esen_flows.queue.launchers import fill
from esen_flows.queue.recover import recover
from esen_flows.settings import Settings
from esen_flows.store.campaign_runs import runs
from esen_flows.store.connection import open_store
from esen_flows.store.results import Store
from esen_flows.store.server.mongod import find_mongod

pytestmark = [pytest.mark.slurm, pytest.mark.mongod, pytest.mark.slow]

METALS = ("Al", "Ni", "Cu", "Pd", "Ag", "Pt", "Au")
CAMPAIGNS = {"metals": ("emt", 260), "silicon": ("esen_silicon", 40)}
# Two jobs with a GPU each, two without. Arguments after the script go to the worker.
SCRIPTS = ("gpu.sbatch", "gpu.sbatch", "cpu.sbatch", "cpu.sbatch")
PATIENCE_SECONDS = 900.0


def metal(number: int, rng: np.random.Generator) -> Atoms:
    atoms = bulk(METALS[number % 7], cubic=True)
    atoms = atoms.repeat((2, 1, 1)) if number % 2 else atoms
    atoms.set_cell(atoms.cell * (1 + 0.02 * rng.standard_normal()), scale_atoms=True)
    atoms.rattle(0.05, rng=rng)
    return atoms


def silicon(number: int, rng: np.random.Generator) -> Atoms:
    atoms = bulk("Si")
    atoms.set_cell(atoms.cell * (1 + 0.01 * rng.standard_normal()), scale_atoms=True)
    atoms.rattle(0.02, rng=rng)
    return atoms


class Server:
    """A mongod that is killed and comes back; it has a socket only, so that no process can take its port meanwhile."""

    def __init__(self, folder: Path, binary: Path) -> None:
        (folder / "data").mkdir(parents=True)
        self.socket = folder / "mongod.sock"
        self.uri = f"mongodb://{quote_plus(str(self.socket))}/"
        self._command = [str(binary), "--dbpath", str(folder / "data"), "--bind_ip", str(self.socket)]
        self._command += ["--unixSocketPrefix", str(folder), "--filePermissions", "0600", "--logpath"]
        self._command += [str(folder / "log"), "--logappend", "--wiredTigerCacheSizeGB", "0.25"]
        self.start()

    def start(self) -> None:
        self._process = subprocess.Popen(self._command, stdout=subprocess.DEVNULL)

    def kill(self) -> None:
        """kill -9."""
        self._process.kill()
        self._process.wait()
        self.socket.unlink(missing_ok=True)


@dataclass(frozen=True)
class Process:
    """A worker's process in a queue job."""

    pid: int
    job: str
    gpu: str
    child: bool  # whether it computes; otherwise it is the supervisor
    parent: int


@dataclass
class Chaos:
    """The queue, the server, and the events so far."""

    site: SlurmSite
    server: Server
    store: Store
    folder: Path
    rng: random.Random
    jobs: dict[str, str | None] = field(default_factory=lambda: dict.fromkeys(map(str, range(4))))
    ended: list[str] = field(default_factory=list)
    told: list[str] = field(default_factory=list)
    limited: str = ""  # the job that its time limit will end

    @property
    def log(self) -> Path:
        """A line for each result that was computed."""
        return self.folder / "computed"

    def tell(self, words: str) -> None:
        self.told.append(words)
        print(f"{time.strftime('%H:%M:%S')} {words}", flush=True)

    def fill_queue(self) -> None:
        """Submit another job for each that has ended."""
        for place, job in self.jobs.items():
            if job is not None and self.site.state(job) not in ENDED:
                continue
            if job is not None:
                self.ended.append(job)
            self.jobs[place] = self.submit(SCRIPTS[int(place)])

    def submit(self, script: str, *options: str, idle: str = "8") -> str:
        """Submit a job with a worker that takes all work and ends after `idle` seconds without work."""
        variables = {"PYTHONPATH": str(Path(__file__).parent / "watched"), "CHAOS_LOG": str(self.log)}
        arguments = (*options, str(self.folder / "site" / script), "--category", "any", "--idle", idle)
        return self.site.submit(*arguments, "--margin", "5", environment=variables)

    def processes(self) -> list[Process]:
        """All processes of workers in this site's jobs, without what they are about to start: a fork looks alike."""
        found = []
        for folder in Path("/proc").glob("[0-9]*"):
            try:
                words = (folder / "cmdline").read_bytes().split(b"\0")
                raw = (folder / "environ").read_bytes().split(b"\0")
                parent = int((folder / "stat").read_text().rpartition(")")[2].split()[1])
            except OSError:  # it has ended
                continue
            names = dict(item.split("=", 1) for item in (one.decode(errors="replace") for one in raw) if "=" in item)
            if names.get("CHAOS_LOG") != str(self.log):
                continue
            child = b"esen_flows.queue.worker_child" in words
            if child or b"worker" in words[1:3]:
                gpu = names.get("CUDA_VISIBLE_DEVICES", "")
                found.append(Process(int(folder.name), names.get("SLURM_JOB_ID", ""), gpu, child, parent))
        alike = {(process.pid, process.child) for process in found}
        return [process for process in found if (process.parent, process.child) not in alike]

    def check_gpus(self) -> None:
        """Each GPU is seen by one computing process at most."""
        seen = Counter(process.gpu for process in self.processes() if process.child and process.gpu)
        assert all(count == 1 for count in seen.values()), (seen, self.processes())
        assert seen.keys() <= {"0", "1"}

    def kill(self, what: str, processes: list[Process]) -> bool:
        """kill -9 of one of these, if there is any."""
        if not processes:
            return False
        victim = self.rng.choice(processes)
        try:
            os.kill(victim.pid, signal.SIGKILL)
        except ProcessLookupError:  # it has ended meanwhile
            return False
        self.tell(f"kill -9 of {what} of job {victim.job}")
        return True

    def running(self) -> list[str]:
        """Jobs that run, and are not to meet their time limit."""
        return [job for job in self.jobs.values() if job is not None and self.site.state(job) == "RUNNING"]


def cancel_job(chaos: Chaos) -> bool:
    running = chaos.running()
    if not running:
        return False
    job = chaos.rng.choice(running)
    chaos.tell(f"scancel {job}")
    chaos.site.run("scancel", "--quiet", job)
    return True


def kill_worker(chaos: Chaos) -> bool:
    return chaos.kill("a process", [process for process in chaos.processes() if process.child])


def kill_at_work(chaos: Chaos) -> bool:
    """Of a process that has begun with a chunk: what it has in flight is lost, and has to be told."""
    try:
        query = {"campaign": {"$in": list(CAMPAIGNS)}, "state": "running"}
        busy = chaos.store.database.call(lambda: chaos.store.database["campaign_runs"].distinct("worker", query))
    except StoreError:  # the server starts
        return False
    pids = {int(worker.rpartition(":")[2]) for worker in busy}
    return chaos.kill("a process at work", [one for one in chaos.processes() if one.child and one.pid in pids])


def kill_supervisor(chaos: Chaos) -> bool:
    """Not of the job whose time limit is to end it: nobody would be left to tell of the warning."""
    others = [one for one in chaos.processes() if not one.child and one.job != chaos.limited]
    return chaos.kill("the worker", others)


def kill_server(chaos: Chaos) -> bool:
    away = chaos.rng.uniform(0.5, 4.0)
    chaos.tell(f"kill -9 of mongod, which is away for {away:.1f} s")
    chaos.server.kill()
    time.sleep(away)
    chaos.server.start()
    return True


# Each says whether it happened: where no process is there to be killed, it waits for one.
EVENTS = (cancel_job, cancel_job, kill_worker, kill_at_work, kill_at_work, kill_supervisor, kill_server, kill_server)


@pytest.fixture
def chaos(
    slurm_site: SlurmSite, embedded_settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Chaos]:
    """Two planned campaigns, 300 members in chunks of 25, and launchers for the site."""
    seed = int(os.environ.get("ESEN_FLOWS_CHAOS_SEED", random.SystemRandom().randrange(10**6)))
    monkeypatch.setattr(pack, "MEMBERS_UNMEASURED", 25)
    server = Server(slurm_site.root / "mongod", find_mongod(embedded_settings.mongod).binary)
    settings = Settings(mongo_uri=server.uri, database="chaos", data_dir=tmp_path / "data", mongo_uri_file=None)
    store = open_store(settings)
    rng = np.random.default_rng(seed)
    for name, (model, count) in CAMPAIGNS.items():
        make = metal if model == "emt" else silicon
        write(tmp_path / f"{name}.extxyz", [make(number, rng) for number in range(count)])
        text = f"name: {name}\nproperty: relax\nstructures: {{file: {name}.extxyz}}\nmodels: {model}\n"
        (tmp_path / f"{name}.yaml").write_text(text)
        plan(store, read_spec(tmp_path / f"{name}.yaml"), text)
        submit_campaign(store, name)
    uri_file = tmp_path / "uri"
    uri_file.touch(mode=0o600)
    uri_file.write_text(server.uri)
    values = {
        "partition": "gpu",
        "cpu_partition": "cpu",
        "gpus_per_node": "2",
        "cpus_per_gpu": "1",
        "cpus_per_job": "1",
    }
    values |= {"walltime": "0:20:00", "uri_file": str(uri_file), "database": "chaos"}
    fill("slurm_gpu", values, tmp_path / "site")
    made = Chaos(slurm_site, server, store, tmp_path, random.Random(seed))
    made.tell(f"ESEN_FLOWS_CHAOS_SEED={seed}")
    yield made
    slurm_site.run("scancel", "--full", "--signal=KILL", "--user", str(os.getuid()))
    store.close()
    server.kill()


def counted(store: Store) -> int:
    """Number of stored results; 0 while the server starts."""
    try:
        return store.database.call(lambda: store.database["results"].count_documents({"kind": "relax"}))
    except StoreError:
        return 0


def live_through(chaos: Chaos) -> None:
    """Keep four jobs in the queue, and let events happen at random counts of results, until all results are there.

    A fifth job is ended by its time limit.
    """
    events = list(EVENTS)
    chaos.rng.shuffle(events)
    when = sorted(chaos.rng.sample(range(5, 270), len(events)))
    chaos.limited = chaos.submit("cpu.sbatch", "--time=2", "--signal=B:USR1@20", idle="600")
    until = time.monotonic() + PATIENCE_SECONDS
    while (done := counted(chaos.store)) < 300 or chaos.site.state(chaos.limited) not in ENDED:
        assert time.monotonic() < until, chaos.told
        if done < 300:
            chaos.fill_queue()
        chaos.check_gpus()
        due = events and when[0] <= done < 300 and any(process.child for process in chaos.processes())
        if due and events[0](chaos):
            chaos.tell(f"{done} results were there")
            events.pop(0)
            when.pop(0)
        time.sleep(0.2)


def test_every_result_is_there_once(chaos: Chaos) -> None:
    live_through(chaos)
    wait_for("the end of all jobs", lambda: not chaos.site.run("squeue", "--noheader").strip(), 180)
    print(recover(chaos.store))
    statuses = [campaign_status(chaos.store, name) for name in CAMPAIGNS]
    assert [(status.finished, status.failed, status.pending) for status in statuses] == [(260, 0, 0), (40, 0, 0)]
    results = chaos.store.database["results"]
    assert results.count_documents({}) == results.count_documents({"kind": "relax", "current": True}) == 300
    database = chaos.store.database
    unended = list(database["fireworks"].find({"state": {"$ne": "COMPLETED"}}, {"spec": False}))
    assert not unended, (unended, list(database["claims"].find()), list(database["workers"].find()))
    lost = [key for name in CAMPAIGNS for run in runs(chaos.store, name) for key in run.get("lost", ())]
    computed = Counter(line.split()[0] for line in chaos.log.read_text().splitlines())
    twice = {key for key, times in computed.items() if times > 1}
    print(f"{len(computed)} computed, {len(twice)} of them again, {len(lost)} were in flight")
    assert len(computed) == 300
    assert twice <= set(lost)
    assert sum(status.lost_runs for status in statuses) > 0
    (told,) = (chaos.folder / "site/log").glob(f"*-{chaos.limited}.out")
    print(told.read_text())
    assert "ending: SIGUSR1 asked for it" in told.read_text()
