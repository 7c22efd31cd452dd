"""Names that stay in one room, as collections of the database, and names that stand in files and fireworks."""

import ast
import importlib
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = ROOT / "esen_flows"
# Knows FireWorks from inside: its collections, its fields of a firework and its private methods.
ADAPTER = "esen_flows/queue/fireworks_adapter.py"


def collections_named(tree: ast.Module, file: str) -> list[str]:
    """Collections of the database that a file outside store/ names."""
    if file.startswith("esen_flows/store/"):
        return []
    faults = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant) and node.value in TELLING_COLLECTIONS:
            faults.append(f"{file}:{node.lineno}: names the collection {node.value!r}; call a function of store/")
        if isinstance(node, ast.Subscript) and isinstance(node.slice, ast.Constant):
            owner = ast.unparse(node.value).rpartition(".")[2]
            if owner in ("db", "database", "_database"):
                faults.append(f"{file}:{node.lineno}: reads {ast.unparse(node)}; call a function of store/")
    return faults


def fireworks_private(tree: ast.Module, file: str) -> list[str]:
    """Names that FireWorks keeps to itself: its collections, and fields and methods that begin with an underscore."""
    if file == ADAPTER or not file.startswith(("esen_flows/queue/", "esen_flows/campaigns/")):
        return []
    faults = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute) and "pad" in ast.unparse(node.value).lower().rpartition(".")[2]:
            name = node.attr
            if name in ("fireworks", "launches", "workflows", "fw_id_assigner") or name.startswith("_"):
                faults.append(f"{file}:{node.lineno}: {ast.unparse(node)} belongs into {ADAPTER}")
        if isinstance(node, ast.Constant) and isinstance(node.value, str):
            parts = node.value.removeprefix("spec.").split(".")
            if parts[0] in FIREWORKS_FIELDS:
                faults.append(f"{file}:{node.lineno}: the field {node.value!r} belongs into {ADAPTER}")
    return faults


# Words that are the names of collections and nothing else.
TELLING_COLLECTIONS = frozenset(
    {"blob_chunks", "campaign_members", "campaign_runs", "claims", "fw_id_assigner", "unfinished"}
)
FIREWORKS_FIELDS = frozenset({"_category", "_exception_details", "_fworker", "_launch_dir", "_priority", "_tasks"})
SOURCE_RULES = {"collections": collections_named, "fireworks_private": fireworks_private}


@pytest.mark.parametrize("rule", SOURCE_RULES)
def test_names_stay_in_their_room(rule: str) -> None:
    faults = [
        fault
        for path in sorted(PACKAGE.rglob("*.py"))
        for fault in SOURCE_RULES[rule](ast.parse(path.read_text()), path.relative_to(ROOT).as_posix())
    ]
    assert not faults, "\n".join(faults)


@pytest.mark.parametrize(
    ("rule", "file", "source", "lines"),
    [
        ("collections", "queue/recover.py", "def f(database):\n    return database['results'].find_one()", [2]),
        ("collections", "campaigns/status.py", "NAME = 'campaign_members'", [1]),
        ("collections", "store/claims.py", "def f(database):\n    return database['claims']", []),
        ("fireworks_private", "queue/worker.py", "def f(pad):\n    return pad.launches.find()", [2]),
        ("fireworks_private", "queue/submit.py", "def f(launchpad):\n    launchpad._refresh_wf(1)", [2]),
        ("fireworks_private", "queue/recover.py", "QUERY = {\n    'spec._priority': 1}", [2]),
        ("fireworks_private", "queue/fireworks_adapter.py", "def f(pad):\n    return pad.launches", []),
    ],
)
def test_a_name_out_of_its_room_is_found(rule: str, file: str, source: str, lines: list[int]) -> None:
    faults = SOURCE_RULES[rule](ast.parse(source), f"esen_flows/{file}")
    assert [int(fault.split(":")[1]) for fault in faults] == lines


# Dotted names that stand in users' files and in fireworks, and where the code is now.
OLD_NAMES = {
    "esen_flows.store.roomy_store:RoomyStore": "esen_flows.store.large_document_job_store:LargeDocumentJobStore"
}
STORED_NAMES = (
    "esen_flows.makers.jobs:relax_job", "esen_flows.makers.jobs:forces_job", "esen_flows.makers.jobs:phonon_job",
    "esen_flows.makers.jobs:conductivity_job", "esen_flows.makers.chunks:chunk_job",
    "esen_flows.makers.relax:RelaxMaker", "esen_flows.makers.phonon:PhononMaker",
    "esen_flows.makers.conductivity:ConductivityMaker", "esen_flows.makers.training:LabelMaker",
    "esen_flows.makers.training:TrainMaker", "esen_flows.makers.training_flows:PretrainFinetuneFlow",
    "esen_flows.makers.training_flows:RecipeFlow", "esen_flows.makers.training:EvaluateMaker",
    "esen_flows.forcefield.ase_calculator:ForceFieldCalculator",
)  # fmt: skip


def named(dotted: str) -> object:
    module, _, name = dotted.partition(":")
    return getattr(importlib.import_module(module), name)


@pytest.mark.parametrize("dotted", STORED_NAMES)
def test_a_stored_name_is_there(dotted: str) -> None:
    found = named(dotted)
    assert f"{found.__module__}:{found.__name__}" == dotted  # type: ignore[attr-defined]


@pytest.mark.parametrize("old", OLD_NAMES)
def test_an_old_name_is_what_it_is_called_now(old: str) -> None:
    assert named(old) is named(OLD_NAMES[old])
