"""Audits end to end: stored once, judged again without a force call, and required before a campaign is submitted."""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
from ase.build import bulk
from ase.io import write
from jobflow import run_locally
from pair_force_field import PairForceField

from esen_flows.campaigns import audits
from esen_flows.campaigns.audits import verdicts, verdicts_by_model
from esen_flows.campaigns.control import submit_campaign
from esen_flows.campaigns.plan import plan
from esen_flows.campaigns.report import write_report
from esen_flows.errors import InputError
from esen_flows.forcefield import load
from esen_flows.makers.audit import AuditMaker
from esen_flows.schemas import audit as audit_schemas
from esen_flows.schemas.audit import AuditProtocol, MeasurementsProtocol
from esen_flows.schemas.audit_measures import MEASURES
from esen_flows.schemas.campaign import CampaignSpec
from esen_flows.store.jobflow_store import job_store
from esen_flows.store.queries.query import query
from esen_flows.store.results import Store

pytestmark = pytest.mark.mongod
SOUND, SWIRLING = "5e" * 32, "d1" * 32
MEASUREMENTS = MeasurementsProtocol(systems=("Si",), rotations=1, loops=1, displacements_angstrom=(0.01,))


@dataclass
class Lab:
    """An empty store, and force fields by the paths of their checkpoints, which have no tensors."""

    store: Store
    force_fields: dict[str, PairForceField]

    def plan(self, name: str, *models: str) -> None:
        """Plan a campaign of one crystal that requires audits."""
        write("Si.cif", bulk("Si", cubic=True))
        fields = {"property": "static", "structures": {"file": "Si.cif"}, "models": models, "require": "audit"}
        plan(self.store, CampaignSpec.model_validate({"name": name, **fields}), "")

    def audit(self, path: str, **protocol: Any) -> dict[str, Any]:
        """Run the audit of a force field; the output of its last job."""
        maker = AuditMaker(
            force_field_name=path, protocol=AuditProtocol.model_validate({"measurements": MEASUREMENTS, **protocol})
        )
        flow = maker.make()
        responses = run_locally(flow, log=False, store=job_store(self.store), raise_immediately=True)
        output: dict[str, Any] = responses[flow.jobs[-1].uuid][1].output
        return output


@pytest.fixture
def lab(
    named_store: Store, tmp_path: Path, header_only_checkpoint: Path, direct_checkpoint: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> Lab:  # fmt: skip
    force_fields = {
        str(header_only_checkpoint): PairForceField(key=SOUND, label="silicon"),
        str(direct_checkpoint): PairForceField(swirl=0.01, key=SWIRLING, label="direct"),
    }
    monkeypatch.setattr(load, "load_force_field", lambda location, **options: force_fields[str(location)])
    monkeypatch.chdir(tmp_path)
    return Lab(named_store, force_fields)


def test_audits_gate_campaigns(lab: Lab, tmp_path: Path) -> None:
    sound, swirling = lab.force_fields
    lab.plan("c", sound, swirling)
    with pytest.raises(InputError, match="nothing was submitted") as refused:
        submit_campaign(lab.store, "c")
    assert f"silicon was not audited in float64; run: esen-flows audit {sound} --dtype float64" in str(refused.value)

    output = lab.audit(sound)
    assert (output["kind"], output["summary"]["verdict"]) == ("audit", "passed")
    (measurements,) = query(lab.store, "measurements")
    assert (measurements.model_key, measurements.structure_key) == (SOUND, SOUND)
    assert measurements.provenance.force_evaluations == lab.force_fields[sound].force_evaluations > 400

    # Another limit is another verdict on the same measurements; campaigns go by the default limits.
    calls = lab.force_fields[sound].force_evaluations
    strict = lab.audit(sound, limits={"frequency_error": 1e-12})
    assert strict["summary"]["verdict"] == "failed"
    assert strict["summary"]["failures"].startswith("frequency_error ")
    assert lab.force_fields[sound].force_evaluations == calls
    assert [one.provenance.force_evaluations for one in query(lab.store, "audit")] == [0, 0]
    assert verdicts(lab.store)[SOUND, "float64"].passed

    # Default limits are not part of the key: the measurements are judged again by those of this version.
    changed = {**MEASURES, "frequency_error": replace(MEASURES["frequency_error"], float64=1e-12)}
    with pytest.MonkeyPatch.context() as patch:
        for module in (audit_schemas, audits):
            patch.setattr(module, "MEASURES", changed)
        verdict = verdicts(lab.store)[SOUND, "float64"]
    assert (str(verdict), verdict.failures) == ("failed 1 of 28 checks", strict["summary"]["failures"])
    assert verdicts(lab.store)[SOUND, "float64"].passed
    assert lab.force_fields[sound].force_evaluations == calls

    # Trajectories are a step of their own, and the verdict on them builds on the same measurements.
    # A fifth of a picosecond is too short for the default limit of the drift.
    limits = {"nve_drift_ev_per_atom_ps": 0.01}
    longer = lab.audit(sound, nve={"duration_ps": 0.2, "half_step_ps": 0.0}, limits=limits)
    (trajectories,), newest = query(lab.store, "nve"), lab.store.get(longer["key"])
    assert newest is not None
    assert newest.parents == {"measurements": measurements.key, "nve": trajectories.key}
    added = lab.force_fields[sound].force_evaluations - calls
    assert trajectories.provenance.force_evaluations == added > 100
    assert trajectories.summary["failures"] == 0
    assert (longer["summary"]["checks"], longer["summary"]["verdict"]) == (31, "passed")
    assert longer["summary"]["nve_drift_ratio"] < 1.0

    # Atoms that are hardly displaced show little, so that such an audit does not count.
    lab.audit(swirling, measurements=MEASUREMENTS.model_copy(update={"rattle_angstrom": 1e-6}))
    assert (SWIRLING, "float64") not in verdicts(lab.store)
    lab.audit(swirling)
    with pytest.raises(InputError, match=r"direct failed \d+ of 28 checks in float64: ") as refused:
        submit_campaign(lab.store, "c")
    assert "silicon" not in str(refused.value)
    assert "jacobian_asymmetry 0.0" in str(refused.value)
    assert lab.store.database["fireworks"].count_documents({}) == 0
    assert {key: verdict.passed for key, verdict in verdicts_by_model(lab.store).items()} == {
        SOUND: True,
        SWIRLING: False,
    }

    lab.plan("sound", sound)
    assert submit_campaign(lab.store, "sound").members == 1
    write_report(lab.store, "c", tmp_path / "report")
    text = (tmp_path / "report" / "report.md").read_text()
    assert "audit in float64" in text
    assert "| passed 28 checks |" in text
    assert " of 28 checks: " in text
