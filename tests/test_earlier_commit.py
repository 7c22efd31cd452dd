"""What commit e87b9cb stored, exported and froze is read, found and reproduced, and nothing is computed again."""

import lzma
import shutil
from collections.abc import Iterator
from pathlib import Path

import emt_campaigns
import pytest
from ase.build import bulk
from click.testing import Result
from typer.testing import CliRunner

from esen_flows.cli.app import app
from esen_flows.settings import Settings
from esen_flows.store.results import Store

pytestmark = pytest.mark.mongod
DATA = Path(__file__).with_name("data") / "e87b9cb"
RESULTS = 24  # relaxations of 14 metals, copper and aluminium; forces, phonons and conductivities of these two
# As that commit printed them (W/m/K, 300 K, mesh 5x5x5).
KAPPA_RTA = {"Al": 9.760655772619943, "Cu": 21.866181770583633}


def run(*arguments: str | Path) -> Result:
    return CliRunner().invoke(app, [str(argument) for argument in arguments], env={"COLUMNS": "140"})


@pytest.fixture(scope="module")
def imported(embedded_settings: Settings, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Store]:
    archive = tmp_path_factory.mktemp("archive") / "emt.tar"
    with lzma.open(DATA / "emt.tar.xz") as packed, archive.open("wb") as unpacked:
        shutil.copyfileobj(packed, unpacked)
    with emt_campaigns.empty_database(embedded_settings) as store:
        done = run("db", "import", archive)
        assert done.exit_code == 0, done.output
        yield store


def number_of_results(store: Store) -> int:
    return store.database.call(lambda: store.database["results"].count_documents({}))


def test_the_export_is_whole(imported: Store) -> None:
    assert number_of_results(imported) == RESULTS
    done = run("db", "verify")
    assert done.exit_code == 0, done.output


def test_results_are_found_with_their_numbers(imported: Store) -> None:
    done = run("query", "kappa", "--columns", "formula,kappa_rta_w_per_m_k", "--format", "csv")
    rows = [line.split(",") for line in done.output.splitlines()[1:]]
    assert {formula: float(value) for formula, value in rows} == KAPPA_RTA


@pytest.mark.parametrize("campaign", ["trial", "copper_phonons", "metals_kappa"])
def test_a_frozen_campaign_is_reproduced_from_what_is_stored(imported: Store, campaign: str) -> None:
    done = run("campaign", "reproduce", DATA / campaign, "--here")
    assert done.exit_code == 0, done.output
    assert f"reproduced: {2 if campaign != 'trial' else 14} members" in done.output
    assert number_of_results(imported) == RESULTS


def test_asking_for_a_stored_conductivity_computes_nothing(imported: Store, tmp_path: Path) -> None:
    bulk("Cu").write(tmp_path / "Cu.extxyz")
    cube = "[[2,0,0],[0,2,0],[0,0,2]]"
    settings = [f"displacement.fc2_supercell={cube}", f"displacement.fc3_supercell={cube}", "mesh=5,5,5"]
    settings.append("displacement.setting=as_given")  # the only setting that there was
    options = [part for setting in settings for part in ("--set", setting)]
    done = run(
        "kappa", tmp_path / "Cu.extxyz", "--model", "emt", "--output", tmp_path, "--lattice-backend", "Rust", *options
    )
    assert done.exit_code == 0, done.output
    assert "key      351f7f5a80cc117d8030045c0a0ac524ccd246c76f3046e8cd407f44e92b5979" in done.output
    assert number_of_results(imported) == RESULTS
