"""Fine-tuning: it learns one's own data, reports what was forgotten, and does not depend on the zero of the energy."""

import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from stages import DIRECT, argon, argon_data, stage

from esen_flows.data.dataset import from_structures
from esen_flows.data.labelled import LabelledStructure
from esen_flows.errors import InputError
from esen_flows.forcefield.checkpoint import load
from esen_flows.network.esen.esen import ESEN
from esen_flows.training.finetune import Parent, finetune, finetune_config
from esen_flows.training.train import train

SHORT = {"epochs": 12, "edges_per_batch": 400, "warmup_steps": 5, "ema_decay": 0.9, "learning_rate": 5e-3}


@pytest.fixture(scope="module")
def domain():
    return argon_data()


@pytest.fixture(scope="module")
def parent(domain, tmp_path_factory):
    return load(train(stage(epochs=15), *domain, tmp_path_factory.mktemp("parent")))


@pytest.fixture(scope="module")
def own():
    """Another level of theory: forces and cohesion 1.5 times as strong, another zero of the energy."""
    items = [
        LabelledStructure(i.atoms, 1.5 * i.energy + 3.0 * len(i.atoms), 1.5 * i.forces, 1.5 * i.stress, "mine")
        for i in argon(seed=100)
    ]
    return from_structures(items[:20]), from_structures(items[20:])


def test_own_data_are_learned_and_forgetting_is_reported(parent, own, domain, tmp_path):
    config = finetune_config(parent, own[0], SHORT)
    assert config.freeze == ("sphere_embedding", "source_embedding", "target_embedding")
    report = finetune(parent, config, *own, tmp_path, domain=Parent(None, domain[1]))
    before, after = (report["own"][when]["mine"] for when in ("before", "after"))
    assert after["force_mae_mev_per_angstrom"] < 0.7 * before["force_mae_mev_per_angstrom"]
    assert before["energy_mae_mev_per_atom"] < 50  # not 3 eV: the references were refitted first
    forgotten = report["parent_domain"]
    assert (
        forgotten["after"]["all"]["force_mae_mev_per_angstrom"]
        > forgotten["before"]["all"]["force_mae_mev_per_angstrom"]
    )
    assert forgotten["after"]["all"]["energy_mae_mev_per_atom"] < 50
    assert json.loads((tmp_path / "report.json").read_text()) == report
    assert load(report["checkpoint"]).training["initial_model_key"] == parent.model_key == report["parent_model_key"]


def test_replay_keeps_more_of_the_parents_domain(parent, own, domain, tmp_path):
    # With its scale kept, so that replayed labels are as they were.
    config = finetune_config(parent, own[0], {**SHORT, "scale": "keep"})
    errors = {}
    for name, replay in (("without", None), ("with", domain[0])):
        report = finetune(parent, config, *own, tmp_path / name, domain=Parent(replay, domain[1]))
        errors[name] = report["parent_domain"]["after"]["all"]["force_mae_mev_per_angstrom"]
    assert errors["with"] < 0.7 * errors["without"]


def test_epochs_follow_the_amount_of_data_and_changes_replace_defaults(parent, own):
    few = finetune_config(parent, own[0])
    steps_per_epoch = max(1, round(own[0].edge_counts(5.0).sum() / few.edges_per_batch))
    assert few.epochs * steps_per_epoch == pytest.approx(3_000, rel=0.1)
    assert few.network == parent.network.config
    assert finetune_config(parent, own[0], {"epochs": 7, "freeze": []}).epochs == 7
    with pytest.raises(InputError, match="unknown keys"):
        finetune_config(parent, own[0], {"speed": 3})


def test_embeddings_are_not_frozen_for_new_elements(parent, own):
    copper = own[0][0].atoms.copy()
    copper.numbers[:] = 29
    item = LabelledStructure(copper, -1.0, np.zeros((len(copper), 3)), np.zeros((3, 3)))
    assert finetune_config(parent, from_structures([item])).freeze == ()


def test_a_direct_parent_is_refused(parent, own):
    torch.manual_seed(0)
    direct = replace(parent, network=ESEN(stage(**DIRECT).network))
    with pytest.raises(InputError, match="predicts forces directly"):
        finetune_config(direct, own[0])
