"""Predicted cost of members: edges from the density, evaluations from measurements, seconds from stored timings."""

from pathlib import Path

import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk, molecule
from ase.neighborlist import neighbor_list

from esen_flows.campaigns.cost import CostModel, cutoff_of, edge_count, member_cost, relax_evaluations, seconds_per_unit
from esen_flows.schemas.card import ModelReference, read_card, resolve_model
from esen_flows.schemas.property_lookup import named_protocol
from esen_flows.schemas.protocols import ConductivityProtocol, DisplacementProtocol, PhononProtocol, RelaxProtocol
from esen_flows.store.campaign_progress import Outcome, record_outcomes
from esen_flows.store.campaign_runs import begin_run
from esen_flows.store.campaigns import create_campaign, insert_members
from esen_flows.store.results import Store

SIX = CostModel(cutoff_angstrom=6.0, mirrored=False)
ROCKSALT = bulk("RbH", "rocksalt", a=6.05, cubic=True)
ZINCBLENDE = bulk("GaAs", "zincblende", a=5.65, cubic=True)
WURTZITE = bulk("ZnO", "wurtzite", a=3.25, c=5.2)


@pytest.mark.parametrize("atoms", [bulk("Si"), bulk("Cu", cubic=True), ROCKSALT, WURTZITE], ids=str)
@pytest.mark.parametrize("cutoff", [5.0, 6.0])
def test_edges_from_the_density_are_nearly_the_true_number(atoms: Atoms, cutoff: float) -> None:
    edges = len(neighbor_list("i", atoms, cutoff))
    assert edge_count(len(atoms), atoms.get_volume(), cutoff) == pytest.approx(edges, rel=0.3)


def test_a_molecule_has_at_most_all_pairs() -> None:
    cost = member_cost(molecule("CH4"), RelaxProtocol(), SIX)
    assert cost == 5 * 4 * relax_evaluations(RelaxProtocol())


def test_cutoffs_are_read_without_loading(header_only_checkpoint: Path) -> None:
    assert cutoff_of(resolve_model("esen_silicon")) == 5.0  # of the checkpoint
    assert cutoff_of(resolve_model("emt")) == 6.0  # neither card nor checkpoint says one
    assert cutoff_of(resolve_model(header_only_checkpoint)) == 6.0
    card = read_card("esen_6.5m_spice")  # whose checkpoint need not be here
    elsewhere = ModelReference("x", "aa" * 32, card.name, None, card, True, "SO3")
    assert cutoff_of(elsewhere) == card.architecture["cutoff_angstrom"]


def test_tighter_relaxations_take_more_steps() -> None:
    loose, tight = RelaxProtocol(fmax_ev_per_angstrom=0.05), RelaxProtocol(fmax_ev_per_angstrom=1e-4)
    # 50 crystals of WBM by CHGNet to 0.05 eV/A: 23 steps in the mean (benchmarks/results/relax_batch_wbm.json).
    assert relax_evaluations(loose) == pytest.approx(23 + 1, rel=0.5)
    assert relax_evaluations(tight) > 2 * relax_evaluations(loose)
    assert relax_evaluations(RelaxProtocol(fmax_ev_per_angstrom=1e-4, max_steps=10)) == 11


@pytest.mark.parametrize(
    ("atoms", "cells_fc2", "cells_fc3", "published"),
    [
        (ROCKSALT, [4, 4, 4], [2, 2, 2], 146),
        (ZINCBLENDE, [2, 2, 2], [2, 2, 2], 222),
        (WURTZITE, [5, 5, 3], [3, 3, 2], 1254),
    ],
    ids=["rocksalt", "zincblende", "wurtzite"],
)
def test_displacements_of_phonondb(atoms: Atoms, cells_fc2: list[int], cells_fc3: list[int], published: int) -> None:
    # Third-order displacements of RbH, and of zincblende and wurtzite crystals of PhononDB, as phono3py generates them.
    crystal = atoms.copy()
    crystal.info |= {"fc2_supercell": np.diag(cells_fc2), "fc3_supercell": np.diag(cells_fc3)}
    protocol = named_protocol("conductivity", "phonondb-v1", crystal.info)
    third = member_cost(crystal, protocol, SIX) - member_cost(crystal, _harmonic(protocol), SIX)
    edges = edge_count(len(crystal), crystal.get_volume(), 6.0) * np.prod(cells_fc3)
    assert published / 2 < third / edges < published * 2


def _harmonic(protocol: ConductivityProtocol) -> PhononProtocol:
    """The same protocol without third order."""
    displacement = protocol.displacement.model_copy(update={"order": 2})
    return PhononProtocol(relax=protocol.relax, displacement=displacement)


def test_mirror_images_are_evaluated_too() -> None:
    mirrored = CostModel(cutoff_angstrom=6.0, mirrored=True)
    averaged = PhononProtocol()
    assert member_cost(ROCKSALT, averaged, mirrored) == 2 * member_cost(ROCKSALT, averaged, SIX)
    plain = PhononProtocol(displacement=DisplacementProtocol(parity="as_is"))
    assert member_cost(ROCKSALT, plain, mirrored) == member_cost(ROCKSALT, plain, SIX)
    assert CostModel.of(resolve_model("esen_silicon")).mirrored
    assert not CostModel.of(resolve_model("emt")).mirrored


def test_larger_tasks_cost_more() -> None:
    """Larger supercells and third order cost more, a pair cutoff saves some of it."""
    phonon, kappa = PhononProtocol(), ConductivityProtocol()
    small = PhononProtocol(displacement=DisplacementProtocol(fc2_min_length_angstrom=8.0))
    assert member_cost(ROCKSALT, small, SIX) < member_cost(ROCKSALT, phonon, SIX) < member_cost(ROCKSALT, kappa, SIX)
    near = kappa.displacement.model_copy(update={"fc3_pair_cutoff_angstrom": 4.0})
    assert member_cost(ROCKSALT, kappa.model_copy(update={"displacement": near}), SIX) < member_cost(
        ROCKSALT, kappa, SIX
    )


@pytest.mark.mongod
def test_members_of_earlier_campaigns_tell_the_speed_of_a_device(store: Store) -> None:
    assert seconds_per_unit(store, "bb" * 32, "cpu", 6.0) is None
    create_campaign(store, {"_id": "a", "spec": {"dtype": "float32"}, "spec_sha256": "", "models": []})
    rows = [{"key": f"{number:064x}", "model_key": "bb" * 32, "cost": 1000.0 * (number + 1)} for number in range(3)]
    insert_members(store, "a", rows)
    done = [Outcome(row["key"], "finished", None, row["cost"] * 0.002) for row in rows[:2]]
    record_outcomes(store, "a", done)
    assert seconds_per_unit(store, "bb" * 32, "cpu", 6.0) is None  # on an unknown device
    begin_run(store, "a", "chunk", {"device": "cuda"})
    assert seconds_per_unit(store, "bb" * 32, "cuda", 6.0) == pytest.approx(0.002)
    assert seconds_per_unit(store, "bb" * 32, "cuda", 6.0, "float32") == pytest.approx(0.002)
    assert seconds_per_unit(store, "bb" * 32, "cuda", 6.0, "float64") is None  # another precision has another speed
    assert seconds_per_unit(store, "bb" * 32, "cpu", 6.0) is None
    assert seconds_per_unit(store, "cc" * 32, "cuda", 6.0) is None
