"""Files in the layout of published checkpoints give the same numbers as the network that wrote them."""

import collections
import copy
import functools
import operator
import os

import numpy as np
import pytest
import torch
from ase.build import bulk
from published_files import backbone_options, first_generation, published_state, small_network

from esen_flows.errors import ModelError
from esen_flows.forcefield.checkpoint import Checkpoint, load, save
from esen_flows.forcefield.converted import read_published
from esen_flows.forcefield.network import NetworkForceField

REFERENCES = {14: -5.4, 8: -2.0}


def quartz():
    atoms = bulk("SiO", "zincblende", a=4.6)
    atoms.rattle(0.05, seed=1)
    return atoms


def expected(network, **changes):
    values = {"scale_ev": 1.7, "references_ev": REFERENCES, "elements": (8, 14)} | changes
    return NetworkForceField(Checkpoint(network, **values)).evaluate([quartz()])[0]


def evaluate(path, **arguments):
    return NetworkForceField(read_published(path, **arguments)).evaluate([quartz()])[0]


def same(a, b):
    assert a.energy == b.energy
    assert np.array_equal(a.forces, b.forces)
    assert np.array_equal(a.stress, b.stress)


def plain_file(content):
    return content


def legacy_names(content):
    """Targets and standard deviations as in the first files, with numbers of numpy."""
    content["normalizers"] = {
        "target": {"mean": np.float64(0.0), "std": np.float64(1.7)},
        "grad_target": {"mean": np.float32(0.0), "std": np.float64(1.7)},
    }
    return content


def prefixed(content):
    content["state_dict"] = {f"module.module.{k}": v for k, v in content["state_dict"].items()}
    return content


def default_dicts(content):
    content["config"] = collections.defaultdict(dict, content["config"])
    content["elementrefs"]["energy"] = {
        "element_references": content["elementrefs"]["energy"]["element_references"].numpy()
    }
    return content


def training_file(content):
    """With optimiser, scheduler and a moving average that differs from the weights."""
    state = content["state_dict"]
    constants = ("Jd_", "expand_index", "balance_degree_weight", "offset")
    parameters = [name for name in state if not any(part in name for part in constants)]
    shadow = [state[name].clone() for name in parameters]
    for name in parameters:
        state[name] = state[name] + 1.0
    content |= {
        "epoch": 3,
        "step": 100,
        "optimizer": {"state": {}},
        "scheduler": None,
        "best_val_metric": np.float64(1),
    }
    return content | {"ema": {"decay": 0.999, "num_updates": 100, "shadow_params": shadow, "collected_params": []}}


@pytest.mark.parametrize("spelling", [plain_file, legacy_names, prefixed, default_dicts, training_file])
def test_first_generation_files_evaluate_to_the_same_numbers(tmp_path, spelling):
    network = small_network()
    torch.save(spelling(first_generation(network)), tmp_path / "esen.pt")
    same(evaluate(tmp_path / "esen.pt"), expected(network))


def test_a_published_file_converts_to_a_native_file(tmp_path):
    network = small_network()
    torch.save(first_generation(network), tmp_path / "esen.pt")
    checkpoint = read_published(tmp_path / "esen.pt")
    key = save(tmp_path / "esen.safetensors", checkpoint)
    again = load(tmp_path / "esen.safetensors")
    assert again.model_key == key
    assert again.network.config.max_neighbors == 300
    assert again.elements == (8, 14)
    assert again.training["converted_from"]["weights"] == "model"
    same(NetworkForceField(again).evaluate([quartz()])[0], expected(network))


def test_the_mean_of_an_energy_normaliser_is_kept(tmp_path):
    network = small_network()
    content = first_generation(network)
    content["normalizers"]["energy"]["mean"] = torch.tensor(-0.25, dtype=torch.float64)
    torch.save(content, tmp_path / "esen.pt")
    found, plain = evaluate(tmp_path / "esen.pt"), expected(network)
    assert found.energy == pytest.approx(plain.energy - 0.25, abs=1e-12)
    assert found.energies.sum() == pytest.approx(found.energy, abs=1e-12)
    save(tmp_path / "esen.safetensors", read_published(tmp_path / "esen.pt"))
    assert NetworkForceField(load(tmp_path / "esen.safetensors")).evaluate([quartz()])[0].energy == found.energy


def test_without_configuration_missing_options_are_asked_for(tmp_path):
    network = small_network()
    content = first_generation(network)
    del content["config"]
    torch.save(content, tmp_path / "esen.pt")
    with pytest.raises(ModelError, match="do not tell use_envelope, max_neighbors: give them"):
        read_published(tmp_path / "esen.pt")
    same(evaluate(tmp_path / "esen.pt", options={"use_envelope": True, "max_neighbors": 0}), expected(network))


def test_repeated_elements_count_once_and_need_a_reference(tmp_path):
    torch.save(first_generation(small_network()), tmp_path / "esen.pt")
    checkpoint = read_published(tmp_path / "esen.pt", elements=[14, 14])
    assert (checkpoint.elements, checkpoint.references_ev) == ((14,), {14: -5.4})
    with pytest.raises(ModelError, match=r"no reference energy for atomic numbers \[26\]"):
        read_published(tmp_path / "esen.pt", elements=[14, 26])


def second_generation(network):
    """Content of a file of the second generation, whose classes are not there when it is read."""
    normalizer = {"_target_": "fairchem.core.Normalizer", "mean": 0.0, "rmsd": 1.7}
    references = [REFERENCES.get(z, 0.0) for z in range(100)]
    state = published_state(network)
    averaged = {f"module.{name}": value for name, value in state.items() if not name.endswith("offset")}
    options = {"chg_spin_emb_type": "rand_emb"} if network.config.charge_spin_embedding != "none" else {}
    backbone = backbone_options(network.config, **options)
    del backbone["use_envelope"]  # always on in the second generation
    return {
        "model_config": {"backbone": backbone, "heads": {"efs": {}}},
        "model_state_dict": {name: value + 1 for name, value in state.items()},
        "ema_state_dict": {"n_averaged": torch.tensor(7), **averaged},
        "tasks_config": [
            {"name": "omol_energy", "property": "energy", "normalizer": normalizer,
             "element_references": {"_target_": "fairchem.core.LinearReferences", "element_references": references}},
            {"name": "omol_forces", "property": "forces", "normalizer": normalizer, "element_references": None},
        ],
    }  # fmt: skip


def save_record(content, path):
    """Save an instance of a foreign class: the pickle holds its name, and the class is removed afterwards."""
    import sys
    import types

    module = types.ModuleType("fairchem.checkpoints")
    cls = type("InferenceCheckpoint", (), {"__module__": module.__name__})
    module.InferenceCheckpoint = cls
    sys.modules.update({"fairchem": types.ModuleType("fairchem"), module.__name__: module})
    try:
        value = cls()
        value.__dict__.update(content)
        torch.save(value, path)
    finally:
        del sys.modules[module.__name__], sys.modules["fairchem"]


@pytest.mark.parametrize("charged", ["none", "rand_emb"])
def test_second_generation_files_evaluate_to_the_same_numbers(tmp_path, charged):
    network = small_network(charge_spin_embedding=charged)
    save_record(second_generation(network), tmp_path / "esen.pt")
    same(evaluate(tmp_path / "esen.pt"), expected(network))


def test_charge_and_spin_change_the_energy(tmp_path):
    network = small_network(charge_spin_embedding="rand_emb")
    force_field = NetworkForceField(Checkpoint(network, 1.7, REFERENCES, (8, 14)))
    states = [quartz() for _ in range(3)]
    states[1].info["charge"] = -1
    states[2].info["spin"] = 3
    energies = [result.energy for result in force_field.evaluate(states)]
    assert len({round(energy, 6) for energy in energies}) == 3
    states[1].info["charge"] = 0.5
    with pytest.raises(ValueError, match=r"charge must be an integer, got 0\.5"):
        force_field.evaluate(states)
    states[1].info["charge"] = 101
    with pytest.raises(ValueError, match=r"structure 1 \(OSi\) has charge 101"):
        force_field.evaluate(states)
    blind = NetworkForceField(Checkpoint(small_network(), 1.7, REFERENCES, (8, 14)))
    assert (
        len({result.energy for result in blind.evaluate(states)}) == 1
    )  # a network that does not read charges accepts any


def test_several_tasks_ask_for_one(tmp_path):
    network = small_network()
    content = second_generation(network)
    other = copy.deepcopy(content["tasks_config"][0]) | {"name": "omat_energy"}
    content["tasks_config"].append(other)
    save_record(content, tmp_path / "esen.pt")
    with pytest.raises(ModelError, match="several tasks for energy: give task"):
        read_published(tmp_path / "esen.pt")
    same(evaluate(tmp_path / "esen.pt", task="omol"), expected(network))
    with pytest.raises(ModelError, match="no task 'omoll'; it has omat_energy, omol_energy, omol_forces"):
        read_published(tmp_path / "esen.pt", task="omoll", elements=[14])
    torch.save(first_generation(network), tmp_path / "first.pt")
    with pytest.raises(ModelError, match="first generation, which has no tasks"):
        read_published(tmp_path / "first.pt", task="omol")


REFERENCE_TABLE = ("elementrefs", "energy", "element_references")
MODEL = ("config", "model")


# Keys down to an entry, and its new value; None removes the entry.
@pytest.mark.parametrize(
    ("keys", "value", "words"),
    [
        (
            ("normalizers", "forces", "rmsd"),
            torch.tensor(2.0),
            r"energy x 1\.7, forces x 2\.0 .*forces are not the gradient",
        ),
        (("normalizers", "forces"), None, r"scaled by 1\.7 and the forces by nothing"),
        (("normalizers", "stress", "mean"), torch.tensor(0.1), "normalisers disagree"),
        (("normalizers", "energy", "rmsd"), torch.tensor(0.0), r"scale 0\.0"),
        (("normalizers", "energy", "rmsd"), torch.ones(3), "normaliser of 3 numbers"),
        (("normalizers", "energy", "mean"), 10**400, "OverflowError"),
        (("normalizers",), [1, 2], "not laid out like a published checkpoint"),
        ((*MODEL, "heads", "mptrj", "reduce"), "mean", "head mptrj reduces by 'mean'"),
        ((*MODEL, "backbone", "use_envelope"), "false", "use_envelope must be true or false, got 'false'"),
        (("elementrefs",), {}, "give elements"),
        ((*REFERENCE_TABLE, 3), float("nan"), "references hold NaN"),
        ((*REFERENCE_TABLE, 110), 1.0, r"atomic numbers \[110\] are beyond the 100"),
        (("state_dict",), None, "no state_dict in the file; it has normalizers"),
        (("ema",), {"shadow_params": [torch.zeros(1)]}, "moving average does not fit"),
        (("state_dict", "backbone.norm.affine_bias"), "hello", "not a tensor"),
    ],
    ids=str,
)
def test_contradictions_are_refused_with_the_reason(tmp_path, keys, value, words):
    content = first_generation(small_network())
    *parents, last = keys
    entry = functools.reduce(operator.getitem, parents, content)
    if value is None:
        del entry[last]
    else:
        entry[last] = value
    torch.save(content, tmp_path / "esen.pt")
    with pytest.raises(ModelError, match=words) as caught:
        read_published(tmp_path / "esen.pt")
    assert str(tmp_path / "esen.pt") in str(caught.value)


def test_a_hostile_checkpoint_runs_nothing(tmp_path):
    class Hostile:
        def __reduce__(self):
            return os.system, (f"touch {tmp_path / 'ran'}",)

    torch.save({**first_generation(small_network()), "amp": Hostile()}, tmp_path / "esen.pt")
    with pytest.raises(ModelError, match=r"asks for posix\.system"):
        read_published(tmp_path / "esen.pt")
    assert not (tmp_path / "ran").exists()
