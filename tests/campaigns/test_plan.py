"""Planning: structures and members are stored, stored results are found, and faults are refused."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk, fcc111
from ase.io import write

from esen_flows.campaigns.cost import seconds_per_unit
from esen_flows.campaigns.plan import Planned, plan
from esen_flows.errors import ClaimedElsewhereError, InputError
from esen_flows.makers.compute import Context, result_document
from esen_flows.schemas.campaign import CampaignSpec, member_requests
from esen_flows.schemas.card import resolve_model
from esen_flows.schemas.documents import Failure, ResultDocument
from esen_flows.schemas.keys import atoms_key
from esen_flows.store.bulk import insert_results
from esen_flows.store.campaigns import campaign_names, campaign_of, exclusive_lock, members, set_campaign_state
from esen_flows.store.queries.query import query_structures
from esen_flows.store.results import Store
from esen_flows.structures.identity import identify

pytestmark = pytest.mark.mongod
METALS = ("Cu", "Ag", "Au", "Ni")


@pytest.fixture
def crystals(tmp_path: Path) -> Path:
    """Four metals in an extended XYZ file, one of them with a material id."""
    frames = [bulk(metal) for metal in METALS]
    frames[0].info["material_id"] = "mp-30"
    write(tmp_path / "metals.xyz", frames, format="extxyz")
    return tmp_path / "metals.xyz"


def spec_of(file: Path, **fields: Any) -> CampaignSpec:
    return CampaignSpec.model_validate(
        {"name": "metals", "property": "relax", "structures": {"file": str(file)}, "models": "emt", "tags": "trial"}
        | fields
    )


def planned(store: Store, spec: CampaignSpec) -> Planned:
    return plan(store, spec, "text")


def test_members_have_the_keys_of_single_commands(store: Store, crystals: Path) -> None:
    spec = spec_of(crystals)
    seen: list[int] = []
    found = plan(store, spec, "name: metals", seen.append)
    assert (found.structures, found.stored, found.new, found.members["pending"]) == (4, 0, 4, 4)
    assert seen == [4]
    assert "metals: 4 members (4 pending, 0 finished, 0 failed), 4 of them new" in str(found)
    assert "not measured yet" in str(found)
    document = campaign_of(store, "metals")
    assert (document["state"], document["spec_text"], document["spec_sha256"]) == (
        "planned",
        "name: metals",
        spec.sha256,
    )
    assert CampaignSpec.model_validate(document["spec"]) == spec
    model = resolve_model("emt")
    rows = {row["label"]: row for row in members(store, "metals")}
    assert set(rows) == {"mp-30", "metals@1", "metals@2", "metals@3"}
    copper = rows["mp-30"]
    request = member_requests(spec, atoms_key(bulk("Cu")), model.key, {})[-1]
    assert (copper["key"], copper["steps"], copper["structure_key"]) == (
        request.key,
        [request.key],
        atoms_key(bulk("Cu")),
    )
    assert (copper["formula"], copper["nsites"], copper["info"], copper["state"]) == ("Cu", 1, {}, "pending")
    assert copper["cost"] > 0
    stored = query_structures(store, campaign="metals", formula="Cu")[0].fields
    assert stored["material_ids"] == ["mp-30"]
    assert stored["tags"] == ["metals", "trial"]


def test_planning_again_adds_nothing(store: Store, crystals: Path) -> None:
    spec = spec_of(crystals)
    planned(store, spec)
    set_campaign_state(store, "metals", "submitted")
    again = planned(store, spec)
    assert (again.structures, again.stored, again.new, sum(again.members.values())) == (4, 4, 0, 4)
    assert campaign_of(store, "metals")["state"] == "submitted"
    write(crystals, [bulk(metal) for metal in (*METALS, "Pd")], format="extxyz")
    assert planned(store, spec).new == 1


def test_a_refused_plan_leaves_the_campaign_as_it_was(store: Store, crystals: Path) -> None:
    spec = spec_of(crystals)
    planned(store, spec)
    before = list(members(store, "metals"))
    write(crystals, [bulk(metal) for metal in (*METALS, "Pd", "Pd")], format="extxyz")
    with pytest.raises(InputError, match="1 structures occur more than once"):
        planned(store, spec)
    assert list(members(store, "metals")) == before
    assert campaign_of(store, "metals")["state"] == "planned"


def test_a_name_is_one_campaign(store: Store, crystals: Path) -> None:
    planned(store, spec_of(crystals))
    with pytest.raises(InputError, match="there is a campaign 'metals' with another spec"):
        planned(store, spec_of(crystals, settings={"fmax_ev_per_angstrom": 0.05}))
    assert len(list(members(store, "metals"))) == 4


def test_two_do_not_plan_the_same_at_once(store: Store, crystals: Path) -> None:
    spec = spec_of(crystals)
    with (
        exclusive_lock(store, f"campaign {spec.name} plan", "taken"),
        pytest.raises(ClaimedElsewhereError, match="another process is planning"),
    ):
        planned(store, spec)
    assert campaign_names(store) == []
    assert planned(store, spec).new > 0


def result_of(spec: CampaignSpec, row: dict[str, Any], **fields: Any) -> ResultDocument:
    """A result of a member."""
    request = member_requests(spec, row["structure_key"], row["model_key"], row["info"])[-1]
    context = Context(identity=identify(bulk("Cu")), model_label="emt")
    return result_document(request, context, seconds=2.0, evaluations=10, **fields)


def test_members_with_stored_results_are_not_pending(store: Store, crystals: Path) -> None:
    spec = spec_of(crystals)
    first, second, *_ = (planned(store, spec), *members(store, "metals"))[1:]
    failure = Failure(error="NotConvergedError", message="no", final=True)
    insert_results(store, [
        result_of(spec, first, summary={"energy_per_atom_ev": -3.5}), result_of(spec, second, failure=failure),
    ])  # fmt: skip
    again = planned(store, spec)
    assert again.members == {"pending": 2, "finished": 1, "failed": 1}
    rows = {row["key"]: row for row in members(store, "metals")}
    assert (rows[first["key"]]["value"], rows[second["key"]]["failure"]) == (-3.5, "NotConvergedError")
    # Another campaign that asks for the same finds it at once.
    assert planned(store, spec_of(crystals, name="others")).members["finished"] == 1


def test_repeated_structures(store: Store, crystals: Path) -> None:
    write(crystals, [bulk(metal) for metal in ("Cu", "Ag", "Cu", *["Ag"] * 11)], format="extxyz")
    with pytest.raises(InputError) as caught:
        planned(store, spec_of(crystals))
    message = str(caught.value)
    assert message.startswith("campaign metals: 12 structures occur more than once; take them out, or write")
    assert "  metals@2 is the same as metals@0\n" in message
    assert message.endswith("and 2 more")
    assert campaign_names(store) == []
    assert list(members(store, "metals")) == []
    assert query_structures(store, campaign="metals") == []
    found = planned(store, spec_of(crystals, duplicates="merge"))
    assert (found.structures, found.repeated, found.new) == (2, 12, 2)


def test_elements_that_a_force_field_does_not_know(store: Store, crystals: Path) -> None:
    write(crystals, [bulk("Cu"), bulk("Si")], format="extxyz")
    with pytest.raises(
        InputError, match=r"`require: covers_elements` is not met 1 times; [^\n]*\n  metals@1: emt never saw Si"
    ):
        planned(store, spec_of(crystals, require="covers_elements"))
    assert campaign_names(store) == []
    found = planned(store, spec_of(crystals))
    assert (found.doubtful_count, found.doubtful) == (1, ("metals@1: emt never saw Si",))
    assert found.members["pending"] == 2  # it will fail, and the campaign counts it
    write(crystals, bulk("Si"), format="extxyz")
    with pytest.raises(InputError, match="none of the structures can be computed"):
        planned(store, spec_of(crystals, name="silicon"))


def test_elements_that_a_force_field_never_saw_together(store: Store, crystals: Path) -> None:
    """esen_nano knows calcium of CaO and sulphur of ZnS, and shrinks CaS by 38 %."""
    write(crystals, [bulk("CaO", "rocksalt", a=4.84), bulk("CaS", "rocksalt", a=5.70)], format="extxyz")
    found = planned(store, spec_of(crystals, models=["esen_nano", "emt"], name="compounds"))
    assert found.outside_count == 1  # emt has no list
    assert found.outside[0].startswith("metals@1 with esen_nano: no training structure has exactly the elements Ca, S")
    assert "1 outside of what the force field was trained on" in str(found)
    assert any("metals@1 with esen_nano" in line for line in campaign_of(store, "compounds")["warnings"])
    with pytest.raises(
        InputError, match=r"`require: inside_domain` is not met 1 times; [^\n]*\n  metals@1 with esen_nano"
    ):
        planned(store, spec_of(crystals, models="esen_nano", name="required", require="inside_domain"))
    with pytest.raises(InputError, match=r"inside_domain: emt does not say which sets of elements"):
        planned(store, spec_of(crystals, models="emt", name="unknown", require="inside_domain"))
    assert campaign_names(store) == ["compounds"]


def test_structures_that_will_fail_are_reported(store: Store, crystals: Path) -> None:
    slab = fcc111("Cu", (1, 1, 3), vacuum=6.0)
    close = Atoms("Cu2", positions=[[0, 0, 0], [0.2, 0, 0]], cell=[5, 5, 5], pbc=True)
    write(crystals, [bulk("Cu"), slab, close], format="extxyz")
    spec = spec_of(crystals, property="phonon", settings={"relax.max_steps": 10})
    found = planned(store, spec)
    assert CampaignSpec.model_validate(campaign_of(store, "metals")["spec"]) == spec
    assert found.doubtful_count == 2
    assert "phonon needs a crystal, but metals@1 is periodic in 2 of 3" in str(found)
    assert "metals@2: atoms 0 (Cu) and 1 (Cu) are 0.200 Angstrom apart" in str(found)
    twice = Atoms("Si2", positions=[[0, 0, 0], [0.2, 0, 0]], cell=[5, 5, 5], pbc=True)  # close, and unknown to EMT
    write(crystals, [bulk("Au"), twice], format="extxyz")
    assert planned(store, spec_of(crystals, name="one_is_sound")).doubtful_count == 2
    broken = bulk("Cu")
    broken.cell[0, 0] = np.nan
    write(crystals, [broken], format="extxyz")
    with pytest.raises(InputError, match="metals@0: it has no atoms, or NaN"):
        planned(store, spec_of(crystals, name="broken"))


def test_a_campaign_that_is_planned_again_has_the_same_warnings(store: Store, crystals: Path) -> None:
    slab = fcc111("Cu", (1, 1, 3), vacuum=6.0)
    write(crystals, [bulk("Cu"), slab, bulk("Fe")], format="extxyz")
    first = planned(store, spec_of(crystals))
    assert first.doubtful_count == 2
    again = planned(store, spec_of(crystals))
    assert (again.stored, again.new) == (3, 0)  # nothing is new, and still
    assert again.warnings == first.warnings
    assert again.warnings[0] == "2 will probably fail:"
    assert campaign_of(store, "metals")["warnings"] == first.warnings  # for `submit metals`
    other = planned(store, spec_of(crystals, name="other"))  # of structures that another campaign has stored
    assert other.warnings == first.warnings


def test_bad_structures_are_all_named_or_left_out(store: Store, crystals: Path) -> None:
    empty, broken = Atoms(cell=[3, 3, 3], pbc=True), bulk("Ag")
    broken.positions[0, 0] = np.inf
    write(crystals, [bulk("Cu"), empty, bulk("Ag"), broken, bulk("Au")], format="extxyz")
    lines = crystals.read_text().splitlines()
    lines[-1] = "Au 0.0 zero 0.0"
    crystals.write_text("\n".join(lines) + "\n")
    with pytest.raises(InputError) as caught:
        planned(store, spec_of(crystals))
    first, *named = str(caught.value).splitlines()
    assert first == "campaign metals: 3 structures cannot be used; correct them, or leave them out by --skip-bad:"
    assert sorted(line.partition("@")[2][:1] for line in named) == ["1", "3", "4"]
    assert campaign_names(store) == []
    found = plan(store, spec_of(crystals), "text", skip_bad=True)
    assert (found.structures, found.bad_count, found.members["pending"]) == (2, 3, 2)
    assert {row["label"] for row in members(store, "metals")} == {"metals@0", "metals@2"}
    assert "3 left out:" in str(found)
    with pytest.raises(InputError, match="3 structures cannot be used"):
        planned(store, spec_of(crystals))
    assert len(list(members(store, "metals"))) == 2  # of a campaign that was planned before, all stay


def test_several_force_fields(store: Store, crystals: Path, header_only_checkpoint: Path) -> None:
    spec = spec_of(crystals, models=["emt", str(header_only_checkpoint)])
    found = planned(store, spec)
    assert (found.structures, found.new) == (4, 8)
    assert found.doubtful_count == 4  # of silicon alone
    labels = [model["label"] for model in campaign_of(store, "metals")["models"]]
    assert labels == ["emt", "silicon"]


def test_supercells_of_a_structure_are_kept_with_its_member(store: Store, tmp_path: Path) -> None:
    own = {"fc2_supercell": np.diag([4, 4, 4]), "fc3_supercell": np.diag([2, 2, 2]), "q_mesh": np.array([19, 19, 19])}
    crystal = bulk("Cu", cubic=True)
    crystal.info |= own | {"mp_id": "mp-30"}
    write(tmp_path / "Cu.xyz", crystal, format="extxyz")
    spec = spec_of(tmp_path / "Cu.xyz", property="conductivity", protocol="phonondb-v1")
    planned(store, spec)
    (row,) = members(store, "metals")
    assert row["info"] == {name: value.tolist() for name, value in own.items()}
    steps = member_requests(spec, row["structure_key"], row["model_key"], row["info"])
    assert [request.key for request in steps] == row["steps"]
    assert steps[1].protocol.fc2_supercell == ((4, 0, 0), (0, 4, 0), (0, 0, 4))  # type: ignore[union-attr]
    write(tmp_path / "Cu.xyz", bulk("Ag"), format="extxyz")
    with pytest.raises(InputError, match="Cu@0: the protocol phonondb-v1 takes each structure's own supercells"):
        planned(store, spec.model_copy(update={"name": "bare"}))
    assert campaign_names(store) == ["metals"]


def test_hours_follow_from_what_was_measured(store: Store, crystals: Path) -> None:
    spec = spec_of(crystals)
    planned(store, spec)
    row = next(iter(members(store, "metals")))
    summary = {"energy_per_atom_ev": -3.5, "volume_per_atom_angstrom3": 11.8}
    insert_results(store, [result_of(spec, row, summary=summary)])
    found = planned(store, spec)
    # 2 s for 10 evaluations of one atom with 4/3 pi 6^3 / 11.8 neighbours.
    seconds_per_edge = 2.0 / (10 * 4 / 3 * np.pi * 6.0**3 / 11.8)
    assert found.pending_hours == {"cpu in float64": pytest.approx(seconds_per_edge * found.pending_cost / 3600)}
    assert "cpu hours" in str(found)
    assert "hours on cuda are not known" in str(plan(store, spec, "text", device="cuda"))
    assert seconds_per_unit(store, row["model_key"], "cpu", 6.0, "float32") is None  # another precision, another speed


def test_a_killed_plan_is_completed_by_the_next(store: Store, crystals: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    spec = spec_of(crystals)
    with monkeypatch.context() as killed:
        killed.setattr("esen_flows.campaigns.plan.delete_campaign", lambda *_: None)  # as after kill -9
        killed.setattr("esen_flows.campaigns.plan.insert_members", _killed)
        with pytest.raises(KeyboardInterrupt):
            planned(store, spec)
    assert campaign_of(store, "metals")["state"] == "planning"
    assert planned(store, spec).new == 4
    assert campaign_of(store, "metals")["state"] == "planned"


def _killed(*_: object) -> int:
    raise KeyboardInterrupt
