"""The table of all kinds of results: one entry each, written by hand.

Requests, specifications of campaigns, queries, listings, reports, manifests, submission and the commands read this
table, and nothing else lists the kinds. A kind that is not in the table is an error everywhere.
"""

from functools import partial
from typing import Literal

from esen_flows.schemas.audit import (
    AuditProtocol,
    MeasurementsProtocol,
    VerdictProtocol,
    audit_steps,
    full_protocol,
    published_protocol,
    quick_protocol,
)
from esen_flows.schemas.audit_measures import MEASUREMENTS, MEASURES
from esen_flows.schemas.branches import BranchProtocol
from esen_flows.schemas.diatomics import DiatomicsProtocol, diatomics_steps
from esen_flows.schemas.elastic import ElasticFitProtocol, ElasticProtocol, StrainProtocol, elastic_steps
from esen_flows.schemas.eos import EosFitProtocol, EosProtocol, eos_steps
from esen_flows.schemas.md import MDProtocol, md_steps
from esen_flows.schemas.named_md_protocols import dynamat_protocol, md22_protocol, tm23_protocol
from esen_flows.schemas.named_protocols import (
    mdr_esen_protocol,
    mdr_loew_protocol,
    mdr_protocol,
    phonondb_protocol,
)
from esen_flows.schemas.nve import NveProtocol
from esen_flows.schemas.property_entry import Deviation, Property, ResultFile
from esen_flows.schemas.property_entry import SummaryField as Value
from esen_flows.schemas.protocols import (
    ConductivityProtocol,
    DisplacementProtocol,
    HarmonicProtocol,
    PhononProtocol,
    RelaxProtocol,
    StaticProtocol,
    TransportProtocol,
)
from esen_flows.schemas.steps import lattice_steps, relax_steps, static_steps
from esen_flows.schemas.training import EvaluationProtocol, LabellingProtocol, TrainingProtocol

Kind = Literal[
    "relax", "branch", "static", "md", "eos", "strains", "elastic", "forces", "phonon", "conductivity", "diatomics",
    "measurements", "nve", "audit", "labelling", "training", "evaluation",
]  # fmt: skip

# Reports print lattice constants and the space group by themselves, after the other values.
_LATTICE = (Value("a_angstrom"), Value("b_angstrom"), Value("c_angstrom"), Value("space_group", type="text"))
_RELAX_LATTICE = (Value("a_angstrom", column=True), *_LATTICE[1:])
_ERRORS = (
    Value("energy_mae_mev_per_atom", "energy, mean absolute error", "meV/atom", ".2f", column=True),
    Value("energy_rmse_mev_per_atom", "energy, root mean square error", "meV/atom", ".2f"),
    Value("force_mae_mev_per_angstrom", "forces, mean absolute error", "meV/A", ".2f", column=True),
    Value("force_rmse_mev_per_angstrom", "forces, root mean square error", "meV/A", ".2f"),
    Value("stress_mae_mev_per_angstrom3", "stress, mean absolute error", "meV/A^3", ".3f"),
)
_MEASURED = tuple(Value(name, one.title, one.unit, ".2g") for name, one in MEASURES.items())
_OF_MEASUREMENTS = tuple(
    Value(name, one.title, one.unit, ".2g") for name, one in MEASURES.items() if one.step == MEASUREMENTS
)
_DATASET_NAME = Value("dataset_name", "dataset", type="text", column=True)
_STRUCTURES = Value("structures", "structures", format="d", column=True)
_PER_MOLE = "per mol of primitive cells, {primitive_atoms} atoms"
KAPPA_COMPONENTS = ("xx", "yy", "zz", "yz", "xz", "xy")  # of tensors in documents, in their order
_KAPPA_TENSORS = tuple(
    Value(f"kappa_{method}_{component}_w_per_m_k", alias=f"kappa_{component}" if method == "rta" else "")
    for method in ("rta", "wigner", "lbte")
    for component in KAPPA_COMPONENTS
)
_AVERAGE = (
    Value("fc_average", "forces averaged over", type="text"),
    Value("force_spread_ev_per_angstrom", "spread of the forces", "eV/A", ".2g"),
)
_NAC = Value("nac", "non-analytical correction", type="boolean")
_ISOTOPES = Value("isotopes", "isotopes", type="text")  # of structures that have masses of their own


def principal_conductivity(protocol: TransportProtocol) -> str:
    """Field of the summary of a conductivity that tables show.

    Parameters
    ----------
    protocol
        Protocol of the conductivity.

    Returns
    -------
    str
        The field of the relaxation-time approximation if it is among the methods, else that of the first method.
    """
    return f"kappa_{'rta' if 'rta' in protocol.methods else protocol.methods[0]}_w_per_m_k"


# Reproduction: batches are composed differently each time, and the last digits of a force call depend on its batch, on
# threads and on the device. Measured on two cores, batches of 200 and of 1 to 7 members, 1 and 2 threads, EMT and
# esen_silicon, largest of 1 to 54 members: relaxations 7e-13 eV/atom in float64 and 7e-9 in float32, highest frequency
# 2e-13 THz in float64, conductivity 1e-14 of it in float64 and 7e-7 in float32. The rest of each deviation is margin
# for other devices and versions, which have not been measured.
PROPERTIES: dict[Kind, Property] = {
    "relax": Property(
        title="relaxation",
        protocol=RelaxProtocol,
        category="gpu",
        summary=(
            Value("energy_per_atom_ev", "energy", "eV/atom", ".6f", column=True),
            Value("volume_per_atom_angstrom3", "volume", "A^3/atom", ".4f", column=True),
            *_RELAX_LATTICE,
            Value("pressure_gpa", "pressure", "GPa", ".2e"),
            Value("fmax_ev_per_angstrom", "largest force", "eV/A", ".2e"),
            Value("n_steps", "steps", "", "d", column=True),
            Value("converged", type="boolean"),
            _ISOTOPES,
            Value("fixed_atoms", "fixed atoms", "", "d"),
            Value("space_group_initial"),
            Value("space_group_final"),
            Value("structures_found", "structures found", "", "d"),
            Value("lowest_structure", "lowest of them", "", "d"),
            Value("verdict", "its modes", type="text", conditions=("stable", "unstable")),
            Value("lowest_frequency_thz", "its lowest frequency", "THz", ".3f"),
        ),
        structure="structure",
        files=(
            ResultFile("relaxed.extxyz"),
            ResultFile("relaxed.cif", crystal=True),
            ResultFile("POSCAR", crystal=True),
            ResultFile("trajectory.extxyz", needs="positions_path_angstrom"),
            ResultFile("relaxation.png"),
            ResultFile("branches.png", needs="branches"),
        ),
        command="relax",
        help="Relax positions and cell.",
        steps=relax_steps,
        principal=lambda protocol: "energy_per_atom_ev",
        reproduction={
            "float64": Deviation("the last digits of forces move the end of a relaxation a little", absolute=1e-6),
            "float32": Deviation("single-precision forces move the end of a relaxation", absolute=1e-4),
        },
    ),
    "branch": Property(
        title="branch of a relaxation",
        protocol=BranchProtocol,
        category="gpu",
        summary=(
            Value("energy_per_atom_ev", "energy", "eV/atom", ".6f", column=True),
            Value("energy_change_per_atom_ev", "change of the energy", "eV/atom", ".6f", column=True),
            Value("frequency_thz", "frequency of the mode", "THz", ".3f", column=True),
            Value("q_point", "wave vector", type="text", column=True),
            Value("degeneracy", "modes of this frequency", "", "d"),
            Value("amplitude_angstrom", "displacement of the start", "A", ".2f"),
            Value("subgroup", "space group kept", "", "d", column=True),
            Value("space_group_final", "space group", "", "d", column=True),
            Value("snapped", "snapped to a higher symmetry", type="boolean"),
            Value("volume_per_atom_angstrom3", "volume", "A^3/atom", ".4f"),
            Value("atoms", "atoms", "", "d"),
            Value("n_steps", "steps", "", "d"),
        ),
        structure="structure",
    ),
    "static": Property(
        title="energy and forces",
        protocol=StaticProtocol,
        category="gpu",
        summary=(
            Value("energy_per_atom_ev", "energy", "eV/atom", ".6f", column=True),
            Value("volume_per_atom_angstrom3", "volume", "A^3/atom", ".4f"),
            Value("pressure_gpa", "pressure", "GPa", ".4f", column=True),
            Value("fmax_ev_per_angstrom", "largest force", "eV/A", ".4f", column=True),
        ),
        structure="structure",
        files=(ResultFile("static.extxyz"),),
        command="static",
        help="Energy, forces and stress of a structure as it is.",
        steps=static_steps,
        principal=lambda protocol: "energy_per_atom_ev",
        reproduction={
            "float64": Deviation("the last digits of a sum over edges depend on its order", absolute=1e-9),
            "float32": Deviation("the last digits of a sum over edges depend on its order", absolute=1e-5),
        },
    ),
    "md": Property(
        title="molecular dynamics",
        protocol=MDProtocol,
        category="gpu",
        summary=(
            Value("mean_temperature_kelvin", "mean temperature", "K", ".1f", column=True),
            Value("potential_energy_per_atom_ev", "mean potential energy", "eV/atom", ".5f", column=True),
            Value("mean_pressure_gpa", "mean pressure", "GPa", ".3f", column=True),
            Value("drift_mev_per_atom_ps", "drift of the conserved energy", "meV/atom/ps", ".2g", column=True),
            Value("drift_interval_mev_per_atom_ps", "drift, 95 % interval +/-", "meV/atom/ps", ".2g", column=True),
            Value("rdf_peak_angstrom", "highest peak of g(r)", "A", ".2f"),
            Value("msd_angstrom2", "mean square displacement in half the time", "A^2", ".3g", column=True),
            Value("n_steps", "steps", "", "d"),
            Value("duration_ps", "duration", "ps", "g", column=True),
        ),
        structure="structure",
        files=(ResultFile("final.extxyz"), ResultFile("trajectory.extxyz"), ResultFile("md.png", frequencies=True)),
        command="md",
        help="Molecular dynamics at constant energy or temperature: g(r), displacements, vibrations, drift.",
        published={"dynamat-v1": dynamat_protocol, "tm23": tm23_protocol, "md22": md22_protocol},
        steps=md_steps,
        principal=lambda protocol: "potential_energy_per_atom_ev",
        reproduction={
            "float64": Deviation("trajectories are chaotic: last digits grow until only averages agree", absolute=0.05),
            "float32": Deviation("trajectories are chaotic: last digits grow until only averages agree", absolute=0.05),
        },
    ),
    "eos": Property(
        title="equation of state",
        protocol=EosProtocol,
        part=EosFitProtocol,
        category="cpu",
        summary=(
            Value("bulk_modulus_gpa", "bulk modulus B0", "GPa", ".2f", column=True),
            Value("bulk_modulus_interval_gpa", "B0, 95 % interval +/-", "GPa", ".2g", column=True),
            Value("bulk_modulus_derivative", "B0'", "", ".3f", column=True),
            Value("bulk_modulus_derivative_interval", "B0', 95 % interval +/-", "", ".2g"),
            Value("volume_per_atom_angstrom3", "volume", "A^3/atom", ".4f", column=True),
            Value("volume_interval_angstrom3", "volume, 95 % interval +/-", "A^3/atom", ".2g"),
            Value("energy_per_atom_ev", "energy", "eV/atom", ".6f"),
            Value("rms_residual_mev_per_atom", "residuals, root mean square", "meV/atom", ".2g"),
            Value("other_bulk_modulus_gpa", "bulk modulus by the other equation", "GPa", ".2f"),
            Value("equation", "equation", type="text"),
        ),
        files=(ResultFile("eos.png"),),
        command="eos",
        help="Equation of state: energies at a series of volumes, bulk modulus and its derivative with intervals.",
        steps=eos_steps,
        principal=lambda protocol: "bulk_modulus_gpa",
        crystal=True,
        conservative=True,
        reproduction={
            "float64": Deviation("differences of energies between volumes", relative=1e-4),
            "float32": Deviation("differences of single-precision energies between volumes", relative=2e-2),
        },
    ),
    "strains": Property(
        title="strained cells",
        protocol=StrainProtocol,
        category="gpu",
        summary=(
            Value("strained_cells", "strained cells", format="d", column=True),
            Value("directions", "directions", format="d", column=True),
        ),
    ),
    "elastic": Property(
        title="elastic tensor",
        protocol=ElasticProtocol,
        part=ElasticFitProtocol,
        category="cpu",
        summary=(
            Value("bulk_modulus_gpa", "bulk modulus (Hill)", "GPa", ".2f", column=True),
            Value("bulk_modulus_interval_gpa", "bulk modulus, 95 % interval +/-", "GPa", ".2g"),
            Value("bulk_modulus_voigt_gpa", "bulk modulus (Voigt)", "GPa", ".2f"),
            Value("bulk_modulus_reuss_gpa", "bulk modulus (Reuss)", "GPa", ".2f"),
            Value("shear_modulus_gpa", "shear modulus (Hill)", "GPa", ".2f", column=True),
            Value("shear_modulus_interval_gpa", "shear modulus, 95 % interval +/-", "GPa", ".2g"),
            Value("shear_modulus_voigt_gpa", "shear modulus (Voigt)", "GPa", ".2f"),
            Value("shear_modulus_reuss_gpa", "shear modulus (Reuss)", "GPa", ".2f"),
            Value("c11_gpa", "C11", "GPa", ".2f", column=True),
            Value("c12_gpa", "C12", "GPa", ".2f", column=True),
            Value("c44_gpa", "C44", "GPa", ".2f", column=True),
            Value("independent", "independent constants", format="d"),
            Value("stable", "stable (Born)", type="boolean", column=True),
            Value("least_eigenvalue_gpa", "least eigenvalue", "GPa", ".2f"),
            Value("longitudinal_velocity_m_per_s", "longitudinal sound", "m/s", ".0f"),
            Value("transverse_velocity_m_per_s", "transverse sound", "m/s", ".0f"),
            Value("residual_gpa", "residual stress, root mean square", "GPa", ".2g"),
        ),
        command="elastic",
        help="Elastic tensor with relaxed positions: moduli, Born stability, sound velocities, with intervals.",
        steps=elastic_steps,
        principal=lambda protocol: "bulk_modulus_gpa",
        crystal=True,
        conservative=True,
        reproduction={
            "float64": Deviation("differences of stresses between strains", relative=1e-4),
            "float32": Deviation("differences of single-precision stresses between strains", relative=2e-2),
        },
    ),
    "forces": Property(
        title="displaced supercells",
        protocol=DisplacementProtocol,
        category="gpu",
        summary=(
            Value("displacements_fc2", "displacements, second order", "", "d", column=True),
            Value("atoms_fc2", "atoms, second order", "", "d"),
            Value("displacements_fc3", "displacements, third order", "", "d", column=True),
            Value("atoms_fc3", "atoms, third order", "", "d"),
            Value("parity_averaged", "inversion-averaged", type="boolean", column=True),
            Value("force_constants", "force constants by", type="text"),
            *_AVERAGE,
        ),
        structure="unitcell",
    ),
    "phonon": Property(
        title="phonons",
        protocol=PhononProtocol,
        part=HarmonicProtocol,
        category="cpu",
        summary=(
            Value("verdict", "verdict", type="text", column=True, conditions=("stable", "unstable")),
            Value("max_frequency_thz", "highest frequency", "THz", ".3f", column=True),
            Value("min_frequency_thz", "lowest frequency", "THz", ".3f", column=True),
            Value("max_commensurate_frequency_thz"),
            *_LATTICE,
            Value("temperature_kelvin"),
            Value("free_energy_kj_per_mol"),
            Value("heat_capacity_j_per_k_mol", "heat capacity, {temperature_kelvin:g} K", f"J/K {_PER_MOLE}", ".3f"),
            Value("entropy_j_per_k_mol", "entropy, {temperature_kelvin:g} K", f"J/K {_PER_MOLE}", ".3f"),
            Value("primitive_atoms"),
            *_AVERAGE,
            Value("max_frequency_error_thz", "highest frequency, standard error", "THz", ".2g"),
            _NAC,
            _ISOTOPES,
        ),
        # Harmonic phonons do not use phono3py, so that its next version must not change their keys.
        versions=("phonopy",),
        structure="structure",
        files=(
            ResultFile("phonon.png", shows_several=True, frequencies=True),
            ResultFile("thermal_properties.png", shows_several=True),
        ),
        command="phonon",
        help="Harmonic phonons: bands, density of states, thermal properties, stability.",
        published={"mdr": mdr_protocol, "mdr-esen": mdr_esen_protocol, "mdr-loew": mdr_loew_protocol},
        steps=partial(lattice_steps, "phonon", HarmonicProtocol),
        principal=lambda protocol: "max_frequency_thz",
        crystal=True,
        conservative=True,
        reproduction={
            "float64": Deviation("differences of forces are divided by the displacement", absolute=1e-3),
            "float32": Deviation("single-precision forces are divided by the displacement", absolute=2e-2),
        },
    ),
    "conductivity": Property(
        title="thermal conductivity",
        protocol=ConductivityProtocol,
        part=TransportProtocol,
        category="cpu",
        summary=(
            Value("temperature_kelvin", column=True),
            Value(
                "kappa_rta_w_per_m_k", "kappa RTA, {temperature_kelvin:g} K", "W/m/K", ".2f", column=True, alias="kappa"
            ),
            Value("kappa_wigner_w_per_m_k", "kappa Wigner, {temperature_kelvin:g} K", "W/m/K", ".2f", column=True),
            Value("kappa_lbte_w_per_m_k", "kappa LBTE, {temperature_kelvin:g} K", "W/m/K", ".2f"),
            *_KAPPA_TENSORS,
            *_LATTICE,
            Value("max_frequency_thz", "highest frequency", "THz", ".3f"),
            Value("min_frequency_thz", "lowest frequency", "THz", ".3f"),
            Value("mesh", "mesh", type="text", column=True),
            *_AVERAGE,
            Value("kappa_rta_error_w_per_m_k", "kappa RTA, standard error", "W/m/K", ".2g"),
            Value("kappa_wigner_error_w_per_m_k", "kappa Wigner, standard error", "W/m/K", ".2g"),
            Value("kappa_lbte_error_w_per_m_k", "kappa LBTE, standard error", "W/m/K", ".2g"),
            _NAC,
            _ISOTOPES,
            Value("phono3py", "phono3py", type="text"),
        ),
        versions=("phonopy", "phono3py", "lattice_backend"),
        structure="structure",
        files=(
            ResultFile("kappa.png"),
            ResultFile("cumulative_kappa.png", shows_several=True, frequencies=True),
            # Results of earlier versions have no modes.
            ResultFile("lifetimes.png", needs="mode_kappa_w_per_m_k.rta", shows_several=True, frequencies=True),
            ResultFile("mean_free_paths.png", needs="mode_kappa_w_per_m_k.rta", shows_several=True),
        ),
        command="kappa",
        help="Lattice thermal conductivity: relaxation-time approximation and Wigner transport.",
        published={
            "phonondb-v1": phonondb_protocol,
            "phonondb-v1-two-stage": partial(phonondb_protocol, two_stage=True),
        },
        settings_of_structures=("displacement.fc2_supercell", "displacement.fc3_supercell"),
        steps=partial(lattice_steps, "conductivity", TransportProtocol),
        principal=principal_conductivity,
        crystal=True,
        conservative=True,
        reproduction={
            "float64": Deviation("second differences of forces, and modes near zero", relative=1e-3),
            "float32": Deviation("second differences of single-precision forces", relative=5e-2),
        },
    ),
    "diatomics": Property(
        title="diatomic molecules",
        protocol=DiatomicsProtocol,
        category="gpu",
        summary=(
            Value("curves", "curves", format="d", column=True),
            Value("excluded", "elements without a curve", format="d", column=True),
            Value("missing_points", "points without an energy", format="d"),
            Value("tortuosity", "tortuosity", "", ".4g"),
            Value("energy_diff_flips", "changes of slope of the energy", "", ".4g"),
            Value("energy_jump", "energy jumps", "eV", ".4g", column=True),
            Value("force_flips", "changes of sign of the force", "", ".4g", column=True),
            Value("force_total_variation", "total variation of the force", "eV/A", ".4g"),
            Value("force_jump", "force jumps", "eV/A", ".4g"),
            Value("pbe_energy_mae", "energy against PBE, mean absolute error", "eV", ".4g", column=True),
            Value("pbe_force_mae", "force components against PBE, mean absolute error", "eV/A", ".4g", column=True),
            Value("pbe_bond_length_error", "bond length against PBE", "A", ".4g"),
            Value("pbe_well_depth_error", "depth of the well against PBE", "eV", ".4g"),
            Value("pbe_vib_freq_error", "wavenumber against PBE", "1/cm", ".4g"),
            Value("pbe_wall_dist_mae", "repulsive wall against PBE", "A", ".4g"),
        ),
        files=(ResultFile("diatomics.png"),),
        command="diatomics",
        help="Curves of diatomic molecules of 87 elements: smoothness, and agreement with PBE.",
        steps=diatomics_steps,
        principal=lambda protocol: "pbe_energy_mae",
        subject="model",
        reproduction={
            "float64": Deviation("the last digits of a sum over edges depend on its order", relative=1e-6),
            "float32": Deviation("sums of absolute differences gather the last digits of energies", relative=1e-2),
        },
    ),
    "measurements": Property(
        title="measurements of a force field",
        protocol=MeasurementsProtocol,
        category="gpu",
        summary=(Value("systems", "systems", type="text", column=True), *_OF_MEASUREMENTS),
        subject="model",
        numerics_revision=2,  # of more points along stretched bonds
    ),
    "nve": Property(
        title="constant-energy dynamics of a force field",
        protocol=NveProtocol,
        category="gpu",
        summary=(
            Value("largest_slope_ev_per_atom_ps", "largest drift", "eV/atom/ps", ".2g", column=True),
            Value("lambench_score", "LAMBench's score", "", ".3g", column=True),
            Value("failures", "failed trajectories", format="d", column=True),
            Value("trajectories", "trajectories", format="d"),
        ),
        subject="model",
    ),
    "audit": Property(
        title="audit",
        protocol=AuditProtocol,
        part=VerdictProtocol,
        category="cpu",
        summary=(
            Value("verdict", "verdict", type="text", column=True, conditions=("passed", "failed")),
            Value("failed_checks", "failed checks", format="d", column=True),
            Value("checks", "checks", format="d", column=True),
            Value("failures", "failed", type="text"),
            Value("systems", "systems", type="text", column=True),
            Value("recommended_displacement_angstrom", "best displacement for frequencies", "A", ".3g"),
            Value("recommended_third_order_displacement_angstrom", "best displacement, third order", "A", ".3g"),
            *_MEASURED,
        ),
        files=(ResultFile("audit.png", shows_several=True),),
        command="audit",
        help="Audit of a force field: conservation, smoothness, symmetry; a verdict that campaigns can require.",
        published={"quick": quick_protocol, "full": full_protocol, "published": published_protocol},
        steps=audit_steps,
        principal=lambda protocol: "failed_checks",
        subject="model",
        reproduction={
            "float64": Deviation("the same checks fail", absolute=0.0),
            "float32": Deviation("the same checks fail", absolute=0.0),
        },
    ),
    "labelling": Property(
        title="labelled dataset",
        protocol=LabellingProtocol,
        category="gpu",
        summary=(
            _DATASET_NAME,
            _STRUCTURES,
            Value("atoms", "atoms", format="d", column=True),
            Value("dataset_key", "dataset key", type="text"),
        ),
        subject="dataset",
    ),
    "training": Property(
        title="training",
        protocol=TrainingProtocol,
        category="gpu",
        summary=(
            Value("name", "name", type="text", column=True),
            Value("structures", "structures trained on", format="d", column=True),
            Value("steps", "steps", format="d", column=True),
            Value("training_seconds", "time of the steps", "s", ".0f"),
            *_ERRORS,
            Value("model_key", "model key", type="text"),
        ),
        subject="dataset",
    ),
    "evaluation": Property(
        title="errors on a dataset",
        protocol=EvaluationProtocol,
        category="gpu",
        summary=(_DATASET_NAME, _STRUCTURES, *_ERRORS),
        subject="dataset",
    ),
}
# Kinds that users ask for, in the order of commands.
OFFERED: tuple[Kind, ...] = tuple(kind for kind, entry in PROPERTIES.items() if entry.command)
