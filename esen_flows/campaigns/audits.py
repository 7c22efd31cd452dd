"""The verdicts of stored audits, and the refusal of campaigns whose force fields have not passed one."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from esen_flows.errors import InputError
from esen_flows.schemas.audit import (
    PASSED,
    AuditOutput,
    MeasurementsOutput,
    MeasurementsProtocol,
    VerdictProtocol,
    judge,
)
from esen_flows.schemas.audit_measures import MEASUREMENTS, MEASURES, NVE
from esen_flows.schemas.campaign import CampaignSpec
from esen_flows.schemas.documents import ResultDocument
from esen_flows.schemas.nve import NveOutput
from esen_flows.schemas.property_lookup import entry_of
from esen_flows.store.queries.query import stream
from esen_flows.store.results import Store

_KEY_DIGITS = 12


@dataclass(frozen=True)
class AuditVerdict:
    """The verdict on a force field in one precision; as a string, a few words.

    Attributes
    ----------
    model_key
        Key of the force field.
    model_label
        Its name for people.
    dtype
        Precision of its arithmetic.
    passed
        Whether it keeps all limits.
    failures
        The checks that failed, with values and limits, the worst first.
    checks
        Number of checks.
    systems
        Names of the crystals.
    key
        Key of the audit.
    """

    model_key: str
    model_label: str
    dtype: str
    passed: bool
    failures: str
    checks: int
    systems: str
    key: str

    @classmethod
    def of(cls, document: ResultDocument) -> "AuditVerdict":
        """The verdict of an audit.

        Parameters
        ----------
        document
            A finished audit; its arrays are not needed.

        Returns
        -------
        AuditVerdict
            Its verdict.
        """
        summary = document.summary
        return cls(
            model_key=document.model_key,
            model_label=document.model_label,
            dtype=str(document.numeric["dtype"]),
            passed=summary["verdict"] == PASSED,
            failures=str(summary["failures"] or ""),
            checks=int(summary["checks"] or 0),
            systems=str(summary["systems"]),
            key=document.key,
        )

    def __str__(self) -> str:
        if self.passed:
            return f"passed {self.checks} checks"
        return f"failed {len(self.failures.split('; '))} of {self.checks} checks"


def verdicts(store: Store) -> dict[tuple[str, str], AuditVerdict]:
    """The newest verdict on each force field in each precision, by the default limits of this version.

    Where a default limit has changed since a verdict was stored, its measurements are judged again, without a force
    call. Only measurements of the force field as it is count, on atoms that are displaced by as much as by default:
    easier ones would let every force field pass.

    Parameters
    ----------
    store
        Open store.

    Returns
    -------
    dict[tuple[str, str], AuditVerdict]
        Verdicts by model key and precision.
    """
    current = VerdictProtocol().hash(), entry_of("audit").numerics_revision
    accepted = {one.key for one in stream(store, MEASUREMENTS) if _is_whole(one)}
    found = [
        one
        for one in stream(store, "audit")
        if (one.protocol_hash, one.numerics_revision) == current
        and one.parents.get(MEASUREMENTS, one.parent_key) in accepted
    ]
    found.sort(key=lambda one: one.created_at)
    newest = {(one.model_key, str(one.numeric["dtype"])): one for one in found}
    return {key: AuditVerdict.of(_by_limits_of_today(store, one)) for key, one in newest.items()}


def _by_limits_of_today(store: Store, audit: ResultDocument) -> ResultDocument:
    """An audit whose summary goes by the default limits of this version, which are not part of its key."""
    stored = AuditOutput.model_validate(_output(store, audit.key))
    parents = audit.parents or {MEASUREMENTS: audit.parent_key}
    defaults = VerdictProtocol().limits_for(stored.dtype).items()
    unused = {*stored.not_judged, *stored.not_measured}
    limits = {name: limit for name, limit in defaults if MEASURES[name].step in parents and name not in unused}
    if {str(check["measure"]): check["limit"] for check in stored.checks} == limits:
        return audit
    measured = MeasurementsOutput.model_validate(_output(store, parents[MEASUREMENTS]))
    nve = NveOutput.model_validate(_output(store, parents[NVE])) if NVE in parents else None
    return audit.model_copy(update={"summary": judge(measured, VerdictProtocol(), nve).summary()})


def _output(store: Store, key: str) -> dict[str, Any] | None:
    document = store.get(key)
    return None if document is None else document.output


def _is_whole(measurements: ResultDocument) -> bool:
    """Whether nothing was made easier for the force field."""
    asked, usual = MeasurementsProtocol.model_validate(measurements.protocol), MeasurementsProtocol()
    return all(getattr(asked, name) == getattr(usual, name) for name in ("parity", "rattle_angstrom", "force_symmetry"))


def verdicts_by_model(store: Store) -> dict[str, AuditVerdict]:
    """The verdict on each audited force field, for lists that know no precision.

    Parameters
    ----------
    store
        Open store.

    Returns
    -------
    dict[str, AuditVerdict]
        Verdicts by model key: that in float64 where there is one.
    """
    found = verdicts(store)
    return {verdict.model_key: verdict for verdict in sorted(found.values(), key=lambda one: one.dtype)}


def audit_command(model: Mapping[str, Any], dtype: str) -> str:
    """The command that audits a force field.

    Parameters
    ----------
    model
        Location of the force field, as campaigns list it.
    dtype
        Precision.

    Returns
    -------
    str
        The command line.
    """
    return f"esen-flows audit {model['location']} --dtype {dtype}"


def require_audits(store: Store, spec: CampaignSpec, models: Sequence[Mapping[str, Any]]) -> None:
    """Refuse a campaign with `require: audit` whose force fields have not all passed an audit in its precision.

    Parameters
    ----------
    store
        Store with the audits.
    spec
        Specification of the campaign.
    models
        Label, key and location of its force fields.

    Raises
    ------
    InputError
        A force field has no audit in this precision, or the newest one failed; the message has the numbers, and the
        command that makes the audit.
    """
    if "audit" not in spec.require:
        return
    known, faults = verdicts(store), []
    for model in models:
        verdict = known.get((model["key"], spec.dtype))
        if verdict is None:
            others = sorted(dtype for key, dtype in known if key == model["key"])
            there = f" (only in {', '.join(others)})" if others else ""
            command = audit_command(model, spec.dtype)
            faults.append(f"{model['label']} was not audited in {spec.dtype}{there}; run: {command}")
        elif not verdict.passed:
            shown = f"esen-flows show {verdict.key[:_KEY_DIGITS]}"
            faults.append(f"{model['label']} {verdict} in {spec.dtype}: {verdict.failures}; see: {shown}")
    if faults:
        lines = "\n".join(f"  {fault}" for fault in faults)
        raise InputError(f"campaign {spec.name}: `require: audit` is not met, nothing was submitted:\n{lines}")
