"""A campaign about force fields: planned, computed, judged, frozen and reproduced, with the command's key."""

import json
from pathlib import Path

import emt_campaigns
import pytest
from ase.build import bulk

from esen_flows.campaigns.benchmark import campaign_metrics
from esen_flows.campaigns.freeze import freeze
from esen_flows.campaigns.plan import plan
from esen_flows.campaigns.report import write_report
from esen_flows.campaigns.reproduce import compare_with_frozen, compute_here, plan_reproduction
from esen_flows.campaigns.spec import read_spec
from esen_flows.campaigns.submission import write_submission
from esen_flows.cli.app import main
from esen_flows.cli.notebook import compute
from esen_flows.errors import InputError
from esen_flows.settings import Settings
from esen_flows.store.queries.query import query
from esen_flows.store.upkeep.verify import verify
from esen_flows.yaml_files import read_yaml

pytestmark = pytest.mark.mongod
SPEC = """
name: pairs
property: diatomics
models: emt
settings: {elements: "Cu,Ag,Fe", points: 30, smallest_angstrom: 0.5}
benchmark: diatomics
"""


def test_a_campaign_of_force_fields(
    embedded_settings: Settings, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "spec.yaml").write_text(SPEC)
    spec = read_spec(tmp_path)
    with emt_campaigns.empty_database(embedded_settings) as store:
        planned = plan(store, spec, SPEC)
        assert (planned.structures, planned.new, planned.members["pending"]) == (0, 1, 1)
        (before,) = campaign_metrics(store, "pairs")
        assert (before.n_done, before.n_materials) == (0, 87)
        compute_here(store, "pairs")
        (found,) = campaign_metrics(store, "pairs")
        (document,) = query(store, "diatomics", where="curves = 2")
        assert document.structure_key == document.parent_key == document.model_key
        assert document.formula is None
        rows = {row["material"]: row for row in found.materials}
        assert "Fe" in str(rows["Fe-Fe"]["excluded"])
        assert rows["H-H"]["tortuosity"] is None
        assert rows["Cu-Cu"]["tortuosity"] == pytest.approx(1.0, abs=1e-6)
        both = [rows[name]["pbe_energy_mae"] for name in ("Cu-Cu", "Ag-Ag")]
        assert found.done["diatomics_pbe_energy_mae"] == pytest.approx(sum(both) / 2, rel=1e-3)
        assert found.done["diatomics_excluded"] == 85
        assert found.done["diatomics_pbe_energy_mae"] == document.summary["pbe_energy_mae"]

        # The command finds what the campaign computed, and the database is sound.
        settings = {"elements": ("Cu", "Ag", "Fe"), "points": 30, "smallest_angstrom": 0.5}
        answer = compute("diatomics", None, "emt", settings=settings)
        assert answer.key == document.key
        assert answer.stored == {document.key}
        assert "diatomic molecules by emt" in str(answer)
        assert (tmp_path / "diatomics.png") in answer.write(tmp_path)
        assert not verify(store).problems
        with pytest.raises(SystemExit) as end:
            main(["leaderboard", "--with", "pairs", "--json", "--sort", "diatomics_tortuosity"])
        assert end.value.code == 0
        (own,) = [row for row in json.loads(capsys.readouterr().out) if row["source"] == "pairs"]
        assert own["metrics"]["diatomics_excluded"] == 85

        # A submission's file gives the same metrics, and its section passes the leaderboard's schema.
        (tmp_path / "submission.yaml").write_text(emt_campaigns.AUTHOR)
        submitted = write_submission(store, "pairs", tmp_path / "submission.yaml", tmp_path / "out")
        assert {name: submitted.metrics[name] for name in found.done} == found.done
        section = read_yaml(tmp_path / "out/models/emt/emt.yml")["metrics"]["diatomics"]
        assert section["tortuosity"] == found.done["diatomics_tortuosity"]
        assert len(section["excluded_formula_reasons"]) == 85

        write_report(store, "pairs", tmp_path / "report")
        assert (tmp_path / "report" / "benchmark.csv").is_file()
        freeze(store, "pairs", tmp_path / "frozen")
        again = plan_reproduction(store, tmp_path / "frozen", "again")
        difference = compare_with_frozen(store, again)
        assert (difference.compared, difference.beyond) == (1, 0)


@pytest.mark.parametrize(
    ("lines", "words"),
    [
        ("property: diatomics\nstructures: {file: a.cif}", "diatomics is a property of force fields"),
        ("property: relax", "structures: is missing; write structures"),
        ("property: diatomics\nbenchmark: discovery", "benchmark discovery judges property: relax"),
        (
            "property: audit\nsettings: {measurements.systems: [Cu, Si]}",
            "settings: measurements.systems: Si: emt never saw Si",
        ),
    ],
)
def test_structures_belong_to_properties_of_structures(lines: str, words: str, tmp_path: Path) -> None:
    (tmp_path / "spec.yaml").write_text(f"name: x\nmodels: emt\n{lines}\n")
    with pytest.raises(InputError, match=words):
        read_spec(tmp_path)


def test_a_property_of_force_fields_takes_no_structure() -> None:
    with pytest.raises(InputError, match="diatomics is a property of force fields"):
        compute("diatomics", bulk("Cu"), "emt")
    with pytest.raises(InputError, match="relax is a property of structures"):
        compute("relax", None, "emt")
