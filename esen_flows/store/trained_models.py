"""Trained force fields of the store as checkpoint files, so that they can be computed with."""

from pathlib import Path

from esen_flows.errors import ModelError
from esen_flows.files import written_whole
from esen_flows.schemas.checkpoint_header import read_header
from esen_flows.schemas.training import TrainingOutput
from esen_flows.settings import get_settings
from esen_flows.store.reading import find_one
from esen_flows.store.results import Store


def trained_model_path(model_key: str) -> Path:
    """Path at which `trained_model` keeps a checkpoint on this machine.

    Parameters
    ----------
    model_key
        Model key of the force field.

    Returns
    -------
    Path
        A file in the user's data folder, which need not exist.
    """
    return get_settings().data_dir / "models" / "by_key" / f"{model_key}.safetensors"


def trained_model(store: Store, model_key: str) -> Path:
    """The checkpoint of a stored training as a file on this machine, which is written if it does not exist.

    Parameters
    ----------
    store
        Store of the training.
    model_key
        Model key of the force field, which stands in the summary of the training that made it.

    Returns
    -------
    Path
        The checkpoint file.

    Raises
    ------
    ModelError
        No stored training made this force field.
    StoreError
        Its checkpoint is missing or damaged.
    """
    path = trained_model_path(model_key)
    if path.is_file() and read_header(path)["model_key"] == model_key:
        return path
    query = {"kind": "training", "current": True, "summary.model_key": model_key}
    row = find_one(store.database, "results", query, {"key": 1})
    document = None if row is None else store.get(row["key"])
    if document is None or document.output is None:
        raise ModelError(f"no training in the store made the force field {model_key[:12]}; give its checkpoint file")
    content = TrainingOutput.model_validate(document.output).checkpoint
    path.parent.mkdir(parents=True, exist_ok=True)
    with written_whole(path) as temporary:
        temporary.write_bytes(content.tobytes())
    return path
