"""Makers of labelling, training and evaluation: keys known in advance, published recipes, serialisation."""

import json
from typing import Any

import pytest
from copper_stages import DENS, stage
from monty.json import MontyDecoder, MontyEncoder

from esen_flows.errors import InputError
from esen_flows.makers.training import LabelMaker, TrainMaker
from esen_flows.makers.training_flows import PretrainFinetuneFlow, RecipeFlow
from esen_flows.makers.training_jobs import gate_job
from esen_flows.schemas.training import Split
from esen_flows.training.config import config_from_dict


def test_all_keys_of_a_chain_are_known_before_it_runs() -> None:
    pretrain = TrainMaker(name="pretrain", config=stage(**DENS))
    flow = PretrainFinetuneFlow(pretrain=pretrain, finetune=TrainMaker(config=stage())).make("aa" * 32)
    first, second, audit, evaluation = flow.jobs
    assert (audit.name, evaluation.name) == ("audit", "evaluate")
    request = pretrain.request("aa" * 32)
    assert request is not None
    assert first.metadata["result_key"] == request.key
    after = TrainMaker(config=stage()).request([("aa" * 32, 1)], start=request)
    assert after is not None
    assert second.metadata["result_key"] == after.key
    mixed = PretrainFinetuneFlow(pretrain=pretrain, finetune=TrainMaker(config=stage())).make(
        "aa" * 32, finetune_data=[("bb" * 32, 1), ("cc" * 32, 8)]
    )
    assert len(mixed.jobs) == 5  # an audit, and an evaluation for each dataset of the last stage
    assert len(mixed.output["evaluations"]) == 2


def test_a_published_recipe_is_a_flow() -> None:
    data = {"OMat24": "aa" * 32, "sAlex": "bb" * 32, "MPtrj": "cc" * 32}
    flow = RecipeFlow(card="esen_30m_oam", stage=TrainMaker(device="cuda", max_seconds=80_000.0)).make(data)
    pretrain, finetune, last, _, *judges = flow.jobs
    assert [job.name for job in (pretrain, finetune, last)] == [
        "esen_30m_oam 1 pretrain", "esen_30m_oam 2 finetune", "esen_30m_oam 3 finetune_oam",
    ]  # fmt: skip
    assert pretrain.function_kwargs["config"]["denoising"] is True
    assert finetune.function_kwargs["config"]["direct_forces"] is False
    assert last.function_kwargs["datasets"] == [["bb" * 32, 1], ["cc" * 32, 8]]
    assert len({job.metadata["result_key"] for job in (pretrain, finetune, last)}) == 3
    assert len(judges) == 2
    with pytest.raises(InputError, match=r"\['MPtrj', 'sAlex'\] were not given"):
        RecipeFlow(card="esen_30m_oam").make({"OMat24": "aa" * 32})
    with pytest.raises(InputError, match="has no recipe 'mine'; it has"):
        RecipeFlow(card="esen_30m_mp", recipe="mine").make(data)


def test_a_failed_audit_stops_what_uses_the_force_field() -> None:
    maker = TrainMaker(config=stage())
    flow = PretrainFinetuneFlow(pretrain=maker, finetune=maker, stop_on_failed_audit=True).make("aa" * 32)
    *_, audit, gate, evaluation = flow.jobs
    assert gate.function_kwargs["audit"].uuid == audit.uuid
    assert evaluation.function_kwargs["training"].uuid == gate.uuid == flow.output["training"].uuid
    training = {"key": "bb" * 32}
    for verdict, stopped in (("failed", True), ("passed", False)):
        response = gate_job({"summary": {"verdict": verdict}}, training)
        assert (response.output, response.stop_children) == (training, stopped)
    with pytest.raises(InputError, match="needs an audit"):
        PretrainFinetuneFlow(pretrain=maker, finetune=maker, audit=None, stop_on_failed_audit=True).make("aa" * 32)


def test_impossible_stages_are_refused_by_make() -> None:
    with pytest.raises(InputError, match="train: missing"):
        TrainMaker().make("aa" * 32)
    with pytest.raises(InputError, match="give one of them"):
        TrainMaker(config=stage(), initial="esen_silicon").make("aa" * 32, start="bb" * 32)


@pytest.mark.parametrize("config", [stage(), config_from_dict(stage())])
def test_makers_survive_serialisation(config: Any) -> None:
    maker = TrainMaker(config=config, split=Split(seed=3))
    flow = PretrainFinetuneFlow(pretrain=maker, finetune=maker, label=LabelMaker(average_inversion=False))
    restored = MontyDecoder().decode(json.dumps(flow, cls=MontyEncoder))
    assert restored.label.average_inversion is False
    before, after = maker.request("aa" * 32), restored.finetune.request("aa" * 32)
    assert before == after
