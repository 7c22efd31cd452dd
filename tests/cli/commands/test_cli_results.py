"""`esen-flows query`: conditions, columns, and every form of output, on results that were really computed."""

import csv
import hashlib
import io
import json
import os
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk
from ase.io import read, write
from command_line import run

from esen_flows.schemas.documents import Failure, ResultDocument, StructureData
from esen_flows.schemas.keys import atoms_key
from esen_flows.schemas.property_lookup import entry_of
from esen_flows.schemas.provenance import build_provenance
from esen_flows.settings import Settings, get_settings
from esen_flows.store.bulk import insert_results, put_structures
from esen_flows.store.connection import open_store
from esen_flows.store.queries.crystals import stream_atoms
from esen_flows.store.queries.fields import is_at_temperature
from esen_flows.store.queries.query import query, query_structures
from esen_flows.store.queries.tables import to_frame
from esen_flows.store.results import Store
from esen_flows.structures.conversion import to_pymatgen
from esen_flows.structures.identity import identify

pytestmark = [pytest.mark.mongod, pytest.mark.usefixtures("quick_figures")]

PHONON = ["--set", "displacement.fc2_supercell=2,2,2", "--set", "mesh=5,5,5"]
KAPPA = [*PHONON, "--set", "displacement.fc3_supercell=2,2,2", "--set", "methods=rta,wigner,lbte"]


def relaxation(atoms: Atoms, a: float, **fields: Any) -> ResultDocument:
    """A made-up relaxation of a cubic crystal of copper to the lattice constant `a`."""
    relaxed = atoms.copy()
    relaxed.set_cell(np.eye(3) * a, scale_atoms=True)
    output = {
        "structure": StructureData.from_atoms(relaxed).model_dump(),
        "energy_ev": -0.5 * len(atoms),
        "forces_ev_per_angstrom": np.full((len(atoms), 3), 1e-4),
        "stress_ev_per_angstrom3": np.diag([1e-5, 2e-5, 3e-5]),
    }
    key = atoms_key(atoms)
    return ResultDocument(
        **{
            "kind": "relax",
            "key": hashlib.sha256(f"{key}{fields}".encode()).hexdigest(),
            "parent_key": key,
            "structure_key": key,
            "model_key": "cc" * 32,
            "model_label": "emt",
            "protocol": {},
            "protocol_hash": "0" * 64,
            "numeric": {"dtype": "float64"},
            "numerics_revision": 1,
            "state": "finished",
            **identify(atoms),
            "summary": {"energy_per_atom_ev": -0.5, "a_angstrom": a, "converged": True},
            "output": output,
            "provenance": build_provenance(device="cpu", threads=1, seconds=1.0, force_evaluations=9),
            "created_at": datetime.now(UTC),
            **fields,
        }
    )


@pytest.fixture(scope="module")
def filled(embedded_settings: Settings) -> Iterator[Store]:
    """Relaxations of copper, fcc and bcc, one that failed, and their input structures."""
    store = open_store(embedded_settings.model_copy(update={"database": "test_cli_results"}))
    fcc, bcc = bulk("Cu", "fcc", a=3.6, cubic=True), bulk("Cu", "bcc", a=2.9, cubic=True)
    failure = Failure(error="NotConvergedError", message="stopped after 1 steps", final=True)
    lost = relaxation(fcc, 3.6, state="failed", failure=failure, output=None, summary={})
    insert_results(store, [relaxation(fcc, 3.59), relaxation(bcc, 2.86), lost])
    put_structures(store, [(fcc, {}), (bcc, {})])
    yield store
    store.database.drop()
    store.close()


@pytest.fixture
def relaxed(
    filled: Store, embedded_settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Store]:
    """The same store where commands find it, and an empty working folder."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "160")
    monkeypatch.delenv("ESEN_FLOWS_MONGO_URI", raising=False)
    monkeypatch.setenv("ESEN_FLOWS_DATA_DIR", str(embedded_settings.data_dir))
    monkeypatch.setenv("ESEN_FLOWS_DATABASE", "test_cli_results")
    get_settings.cache_clear()
    yield filled
    get_settings.cache_clear()


def test_conditions_columns_and_order(relaxed: Store, capsys: pytest.CaptureFixture[str]) -> None:
    capsys.readouterr()
    options = ["--columns", "formula,spacegroup,energy_per_atom,a,converged", "--sort", "-a", "--format", "csv"]
    assert run("query", "relax", *options) == 0
    rows = list(csv.DictReader(io.StringIO(capsys.readouterr().out)))
    assert [row["spacegroup"] for row in rows] == ["225", "229"]
    assert float(rows[0]["a"]) == 3.59
    assert rows[0]["converged"] == "True"

    assert run("query", "relax", "--where", "a > 3.2 and converged and spacegroup == 225", "--format", "jsonl") == 0
    (line,) = capsys.readouterr().out.splitlines()
    assert json.loads(line)["space_group_number"] == 225
    assert run("query", "relax", "--where", "a < 3.2", "--columns", "formula a key", "--format", "json") == 0
    (found,) = json.loads(capsys.readouterr().out)
    assert list(found) == ["formula", "a", "key"]

    assert run("query", "relax", "--limit", "1", "--sort", "a") == 0
    assert "the first 1; there are more" in capsys.readouterr().out
    assert run("query", "relax", "--columns", "formula,created,model") == 0
    shown = capsys.readouterr().out
    assert shown.count("emt") == 2
    assert "there are more" not in shown
    assert run("query", "relax", "--failed", "--columns", "error,final,message") == 0
    assert "NotConvergedError" in capsys.readouterr().out
    assert run("query", "relax", "--formula", "Ni", "--format", "json") == 0
    assert json.loads(capsys.readouterr().out) == []


def test_structures_as_files(relaxed: Store, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("query", "relax", "--sort", "a", "--format", "extxyz", "--output", "all.extxyz") == 0
    assert "wrote 2 structures to all.extxyz" in capsys.readouterr().err
    bcc, fcc = read("all.extxyz", ":")
    assert (len(bcc), len(fcc)) == (2, 4)
    assert fcc.info["formula"] == "Cu"
    assert fcc.info["model"] == "emt"
    document = relaxed.get(fcc.info["key"])
    assert fcc.get_potential_energy() == pytest.approx(document.output["energy_ev"])
    np.testing.assert_allclose(fcc.positions, document.output["structure"]["positions_angstrom"], atol=1e-7)
    np.testing.assert_allclose(fcc.get_stress(voigt=False), document.output["stress_ev_per_angstrom3"], atol=1e-7)

    assert run("query", "relax", "--format", "extxyz", "--structure", "input", "--where", "spacegroup == 225") == 0
    printed = read(io.StringIO(capsys.readouterr().out), format="extxyz")
    np.testing.assert_allclose(printed.cell.lengths(), 3.6)

    assert run("query", "relax", "--format", "cif", "--output", "cifs") == 0
    names = sorted(path.name for path in Path("cifs").iterdir())
    assert len(names) == 2
    assert {round(read(Path("cifs") / name).cell[0, 0], 6) for name in names} == {2.86, 3.59}
    assert all(name.startswith("Cu-") and name.endswith(".cif") for name in names)
    assert run("query", "structures", "--chemsys", "Cu", "--format", "cif", "--output", "inputs") == 0
    assert sorted(len(read(path)) for path in Path("inputs").iterdir()) == [2, 4]
    capsys.readouterr()
    assert run("query", "structures", "--where", "nsites < 3", "--columns", "key,nsites", "--format", "csv") == 0
    assert capsys.readouterr().out.splitlines()[1].endswith(",2")
    assert run("query", "structures", "--sort", "-nsites") == 0
    assert "Fm-3m" in capsys.readouterr().out
    assert run("query", "structures", "--format", "jsonl") == 0
    assert {json.loads(line)["nsites"] for line in capsys.readouterr().out.splitlines()} == {2, 4}


@pytest.mark.parametrize("kind", ["phonon", "kappa", "forces"])
def test_kinds_without_results(relaxed: Store, kind: str, capsys: pytest.CaptureFixture[str]) -> None:
    capsys.readouterr()
    common = ["--chemsys", "Ga-As", "--spacegroup", "216", "--where", "nsites < 9 and converged", "--campaign", "none"]
    assert run("query", kind, *common) == 0
    assert "nothing found" in capsys.readouterr().out
    assert run("query", kind, "--format", "csv") == 0
    (header,) = capsys.readouterr().out.splitlines()
    assert header.startswith("key,formula,chemsys,nsites")
    assert run("query", kind, "--format", "jsonl", "--failed") == 0
    assert run("query", kind, "--format", "extxyz", "--structure", "input") == 0
    assert capsys.readouterr().out == ""
    assert run("query", kind, "--format", "json") == 0
    assert capsys.readouterr().out == "[]\n"


def test_the_example_with_a_temperature(relaxed: Store, capsys: pytest.CaptureFixture[str]) -> None:
    atoms = bulk("GaAs", "zincblende", 5.65)
    temperature = {"kappa_rta_w_per_m_k": 46.0, "temperature_kelvin": 300.0}
    warm, cold = ({**temperature, "kappa_rta_w_per_m_k": kappa} for kappa in (46.0, 5.0))
    hot = {**warm, "temperature_kelvin": 500.0}
    made = [
        relaxation(atoms, 5.65, kind="conductivity", summary=summary, tags=["iii-v"]) for summary in (warm, cold, hot)
    ]
    assert insert_results(relaxed, made) == 3
    capsys.readouterr()
    command = ["query", "kappa", "--where", "kappa_300K > 10 and converged", "--columns", "key,kappa_300K"]
    assert run(*command, "--chemsys", "Ga-As", "--campaign", "iii-v", "--format", "csv") == 0
    assert capsys.readouterr().out.splitlines() == ["key,kappa_300K", f"{made[0].key},46.0"]
    assert run(*command, "--campaign", "another", "--format", "csv") == 0
    assert capsys.readouterr().out == "key,kappa_300K\n"
    relaxed.database["results"].delete_many({"kind": "conductivity"})


def test_output_to_a_pipe_or_link_keeps_the_pipe_or_link(relaxed: Store, tmp_path: Path) -> None:
    pipe, link = tmp_path / "pipe", tmp_path / "link"
    os.mkfifo(pipe)
    link.symlink_to("target.csv")
    reading = os.open(pipe, os.O_RDONLY | os.O_NONBLOCK)
    for path in (pipe, link):
        assert run("query", "relax", "--format", "csv", "--output", path) == 0
    with open(reading) as stream:
        printed = stream.read()
    assert pipe.is_fifo()
    assert link.is_symlink()
    assert printed.startswith("key,formula,")
    assert (tmp_path / "target.csv").read_text() == printed


@pytest.mark.parametrize(
    ("options", "code", "message"),
    [
        (["relax", "--where", "kappa_300K > 10"], 1, "at position 1: relax has no value 'kappa_300K'"),
        (["relax", "--where", "$where"], 1, "cannot read the condition at position 1"),
        (["relax", "--columns", "formula,nonsense"], 1, "relax has no value 'nonsense'"),
        (["relax", "--columns", "nonsense", "--format", "jsonl", "--output", "half"], 1, "has no value 'nonsense'"),
        (["relax", "--sort", "nonsense"], 1, "cannot sort by 'nonsense'"),
        (["structures", "--failed"], 2, "structures have no force field"),
        (["relax", "--format", "cif"], 2, "name their folder with --output"),
        (["relax", "--format", "cif", "--output", "file"], 1, "file is a file; a CIF export needs a folder"),
        (["relax", "--format", "csv", "--output", "."], 1, "is a folder; give a file"),
        (["relax", "--output", "table.txt"], 2, "a table is printed"),
        (["forces", "--where", "temperature > 300"], 1, "forces has no value 'temperature'"),
        (["bands"], 2, "'bands' is not one of"),
        (["relax", "--failed", "--format", "extxyz"], 1, "failed results have no computed structure"),
        (["relax", "--format", "csv", "--output", "missing/file"], 1, "No such file"),
    ],
)
def test_mistakes(
    relaxed: Store,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    options: list[str],
    code: int,
    message: str,
) -> None:
    Path("file").write_text("kept")
    assert run("query", *options) == code
    captured = capsys.readouterr()
    assert message in captured.err
    assert captured.out == ""
    assert {path.name for path in tmp_path.iterdir()} == {"file"}


# Values of results with isotopes, fixed atoms, Born charges, explored modes or averaged force constants.
ISOTOPES, ERRORS = {"isotopes", "fixed_atoms"}, {"fc_average", "force_spread_ev_per_angstrom"}
CALIBRATED = {"extrapolation", "extrapolation_limit"}  # of networks that are
WITH_OPTIONS = {
    "relax": ISOTOPES | {"structures_found", "lowest_structure", "lowest_frequency_thz", "verdict"},
    "forces": ISOTOPES | ERRORS,
    "phonon": ISOTOPES | ERRORS | {"nac", "max_frequency_error_thz"},
    "conductivity": ISOTOPES
    | ERRORS
    | {"nac", *(f"kappa_{name}_error_w_per_m_k" for name in ("rta", "wigner", "lbte"))},
}


@pytest.mark.slow
def test_every_kind_has_the_values_that_conditions_know(copper: Any, tmp_path: Path, monkeypatch: Any) -> None:
    """What the Makers write into summaries is what queries have names for; and the same results in Python."""
    monkeypatch.chdir(tmp_path)
    write("Cu.cif", bulk("Cu", "fcc", a=3.6, cubic=True))
    assert run("kappa", "Cu.cif", "--model", copper.checkpoint, "--output", "k", *KAPPA) == 0
    assert run("phonon", "Cu.cif", "--model", copper.checkpoint, "--output", "p", *PHONON) == 0
    for kind in ("relax", "forces", "phonon", "conductivity"):  # of the others: tests/makers/test_training_jobs.py
        documents = query(copper.store, kind)  # type: ignore[arg-type]
        assert documents, kind
        known = {value.name for value in entry_of(kind).summary} - WITH_OPTIONS[kind] - CALIBRATED
        stored = {name for document in documents for name in document.summary}
        assert {name for name in stored if not is_at_temperature(name)} == known
    (conductivity,) = query(
        copper.store, "conductivity", where="kappa_300K > 0 and kappa_wigner_300K > 0 and converged"
    )
    assert query(copper.store, "phonon", where="stable and not unstable and heat_capacity_300K > 20")

    # Every temperature that is stored can be asked for.
    output = copper.store.get(conductivity.key).output
    index = output["temperatures_kelvin"].tolist().index(700.0)
    expected = float(output["methods"]["rta"]["kappa_w_per_m_k"][index, :3].mean())
    near = f"kappa_700K > {0.999 * expected} and kappa_700K < {1.001 * expected}"
    assert query(copper.store, "conductivity", where=near) == [conductivity]
    assert query(copper.store, "conductivity", where="kappa_701K > 0") == []
    tensor = output["methods"]["wigner"]["kappa_w_per_m_k"][index]
    zz = f"kappa_wigner_zz_700K > {0.999 * tensor[2]} and kappa_wigner_zz_700K < {1.001 * tensor[2]}"
    assert query(copper.store, "conductivity", where=zz) == [conductivity]
    assert to_frame([conductivity], columns=["kappa_wigner_yz_700K"])["kappa_wigner_yz_700K"][0] == tensor[3]
    assert to_frame([conductivity], columns=["kappa_700K"])["kappa_700K"][0] == pytest.approx(expected)
    assert query(copper.store, "phonon", where="heat_capacity_500K > 20 and entropy_50K > 0")
    frame = to_frame([conductivity], columns=["formula", "kappa_300K", "kappa_rta_w_per_m_k", "seconds"])
    assert frame["kappa_300K"][0] == frame["kappa_rta_w_per_m_k"][0] == conductivity.summary["kappa_rta_w_per_m_k"]
    whole = to_frame(query(copper.store, "phonon"))
    assert {"key", "chemsys", "verdict", "max_frequency_thz"} <= set(whole.columns)
    assert to_frame([]).empty
    assert list(to_frame(query_structures(copper.store))["nsites"]) == [4]

    ((found, primitive),) = stream_atoms(copper.store, "conductivity")
    assert found == conductivity
    structure = to_pymatgen(primitive)
    assert (structure.num_sites, structure.composition.reduced_formula) == (1, "Cu")
    ((_, unit_cell),) = stream_atoms(copper.store, "forces", where="displacements_fc3 > 0")
    assert len(unit_cell) == 4
    ((_, given),) = stream_atoms(copper.store, "conductivity", which="input")
    np.testing.assert_allclose(given.cell.lengths(), 3.6)
