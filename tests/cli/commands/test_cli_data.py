"""`esen-flows data` from the shell's point of view."""

import re
import subprocess
import sys

import ase.io
import numpy as np
import pytest
from ase.build import bulk
from ase.calculators.emt import EMT
from ase.calculators.singlepoint import SinglePointCalculator
from command_line import run


@pytest.fixture
def copper_file(tmp_path):
    """Strained copper by EMT under names of its own, the last one with a NaN."""
    frames = []
    for seed in range(10):
        atoms = bulk("Cu", a=3.65 + 0.01 * seed, cubic=True)
        atoms.rattle(0.01, seed=seed)
        atoms.calc = EMT()
        energy, forces, stress = atoms.get_potential_energy(), atoms.get_forces(), atoms.get_stress()
        atoms.calc = SinglePointCalculator(atoms, forces=forces)
        atoms.info |= {"my_energy": energy if seed < 9 else np.nan, "my_stress": stress}
        frames.append(atoms)
    ase.io.write(tmp_path / "cu.xyz", frames, format="extxyz")
    return tmp_path / "cu.xyz"


NAMES = ("--energy-key", "my_energy", "--stress-key", "my_stress", "--group", "cu")


def test_import_info_check(copper_file, tmp_path, capsys):
    folder = tmp_path / "d"
    assert not run("data", "import", copper_file, "--output", folder, *NAMES, "--cutoff", "4")
    first = capsys.readouterr().out
    assert "d: 9 records, 36 atoms, 0 materials" in first
    assert "elements     Cu" in first
    assert "group        cu: 9 records" in first
    assert "source       cu.xyz (extxyz)" in first
    assert "left out     1 bad records" in first
    assert "record 9 of " in first
    assert re.search(r"by strain    normal stress: slope (1|0\.9|1\.0)\S* \+- \S+, \d+ pairs, right", first)
    assert (folder / "edges_4.0.npy").is_file()
    assert not run("data", "info", folder)
    assert capsys.readouterr().out == first
    assert not run("data", "check", folder)
    assert "9 records are unchanged" in capsys.readouterr().out


def test_errors_are_one_message(copper_file, tmp_path, capsys):
    folder = tmp_path / "d"
    assert run("data", "import", copper_file, "--output", folder) == 1
    assert "found my_energy: name it with --energy-key" in capsys.readouterr().err
    turned = (*NAMES, "--stress-unit", "-eV/Angstrom^3")
    assert run("data", "import", copper_file, "--output", folder, *turned) == 1
    assert "the sign is turned" in capsys.readouterr().err
    assert not folder.exists()
    assert run("data", "import", copper_file, "--output", folder, *NAMES, "--on-bad", "fail") == 1
    assert "record 9 of" in capsys.readouterr().err
    assert not run("data", "import", copper_file, "--output", folder, *turned, "--no-check-strain")
    capsys.readouterr()
    assert run("data", "check", folder) == 1
    captured = capsys.readouterr()
    assert "9 records are unchanged" in captured.out
    assert "the sign is turned" in captured.err
    assert run("data", "info", tmp_path) == 1
    assert "no dataset at" in capsys.readouterr().err
    assert run("data", "import", copper_file, "--output", tmp_path / "e", "--format", "csv") == 2


def test_an_interrupted_import_reports_its_state(copper_file, tmp_path, capsys, monkeypatch):
    def interrupted(*arguments):
        raise KeyboardInterrupt

    monkeypatch.setattr("esen_flows.data.dataset.Dataset.edge_counts", interrupted)
    assert run("data", "import", copper_file, "--output", tmp_path / "d", *NAMES, "--cutoff", "4") == 130
    assert "d is complete, edges are counted later" in capsys.readouterr().err
    monkeypatch.setattr("esen_flows.data.importing.check_labels_by_strain", interrupted)
    assert run("data", "import", copper_file, "--output", tmp_path / "e", *NAMES) == 130
    assert "interrupted; nothing was imported" in capsys.readouterr().err
    assert sorted(path.name for path in tmp_path.iterdir()) == ["cu.xyz", "d"]


def test_info_does_not_import_torch(copper_file, tmp_path):
    assert not run("data", "import", copper_file, "--output", tmp_path / "d", *NAMES)
    code = (
        "import sys\nfrom esen_flows.cli.app import main\n"
        "try:\n    main(sys.argv[1:])\nexcept SystemExit as end:\n    assert not end.code\n"
        "assert 'torch' not in sys.modules"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, "data", "info", str(tmp_path / "d")],
        capture_output=True, text=True, timeout=600, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "9 records" in done.stdout


@pytest.mark.mongod
def test_equal_datasets_are_stored_once(copper_file, tmp_path, capsys, monkeypatch, copper):
    monkeypatch.setenv("COLUMNS", "160")
    assert not run("data", "import", copper_file, "--output", tmp_path / "cu", *NAMES, "--no-check-strain")
    capsys.readouterr()
    for name in ("copper", "the same"):
        assert not run("data", "store", tmp_path / "cu", "--name", name)
    keys = re.findall(r"key (\w+)", capsys.readouterr().out)
    assert len(keys) == 2
    assert keys[0] == keys[1]
    assert not run("data", "stored")
    printed = capsys.readouterr().out
    assert "copper, the same" in printed
    assert keys[0][:16] in printed
