"""JSON files of any size, read piece by piece."""

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

from esen_flows.data.sources.bounded_files import TruncatedFileError
from esen_flows.errors import InputError

_BLANKS = re.compile(r"\s*")
_PIECE = 1 << 22  # characters read at once
_LONGEST = 1 << 28  # characters of one value; more is a broken file and not a structure


class JsonStream:
    """JSON that is read piece by piece: the members of nested objects, or the values of an array, one after the other.

    Parameters
    ----------
    stream
        The open file.
    path
        Its name for error messages.
    """

    def __init__(self, stream: IO[str], path: Path) -> None:
        self._stream, self._path = stream, path
        self._decode = json.JSONDecoder().raw_decode
        self._text, self._at, self._before = "", 0, 0

    def _more(self) -> bool:
        piece = self._stream.read(_PIECE)
        self._before += self._at
        self._text, self._at = self._text[self._at :] + piece, 0
        return bool(piece)

    def _next(self) -> str:
        """The next character that is not a blank; "" at the end."""
        while True:
            self._at = _BLANKS.match(self._text, self._at).end()  # type: ignore[union-attr]
            if self._at < len(self._text) or not self._more():
                return self._text[self._at : self._at + 1]

    def _expect(self, characters: str) -> str:
        found = self._next()
        if not found or found not in characters:
            raise self._broken(f"expected one of {characters!r}, got {found or 'the end'!r}", is_end=not found)
        self._at += 1
        return found

    def _broken(self, what: str, is_end: bool = False) -> InputError:
        return (TruncatedFileError if is_end else InputError)(
            f"{self._path} is not the JSON of labelled structures that is read here: {what} at character "
            f"{self._before + self._at}; download it again"
        )

    def members(self) -> Iterator[str]:
        """Keys of the object that comes next. The value of a key has to be read before the next key.

        Yields
        ------
        str
            One key.

        Raises
        ------
        InputError
            The text is not JSON, or does not go on with an object.
        """
        self._expect("{")
        if self._next() == "}":
            self._at += 1
            return
        while True:
            key = self.value()
            self._expect(":")
            yield str(key)
            if self._expect(",}") == "}":
                return

    def items(self) -> Iterator[Any]:
        """Values of the array that comes next.

        Yields
        ------
        Any
            One value.

        Raises
        ------
        InputError
            The text is not JSON, or does not go on with an array of strings, arrays and objects.
        """
        self._expect("[")
        if self._next() == "]":
            self._at += 1
            return
        while True:
            yield self.value()
            if self._expect(",]") == "]":
                return

    def value(self) -> Any:
        """The string, array or object that comes next, whole.

        Returns
        -------
        Any
            Its value.

        Raises
        ------
        InputError
            The text is not JSON, or goes on with something else.
        """
        if self._next() not in ('"', "[", "{"):
            raise self._broken("expected a string, an array or an object", is_end=not self._next())
        while True:
            try:
                found, self._at = self._decode(self._text, self._at)
            except RecursionError as error:
                raise self._broken("arrays or objects are nested too deeply") from error
            except json.JSONDecodeError as error:
                # The value is not whole yet, or broken. Only the end of the file, or an absurd length, tells which.
                if len(self._text) - self._at > _LONGEST:
                    raise self._broken(error.msg) from error
                if not self._more():
                    raise self._broken(error.msg, is_end=True) from error
            else:
                return found
