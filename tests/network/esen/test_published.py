"""Published names, shapes and sizes against listings of the published models; configurations inferred from shapes."""

import numpy as np
import pytest
import torch
from published_files import backbone_options, published_state, small_network

from esen_flows.errors import ModelError
from esen_flows.forcefield.checkpoint import Checkpoint, load, save
from esen_flows.network.esen.config import CANDIDATES, PUBLISHED, ESENConfig
from esen_flows.network.esen.esen import ESEN
from esen_flows.network.esen.norms import BALANCE, NORMS
from esen_flows.network.esen.published import build, expected_constant, infer_config

TWO_LAYERS = {"num_layers": 2, "lmax": 2, "mmax": 2}
TABLES = {
    "esen_2layer_l2m2_conservative": {},
    "esen_2layer_l2m2_layer_norm": {"norm_type": "layer_norm"},
    "esen_2layer_l2m2_layer_norm_sh": {"norm_type": "layer_norm_sh"},
    "esen_2layer_l2m2_grid_s2": {"act_type": "s2", "mlp_type": "grid"},
    "esen_2layer_l2m2_dens_direct": {"direct_forces": True, "denoising": True},
    "esen_2layer_l2m2_direct_stress": {"direct_forces": True, "direct_stress": "source_target"},
    "esen_30m_mp_conservative": {"num_layers": 10, "lmax": 3},
    "esen_30m_oam_conservative": {"num_layers": 10, "lmax": 3, "num_distance_basis": 64},
}
DTYPES = {"float32": torch.float32, "float64": torch.float64, "int64": torch.int64}


def count(config):
    with torch.device("meta"):
        return sum(p.numel() for p in ESEN(config).parameters())


def test_parameter_counts_are_the_published_ones():
    assert {name: count(config) for name, config in PUBLISHED.items()} == {
        "esen_3.2m": 3_199_745,
        "esen_30m_mp": 30_085_121,
        "esen_30m_oam": 30_161_153,
    }
    assert count(ESENConfig(num_distance_basis=512)) == 3_392_513
    for resolution in (6, 10, 14):
        assert count(ESENConfig(act_type="s2", mlp_type="grid", grid_resolution=resolution)) == 2_838_017
    assert [count(config) for config in CANDIDATES["esen_6.5m"]] == [6_451_969, 6_431_233, 6_547_969]


@pytest.mark.shared
@pytest.mark.parametrize("table", TABLES)
def test_names_shapes_and_constants_of_the_published_listings(shared_dir, table):
    """Every line of a listing has a weight of ours, every weight of ours has a line, and the sizes are inferred."""
    rows = (shared_dir / "fixtures/esen/state_dict_keys" / f"{table}.tsv").read_text().splitlines()[1:]
    config = ESENConfig(**TABLES[table])
    state = {}
    for key, shape, dtype, kind in (row.split("\t") for row in rows):
        sizes = [int(n) for n in shape.split("x")]
        value = torch.zeros(sizes, dtype=DTYPES[dtype])
        if key.endswith("offset"):
            value = torch.linspace(0.0, 6.0, sizes[0])
        elif kind == "buffer":
            value = torch.from_numpy(expected_constant(key, config)).to(DTYPES[dtype])
            assert list(value.shape) == sizes
        state[key] = value
    options = {"use_envelope": True, "max_neighbors": 0, "grid_resolution": None}
    network = build(state, options)
    assert network.config == config
    published = sum(value.numel() for key, value in state.items() if f"{key}\t" in param_lines(rows))
    assert sum(p.numel() for p in network.parameters()) == published


def param_lines(rows):
    return "\n".join(row for row in rows if row.endswith("\tparam"))


VARIANTS = [
    {},
    {"lmax": 3, "mmax": 1, "num_layers": 1, "norm_type": "layer_norm"},
    {"norm_type": "layer_norm_sh", "distance_function": "bessel"},
    {"act_type": "s2", "mlp_type": "grid", "grid_resolution": 8},
    {"so2_weights": "real", "use_envelope": False, "max_neighbors": 12},
    {"direct_forces": True, "direct_stress": "target"},
    {"direct_forces": True, "denoising": True},
    {"charge_spin_embedding": "rand_emb"},
]


@pytest.mark.parametrize("variant", VARIANTS, ids=str)
def test_configurations_are_inferred_and_weights_kept(variant):
    network = small_network(**variant)
    config = network.config
    options = {"use_envelope": config.use_envelope, "max_neighbors": config.max_neighbors, "cutoff": 4.0}
    found = build(published_state(network), {**options, "grid_resolution": config.grid_resolution})
    assert found.config == config
    for name, value in network.state_dict().items():
        assert torch.equal(found.state_dict()[name], value), name


@pytest.mark.parametrize("lmax", range(1, 8))
@pytest.mark.parametrize("norm_type", ["rms_norm_sh", "layer_norm_sh"])
def test_degree_weights_are_rounded_after_each_of_two_divisions(lmax, norm_type):
    first = 1 if norm_type == "layer_norm_sh" else 0
    degrees = [degree for degree in range(first, lmax + 1) for _ in range(2 * degree + 1)]
    expected = [np.float32(1) / np.float32(2 * degree + 1) / np.float32(lmax + 1 - first) for degree in degrees]
    norm = NORMS[norm_type](lmax, 4)
    assert norm.get_buffer(BALANCE).flatten().tolist() == [float(weight) for weight in expected]


def test_stored_degree_weights_are_used_and_saved(tmp_path):
    """Weights that a file rounded otherwise belong to its model; those that we would compute are left out."""
    network = small_network(lmax=4)
    state, options = published_state(network), backbone_options(network.config)
    rounded_once = state["backbone.norm.balance_degree_weight"]  # 1 / 35 is rounded differently by two divisions
    assert not torch.equal(rounded_once, network.norm.get_buffer(BALANCE))
    found = build(state, options)
    assert torch.equal(found.norm.get_buffer(BALANCE), rounded_once)
    checkpoint = Checkpoint(found, 1.0, {6: -1.0}, (6,))
    save(tmp_path / "stored.safetensors", checkpoint)
    again = load(tmp_path / "stored.safetensors").network
    assert torch.equal(again.norm.get_buffer(BALANCE), rounded_once)
    assert torch.equal(again.double().norm.get_buffer(BALANCE), rounded_once.double())
    ours = {name: value.clone() for name, value in network.named_buffers() if name.endswith(BALANCE)}
    same = build(state | {f"backbone.{name}": value for name, value in ours.items()}, options)
    assert set(same.state_dict()) == set(network.state_dict())


@pytest.mark.parametrize("missing", ["use_envelope", "max_neighbors", "grid_resolution", "cutoff"])
def test_options_that_shapes_do_not_tell_are_asked_for_by_name(missing):
    network = small_network(act_type="s2", mlp_type="grid", distance_function="bessel")
    options = {"use_envelope": True, "max_neighbors": 300, "grid_resolution": None, "cutoff": 4.0}
    del options[missing]
    with pytest.raises(ModelError, match=rf"do not tell .*{missing}"):
        infer_config(published_state(network), options)


def test_prefixes_of_distributed_training_are_stripped():
    network = small_network()
    state = {f"module.module.{name}": value for name, value in published_state(network).items()}
    assert build(state, {"use_envelope": True, "max_neighbors": 0}).config == network.config


# Names of weights, with their new values or functions of the old ones; None removes a weight.
@pytest.mark.parametrize(
    ("name", "change", "words"),
    [
        ("backbone.norm.affine_bias", None, "weights are missing: norm.affine_bias"),
        ("backbone.sphere_embedding.weight", None, "not those of an eSEN"),
        ("backbone.surprise", torch.zeros(1), "without a place: surprise"),
        ("other.surprise", torch.zeros(1), "no place for the weights 'other.surprise'"),
        ("backbone.target_embedding.weight", torch.zeros(3, 3), r"target_embedding.weight has shape \(3, 3\)"),
        ("backbone.norm.affine_weight", lambda value: value * torch.nan, "NaN or infinite weights: norm.affine_weight"),
        ("output_heads.other.energy_block.0.weight", torch.zeros(1), "weights for energy_block.0.weight; one head"),
        ("module.backbone.norm.affine_bias", torch.zeros(1), "weights twice, with and without 'module.'"),
        ("backbone.edge_degree_embedding.rad_func.net.6.weight", torch.zeros(6 * 13, 5), "lmax = 12; no published"),
        ("backbone.Jd_3000", torch.zeros(1), "Jd_3000 is of a degree that lmax 2"),
        ("backbone.Jd_2", lambda value: value + 1, "constant backbone.Jd_2 is not that of eSEN"),
        ("backbone.blocks.1.norm_1.balance_degree_weight", lambda value: value + 1, "balance_degree_weight is not"),
        ("backbone.blocks.0.edge_wise.act.expand_index", lambda value: value + 1, "expand_index is not that"),
    ],
)
def test_weights_that_do_not_make_a_network_are_refused(name, change, words):
    state = published_state(small_network())
    if change is None:
        del state[name]
    else:
        state[name] = change(state[name]) if callable(change) else change
    with pytest.raises(ModelError, match=words):
        build(state, {"use_envelope": True, "max_neighbors": 0})


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"lmax": 3}, "says lmax = 3, the weights say 2"),
        ({"cutoff": 5.0}, "says cutoff_angstrom = 5.0, the weights say 4.0"),
        ({"act_type": "s2"}, "says act_type = 's2', the weights say 'gate'"),
        ({"use_envelope": "no"}, "use_envelope must be true or false, got 'no'"),
        ({"max_neighbors": 2.5}, r"max_neighbors must be an integer, got 2\.5"),
        ({"max_neighbors": "all"}, "max_neighbors must be an integer, got 'all'"),
        ({"warp_drive": True}, "does not know: warp_drive"),
        ({"direct_forces": True}, "says direct_forces = True"),
    ],
)
def test_a_configuration_that_contradicts_the_weights_is_refused(changes, words):
    network = small_network()
    with pytest.raises(ModelError, match=words):
        build(published_state(network), backbone_options(network.config, **changes))


def test_a_dataset_embedding_is_refused_by_name():
    state = published_state(small_network(charge_spin_embedding="rand_emb"))
    state["backbone.mix_csd.weight"] = torch.zeros(6, 18)
    with pytest.raises(ModelError, match=r"mix_csd of shape \(6, 18\).*without a dataset embedding"):
        build(state, {"use_envelope": True, "max_neighbors": 0})
