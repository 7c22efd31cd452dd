"""Batches of CHGNet and SevenNet, with stand-ins for the packages: each structure gets its own results."""

import sys
from collections.abc import Sequence
from types import ModuleType, SimpleNamespace

import numpy as np
import pytest
import torch
from ase import Atoms
from ase.build import bulk, fcc111, molecule
from ase.units import GPa
from pair_force_field import DECLARATION, PairForceField
from pymatgen.io.ase import AseAtomsAdaptor

from esen_flows.data.batch_state import BatchState
from esen_flows.errors import EvaluationError
from esen_flows.forcefield.ase_calculator import ForceFieldCalculator
from esen_flows.forcefield.contract import Evaluation, ForceField
from esen_flows.forcefield.third_party import chgnet, sevennet

PAIRS = PairForceField()


class SevenNetStandIn(ForceFieldCalculator):
    """A calculator whose network takes several graphs, and gives results of a pair potential in SevenNet's layout."""

    cutoff, device, batch = 4.0, "cpu", None

    def __init__(self) -> None:
        super().__init__(PAIRS)
        self.model, self.sizes, self.spoiled = self, [], None

    def set_is_batch_data(self, flag: bool) -> None:
        self.takes_batches = flag

    def __call__(self, graphs: Sequence[Atoms]) -> dict[str, torch.Tensor]:
        assert self.takes_batches
        assert len(self.batch) == len(graphs)
        self.sizes.append([len(atoms) for atoms in graphs])
        found = PAIRS.evaluate(graphs)
        stress = [-one.stress[[0, 1, 2, 0, 1, 2], [0, 1, 2, 1, 2, 0]] for one in found]
        energy = np.array([one.energy for one in found])
        if self.spoiled is not None:
            energy[self.spoiled] = np.nan
        per_atom = np.repeat(energy / [len(atoms) for atoms in graphs], [len(atoms) for atoms in graphs])
        values = (energy, np.concatenate([one.forces for one in found]), per_atom[:, None], np.array(stress))
        names = ("inferred_total_energy", "inferred_force", "atomic_energy", "inferred_stress")
        return {name: torch.from_numpy(value) for name, value in zip(names, values, strict=True)}


class ChgnetStandIn:
    """A network with the functions of CHGNet that are used; like CHGNet it divides by a signed volume."""

    atom_graph_cutoff = 4.0

    def __init__(self) -> None:
        self.graph_converter, self.sizes, self.spoiled = self, [], None

    def set_isolated_atom_response(self, response: str) -> None:
        assert response == "ignore"

    def __call__(self, structure: object) -> SimpleNamespace:
        atoms = AseAtomsAdaptor.get_atoms(structure, msonable=False)
        return SimpleNamespace(atoms=atoms, to=lambda device: atoms)

    def parameters(self) -> list[torch.Tensor]:
        return iter([torch.zeros(1)])

    def predict_graph(self, graphs: Sequence[Atoms], task: str, batch_size: int) -> object:
        assert (task, batch_size) == ("efs", len(graphs))
        self.sizes.append([len(atoms) for atoms in graphs])
        found = [
            {"e": one.energy / len(atoms), "f": one.forces, "s": one.stress * atoms.cell.handedness / GPa}
            for atoms, one in zip(graphs, PAIRS.evaluate(graphs), strict=True)
        ]
        if self.spoiled is not None:
            found[self.spoiled]["e"] = np.nan
        return found if len(found) > 1 else found[0]


@pytest.fixture
def seven(monkeypatch: pytest.MonkeyPatch) -> tuple[ForceField, SevenNetStandIn]:
    data = SimpleNamespace(from_data_list=lambda graphs: SimpleNamespace(to=lambda device: graphs))
    for name, content in {
        "sevenn": {}, "sevenn.train": {}, "torch_geometric": {}, "torch_geometric.data": {"Batch": data},
        "sevenn.atom_graph_data": {"AtomGraphData": SimpleNamespace(from_numpy_dict=lambda graph: graph)},
        "sevenn.train.dataload": {"unlabeled_atoms_to_graph": lambda atoms, cutoff: atoms},
    }.items():  # fmt: skip
        module = ModuleType(name)
        module.__dict__.update(content)
        monkeypatch.setitem(sys.modules, name, module)
    calculator = SevenNetStandIn()
    return sevennet.SevenNetForceField(calculator, key="k", label="seven", declaration=DECLARATION), calculator


@pytest.fixture
def charge() -> tuple[ForceField, ChgnetStandIn]:
    network = ChgnetStandIn()
    return chgnet.ChgnetForceField(network, "0.3.0", "0.4.0", "float32"), network


def crystals() -> list[Atoms]:
    left_handed = bulk("Cu", cubic=True)
    left_handed.set_cell(left_handed.cell.array @ np.diag([1, -1, 1]), scale_atoms=True)
    found = [bulk("Cu") * (1, 1, 2), left_handed, bulk("Au"), bulk("Cu", cubic=True) * (1, 1, 2), bulk("Ag")]
    for seed, atoms in enumerate(found):
        atoms.rattle(0.1, seed=seed)
    found[3].positions += [20.0, 0.0, -7.0]  # outside of its cell
    return found


def assert_alike(found: Sequence[Evaluation], structures: Sequence[Atoms]) -> None:
    for one, atoms in zip(found, structures, strict=True):
        (alone,) = PairForceField().evaluate([atoms])
        assert one.energy == pytest.approx(alone.energy, abs=1e-12)
        np.testing.assert_allclose(one.forces, alone.forces, rtol=0, atol=1e-12)
        np.testing.assert_allclose(one.stress, alone.stress, rtol=0, atol=1e-12)


@pytest.mark.parametrize(("package", "module"), [("seven", sevennet), ("charge", chgnet)])
def test_results_of_a_batch_are_those_of_its_structures(package, module, request, monkeypatch) -> None:
    force_field, stand_in = request.getfixturevalue(package)
    monkeypatch.setattr(module, "ATOMS_PER_BATCH", 10)
    structures = crystals()
    if package == "seven":
        structures += [molecule("H2O"), fcc111("Cu", (1, 1, 3), vacuum=5, periodic=False)]
    assert_alike(force_field.evaluate(structures), structures)
    sizes = [size for size in stand_in.sizes if len(size) > 1]
    assert sizes[:2] == [[2, 4, 1], [8, 1]]
    assert max(sum(size) for size in stand_in.sizes) <= 10
    assert force_field.force_evaluations == len(structures)
    state = BatchState.of(structures)
    moved = state.moved(state.positions + 0.05 * torch.sin(state.positions))
    found = force_field.evaluate_batch(moved)
    assert_alike(
        [
            Evaluation(float(energy), forces.numpy(), stress.numpy())
            for energy, forces, stress in zip(
                found.energy, found.forces.split(state.atoms.counts.tolist()), found.stress, strict=True
            )
        ],
        moved.structures(),
    )


@pytest.mark.parametrize(("package", "module"), [("seven", sevennet), ("charge", chgnet)])
def test_a_result_that_is_not_finite_names_its_structure(package, module, request, monkeypatch) -> None:
    force_field, stand_in = request.getfixturevalue(package)
    stand_in.spoiled = 1
    with pytest.raises(EvaluationError, match="structure 1 "):
        force_field.evaluate(crystals())
