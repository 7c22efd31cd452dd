"""Progress bars on stderr, where they do not mix with results."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import (
    BarColumn,
    DownloadColumn,
    MofNCompleteColumn,
    Progress,
    ProgressColumn,
    TextColumn,
    TimeElapsedColumn,
)


def progress_bars(*columns: ProgressColumn, transient: bool = False) -> Progress:
    """A display of progress bars with description, count and elapsed time.

    Parameters
    ----------
    *columns
        Further columns.
    transient
        Whether the bars disappear when they are done.

    Returns
    -------
    Progress
        Display that runs inside a `with` block.
    """
    base = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    return Progress(*base, *columns, console=Console(stderr=True), transient=transient)


@contextmanager
def counted(description: str, total: int) -> Iterator[Callable[[], None]]:
    """A progress bar that counts calls.

    Parameters
    ----------
    description
        Text beside the bar.
    total
        Number of calls that complete the bar.

    Yields
    ------
    Callable[[], None]
        Function to call once for each finished item.
    """
    with progress_bars() as bars:
        task = bars.add_task(description, total=total)
        yield lambda: bars.advance(task)


@contextmanager
def downloading() -> Iterator[Callable[[str], Callable[[int, int | None], None]]]:
    """A progress bar of bytes for each file.

    Yields
    ------
    Callable[[str], Callable[[int, int | None], None]]
        Gives for the name of a file, in the place of the bar before it, the function to call with the bytes so far and
        in all (None: not known).
    """
    columns = (TextColumn("{task.description}"), BarColumn(), DownloadColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as bars:

        def begin(name: str) -> Callable[[int, int | None], None]:
            for earlier in bars.task_ids:
                bars.remove_task(earlier)
            task = bars.add_task(name, total=None)
            return lambda done, total: bars.update(task, completed=done, total=total)

        yield begin
