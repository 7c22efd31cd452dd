import numpy as np
import pytest
from alloys import copper_gold
from ase import Atoms
from ase.build import bulk, fcc111, molecule

from esen_flows.errors import NotConvergedError, StructureError
from esen_flows.forcefield.load import load_force_field
from esen_flows.physics.relax import relax
from esen_flows.schemas.protocols import ConductivityProtocol, PhononProtocol, RelaxProtocol

NEAREST_ANGSTROM = 2 ** (1 / 6) * 3.40  # minimum of the Lennard-Jones pair that is the only one within the cutoff


def test_argon_relaxes_to_the_minimum_of_its_pair(argon_force_field) -> None:
    start = bulk("Ar", "fcc", a=5.2, cubic=True)
    reference = start.copy()
    output = relax(start, argon_force_field, RelaxProtocol(fmax_ev_per_angstrom=1e-6))
    assert np.cbrt(4 * output.volume_per_atom_angstrom3) == pytest.approx(np.sqrt(2) * NEAREST_ANGSTROM, rel=1e-5)
    assert np.abs(output.stress_ev_per_angstrom3).max() < 1e-7
    assert start == reference
    # ASE shifts the pair energy to zero at the cutoff: six pairs an atom, each epsilon deep less that shift.
    shift = 4 * 0.0104 * ((3.4 / (1.2 * NEAREST_ANGSTROM)) ** 12 - (3.4 / (1.2 * NEAREST_ANGSTROM)) ** 6)
    assert output.energy_per_atom_ev == pytest.approx(6 * (-0.0104 - shift), rel=1e-6)


def test_energies_and_progress_cover_every_step(argon_force_field) -> None:
    seen: list[tuple[int, float]] = []
    protocol = RelaxProtocol(fmax_ev_per_angstrom=1e-4)
    output = relax(bulk("Ar", "fcc", a=5.4), argon_force_field, protocol, lambda step, fmax: seen.append((step, fmax)))
    assert [step for step, _ in seen] == list(range(output.n_steps + 1))
    assert len(output.energies_ev) == output.n_steps + 1
    assert output.energies_ev[-1] == output.energy_ev < output.energies_ev[0]
    assert seen[-1][1] == output.fmax_ev_per_angstrom <= 1e-4 < seen[0][1]


def test_fixed_symmetry_is_exact_and_found_again_at_a_tighter_tolerance(metals) -> None:
    rng = np.random.default_rng(3)
    start = copper_gold(2.8, 3.9)
    start.set_cell(start.cell.array * (1 + 1e-3 * rng.normal(size=(3, 3))), scale_atoms=True)
    protocol = RelaxProtocol(fmax_ev_per_angstrom=1e-4, symmetry="fix", symprec_angstrom=0.05)
    output = relax(start, metals, protocol)
    assert (output.space_group_initial, output.space_group_final) == (123, 123)
    again = relax(output.structure.to_atoms(), metals, RelaxProtocol(symprec_angstrom=1e-5))
    assert again.space_group_initial == 123
    free = relax(start, metals, RelaxProtocol(fmax_ev_per_angstrom=1e-4, symprec_angstrom=1e-5))
    assert free.space_group_initial != 123
    assert free.energy_ev == pytest.approx(output.energy_ev, abs=1e-6)


@pytest.mark.parametrize("protocol", [PhononProtocol().relax, ConductivityProtocol().relax], ids=["phonon", "kappa"])
def test_a_monoclinic_crystal_is_left_without_shear(metals, protocol: RelaxProtocol) -> None:
    cell = [[2.79, 0, 0], [0, 2.8, 0], [0.1, 0, 3.6]]
    start = Atoms("CuAu", scaled_positions=[(0, 0, 0), (0.5, 0.5, 0.5)], cell=cell, pbc=True)
    output = relax(start, metals, protocol)
    # Its minimum is the tetragonal alloy, which needs a change of the angles.
    assert (output.space_group_initial, output.space_group_final) == (10, 123)
    assert np.abs(output.stress_ev_per_angstrom3).max() < 1e-5


def test_masked_components_of_the_cell_stay(metals) -> None:
    start = bulk("Cu", cubic=True, a=3.7)
    output = relax(start, metals, RelaxProtocol(cell_mask=(True, False, False, False, False, False)))
    lengths = output.structure.to_atoms().cell.lengths()
    assert lengths[1:] == pytest.approx([3.7, 3.7], abs=1e-12)
    assert lengths[0] < 3.69


def test_positions_alone(metals) -> None:
    start = bulk("Cu", cubic=True, a=3.7)
    start.rattle(0.05, seed=1)
    output = relax(start, metals, RelaxProtocol(relax_cell=False))
    assert np.array_equal(output.structure.cell_angstrom, start.cell.array)
    assert np.abs(output.forces_ev_per_angstrom).max() < 1e-3


def test_molecule_relaxes_without_a_cell(metals) -> None:
    output = relax(molecule("CO"), metals, RelaxProtocol())
    assert output.space_group_initial is None
    assert np.isnan(output.stress_ev_per_angstrom3).all()
    assert np.abs(output.forces_ev_per_angstrom).max() < 1e-3


def test_parity_is_averaged_only_on_request(mirrorless) -> None:
    start = bulk("Ar", "fcc", a=np.sqrt(2) * NEAREST_ANGSTROM)
    averaged = relax(start, mirrorless, RelaxProtocol(parity="average", fmax_ev_per_angstrom=1e-6))
    assert averaged.n_steps == 0
    assert set(mirrorless.batches) == {2}
    with pytest.raises(NotConvergedError):
        relax(start, mirrorless, RelaxProtocol(parity="as_is", fmax_ev_per_angstrom=1e-6, max_steps=3))


def test_not_converged_reports_the_largest_force(metals) -> None:
    with pytest.raises(NotConvergedError, match=r"Cu4 stopped after 2 steps .* wanted 1.00e-03; raise max_steps"):
        relax(bulk("Cu", cubic=True, a=3.9), metals, RelaxProtocol(max_steps=2))


@pytest.mark.parametrize(
    ("atoms", "message"),
    [
        (Atoms(), "no atoms"),
        (Atoms("Cu", positions=[(np.nan, 0, 0)]), "NaN"),
        (fcc111("Cu", (1, 1, 3), vacuum=8.0), "periodic in 2 of 3 directions.*relax_cell=false"),
    ],
)
def test_unusable_structures_are_refused(metals, atoms: Atoms, message: str) -> None:
    with pytest.raises(StructureError, match=message):
        relax(atoms, metals, RelaxProtocol())
    assert metals.force_evaluations == 0


@pytest.mark.parametrize("optimizer", ["fire", "lbfgs"])
@pytest.mark.parametrize("name", ["slab", "molecule"])
def test_structures_without_periodicity_along_three_vectors_relax_without_a_stress(name: str, optimizer: str) -> None:
    slab = fcc111("Al", (1, 1, 3), vacuum=6.0)
    slab.rattle(0.02, seed=1)
    atoms = slab if name == "slab" else Atoms("Cu2", [[0, 0, 0], [0, 0, 2.4]], cell=[8, 9, 10])
    output = relax(atoms, load_force_field("emt"), RelaxProtocol(relax_cell=False, optimizer=optimizer))
    assert output.converged
    assert np.isnan(output.stress_ev_per_angstrom3).all()
