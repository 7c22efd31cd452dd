"""Bad input ends with one clear message and a non-zero exit status, and nothing is written."""

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from ase.build import bulk, fcc111, molecule
from ase.io import write

from esen_flows.cli.app import main
from esen_flows.schemas.card import ModelReference, read_card
from esen_flows.settings import get_settings

SILICON = bulk("Si", "diamond", a=5.43, cubic=True)
Run = Callable[..., tuple[int, str, str]]


@pytest.fixture
def run(
    tmp_path: Path, header_only_checkpoint: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Any:
    """Function that runs a command in an empty folder without a database; returns exit status, stdout and stderr."""
    home = tmp_path / "home"
    home.mkdir()
    monkeypatch.chdir(home)
    monkeypatch.delenv("ESEN_FLOWS_MONGO_URI", raising=False)
    monkeypatch.setenv("ESEN_FLOWS_DATA_DIR", str(home / "data"))
    monkeypatch.setenv("ESEN_FLOWS_MONGOD", str(tmp_path / "no-mongod"))
    get_settings.cache_clear()

    def invoke(*arguments: str | Path, model: str | Path = header_only_checkpoint) -> tuple[int, str, str]:
        with pytest.raises(SystemExit) as caught:
            main([*map(str, arguments), "--model", str(model)])
        captured = capsys.readouterr()
        return int(caught.value.code or 0), captured.out, captured.err

    yield invoke
    get_settings.cache_clear()


def write_silicon(folder: Path) -> Path:
    write(folder / "Si.cif", SILICON)
    return folder / "Si.cif"


def check(result: tuple[int, str, str], code: int, words: str, home: Path) -> None:
    """One line on stderr, nothing on stdout, nothing written."""
    assert result[0] == code
    assert result[1] == ""
    assert result[2].startswith("esen-flows: ")
    assert result[2].count("\n") == 1
    assert words in result[2]
    assert os.listdir(home) == []


def structures(folder: Path) -> dict[str, tuple[Path, str]]:
    """Files that kappa refuses, with the words of the message."""
    close = SILICON.copy()
    close.positions[1] = close.positions[0] + [0.2, 0.0, 0.0]
    nan = folder / "nan.xyz"
    nan.write_text('1\nLattice="5 0 0 0 5 0 0 0 5" Properties=species:S:1:pos:R:3 pbc="T T T"\nSi nan 0 0\n')
    (folder / "broken.cif").write_text("data_Si\n_cell_length_a five\nloop_\n")
    files = {
        "close.cif": close,
        "salt.cif": bulk("NaCl", "rocksalt", a=5.64),
        "silane.xyz": molecule("SiH4"),
        "slab.xyz": fcc111("Al", (1, 1, 3), vacuum=8.0),
    }
    for name, atoms in files.items():
        write(folder / name, atoms)
    return {
        "missing": (folder / "gone.cif", "no such file"),
        "unparsable": (folder / "broken.cif", "cannot be read as a structure"),
        "close": (folder / "close.cif", "Angstrom apart, closer than 0.5"),
        "NaN": (nan, "NaN"),
        "element": (folder / "salt.cif", "never saw Na, Cl; it knows Si"),
        "molecule": (folder / "silane.xyz", "needs a crystal, but silane.xyz is periodic in 0 of 3"),
        "slab": (folder / "slab.xyz", "periodic in 2 of 3 directions"),
    }


@pytest.mark.parametrize("case", ["missing", "unparsable", "close", "NaN", "element", "molecule", "slab"])
@pytest.mark.parametrize("command", ["kappa", "phonon"])
def test_structures(run: Run, tmp_path: Path, command: str, case: str) -> None:
    file, words = structures(tmp_path)[case]
    check(run(command, file), 1, words, tmp_path / "home")


def test_unknown_model(run: Run, tmp_path: Path) -> None:
    result = run("kappa", write_silicon(tmp_path), model="esen_uranium")
    check(result, 1, "no model 'esen_uranium'; did you mean esen_", tmp_path / "home")


@pytest.mark.parametrize("kept", [4, 40, -1])
def test_corrupted_checkpoint(run: Run, tmp_path: Path, header_only_checkpoint: Path, kept: int) -> None:
    broken = tmp_path / "broken.safetensors"
    broken.write_bytes(header_only_checkpoint.read_bytes()[:kept])
    result = run("relax", write_silicon(tmp_path), model=broken)
    check(result, 1, "broken.safetensors", tmp_path / "home")
    assert "again" in result[2]


def test_no_mongod(run: Run, tmp_path: Path) -> None:
    code, out, err = run("kappa", write_silicon(tmp_path))
    assert (code, out) == (1, "")
    assert "ESEN_FLOWS_MONGOD is" in err
    assert "not an executable file" in err
    assert err.count("\n") == 1
    assert not list((tmp_path / "home").rglob("*.png"))


@pytest.mark.skipif(not Path("/proc/mounts").exists(), reason="reads /proc/mounts")
def test_data_on_a_network_file_system(run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from esen_flows.store.host import Host

    monkeypatch.setattr(Host, "network_file_system", lambda self, path: ("nfs4", "/home"))
    result = run("kappa", write_silicon(tmp_path))
    check(result, 1, "network file system (nfs4", tmp_path / "home")


def test_output_that_cannot_be_written(run: Run, tmp_path: Path) -> None:
    silicon = write_silicon(tmp_path)
    check(run("kappa", silicon, "--output", silicon), 1, "not a folder that you may write to", tmp_path / "home")


def test_a_structure_beyond_all_memory(run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def vast(request: object, **options: object) -> None:
        raise MemoryError("Unable to allocate 366. GiB for an array")

    monkeypatch.setattr("esen_flows.cli.commands.properties.run_or_load", vast)
    result = run("phonon", write_silicon(tmp_path))
    check(result, 1, "Unable to allocate 366. GiB for an array; take a smaller structure", tmp_path / "home")


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--set", "mash=9,9,9"], "valid fields: "),
        (["--set", "mesh=0,9,9"], "--set mesh: "),
        (["--set", "displacement.order=2"], "so it is 3"),
        (["--device", "gpu"], "not one of cpu, cuda"),
        (["--tf32"], "--tf32 needs --dtype float32 and --device cuda"),
        (["--set", "displacement.fc3_supercell=0,1,1"], "positive determinant"),
    ],
)
def test_wrong_usage(run: Run, tmp_path: Path, options: list[str], words: str) -> None:
    check(run("kappa", write_silicon(tmp_path), *options), 2, words, tmp_path / "home")


def test_unknown_command_and_missing_argument(capsys: pytest.CaptureFixture[str]) -> None:
    for arguments in (["kapa"], ["kappa"], ["kappa", "Si.cif", "--dtype", "float16"]):
        with pytest.raises(SystemExit) as caught:
            main(arguments)
        assert caught.value.code == 2
        assert "Traceback" not in capsys.readouterr().err


def test_a_slab_relaxes_only_with_a_fixed_cell(run: Run, tmp_path: Path) -> None:
    slab = fcc111("Si", (1, 1, 2), a=5.4, vacuum=8.0)
    write(tmp_path / "slab.xyz", slab)
    check(run("relax", tmp_path / "slab.xyz"), 1, "(--set relax_cell=false)", tmp_path / "home")
    _, _, err = run("relax", tmp_path / "slab.xyz", "--set", "relax_cell=false")
    assert "ESEN_FLOWS_MONGOD" in err  # it got as far as the database


def test_a_third_party_force_field_is_not_compiled(run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    card = read_card("sevennet_l3i5")
    reference = ModelReference(card.name, "0" * 64, card.name, None, card, True, "O3", "float32")
    monkeypatch.setattr("esen_flows.cli.property_request.resolve_model", lambda text: reference)  # needs no sevenn
    answer = run("kappa", write_silicon(tmp_path), "--compile", model="sevennet_l3i5")
    check(answer, 2, "own networks", tmp_path / "home")


def test_an_unknown_element_symbol(run: Run, tmp_path: Path) -> None:
    path = write_silicon(tmp_path)
    path.write_text(path.read_text().replace("  Si ", "  Qq "))
    code, out, err = run("relax", path)
    assert (code, out, err.count("\n")) == (1, "", 1)
    assert "type symbol 'Qq', which is not an element" in err


@pytest.mark.parametrize(
    ("words", "said"), [((), "interrupted; finished work is kept"), (("state saved",), "state saved")]
)
def test_ctrl_c_ends_with_a_message(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, words: tuple[str, ...], said: str
) -> None:
    def interrupted(*arguments: object, **options: object) -> None:
        raise KeyboardInterrupt(*words)

    monkeypatch.setattr("esen_flows.cli.commands.properties.build_request", interrupted)
    code, out, err = run("relax", write_silicon(tmp_path))
    assert (code, out, err.count("\n")) == (130, "", 1)
    assert err.startswith(f"esen-flows: {said}")
