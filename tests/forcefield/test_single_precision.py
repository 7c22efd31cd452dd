"""Compiled networks give the same numbers, and products are rounded only where that was requested."""

import functools
from collections.abc import Iterator

import pytest
import torch
from ase.build import bulk
from small_force_field import assert_equal

from esen_flows.errors import InputError
from esen_flows.forcefield.checkpoint import Checkpoint
from esen_flows.forcefield.load import load_force_field
from esen_flows.forcefield.network import NetworkForceField
from esen_flows.forcefield.precision import tensor_float_32
from esen_flows.network.esen.config import ESENConfig
from esen_flows.network.esen.esen import ESEN
from esen_flows.testing import check_force_field

TINY = ESENConfig(num_layers=1, lmax=1, mmax=1, sphere_channels=4, hidden_channels=4, edge_channels=4)
SILICON = [bulk("Si", "diamond", 5.4, cubic=True), bulk("Si", "diamond", 5.5), bulk("Si", "diamond", 5.3) * (2, 1, 1)]
for atoms in SILICON:
    atoms.rattle(0.1, seed=1)


def checkpoint(config: ESENConfig = TINY) -> Checkpoint:
    torch.manual_seed(0)
    return Checkpoint(ESEN(config), scale_ev=1.0, references_ev={14: -1.0}, elements=(14,))


@pytest.fixture(scope="module")
def traced() -> Iterator[NetworkForceField]:
    """Force field through all of `torch.compile` except the generation of machine code, which takes long."""
    torch.compiler.reset()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(torch, "compile", functools.partial(torch.compile, backend="aot_eager", fullgraph=True))
        yield NetworkForceField(checkpoint(), compile=True)


def test_a_compiled_network_gives_the_same_numbers(traced: NetworkForceField) -> None:
    expected = NetworkForceField(checkpoint()).evaluate(SILICON)
    assert_equal(traced.evaluate(SILICON), expected)
    assert_equal([traced.evaluate([atoms])[0] for atoms in SILICON], expected)
    with torch.compiler.set_stance("fail_on_recompile"):  # other structures make no new code
        for atoms in (SILICON[1] * (2, 2, 1), SILICON[0] * (1, 1, 2)):
            traced.evaluate([atoms])
            traced.evaluate([atoms, *SILICON])


def test_the_contract_holds_for_a_compiled_network(traced: NetworkForceField) -> None:
    check_force_field(traced, SILICON)  # second derivatives too


@pytest.mark.slow
def test_machine_code_gives_the_same_numbers() -> None:
    torch.compiler.reset()
    expected = NetworkForceField(checkpoint()).evaluate(SILICON)
    assert_equal(NetworkForceField(checkpoint(), compile=True).evaluate(SILICON), expected)


def test_networks_with_grids_are_not_compiled() -> None:
    with pytest.raises(InputError, match="grids"):
        NetworkForceField(checkpoint(ESENConfig(**TINY.to_dict(), act_type="s2")), compile=True)


def test_tf32_is_set_inside_the_context_and_restored() -> None:
    products = torch.backends.cuda.matmul
    before = products.fp32_precision
    for host in ("tf32", "ieee"):
        products.fp32_precision = host
        for allowed, name in ((True, "tf32"), (False, "ieee")):
            with tensor_float_32(allowed):
                assert products.fp32_precision == name
            assert products.fp32_precision == host
    products.fp32_precision = before


def test_without_tf32_the_setting_of_the_host_program_has_no_effect(monkeypatch) -> None:
    force_field = NetworkForceField(checkpoint())
    seen = []
    inner = force_field._compute

    def watched(batch):
        seen.append(torch.backends.cuda.matmul.fp32_precision)
        return inner(batch)

    monkeypatch.setattr(force_field, "_compute", watched)
    before = torch.backends.cuda.matmul.fp32_precision
    torch.backends.cuda.matmul.fp32_precision = "tf32"
    try:
        force_field.evaluate(SILICON[:1])
    finally:
        torch.backends.cuda.matmul.fp32_precision = before
    assert seen == ["ieee"]


@pytest.mark.parametrize(("name", "options"), [("esen_silicon", {"tf32": True}), ("sevennet_l3i5", {"compile": True})])
def test_options_without_effect_are_refused(name: str, options: dict[str, bool]) -> None:
    with pytest.raises(InputError, match="leave"):
        load_force_field(name, **options)
