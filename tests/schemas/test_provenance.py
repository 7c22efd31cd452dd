"""Provenance of a result, without secrets."""

import os
import re

import pytest

from esen_flows import __version__
from esen_flows.schemas.provenance import build_provenance, git_revision


def test_versions_and_cost() -> None:
    import numpy

    found = build_provenance(device="cpu", threads=2, seconds=1.5, force_evaluations=7)
    assert found.package_version == __version__
    assert found.libraries["numpy"] == numpy.__version__
    assert {"ase", "phonopy", "phono3py", "torch"} <= set(found.libraries)
    assert (found.device, found.threads, found.seconds, found.force_evaluations) == ("cpu", 2, 1.5, 7)


def test_revision_is_a_commit_or_none() -> None:
    revision = git_revision()
    assert revision is None or re.fullmatch(r"[0-9a-f]{40}(-dirty)?", revision)


def test_no_secret_enters(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ESEN_FLOWS_MONGO_URI", "mongodb://somebody:hunter2@db.example.org")
    found = build_provenance(device="cpu", threads=1, seconds=0.0, force_evaluations=0).model_dump_json()
    assert "hunter2" not in found
    assert "somebody" not in found
    assert os.environ["PATH"] not in found
