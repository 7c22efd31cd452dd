from collections.abc import Sequence

import numpy as np
import pytest
import spglib
import torch
from alloys import copper_gold
from ase import Atoms
from ase.build import bulk, molecule
from ase.calculators.emt import EMT
from ase.filters import FrechetCellFilter
from ase.optimize import FIRE, LBFGS
from scipy.spatial.transform import Rotation

from esen_flows.data.batch_state import BatchState
from esen_flows.errors import (
    EvaluationError,
    ExplosionError,
    InsufficientMemoryError,
    NotConvergedError,
    StructureError,
)
from esen_flows.forcefield.contract import BatchEvaluation, Evaluation, ForceField
from esen_flows.physics.relax import relax, relax_many
from esen_flows.physics.relax_batch import evaluate_apart
from esen_flows.schemas.documents import RelaxOutput
from esen_flows.schemas.protocols import RelaxProtocol


def crystals() -> list[Atoms]:
    """Rattled and strained cells of one to eight atoms, of different lattices."""
    made = []
    for seed, (element, repeat) in enumerate(
        (("Cu", (2, 1, 1)), ("Al", (2, 2, 1)), ("Ni", (1, 1, 1)), ("Au", (2, 2, 2)))
    ):
        atoms = bulk(element, cubic=element == "Ni").repeat(repeat)
        atoms.rattle(0.05, seed=seed)
        strain = 0.03 * np.random.default_rng(seed).normal(size=(3, 3))
        atoms.set_cell(atoms.cell.array @ (np.eye(3) + strain), scale_atoms=True)
        made.append(atoms)
    return made


def trajectory_of_ase(atoms: Atoms, protocol: RelaxProtocol) -> list[tuple[np.ndarray, np.ndarray, float]]:
    """Positions, cell and energy of every step of ASE's own optimiser."""
    work, steps = atoms.copy(), []
    work.calc = EMT()
    target = work
    if protocol.relax_cell:
        freedom = {"hydrostatic_strain": protocol.hydrostatic, "constant_volume": protocol.constant_volume}
        target = FrechetCellFilter(work, mask=list(protocol.cell_mask), **freedom)
    optimizer = {"fire": FIRE, "lbfgs": LBFGS}[protocol.optimizer](target, logfile=None)
    optimizer.attach(lambda: steps.append((work.positions.copy(), work.cell.array.copy(), work.get_potential_energy())))
    optimizer.run(fmax=protocol.fmax_ev_per_angstrom, steps=protocol.max_steps)
    return steps


@pytest.mark.parametrize("optimizer", ["fire", "lbfgs"])
@pytest.mark.parametrize(
    "cell",
    [
        {},
        {"cell_mask": (True, True, True, False, False, False)},
        {"hydrostatic": True},
        {"constant_volume": True},
        {"relax_cell": False},
    ],
    ids=lambda fields: next(iter(fields), "all"),
)
def test_every_step_is_that_of_ase(metals, optimizer: str, cell: dict) -> None:
    """ASE 3.29, FIRE and LBFGS with FrechetCellFilter: whole trajectories."""
    protocol = RelaxProtocol(optimizer=optimizer, max_steps=25, keep_unconverged=True, trajectory=True, **cell)
    starts = crystals()
    outcomes = dict(relax_many(starts, metals, protocol, atoms_at_once=13))
    for index, atoms in enumerate(starts):
        output, expected = outcomes[index], trajectory_of_ase(atoms, protocol)
        assert isinstance(output, RelaxOutput)
        assert output.n_steps == len(expected) - 1 > 5
        assert output.positions_path_angstrom == pytest.approx(np.array([step[0] for step in expected]), abs=1e-7)
        assert output.cells_path_angstrom == pytest.approx(np.array([step[1] for step in expected]), abs=1e-7)
        assert output.energies_ev == pytest.approx(np.array([step[2] for step in expected]), abs=1e-7)
    changed = [not np.allclose(outcomes[i].structure.cell_angstrom, a.cell.array) for i, a in enumerate(starts)]
    assert all(changed) == protocol.relax_cell


@pytest.mark.parametrize("optimizer", ["fire", "lbfgs"])
def test_members_do_not_influence_one_another(metals, optimizer: str) -> None:
    protocol = RelaxProtocol(optimizer=optimizer, fmax_ev_per_angstrom=1e-2)
    starts = crystals()
    alone = [relax(atoms, metals, protocol) for atoms in starts]
    assert len({output.n_steps for output in alone}) >= 3  # they leave the batch at different steps
    for at_once in (1, 9):
        for index, output in relax_many(starts, metals, protocol, atoms_at_once=at_once):
            assert output.n_steps == alone[index].n_steps
            assert output.energy_ev == pytest.approx(alone[index].energy_ev, abs=1e-9)


def test_quasi_newton_finds_the_same_minimum_in_fewer_steps(metals) -> None:
    start = crystals()[0]
    protocols = [RelaxProtocol(optimizer=name, fmax_ev_per_angstrom=1e-4) for name in ("fire", "lbfgs")]
    outputs = [relax(start, metals, protocol) for protocol in protocols]
    assert outputs[1].energy_ev == pytest.approx(outputs[0].energy_ev, abs=1e-6)
    assert outputs[1].n_steps < 0.7 * outputs[0].n_steps


def test_structures_enter_only_when_there_is_room(metals) -> None:
    taken: list[int] = []

    def stream():
        for number, atoms in enumerate([bulk("Cu", a=3.7)] * 6):
            taken.append(number)
            yield atoms

    outcomes = relax_many(stream(), metals, RelaxProtocol(), atoms_at_once=2)
    next(outcomes)
    assert len(taken) <= 4  # two in the batch, one waiting, one that took the place of the first
    assert len(list(outcomes)) == 5


class Failing(ForceField):
    """A force field that fails for every batch with gold, and compresses nickel without end."""

    key = label = "failing"

    def __init__(self, inner: ForceField) -> None:
        self.inner, self.declaration = inner, inner.declaration

    def evaluate(self, structures: Sequence[Atoms]) -> list[Evaluation]:
        if any("Au" in atoms.symbols for atoms in structures):
            raise EvaluationError("NaN of gold")
        self.force_evaluations += len(structures)
        results = []
        for atoms, result in zip(structures, self.inner.evaluate(structures), strict=True):
            stress = 50.0 / atoms.get_volume() * np.eye(3) if "Ni" in atoms.symbols else result.stress
            results.append(Evaluation(result.energy, result.forces, stress))
        return results


def test_failures_do_not_affect_other_structures(metals) -> None:
    """One fails in the force field, one explodes, one has no atoms, one is a molecule; the others are as if alone."""
    copper, _, nickel, gold = crystals()
    starts = [copper, gold, Atoms(), nickel, molecule("CO"), bulk("Cu", a=3.7)]
    outcomes = dict(relax_many(starts, Failing(metals), RelaxProtocol()))
    types = [type(outcomes[index]) for index in range(6)]
    assert types == [RelaxOutput, EvaluationError, StructureError, ExplosionError, RelaxOutput, RelaxOutput]
    assert "Ni4 has 0.0" in str(outcomes[3])
    for index in (0, 4, 5):
        assert outcomes[index].energy_ev == pytest.approx(relax(starts[index], metals, RelaxProtocol()).energy_ev)


def test_structures_enter_in_parts_where_their_neighbors_do_not_fit_together(metals, monkeypatch) -> None:
    expected = [relax(atoms, metals, RelaxProtocol()).energy_ev for atoms in crystals()]
    tried: list[tuple[int, int]] = []

    def find(state: BatchState) -> None:
        tried.append((state.n_systems, state.atoms.total))
        if state.n_systems > 1 or state.atoms.total == largest:
            raise InsufficientMemoryError("too many neighbours")

    monkeypatch.setattr(metals, "find_neighbors", find)
    largest = 0
    outcomes = dict(relax_many(crystals(), metals, RelaxProtocol()))
    assert [outcomes[index].energy_ev for index in range(4)] == pytest.approx(expected, abs=1e-9)
    assert [number for number, _ in tried] == [4, 2, 1, 1, 2, 1, 1]
    largest = len(crystals()[3])
    outcomes = dict(relax_many(crystals(), metals, RelaxProtocol()))
    assert isinstance(outcomes[3], InsufficientMemoryError)
    assert [outcomes[index].energy_ev for index in range(3)] == pytest.approx(expected[:3], abs=1e-9)


def test_a_force_field_without_stress_cannot_relax_cells(metals) -> None:
    class Stressless(Failing):
        def evaluate(self, structures: Sequence[Atoms]) -> list[Evaluation]:
            found = self.inner.evaluate(structures)
            return [Evaluation(each.energy, each.forces, np.full((3, 3), np.nan)) for each in found]

    start = crystals()[0]
    with pytest.raises(EvaluationError, match="no stress to relax a cell by; set relax_cell=false"):
        relax(start, Stressless(metals), RelaxProtocol())
    assert relax(start, Stressless(metals), RelaxProtocol(relax_cell=False)).converged


def ordered_alloy(turned: bool = True) -> Atoms:
    """L1_0 CuAu (space group 123) as a supercell of two, slightly off its symmetry, in a general orientation."""
    atoms = copper_gold(2.8, 3.9).repeat((1, 1, 2))
    atoms.rattle(1e-3, seed=4)
    if turned:
        atoms.set_cell(atoms.cell.array @ Rotation.random(random_state=5).as_matrix().T, scale_atoms=True)
    return atoms


def group(atoms: Atoms) -> int:
    return spglib.get_symmetry_dataset((atoms.cell.array, atoms.get_scaled_positions(), atoms.numbers), 1e-5).number


@pytest.mark.parametrize("optimizer", ["fire", "lbfgs"])
def test_locked_symmetry_is_exact_in_any_orientation(metals, optimizer: str) -> None:
    fields = {"fmax_ev_per_angstrom": 1e-5, "symprec_angstrom": 0.02, "optimizer": optimizer}
    locked = relax(ordered_alloy(), metals, RelaxProtocol(symmetry="lock", **fields))
    fixed = relax(ordered_alloy(turned=False), metals, RelaxProtocol(symmetry="fix", **fields))
    assert group(locked.structure.to_atoms()) == group(fixed.structure.to_atoms()) == 123
    assert locked.energy_ev == pytest.approx(fixed.energy_ev, abs=1e-7)
    assert locked.volume_per_atom_angstrom3 == pytest.approx(fixed.volume_per_atom_angstrom3, rel=1e-4)
    assert locked.n_steps > 5
    free = relax(ordered_alloy(), metals, RelaxProtocol(fmax_ev_per_angstrom=1e-2))
    assert group(free.structure.to_atoms()) != 123


@pytest.mark.parametrize("symmetry", ["lock", "fix"])
def test_a_mask_that_breaks_the_symmetry_is_refused(metals, symmetry: str) -> None:
    # FixSymmetry would undo at every step what such a mask leaves free, and never converge.
    tetragonal = RelaxProtocol(
        symmetry=symmetry, symprec_angstrom=0.02, cell_mask=(True, True, True, False, False, False)
    )
    assert relax(ordered_alloy(turned=False), metals, tetragonal).converged
    calls = metals.force_evaluations
    with pytest.raises(StructureError, match="the space group 123 of Au2Cu2 couples in this orientation"):
        relax(ordered_alloy(), metals, tetragonal)
    assert metals.force_evaluations == calls


class Uniaxial(Failing):
    """EMT with an additional stress along one axis, which the free stage follows and the locked one must not."""

    def evaluate(self, structures: Sequence[Atoms]) -> list[Evaluation]:
        pull = np.diag([0.02, -0.01, -0.01])
        return [Evaluation(e.energy, e.forces, e.stress + pull) for e in self.inner.evaluate(structures)]


def test_a_free_stage_that_breaks_the_symmetry_is_discarded(metals) -> None:
    start = bulk("Cu", cubic=True, a=3.65)
    two_stages = RelaxProtocol(symmetry="lock", then_free=True, fmax_ev_per_angstrom=1e-4)
    unbroken = relax(start, metals, two_stages)
    assert (unbroken.redirected, unbroken.space_group_final) == (False, 225)
    broken = relax(start, Uniaxial(metals), two_stages)
    assert (broken.redirected, broken.space_group_final) == (True, 225)
    assert relax(start, Uniaxial(metals), RelaxProtocol()).space_group_final == 139  # tetragonal


def test_unconverged_structures_are_kept_on_request(metals) -> None:
    start = crystals()[0]
    with pytest.raises(NotConvergedError, match="stopped after 3 steps"):
        relax(start, metals, RelaxProtocol(max_steps=3))
    output = relax(start, metals, RelaxProtocol(max_steps=3, keep_unconverged=True))
    assert not output.converged
    assert output.n_steps == 3
    assert output.fmax_ev_per_angstrom > 1e-3


@pytest.mark.parametrize("symmetry", ["free", "fix"])
def test_trajectories_on_request(metals, symmetry: str) -> None:
    fields = {"symmetry": symmetry, "symprec_angstrom": 0.02}
    output = relax(ordered_alloy(turned=False), metals, RelaxProtocol(trajectory=True, **fields))
    assert output.positions_path_angstrom.shape == (output.n_steps + 1, 4, 3)
    assert output.cells_path_angstrom[-1] == pytest.approx(output.structure.cell_angstrom)
    assert output.positions_path_angstrom[-1] == pytest.approx(output.structure.positions_angstrom)
    assert relax(ordered_alloy(turned=False), metals, RelaxProtocol(**fields)).positions_path_angstrom is None


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"hydrostatic": True, "constant_volume": True}, "leave the cell as it is; set relax_cell=false"),
        ({"then_free": True}, "set symmetry to fix or lock"),
    ],
)
def test_contradictions_are_refused(fields: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        RelaxProtocol(**fields)


def test_a_structure_that_fails_leaves_the_spreads_of_the_others():
    def evaluate(state: BatchState) -> BatchEvaluation:
        if (state.numbers == 79).any():
            raise EvaluationError("no gold")
        ones = torch.ones_like
        return BatchEvaluation(state.cells.new_ones(state.n_systems), ones(state.positions), ones(state.cells),
                               spread=state.cells.new_ones(state.n_systems, 3))  # fmt: skip

    result, errors = evaluate_apart(evaluate, BatchState.of([bulk("Cu"), bulk("Au"), bulk("Ni")]))
    assert list(errors) == [1]
    assert result.spread is not None
    assert result.spread.tolist() == [[1.0] * 3, [0.0] * 3, [1.0] * 3]
