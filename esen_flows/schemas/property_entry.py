"""What the table of properties (`properties.PROPERTIES`) says about each kind of result."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from esen_flows.schemas.frozen import Frozen

FieldType = Literal["number", "text", "boolean"]
Category = Literal["gpu", "cpu"]
Subject = Literal["structure", "dataset", "model"]


@dataclass(frozen=True)
class SummaryField:
    """One value of a summary: how tables, reports and queries present it.

    Attributes
    ----------
    name
        Name in the summary, with the unit at its end.
    label
        Name in reports, where {temperature_kelvin} and other values of the summary may stand; a field without a label
        is left out of reports.
    unit
        Unit in reports, where values of the summary may stand as in the label. What stands after a comma is left out
        for a summary of an earlier version that lacks such a value.
    format
        Format specification of the value in reports.
    type
        Type of the value, which decides what it can be compared with.
    column
        Whether listings have room for it.
    alias
        Another name in queries.
    conditions
        Values of a text that are names in queries, such as `stable`.
    """

    name: str
    label: str = ""
    unit: str = ""
    format: str = ""
    type: FieldType = "number"
    column: bool = False
    alias: str = ""
    conditions: tuple[str, ...] = ()


@dataclass(frozen=True)
class ResultFile:
    """A figure or structure file of a result.

    Attributes
    ----------
    name
        Name of the file.
    needs
        Field of the output, with dots between the names of nested ones, without which there is no such file.
    shows_several
        Whether a figure can show several results.
    crystal
        Whether only structures that are periodic in three directions have it.
    frequencies
        Whether a figure has an axis of frequencies, which can be in several units.
    """

    name: str
    needs: str = ""
    shows_several: bool = False
    crystal: bool = False
    frequencies: bool = False


@dataclass(frozen=True)
class Deviation:
    """How far a number may be from the same number computed elsewhere.

    Attributes
    ----------
    reason
        Why numbers differ at all.
    absolute
        Largest difference in the number's unit.
    relative
        Largest difference as a fraction of the number.
    """

    reason: str
    absolute: float = 0.0
    relative: float = 0.0


@dataclass(frozen=True)
class Step:
    """One step on the way to a property.

    Attributes
    ----------
    kind
        Kind of its result.
    protocol
        Its protocol.
    parents
        Roles and numbers of the earlier steps on whose results it builds; empty for a step that starts from the input
        structure. The role of a single parent is empty.
    """

    kind: str
    protocol: Frozen
    parents: tuple[tuple[str, int], ...] = ()


# Whether the structure is like those that the force field was trained on (`schemas.domain`), with the measured number
# and its limit where the force field was calibrated.
DOMAIN = (
    SummaryField("domain", type="text", conditions=("inside", "near", "outside")),
    SummaryField("extrapolation", format=".3g"),
    SummaryField("extrapolation_limit", format=".3g"),
)


@dataclass(frozen=True)
class Property:
    """Everything that is known about one kind of result before it is computed.

    A kind with a `command` is a property that users ask for. The other kinds are steps, or belong to training.

    Attributes
    ----------
    title
        Name in reports.
    protocol
        Class of its protocol. An instance with the defaults is the protocol "general", this package's own.
    category
        Workers that take the step: "gpu" if it makes force calls, else "cpu".
    summary
        Values of the summary in the order of tables.
    part
        The part of the protocol that the last step needs, which alone is part of its result key; None for all of it.
    subject
        What the result is about.
    numerics_revision
        Raised by hand when the numbers of the step change for the same input. Old results keep their old keys.
    versions
        Fields of `NumericSettings` about phonopy and phono3py that are part of the keys of this kind alone.
    structure
        Field of the output with the computed structure; empty if there is none.
    files
        Figures and structures of a result.
    command
        Name of the command that computes it; empty for a kind that users do not ask for.
    help
        Help text of the command.
    published
        Published protocols by name, each made for the supercells and mesh that a structure gives.
    settings_of_structures
        Fields that published protocols take from each structure, without which they cannot be used.
    steps
        The steps to this property, the last of which is the property.
    principal
        Field of the summary that tables of campaigns show, by the protocol.
    crystal
        Whether only crystals have this property.
    conservative
        Whether forces have to be the gradient of the energy.
    reproduction
        Deviation of the principal number that counts as reproduced, by the type of numbers.
    """

    title: str
    protocol: type[Frozen]
    category: Category
    summary: tuple[SummaryField, ...]
    part: type[Frozen] | None = None
    subject: Subject = "structure"
    numerics_revision: int = 1
    versions: tuple[str, ...] = ()
    structure: str = ""
    files: tuple[ResultFile, ...] = ()
    command: str = ""
    help: str = ""
    published: Mapping[str, Callable[[Mapping[str, Any]], Frozen]] = field(default_factory=dict)
    settings_of_structures: tuple[str, ...] = ()
    steps: Callable[[Any], tuple[Step, ...]] = lambda protocol: ()
    principal: Callable[[Any], str] = lambda protocol: ""
    crystal: bool = False
    conservative: bool = False
    reproduction: Mapping[str, Deviation] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.subject == "structure":  # every result about a structure has the verdict
            object.__setattr__(self, "summary", (*self.summary, *DOMAIN))

    @property
    def step_protocol(self) -> type[Frozen]:
        """Class of the protocol of the step."""
        return self.part or self.protocol

    def field(self, name: str) -> SummaryField:
        """A value of the summary.

        Parameters
        ----------
        name
            Its name.

        Returns
        -------
        SummaryField
            What is known about it.
        """
        return next(each for each in self.summary if each.name == name)
