"""Stored phonons and conductivities as files of phonopy and phono3py, with the stored force constants, never new ones.

Lengths are in Angstrom, forces in eV/Angstrom and frequencies in THz, phonopy's own units for VASP.
"""

from pathlib import Path

import h5py
import numpy as np
from phono3py import Phono3py
from phono3py.file_IO import write_fc2_to_hdf5, write_fc3_to_hdf5, write_FORCES_FC2, write_FORCES_FC3
from phonopy import Phonopy
from phonopy.file_IO import write_FORCE_SETS

from esen_flows.errors import InputError
from esen_flows.physics.lattice.adapter import new_phono3py, new_phonopy
from esen_flows.physics.lattice.anharmonic import METRES_PER_SECOND_PER_THZ_ANGSTROM
from esen_flows.physics.lattice.born import born_parameters
from esen_flows.physics.lattice.datasets import with_forces
from esen_flows.physics.lattice.masses import ase_atoms
from esen_flows.physics.lattice.phonon import band_path
from esen_flows.schemas.atom_properties import species_numbers
from esen_flows.schemas.born_charges import BornCharges
from esen_flows.schemas.lattice_documents import ConductivityOutput, ForcesOutput, PhononOutput, TransportResult


def write_phonopy_files(
    forces: ForcesOutput, output: PhononOutput, born: BornCharges | None, folder: Path
) -> list[Path]:
    """Write phonopy_params.yaml, FORCE_SETS, band.yaml and thermal_properties.yaml.

    The band path is found again, as it was for the phonons; its frequencies follow from the stored force constants.
    Forces are left out where force constants came from exact Hessians: those are no forces of displaced structures.

    Parameters
    ----------
    forces
        Displaced forces from which the phonons were made.
    output
        The phonons.
    born
        Born charges of the phonons' protocol, or None.
    folder
        Existing folder; files in it are replaced.

    Returns
    -------
    list[Path]
        The files.

    Raises
    ------
    InputError
        Atoms of one element have several masses.
    """
    _refuse_isotopes(forces)
    matrix = forces.supercell_matrix_fc2
    phonon = new_phonopy(forces.unitcell, matrix, forces.primitive_matrix, forces.symprec_angstrom)
    files = [folder / name for name in ("phonopy_params.yaml", "band.yaml", "thermal_properties.yaml")]
    if _has_forces(forces):
        phonon.dataset = with_forces(forces.displacements_fc2, forces.forces_fc2)
        files.append(folder / "FORCE_SETS")
        write_FORCE_SETS(phonon.dataset, filename=files[-1])
    phonon.force_constants = np.array(output.force_constants_ev_per_angstrom2, dtype="double", order="C")
    if born is not None:
        phonon.nac_params = born_parameters(born, forces)
    phonon.save(files[0], settings={"force_sets": _has_forces(forces), "force_constants": True})
    _write_bands(phonon, forces, output, files[1])
    _write_thermal_properties(output, files[2])
    return files


def write_phono3py_files(
    forces: ForcesOutput, output: ConductivityOutput, born: BornCharges | None, folder: Path
) -> list[Path]:
    """Write phono3py_disp.yaml, FORCES_FC3, FORCES_FC2, fc2.hdf5, fc3.hdf5 and kappa-mNNN.hdf5 of a conductivity.

    FORCES_FC2 is written where the second order has a supercell of its own. Conductivities by other methods than the
    relaxation-time approximation are in kappa-mNNN.wigner.hdf5 and kappa-mNNN.lbte.hdf5; `gamma` is the linewidth by
    phonon-phonon scattering in all of them. Forces are left out as by `write_phonopy_files`.

    Parameters
    ----------
    forces
        Displaced forces of the third order from which the conductivity was made.
    output
        The conductivity.
    born
        Born charges of the conductivity's protocol, or None.
    folder
        Existing folder; files in it are replaced.

    Returns
    -------
    list[Path]
        The files.

    Raises
    ------
    InputError
        Atoms of one element have several masses, or the forces are of the second order.
    """
    _refuse_isotopes(forces)
    if forces.supercell_matrix_fc3 is None or forces.displacements_fc3 is None or forces.forces_fc3 is None:
        raise InputError("these forces are of the second order; export those from which the conductivity was made")
    separate = not np.array_equal(forces.supercell_matrix_fc2, forces.supercell_matrix_fc3)
    ph3 = new_phono3py(
        forces.unitcell,
        forces.supercell_matrix_fc3,
        forces.supercell_matrix_fc2 if separate else None,
        forces.primitive_matrix,
        forces.symprec_angstrom,
    )
    ph3.dataset = with_forces(forces.displacements_fc3, forces.forces_fc3)
    if separate:
        ph3.phonon_dataset = with_forces(forces.displacements_fc2, forces.forces_fc2)
    if born is not None:
        ph3.nac_params = born_parameters(born, forces)
    files = [folder / name for name in ("phono3py_disp.yaml", "fc2.hdf5", "fc3.hdf5")]
    ph3.save(files[0], settings={"force_sets": False})
    _write_force_constants(ph3, output, files[1], files[2])
    if _has_forces(forces):
        files.append(folder / "FORCES_FC3")
        write_FORCES_FC3(ph3.dataset, filename=files[-1])
        if separate:
            files.append(folder / "FORCES_FC2")
            write_FORCES_FC2(ph3.phonon_dataset, filename=files[-1])
    return files + _write_conductivities(output, folder)


def _has_forces(forces: ForcesOutput) -> bool:
    """Whether forces are those of displaced structures, rather than products of exact Hessians."""
    return forces.force_constants == "finite_displacement"


def _refuse_isotopes(forces: ForcesOutput) -> None:
    """Refuse cells in which `species_numbers` would name an isotope by another element."""
    cell = forces.unitcell
    if not np.array_equal(species_numbers(cell.numbers, cell.masses_u), cell.numbers):
        raise InputError(
            "atoms of one element have several masses here, which the files of phonopy cannot say; export the result "
            "of the same crystal with one mass for each element"
        )


def _write_bands(phonon: Phonopy, forces: ForcesOutput, output: PhononOutput, path: Path) -> None:
    primitive = ase_atoms(phonon.primitive, forces.unitcell)
    found = band_path(primitive, len(output.band_distances[0]), forces.symprec_angstrom)
    following = [*found.labels[1:], ("", "")]
    connected = [end == start for (_, end), (start, _) in zip(found.labels, following, strict=True)]
    labels: list[str] = []
    for index, (start, end) in enumerate(found.labels):
        labels += [end] if index and connected[index - 1] else [start, end]
    phonon.run_band_structure(found.segments, path_connections=connected, labels=labels)
    phonon.write_yaml_band_structure(filename=path)


def _write_thermal_properties(output: PhononOutput, path: Path) -> None:
    """The stored thermal properties in phonopy's layout; phonopy itself could only write them after computing again."""
    lines = [
        "# Thermal properties / unit cell (natom)",
        "",
        "unit:",
        "  temperature:   K",
        "  free_energy:   kJ/mol",
        "  entropy:       J/K/mol",
        "  heat_capacity: J/K/mol",
        "",
        f"natom: {len(output.structure.numbers)}",
        "",
        "thermal_properties:",
    ]
    columns = (output.free_energy_kj_per_mol, output.entropy_j_per_k_mol, output.heat_capacity_j_per_k_mol)
    for kelvin, free_energy, entropy, heat_capacity in zip(output.temperatures_kelvin, *columns, strict=True):
        lines += [
            f"- temperature:   {kelvin:15.7f}",
            f"  free_energy:   {free_energy:15.7f}",
            f"  entropy:       {entropy:15.7f}",
            # Phonopy too writes 0 where the sum of exponentials of the lowest temperatures has no value.
            f"  heat_capacity: {np.nan_to_num(heat_capacity):15.7f}",
            f"  energy:        {free_energy + entropy * kelvin / 1000:15.7f}",
            "",
        ]
    path.write_text("\n".join(lines), encoding="utf-8")


def _write_force_constants(ph3: Phono3py, output: ConductivityOutput, second: Path, third: Path) -> None:
    fc2, fc3 = np.array(output.fc2_ev_per_angstrom2), np.array(output.fc3_ev_per_angstrom3)
    atoms_fc2, atoms_fc3 = ph3.phonon_primitive.p2s_map, ph3.primitive.p2s_map
    write_fc2_to_hdf5(fc2, filename=str(second), p2s_map=atoms_fc2, physical_unit="eV/angstrom^2")
    write_fc3_to_hdf5(fc3, filename=str(third), p2s_map=atoms_fc3)


def _write_conductivities(output: ConductivityOutput, folder: Path) -> list[Path]:
    files = []
    for method, result in output.methods.items():
        middle = "" if method == "rta" else f".{method}"
        files.append(folder / f"kappa-m{''.join(map(str, output.mesh))}{middle}.hdf5")
        _write_kappa(files[-1], output, result)
    return files


def _write_kappa(path: Path, output: ConductivityOutput, result: TransportResult) -> None:
    """One file in phono3py's layout; its own writer writes to the current folder only."""
    content = {
        "temperature": output.temperatures_kelvin,
        "mesh": np.array(output.mesh, dtype="int64"),
        "frequency": output.frequencies_thz,
        "group_velocity": output.group_velocities_m_per_s / METRES_PER_SECOND_PER_THZ_ANGSTROM,
        "gamma": output.linewidths_thz,
        "qpoint": output.q_points,
        "weight": output.q_weights,
        "kappa": result.kappa_w_per_m_k,
        "kappa_intra": result.kappa_particle_w_per_m_k,
        "kappa_inter": result.kappa_coherence_w_per_m_k,
    }
    with h5py.File(path, "w") as file:
        file["version"] = np.bytes_(output.phono3py_version)
        for name, values in content.items():
            if values is not None:
                file[name] = np.asarray(values)
