"""All force calls of an equation of state or of an elastic tensor are averaged with their mirror images, or none is."""

import pytest

from esen_flows.schemas.elastic import ElasticProtocol, elastic_steps
from esen_flows.schemas.eos import EosProtocol, eos_steps
from esen_flows.schemas.protocols import RelaxProtocol


@pytest.mark.parametrize("parity", ["as_is", "average"])
def test_parity_is_handed_on(parity: str) -> None:
    relax = RelaxProtocol(parity=parity)  # type: ignore[arg-type]
    volumes = [step.protocol for step in eos_steps(EosProtocol(relax=relax))[:-1]]
    assert [protocol.parity for protocol in volumes] == [parity] * len(volumes)  # type: ignore[attr-defined]
    _, strains, _ = elastic_steps(ElasticProtocol(relax=relax))
    assert strains.protocol.relax.parity == parity  # type: ignore[attr-defined]
