"""Reading many documents."""

from typing import TYPE_CHECKING

import pytest

from esen_flows.store.reading import distinct, find_all, in_batches

if TYPE_CHECKING:
    from esen_flows.store.results import Store

pytestmark = pytest.mark.mongod


def test_batches_hold_every_document_once(store: "Store") -> None:
    db = store.database
    assert list(in_batches(db, "results", {})) == []
    db["results"].insert_many([{"_id": n, "key": str(n), "attempt": 0, "kind": "ab"[n % 2]} for n in (4, 1, 3, 0, 2)])
    batches = list(in_batches(db, "results", {"_id": 1}, length=2))
    assert [[row["_id"] for row in batch] for batch in batches] == [[0, 1], [2, 3], [4]]
    assert batches[0][0] == {"_id": 0}
    odd = in_batches(db, "results", {"_id": 1}, {"kind": "b"}, length=1)
    assert [row["_id"] for batch in odd for row in batch] == [1, 3]
    assert find_all(db, "results", {"_id": 3}, {"key": 1}) == [{"_id": 3, "key": "3"}]
    assert distinct(db, "results", "kind", {"_id": {"$lt": 4}}) == {"a", "b"}
