"""Checks stand at their value over the limit, failed ones as crosses, and curves are those of the documents."""

from pathlib import Path

import pytest

from esen_flows.plots.audit import plot_audit
from esen_flows.schemas.audit import MeasurementsOutput, VerdictProtocol, judge

MEASURED = MeasurementsOutput(
    conservative=True,
    equivariance="O3",
    smooth=True,
    dtype="float64",
    systems=["Cu"],
    measurements=[
        {"measure": "jacobian_asymmetry", "system": "Cu", "value": 1e-3},
        {"measure": "batch", "system": "Cu", "value": 1e-12},
    ],
    not_measured=[],
    displacements_angstrom=[0.1, 0.01],
    frequency_errors={"float64": [1e-2, 1e-4]},
    third_derivative_errors={"float64": [1e-2, 1e-4]},
    recommended_displacement_angstrom={"float64": 0.01},
    recommended_third_order_displacement_angstrom={"float64": 0.01},
)


def test_checks_and_curves(relax_document, drawn, tmp_path: Path) -> None:
    audit = judge(MEASURED, VerdictProtocol())
    assert (audit.verdict, audit.failures()) == ("failed", ["jacobian_asymmetry 0.001 > 1e-08 (Cu)"])
    document = relax_document().model_copy(update={"kind": "audit", "output": audit.model_dump()})
    plot_audit(document, tmp_path / "audit.png")
    left, right = drawn[0].axes
    points = {line.get_marker(): list(line.get_xydata()[0]) for line in left.lines if line.get_marker() in ("o", "X")}
    assert points == {"X": pytest.approx([1e5, 0]), "o": pytest.approx([1e-3, 1])}
    assert list(right.lines[0].get_xydata().ravel()) == [0.01, 1e-4, 0.1, 1e-2]
