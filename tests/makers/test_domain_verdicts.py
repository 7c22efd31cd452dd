"""What a force field does not know is said where results are asked for, stored and listed."""

from types import SimpleNamespace

import pytest
from ase.build import bulk
from running import run

from esen_flows.errors import StructureWarning
from esen_flows.makers.phonon import PhononMaker
from esen_flows.makers.relax import RelaxMaker
from esen_flows.makers.static import StaticMaker
from esen_flows.schemas.card import read_card
from esen_flows.schemas.protocols import NumericSettings
from esen_flows.store.queries.query import query
from esen_flows.store.results import Store

pytestmark = pytest.mark.mongod


def test_the_verdict_stands_in_the_summary_and_can_be_queried(named_store: Store) -> None:
    database = SimpleNamespace(store=named_store)
    maker = StaticMaker(force_field_name="esen_nano")
    with pytest.warns(StructureWarning, match="CaS is outside of what esen_nano was trained on: .* Ca, S; each"):
        sulphide = maker.make(bulk("CaS", "rocksalt", a=5.70))
    oxide = maker.make(bulk("CaO", "rocksalt", a=4.84))
    copper = StaticMaker(force_field_name="emt").make(bulk("Cu"))
    keys = [run(job, database)["key"] for job in (sulphide, oxide, copper)]
    of_sulphide, of_oxide, of_copper = (named_store.get(key).summary for key in keys)
    limit = read_card("esen_nano").calibration.limit
    assert of_oxide["extrapolation"] < limit == of_oxide["extrapolation_limit"] < of_sulphide["extrapolation"]
    assert "extrapolation" not in of_copper
    assert [named_store.get(key).summary["domain"] for key in keys] == ["outside", "inside", "unknown"]
    assert [found.key for found in query(named_store, "static", where="outside")] == keys[:1]
    assert [found.key for found in query(named_store, "static", where="domain = 'inside'")] == keys[1:2]


def test_known_elements_in_unknown_surroundings_and_the_other_way_round(named_store: Store) -> None:
    """GaAs as CsCl is outside, a little aluminium in GaAs near; the verdict of a relaxation is that of its end."""
    database = SimpleNamespace(store=named_store)
    alloy = bulk("GaAs", "zincblende", a=5.75, cubic=True) * (2, 2, 2)
    alloy.symbols[0] = "Al"
    stretched = bulk("CaO", "rocksalt", a=5.3)  # 9 % too long
    with pytest.warns(StructureWarning, match="elements Al, As, Ga"):
        mixed = StaticMaker(force_field_name="esen_nano").make(alloy)
    verdicts = [
        named_store.get(run(job, database)["key"]).summary["domain"]
        for job in (
            StaticMaker(force_field_name="esen_nano").make(bulk("GaAs", "cesiumchloride", a=3.35)),
            mixed,
            StaticMaker(force_field_name="esen_nano").make(stretched),
            RelaxMaker(force_field_name="esen_nano").make(stretched),
        )
    ]
    assert verdicts == ["outside", "near", "outside", "inside"]


def test_results_without_force_calls_take_over_the_verdict(named_store: Store) -> None:
    maker = PhononMaker(force_field_name="esen_silicon", numeric=NumericSettings(dtype="float32"))
    key = run(maker.make(bulk("Si", a=5.47)), SimpleNamespace(store=named_store))["key"]
    phonon = named_store.get(key)
    forces = named_store.get(phonon.parent_key)
    assert phonon.summary["domain"] == "inside"
    assert phonon.summary["extrapolation"] == forces.summary["extrapolation"] < phonon.summary["extrapolation_limit"]
