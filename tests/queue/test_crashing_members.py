"""A structure that crashes every process that evaluates it, in a campaign of a real worker."""

from pathlib import Path

import emt_campaigns
import pytest
from ase.build import bulk
from worker_site import PATIENCE_SECONDS, Site

from esen_flows.campaigns.control import submit_campaign
from esen_flows.campaigns.status import campaign_status
from esen_flows.store.campaigns import members

pytestmark = [pytest.mark.mongod, pytest.mark.slow]

# Read by every Python process that is started with it on its path: EMT has a segmentation fault for platinum.
SITE_CUSTOMIZE = """
import os, signal, sys
if "esen_flows.queue.worker_child" in " ".join(sys.orig_argv):
    from ase.calculators.emt import EMT
    calculate = EMT.calculate
    def crash(self, atoms=None, *arguments):
        if "Pt" in atoms.get_chemical_symbols():
            os.kill(os.getpid(), signal.SIGSEGV)
        calculate(self, atoms, *arguments)
    EMT.calculate = crash
"""


def test_only_the_crashing_structure_is_marked_as_crashing(
    site: Site, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "sitecustomize.py").write_text(SITE_CUSTOMIZE)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    emt_campaigns.plan(site.store, [bulk("Pt"), bulk("Cu", a=3.55)])
    submit_campaign(site.store, "c")
    said, _ = site.start("--idle", "1").communicate(timeout=PATIENCE_SECONDS)
    found = campaign_status(site.store, "c")
    assert (found.finished, found.failures, found.pending) == (1, {"ProcessDiedError": 1}, 0), said
    (row,) = members(site.store, "c", {"state": "failed"})
    assert row["formula"] == "Pt"
    assert "SIGSEGV" in said
    assert set(site.states().values()) == {"COMPLETED"}
    stored = site.store.get(row["key"])
    assert "processes died while they evaluated" in stored.failure.message
