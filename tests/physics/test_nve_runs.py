"""Runs at constant energy of all systems of a protocol."""

import zipfile
from pathlib import Path

import numpy as np
import pytest
from ase.build import bulk
from ase.data import atomic_numbers
from ase.io import write
from pair_force_field import PairForceField

from esen_flows.errors import InputError
from esen_flows.forcefield.third_party.emt import emt
from esen_flows.physics.conservation import nve_systems as systems
from esen_flows.physics.conservation.nve_runs import nve_runs
from esen_flows.physics.conservation.nve_systems import nve_systems
from esen_flows.schemas.nve import NveProtocol


def test_own_crystals_run_with_two_steps_and_their_energy_stays(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(systems, "_CRYSTALS", 2)
    seen: list[tuple[int, int]] = []
    protocol = NveProtocol(duration_ps=0.2, half_step_ps=0.1, seeds=(3,))
    output = nve_runs(emt(), protocol, progress=lambda done, total, words: seen.append((done, total)))
    names = [run.system for run in output.runs]
    assert names == 2 * names[: len(names) // 2]  # the same systems with half the time step
    assert seen[-1] == (sum(round(1000 * run.duration_ps / run.time_step_fs) for run in output.runs),) * 2
    assert {(run.time_step_fs, run.seed) for run in output.runs} == {(2.0, 3), (1.0, 3)}
    assert output.failures == 0
    for run in output.runs:
        assert run.n_atoms >= 8
        assert run.drift is not None
        assert len(run.total_energies_ev) == len(run.times_ps)
    assert output.largest_slope_ev_per_atom_ps == pytest.approx(
        max(abs(run.drift.slope_mev_per_atom_ps) for run in output.runs if run.time_step_fs == 2.0 and run.drift) / 1000
    )
    assert set(output.fairchem_mev_per_atom_ps) == {"full"}


def test_a_run_that_explodes_is_counted_and_hides_no_other(monkeypatch: pytest.MonkeyPatch) -> None:
    from esen_flows.physics.md import dynamics

    monkeypatch.setattr(dynamics, "EXPLOSION_KELVIN", -250.0)  # of 600 K: soon after the start half of it is left
    output = nve_runs(emt(), NveProtocol(duration_ps=0.1, half_step_ps=0.0))
    assert output.failures > 0
    assert output.lambench_score > 0
    assert all("ExplosionError" in run.failure for run in output.runs if run.failure)


def test_named_molecules_run_as_those_of_md22_and_named_crystals_as_those_of_full() -> None:
    protocol = NveProtocol.model_validate({"systems": ["CO2", "W"], "duration_ps": 0.1, "half_step_ps": 0.05})
    output = nve_runs(PairForceField(), protocol)
    assert [(run.system, run.benchmark, run.n_atoms) for run in output.runs] == 2 * [
        ("CO2", "molecules", 3), ("W", "full", 8),
    ]  # fmt: skip
    assert [(run.temperature_kelvin, run.time_step_fs) for run in output.runs] == [
        (500.0, 1.0), (600.0, 2.0), (500.0, 0.5), (600.0, 1.0),
    ]  # fmt: skip
    assert "G2" in output.runs[0].start
    assert set(output.fairchem_mev_per_atom_ps) == {"molecules", "full"}
    for run in output.runs:
        assert run.drift is not None
        assert np.ptp(run.total_energies_ev) < 0.05 * np.ptp(run.kinetic_energies_ev)  # and it moves
    assert NveProtocol.model_validate({"systems": "H2O"}).systems == ("H2O",)
    assert NveProtocol.model_validate({"systems": "published"}).systems == "published"


def test_names_that_cannot_run_are_refused() -> None:
    assert nve_systems(("NaCl",), None)[0].atoms.pbc.all()  # there is a molecule of this name too
    with pytest.raises(InputError, match=r"does not know all elements of CH4, H2O; leave it out of nve.systems"):
        nve_systems(("Si", "CH4", "H2O"), {14, 8})
    for name in ("H2OO", "H"):  # a lone atom is no molecule
        with pytest.raises(InputError, match=f"no audit system '{name}'.*such as H2O or CH4"):
            nve_systems((name,), None)


def test_published_systems_are_those_of_the_paper(tmp_path: Path) -> None:
    generated = {system.name: system for system in nve_systems("published", None)}
    assert len(generated) == 27
    assert generated["Cu"].protocol.temperature_kelvin(generated["Cu"].atoms.numbers) == 1.25 * 1358
    assert generated["Cu"].protocol.time_step == 5.0
    assert all("not on this machine" in system.start for system in generated.values())
    assert all(len(system.atoms) >= 32 for system in generated.values())
    # Published frames where they were pulled.
    (tmp_path / "tm23").mkdir()
    (tmp_path / "md22").mkdir()
    frame = bulk("Cu", cubic=True) * 2
    write(tmp_path / "Cu.xyz", frame, format="extxyz")
    with zipfile.ZipFile(tmp_path / "tm23" / "benchmarking_master_collection-1.zip", "w") as archive:
        archive.write(tmp_path / "Cu.xyz", "benchmarking_master_collection/Cu_melt_nequip_test.xyz")
    np.savez(tmp_path / "md22" / "md22_buckyball-catcher.npz", z=np.array([6, 6]), R=np.eye(3)[None, :2])
    found = {system.name: system for system in nve_systems("published", {29, 6}, root=tmp_path)}
    assert set(found) == {"Cu", "buckyball-catcher"}
    assert found["Cu"].start == "first frame of TM23's molten test set"
    assert found["buckyball-catcher"].protocol.temperature == 400.0
    with pytest.raises(InputError, match="none of the published systems"):
        nve_systems("published", {atomic_numbers["Si"]})


@pytest.mark.shared
def test_molecules_of_spice_stand_in(shared_dir: Path) -> None:
    found = nve_systems("published", {1, 6, 7, 8, 16}, root=shared_dir / "data")
    assert len(found) == 7
    assert found[0].atoms.get_chemical_formula() == "H60O30"
    assert all("SPICE" in system.start for system in found)
    for system in found:  # the SMILES are in the order of the coordinates: bonds to hydrogen have their length
        distances = system.atoms.get_all_distances() + 9 * np.eye(len(system.atoms))
        bonds = distances[system.atoms.numbers == 1].min(axis=1)  # O-H to S-H
        assert (bonds > 0.9).all()
        assert (bonds < 1.4).all()
