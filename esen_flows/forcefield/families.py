"""The closed table of network families: a new family is a folder in `network/` and one entry here."""

from typing import Any

from esen_flows.errors import ModelError
from esen_flows.network.edge_transformer.edge_transformer import EdgeTransformer
from esen_flows.network.esen.esen import ESEN
from esen_flows.network.interface import Network, NetworkConfig

# By the name under which checkpoints and training files know the family.
FAMILIES: dict[str, type[Network]] = {"esen": ESEN, "edge_transformer": EdgeTransformer}
DEFAULT_FAMILY = "esen"  # of training files that name none


def family_named(name: str) -> type[Network]:
    """The network class of a family.

    Parameters
    ----------
    name
        Name of the family.

    Returns
    -------
    type[Network]
        The class.

    Raises
    ------
    ModelError
        There is no such family; the message lists those that there are.
    """
    if name not in FAMILIES:
        raise ModelError(f"no network family {name!r}; this release has {', '.join(sorted(FAMILIES))}")
    return FAMILIES[name]


def family_of(config: NetworkConfig) -> str:
    """The name of the family of a configuration.

    Parameters
    ----------
    config
        Configuration of a network.

    Returns
    -------
    str
        Name of the family.

    Raises
    ------
    ModelError
        The configuration is of no family of the table.
    """
    for name, network in FAMILIES.items():
        if network.CONFIG is type(config):
            return name
    raise ModelError(f"{type(config).__name__} belongs to no network family; this release has {', '.join(FAMILIES)}")


def make_config(family: str, values: dict[str, Any]) -> NetworkConfig:
    """Configuration of a network.

    Parameters
    ----------
    family
        Name of the family.
    values
        Sizes and options by name.

    Returns
    -------
    NetworkConfig
        The configuration.

    Raises
    ------
    ModelError
        There is no such family.
    TypeError, ValueError
        The family refuses the values.
    """
    return family_named(family).CONFIG(**values)


def make_network(config: NetworkConfig) -> Network:
    """A network with random weights.

    Parameters
    ----------
    config
        Sizes and options.

    Returns
    -------
    Network
        The network, in float32.
    """
    return family_named(family_of(config))(config)
