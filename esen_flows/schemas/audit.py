"""Audits of force fields: their protocols and documents. A verdict follows from an audit without a force call."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated, Any, ClassVar

from pydantic import BeforeValidator, Field, NonNegativeInt, PositiveFloat, PositiveInt, create_model

from esen_flows.schemas.audit_measures import MEASUREMENTS, MEASURES, NVE
from esen_flows.schemas.declarations import Dtype, Equivariance, Parity
from esen_flows.schemas.document_base import Document
from esen_flows.schemas.force_symmetry import ForceSymmetry
from esen_flows.schemas.frozen import Frozen
from esen_flows.schemas.nve import NveOutput, NveProtocol
from esen_flows.schemas.property_entry import Step
from esen_flows.schemas.protocol_types import one_or_more

Row = dict[str, float | str | bool | None]
PASSED, FAILED = "passed", "failed"


class MeasurementsProtocol(Frozen):
    """What is evaluated to measure a force field.

    Attributes
    ----------
    systems
        Names of crystals (`physics.conservation.systems`); None, the default, for some that the force field covers.
    count
        Number of these.
    parity
        Whether the force field is averaged over the inversion; "as_is", the default, measures its own mirror error.
    rattle_angstrom
        Standard deviation of the displacements where atoms must not be at symmetric positions.
    rotations, loops
        Number of random rotations and closed paths for each system.
    displacements_angstrom
        Displacements at which finite differences are compared with exact derivatives.
    seed
        Seed of all random choices.
    force_symmetry
        Average over rotations and projection with which the force field is measured, along the axes of the perfect
        crystals; None, the default, measures it as it is.
    """

    added_later: ClassVar[frozenset[str]] = frozenset({"force_symmetry"})

    systems: Annotated[tuple[str, ...], BeforeValidator(one_or_more), Field(min_length=1)] | None = None
    count: PositiveInt = 2
    parity: Parity = "as_is"
    rattle_angstrom: PositiveFloat = 0.05
    rotations: PositiveInt = 4
    loops: PositiveInt = 2
    displacements_angstrom: Annotated[tuple[PositiveFloat, ...], BeforeValidator(one_or_more)] = Field(
        default=(0.2, 0.1, 0.03, 0.01, 0.003, 0.001), min_length=1
    )
    seed: NonNegativeInt = 0
    force_symmetry: ForceSymmetry | None = None


class _Limits(Frozen):
    """Largest values of measures in the place of the default limits; None: the default one."""

    def key_fields(self) -> dict[str, Any]:
        """The limits that are given, so that a new measure leaves old keys as they are."""
        return {name: value for name, value in super().key_fields().items() if value is not None}


if TYPE_CHECKING:
    Limits = _Limits
else:  # one field for each measure
    _FIELDS = {name: (float | None, Field(default=None, ge=0.0)) for name in MEASURES}
    _MEANINGS = "\n".join(f"{name}\n    Largest value of: {one.title}." for name, one in MEASURES.items())
    _DOC = f"{_Limits.__doc__}\n\nAttributes\n----------\n{_MEANINGS}\n"
    Limits = create_model("Limits", __base__=_Limits, __doc__=_DOC, __module__=__name__, **_FIELDS)


class VerdictProtocol(Frozen):
    """The part of an AuditProtocol that needs no force call; it is part of the key of a verdict.

    Attributes
    ----------
    limits
        Largest values of measures in the place of the default limits (`audit_measures.MEASURES`), which depend on the
        precision.
    """

    limits: Limits = Limits()

    def limits_for(self, dtype: Dtype) -> dict[str, float]:
        """The limits of all measures that are judged.

        Parameters
        ----------
        dtype
            Precision of the audited force field.

        Returns
        -------
        dict[str, float]
            Limits by measure.

        Examples
        --------
        >>> VerdictProtocol().limits_for("float64")["jacobian_asymmetry"]
        1e-08
        """
        defaults = {name: limit for name, one in MEASURES.items() if (limit := one.limit(dtype)) is not None}
        return {**defaults, **self.limits.key_fields()}


class AuditProtocol(VerdictProtocol):
    """Audit of a force field: measurements, and a verdict on them.

    Attributes
    ----------
    measurements
        What is measured; the default, "quick", takes a minute or two for a small network on a CPU.
    nve
        Trajectories at constant energy; None, the default, for none.
    """

    added_later: ClassVar[frozenset[str]] = frozenset({"nve"})
    measurements: MeasurementsProtocol = MeasurementsProtocol()
    nve: NveProtocol | None = None


def quick_protocol(info: Mapping[str, Any]) -> AuditProtocol:
    """Two systems.

    Parameters
    ----------
    info
        Not used.

    Returns
    -------
    AuditProtocol
        The protocol, which is the default.
    """
    return AuditProtocol()


def full_protocol(info: Mapping[str, Any]) -> AuditProtocol:
    """Four systems, more rotations, loops and displacements, and 10 ps at constant energy.

    Parameters
    ----------
    info
        Not used.

    Returns
    -------
    AuditProtocol
        The protocol.
    """
    displacements = (0.2, 0.1, 0.05, 0.03, 0.02, 0.01, 0.005, 0.003, 0.002, 0.001)
    return AuditProtocol(
        measurements=MeasurementsProtocol(count=4, rotations=16, loops=8, displacements_angstrom=displacements),
        nve=NveProtocol(),
    )


def published_protocol(info: Mapping[str, Any]) -> AuditProtocol:
    """The measurements of "full", and the trajectories of the eSEN paper, for GPUs.

    Parameters
    ----------
    info
        Not used.

    Returns
    -------
    AuditProtocol
        The protocol.
    """
    nve = NveProtocol(systems="published", duration_ps=100.0, half_step_ps=0.0)
    return full_protocol(info).model_copy(update={"nve": nve})


def audit_steps(protocol: AuditProtocol) -> tuple[Step, ...]:
    """The steps to a verdict.

    Parameters
    ----------
    protocol
        Protocol of the audit.

    Returns
    -------
    tuple[Step, ...]
        The measurements, trajectories at constant energy where they are asked for, and the verdict, which makes no
        force call.
    """
    measurements, verdict = Step(MEASUREMENTS, protocol.measurements), VerdictProtocol.of(protocol)
    if protocol.nve is None:
        return measurements, Step("audit", verdict, (("", 0),))
    return measurements, Step(NVE, protocol.nve), Step("audit", verdict, ((MEASUREMENTS, 0), (NVE, 1)))


class MeasurementsOutput(Document):
    """Measurements of a force field.

    Attributes
    ----------
    conservative, equivariance, smooth
        What it declares.
    dtype
        Precision of its arithmetic.
    systems
        Names of the crystals.
    measurements
        `measure`, `system` and `value` of each number, in the units of `audit_measures.MEASURES`.
    not_measured
        `measure`, `system` and `reason` of each number that could not be measured.
    displacements_angstrom
        Displacements of finite differences in Angstrom.
    frequency_errors
        By precision, the largest error of a frequency at each displacement over all systems, relative to the highest
        frequency.
    third_derivative_errors
        The same of the second derivative of the forces along a random direction, relative to its norm.
    recommended_displacement_angstrom
        By precision, the largest displacement in Angstrom at which frequencies are about as good as they get.
    recommended_third_order_displacement_angstrom
        The same for third derivatives.
    """

    conservative: bool
    equivariance: Equivariance
    smooth: bool
    dtype: Dtype
    systems: list[str]
    measurements: list[Row]
    not_measured: list[Row]
    displacements_angstrom: list[float]
    frequency_errors: dict[str, list[float]]
    third_derivative_errors: dict[str, list[float]]
    recommended_displacement_angstrom: dict[str, float]
    recommended_third_order_displacement_angstrom: dict[str, float]

    def worst(self) -> dict[str, Row]:
        """The largest value of each measure.

        Returns
        -------
        dict[str, Row]
            Rows of `measurements` by measure, in the order of the table of measures.
        """
        found: dict[str, Row] = {}
        for row in self.measurements:
            name = str(row["measure"])
            if name not in found or _number(row) > _number(found[name]):
                found[name] = row
        return {name: found[name] for name in MEASURES if name in found}

    def summary(self) -> dict[str, float | int | str | bool | None]:
        """The largest value of each measure.

        Returns
        -------
        dict[str, float | int | str | bool | None]
            Values by name.
        """
        return {"systems": ", ".join(self.systems), **{name: _number(row) for name, row in self.worst().items()}}


class AuditOutput(Document):
    """Whether a force field keeps the limits.

    Attributes
    ----------
    verdict
        "passed" or "failed".
    dtype
        Precision of the force field's arithmetic.
    systems
        Names of the crystals.
    checks
        `measure`, `system` of the largest value, `value`, `limit`, `unit`, `passed`, and `source` of the limit.
    not_judged
        Names of measures whose declared property the force field does not have.
    not_measured
        Names of measures that have a limit but could not be measured.
    displacements_angstrom, frequency_errors, third_derivative_errors
        As in `MeasurementsOutput`, for figures.
    recommended_displacement_angstrom
        The largest displacement in Angstrom at which frequencies are about as good as they get in this precision; None
        if it was not measured.
    recommended_third_order_displacement_angstrom
        The same for third derivatives.
    """

    verdict: str
    dtype: Dtype
    systems: list[str]
    checks: list[Row]
    not_judged: list[str]
    not_measured: list[str]
    displacements_angstrom: list[float]
    frequency_errors: dict[str, list[float]]
    third_derivative_errors: dict[str, list[float]]
    recommended_displacement_angstrom: float | None
    recommended_third_order_displacement_angstrom: float | None

    def failures(self) -> list[str]:
        """The checks that failed.

        Returns
        -------
        list[str]
            Measure, value and limit of each, the worst first.
        """
        failed = [check for check in self.checks if not check["passed"]]
        failed.sort(key=lambda check: -_number(check) / max(float(check["limit"] or 0.0), 1e-12))
        return [f"{one['measure']} {_number(one):.2g} > {one['limit']:g} ({one['system']})" for one in failed]

    def summary(self) -> dict[str, float | int | str | bool | None]:
        """Verdict, failed checks, recommended displacements, and the value of each check.

        Returns
        -------
        dict[str, float | int | str | bool | None]
            Values by name.
        """
        failures = self.failures()
        return {
            "verdict": self.verdict,
            "systems": ", ".join(self.systems),
            "checks": len(self.checks),
            "failed_checks": len(failures),
            "failures": "; ".join(failures) or None,
            "recommended_displacement_angstrom": self.recommended_displacement_angstrom,
            "recommended_third_order_displacement_angstrom": self.recommended_third_order_displacement_angstrom,
            **{str(check["measure"]): _number(check) for check in self.checks},
        }


def judge(measured: MeasurementsOutput, protocol: VerdictProtocol, nve: NveOutput | None = None) -> AuditOutput:
    """Apply limits to measurements.

    Parameters
    ----------
    measured
        The measurements.
    protocol
        The limits.
    nve
        Trajectories at constant energy; None: there are none, which is no failure.

    Returns
    -------
    AuditOutput
        Passed if something was measured and no measured value that is judged exceeds its limit; NaN exceeds every
        limit.
    """
    limits = protocol.limits_for(measured.dtype)
    if nve is not None:
        measured = measured.model_copy(update={"measurements": measured.measurements + _nve_rows(nve)})
    worst, checks, not_judged, missing = measured.worst(), list[Row](), list[str](), list[str]()
    for name, measure in MEASURES.items():
        limit = limits.get(name)
        if limit is None or (measure.step == NVE and nve is None):
            continue
        if name not in worst:
            missing.append(name)
        elif not _applies(measure.judged, measured.equivariance):
            not_judged.append(name)
        else:
            value = _number(worst[name])
            source = measure.source if limit == measure.limit(measured.dtype) else "given with the request"
            checks.append(
                {**worst[name], "limit": limit, "unit": measure.unit, "passed": value <= limit, "source": source}
            )
    verdict = PASSED if checks and all(check["passed"] for check in checks) else FAILED
    return AuditOutput(
        verdict=verdict,
        dtype=measured.dtype,
        systems=measured.systems,
        checks=checks,
        not_judged=not_judged,
        not_measured=missing,
        displacements_angstrom=measured.displacements_angstrom,
        frequency_errors=measured.frequency_errors,
        third_derivative_errors=measured.third_derivative_errors,
        recommended_displacement_angstrom=measured.recommended_displacement_angstrom.get(measured.dtype),
        recommended_third_order_displacement_angstrom=measured.recommended_third_order_displacement_angstrom.get(
            measured.dtype
        ),
    )


def _nve_rows(nve: NveOutput) -> list[Row]:
    """The trajectories as measurements: all that ended, and the number of those that did not."""
    rows: list[Row] = [{"measure": "nve_failures", "system": "all", "value": float(nve.failures)}]
    for run in nve.runs:
        if run.drift is not None:
            slope = abs(run.drift.slope_mev_per_atom_ps) / 1000.0
            name = f"{run.system}, {run.temperature_kelvin:.0f} K, {run.time_step_fs:g} fs"
            rows.append({"measure": "nve_drift_ev_per_atom_ps", "system": name, "value": slope})
            rows.append({"measure": "nve_drift_ratio", "system": name, "value": run.drift.mlipaudit_drift_ratio})
    return rows


def _applies(judged: str, equivariance: str) -> bool:
    return judged == "always" or equivariance == "O3" or (judged == "not approximate" and equivariance == "SO3")


def _number(row: Mapping[str, Any]) -> float:
    value = row["value"]
    return float("inf") if value is None or value != value else float(value)  # NaN is not equal to itself
