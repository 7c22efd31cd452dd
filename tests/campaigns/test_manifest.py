"""A finished campaign in a folder: complete, checked, and equal for equal databases."""

import gzip
import hashlib
import json
import shutil
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import emt_campaigns
import numpy as np
import pytest
from ase.build import bulk
from ase.constraints import FixAtoms, FixScaled
from hypothesis import given
from hypothesis import strategies as st

from esen_flows.campaigns import reproduce
from esen_flows.campaigns.freeze import freeze
from esen_flows.campaigns.frozen_lines import FrozenMember, FrozenStructure, read_lines
from esen_flows.campaigns.manifest import MANIFEST, MEMBERS, STRUCTURES, frozen_structures, read_manifest
from esen_flows.campaigns.reproduce import (
    compare_with_frozen,
    compute_here,
    differences_here,
    plan_reproduction,
)
from esen_flows.errors import ClaimedElsewhereError, InputError, ModelError
from esen_flows.schemas.keys import atoms_key
from esen_flows.settings import Settings
from esen_flows.store import campaigns
from esen_flows.store.campaign_progress import Outcome, record_outcomes
from esen_flows.store.results import Store

pytestmark = pytest.mark.mongod
COUNT = 50
ODD = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5) | st.just("0" * 64)


@pytest.fixture(scope="module")
def frozen(embedded_settings: Settings, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A finished campaign of fifty metals, frozen; its database is gone."""
    folder = tmp_path_factory.mktemp("frozen")
    with emt_campaigns.empty_database(embedded_settings) as store:
        emt_campaigns.finish(store, emt_campaigns.crystals(COUNT))
        freeze(store, "c", folder)
        freeze(store, "c", folder / "again")
    return folder


@pytest.fixture
def copy(frozen: Path, tmp_path: Path) -> Path:
    """A copy of the folder, to be changed."""
    return Path(shutil.copytree(frozen, tmp_path / "copy"))


def lines(path: Path) -> list[dict]:
    return [json.loads(line) for line in gzip.decompress(path.read_bytes()).splitlines()]


def rewrite(folder: Path, file: str, rows: list[dict], **fields: object) -> None:
    """Change a file of the manifest, whose sha256 then fits."""
    (folder / file).write_bytes(gzip.compress("".join(json.dumps(row) + "\n" for row in rows).encode()))
    sha256 = hashlib.sha256((folder / file).read_bytes()).hexdigest()
    change(folder, **{file.partition(".")[0]: {"file": file, "sha256": sha256, "count": len(rows)}}, **fields)


def change(folder: Path, **fields: object) -> None:
    """Change fields of the manifest."""
    content = json.loads((folder / MANIFEST).read_text())
    (folder / MANIFEST).write_text(json.dumps(content | fields))


def test_a_manifest_describes_the_whole_campaign(frozen: Path) -> None:
    manifest = read_manifest(frozen)
    assert manifest.campaign == manifest.spec.name == "c"
    assert manifest.states == {"failed": COUNT // 10, "finished": COUNT - COUNT // 10}
    (model,) = manifest.models
    assert (model.label, model.package, model.file) == ("emt", "ase", None)
    assert f"ase=={model.version}" in manifest.lock
    assert list(manifest.versions["ase"]) == [model.version]
    assert manifest.versions["ase"][model.version or ""] == COUNT
    assert manifest.device_seconds["cpu"] > 0
    for file in (STRUCTURES, MEMBERS):
        assert (frozen / file).read_bytes() == (frozen / "again" / file).read_bytes()
    members = lines(frozen / MEMBERS)
    assert [row["label"] for row in members] == sorted(row["label"] for row in members)
    iron = next(row for row in members if row["label"] == "m9")
    assert (iron["state"], iron["failure"], iron["value"]) == ("failed", "UnknownElementError", None)


def test_structures_are_exact(frozen: Path) -> None:
    found = {atoms_key(atoms): (atoms, names) for atoms, names in frozen_structures(frozen, read_manifest(frozen))}
    assert len(found) == COUNT
    for i, atoms in enumerate(emt_campaigns.crystals(COUNT)):
        stored, names = found[atoms_key(atoms)]
        np.testing.assert_array_equal(stored.positions, atoms.positions)
        np.testing.assert_array_equal(stored.cell.array, atoms.cell.array)
        assert names["material_ids"] == [f"m{i}"]


def test_isotopes_and_fixed_atoms_are_frozen(named_store: Store, tmp_path: Path) -> None:
    copper, heavy, fixed = (bulk("Cu", a=3.7, cubic=True) for _ in range(3))
    heavy.set_masses([64.9278, None, None, None])
    for atoms in (copper, heavy, fixed):
        atoms.rattle(0.05, seed=1)
    fixed.set_constraint([FixAtoms([0]), FixScaled(1, (True, False, False))])
    settings = {**emt_campaigns.SETTINGS, "relax_cell": False}
    emt_campaigns.finish(named_store, [copper, heavy, fixed], settings=settings)
    manifest = freeze(named_store, "c", tmp_path / "frozen")
    assert manifest.states == {"finished": 3}
    frozen = {atoms_key(atoms): atoms for atoms, _ in frozen_structures(tmp_path / "frozen", manifest)}
    assert set(frozen) == {atoms_key(atoms) for atoms in (copper, heavy, fixed)}
    values = {row["label"]: row["value"] for row in lines(tmp_path / "frozen" / MEMBERS)}
    assert values["m0"] == pytest.approx(values["m1"], abs=1e-12)  # masses do not act on a relaxation
    assert values["m2"] != pytest.approx(values["m0"], abs=1e-6)


def test_an_empty_database_gets_the_same_numbers(frozen: Path, named_store: Store) -> None:
    """A second reproduction computes nothing."""
    planned = plan_reproduction(named_store, frozen, "again")
    assert (planned.name, planned.remarks, planned.other_keys) == ("again", (), False)
    done: list[int] = []
    compute_here(named_store, "again", done.append)
    assert done[-1] == COUNT
    assert done == sorted(done)
    difference = compare_with_frozen(named_store, planned)
    assert difference.is_within
    assert (difference.matched, difference.compared, difference.changed) == (COUNT, COUNT - COUNT // 10, ())
    before = named_store.database["results"].count_documents({})
    planned = plan_reproduction(named_store, frozen, "third")
    compute_here(named_store, "third")
    assert compare_with_frozen(named_store, planned).is_within
    assert named_store.database["results"].count_documents({}) == before == COUNT
    assert named_store.database["structures"].count_documents({"tags": "third"}) == COUNT


def test_what_differs_is_found(frozen: Path, named_store: Store) -> None:
    planned = plan_reproduction(named_store, frozen)
    moved, failed, never = (row["key"] for row in lines(frozen / MEMBERS) if row["label"] in ("m0", "m1", "m2"))
    for row in lines(frozen / MEMBERS):
        value = None if row["value"] is None else row["value"] + (2e-6 if row["key"] == moved else 1e-7)
        state, failure = ("failed", "ExplosionError") if row["key"] == failed else (row["state"], row["failure"])
        if row["key"] != never:
            record_outcomes(named_store, "c", [Outcome(row["key"], state, failure, 1.0, value)])
    found = compare_with_frozen(named_store, planned)
    assert not found.is_within
    assert found.transitions == {("finished", "ExplosionError"): 1}
    assert found.pending == 1
    assert found.beyond == 1
    assert found.moved[0].label == "m0"
    assert found.moved[0].absolute == pytest.approx(2e-6)


@pytest.mark.parametrize("file", [STRUCTURES, MEMBERS])
def test_a_damaged_file_is_an_error(copy: Path, named_store: Store, file: str) -> None:
    content = bytearray((copy / file).read_bytes())
    content[len(content) // 2] ^= 1
    (copy / file).write_bytes(content)
    with pytest.raises(InputError, match=rf"{file} is damaged or was changed: its sha256 is"):
        plan_reproduction(named_store, copy)
    (copy / file).unlink()
    with pytest.raises(InputError, match=rf"{file} is missing"):
        plan_reproduction(named_store, copy)
    assert campaigns.campaign_names(named_store) == []


def test_a_changed_structure_is_an_error_even_if_the_sha256_fits(copy: Path, named_store: Store) -> None:
    rows = lines(copy / STRUCTURES)
    rows[3]["positions"][0][0] += 0.01
    rewrite(copy, STRUCTURES, rows)
    with pytest.raises(InputError, match=r"line 4 is structure .* it was changed after it was frozen"):
        plan_reproduction(named_store, copy)
    assert named_store.database["structures"].count_documents({}) == 0


def test_a_manifest_that_cannot_be_used(copy: Path, named_store: Store, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"there is no .*manifest.json; make one with"):
        read_manifest(tmp_path)
    manifest = read_manifest(copy)
    with pytest.raises(InputError, match="a campaign cannot be called 'a b': 1 to 63 letters"):
        plan_reproduction(named_store, copy, "a b")
    change(copy, numerics_revisions={"relax": 99})
    with pytest.raises(InputError, match="computes relax with numerics revision 1, the manifest with 99"):
        plan_reproduction(named_store, copy)
    change(copy, numerics_revisions={"relax": 1}, spec_sha256="0" * 64)
    with pytest.raises(InputError, match="its specification is not that of sha256 0000"):
        read_manifest(copy)
    change(copy, spec_sha256=manifest.spec_sha256, format_version=2)
    with pytest.raises(InputError, match="has format version 2, this release reads 1"):
        read_manifest(copy)
    (copy / MANIFEST).write_text("{")
    with pytest.raises(InputError, match=r"is damaged \(.*restore it"):
        read_manifest(copy)


def test_force_fields_that_are_not_here(copy: Path, named_store: Store, header_only_checkpoint: Path) -> None:
    (emt,) = json.loads((copy / MANIFEST).read_text())["models"]
    change(copy, models=[emt | {"key": "0" * 64, "version": "3.0"}])
    with pytest.raises(ModelError, match=r"another force field than the manifest's 'emt'.*pip install ase==3.0"):
        plan_reproduction(named_store, copy)
    file = {"package": None, "version": None, "file": "m.safetensors", "sha256": "a" * 64}
    change(copy, models=[emt | file | {"location": "/nowhere/m.safetensors"}])
    with pytest.raises(
        ModelError, match=r"is not here: no checkpoint file at /nowhere.*put m.safetensors \(sha256 aaaa"
    ):
        plan_reproduction(named_store, copy)
    shutil.copy(header_only_checkpoint, copy / "m.safetensors")
    with pytest.raises(ModelError, match=r"does not match its own key \(header 5e5e5e"):
        plan_reproduction(named_store, copy)
    assert campaigns.campaign_names(named_store) == []


def test_other_versions_are_reported(frozen: Path) -> None:
    manifest = read_manifest(frozen)
    assert differences_here(manifest) == ()
    other = manifest.model_copy(update={"versions": {"ase": {"3.0": 50}, "gone": {"1": 50}, "git revision": {"x": 1}}})
    here = manifest.models[0].version
    assert differences_here(other) == (
        f"ase: frozen results are of 3.0, here is {here}",
        "gone: frozen results are of 1, here is not installed",
    )


def test_pending_members_are_refused_unless_asked_for(named_store: Store, tmp_path: Path) -> None:
    keys = emt_campaigns.plan(named_store, emt_campaigns.crystals(3))
    record_outcomes(named_store, "c", [Outcome(keys[0], "finished", None, 1.0, -0.1)])
    with pytest.raises(InputError, match="2 of 3 members of 'c' are pending"):
        freeze(named_store, "c", tmp_path / "a")
    manifest = freeze(named_store, "c", tmp_path / "a", partial=True)
    assert manifest.states == {"finished": 1, "pending": 2}
    with pytest.raises(InputError, match="holds a frozen campaign already"):
        freeze(named_store, "c", tmp_path / "a", partial=True)
    found = compare_with_frozen(named_store, plan_reproduction(named_store, tmp_path / "a"))
    assert found.is_within
    assert found.matched == 1


def test_a_restart_cuts_the_same_chunks(named_store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """Deaths of processes are noted by the chunk."""
    monkeypatch.setattr(reproduce, "SLICE", 3)
    keys = emt_campaigns.plan(named_store, emt_campaigns.crystals(8))
    before = list(reproduce._slices(named_store, "c"))
    assert [len(part) for _, part in before] == [3, 3, 2]
    assert sorted(key for _, part in before for key in part) == sorted(keys)
    record_outcomes(named_store, "c", [Outcome(key, "finished") for key in keys[:4]])
    assert list(reproduce._slices(named_store, "c")) == before


def test_two_at_a_time_and_paused_campaigns_are_refused(named_store: Store) -> None:
    emt_campaigns.plan(named_store, emt_campaigns.crystals(2))
    claim = named_store.get_or_claim("campaign c here")
    with pytest.raises(ClaimedElsewhereError, match="another process is computing the campaign 'c' with --here"):
        compute_here(named_store, "c")
    named_store.release(claim)  # type: ignore[arg-type]
    campaigns.set_campaign_state(named_store, "c", "paused")
    with pytest.raises(InputError, match="campaign 'c' is paused; first: esen-flows campaign resume c"):
        compute_here(named_store, "c")


def test_only_another_phonopy_may_change_the_keys_of_answers(named_store: Store, tmp_path: Path) -> None:
    emt_campaigns.plan(named_store, emt_campaigns.crystals(2), property="phonon", settings={})
    freeze(named_store, "c", tmp_path, partial=True)
    rows = lines(tmp_path / MEMBERS)
    rows[1]["steps"][-1] = rows[1]["key"] = "a" * 64
    rewrite(tmp_path, MEMBERS, rows)
    with pytest.raises(InputError, match=r"m1 \(.*\) has the key .* here and aaaaaaaaaaaaaaaa... in the manifest"):
        plan_reproduction(named_store, tmp_path, "new")
    versions = json.loads((tmp_path / MANIFEST).read_text())["lattice_versions"]
    change(tmp_path, lattice_versions=versions | {"phonopy": "3.1"})
    planned = plan_reproduction(named_store, tmp_path, "new")
    assert planned.other_keys
    assert [row["key"] for row in campaigns.members(named_store, "new", {"label": "m1"})] != ["a" * 64]


def test_an_emptied_list_of_members_does_not_reproduce(copy: Path, store: Store) -> None:
    """With a sha256 that fits, "0 members, nothing differs" would be a lie."""
    before = json.loads((copy / MANIFEST).read_text())["members"]["count"]
    rewrite(copy, MEMBERS, [])
    with pytest.raises(InputError, match="it names 0 members, but the states of 50"):
        plan_reproduction(store, copy)
    change(copy, states={})
    with pytest.raises(InputError, match="it names 0 members"):
        plan_reproduction(store, copy)
    members = json.loads((copy / MANIFEST).read_text())["members"]
    change(copy, members={**members, "count": before}, states={"finished": before})
    with pytest.raises(InputError, match="has 0 lines, but the manifest names 50"):
        plan_reproduction(store, copy)
    assert store.database["campaigns"].count_documents({}) == 0


WRONG_MEMBERS = {
    "one less": (lambda rows: rows[1:], "it names 49 members, but the states of 50"),
    "one twice": (lambda rows: [*rows[1:], rows[1]], "is there twice"),
    "no structure": (lambda rows: [{**rows[0], "structure_key": "0" * 64}, *rows[1:]], "names a structure"),
    "another state": (lambda rows: [{**rows[0], "state": "pending"}, *rows[1:]], "the manifest names"),
    "no list": (lambda rows: [1, *rows[1:]], r"members.jsonl.gz: line 1: \(line\): Input should be"),
    "a key that is none": (lambda rows: [{**rows[0], "key": "x"}, *rows[1:]], "line 1: key: String should match"),
    "an endless cost": (lambda rows: [{**rows[0], "cost": 1e999}, *rows[1:]], "line 1: cost: Input should be a finite"),
}


@pytest.mark.parametrize("case", WRONG_MEMBERS)
def test_members_that_are_none(copy: Path, store: Store, case: str) -> None:
    edit, words = WRONG_MEMBERS[case]
    rewrite(copy, MEMBERS, edit(lines(copy / MEMBERS)))
    with pytest.raises(InputError, match=words):
        plan_reproduction(store, copy)
    assert store.database["campaigns"].count_documents({}) == 0


@given(data=st.data())
def test_any_change_of_a_line_is_read_or_refused(frozen: Path, tmp_path: Path, data: st.DataObject) -> None:
    """Values of every type in the place of every field, at every depth."""
    file, line_class = data.draw(st.sampled_from([(STRUCTURES, FrozenStructure), (MEMBERS, FrozenMember)]))
    row = lines(frozen / file)[0]
    name = data.draw(st.sampled_from(sorted(row)))
    value = data.draw(st.recursive(ODD, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner)))
    (tmp_path / file).write_bytes(gzip.compress(json.dumps({**row, name: value}).encode()))
    with suppress(InputError, ValueError):
        for line in read_lines(tmp_path / file, 1, line_class):
            if isinstance(line, FrozenStructure):
                assert len(line.atoms()) == len(row["numbers"])


@pytest.mark.parametrize(
    "content",
    [b"", b"x", gzip.compress(b"{}", mtime=0)[:-5], gzip.compress(b"{}\n" * 3, mtime=0), b"\x1f\x8b" + b"\0" * 40],
)
def test_files_that_are_no_lines(tmp_path: Path, content: bytes) -> None:
    (tmp_path / MEMBERS).write_bytes(content)
    with pytest.raises(InputError, match=MEMBERS):
        list(read_lines(tmp_path / MEMBERS, 2, FrozenMember))


def test_a_line_that_never_ends(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("esen_flows.campaigns.frozen_lines.MOST_LINE_BYTES", 1000)
    (tmp_path / MEMBERS).write_bytes(gzip.compress(b" " * 10**7))
    with pytest.raises(InputError, match="line 1 is no JSON"):
        list(read_lines(tmp_path / MEMBERS, 2, FrozenMember))
