"""Batches: each structure once, within bounds, the same for the same seed, in even shares."""

import threading

import numpy as np
import pytest
from stages import argon, stage

from esen_flows.data.dataset import from_structures
from esen_flows.training.batches import Pick, passes, plan_epoch, prefetched, share_of


@pytest.fixture(scope="module")
def data():
    return from_structures(argon(12))


def test_an_epoch_sees_everything_once_within_the_bounds(data):
    edges = np.arange(10, 130, 10)
    plan = plan_epoch(data, edges, stage(edges_per_batch=150, structures_per_batch=4), epoch=0)
    batches = [plan.batch(number) for number in range(len(plan))]
    assert sorted(pick.index for batch in batches for pick in batch) == list(range(12))
    assert all(pick.edges == edges[pick.index] for batch in batches for pick in batch)
    assert all(sum(pick.edges for pick in batch) <= 150 and len(batch) <= 4 for batch in batches)
    assert [pick.place for pick in batches[0]] == list(range(len(batches[0])))


def test_a_structure_larger_than_the_bound_is_a_batch_alone(data):
    plan = plan_epoch(data, np.full(12, 500), stage(edges_per_batch=100), epoch=0)
    assert len(plan) == 12


def test_order_is_a_function_of_seed_and_epoch(data):
    edges = np.full(12, 10)
    orders = [
        plan_epoch(data, edges, stage(seed=seed), epoch).order.tolist() for seed, epoch in ((0, 0), (0, 0), (0, 1))
    ]
    assert orders[0] == orders[1] != orders[2]
    mirrored = plan_epoch(data, edges, stage(random_inversion=True), epoch=0).mirrored
    assert 0 < mirrored.sum() < 12
    assert not plan_epoch(data, edges, stage(), epoch=0).mirrored.any()


def test_a_group_is_seen_by_its_share(data):
    seen = [len(plan_epoch(data, np.full(12, 10), stage(group_share={"fcc": 0.5}), epoch).order) for epoch in range(40)]
    assert np.mean(seen) == pytest.approx(6, abs=1)


def test_ranks_share_a_batch_evenly_and_completely():
    picks = [Pick(index, index, False, edges) for index, edges in enumerate([90, 10, 40, 50, 60, 30])]
    shares = [share_of(picks, rank, 2) for rank in range(2)]
    assert sorted(pick.index for share in shares for pick in share) == list(range(6))
    assert [sum(pick.edges for pick in share) for share in shares] == [140, 140]
    assert share_of(picks, 0, 1) == picks


def test_passes_hold_at_most_the_given_edges():
    picks = [Pick(index, index, False, 40) for index in range(5)]
    assert [len(part) for part in passes(picks, 100)] == [2, 2, 1]
    assert passes(picks, None) == [picks]
    assert passes([], 100) == []


def test_values_are_prefetched_in_a_thread_and_in_order():
    made = []

    def make(number):
        made.append((number, threading.current_thread() is threading.main_thread()))
        return number * number

    assert list(prefetched(make, range(6))) == [0, 1, 4, 9, 16, 25]
    assert made == [(number, False) for number in range(6)]

    both = threading.Barrier(2, timeout=20)

    def together(number):
        both.wait()  # passes only if two values are made at once
        return number

    assert list(prefetched(together, range(4), threads=2)) == [0, 1, 2, 3]

    def fail(number):
        raise RuntimeError(f"record {number}")

    with pytest.raises(RuntimeError, match="record 0"):
        list(prefetched(fail, range(6)))
