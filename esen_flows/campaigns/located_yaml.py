"""A YAML file that knows in which line each of its parts is."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from esen_flows.errors import InputError

Location = tuple[str | int, ...]


@dataclass(frozen=True)
class LocatedYaml:
    """A mapping as it is written in a file.

    Attributes
    ----------
    path
        of the file.
    value
        plain dictionaries, lists and scalars.
    root
        the same with positions.
    """

    path: Path
    value: dict[str, Any]
    root: yaml.MappingNode

    def written(self, location: Location) -> Location:
        """The part of a location that is in the file."""
        return location[: len(list(_down(self.root, location)))]

    def line(self, location: Location) -> int:
        """The line, from 1, of a location, or of the innermost part of it that is in the file."""
        innermost = [self.root, *_down(self.root, location)][-1]
        return int(innermost.start_mark.line) + 1

    def fault(self, location: Location, message: str) -> str:
        """One line that says where something is wrong, and what."""
        name = ".".join(map(str, location)) or "(file)"
        return f"{self.path}:{self.line(location)}: {name}: {message}"


def read_located(path: Path) -> LocatedYaml:
    """Read a YAML file that holds a mapping.

    Raises
    ------
    InputError
        unreadable, not YAML, no mapping, or the same field twice; with the line.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is not UTF-8"
        raise InputError(f"{path} cannot be read: {reason}; give a YAML file") from error
    loader = yaml.SafeLoader(text)
    try:
        root = loader.get_single_node()
        value = None if root is None else loader.construct_document(root)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        line = 1 if mark is None else mark.line + 1
        raise InputError(f"{path}:{line}: (file): not YAML: {error.problem}; correct this line") from error
    except yaml.YAMLError as error:  # characters that YAML does not allow
        raise InputError(f"{path}:1: (file): not YAML: {' '.join(str(error).split())}") from error
    finally:
        loader.dispose()
    if not isinstance(root, yaml.MappingNode) or not isinstance(value, dict):
        raise InputError(f"{path}:1: (file): must hold fields such as `name: my_campaign`, got {str(value)[:60]!r}")
    repeated = [
        f"{path}:{key.start_mark.line + 1}: {key.value}: written before in line {first}; leave one of them out"
        for key, first in _repeated(root)
    ]
    if repeated:
        raise InputError("\n".join(repeated))
    return LocatedYaml(path, value, root)


def _down(node: yaml.Node, location: Location) -> Iterator[yaml.Node]:
    """The nodes on the way to a location, as far as it goes; of a field its name, so that its line is found."""
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
    """Names of fields that their mapping has before, and the line of the first; YAML would take the last."""
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
