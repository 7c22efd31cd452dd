"""Checkpoints of stored trainings as files."""

from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from result_documents import document, key_of

from esen_flows.errors import ModelError
from esen_flows.schemas.checkpoint_header import read_header
from esen_flows.settings import get_settings
from esen_flows.store.claims import Claim
from esen_flows.store.trained_models import trained_model, trained_model_path

if TYPE_CHECKING:
    from pathlib import Path

    from esen_flows.store.results import Store

pytestmark = pytest.mark.mongod
MODEL = "5e" * 32  # of `header_only_checkpoint`


@pytest.fixture
def _own_folder(tmp_path: "Path", monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.setenv("ESEN_FLOWS_DATA_DIR", str(tmp_path / "data"))
    get_settings.cache_clear()
    yield
    get_settings.cache_clear()


def put_training(store: "Store", content: bytes) -> None:
    """A training that made a checkpoint of these bytes."""
    output = {
        "model_key": MODEL, "parent_training": None, "training_structures": 9, "validation_structures": 3, "steps": 2,
        "training_seconds": 1.0, "history": [], "errors": [], "record": {},
        "checkpoint": np.frombuffer(content, dtype=np.uint8),
    }  # fmt: skip
    made = document(key_of("training"), kind="training", output=output, summary={"model_key": MODEL})
    claim = store.get_or_claim(made.key)
    assert isinstance(claim, Claim)
    store.commit(claim, made)


@pytest.mark.usefixtures("_own_folder")
def test_the_bytes_of_the_training_are_written_once(store: "Store", header_only_checkpoint: "Path") -> None:
    put_training(store, header_only_checkpoint.read_bytes())
    path = trained_model(store, MODEL)
    assert path == trained_model_path(MODEL)
    assert path.read_bytes() == header_only_checkpoint.read_bytes()
    assert read_header(path)["model_key"] == MODEL
    store.database["results"].delete_many({})
    assert trained_model(store, MODEL) == path  # the file exists, so the store is not needed
    assert [file.name for file in path.parent.iterdir()] == [path.name]


@pytest.mark.usefixtures("_own_folder")
def test_a_force_field_without_a_training_is_refused(store: "Store") -> None:
    with pytest.raises(ModelError, match="no training in the store made the force field 5e5e5e5e5e5e"):
        trained_model(store, MODEL)
