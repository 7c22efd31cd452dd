"""Training and validation sets."""

import pytest

from esen_flows.data.splits import split_by_group
from esen_flows.errors import InputError


def test_split_takes_its_share_of_every_group():
    groups = ["a"] * 50 + ["b"] * 20 + ["c"] * 2
    training, validation = split_by_group(groups, 0.1, seed=5)
    assert sorted(training + validation) == list(range(72))
    assert [sum(groups[i] == g for i in validation) for g in "abc"] == [5, 2, 0]
    assert split_by_group(groups, 0.1, seed=5) == (training, validation)
    assert split_by_group(groups, 0.1, seed=6) != (training, validation)
    with pytest.raises(InputError, match=r"must be in \[0, 1\), got 1.5"):
        split_by_group(groups, 1.5, seed=0)
