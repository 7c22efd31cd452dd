"""What readers of files warn of: judged here, and passed on as warnings about the structure."""

import warnings
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

from esen_flows.errors import StructureWarning

# Warnings about code, now or in the future, which say nothing about the contents of a file.
_ABOUT_CODE = (DeprecationWarning, PendingDeprecationWarning, FutureWarning, ImportWarning, ResourceWarning)


@contextmanager
def reader_warnings(file: Path) -> Iterator[None]:
    """A context in which what a reader warns of becomes a StructureWarning that names the file.

    Parameters
    ----------
    file
        The file that is read.

    Yields
    ------
    None
        Nothing.
    """
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        yield
    texts = (str(each.message) for each in caught if not issubclass(each.category, _ABOUT_CODE))
    say(file, (" ".join(text.split())[:300] for text in texts))


def say(file: Path, notes: Iterable[str]) -> None:
    """Warn of what was decided where a file leaves something open.

    Parameters
    ----------
    file
        The file.
    notes
        One text for each decision; repeated ones are said once.
    """
    for note in dict.fromkeys(notes):
        warnings.warn(f"{file}: {note}", StructureWarning, stacklevel=2)
