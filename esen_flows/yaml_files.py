"""YAML of any origin, read as plain values within limits: no object is made by name, and no short text becomes vast.

`yaml.SafeLoader` makes plain values alone. It does not limit how deep they are nested (a deep one ends the process by a
signal) nor how often an alias repeats them, so that both are counted first, on the events of the parser.
"""

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import yaml

from esen_flows.errors import InputError
from esen_flows.files import read_at_most

MOST_BYTES = 16_000_000  # of a specification, a card, a recipe
MOST_DEPTH = 100
MOST_VALUES = 1_000_000
# What PyYAML's constructors raise for scalars that are none of the type that their tag names.
SCALAR_ERRORS = (ValueError, TypeError, OverflowError, LookupError, AttributeError)
# libyaml is ten times faster than the loader in Python, and not part of every build of PyYAML.
_Loader: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


class YamlError(InputError):
    """A text is not YAML, or nests or repeats its values beyond the limits.

    Parameters
    ----------
    problem
        What is wrong.
    line
        Line of the text, from 1.
    """

    def __init__(self, problem: str, line: int) -> None:
        super().__init__(f"line {line}: not YAML that can be read: {problem}")
        self.problem = problem
        self.line = line


def check_yaml(text: str | bytes, most_values: int = MOST_VALUES, loader: Any = _Loader) -> None:
    """Refuse a text that a safe loader could not turn into values within limits.

    Parameters
    ----------
    text
        The text.
    most_values
        Largest number of values, with those that aliases repeat.
    loader
        Class of PyYAML whose parser is used; the one in Python says more of what it expected.

    Raises
    ------
    YamlError
        It is not YAML, is nested too deep, has too many values, or names a type that is not one of YAML's own.
    """
    sizes: dict[str, int] = {}  # number of values below each anchor
    opened: list[tuple[str | None, int]] = []  # anchors of the open collections, and the count at their begin
    count = 0
    try:
        for event in yaml.parse(text, Loader=loader):
            line = 1 if event.start_mark is None else event.start_mark.line + 1
            if isinstance(event, yaml.AliasEvent):
                if event.anchor not in sizes:
                    raise YamlError(f"the alias *{event.anchor} has no anchor before it, or repeats itself", line)
                count += sizes[event.anchor]
            elif isinstance(event, yaml.CollectionEndEvent):
                anchor, before = opened.pop()
                if anchor is not None:
                    sizes[anchor] = count - before
            elif isinstance(event, yaml.NodeEvent):
                _check_tag(event.tag, line)  # type: ignore[attr-defined]
                count += 1
                if isinstance(event, yaml.CollectionStartEvent):
                    opened.append((event.anchor, count - 1))
                elif event.anchor is not None:
                    sizes[event.anchor] = 1
            if len(opened) > MOST_DEPTH:
                raise YamlError(f"values are nested more than {MOST_DEPTH} deep", line)
            if count > most_values:
                raise YamlError(f"more than {most_values} values, with those that aliases repeat", line)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        raise YamlError(str(error.problem), 1 if mark is None else mark.line + 1) from None
    except (yaml.YAMLError, UnicodeError) as error:  # characters that YAML does not allow
        raise YamlError(" ".join(str(error).split()), 1) from None


def plain_value(text: str | bytes, most_values: int = MOST_VALUES) -> Any:
    """The value of a YAML text: dictionaries, lists and scalars alone.

    Parameters
    ----------
    text
        The text.
    most_values
        Largest number of values, with those that aliases repeat.

    Returns
    -------
    Any
        The value; None for an empty text.

    Raises
    ------
    YamlError
        As for `check_yaml`, or a scalar is none of its type, such as a date with month 13.
    """
    check_yaml(text, most_values)
    try:
        return yaml.load(text, Loader=_Loader)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        raise YamlError(str(error.problem), 1 if mark is None else mark.line + 1) from None
    except (yaml.YAMLError, *SCALAR_ERRORS) as error:
        raise YamlError(" ".join(str(error).split()), 1) from None


def read_yaml(path: Path, most_bytes: int = MOST_BYTES, most_values: int = MOST_VALUES) -> Any:
    """The value of a YAML file, which may be compressed by gzip, bzip2 or xz.

    Parameters
    ----------
    path
        File to read.
    most_bytes
        Largest size in bytes, after decompression.
    most_values
        Largest number of values.

    Returns
    -------
    Any
        The value; None for an empty file.

    Raises
    ------
    InputError
        The file cannot be read, is larger, or is not YAML that `plain_value` takes; the message names it.
    """
    content = read_at_most(path, most_bytes)
    try:
        return plain_value(content.decode("utf-8"), most_values)
    except UnicodeDecodeError as error:
        raise InputError(f"{path} is not YAML: it is not UTF-8 text ({error.reason})") from None
    except YamlError as error:
        raise InputError(f"{path} is not YAML that can be read: line {error.line}: {error.problem}") from None


def sections(lines: Iterable[str], wanted: tuple[str, ...]) -> Iterator[str]:
    """Lines of some top-level fields of a YAML file, the rest of which may take half a minute to parse.

    Parameters
    ----------
    lines
        Lines of the file.
    wanted
        Beginnings of the lines of the fields, with their colons.

    Yields
    ------
    str
        A line of one of these fields.
    """
    inside = False
    for line in lines:
        if line[:1].isalpha():
            inside = line.startswith(wanted)
        if inside:
            yield line


def _check_tag(tag: str | None, line: int) -> None:
    if tag is not None and tag != "!" and not tag.startswith("tag:yaml.org,2002:"):
        raise YamlError(f"it names the type {tag[:60]!r}; only YAML's own types are read", line)
    if tag is not None and tag.startswith("tag:yaml.org,2002:python"):
        raise YamlError(f"it names a Python object ({tag[18:78]}), which is never made from a file", line)
