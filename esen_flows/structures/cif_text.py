"""The grammar of CIF 1.1: data blocks of tags with their values, as text."""

import re
from collections.abc import Iterator
from dataclasses import dataclass, field

from esen_flows.errors import InputError
from esen_flows.structures.numbers import is_unknown

# A comment, a quoted value (its quote ends it before a blank), or any other run of characters.
_TOKEN = re.compile(r"""#.*|'(?:[^']|'(?=\S))*'(?=\s|$)|"(?:[^"]|"(?=\S))*"(?=\s|$)|\S+""")
_Token = tuple[int, str, bool]  # line, text, and whether it was quoted


@dataclass
class CifBlock:
    """A data block.

    Attributes
    ----------
    name
        Its name.
    values
        Values of each tag, one, or one for each row of a loop. Tags are in small letters, with underscores for dots.
    """

    name: str
    values: dict[str, list[str]] = field(default_factory=dict)

    def one(self, *tags: str) -> str | None:
        """The known value of the first of several tags that has one.

        Parameters
        ----------
        tags
            Tags that mean the same.

        Returns
        -------
        str | None
            The value; None where no tag has a known one.
        """
        known = (value for tag in tags for value in self.values.get(tag, ())[:1] if not is_unknown(value))
        return next(known, None)

    def column(self, *tags: str) -> list[str] | None:
        """The values of the first of several tags that the block has.

        Parameters
        ----------
        tags
            Tags that mean the same.

        Returns
        -------
        list[str] | None
            The values, unknown ones included; None where the block has none of the tags.
        """
        return next((self.values[tag] for tag in tags if tag in self.values), None)


def cif_blocks(text: str) -> list[CifBlock]:
    """The data blocks of a CIF.

    Parameters
    ----------
    text
        Contents of the file.

    Returns
    -------
    list[CifBlock]
        The blocks, in their order.

    Raises
    ------
    InputError
        The text does not follow the grammar; the message gives the line.
    """
    blocks: list[CifBlock] = []
    tokens = list(_tokens(text))
    position = 0
    while position < len(tokens):
        line, word, quoted = tokens[position]
        position += 1
        if not quoted and word.lower().startswith("data_"):
            blocks.append(CifBlock(word[5:]))
        elif not blocks:
            raise InputError(f"line {line}: expected data_NAME, got {word[:40]!r}")
        elif not quoted and word.lower() == "loop_":
            position = _read_loop(tokens, position, blocks[-1])
        elif not quoted and word.startswith("_"):
            if position == len(tokens) or _is_reserved(tokens[position]):
                raise InputError(f"line {line}: {word[:60]} has no value")
            _add(blocks[-1], line, word, [tokens[position][1]])
            position += 1
        elif not quoted and word.lower().startswith("save_"):
            raise InputError(f"line {line}: save frames belong to dictionaries, not to crystals")
        else:
            raise InputError(f"line {line}: the value {word[:40]!r} has no tag")
    return blocks


def _tokens(text: str) -> Iterator[_Token]:
    lines = text.splitlines()
    number = 0
    while number < len(lines):
        line = lines[number]
        number += 1
        if line.startswith(";"):
            begin, content = number, [line[1:]]
            while number < len(lines) and not lines[number].startswith(";"):
                content.append(lines[number])
                number += 1
            if number == len(lines):
                raise InputError(f"line {begin}: the text that begins with a semicolon does not end")
            yield begin, "\n".join(content).strip(), True
            line = lines[number][1:]
            number += 1
        for match in _TOKEN.finditer(line):
            word = match.group()
            if word.startswith("#"):
                break
            quoted = len(word) > 1 and word[0] in "'\"" and word[-1] == word[0]
            yield number, word[1:-1] if quoted else word, quoted


def _is_reserved(token: _Token) -> bool:
    _, word, quoted = token
    return not quoted and (
        word.startswith("_") or word.lower() == "loop_" or word.lower().startswith(("data_", "save_"))
    )


def _read_loop(tokens: list[_Token], position: int, block: CifBlock) -> int:
    """Add the columns of a loop to a block; the position behind it."""
    line, tags = tokens[position - 1][0], []
    while position < len(tokens) and not tokens[position][2] and tokens[position][1].startswith("_"):
        tags.append(tokens[position][1])
        position += 1
    begin = position
    while position < len(tokens) and not _is_reserved(tokens[position]):
        position += 1
    values = [word for _, word, _ in tokens[begin:position]]
    if not tags or not values or len(values) % len(tags):
        raise InputError(f"line {line}: a loop of {len(tags)} tags has {len(values)} values; its rows are not complete")
    for column, tag in enumerate(tags):
        _add(block, line, tag, values[column :: len(tags)])
    return position


def _add(block: CifBlock, line: int, tag: str, values: list[str]) -> None:
    name = tag.lower().replace(".", "_")
    if block.values.get(name, values) != values:
        raise InputError(f"line {line}: {tag} stands twice in data_{block.name[:40]}, with different values")
    block.values[name] = values
