"""Chunks of about the same duration, with every member once."""

import numpy as np
import pytest

from esen_flows.campaigns import pack as packing
from esen_flows.campaigns.pack import pack


def members(costs: list[float]) -> list[dict[str, object]]:
    return [{"key": f"k{i:04}", "cost": cost} for i, cost in enumerate(costs)]


def test_chunks_take_the_target_and_hold_large_and_small() -> None:
    rng = np.random.default_rng(3)
    costs = rng.lognormal(3.0, 1.5, size=1000).tolist()
    target = sum(costs) * 1e-2 / 8  # eight chunks by 0.01 s a unit
    chunks = pack(members(costs), 1e-2, target)
    assert len(chunks) == 8
    assert sorted(row["key"] for chunk in chunks for row in chunk) == sorted(row["key"] for row in members(costs))
    packed = [[row["cost"] for row in chunk] for chunk in chunks]
    loads = [sum(each) * 1e-2 for each in packed]
    assert max(loads) - min(loads) < 0.01 * target
    for each in packed:
        assert each == sorted(each, reverse=True)
        assert min(each) < np.median(costs) < max(each)


def test_a_member_longer_than_the_target_is_the_only_one_of_its_chunk() -> None:
    chunks = pack(members([1000.0, 1.0, 1.0, 1.0]), 1.0, 10.0)
    assert [row["cost"] for row in chunks[0]] == [1000.0]


def test_without_a_measurement_chunks_have_equal_numbers_of_members(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(packing, "MEMBERS_UNMEASURED", 10)
    chunks = pack(members([1.0] * 35), None, 60.0)
    assert sorted(map(len, chunks)) == [8, 9, 9, 9]


def test_no_chunk_is_too_large_for_a_firework(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(packing, "MOST_MEMBERS", 10)
    chunks = pack(members([100.0] + [1.0] * 60), 1e-9, 1e9)
    assert max(map(len, chunks)) <= 10
    assert sum(map(len, chunks)) == 61


def test_no_members_make_no_chunks() -> None:
    assert pack([], 1.0, 60.0) == []
