"""Stored trainings, and their force fields as those of other Makers."""

from typing import Any

from esen_flows.errors import InputError
from esen_flows.makers.compute import raise_if_failed
from esen_flows.schemas.documents import ResultDocument
from esen_flows.store.connection import open_store
from esen_flows.store.results import Store
from esen_flows.store.trained_models import trained_model

Reference = dict[str, Any]  # kind, key and summary of a result: the output of a job


def finished_training(store: Store, training: Reference | str) -> ResultDocument:
    """The stored result of a training, without its arrays.

    Parameters
    ----------
    store
        Where results are.
    training
        Its result key, or the output of its job.

    Returns
    -------
    ResultDocument
        The finished training.

    Raises
    ------
    InputError
        There is no such training in the store.
    EsenFlowsError
        The training failed; raised as its own type.
    """
    key = training if isinstance(training, str) else str(training["key"])
    document = store.get(key, load_arrays=False)
    if document is None or document.kind != "training":
        raise InputError(f"{key[:12]} is not a training in the store; run it first")
    raise_if_failed(document)
    return document


def trained_force_field(training: Reference | str) -> str:
    """The force field of a stored training, as the other Makers' `force_field_name`.

    Parameters
    ----------
    training
        Result key of the training, or the output of its job.

    Returns
    -------
    str
        Path of its checkpoint on this machine.

    Raises
    ------
    InputError
        There is no such training.
    EsenFlowsError
        The training failed.
    """
    store = open_store()
    return str(trained_model(store, str(finished_training(store, training).summary["model_key"])))
