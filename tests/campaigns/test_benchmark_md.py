"""The benchmark of molecular dynamics: EMT's trajectories against references that are made from them."""

import gzip
import json
from pathlib import Path

import emt_campaigns
import numpy as np
import pytest
from ase.build import bulk

from esen_flows.campaigns.benchmark import campaign_metrics
from esen_flows.campaigns.plan import plan
from esen_flows.campaigns.reproduce import compute_here
from esen_flows.campaigns.submission import write_submission
from esen_flows.cli.app import main
from esen_flows.errors import InputError
from esen_flows.metrics.artefact_scores import score_artefacts
from esen_flows.metrics.md_artefact import md_means, read_md_metrics, read_reference_trajectories, write_md_metrics
from esen_flows.metrics.scores import combined_md_score
from esen_flows.metrics.trajectories import Trajectory, trajectory_metrics
from esen_flows.schemas.campaign import CampaignSpec
from esen_flows.schemas.md_output import MDOutput
from esen_flows.settings import Settings
from esen_flows.yaml_files import read_yaml

h5py = pytest.importorskip("h5py")
_NAME = "2026-06-29-dynamat-v1.0-reference-trajectories.h5"
_SHIFT = 0.003  # eV/Angstrom^3, by which the reference of the second system has another stress


def write_reference(path: Path, systems: dict[str, dict[str, np.ndarray]], kelvin: float, dt_fs: float) -> None:
    with h5py.File(path, "w") as file:
        file.attrs["schema"] = 1
        for name, arrays in systems.items():
            group = file.create_group(name)
            group.attrs.update({"dt_fs": dt_fs, "temperature_kelvin": kelvin})
            for key, values in arrays.items():
                group[key] = values


def frames(atoms: object, positions: np.ndarray, stress: np.ndarray | None = None) -> dict[str, np.ndarray]:
    found = {"positions": positions, "cell": atoms.cell.array, "pbc": atoms.pbc, "atomic_numbers": atoms.numbers}
    return found | ({} if stress is None else {"stress": stress})


@pytest.mark.mongod
def test_from_the_reference_to_the_leaderboard(
    embedded_settings: Settings, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """One system is compared with its own trajectory, the other with the same under another pressure."""
    crystals = {name: bulk(name, cubic=True) * (2, 2, 2) for name in ("Cu", "Ni")}
    starts = {name: frames(atoms, atoms.positions[None]) for name, atoms in crystals.items()}
    write_reference(tmp_path / _NAME, starts, 300.0, 10.0)
    spec = CampaignSpec.model_validate(
        {
            "name": "md", "property": "md", "models": "emt", "protocol": "dynamat-v1",
            "structures": {"published": "dynamat", "folder": str(tmp_path)},
            "settings": {"n_steps": 100, "time_step": 1.0, "traj_interval": 5},
        }
    )  # fmt: skip
    with emt_campaigns.empty_database(embedded_settings) as store:
        assert plan(store, spec, "").members["pending"] == 2
        compute_here(store, "md")
        references = {}
        for row in store.database["campaign_members"].find({"campaign": "md"}):
            document = store.get(row["key"])
            assert document is not None
            assert document.protocol["temperature"] == 300.0
            output = MDOutput.model_validate(document.output)
            assert output.stresses_ev_per_angstrom3 is not None
            stress = output.stresses_ev_per_angstrom3 + (_SHIFT * np.eye(3) if row["label"] == "Ni" else 0.0)
            references[row["label"]] = frames(crystals[row["label"]], output.positions_angstrom, stress)
        write_reference(tmp_path / _NAME, references, 300.0, 5.0)
        (found,) = campaign_metrics(store, "md")
        rows = {row["material"]: row for row in found.materials}
        assert max(rows["Cu"][name] for name in ("rdf_error", "vdos_error", "pressure_error")) < 1e-6
        assert rows["Ni"]["pressure_mae"] == pytest.approx(_SHIFT * 160.2176634, rel=1e-6)
        assert found.done["md_pressure_mae"] == pytest.approx(_SHIFT * 160.2176634 / 2, abs=1e-4)
        assert found.done["md_run_time_sec"] > 0

        (tmp_path / "submission.yaml").write_text(emt_campaigns.AUTHOR)
        submitted = write_submission(store, "md", tmp_path / "submission.yaml", tmp_path / "out")
        assert {name: submitted.metrics[name] for name in found.done} == found.done
        section = read_yaml(tmp_path / "out/models/emt/emt.yml")["metrics"]["md"]
        assert (section["n_systems"], section["status"]) == (2, "partial")
        assert section["pressure_mae"] == found.done["md_pressure_mae"]
        with pytest.raises(SystemExit) as end:
            main(["leaderboard", "score", str(tmp_path / "out"), "--json"])
        scored = json.loads(capsys.readouterr().out)
        assert (end.value.code or 0, scored) == (0, submitted.metrics)
        assert scored["CMDS"] > 0.4  # of which 0.2 is speed

        # A system without a result leaves no mean over all.
        write_reference(tmp_path / _NAME, references | {"Pd": references["Cu"]}, 300.0, 5.0)
        (partly,) = campaign_metrics(store, "md")
        assert (partly.n_done, partly.n_materials) == (2, 3)
        assert partly.with_missing_as_failed["md_vdos_error"] is None


def test_halves_of_one_trajectory_and_a_perturbed_one() -> None:
    """Oscillators of 3 to 7 THz: halves agree; a lattice 2 % wider has another g(r), here with 1 GPa more."""
    atoms = bulk("Cu", cubic=True, a=3.6) * (2, 2, 2)
    dice = np.random.default_rng(0)
    thz = np.linspace(3, 7, 96).reshape(32, 3)
    moves = 0.12 * np.sin(
        2 * np.pi * thz * (0.005 * np.arange(600))[:, None, None] + dice.uniform(0, 2 * np.pi, (32, 3))
    )
    cells = np.broadcast_to(atoms.cell.array, (600, 3, 3))
    first = dice.normal(0, 0.01, 300)
    # The second half has the pressures of the first in another order, so that their distributions are the same.
    stress = np.repeat(np.append(first, dice.permutation(first))[:, None], 3, axis=1)
    whole = Trajectory(atoms.numbers, atoms.positions + moves, cells, 5.0, stress)
    halves = [
        Trajectory(whole.numbers, whole.positions_angstrom[part], cells[part], 5.0, stress[part])
        for part in (slice(0, 300), slice(300, 600))
    ]
    same = trajectory_metrics(*halves)
    assert same["rdf_error"] < 4
    assert same["adf_error"] < 1
    assert same["vdos_error"] < 6
    assert same["pressure_error"] < 1e-9
    assert same["pressure_mae"] < 1e-9
    # Angles do not change with the size of the lattice.
    wider = Trajectory(
        whole.numbers, 1.02 * atoms.positions + moves[:300], 1.02 * cells[:300], 5.0, stress[:300] - 1 / 160.2176634
    )
    other = trajectory_metrics(wider, halves[0])
    assert other["vdos_error"] < 1e-9
    assert other["pressure_mae"] == pytest.approx(1.0)
    assert other["rdf_error"] > 5 * same["rdf_error"]
    assert other["adf_error"] < 2


def test_file_of_metrics(tmp_path: Path) -> None:
    path = tmp_path / "2026-11-29-md-metrics.csv.gz"
    metrics = dict.fromkeys(("rdf_error", "adf_error", "vdos_error", "pressure_error"), 20.0)
    rows = [
        {"system": "a", "hardware": "x", "run_time_sec": 100.0, "pressure_mae": 1.0, **metrics},
        {"system": "b", "hardware": "x", "run_time_sec": 200.0, "pressure_mae": None, **metrics, "vdos_error": 40.0},
    ]
    write_md_metrics(path, rows)
    assert gzip.decompress(path.read_bytes()).startswith(b"system,temperature_kelvin,n_atoms,run_time_sec,max_rss_gb,")
    found = score_artefacts(tmp_path, lambda name: path, lambda: []).metrics
    assert (found["md_vdos_error"], found["md_pressure_mae"], found["md_run_time_sec"]) == (30.0, 1.0, 300.0)
    assert found["CMDS"] == pytest.approx(0.3 * 0.7 + 0.2 * 0.8 + 0.3 * 0.8 + 0.2)
    assert found["CMDS"] == combined_md_score({name.removeprefix("md_"): found[name] for name in found})
    # Times on different machines cannot be added.
    assert md_means([rows[0], rows[1] | {"hardware": "y"}])["md_run_time_sec"] is None
    path.write_bytes(gzip.compress(b"system,rdf_error\na,1\n"))
    with pytest.raises(InputError, match="no metrics of trajectories"):
        read_md_metrics(path)


def test_a_reference_that_is_wrong(tmp_path: Path) -> None:
    path, atoms = tmp_path / _NAME, bulk("Cu", cubic=True)
    moving = atoms.positions + np.random.default_rng(0).normal(0, 0.3, (20, 4, 3))
    write_reference(path, {"Cu": frames(atoms, moving)}, 300.0, 1.0)
    with pytest.raises(InputError, match=r"atoms of Cu move by \d+ K and not by 300 K"):
        list(read_reference_trajectories(path))
    found = list(read_reference_trajectories(path, starts_only=True))
    assert [each.temperature_kelvin for each in found] == [300.0]
    path.write_bytes(b"no HDF5")
    with pytest.raises(InputError, match="no trajectories can be read"):
        list(read_reference_trajectories(path))
