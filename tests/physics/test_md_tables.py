"""Molecular dynamics on neighbour tables that stay with the structures: the bits of fresh tables, and of restarts."""

import numpy as np
import pytest
import torch
from ase import Atoms
from ase.build import bulk, molecule
from small_force_field import small_checkpoint
from test_md import Kept

from esen_flows.data.batch_state import BatchState
from esen_flows.data.neighbor_tables import NeighborTables
from esen_flows.errors import InsufficientMemoryError, StructureError
from esen_flows.forcefield.checkpoint import Checkpoint
from esen_flows.forcefield.families import make_network
from esen_flows.forcefield.network import NetworkForceField
from esen_flows.network.edge_transformer.config import EdgeTransformerConfig
from esen_flows.physics.md.dynamics import molecular_dynamics
from esen_flows.physics.md.forces import DynamicsForces, MovingBatch
from esen_flows.schemas.md import MDProtocol

TWO_HEADS = EdgeTransformerConfig(
    width=8, num_heads=2, cutoff_angstrom=4.0, max_num_elements=20, direct_forces=True, direct_stress=True,
    both_heads=True,
)  # fmt: skip


@pytest.fixture(scope="module")
def two_heads() -> NetworkForceField:
    torch.manual_seed(0)
    return NetworkForceField(Checkpoint(make_network(TWO_HEADS), 1.7, {}, (1, 6, 8, 14), model_key="k" * 64))


@pytest.fixture
def searches(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The number of structures of each neighbour search."""
    made: list[int] = []
    search = NeighborTables.search

    def counted(templates, *arguments, **options):  # type: ignore[no-untyped-def]
        made.append(len(templates))
        return search(templates, *arguments, **options)

    monkeypatch.setattr(NeighborTables, "search", counted)
    return made


def structures() -> list[Atoms]:
    """A crystal whose atoms are partly outside the cell, a small cell, a slab and a molecule."""
    crystal = bulk("Si", cubic=True)
    crystal.positions[[1, 4]] += [[5.43, 0, 0], [-5.43, 5.43, 0]]
    slab = Atoms("Si2", cell=[3.8, 3.8, 20], pbc=[True, True, False], positions=[[0, 0, 5], [1.9, 1.9, 6.4]])
    return [crystal, bulk("Si"), slab, molecule("CH3OH")]


@pytest.mark.parametrize("forces", ["conservative", "direct", "mts(2)"])
def test_carried_tables_give_the_bits_of_fresh_ones(
    forces: str, two_heads: NetworkForceField, searches: list[int]
) -> None:
    """At every step, where a structure leaves and another one enters too, and with both kinds of forces in one step."""
    dynamics = DynamicsForces.of(two_heads, MDProtocol(parity="as_is", forces=forces))
    carried, random, again = MovingBatch(dynamics), np.random.default_rng(0), 0
    atoms = dict(enumerate(structures()))
    for step in range(9):
        if step == 5:
            atoms[9] = atoms.pop(1)
        moving = {number: (one, step + (number == 3)) for number, one in atoms.items()}
        before = len(searches)
        found = carried.at(moving)
        again += sum(searches[before:])
        fresh = MovingBatch(dynamics).at(moving)
        for number in moving:
            assert found[number].energy == fresh[number].energy
            assert np.array_equal(found[number].forces, fresh[number].forces)
            assert np.array_equal(found[number].stress, fresh[number].stress, equal_nan=True)
        for one in atoms.values():
            one.positions += 0.04 * random.normal(size=(len(one), 3)) + 0.1
    assert 5 < again < 15  # the start, the one that entered, and skins that were used up, of 36


@pytest.mark.parametrize("forces", ["conservative", "mts(4)"])
def test_a_killed_run_continues_to_the_bit_with_other_tables(
    forces: str, two_heads: NetworkForceField, searches: list[int]
) -> None:
    protocol = MDProtocol(
        ensemble="nve", n_steps=24, time_step=2.0, temperature=3000.0, traj_interval=4, parity="as_is", forces=forces,
        mb_velocity_seed=1,
    )  # fmt: skip
    crystal = structures()[0]
    whole, kept = molecular_dynamics(crystal, two_heads, protocol), Kept(13)
    assert len(searches) < 8
    with pytest.raises(KeyboardInterrupt):
        molecular_dynamics(crystal, two_heads, protocol, checkpoint=kept)
    kept.most = 1000
    resumed = molecular_dynamics(crystal, two_heads, protocol, checkpoint=kept)
    for name in ("positions_angstrom", "potential_energies_ev", "stresses_ev_per_angstrom3"):
        assert np.array_equal(getattr(whole, name), getattr(resumed, name)), name
    assert np.ptp(whole.potential_energies_ev) > 0.01


def test_a_structure_that_fails_costs_the_others_nothing(two_heads: NetworkForceField) -> None:
    dynamics = DynamicsForces.of(two_heads, MDProtocol(parity="as_is", forces="mts(2)"))
    atoms, batch = dict(enumerate(structures())), None
    atoms[0].positions[1] = atoms[0].positions[0]  # after its start
    flat = Atoms("Si", cell=[0, 3, 3], pbc=True)
    batch = MovingBatch(dynamics)
    found = batch.at({number: (one, number) for number, one in atoms.items()} | {7: (flat, 0)})
    assert isinstance(found[0], StructureError)
    assert isinstance(found[7], StructureError)
    for number in (1, 2, 3):
        alone = MovingBatch(dynamics).at({number: (atoms[number], number)})[number]
        np.testing.assert_allclose(found[number].forces, alone.forces, rtol=0, atol=1e-12)
    assert set(batch.at({number: (atoms[number], 2) for number in (1, 3)})) == {1, 3}


def test_structures_enter_in_parts_where_their_neighbors_do_not_fit_together(
    two_heads: NetworkForceField, monkeypatch: pytest.MonkeyPatch
) -> None:
    dynamics = DynamicsForces.of(two_heads, MDProtocol(parity="as_is"))
    atoms = {number: (one, 0) for number, one in enumerate(structures())}
    together, find, tried = MovingBatch(dynamics).at(atoms), dynamics.fast.find_neighbors, []

    def find_one(state: BatchState) -> None:
        tried.append(state.n_systems)
        if state.tables is None and (state.n_systems > 1 or state.atoms.total == 2):
            raise InsufficientMemoryError("too many neighbours")
        find(state)

    monkeypatch.setattr(dynamics.fast, "find_neighbors", find_one)
    found = MovingBatch(dynamics).at(atoms)
    assert tried[:7] == [4, 2, 1, 1, 2, 1, 1]
    assert [isinstance(found[number], InsufficientMemoryError) for number in atoms] == [False, True, True, False]
    for number in (0, 3):
        np.testing.assert_allclose(found[number].forces, together[number].forces, rtol=0, atol=1e-12)


def test_charges_stay_with_structures_in_motion() -> None:
    """A network that reads charge and spin gets them from batches as from lists."""
    charged = NetworkForceField(small_checkpoint(charge_spin_embedding="rand_emb"))
    atoms = {number: molecule("H2O") for number in range(3)}
    for number, one in atoms.items():
        one.info["charge"] = number - 1
    batch = MovingBatch(DynamicsForces.of(charged, MDProtocol(parity="as_is")))
    batch.at({number: (one, 0) for number, one in atoms.items()})
    found = batch.at({number: (atoms[number], 1) for number in (2, 0)})
    for number, result in found.items():
        (alone,) = charged.evaluate([atoms[number]])
        assert result.energy == pytest.approx(alone.energy, abs=1e-11)
    assert abs(found[2].energy - found[0].energy) > 1e-4
