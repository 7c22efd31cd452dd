"""Rows of plain values, without a database."""

import sys

import pytest
from result_documents import document, failed, key_of

from esen_flows.errors import InputError
from esen_flows.store.queries.tables import columns_of, row_of, to_frame


def test_a_row_has_the_columns_in_order_and_none_for_missing_values() -> None:
    columns = columns_of("relax", ["model", "energy_per_atom", "error", "seconds", "dtype", "a"])
    row = row_of(document(key_of("x")), columns)
    assert list(row) == ["model", "energy_per_atom", "error", "seconds", "dtype", "a"]
    assert list(row.values()) == ["esen_silicon", -5.42, None, 1.5, "float64", None]
    assert row_of(failed(key_of("y"), final=True), columns)["error"] == "NotConvergedError"


def test_a_column_with_a_temperature_is_empty_for_results_at_other_temperatures() -> None:
    columns = columns_of("conductivity", ["kappa_300K", "kappa", "converged"])
    for temperature, at_room in ((300.0, 12.5), (250.0, None)):
        summary = {"kappa_rta_w_per_m_k": 12.5, "temperature_kelvin": temperature}
        row = row_of(document(key_of("k"), kind="conductivity", summary=summary), columns)
        assert row == {"kappa_300K": at_room, "kappa": 12.5, "converged": True}


def test_unknown_columns_are_named() -> None:
    with pytest.raises(InputError, match="relax has no value 'energi_per_atom'; did you mean energy_per_atom"):
        columns_of("relax", ["formula", "energi_per_atom"])


def test_a_frame_has_identity_and_summary() -> None:
    frame = to_frame([document(key_of("a")), document(key_of("b"), summary={"n_steps": 3})])
    assert list(frame["key"]) == [key_of("a"), key_of("b")]
    assert list(frame.columns[-2:]) == ["energy_per_atom_ev", "n_steps"]
    assert frame["n_steps"][1] == 3


def test_without_pandas_the_message_tells_how_to_install_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pandas", None)
    with pytest.raises(InputError, match="pip install pandas"):
        to_frame([])
