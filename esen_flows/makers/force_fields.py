"""The force field that a request names, loaded and checked, and kept from one material to the next."""

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from pathlib import Path
from typing import TYPE_CHECKING, Any

from esen_flows.errors import ModelError
from esen_flows.schemas.requests import ResultRequest
from esen_flows.store.connection import open_store
from esen_flows.store.trained_models import trained_model, trained_model_path

if TYPE_CHECKING:
    from esen_flows.forcefield.contract import ForceField

# The force field that was loaded last, by how it was loaded: loading and compiling take longer than a small material.
_kept: "ContextVar[dict[tuple[Any, ...], ForceField] | None]" = ContextVar("kept_force_field", default=None)


@contextmanager
def keeping_force_field() -> Iterator[None]:
    """Keep the force field that was loaded last as long as the outermost of such `with` blocks lasts.

    Yields
    ------
    None
        Nothing.
    """
    if _kept.get() is not None:
        yield
        return
    token = _kept.set({})
    try:
        yield
    finally:
        _kept.reset(token)


def requested_force_field(model: dict[str, Any], request: ResultRequest) -> "ForceField":
    """Load a force field and make sure that it is the one that the request's key names.

    A force field that a stored training made need not be on this machine: its checkpoint is fetched from the store.

    Parameters
    ----------
    model
        Its location and device, as the jobs' argument of this name has them.
    request
        Names the model key, the precision and how to compute.

    Returns
    -------
    ForceField
        The force field on its device; inside `keeping_force_field` the one that was loaded last, if it is the same.

    Raises
    ------
    ModelError
        The location holds another force field here, or it computes in another precision.
    """
    from esen_flows.forcefield.load import load_force_field
    from esen_flows.forcefield.memory import release_memory

    numeric, location = request.numeric, model["location"]
    if Path(location).name == trained_model_path(request.model_key).name and not Path(location).is_file():
        location = trained_model(open_store(), request.model_key)
    options: dict[str, Any] = numeric.model_dump(include={"dtype", "compile", "tf32"}) | {"device": model["device"]}
    loaded_as, kept = (location, *options.values()), _kept.get()
    if kept is not None and loaded_as in kept:
        return kept[loaded_as]
    if kept:
        # Before the next one is loaded, whose batches are as large as the memory that is free then allows.
        kept.clear()
        release_memory()
    force_field = load_force_field(location, **options)
    if force_field.key != request.model_key:
        raise ModelError(
            f"{model['location']} has model key {force_field.key[:12]} here, the request names "
            f"{request.model_key[:12]}: the checkpoint or package differs. Ask again with the one that is here"
        )
    dtype = force_field.declaration.dtype
    if dtype != numeric.dtype:
        raise ModelError(
            f"{force_field.label} computes in {dtype}, the request says {numeric.dtype}; ask with "
            f"numeric=NumericSettings(dtype={dtype!r})"
        )
    if kept is not None:
        kept[loaded_as] = force_field
    return force_field
