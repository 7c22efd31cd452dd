"""Docstrings as an API page reads them: numpydoc, with every parameter, error and value described."""

import doctest
import importlib
import logging
from collections.abc import Iterator
from pathlib import Path

import griffe
import pytest

ROOT = Path(__file__).resolve().parents[1]
# Methods that Python or a library calls, and where the reader finds nothing that the class does not say.
CALLED_BY_OTHERS = frozenset({"__enter__", "__exit__", "__str__", "__len__", "__iter__", "__repr__"})
NO_VALUE = frozenset({"None", "NoReturn", "Never"})


def load(root: Path, name: str = "esen_flows") -> griffe.Module:
    logging.disable(logging.WARNING)
    try:
        package = griffe.load(name, search_paths=[root], docstring_parser="numpy", resolve_aliases=False)
    finally:
        logging.disable(logging.NOTSET)
    assert isinstance(package, griffe.Module)
    return package


def public_members(parent: griffe.Module | griffe.Class) -> Iterator[griffe.Object]:
    """Everything below a module or class whose name and owners have no leading underscore."""
    for member in parent.members.values():
        if member.is_alias or member.name.startswith("_"):
            continue
        assert isinstance(member, griffe.Object)
        yield member
        if isinstance(member, griffe.Module | griffe.Class):
            yield from public_members(member)


def described(found: griffe.Object, kind: str) -> dict[str, str]:
    """Names (or types, where there is no name) of the entries of a section, with their descriptions."""
    entries: dict[str, str] = {}
    for section in found.docstring.parsed if found.docstring else ():
        if section.kind.value == kind:
            for entry in section.value:
                name = getattr(entry, "name", "") or str(entry.annotation)
                entries[name] = entry.description.strip()
    return entries


def has_help(parameter: griffe.Parameter) -> bool:
    """Whether a parameter is an option or argument of a command, which says itself what it is."""
    annotation = str(parameter.annotation or "")
    return "typer." in annotation or annotation.endswith(("Option", "Argument", "Context"))


def faults_of_function(function: griffe.Function, owner: griffe.Class | None = None) -> Iterator[str]:
    documented = described(function, "parameters")
    if owner is not None:
        documented |= described(owner, "parameters") | described(owner, "attributes")
    for parameter in function.parameters:
        if parameter.name in ("self", "cls") or has_help(parameter):
            continue
        if not documented.get(parameter.name.lstrip("*")) and not documented.get(f"*{parameter.name.lstrip('*')}"):
            yield f"parameter {parameter.name} is not described"
    gives_value = str(function.returns or "None") not in NO_VALUE and "property" not in function.labels
    if owner is None and gives_value:
        returned = {**described(function, "returns"), **described(function, "yields")}
        if not returned or not all(returned.values()):
            yield "the returned value is not described"


def faults_of(found: griffe.Object) -> Iterator[str]:
    if not found.docstring and not found.is_attribute:
        yield "no docstring"
        return
    for kind in ("parameters", "raises", "attributes"):
        for name, description in described(found, kind).items():
            if not description:
                yield f"{kind}: {name} has no description"
    if isinstance(found, griffe.Function):
        yield from faults_of_function(found)
    elif isinstance(found, griffe.Class):
        initializer = found.members.get("__init__")
        if isinstance(initializer, griffe.Function):
            yield from faults_of_function(initializer, found)


def all_faults(package: griffe.Module) -> list[str]:
    return [f"{found.path}: {fault}" for found in public_members(package) for fault in faults_of(found)]


def test_every_parameter_error_and_value_is_described() -> None:
    faults = all_faults(load(ROOT))
    assert not faults, "\n".join(["write numpydoc sections (see pyproject.toml, pydocstyle):", *faults])


PLANTED = '''"""A module."""

def shift(atoms, by, *, wrap=False) -> int:
    """Move atoms.

    Parameters
    ----------
    atoms : what moves.
    by
        Angstrom.
    wrap
        Back into the cell.

    Raises
    ------
    ValueError : no atoms.
    """

class Box:
    """A box.

    Parameters
    ----------
    width
        Angstrom.
    """

    def __init__(self, width, height):
        pass

    def area(self) -> float:
        """Area in Angstrom^2.

        Returns
        -------
        float
            Area.
        """

    def undocumented(self):
        pass
'''


@pytest.mark.parametrize(
    "fault",
    [
        "shift: parameters: atoms has no description",
        "shift: parameter atoms is not described",
        "shift: raises: ValueError : no atoms. has no description",
        "shift: the returned value is not described",
        "Box: parameter height is not described",
        "Box.undocumented: no docstring",
    ],
)
def test_planted_faults_are_found(fault: str, tmp_path: Path) -> None:
    (tmp_path / "planted.py").write_text(PLANTED)
    faults = all_faults(load(tmp_path, "planted"))
    assert f"planted.{fault}" in faults
    assert len(faults) == 6


def test_attributes_of_the_package_are_documented_where_they_are_listed() -> None:
    package = load(ROOT)
    listed = sum(len(described(found, "attributes")) for found in public_members(package))
    assert listed > 400


def modules_with_examples() -> list[str]:
    found = [path for path in sorted((ROOT / "esen_flows").rglob("*.py")) if ">>>" in path.read_text(encoding="utf-8")]
    return [".".join(path.relative_to(ROOT).with_suffix("").parts) for path in found]


@pytest.mark.parametrize("name", modules_with_examples())
def test_examples_give_what_they_say(name: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    result = doctest.testmod(importlib.import_module(name), optionflags=doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE)
    assert result.attempted > 0
    assert result.failed == 0
