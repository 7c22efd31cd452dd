from esen_flows.campaigns.precision import precision_advice
from esen_flows.schemas.campaign import CampaignSpec
from esen_flows.schemas.card import resolve_model


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
