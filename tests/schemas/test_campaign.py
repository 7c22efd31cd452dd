"""The specification of a campaign, and the requests of its members."""

import time
from typing import Any

import pytest
from pydantic import ValidationError

from esen_flows.errors import InputError
from esen_flows.schemas.campaign import (
    SETTING,
    CampaignSpec,
    answer_summary_field,
    member_keys,
    member_requests,
    protocol_for,
)
from esen_flows.schemas.named_protocols import own_settings
from esen_flows.schemas.property_lookup import entry_of, named_protocol
from esen_flows.schemas.protocols import ConductivityProtocol, NumericSettings, PhononProtocol, RelaxProtocol
from esen_flows.schemas.requests import property_requests

STRUCTURE, MODEL = "aa" * 32, "bb" * 32
LEAD_TELLURIDE = {
    "fc2_supercell": [[4, 0, 0], [0, 4, 0], [0, 0, 4]],
    "fc3_supercell": [[2, 0, 0], [0, 2, 0], [0, 0, 2]],
    "q_mesh": [19, 19, 19],
}


def spec_of(**fields: Any) -> CampaignSpec:
    return CampaignSpec.model_validate(
        {"name": "one", "property": "relax", "structures": {"file": "Si.cif"}, "models": "esen_silicon"} | fields
    )


def test_defaults_are_those_of_the_commands() -> None:
    assert protocol_for(spec_of(), {}) == RelaxProtocol()
    for general in ({}, {"protocol": "general"}):
        phonon = spec_of(property="phonon", settings={SETTING: "canonical"}, **general)
        assert protocol_for(phonon, {}) == PhononProtocol()
        conductivity = spec_of(property="conductivity", settings={SETTING: "canonical"}, **general)
        assert protocol_for(conductivity, {}) == ConductivityProtocol()


@pytest.mark.parametrize("kind", ["phonon", "conductivity"])
def test_stored_campaigns_displace_cells_as_they_were_given(kind: str) -> None:
    protocol = protocol_for(spec_of(property=kind), {})
    assert isinstance(protocol, PhononProtocol | ConductivityProtocol)
    assert protocol.displacement.setting == "as_given"


def test_settings_are_fields_of_the_protocol() -> None:
    spec = spec_of(property="phonon", settings={"relax.fmax_ev_per_angstrom": 0.005, "mesh": "9,9,9"})
    protocol = protocol_for(spec, {})
    assert isinstance(protocol, PhononProtocol)
    assert (protocol.relax.fmax_ev_per_angstrom, protocol.mesh) == (0.005, (9, 9, 9))
    with pytest.raises(InputError, match=r"mash: no such field; did you mean mesh\? valid fields: "):
        protocol_for(spec_of(property="phonon", settings={"mash": 1}), {})


def test_a_number_that_yaml_takes_for_a_text() -> None:
    # YAML 1.1 reads 1e-4, without a point, as text.
    assert protocol_for(spec_of(settings={"fmax_ev_per_angstrom": "1e-4"}), {}).fmax_ev_per_angstrom == 1e-4


def test_members_have_the_requests_of_a_command() -> None:
    spec = spec_of(property="conductivity", protocol="phonondb-v1", dtype="float32", lattice_backend="native")
    protocol = named_protocol("conductivity", "phonondb-v1", LEAD_TELLURIDE)
    expected = property_requests(STRUCTURE, MODEL, protocol, NumericSettings(dtype="float32"))
    assert member_requests(spec, STRUCTURE, MODEL, LEAD_TELLURIDE) == expected
    relax = property_requests(STRUCTURE, MODEL, RelaxProtocol(), NumericSettings())
    assert member_requests(spec_of(), STRUCTURE, MODEL, {}) == relax


def test_a_field_of_later_versions_keeps_the_identity_of_stored_campaigns() -> None:
    """Stored specifications without `lattice_backend` are of campaigns whose linewidths phono3py computed."""
    stored = spec_of(property="conductivity")
    assert stored.numeric.lattice_backend == "Rust"
    assert stored.sha256 == spec_of(property="conductivity", lattice_backend="Rust").sha256
    assert stored.sha256 != spec_of(property="conductivity", lattice_backend="native").sha256
    assert spec_of(property="phonon", lattice_backend="native").numeric.lattice_backend is None


@pytest.mark.parametrize(
    ("fields", "info"),
    [
        ({}, {}),
        ({"property": "phonon", "dtype": "float32"}, {}),
        ({"property": "conductivity"}, LEAD_TELLURIDE),
        ({"property": "conductivity", "protocol": "phonondb-v1"}, LEAD_TELLURIDE),
        ({"property": "conductivity", "protocol": "phonondb-v1"}, LEAD_TELLURIDE | {"q_mesh": [19, 19, 15]}),
    ],
)
def test_keys_are_those_of_the_requests(fields: dict[str, Any], info: dict[str, Any]) -> None:
    spec = spec_of(**fields)
    for structure in (STRUCTURE, "cc" * 32):
        requests = member_requests(spec, structure, MODEL, info)
        assert member_keys(spec, structure, MODEL, info) == tuple(request.key for request in requests)


def test_supercells_of_each_structure_enter_its_keys() -> None:
    spec = spec_of(property="conductivity", protocol="phonondb-v1")
    rocksalt = member_keys(spec, STRUCTURE, MODEL, LEAD_TELLURIDE)
    wurtzite = member_keys(
        spec, STRUCTURE, MODEL, LEAD_TELLURIDE | {"fc3_supercell": [[3, 0, 0], [0, 3, 0], [0, 0, 2]]}
    )
    assert rocksalt[0] == wurtzite[0]  # one relaxation
    assert rocksalt[1:] != wurtzite[1:]
    with pytest.raises(InputError, match=r"this one has none; give them .* displacement\.fc2_supercell"):
        member_keys(spec, STRUCTURE, MODEL, {})
    given = {"displacement.fc2_supercell": [4, 4, 4], "displacement.fc3_supercell": "2,2,2"}
    assert member_keys(spec_of(**{**spec.model_dump(), "settings": given}), STRUCTURE, MODEL, {}) == rocksalt


def test_keys_cost_microseconds() -> None:
    spec = spec_of(property="conductivity", protocol="phonondb-v1")
    start = time.process_time()
    keys = {member_keys(spec, f"{number:064x}", MODEL, LEAD_TELLURIDE)[-1] for number in range(2000)}
    # 257,487 of them well under a minute; 0.1 s here.
    assert time.process_time() - start < 2000 * 60 / 257_487
    assert len(keys) == 2000


def test_own_settings_of_a_structure() -> None:
    info = {"mp_id": "mp-1", "q_mesh": (19, 19, 15), "fc2_supercell": [[5, 0, 0], [0, 5, 0], [0, 0, 3]]}
    assert own_settings(info) == {"q_mesh": [19, 19, 15], "fc2_supercell": [[5, 0, 0], [0, 5, 0], [0, 0, 3]]}


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        (
            {"structures": {"file": "a.cif", "published": "wbm"}},
            "exactly one of file, query, published and dataset, got file, p",
        ),
        ({"structures": {}}, "exactly one of file, query, published and dataset, got none"),
        ({"structures": {"file": "a.cif", "folder": "x"}}, "`folder` is where a published set is"),
        ({"structures": {"query": {"model": "esen_nano"}}}, "input structures have no force field"),
        ({"models": []}, "models"),
        ({"models": ["a", "a"]}, "got a more than once"),
        ({"name": "../x"}, "name"),
        ({"model": "a"}, "model"),
        ({"require": "stable"}, "require"),
    ],
)
def test_contradictory_specifications_are_refused(fields: dict[str, Any], words: str) -> None:
    with pytest.raises(ValidationError, match=words):
        spec_of(**fields)


@pytest.mark.parametrize(("kind", "words"), [("relax", "relax; there are"), ("phonon", "phonon; there are")])
def test_protocols_of_other_properties(kind: str, words: str) -> None:
    with pytest.raises(InputError, match=f"no protocol 'phonondb-v1' of the property {words} general"):
        protocol_for(spec_of(property=kind, protocol="phonondb-v1"), {})


def test_a_conductivity_needs_third_order() -> None:
    with pytest.raises(InputError, match="third-order force constants"):
        protocol_for(spec_of(property="conductivity", settings={"displacement.order": 2}), {})


def test_the_answer_is_a_number_of_the_summary() -> None:
    for kind in ("relax", "phonon", "conductivity"):
        assert entry_of(kind).field(answer_summary_field(spec_of(property=kind))).type == "number"


@pytest.mark.parametrize(
    ("methods", "field"),
    [("wigner", "kappa_wigner_w_per_m_k"), (["lbte", "wigner"], "kappa_lbte_w_per_m_k"),
     (["wigner", "rta"], "kappa_rta_w_per_m_k")],
)  # fmt: skip
def test_a_conductivity_by_other_methods_has_their_number(methods: Any, field: str) -> None:
    spec = spec_of(property="conductivity", settings={"methods": methods})
    assert answer_summary_field(spec) == field
    assert entry_of("conductivity").field(field).type == "number"


def test_the_same_campaign() -> None:
    spec = spec_of(tags=["a"])
    assert CampaignSpec.model_validate(spec.model_dump(mode="json")).sha256 == spec.sha256  # as the store returns it
    assert spec_of(tags="a", description="what it is for").sha256 == spec.sha256
    assert spec_of(tags="b").sha256 != spec.sha256
    assert spec.all_tags == ("one", "a")
