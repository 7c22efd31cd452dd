"""Specifications of campaigns are read, and faults are refused with their lines."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from ase.build import bulk
from ase.io import write

from esen_flows.assets import asset_dir
from esen_flows.campaigns.spec import check_requirements, find_spec, read_spec
from esen_flows.errors import InputError
from esen_flows.schemas.campaign import CampaignSpec
from esen_flows.schemas.card import resolve_model
from esen_flows.settings import get_settings

WORKFLOWS = sorted(path.parent.name for path in asset_dir("workflows").glob("*/spec.yaml"))
GOOD = """\
name: silicon
property: phonon
structures:
  file: Si.cif
models: [esen_silicon]
settings:
  relax.fmax_ev_per_angstrom: 1e-3
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    write(tmp_path / "Si.cif", bulk("Si", a=5.43))
    return tmp_path


@pytest.fixture
def nothing_fetched(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Neither checkpoints nor published sets have been fetched."""
    monkeypatch.setenv("ESEN_FLOWS_CACHE_DIR", str(tmp_path / "cache"))
    monkeypatch.setenv("ESEN_FLOWS_DATA_DIR", str(tmp_path / "data"))
    get_settings.cache_clear()
    yield
    get_settings.cache_clear()


def faults_of(folder: Path, text: str, **options: Any) -> list[str]:
    """The lines of the error, without the folder."""
    (folder / "spec.yaml").write_text(text)
    with pytest.raises(InputError) as caught:
        read_spec(folder / "spec.yaml", **options)
    return [line.removeprefix(f"{folder}/") for line in str(caught.value).splitlines()]


@pytest.mark.parametrize("name", WORKFLOWS)
def test_the_campaigns_of_the_repository(name: str) -> None:
    spec = read_spec(name, anywhere=True)
    assert spec.name == name
    assert spec.description


def test_the_laptop_campaign_has_all_it_needs() -> None:
    spec = read_spec("silicon_kappa")
    assert spec.structures.file == (str(asset_dir("workflows") / "silicon_kappa" / "Si.cif"),)
    assert spec.models == ("esen_silicon",)


def test_paths_are_relative_to_the_file(folder: Path, header_only_checkpoint: Path) -> None:
    (folder / "spec.yaml").write_text(GOOD.replace("[esen_silicon]", f"./{header_only_checkpoint.name}"))
    spec = read_spec(folder)
    assert spec.structures.file == (str(folder / "Si.cif"),)
    assert spec.models == (str(folder / header_only_checkpoint.name),)
    assert spec.settings == {"displacement.setting": "canonical", "relax.fmax_ev_per_angstrom": "1e-3"}


def test_no_such_specification(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=f"no campaign specification {tmp_path}; .*, or one of .*silicon_kappa"):
        find_spec(tmp_path)


@pytest.mark.parametrize(
    ("before", "after", "fault"),
    [
        ("name: silicon", "name: [silicon", "spec.yaml:2: (file): not YAML: expected ',' or ']'"),
        ("name: silicon", "name: a/b", "spec.yaml:1: name: 1 to 63 letters, digits, _ . and -"),
        ("name: silicon\n", "", "spec.yaml:1: name: is missing; write name: ..."),
        ("name: silicon", "name: !!python/name:os.system x", "spec.yaml:1: (file): not YAML: it names a Python object"),
        ("models:", "model:", "spec.yaml:5: model: no such field; did you mean models? there are name, "),
        ("  file:", "  files:", "spec.yaml:4: structures.files: no such field; did you mean file? there are file, "),
        (
            "property: phonon",
            "property: phonons",
            "spec.yaml:2: property: choose from relax, static, md, eos, elastic, phonon",
        ),
        ("property: phonon", "property: phonon\nname: b", "spec.yaml:3: name: also in line 1; leave one of the two"),
        (
            "property: phonon",
            "property: phonon\ntarget_minutes: soon",
            "spec.yaml:3: target_minutes: input should be a",
        ),
        ("property: phonon", "property: phonon\nprotocol: phonondb-v1", "spec.yaml:3: protocol: no protocol"),
        (
            "[esen_silicon]",
            "[esen_silicom]",
            "spec.yaml:5: models.0: no model 'esen_silicom'; did you mean esen_silicon? known",
        ),
        ("[esen_silicon]", "\n- esen_silicon\n- a/b", "spec.yaml:7: models.1: no checkpoint file "),
        (
            "[esen_silicon]",
            "[esen_30m_oam]",
            "spec.yaml:5: models.0: the checkpoint of 'esen_30m_oam' is not on this m",
        ),
        ("file: Si.cif", "file: [Si.cif, Ge.cif]", "spec.yaml:4: structures.file.1: no such file: "),
        ("file: Si.cif", "published: wbm", "spec.yaml:4: structures.published: wbm is not in "),
        (
            "file: Si.cif",
            "{}",
            "spec.yaml:3: structures: give exactly one of file, query, published and dataset, got none",
        ),
        (
            "  relax.fmax",
            "  fmax",
            "spec.yaml:7: settings.fmax_ev_per_angstrom: no such field; did you mean relax.fmax",
        ),
        (
            "  relax.fmax_ev",
            "  relax.fm_ev",
            "spec.yaml:7: settings.relax.fm_ev_per_angstrom: no such field; did you mean",
        ),
        ("1e-3", "-1", "spec.yaml:7: settings.relax.fmax_ev_per_angstrom: Input should be greater than 0 (got -1)"),
        (
            "  relax.fmax_ev_per_angstrom: 1e-3",
            "  relax.hydrostatic: true\n  relax.constant_volume: true",
            "spec.yaml:6: settings.relax: hydrostatic and constant_volume together",
        ),
        ("property: phonon", "property: phonon\nrequire: [o3]", "spec.yaml:3: require: o3: esen_silicon declares SO3"),
        ("property: phonon", "property: phonon\nrequire: [fast]", "spec.yaml:3: require.0: input should be 'conserv"),
    ],
)
def test_a_fault_is_reported_with_its_line(
    folder: Path, nothing_fetched: None, before: str, after: str, fault: str
) -> None:
    text = GOOD.replace(before, after)
    assert text != GOOD
    found = faults_of(folder, text)
    assert any(line.startswith(fault) for line in found), found


@pytest.mark.parametrize(
    ("text", "faults"),
    [
        ("structures:\n", "name models property"),
        ("name: a\nmodels: emt\nstructures:\n  file: Si.cif\nbenchmark: kappa-103\n", "property"),
        ("name: a\nmodels: emt\nproperty: relax\nstructures:\nbenchmark: static-errors\n", "structures"),
        (GOOD + "benchmark: nonsense\nenergy_corrections: add\n", "benchmark"),
        (GOOD + "benchmark: discovery\nenergy_corrections: often\n", "energy_corrections"),
        (GOOD + "benchmark: kappa-103\ndtype: float16\n", "(file) dtype"),
        (GOOD + "energy_corrections: add\ndtype: float16\n", "(file) dtype"),
    ],
)
def test_fields_that_depend_on_a_wrong_one_are_no_fault_of_the_program(folder: Path, text: str, faults: str) -> None:
    found = faults_of(folder, text)
    assert sorted(faults.split()) == sorted(line.split(": ")[1] for line in found)


def test_all_faults_at_once_in_the_order_of_the_file(folder: Path) -> None:
    text = GOOD.replace("silicon\n", "a b\n", 1).replace("Si.cif", "Ge.cif").replace("esen_silicon", "nobody")
    found = faults_of(folder, text.replace("relax.fmax", "relax.gmax") + "tag: x\n")
    assert [line.split(": ")[0] for line in found] == [f"spec.yaml:{number}" for number in (1, 4, 5, 7, 8)]


def test_checks_that_depend_on_the_machine_can_be_skipped(folder: Path) -> None:
    text = GOOD.replace("Si.cif", "Ge.cif").replace("esen_silicon", "nobody")
    assert len(faults_of(folder, text)) == 2
    (folder / "spec.yaml").write_text(text)
    assert read_spec(folder, anywhere=True).models == ("nobody",)


@pytest.mark.parametrize("text", ["", "- a\n", "only text\n"])
def test_a_file_of_something_else(folder: Path, text: str) -> None:
    assert faults_of(folder, text)[0].startswith("spec.yaml:1: (file): must hold fields")


def test_the_beginning_of_a_field_name_is_enough_for_a_guess(folder: Path) -> None:
    text = GOOD.replace("property: phonon", "property: relax").replace("relax.fmax_ev_per_angstrom", "fmax")
    (fault,) = faults_of(folder, text)
    assert fault.startswith("spec.yaml:7: settings.fmax: no such field; did you mean fmax_ev_per_angstrom? there are ")


def test_requirements(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("esen_flows.schemas.card.version", lambda package: "0.13.0")
    models = [resolve_model("sevennet_l3i5"), resolve_model("esen_silicon")]
    fields = {
        "name": "a",
        "property": "phonon",
        "structures": {"query": {}},
        "models": ["sevennet_l3i5", "esen_silicon"],
    }
    with pytest.raises(InputError) as caught:
        check_requirements(CampaignSpec.model_validate(fields | {"require": ["differentiable", "o3"]}), models)
    faults = str(caught.value).splitlines()
    assert len(faults) == 4
    assert faults[0] == "dtype: sevennet_l3i5 computes in float32 only, got float64; write dtype: float32"
    assert faults[1].startswith("models: `require: differentiable` needs exact second derivatives of the energy")
    assert faults[2].startswith("require: o3: sevennet_l3i5 declares SO3")
    assert faults[3].startswith("require: o3: esen_silicon declares SO3")
    exact = {"displacement.force_constants": "autodiff"}
    with pytest.raises(InputError, match="models: force_constants=autodiff needs exact second derivatives"):
        check_requirements(CampaignSpec.model_validate(fields | {"dtype": "float32", "settings": exact}), models[:1])
    check_requirements(CampaignSpec.model_validate(fields | {"require": ["conservative"]}), models[1:])
