"""The numbers of a training while it runs: CSV files, and TensorBoard where it is installed."""

import csv
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from esen_flows.files import written_whole

STEPS_NAME = "steps.csv"  # a row every few steps
HISTORY_NAME = "history.csv"  # a row after every validation


class Metrics:
    """Appends rows to two tables. Opened again at an earlier step, it first removes the rows of later steps.

    Parameters
    ----------
    folder
        Receives steps.csv, history.csv and, with the `tensorboard` package, event files.
    step, epoch
        How many are done.
    """

    def __init__(self, folder: Path, step: int, epoch: int) -> None:
        self.folder = folder
        _cut_after(folder / STEPS_NAME, "step", step)
        # By epoch: a state from the last step of an epoch is validated again.
        _cut_after(folder / HISTORY_NAME, "epoch", epoch)
        self._board = _tensorboard(folder, step)

    def write(self, name: str, row: Mapping[str, Any]) -> None:
        """Append a row to one of the tables.

        Parameters
        ----------
        name
            `STEPS_NAME` or `HISTORY_NAME`.
        row
            Values by column, `step` among them.
        """
        path = self.folder / name
        fresh = not path.exists()
        with path.open("a", newline="") as stream:
            writer = csv.DictWriter(stream, list(row))
            if fresh:
                writer.writeheader()
            writer.writerow(row)
        if self._board is not None:
            for key, value in row.items():
                if key != "step" and isinstance(value, int | float):
                    self._board.add_scalar(f"{Path(name).stem}/{key}", value, row["step"])

    def close(self) -> None:
        """Write what TensorBoard still has in memory."""
        if self._board is not None:
            self._board.close()


def read_rows(path: Path) -> list[dict[str, float]]:
    """Read a table.

    Parameters
    ----------
    path
        CSV file with numbers.

    Returns
    -------
    list[dict[str, float]]
        Its rows; empty if there is no file.
    """
    if not path.exists():
        return []
    with path.open(newline="") as stream:
        return [{key: float(value) for key, value in row.items()} for row in csv.DictReader(stream)]


def _cut_after(path: Path, column: str, last: int) -> None:
    """Remove the rows of steps that will be taken again, and a last line that was not written to its end."""
    if not path.exists():
        return
    with path.open(newline="") as stream:
        reader = csv.DictReader(stream)
        names = list(reader.fieldnames or [])
        rows = [row for row in reader if None not in row.values() and int(row[column]) <= last]
    with written_whole(path) as temporary, temporary.open("w", newline="") as stream:
        writer = csv.DictWriter(stream, names)
        writer.writeheader()
        writer.writerows(rows)


def _tensorboard(folder: Path, step: int) -> Any:
    """A writer of event files from this step on; None without the `tensorboard` package."""
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError:
        return None
    return SummaryWriter(str(folder / "tensorboard"), purge_step=step + 1)
