"""Keys of labellings, trainings and evaluations: the request decides, and nothing else."""

import json
from typing import Any

import pytest
from pydantic import ValidationError

from esen_flows.schemas.protocols import NumericSettings
from esen_flows.schemas.requests import ResultRequest, evaluation_request, labelling_request, training_request
from esen_flows.schemas.training import (
    RANDOM_WEIGHTS,
    EvaluationProtocol,
    LabellingProtocol,
    Split,
    TrainingProtocol,
    errors_as_rows,
    overall,
)

DATA, MODEL, PARENT = "aa" * 32, "bb" * 32, "cc" * 32
CONFIG = {"epochs": 3, "learning_rate": 1e-3, "dtype": "float32"}


def stage(**changes: Any) -> TrainingProtocol:
    return TrainingProtocol(**{"config": CONFIG, "datasets": ((DATA, 1),), **changes})


def test_golden_keys() -> None:
    # Recorded at the first release: a changed key repeats every training.
    labelling = labelling_request(DATA, MODEL, LabellingProtocol(), NumericSettings())
    evaluation = evaluation_request(DATA, MODEL, EvaluationProtocol(held_out=Split()), NumericSettings())
    keys = {request.kind: request.key for request in (labelling, training_request(stage()), evaluation)}
    assert keys == {
        "labelling": "913ed0c3cd8dc1c043ee802e80dbc055a4be5fdda9aa0332867c7de51810a88d",
        "training": "0a2b239be9ae550a95445a77ebc862dfb1172caf6c2c751bd220dcf39f32043c",
        "evaluation": "a0aceca94f95aa5f0fa7d929c9dee875a830e858ea593a0325586cae71a2619b",
    }


def test_everything_that_decides_is_in_the_key() -> None:
    requests = [
        training_request(stage()),
        training_request(stage(config={**CONFIG, "epochs": 4})),
        training_request(stage(config={**CONFIG, "dtype": "float64"})),
        training_request(stage(datasets=((DATA, 8),))),
        training_request(stage(datasets=((DATA, 1), (MODEL, 1)))),
        training_request(stage(split=Split(seed=1))),
        training_request(stage(split=Split(fraction=0.1))),
        training_request(stage(), initial_model_key=MODEL),
        training_request(stage(), parent=(PARENT, RANDOM_WEIGHTS)),
        evaluation_request(DATA, MODEL, EvaluationProtocol(), NumericSettings()),
        evaluation_request(DATA, MODEL, EvaluationProtocol(held_out=Split()), NumericSettings()),
        labelling_request(DATA, MODEL, LabellingProtocol(average_inversion=False), NumericSettings()),
    ]
    assert len({request.key for request in requests}) == len(requests)
    assert training_request(stage(config=dict(reversed(CONFIG.items())))).key == requests[0].key


def test_a_stage_is_keyed_by_the_stage_before_it() -> None:
    first = training_request(stage())
    second = training_request(stage(), parent=(first.key, first.model_key))
    third = training_request(stage(), parent=(second.key, second.model_key))
    assert (second.parent_key, third.parent_key) == (first.key, second.key)
    assert third.model_key == RANDOM_WEIGHTS  # where the chain began
    assert first.numeric.dtype == "float32"


def test_requests_survive_json() -> None:
    request = training_request(stage(datasets=((DATA, 1), (MODEL, 8))))
    back = ResultRequest.model_validate(json.loads(json.dumps(request.model_dump(mode="json"))))
    assert back == request
    assert back.key == request.key


def test_a_later_setting_at_its_default_changes_no_key(monkeypatch: pytest.MonkeyPatch) -> None:
    before = stage().hash()
    later = stage(config={**CONFIG, "lookahead": 0})
    assert later.hash() != before
    monkeypatch.setattr(TrainingProtocol, "config_added_later", {"lookahead": 0})
    assert later.hash() == before
    assert stage(config={**CONFIG, "lookahead": 1}).hash() != before


@pytest.mark.parametrize(
    "changes", [{"datasets": ()}, {"datasets": ((DATA, 0),)}, {"split": {"fraction": 1.0}}, {"split": {"seed": -1}}]
)
def test_impossible_settings_are_refused(changes: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        stage(**changes)


def test_errors_by_group_are_rows() -> None:
    rows = errors_as_rows({"all": {"mae": 1.0}, "$x.y": {"mae": 2.0}})
    assert rows == [{"group": "$x.y", "mae": 2.0}, {"group": "all", "mae": 1.0}]
    assert overall(rows) == {"mae": 1.0}
    assert overall(rows[:1]) == {}
