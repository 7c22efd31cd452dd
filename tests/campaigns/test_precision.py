import pytest

from esen_flows.campaigns.cost import CostModel
from esen_flows.campaigns.precision import hours_in_words, pending_hours, precision_advice
from esen_flows.schemas.campaign import CampaignSpec
from esen_flows.schemas.card import resolve_model
from esen_flows.store.campaign_progress import Outcome, record_outcomes
from esen_flows.store.campaign_runs import begin_run
from esen_flows.store.campaigns import create_campaign, insert_members
from esen_flows.store.results import Store


def advice(model: str, **fields) -> str:
    spec = {"name": "a", "property": "relax", "structures": {"file": "a.xyz"}, "models": model} | fields
    return precision_advice(CampaignSpec.model_validate(spec), [resolve_model(model)])


def test_float32_is_proposed_where_it_is_enough() -> None:
    loose, tight = ({"fmax_ev_per_angstrom": fmax} for fmax in (0.02, 0.001))
    assert "for forces of 0.02 eV/Angstrom float32 is enough: write dtype: float32" in advice(
        "esen_silicon", settings=loose
    )
    assert advice("esen_silicon", settings=tight) == ""
    assert advice("esen_silicon", settings=loose, dtype="float32") == ""
    assert advice("emt", settings=loose) == ""  # it has one precision
    assert advice("esen_silicon", property="phonon") == ""


def test_the_cost_of_float64_is_that_of_the_device_where_it_was_measured() -> None:
    spec = CampaignSpec.model_validate(
        {"name": "a", "property": "relax", "structures": {"file": "a.xyz"}, "models": "esen_silicon",
         "settings": {"fmax_ev_per_angstrom": 0.02}}
    )  # fmt: skip
    models = [resolve_model("esen_silicon")]
    hours = {"cuda in float64": 12.0, "cuda in float32": 5.0}
    assert "float64 takes 2.4 times as long as float32 on cuda" in precision_advice(spec, models, "cuda", hours)
    assert "no stored timings say how much on cuda" in precision_advice(spec, models, "cuda", {"cuda in float64": 12.0})
    assert "on a CPU (measured with eSEN networks)" in precision_advice(spec, models, "cpu", hours)


def test_hours_are_those_of_the_device_that_was_asked_for() -> None:
    hours = {"cuda in float64": 12.0, "cpu in float64": 100.0}
    assert hours_in_words(hours, "float64", None) == "12 cuda hours or 1e+02 cpu hours"
    assert hours_in_words(hours, "float64", "cuda") == "12 cuda hours in float64, float32 not measured yet"
    assert hours_in_words(hours, "float32", "cuda").startswith("hours on cuda are not known, because no relaxation")
    assert hours_in_words({}, "float64", None) == "not measured yet"


@pytest.mark.mongod
def test_hours_come_from_stored_throughputs(store: Store) -> None:
    model = resolve_model("esen_silicon")
    create_campaign(store, {"_id": "a", "spec": {"dtype": "float32"}, "spec_sha256": "", "models": []})
    insert_members(store, "a", [{"key": "0" * 64, "model_key": model.key, "cost": 1000.0}])
    record_outcomes(store, "a", [Outcome("0" * 64, "finished", None, 3.6)])
    begin_run(store, "a", "chunk", {"device": "cuda"})
    known = [(model, CostModel.of(model))]
    asked = pending_hours(store, known, {model.label: 5000.0}, "float64", "cuda")
    assert asked == {"cuda in float32": pytest.approx(5000 * 3.6 / 1000 / 3600)}
    assert pending_hours(store, known, {model.label: 5000.0}, "float64", None) == {}
