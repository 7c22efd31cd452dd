"""Summaries: the few numbers of a result that tables show and queries filter by. Units are in the names."""

import numpy as np
from ase.data import chemical_symbols

from esen_flows.makers.compute import Summary
from esen_flows.metrics.diatomics import curves_of, model_metrics, pbe_curves
from esen_flows.physics.symmetry import conventional_lengths
from esen_flows.schemas.branch_documents import BranchOutput
from esen_flows.schemas.diatomics import DiatomicsOutput
from esen_flows.schemas.documents import Document, RelaxOutput, StaticOutput, StructureData
from esen_flows.schemas.exploration import lowest_branch
from esen_flows.schemas.lattice_documents import ConductivityOutput, ForcesOutput, PhononOutput
from esen_flows.schemas.properties import KAPPA_COMPONENTS
from esen_flows.schemas.protocols import HarmonicProtocol, TransportProtocol
from esen_flows.schemas.training import ErrorTable, EvaluationOutput, LabellingOutput, TrainingOutput, overall
from esen_flows.structures.identity import identify
from esen_flows.units import EV_PER_ANGSTROM3_TO_GPA

SYMPREC_ANGSTROM = 0.01  # for tables; keys and displacements have tolerances of their own
ROOM_TEMPERATURE_KELVIN = 300.0
_MOST_TEMPERATURES = 200  # of a summary, which every listing reads
_MOST_TENSORS = 20  # temperatures; each has up to 18 numbers
ERRORS = (
    "energy_mae_mev_per_atom", "energy_rmse_mev_per_atom", "force_mae_mev_per_angstrom", "force_rmse_mev_per_angstrom",
    "stress_mae_mev_per_angstrom3",
)  # fmt: skip


def relax_summary(output: RelaxOutput) -> Summary:
    """Summarise a relaxation.

    Parameters
    ----------
    output
        The result.

    Returns
    -------
    Summary
        Energy, volume, lattice, pressure, largest force and convergence; of an exploration also what was found.
    """
    return {
        **_fields(output, "energy_per_atom_ev", "volume_per_atom_angstrom3"),
        **_lattice_summary(output.structure),
        "pressure_gpa": _pressure(output.stress_ev_per_angstrom3),
        **_fields(output, "fmax_ev_per_angstrom", "n_steps", "converged", "space_group_initial", "space_group_final"),
        **_fixed_atoms(output.structure),
        **_exploration(output),
    }


def _exploration(output: RelaxOutput) -> Summary:
    """Number of structures that an exploration found, and the lowest one; empty otherwise, as in earlier documents."""
    if output.branches is None:
        return {}
    place = lowest_branch(output.branches)
    lowest = output.branches[place]
    found = {"structures_found": len(output.branches), "lowest_structure": place, "verdict": lowest.verdict}
    return {**found, "lowest_frequency_thz": lowest.lowest_frequency_thz}


def branch_summary(output: BranchOutput) -> Summary:
    """Summarise a branch of an exploration.

    Parameters
    ----------
    output
        The result.

    Returns
    -------
    Summary
        The mode that was followed, and energy, symmetry and size of the structure that was found.
    """
    names = (
        "energy_per_atom_ev", "energy_change_per_atom_ev", "frequency_thz", "degeneracy", "amplitude_angstrom",
        "subgroup", "space_group_final", "snapped", "volume_per_atom_angstrom3", "n_steps",
    )  # fmt: skip
    point = ", ".join(f"{component:.4g}" for component in output.q_point)
    return {**_fields(output, *names), "q_point": point, "atoms": len(output.structure.numbers)}


def static_summary(output: StaticOutput) -> Summary:
    """Summarise a static evaluation.

    Parameters
    ----------
    output
        The result.

    Returns
    -------
    Summary
        Energy, volume (None without a cell), pressure and largest force.
    """
    return {
        **_fields(output, "energy_per_atom_ev"),
        "volume_per_atom_angstrom3": _volume_per_atom(output.structure),
        "pressure_gpa": _pressure(output.stress_ev_per_angstrom3),
        "fmax_ev_per_angstrom": float(np.linalg.norm(output.forces_ev_per_angstrom, axis=1).max()),
    }


def _pressure(stress_ev_per_angstrom3: np.ndarray) -> float | None:
    """Pressure in GPa; None where the cell has no volume."""
    pressure = -float(np.trace(stress_ev_per_angstrom3)) / 3.0 * EV_PER_ANGSTROM3_TO_GPA
    return pressure if np.isfinite(pressure) else None


def _volume_per_atom(structure: StructureData) -> float | None:
    """Volume in Angstrom^3; None for a structure that is not periodic in three directions."""
    volume = abs(float(np.linalg.det(structure.cell_angstrom)))
    return volume / len(structure.numbers) if np.all(structure.pbc) else None


def forces_summary(output: ForcesOutput) -> Summary:
    """Summarise the forces of displaced supercells.

    Parameters
    ----------
    output
        The result.

    Returns
    -------
    Summary
        Number and size of the supercells, of second and third order.
    """
    return {
        "displacements_fc2": len(output.forces_fc2),
        "atoms_fc2": int(output.forces_fc2.shape[1]),
        "displacements_fc3": None if output.forces_fc3 is None else len(output.forces_fc3),
        "atoms_fc3": None if output.forces_fc3 is None else int(output.forces_fc3.shape[1]),
        **_fields(output, "parity_averaged", "force_constants"),
        **_average(output),
    }


def _average(output: ForcesOutput | PhononOutput | ConductivityOutput) -> Summary:
    """Over what forces were averaged, and what that left; empty where they were not, as in earlier documents."""
    if output.fc_average == "none":
        return {}
    found: Summary = {"fc_average": output.fc_average}
    if isinstance(output, ForcesOutput):
        return found | {"force_spread_ev_per_angstrom": output.force_spread_fc2_ev_per_angstrom}
    found["force_spread_ev_per_angstrom"] = output.force_spread_ev_per_angstrom
    if isinstance(output, PhononOutput):
        found["max_frequency_error_thz"] = output.max_frequency_error_thz
    return found


def phonon_summary(output: PhononOutput) -> Summary:
    """Summarise harmonic phonons.

    Parameters
    ----------
    output
        The result.

    Returns
    -------
    Summary
        Verdict, frequency range, lattice, and thermal properties per mole of primitive cells nearest to 300 K and at
        every temperature.
    """
    nearest, temperatures = _nearest(output.temperatures_kelvin), output.temperatures_kelvin
    return {
        **_fields(output, "verdict", "max_frequency_thz", "min_frequency_thz", "max_commensurate_frequency_thz"),
        **_lattice_summary(output.structure),
        "temperature_kelvin": float(output.temperatures_kelvin[nearest]),
        "free_energy_kj_per_mol": float(output.free_energy_kj_per_mol[nearest]),
        "entropy_j_per_k_mol": float(output.entropy_j_per_k_mol[nearest]),
        "heat_capacity_j_per_k_mol": float(output.heat_capacity_j_per_k_mol[nearest]),
        "primitive_atoms": len(output.structure.numbers),
        **_average(output),
        **_at_temperatures("free_energy_kj_per_mol", temperatures, output.free_energy_kj_per_mol),
        **_at_temperatures("entropy_j_per_k_mol", temperatures, output.entropy_j_per_k_mol),
        **_at_temperatures("heat_capacity_j_per_k_mol", temperatures, output.heat_capacity_j_per_k_mol),
    }


def conductivity_summary(output: ConductivityOutput) -> Summary:
    """Summarise heat transport by phonons.

    Parameters
    ----------
    output
        The result.

    Returns
    -------
    Summary
        Conductivity (mean of xx, yy, zz, and the tensor) by each method nearest to 300 K and at every temperature,
        lattice, frequency range and mesh. Of many temperatures only the means.
    """
    nearest = _nearest(output.temperatures_kelvin)
    summary: Summary = {"temperature_kelvin": float(output.temperatures_kelvin[nearest])}
    at_temperatures: Summary = {}
    errors: Summary = {}
    for method, result in output.methods.items():
        name, means = f"kappa_{method}_w_per_m_k", np.mean(result.kappa_w_per_m_k[:, :3], axis=1)
        summary[name] = float(means[nearest])
        at_temperatures |= _at_temperatures(name, output.temperatures_kelvin, means)
        if result.mean_kappa_error_w_per_m_k is not None:
            errors[f"kappa_{method}_error_w_per_m_k"] = float(result.mean_kappa_error_w_per_m_k[nearest])
        for component, values in zip(KAPPA_COMPONENTS, result.kappa_w_per_m_k.T, strict=True):
            name = f"kappa_{method}_{component}_w_per_m_k"
            summary[name] = float(values[nearest])
            if len(values) <= _MOST_TENSORS:
                at_temperatures |= _at_temperatures(name, output.temperatures_kelvin, values)
    return {
        **summary,
        **_lattice_summary(output.structure),
        **_fields(output, "max_frequency_thz", "min_frequency_thz"),
        "mesh": "x".join(map(str, output.mesh)),
        "phono3py": f"{output.phono3py_version} ({output.backend})",
        **_average(output),
        **errors,
        **at_temperatures,
    }


def diatomics_summary(output: DiatomicsOutput) -> Summary:
    """Summarise curves of diatomic molecules.

    Parameters
    ----------
    output
        The result.

    Returns
    -------
    Summary
        Numbers of curves and missing points, and the twelve metrics; None where they are not defined.
    """
    metrics = model_metrics(curves_of(output), pbe_curves())
    return output.summary() | {name: value if np.isfinite(value) else None for name, value in metrics.items()}


def nac_summary(protocol: HarmonicProtocol | TransportProtocol) -> Summary:
    """Say whether Born charges entered a result.

    Parameters
    ----------
    protocol
        Protocol of the step.

    Returns
    -------
    Summary
        Empty without Born charges, as in documents of earlier versions.
    """
    return {} if protocol.born is None else {"nac": True}


def _at_temperatures(name: str, temperatures: np.ndarray, values: np.ndarray) -> Summary:
    """Values at whole temperatures, which queries find under names such as kappa_400K."""
    pairs = list(zip(temperatures.tolist(), values.tolist(), strict=True))[:_MOST_TEMPERATURES]
    return {f"{name}_at_{int(kelvin)}K": value for kelvin, value in pairs if kelvin == int(kelvin)}


def labelling_summary(output: LabellingOutput) -> Summary:
    """Summarise a labelling.

    Parameters
    ----------
    output
        The result.

    Returns
    -------
    Summary
        Key, name and size of the dataset that was made.
    """
    return {
        **_fields(output, "dataset_key", "dataset_name", "atoms"),
        "structures": output.count,
    }


def training_summary(name: str, output: TrainingOutput) -> Summary:
    """Summarise a training.

    Parameters
    ----------
    name
        Name of the force field for people.
    output
        The result.

    Returns
    -------
    Summary
        Key of the force field, size of the training, and errors on held-out structures.
    """
    return {
        "name": name,
        "model_key": output.model_key,
        "structures": output.training_structures,
        "steps": output.steps,
        "training_seconds": output.training_seconds,
        **_errors(output.errors),
    }


def evaluation_summary(dataset_name: str, output: EvaluationOutput) -> Summary:
    """Summarise an evaluation.

    Parameters
    ----------
    dataset_name
        Name of the dataset for people.
    output
        The result.

    Returns
    -------
    Summary
        Name and size of the dataset, and the errors on all of it.
    """
    return {"dataset_name": dataset_name, "structures": output.structures, **_errors(output.errors)}


def _fields(output: Document, *names: str) -> Summary:
    """Fields of a result that its summary has under the same names."""
    return {name: getattr(output, name) for name in names}


def _errors(errors: ErrorTable) -> Summary:
    """Errors on all groups together; None where they are not finite, as without stress labels."""
    found = {name: overall(errors).get(name) for name in ERRORS}
    return {name: value if isinstance(value, float) and np.isfinite(value) else None for name, value in found.items()}


def _lattice_summary(structure: StructureData) -> Summary:
    """Lengths of the conventional cell and the space group; None where no symmetry is found."""
    atoms, names = structure.to_atoms(), ("a_angstrom", "b_angstrom", "c_angstrom")
    lengths = conventional_lengths(atoms, SYMPREC_ANGSTROM)
    if lengths is None:
        return {**dict.fromkeys((*names, "space_group")), **_isotopes(structure)}
    identity = identify(atoms, SYMPREC_ANGSTROM)
    space_group = f"{identity['space_group_symbol']} ({identity['space_group_number']})"
    return {**dict(zip(names, lengths.tolist(), strict=True)), "space_group": space_group, **_isotopes(structure)}


def _isotopes(structure: StructureData) -> Summary:
    """Elements and masses (u) of atoms with masses of their own; empty without any, as in earlier documents."""
    if structure.masses_u is None:
        return {}
    pairs = sorted(set(zip(structure.numbers.tolist(), structure.masses_u.tolist(), strict=True)))
    return {"isotopes": ", ".join(f"{chemical_symbols[number]} {mass:.6g} u" for number, mass in pairs if mass)}


def _fixed_atoms(structure: StructureData) -> Summary:
    """Number of atoms with a fixed coordinate; empty without any, as in earlier documents."""
    masks = [mask for mask in (structure.fixed_cartesian, structure.fixed_fractional) if mask is not None]
    return {"fixed_atoms": int(np.any(masks, axis=(0, 2)).sum())} if masks else {}


def _nearest(temperatures: np.ndarray) -> int:
    return int(np.argmin(np.abs(np.asarray(temperatures) - ROOM_TEMPERATURE_KELVIN)))
