"""What a force field does not know is said where results are asked for, stored and listed."""

from types import SimpleNamespace

import pytest
from ase.build import bulk
from running import run

from esen_flows.errors import StructureWarning
from esen_flows.makers.static import StaticMaker
from esen_flows.store.queries.query import query
from esen_flows.store.results import Store

pytestmark = pytest.mark.mongod


def test_the_verdict_stands_in_the_summary_and_can_be_queried(named_store: Store) -> None:
    database = SimpleNamespace(store=named_store)
    maker = StaticMaker(force_field_name="esen_nano")
    with pytest.warns(StructureWarning, match="CaS is outside of what esen_nano was trained on: .* elements Ca, S"):
        sulphide = maker.make(bulk("CaS", "rocksalt", a=5.70))
    oxide = maker.make(bulk("CaO", "rocksalt", a=4.84))
    copper = StaticMaker(force_field_name="emt").make(bulk("Cu"))
    keys = [run(job, database)["key"] for job in (sulphide, oxide, copper)]
    assert [named_store.get(key).summary["domain"] for key in keys] == ["outside", "inside", "unknown"]
    assert [found.key for found in query(named_store, "static", where="outside")] == keys[:1]
    assert [found.key for found in query(named_store, "static", where="domain = 'inside'")] == keys[1:2]
