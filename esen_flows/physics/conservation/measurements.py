"""All measurements of a force field that need no dynamics, as one document."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
from ase import Atoms

from esen_flows.errors import EvaluationError, StructureError
from esen_flows.forcefield.contract import Evaluation, ForceField
from esen_flows.physics.conservation import convergence, derivatives, isolation, jacobian, smoothness, symmetry
from esen_flows.physics.conservation.systems import crystal
from esen_flows.physics.force_symmetry import along, symmetrized
from esen_flows.schemas.audit import MeasurementsOutput, MeasurementsProtocol, Row
from esen_flows.schemas.declarations import Dtype

Progress = Callable[[int, int, str], None]
# In single precision differences over short steps are noise.
JACOBIAN_STEP_ANGSTROM = {"float64": 3e-4, "float32": 1e-2}
GRADIENT_STEP_ANGSTROM, STRAIN_STEP = 2e-3, 5e-4
# An energy that is not smooth may bend or jump inside of a longer step.
NOT_SMOOTH = 0.1
LOOP_RADIUS_ANGSTROM, LOOP_POINTS = 4e-3, 32
PATH_ANGSTROM, PATH_POINTS = 1.0, 64
BOND_POINTS = 49  # with 25 the work along a bond of MgO misses 0.014 eV, more than its limit
CLUSTER_ATOMS = 8
# Displacements in Angstrom at which the errors of finite differences are judged.
SECOND_ORDER_ANGSTROM, THIRD_ORDER_ANGSTROM = 0.01, 0.03


def measure(
    force_field: ForceField,
    protocol: MeasurementsProtocol,
    other: ForceField | None = None,
    progress: Progress = lambda done, total, words: None,
) -> MeasurementsOutput:
    """Measure conservation, smoothness and symmetry of a force field.

    Parameters
    ----------
    force_field
        Force field to measure.
    protocol
        What is evaluated; its systems have to be named.
    other
        The same force field in the other precision; None if there is none. Exact derivatives are those in float64.
    progress
        Called before each group of measurements with its number, the number of groups, and its name.

    Returns
    -------
    MeasurementsOutput
        The measurements.

    Raises
    ------
    InputError
        A crystal of the protocol is unknown, or the force field does not know its elements.
    EvaluationError
        The force field gave NaN or infinity.
    """
    measured = symmetrized(force_field, protocol.parity, protocol.force_symmetry)
    systems = protocol.systems or ()
    by_dtype = {
        one.declaration.dtype: symmetrized(one, protocol.parity, protocol.force_symmetry)
        for one in (other, force_field)
        if one is not None
    }
    rows = _Rows()
    curves: dict[str, dict[str, list[np.ndarray]]] = {"frequency": {}, "third": {}}
    for number, name in enumerate(systems):
        rows.system = name
        system = _System.of(name, number, rows, measured, protocol)
        groups: dict[str, Callable[[], None]] = {
            "symmetry": system.symmetry,
            "conservation": system.conservation,
            "isolation": system.isolation,
            "smoothness": system.smoothness,
            "displacements": partial(system.displacements, by_dtype, curves),
        }
        for place, (words, group) in enumerate(groups.items()):
            progress(number * len(groups) + place, len(systems) * len(groups), f"{name}: {words}")
            group()
    declared = measured.declaration
    errors = {
        what: {dtype: np.max(all_of, axis=0) for dtype, all_of in found.items()} for what, found in curves.items()
    }
    best = {
        what: {
            dtype: convergence.recommended_displacement(protocol.displacements_angstrom, one)
            for dtype, one in found.items()
        }
        for what, found in errors.items()
    }
    return MeasurementsOutput(
        conservative=declared.conservative,
        equivariance=declared.equivariance,
        smooth=declared.smooth,
        dtype=declared.dtype,
        systems=list(systems),
        measurements=rows.rows,
        not_measured=rows.missing,
        displacements_angstrom=list(protocol.displacements_angstrom),
        frequency_errors={dtype: one.tolist() for dtype, one in errors["frequency"].items()},
        third_derivative_errors={dtype: one.tolist() for dtype, one in errors["third"].items()},
        recommended_displacement_angstrom=best["frequency"],
        recommended_third_order_displacement_angstrom=best["third"],
    )


class _Rows:
    """Collects the measurements, system by system."""

    def __init__(self) -> None:
        self.rows: list[Row] = []
        self.missing: list[Row] = []
        self.system = ""

    def add(self, **values: float) -> None:
        """Note values by the names of their measures."""
        self.rows += [{"measure": name, "system": self.system, "value": float(value)} for name, value in values.items()]

    def lack(self, reason: str, *names: str) -> None:
        """Note why measures have no value."""
        self.missing += [{"measure": name, "system": self.system, "reason": reason} for name in names]


@dataclass(frozen=True)
class _System:
    """The measurements of one crystal."""

    rows: _Rows
    force_field: ForceField
    protocol: MeasurementsProtocol
    perfect: Atoms
    rattled: Atoms
    result: Evaluation
    random: np.random.Generator

    @classmethod
    def of(
        cls, name: str, number: int, rows: _Rows, force_field: ForceField, protocol: MeasurementsProtocol
    ) -> "_System":
        """The crystal of this name, with random choices of its own."""
        perfect, random = crystal(name), np.random.default_rng([protocol.seed, number])
        force_field = along(force_field, perfect)
        rattled = derivatives.moved(perfect, random.normal(scale=protocol.rattle_angstrom, size=(len(perfect), 3)))
        (result,) = force_field.evaluate([rattled])
        return cls(rows, force_field, protocol, perfect, rattled, result, random)

    def symmetry(self) -> None:
        images = symmetry.image_differences(self.force_field, self.rattled, self.result, self.random)
        self.rows.add(**{name.replace(" ", "_").replace("-", "_"): value for name, value in images.items()})
        error = symmetry.rotation_force_error(
            self.force_field, self.rattled, self.result, self.random, self.protocol.rotations
        )
        self.rows.add(rotation_mae_ev_per_angstrom=error)
        force, stress = symmetry.residuals(self.force_field, self.perfect)
        self.rows.add(residual_force_ev_per_angstrom=force)
        if np.isfinite(stress):
            self.rows.add(residual_stress_ev_per_angstrom3=stress)
        else:
            self.rows.lack("the force field has no stress", "residual_stress_ev_per_angstrom3")
        together = list(self._for_batches())
        self.rows.add(batch=max(symmetry.batch_differences(self.force_field, together)))
        neighbors = symmetry.neighbor_differences(self.force_field, together, np.random.default_rng(self.protocol.seed))
        if neighbors is None:
            self.rows.lack("the force field finds its neighbours itself", "batch_neighbors")
        else:
            self.rows.add(batch_neighbors=max(neighbors))

    def _for_batches(self) -> Iterator[Atoms]:
        """Structures that batched evaluations have got wrong elsewhere, as far as the force field takes them."""
        slab = self.rattled.repeat((1, 1, 2))
        slab.pbc = [True, True, False]
        slab.center(vacuum=1.0, axis=2)  # a search that wraps this axis too finds more neighbours
        box = isolation.cluster(self.rattled, CLUSTER_ATOMS)
        molecule = Atoms(box.numbers, positions=box.positions)
        images = {image.name: image.atoms for image in symmetry.symmetric_images(self.rattled, self.random)}
        cases = {"crystal": self.rattled, "slab": slab, "molecule": molecule, "cluster in a box": box}
        for name, atoms in {
            **cases,
            **{name: images[name] for name in ("periodic images", "left-handed cell")},
        }.items():
            try:
                self.force_field.evaluate([atoms])
            except StructureError as error:
                self.rows.lack(f"{name}: {error}", "batch")
            else:
                yield atoms

    def conservation(self) -> None:
        declared = self.force_field.declaration
        shorter = 1.0 if declared.smooth else NOT_SMOOTH
        step = JACOBIAN_STEP_ANGSTROM[declared.dtype]
        matrix = jacobian.jacobian_by_differences(
            self.force_field, self.rattled, step * (shorter if step < 1e-2 else 1.0)
        )
        self.rows.add(jacobian_asymmetry=jacobian.asymmetry(matrix))
        if declared.differentiable:
            self.rows.add(
                jacobian_asymmetry_exact=jacobian.asymmetry(convergence.exact_hessian(self.force_field, self.rattled))
            )
        else:
            self.rows.lack("the force field has no exact second derivatives", "jacobian_asymmetry_exact")
        loops = [
            jacobian.loop_work(self.force_field, self.rattled, self.random, LOOP_RADIUS_ANGSTROM, LOOP_POINTS)[1]
            for _ in range(self.protocol.loops)
        ]
        self.rows.add(loop_work_relative=max(loops))
        directions, step = jacobian.unit_directions(self.rattled), GRADIENT_STEP_ANGSTROM * shorter
        self.rows.add(
            gradient_error=derivatives.gradient_error(self.force_field, self.rattled, self.result, directions, step)
        )
        if np.isfinite(self.result.stress).all():
            error = derivatives.strain_error(
                self.force_field, self.rattled, self.result, self.random, STRAIN_STEP * shorter
            )
            self.rows.add(stress_error_ev_per_angstrom3=error)
        else:
            self.rows.lack("the force field has no stress", "stress_error_ev_per_angstrom3")

    def isolation(self) -> None:
        self.rows.add(extensivity_ev_per_atom=isolation.extensivity(self.force_field, self.rattled))
        try:
            cluster = isolation.cluster(self.rattled, CLUSTER_ATOMS)
            net_force, net_torque = isolation.net_force_and_torque(self.force_field, cluster)
            change, energy = isolation.far_influence(self.force_field, cluster)
        except (StructureError, EvaluationError) as error:
            self.rows.lack(f"cluster in a box: {error}", "net_force", "net_torque", "locality_ev_per_angstrom")
            return
        self.rows.add(net_force=net_force, net_torque=net_torque, locality_ev_per_angstrom=change)
        self.rows.add(extensivity_ev_per_atom=energy)

    def smoothness(self) -> None:
        direction = np.zeros((len(self.rattled), 3))
        direction[0] = self.random.normal(size=3)
        direction /= np.linalg.norm(direction)
        jump = smoothness.largest_jump(self.force_field, self.rattled, direction, PATH_ANGSTROM, PATH_POINTS)
        self.rows.add(energy_jump_ev=jump.energy_ev, force_jump_ev_per_angstrom=jump.force_ev_per_angstrom)
        at_cutoff = smoothness.cutoff_jump(self.force_field, self.rattled)
        if at_cutoff is None:
            names = "cutoff_energy_jump_ev", "cutoff_force_jump_ev_per_angstrom"
            self.rows.lack("no cutoff is declared, or no two atoms are near to it", *names)
        else:
            self.rows.add(cutoff_energy_jump_ev=at_cutoff.energy_ev)
            self.rows.add(cutoff_force_jump_ev_per_angstrom=at_cutoff.force_ev_per_angstrom)
        minima, error = smoothness.bond_scan(self.force_field, self.perfect, BOND_POINTS)
        self.rows.add(bond_scan_extra_minima=minima, bond_scan_work_error_ev=error)

    def displacements(self, by_dtype: dict[Dtype, ForceField], curves: dict[str, dict[str, list[np.ndarray]]]) -> None:
        """Errors of finite differences in each precision against exact derivatives in float64."""
        if "float64" not in by_dtype:
            names = "frequency_error", "third_derivative_error", "precision_force_ev_per_angstrom"
            self.rows.lack("the force field does not compute in float64", *names)
            return
        hessian = convergence.exact_hessian(by_dtype["float64"], self.perfect)
        direction = self.random.normal(size=(len(self.rattled), 3))
        direction /= np.linalg.norm(direction)
        third = convergence.exact_third_derivative(by_dtype["float64"], self.rattled, direction)
        measured = list(by_dtype)[-1]
        for dtype, one in by_dtype.items():
            first = _errors_at(
                convergence.frequency_errors, SECOND_ORDER_ANGSTROM, self.protocol, one, self.perfect, hessian
            )
            second = _errors_at(
                convergence.third_derivative_errors,
                THIRD_ORDER_ANGSTROM,
                self.protocol,
                one,
                self.rattled,
                direction,
                third,
            )
            curves["frequency"].setdefault(dtype, []).append(first[0])
            curves["third"].setdefault(dtype, []).append(second[0])
            if dtype == measured:
                self.rows.add(frequency_error=first[1], third_derivative_error=second[1])
        if len(by_dtype) > 1:
            single, double = (by_dtype[dtype].evaluate([self.rattled])[0].forces for dtype in ("float32", "float64"))
            self.rows.add(precision_force_ev_per_angstrom=float(np.abs(single - double).max()))


def _errors_at(
    function: Callable[..., np.ndarray], judged: float, protocol: MeasurementsProtocol, *arguments: Any
) -> tuple[np.ndarray, float]:
    """Errors at the displacements of the protocol, and at the one that is judged."""
    displacements = protocol.displacements_angstrom
    errors = function(*arguments, (*displacements, judged))
    return errors[:-1], float(errors[-1])
