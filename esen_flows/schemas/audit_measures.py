"""What an audit measures, and the limits of a verdict with their sources."""

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Literal

from esen_flows.schemas.declarations import Dtype

# Which declared property makes a measure part of the verdict; without it the number is reported alone.
Judged = Literal["always", "O3", "not approximate"]
StepKind = Literal["measurements", "nve"]
MEASUREMENTS: StepKind = "measurements"
NVE: StepKind = "nve"

_MLPEG = "ml-peg's definition; limits of {} for float64 and {} for float32 are this package's"
_CONTRACT = "tolerance of esen_flows.testing.check_force_field"
_OWN = "this package: well above what smooth conservative networks measure, far below what direct ones do"


@dataclass(frozen=True)
class Measure:
    """One number of an audit; the smaller, the better.

    Attributes
    ----------
    title
        What it is, for people.
    unit
        Its unit; empty for a ratio.
    float64
        Largest value with which a force field that computes in float64 passes; None: not judged.
    float32
        The same for one that computes in float32.
    source
        Where the limit comes from.
    judged
        Declared property without which the number is reported but not judged.
    step
        Kind of the step of an audit that measures it.
    """

    title: str
    unit: str
    float64: float | None
    float32: float | None
    source: str
    judged: Judged = "always"
    step: StepKind = MEASUREMENTS

    def limit(self, dtype: Dtype) -> float | None:
        """The default limit.

        Parameters
        ----------
        dtype
            Precision of the arithmetic.

        Returns
        -------
        float | None
            The limit in the unit of the measure; None where it is not judged.
        """
        return self.float64 if dtype == "float64" else self.float32


MEASURES: Mapping[str, Measure] = MappingProxyType(
    {
        "jacobian_asymmetry": Measure(
            "asymmetry of dF/dx by differences", "", 1e-8, 1e-3, _MLPEG.format("1e-8", "1e-3")
        ),
        "jacobian_asymmetry_exact": Measure(
            "asymmetry of the exact Hessian", "", 1e-10, 1e-5, "rounding of symmetric products"
        ),
        "loop_work_relative": Measure("work around closed loops", "", 1e-8, 1e-3, _OWN),
        "gradient_error": Measure("forces less -dE/dx", "", 1e-6, 1e-2, _CONTRACT + " in float64"),
        "stress_error_ev_per_angstrom3": Measure(
            "stress less dE/dstrain", "eV/A^3", 1e-6, 1e-2, _CONTRACT + " in float64"
        ),
        "net_force": Measure("net force of a cluster", "", 1e-9, 2e-4, _CONTRACT),
        "net_torque": Measure("torque of a cluster", "", 1e-9, 2e-4, _CONTRACT, "not approximate"),
        "locality_ev_per_angstrom": Measure("forces by atoms beyond all cutoffs", "eV/A", 1e-9, 2e-4, _CONTRACT),
        "extensivity_ev_per_atom": Measure("energy of two copies", "eV/atom", 1e-9, 2e-4, _CONTRACT),
        "translation": Measure("translations", "", 1e-9, 2e-4, _CONTRACT),
        "permutation": Measure("permutations of atoms", "", 1e-9, 2e-4, _CONTRACT),
        "periodic_images": Measure("other periodic images of atoms", "", 1e-9, 2e-4, _CONTRACT),
        "left_handed_cell": Measure("left-handed cell", "", 1e-9, 2e-4, _CONTRACT),
        "oblique_cell": Measure("other lattice vectors", "", 1e-9, 2e-4, _CONTRACT),
        "rotation": Measure("rotations", "", 1e-9, 2e-4, _CONTRACT, "not approximate"),
        "rotation_mae_ev_per_angstrom": Measure(
            "forces under rotation, mean absolute error", "eV/A", 1e-3, 1e-3, "mlip-arena: equivariant below 1e-3 eV/A"
        ),
        "inversion": Measure("mirror images", "", 1e-9, 2e-4, _CONTRACT, "O3"),
        "batch": Measure("in a batch and alone", "", 1e-9, 2e-4, _CONTRACT),
        "batch_neighbors": Measure("neighbours in a batch and alone", "", 0.0, 0.0, "this package: the same numbers"),
        "residual_force_ev_per_angstrom": Measure(
            "forces of perfect crystals", "eV/A", 1e-4, 1e-4, "force criterion of the general relaxation"
        ),
        "residual_stress_ev_per_angstrom3": Measure(
            "anisotropic stress of perfect cubic crystals",
            "eV/A^3",
            1e-4,
            1e-4,
            "1e-4 eV/A^3 = 0.016 GPa; this package",
        ),
        "energy_jump_ev": Measure("jump of the energy on a path", "eV", 1e-6, 1e-4, _OWN),
        "force_jump_ev_per_angstrom": Measure("jump of forces on a path", "eV/A", 1e-3, 1e-3, _OWN),
        "cutoff_energy_jump_ev": Measure("jump of the energy at the cutoff", "eV", 1e-6, 1e-4, _OWN),
        "cutoff_force_jump_ev_per_angstrom": Measure("jump of forces at the cutoff", "eV/A", 1e-3, 1e-3, _OWN),
        "bond_scan_extra_minima": Measure(
            "minima of a stretched bond beyond the first", "", 0.0, 0.0, "ml-peg, physicality: good is none"
        ),
        "bond_scan_work_error_ev": Measure(
            "energy less work along a stretched bond", "eV", 1e-2, 1e-2, "mlipgauge: 1e-2 eV, there for each atom"
        ),
        "frequency_error": Measure(
            "frequencies by displacements of 0.01 A", "", 0.01, 0.01, "this package: 1 % of the highest frequency"
        ),
        "third_derivative_error": Measure(
            "third derivative by displacements of 0.03 A", "", 0.2, 0.2, "this package: 20 % of the derivative"
        ),
        "nve_drift_ev_per_atom_ps": Measure(
            "drift of the energy at constant energy",
            "eV/atom/ps",
            5e-4,
            5e-4,
            "LAMBench: 3 sigma of MACE-MPA-0",
            step=NVE,
        ),
        "nve_drift_ratio": Measure(
            "drift over the run / spread of the kinetic energy",
            "",
            1.0,
            1.0,
            "MLIPAudit: soft threshold of its score",
            step=NVE,
        ),
        "nve_failures": Measure(
            "trajectories at constant energy that failed", "", 0.0, 0.0, "LAMBench: worst score", step=NVE
        ),
        "precision_force_ev_per_angstrom": Measure("forces in float32 less float64", "eV/A", None, 1e-3, _OWN),
    }
)
