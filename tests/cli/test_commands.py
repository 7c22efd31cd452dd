"""The commands against a real server: compute once, read the stored result, show, query."""

import csv
import errno
import io
import json
import os
import platform
import re
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from ase.io import read
from command_line import run

from esen_flows import __version__

pytestmark = pytest.mark.mongod

FAST = [
    "--set", "displacement.fc2_supercell=2,2,2", "--set", "displacement.fc3_supercell=2,2,2",
    "--set", "mesh=5,5,5", "--set", "relax.fmax_ev_per_angstrom=0.01",
]  # fmt: skip


def kappa(copper: Any, *more: str) -> int:
    return run("kappa", "Cu.cif", "--model", copper.checkpoint, *FAST, *more)


CHILD = """
import sys, time
start = time.perf_counter()
from esen_flows.cli.app import main
try:
    main(sys.argv[1:])
except SystemExit as end:
    assert not end.code, end.code
heavy = "torch atomate2 jobflow phonopy phono3py pymatgen maggma matplotlib sevenn".split()
print("LOADED", [name for name in heavy if name in sys.modules])
"""


def test_the_second_run_only_reads(copper: Any, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert kappa(copper) == 0
    first = capsys.readouterr().out
    assert "kappa RTA, 300 K" in first
    assert "kappa Wigner, 300 K" in first
    assert "Fm-3m (225)" in first
    calls = copper.force_field.force_evaluations
    assert calls > 0
    (results,) = (folder / "results").iterdir()
    names = {path.name for path in results.iterdir()}
    assert {"kappa.png", "cumulative_kappa.png", "lifetimes.png", "mean_free_paths.png"} <= names
    assert not [name for name in names if name.startswith(".")]

    command = [sys.executable, "-c", CHILD, "kappa", "Cu.cif", "--model", str(copper.checkpoint), *FAST]
    child = subprocess.run(command, capture_output=True, text=True, check=True, timeout=600)
    second, _, loaded = child.stdout.partition("LOADED ")
    assert loaded.strip() == "[]"
    assert second.count(", from the database\n") == 3
    assert second.replace(", from the database\n", "\n") == first
    assert copper.force_field.force_evaluations == calls


def test_a_full_disk_does_not_hide_the_result(
    copper: Any, folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def full(*arguments: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr("esen_flows.cli.commands.properties.write_artefacts", full)
    assert run("relax", "Cu.cif", "--model", copper.checkpoint, "--output", "o") == 1
    captured = capsys.readouterr()
    assert "lattice constant a" in captured.out
    assert "wrote" not in captured.out
    assert "files cannot be written to o (No space left on device); make room" in captured.err


def test_missing_figures_are_made_again_without_a_force_call(copper: Any, folder: Path) -> None:
    assert kappa(copper, "--output", "figures") == 0
    calls = copper.force_field.force_evaluations
    made = (folder / "figures" / "kappa.png").read_bytes()
    assert made.startswith(b"\x89PNG")
    kept = os.stat(folder / "figures" / "cumulative_kappa.png").st_mtime_ns
    (folder / "figures" / "kappa.png").unlink()
    assert kappa(copper, "--output", "figures") == 0
    assert (folder / "figures" / "kappa.png").read_bytes().startswith(b"\x89PNG")
    assert os.stat(folder / "figures" / "cumulative_kappa.png").st_mtime_ns == kept
    assert copper.force_field.force_evaluations == calls


def test_relax_writes_the_structure(copper: Any, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    ended = subprocess.Popen(["true"])
    ended.wait()
    (folder / "out").mkdir()
    leftover = f".relaxed.{platform.node()}-{ended.pid}.partial.extxyz"
    (folder / "out" / leftover).write_text("half")
    assert run("relax", "Cu.cif", "--model", copper.checkpoint, "--output", "out") == 0
    assert sorted(os.listdir(folder / "out")) == [
        "POSCAR", "relaxation.png", "relaxation.svg", "relaxed.cif", "relaxed.extxyz",
    ]  # fmt: skip
    for name in ("POSCAR", "relaxed.cif"):
        assert read(folder / "out" / name).cell.lengths() == pytest.approx(3.5898, abs=5e-4)
    relaxed = read(folder / "out" / "relaxed.extxyz")
    # EMT's copper has its minimum at a = 3.5898 Angstrom (fmax 1e-3).
    assert relaxed.cell.lengths() == pytest.approx(3.5898, abs=5e-4)
    assert "lattice constant a" in capsys.readouterr().out


@pytest.mark.usefixtures("quick_figures")
def test_relax_writes_the_trajectory_where_it_is_asked_for(copper: Any, folder: Path) -> None:
    assert run("relax", "Cu.cif", "--model", copper.checkpoint, "--set", "trajectory=true", "--output", "out") == 0
    frames, relaxed = read(folder / "out" / "trajectory.extxyz", ":"), read(folder / "out" / "relaxed.extxyz")
    assert len(frames) > 3
    assert frames[0].cell.lengths() == pytest.approx(3.6)
    assert frames[-1].positions == pytest.approx(relaxed.positions)
    for frame in (frames[0], frames[-1]):
        assert frame.get_potential_energy() == pytest.approx(copper.force_field.evaluate([frame])[0].energy, abs=1e-6)


def test_phonon(copper: Any, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    options = ["--set", "displacement.fc2_supercell=2,2,2", "--set", "mesh=6,6,6"]
    assert run("phonon", "Cu.cif", "--model", copper.checkpoint, "--output", "out", *options) == 0
    assert (folder / "out" / "phonon.png").stat().st_size > 10_000
    assert "verdict" in capsys.readouterr().out


def test_a_stored_failure_is_not_computed_again(copper: Any, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for attempt in ("", "stored failure"):
        assert kappa(copper, "--set", "relax.max_steps=1") == 1
        captured = capsys.readouterr()
        assert captured.err.splitlines()[-1].startswith("esen-flows: the relaxation of Cu4 stopped after 1 steps")
        assert attempt in captured.err
        calls = copper.force_field.force_evaluations
    assert copper.force_field.force_evaluations == calls
    assert not (folder / "results").exists()
    assert run("query", "relax", "--failed") == 0
    assert "NotConvergedError" in capsys.readouterr().out


@pytest.mark.usefixtures("quick_figures")
def test_show_and_query(copper: Any, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run("relax", "Cu.cif", "--model", copper.checkpoint, "--output", "out")
    table = capsys.readouterr().out
    key = table.split("key ")[-1].strip()
    assert run("show", key[:8]) == 0
    shown = capsys.readouterr().out
    assert re.sub(r"wrote    .*\n", "", table) == shown
    assert run("show", key, "--json") == 0
    document = json.loads(capsys.readouterr().out)
    assert (document["key"], document["formula"], document["state"]) == (key, "Cu", "finished")
    assert len(document["output"]["forces_ev_per_angstrom"]) == 4  # the arrays too
    assert document["model"] == {"key": "cc" * 32, "labels": ["emt"], "card": None}
    assert run("relax", "Cu.cif", "--model", copper.checkpoint, "--json") == 0
    again = json.loads(capsys.readouterr().out)  # nothing else is on standard output
    assert (again["output"], again["from_database"], again["files"]) == (document["output"], True, [])
    for form in ("cif", "poscar", "extxyz"):
        assert run("export", form, key[:8], "--output", "structures") == 0
    names = [f"Cu-{key[:16]}.cif", f"Cu-{key[:16]}.extxyz", f"POSCAR-Cu-{key[:16]}"]
    assert sorted(os.listdir("structures")) == names
    for name in names:
        assert read(folder / "structures" / name).cell.lengths() == pytest.approx(3.5898, abs=5e-4)
    capsys.readouterr()

    assert run("query", "relax", "--elements", "Cu", "--spacegroup", "225", "--format", "json") == 0
    assert [found["key"] for found in json.loads(capsys.readouterr().out)] == [key]
    assert run("query", "relax", "--formula", "Cu", "--format", "csv") == 0
    (row,) = csv.DictReader(io.StringIO(capsys.readouterr().out))
    assert row["key"] == key
    assert float(row["a_angstrom"]) == pytest.approx(3.5898, abs=5e-4)
    assert run("query", "relax", "--chemsys", "Cu", "--model", "emt") == 0
    assert key[:12] in capsys.readouterr().out
    assert run("query", "phonon") == 0
    assert "nothing found" in capsys.readouterr().out

    assert run("show", "ffff0000") == 1
    assert "no result with a key that begins with 'ffff0000'" in capsys.readouterr().err
    assert run("show", "xyz") == 1
    assert run("query", "relax", "--formula", "Cux") == 1
    assert "not a chemical formula: 'Cux'" in capsys.readouterr().err


SLOW = """
import signal, sys, time
signal.signal(signal.SIGINT, signal.default_int_handler)  # a test run in the background ignores it
import esen_flows.forcefield.load as load
from ase.calculators.emt import EMT
from esen_flows.forcefield.contract import Declaration
from esen_flows.forcefield.third_party.any_ase import AseForceField

class Slow(AseForceField):
    def evaluate(self, structures):
        print("evaluating", flush=True)
        time.sleep(1.0)  # so that the signal comes before the end, on a busy machine too
        return super().evaluate(structures)

declared = Declaration(conservative=True, equivariance="O3", differentiable=False, elements=None, dtype="float64")
load.load_force_field = lambda *a, **k: Slow(EMT(), key="cc" * 32, label="emt", declaration=declared)
from esen_flows.cli.app import main
main(sys.argv[1:])
"""


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupted_command_gives_its_claim_back(copper: Any, folder: Path, number: signal.Signals) -> None:
    command = [sys.executable, "-c", SLOW, "relax", "Cu.cif", "--model", str(copper.checkpoint), "--output", "out"]
    child = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert child.stdout is not None
    assert "evaluating" in child.stdout.readline()
    child.send_signal(number)
    _, err = child.communicate(timeout=600)
    assert child.returncode == 130
    assert "interrupted; finished steps are stored" in err
    assert "Traceback" not in err
    assert not (folder / "out").exists()
    assert copper.store.database["claims"].count_documents({}) == 0
    assert run("relax", "Cu.cif", "--model", copper.checkpoint, "--output", "out") == 0


def test_db_status_and_version(copper: Any, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("db", "status") == 0
    assert "running" in capsys.readouterr().out
    assert run("--version") == 0
    assert __version__ in capsys.readouterr().out


def test_doctor_prints_no_secret(
    copper: Any, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from esen_flows.settings import get_settings

    monkeypatch.setenv("ESEN_FLOWS_MONGO_URI", "mongodb://somebody:hunter2@db.example.org/")
    get_settings.cache_clear()
    run("doctor")
    out = capsys.readouterr().out
    assert "hunter2" not in out
    assert "somebody" not in out
    assert "phono3py" in out
    assert "allocator" in out


def test_a_foreign_server_is_not_stopped(
    copper: Any, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from esen_flows.settings import get_settings

    monkeypatch.setenv("ESEN_FLOWS_MONGO_URI", "mongodb://somebody:hunter2@db.example.org/")
    get_settings.cache_clear()
    assert run("db", "stop") == 1
    captured = capsys.readouterr()
    assert "ESEN_FLOWS_MONGO_URI is set" in captured.err
    assert "hunter2" not in captured.err + captured.out


def test_static(copper: Any, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("static", "Cu.cif", "--model", copper.checkpoint, "--output", "out") == 0
    assert "energy" in capsys.readouterr().out
    (expected,) = copper.force_field.evaluate([read("Cu.cif")])
    atoms = read(folder / "out" / "static.extxyz")
    assert atoms.get_potential_energy() == pytest.approx(expected.energy)
    assert atoms.get_stress(voigt=False) == pytest.approx(expected.stress, abs=1e-8)
    calls = copper.force_field.force_evaluations
    assert run("query", "static", "--columns", "energy_per_atom,pressure", "--format", "csv") == 0
    energy, pressure = capsys.readouterr().out.splitlines()[-1].split(",")
    assert float(energy) == pytest.approx(expected.energy / len(atoms))
    assert float(pressure) == pytest.approx(-expected.stress.trace() / 3 * 160.2176634)
    assert run("query", "static", "--format", "extxyz", "--output", "all.extxyz") == 0
    assert read("all.extxyz").get_forces() == pytest.approx(expected.forces, abs=1e-7)
    assert run("static", "Cu.cif", "--model", copper.checkpoint, "--output", "out") == 0
    assert copper.force_field.force_evaluations == calls
