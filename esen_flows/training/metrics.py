"""What a training says while it runs: CSV files, and TensorBoard where it is installed."""

import csv
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

STEPS_NAME = "steps.csv"  # every few steps
HISTORY_NAME = "history.csv"  # after every validation


class Metrics:
    """Rows of two tables. Opened again at an earlier moment, later rows are taken out.

    Parameters
    ----------
    folder
        receives steps.csv, history.csv and, with the `tensorboard` package, event files.
    step, epoch
        how many are done.
    """

    def __init__(self, folder: Path, step: int, epoch: int) -> None:
        self.folder = folder
        _cut_after(folder / STEPS_NAME, "step", step)
        # By epoch: a state from the last step of an epoch is validated again.
        _cut_after(folder / HISTORY_NAME, "epoch", epoch)
        self._board = _tensorboard(folder, step)

    def write(self, name: str, row: Mapping[str, Any]) -> None:
        """Add a row, which has a `step`, to one of the tables."""
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
        """Write what is still in memory."""
        if self._board is not None:
            self._board.close()


def read_rows(path: Path) -> list[dict[str, float]]:
    """The rows of a table; empty without a file."""
    if not path.exists():
        return []
    with path.open(newline="") as stream:
        return [{key: float(value) for key, value in row.items()} for row in csv.DictReader(stream)]


def _cut_after(path: Path, column: str, last: int) -> None:
    """Take out rows of what will be done again, and a last line that was not written to its end."""
    if not path.exists():
        return
    with path.open(newline="") as stream:
        reader = csv.DictReader(stream)
        names = list(reader.fieldnames or [])
        rows = [row for row in reader if None not in row.values() and int(row[column]) <= last]
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    with temporary.open("w", newline="") as stream:
        writer = csv.DictWriter(stream, names)
        writer.writeheader()
        writer.writerows(rows)
    os.replace(temporary, path)


def _tensorboard(folder: Path, step: int) -> Any:
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError:
        return None
    return SummaryWriter(str(folder / "tensorboard"), purge_step=step + 1)
