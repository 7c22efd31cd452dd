"""Queries find the documents that fit their filters, and use an index."""

from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

import pytest
from emt_campaigns import empty_database
from result_documents import commit, document, failed, key_of, large_array

from esen_flows.errors import InputError
from esen_flows.settings import Settings
from esen_flows.store.queries.query import find_by_prefix, query
from esen_flows.store.queries.selection import select
from esen_flows.store.results import Store

pytestmark = pytest.mark.mongod

CRYSTALS = {
    "silicon": {"formula": "Si", "chemsys": "Si", "elements": ["Si"]},
    "quartz": {
        "formula": "SiO2",
        "chemsys": "O-Si",
        "elements": ["O", "Si"],
        "space_group_number": 152,
        "space_group_symbol": "P3_121",
        "nsites": 9,
    },
    "arsenide": {
        "formula": "GaAs",
        "chemsys": "As-Ga",
        "elements": ["As", "Ga"],
        "space_group_number": 216,
        "space_group_symbol": "F-43m",
        "model_label": "other",
        "model_key": key_of("other"),
    },
    "garnet": {
        "formula": "Al5Y3O12",
        "chemsys": "Al-O-Y",
        "elements": ["Al", "O", "Y"],
        "nsites": 80,
        "tags": ["oxides"],
    },
}
ENERGIES = {"silicon": -5.4, "quartz": -7.9, "arsenide": -4.1, "garnet": -8.3}


@pytest.fixture(scope="module")
def filled(embedded_settings: Settings) -> Iterator[Store]:
    """Four relaxations, one of them with a large array, a phonon and a failure."""
    with empty_database(embedded_settings) as store:
        for day, (name, fields) in enumerate(CRYSTALS.items(), start=1):
            made = document(
                key_of(name),
                **fields,
                created_at=datetime(2026, 11, day, tzinfo=UTC),
                summary={"energy_per_atom_ev": ENERGIES[name]},
                output={"large": large_array(0)} if name == "silicon" else {"n": 1},
            )
            commit(store, made)
        commit(store, document(key_of("phonon"), kind="phonon"))
        commit(store, failed(key_of("failed"), final=True))
        yield store


def uses_an_index(cursor: Any) -> bool:
    plan = str(cursor.explain()["queryPlanner"]["winningPlan"])
    return "IXSCAN" in plan and "COLLSCAN" not in plan


def names(found: list[Any]) -> list[str]:
    of_key = {key_of(name): name for name in (*CRYSTALS, "phonon", "failed")}
    return [of_key[result.key] for result in found]


@pytest.mark.parametrize(
    ("filters", "expected"),
    [
        ({}, ["garnet", "arsenide", "quartz", "silicon"]),  # newest first
        ({"chemsys": "Ga-As"}, ["arsenide"]),
        ({"chemsys": "Si-O"}, ["quartz"]),
        ({"formula": "O2Si"}, ["quartz"]),
        ({"formula": "Si8"}, ["silicon"]),
        ({"elements": ["Si"]}, ["quartz", "silicon"]),
        ({"elements": ["O", "Si"]}, ["quartz"]),
        ({"spacegroup": 216}, ["arsenide"]),
        ({"spacegroup": "216"}, ["arsenide"]),
        ({"spacegroup": "P3_121"}, ["quartz"]),
        ({"spacegroup": "P 31 2 1"}, ["quartz"]),
        ({"model": "other"}, ["arsenide"]),
        ({"model": key_of("other")}, ["arsenide"]),
        ({"model": "esen_silicon", "elements": ["O"]}, ["garnet", "quartz"]),
        ({"failed": True}, ["failed"]),
        ({"campaign": "oxides"}, ["garnet"]),
        ({"campaign": {"$ne": ""}}, []),
        ({"sort": "formula"}, ["garnet", "arsenide", "silicon", "quartz"]),
        ({"sort": "-nsites", "limit": 2}, ["garnet", "quartz"]),
        ({"sort": "energy_per_atom_ev"}, ["garnet", "quartz", "silicon", "arsenide"]),
        ({"limit": 1}, ["garnet"]),
        ({"formula": "Ge"}, []),
        ({"where": "energy_per_atom < -5 and nsites < 80"}, ["quartz", "silicon"]),
        ({"where": "not (energy_per_atom < -5 and nsites < 80)"}, ["garnet", "arsenide"]),
        ({"where": "formula == 'AsGa' or spacegroup == 152"}, ["arsenide", "quartz"]),
        ({"where": "elements == 'O' and elements != 'Al'"}, ["quartz"]),
        ({"where": "created >= '2026-11-03'"}, ["garnet", "arsenide"]),
        ({"where": "model != 'other'", "elements": ["O"], "sort": "-energy_per_atom"}, ["quartz", "garnet"]),
        ({"where": "converged or not converged"}, []),  # no document has the value
        ({"where": "error == 'NotConvergedError' and final", "failed": True}, ["failed"]),
    ],
)
def test_filters(filled: Store, filters: dict[str, Any], expected: list[str]) -> None:
    assert names(query(filled, "relax", **filters)) == expected


def test_a_query_finds_one_kind_and_reads_no_arrays(filled: Store) -> None:
    assert names(query(filled, "phonon")) == ["phonon"]
    assert all(result.output is None for result in query(filled, "relax"))
    assert query(filled, "relax", formula="Si")[0].summary == {"energy_per_atom_ev": -5.4}


def test_superseded_attempts_are_not_found(store: Store) -> None:
    commit(store, failed(key_of("x"), final=False))
    commit(store, document(key_of("x")))
    assert query(store, "relax", failed=True) == []
    assert [result.attempt for result in query(store, "relax")] == [1]


def test_prefixes(filled: Store) -> None:
    key = key_of("quartz")
    for digits in (key[:4], key[:12].upper(), f" {key} "):
        assert names(find_by_prefix(filled, digits)) == ["quartz"]
    assert find_by_prefix(filled, "0" * 64) == []
    for wrong in ("", "abc", "xyzw", "a" * 65, ".*..", "$gte"):
        with pytest.raises(InputError, match="not the beginning of a result key"):
            find_by_prefix(filled, wrong)


@pytest.mark.parametrize(
    ("kind", "filters"),
    [
        ("relax", {}),
        ("relax", {"chemsys": "Ga-As"}),
        ("relax", {"elements": ["Si", "O"]}),
        ("relax", {"formula": "GaAs"}),
        ("relax", {"spacegroup": 216}),
        ("relax", {"spacegroup": "F-43m"}),
        ("relax", {"model": "esen_silicon"}),
        ("relax", {"model": key_of("model")}),
        ("relax", {"failed": True}),
        ("relax", {"campaign": "oxides"}),
        ("structures", {"campaign": "oxides"}),
        ("forces", {"where": "nsites < 10"}),
        ("relax", {"where": "energy_per_atom < -5 and converged"}),
        ("relax", {"sort": "energy_per_atom"}),
        ("relax", {"where": "nsites < 10", "sort": "-nsites"}),
        ("conductivity", {"where": "kappa_300K > 10 and converged", "sort": "-kappa_300K"}),
        ("structures", {}),
        ("structures", {"chemsys": "Ga-As"}),
        ("structures", {"elements": ["Si", "O"]}),
        ("structures", {"spacegroup": 216}),
    ],
)
def test_queries_use_an_index(filled: Store, kind: Any, filters: dict[str, Any]) -> None:
    assert uses_an_index(select(kind, **filters).cursor(filled, {"_id": 1}))


@pytest.mark.parametrize(
    "filters",
    [
        {"key": {"$gte": "ab", "$lt": "abg"}, "current": True},
        {"key": key_of("quartz"), "current": True},
        {"blobs": "a" * 64},
    ],
)
def test_lookups_by_key_use_an_index(filled: Store, filters: dict[str, Any]) -> None:
    assert uses_an_index(filled.database["results"].find(filters))
