"""Fixtures shared by all tests."""

from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def shared_dir() -> Path:
    """The reference data beside the checkout; tests marked `shared` use it where it is there."""
    path = Path(__file__).resolve().parents[2] / "shared"
    if not (path / "fixtures" / "esen").is_dir():
        pytest.skip(f"no reference data at {path}")
    return path
