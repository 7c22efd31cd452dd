"""Audits of force fields: their protocols and documents. A verdict follows from an audit without a force call."""

from collections.abc import Mapping
from typing import Annotated, Any

from pydantic import BeforeValidator, Field, NonNegativeInt, PositiveFloat, PositiveInt, field_validator

from esen_flows.schemas.audit_measures import MEASURES
from esen_flows.schemas.declarations import Dtype, Equivariance, Parity
from esen_flows.schemas.document_base import Document
from esen_flows.schemas.frozen import Frozen
from esen_flows.schemas.protocols import one_or_more

Row = dict[str, float | str | bool | None]
PASSED, FAILED = "passed", "failed"


class AuditProtocol(Frozen):
    """What an audit evaluates.

    Attributes
    ----------
    systems
        Names of crystals (`physics.conservation.systems`).
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
    """

    systems: Annotated[tuple[str, ...], BeforeValidator(one_or_more)] = Field(min_length=1)
    parity: Parity = "as_is"
    rattle_angstrom: PositiveFloat = 0.05
    rotations: PositiveInt = 4
    loops: PositiveInt = 2
    displacements_angstrom: Annotated[tuple[PositiveFloat, ...], BeforeValidator(one_or_more)] = (
        0.2, 0.1, 0.03, 0.01, 0.003, 0.001,
    )  # fmt: skip
    seed: NonNegativeInt = 0


class VerdictProtocol(Frozen):
    """Limits that a force field has to keep.

    Attributes
    ----------
    limits
        Largest values of measures (`audit_measures.MEASURES`); a measure without a limit is not judged.
    """

    limits: dict[str, float]

    @field_validator("limits")
    @classmethod
    def _known(cls, value: dict[str, float]) -> dict[str, float]:
        if unknown := sorted(set(value) - set(MEASURES)):
            raise ValueError(f"no measure {', '.join(unknown)}; there are {', '.join(MEASURES)}")
        if negative := [name for name, limit in value.items() if limit < 0]:
            raise ValueError(f"a limit is at least 0, got {', '.join(f'{name}={value[name]:g}' for name in negative)}")
        return dict(sorted(value.items()))


def verdict_protocol(dtype: Dtype, changed: Mapping[str, float] | None = None) -> VerdictProtocol:
    """The limits for a precision.

    Parameters
    ----------
    dtype
        Precision of the audited force field.
    changed
        Limits in the place of the defaults.

    Returns
    -------
    VerdictProtocol
        Limits of all measures that are judged.

    Examples
    --------
    >>> verdict_protocol("float64").limits["jacobian_asymmetry"]
    1e-08
    """
    limits = {name: limit for name, one in MEASURES.items() if (limit := one.limit(dtype)) is not None}
    return VerdictProtocol(limits={**limits, **(changed or {})})


class AuditOutput(Document):
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

    def summary(self, name: str) -> dict[str, float | int | str | bool | None]:
        """The largest value of each measure, and the recommended displacements.

        Parameters
        ----------
        name
            Name of the force field for people.

        Returns
        -------
        dict[str, float | int | str | bool | None]
            Values by name.
        """
        return {
            "name": name,
            "systems": ", ".join(self.systems),
            **{measure: _number(row) for measure, row in self.worst().items()},
            "recommended_displacement_angstrom": self.recommended_displacement_angstrom.get(self.dtype),
            "recommended_third_order_displacement_angstrom": self.recommended_third_order_displacement_angstrom.get(
                self.dtype
            ),
        }


class VerdictOutput(Document):
    """Whether a force field keeps the limits.

    Attributes
    ----------
    verdict
        "passed" or "failed".
    checks
        `measure`, `system` of the largest value, `value`, `limit`, `unit`, `passed`, and `source` of the limit.
    not_judged
        Names of measures whose declared property the force field does not have.
    not_measured
        Names of measures that have a limit but could not be measured.
    """

    verdict: str
    checks: list[Row]
    not_judged: list[str]
    not_measured: list[str]

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

    def summary(self, name: str) -> dict[str, float | int | str | bool | None]:
        """Verdict, number of checks, and the failed ones.

        Parameters
        ----------
        name
            Name of the force field for people.

        Returns
        -------
        dict[str, float | int | str | bool | None]
            Values by name.
        """
        failures = self.failures()
        return {
            "name": name,
            "verdict": self.verdict,
            "checks": len(self.checks),
            "failed": len(failures),
            "failures": "; ".join(failures),
        }


def judge(audit: AuditOutput, protocol: VerdictProtocol) -> VerdictOutput:
    """Apply limits to an audit.

    Parameters
    ----------
    audit
        The measurements.
    protocol
        The limits.

    Returns
    -------
    VerdictOutput
        Passed if no measured value that is judged exceeds its limit; NaN exceeds every limit.
    """
    worst, checks, not_judged, missing = audit.worst(), list[Row](), list[str](), list[str]()
    for name, measure in MEASURES.items():
        limit = protocol.limits.get(name)
        if limit is None:
            continue
        if name not in worst:
            missing.append(name)
        elif not _applies(measure.judged, audit.equivariance):
            not_judged.append(name)
        else:
            value = _number(worst[name])
            source = measure.source if limit == measure.limit(audit.dtype) else "given with the request"
            checks.append(
                {**worst[name], "limit": limit, "unit": measure.unit, "passed": value <= limit, "source": source}
            )
    verdict = PASSED if all(check["passed"] for check in checks) else FAILED
    return VerdictOutput(verdict=verdict, checks=checks, not_judged=not_judged, not_measured=missing)


def _applies(judged: str, equivariance: str) -> bool:
    return judged == "always" or equivariance == "O3" or (judged == "not approximate" and equivariance == "SO3")


def _number(row: Mapping[str, Any]) -> float:
    value = row["value"]
    return float("inf") if value is None or value != value else float(value)  # NaN is not equal to itself
