"""The force field of a worker: kept from one material to the next, and gone before another one is loaded."""

import gc
import weakref
from typing import Any

import pytest
from ase.build import bulk

from esen_flows.forcefield import load
from esen_flows.forcefield.third_party.emt import emt
from esen_flows.makers.force_fields import keeping_force_field, requested_force_field
from esen_flows.schemas.keys import atoms_key
from esen_flows.schemas.protocols import NumericSettings, RelaxProtocol
from esen_flows.schemas.requests import property_requests


def test_the_first_model_is_gone_before_the_second_is_loaded(monkeypatch: pytest.MonkeyPatch) -> None:
    loaded: list[weakref.ref[Any]] = []
    alive: list[int] = []

    def loading(location: str, **options: Any) -> Any:
        alive.append(sum(one() is not None for one in loaded))
        force_field = emt()
        force_field.itself = force_field  # as a network with CUDA graphs, which refer to it
        loaded.append(weakref.ref(force_field))
        return force_field

    monkeypatch.setattr(load, "load_force_field", loading)
    request = property_requests(atoms_key(bulk("Cu")), emt().key, RelaxProtocol(), NumericSettings())[-1]
    # What earlier tests left is finalized now and not inside the calls below: pytest keeps the traceback of a finalizer
    # that fails, and with it the frames that were running and their force fields.
    gc.collect()
    gc.disable()
    try:
        with keeping_force_field():
            for location in ("one", "one", "two", "three", "four"):
                requested_force_field({"location": location, "device": "cpu"}, request)
    finally:
        gc.enable()
    assert alive == [0, 0, 0, 0]
