"""A YAML file with the line of each of its parts, for messages."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from esen_flows.errors import InputError
from esen_flows.files import read_at_most
from esen_flows.yaml_files import SCALAR_ERRORS, YamlError, check_yaml

MOST_BYTES, MOST_VALUES = 2_000_000, 20_000  # of a specification, which names files instead of holding data
Location = tuple[str | int, ...]


@dataclass(frozen=True)
class LocatedYaml:
    """A mapping as it is written in a file.

    Attributes
    ----------
    path
        Path of the file.
    value
        Content as plain dictionaries, lists and scalars.
    root
        The same content with positions.
    """

    path: Path
    value: dict[str, Any]
    root: yaml.MappingNode

    def written(self, location: Location) -> Location:
        """The part of a location that is in the file.

        Parameters
        ----------
        location
            Names of fields and places in lists, from the outside to the inside.

        Returns
        -------
        Location
            The location, or its beginning.
        """
        return location[: len(list(_down(self.root, location)))]

    def line(self, location: Location) -> int:
        """The line of a location, or of the innermost part of it that is in the file.

        Parameters
        ----------
        location
            Names of fields and places in lists.

        Returns
        -------
        int
            Number of the line, from 1.
        """
        innermost = [self.root, *_down(self.root, location)][-1]
        return int(innermost.start_mark.line) + 1

    def fault(self, location: Location, message: str) -> str:
        """A message that says where in the file something is wrong.

        Parameters
        ----------
        location
            Names of fields and places in lists.
        message
            What is wrong.

        Returns
        -------
        str
            The message, after the file, the line and the field.
        """
        name = ".".join(map(str, location)) or "(file)"
        return f"{self.path}:{self.line(location)}: {name}: {message}"


def read_located(path: Path) -> LocatedYaml:
    """Read a YAML file that holds a mapping.

    Parameters
    ----------
    path
        Path of the file.

    Returns
    -------
    LocatedYaml
        Content with positions.

    Raises
    ------
    InputError
        The file is unreadable, is not YAML, does not hold a mapping, or has the same field twice; with the line.
    """
    try:
        text = read_at_most(path, MOST_BYTES).decode("utf-8")
    except UnicodeDecodeError as error:
        raise InputError(f"{path} cannot be read: it is not UTF-8; give a YAML file") from error
    try:
        check_yaml(text, MOST_VALUES, yaml.SafeLoader)
        loader = yaml.SafeLoader(text)
        try:
            root = loader.get_single_node()
            value = None if root is None else loader.construct_document(root)
        finally:
            loader.dispose()
    except YamlError as error:
        raise InputError(f"{path}:{error.line}: (file): not YAML: {error.problem}; correct this line") from error
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        line = 1 if mark is None else mark.line + 1
        raise InputError(f"{path}:{line}: (file): not YAML: {error.problem}; correct this line") from error
    except (yaml.YAMLError, *SCALAR_ERRORS) as error:  # characters or dates that do not exist
        raise InputError(f"{path}:1: (file): not YAML: {' '.join(str(error).split())}") from error
    if not isinstance(root, yaml.MappingNode) or not isinstance(value, dict):
        raise InputError(f"{path}:1: (file): must hold fields such as `name: my_campaign`, got {str(value)[:60]!r}")
    repeated = [
        f"{path}:{key.start_mark.line + 1}: {key.value}: also in line {first}; leave one of the two out"
        for key, first in _repeated(root)
    ]
    if repeated:
        raise InputError("\n".join(repeated))
    return LocatedYaml(path, value, root)


def _down(node: yaml.Node, location: Location) -> Iterator[yaml.Node]:
    """The nodes on the way to a location, as far as they exist; for a field first its name, which has its line."""
    for part in location:
        if isinstance(node, yaml.MappingNode):
            found = next(((key, value) for key, value in node.value if key.value == str(part)), None)
            if found is None:
                return
            yield found[0]
            node = found[1]
        elif isinstance(node, yaml.SequenceNode) and isinstance(part, int) and part < len(node.value):
            node = node.value[part]
            yield node
        else:
            return


def _repeated(node: yaml.Node) -> Iterator[tuple[yaml.Node, int]]:
    """Names of fields that occur a second time, with the line of the first; YAML would silently take the last."""
    if isinstance(node, yaml.MappingNode):
        lines: dict[str, int] = {}
        for key, value in node.value:
            if key.value in lines:
                yield key, lines[key.value]
            lines.setdefault(key.value, key.start_mark.line + 1)
            yield from _repeated(value)
    elif isinstance(node, yaml.SequenceNode):
        for value in node.value:
            yield from _repeated(value)
