from pathlib import Path

import pytest
from ase.build import bulk
from ase.io import write

from esen_flows.cli.app import main
from esen_flows.cli.property_request import build_request, model_request, vary_request
from esen_flows.cli.usage import UsageError
from esen_flows.errors import InputError, ModelError, NotDifferentiableError, UnknownElementError
from esen_flows.forcefield.checkpoint import Checkpoint, save
from esen_flows.forcefield.families import make_network
from esen_flows.makers.audit import AuditMaker
from esen_flows.network.edge_transformer.config import EdgeTransformerConfig
from esen_flows.schemas.audit import AuditProtocol
from esen_flows.schemas.frozen import Frozen
from esen_flows.schemas.named_protocols import mdr_protocol
from esen_flows.schemas.protocol_fields import with_values
from esen_flows.schemas.protocols import PhononProtocol

AUTODIFF = ["displacement.force_constants=autodiff"]


@pytest.fixture
def silicon(tmp_path: Path) -> Path:
    write(tmp_path / "Si.cif", bulk("Si", "diamond", a=5.47))
    return tmp_path / "Si.cif"


@pytest.mark.parametrize("kind", ["phonon", "conductivity"])
def test_autodiff_is_a_setting_of_the_forces(silicon: Path, header_only_checkpoint: Path, kind: str) -> None:
    plain, exact = (
        build_request(kind, silicon, str(header_only_checkpoint), set_, None, "cpu") for set_ in ([], AUTODIFF)
    )
    assert exact.protocol.displacement.force_constants == "autodiff"
    assert plain.steps[0].key == exact.steps[0].key  # one relaxation serves both
    assert all(one.key != other.key for one, other in zip(plain.steps[1:], exact.steps[1:], strict=True))


def test_autodiff_by_a_foreign_force_field_is_refused_at_once(silicon: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("esen_flows.schemas.card.version", lambda package: "0.13.0")
    build_request("phonon", silicon, "sevennet_l3i5", [], None, "cpu")
    with pytest.raises(NotDifferentiableError, match="use force_constants=finite_displacement"):
        build_request("phonon", silicon, "sevennet_l3i5", AUTODIFF, None, "cpu")


def test_a_protocol_by_name_is_that_of_its_property(silicon: Path, header_only_checkpoint: Path) -> None:
    def named_protocol(kind: str, name: str) -> Frozen:
        return build_request(kind, silicon, str(header_only_checkpoint), [], None, "cpu", protocol_name=name).protocol

    assert named_protocol("phonon", "general") == PhononProtocol()
    assert named_protocol("phonon", "mdr") == mdr_protocol({})
    with pytest.raises(InputError, match="no protocol 'phonondb-v1' of the property phonon; there are general, mdr"):
        named_protocol("phonon", "phonondb-v1")
    with pytest.raises(InputError, match="no protocol 'mdr' of the property conductivity"):
        named_protocol("conductivity", "mdr")


@pytest.mark.parametrize("kind", ["phonon", "conductivity"])
def test_born_charges_change_the_result_key_and_not_that_of_the_forces(
    silicon: Path, header_only_checkpoint: Path, kind: str
) -> None:
    born = silicon.with_name("BORN")
    born.write_text("14.4\n12 0 0 0 12 0 0 0 12\n0 0 0 0 0 0 0 0 0\n")  # of silicon: none by symmetry
    plain, charged = (
        build_request(kind, silicon, str(header_only_checkpoint), [], None, "cpu", born=b) for b in (None, born)
    )
    assert charged.protocol.born.numbers == (14, 14)
    assert charged.protocol.born.dielectric[0][0] == 12.0
    assert [step.key for step in plain.steps[:-1]] == [step.key for step in charged.steps[:-1]]
    assert plain.steps[-1].key != charged.steps[-1].key
    assert vary_request(charged, dtype="float32").protocol.born == charged.protocol.born
    with pytest.raises(UsageError, match="relax does not use Born charges"):
        build_request("relax", silicon, str(header_only_checkpoint), [], None, "cpu", born=born)


@pytest.mark.parametrize("command", [("phonon",), ("kappa",), ("converge", "kappa")])
def test_a_born_file_that_does_not_fit_ends_the_command(
    silicon: Path, header_only_checkpoint: Path, command: tuple[str, ...], capsys: pytest.CaptureFixture[str]
) -> None:
    born = silicon.with_name("BORN")
    born.write_text("14.4\n12 0 0 0 12 0 0 0 12\n1 0 0 0 1 0 0 0 1\n")
    with pytest.raises(SystemExit) as caught:
        main([*command, str(silicon), "--model", str(header_only_checkpoint), "--born", str(born)])
    assert caught.value.code == 1
    assert "do not sum to zero" in " ".join(capsys.readouterr().err.split())


def both_heads(path: Path) -> Path:
    """A network of silicon with conservative and direct heads, of random weights."""
    config = EdgeTransformerConfig(
        width=8, num_heads=2, cutoff_angstrom=4.0, max_num_elements=15, direct_forces=True, direct_stress=True,
        both_heads=True,
    )  # fmt: skip
    save(path, Checkpoint(make_network(config), 1.0, {14: 0.0}, (14,)))
    return path


def test_forces_are_a_setting_that_force_fields_without_direct_heads_refuse(
    silicon: Path, header_only_checkpoint: Path, tmp_path: Path
) -> None:
    model, accept = str(both_heads(tmp_path / "both.safetensors")), "displacement.accept_direct=true"

    def keys(kind: str, *settings: str) -> list[str]:
        return [step.key for step in build_request(kind, silicon, model, list(settings), None, "cpu").steps]

    assert keys("md") == keys("md", "forces=conservative")
    plain, direct = keys("phonon"), keys("phonon", "displacement.forces=direct", accept)
    assert all(one != other for one, other in zip(plain, direct, strict=True))  # the relaxation too
    assert keys("md", "forces=mts(5)") != keys("md")
    for kind, setting in (("md", "forces=mts(5)"), ("relax", "forces=direct")):
        with pytest.raises(ModelError, match="has no heads that predict forces directly"):
            build_request(kind, silicon, str(header_only_checkpoint), [setting], None, "cpu")
    for kind, setting in (("phonon", "displacement.forces=direct"), ("static", "forces=direct")):
        with pytest.raises(UsageError, match="accept_direct=true to compute with them"):
            build_request(kind, silicon, model, [setting], None, "cpu")
    for kind in ("eos", "elastic"):
        with pytest.raises(UsageError, match="leave forces out"):
            build_request(kind, silicon, model, ["relax.forces=direct"], None, "cpu")


def test_the_option_forces_sets_the_field_of_the_property(silicon: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for command, kind, words in (
        ("md", "mts(8)", "multiples of 8 for traj_interval"),
        ("phonon", "mts(8)", "forces: Input should be 'conservative'"),
        ("elastic", "direct", "No such option: --forces"),
    ):
        with pytest.raises(SystemExit) as caught:
            main([command, str(silicon), "--forces", kind])
        assert caught.value.code == 2
        assert words in capsys.readouterr().err


@pytest.mark.parametrize(
    ("field", "value", "unknown"), [("nve.systems", "Si,H2O", "H2O"), ("measurements.systems", "Si,NaCl", "NaCl")]
)
def test_systems_of_an_audit_that_a_force_field_does_not_know_are_refused_before_measurements(
    field: str, value: str, unknown: str
) -> None:
    message = rf"^{field}: {unknown}: esen_silicon never saw .* or leave {unknown} out"
    with pytest.raises(UnknownElementError, match=message):
        model_request("audit", "esen_silicon", [f"{field}={value}"], None, "cpu", protocol_name="full")
    known = model_request("audit", "esen_silicon", [f"{field}=Si"], None, "cpu", protocol_name="full").protocol
    assert isinstance(known, AuditProtocol)
    AuditMaker(force_field_name="esen_silicon", protocol=known).make()
    unfit = AuditMaker(force_field_name="esen_silicon", protocol=with_values(known, [(field, value.split(","))]))
    with pytest.raises(UnknownElementError, match=message):
        unfit.make()
