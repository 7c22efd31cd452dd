"""Where a training is: its state is saved whole, and the newest undamaged state is resumed."""

import math
import warnings
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch

from esen_flows.errors import InputError
from esen_flows.files import sha256_of_file, written_whole
from esen_flows.forcefield.checkpoint import Checkpoint
from esen_flows.network.interface import Network
from esen_flows.training.config import TrainingConfig
from esen_flows.training.memory import PassLimits
from esen_flows.training.schedule import MovingAverage, make_optimizer

KEPT = 2  # the newest state, and one more in case that it is damaged


@dataclass
class TrainingState:
    """All that a resumed training needs besides its data and configuration.

    It has no state of random numbers: all randomness is a function of seed, epoch, batch and place in the batch.

    Parameters
    ----------
    network, optimizer, average
        Weights, state of AdamW, and moving average of the weights, after `step` steps.
    scale_ev, references_ev
        Factor and element energies that turn network units into eV.
    epoch, batch
        The next batch to compute.
    step
        Optimiser steps done.
    seconds, cpu_seconds
        Wall time of these steps, and CPU time of this process, in seconds.
    curvature
        Loss of the last step on the curvature alone; NaN before the first one.
    limits
        Sizes of passes that were found to fit into memory.
    """

    network: Network
    optimizer: torch.optim.Optimizer
    average: MovingAverage
    scale_ev: float
    references_ev: dict[int, float]
    epoch: int = 0
    batch: int = 0
    step: int = 0
    seconds: float = 0.0
    cpu_seconds: float = 0.0
    curvature: float = math.nan
    limits: PassLimits = field(default_factory=PassLimits)

    @classmethod
    def fresh(cls, start: Checkpoint, config: TrainingConfig) -> "TrainingState":
        """The state before the first step.

        Parameters
        ----------
        start
            Network to train, on its device, with its scale and references.
        config
            Settings of the stage.

        Returns
        -------
        TrainingState
            The state, with a new optimiser and average.
        """
        average = MovingAverage(start.network.parameters(), config.ema_decay)
        optimizer = make_optimizer(start.network, config)
        return cls(start.network, optimizer, average, start.scale_ev, start.references_ev)

    def save(self, folder: Path, identity: Mapping[str, Any]) -> None:
        """Write a new file, then remove all but the last `KEPT` files.

        Parameters
        ----------
        folder
            Folder of the training.
        identity
            Configuration and keys of the data; a training with another identity is refused this state.
        """
        content = {
            "identity": dict(identity),
            "network": self.network.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "average": self.average.shadow,
            "scale_ev": self.scale_ev,
            "references_ev": self.references_ev,
            "position": [self.epoch, self.batch, self.step],
            "seconds": [self.seconds, self.cpu_seconds],
            "curvature": self.curvature,
            "limits": asdict(self.limits),
        }
        # On the disk before an older state is removed. The digest in its name is known only then.
        unnamed = folder / "unnamed-state.pt"
        with written_whole(unnamed, durable=True) as temporary, temporary.open("wb") as stream:
            torch.save(content, stream)
        unnamed.replace(folder / f"state-{self.step:010d}-{_digest(unnamed)}.pt")
        for old in saved_states(folder)[:-KEPT]:
            old.unlink(missing_ok=True)

    def restore(self, saved: Mapping[str, Any]) -> None:
        """Take over a saved state.

        Parameters
        ----------
        saved
            Content of a state file, from `newest_state`.
        """
        self.network.load_state_dict(saved["network"])
        self.optimizer.load_state_dict(saved["optimizer"])
        for mine, theirs in zip(self.average.shadow, saved["average"], strict=True):
            mine.copy_(theirs)
        self.scale_ev, self.references_ev = saved["scale_ev"], dict(saved["references_ev"])
        self.epoch, self.batch, self.step = saved["position"]
        self.seconds, self.cpu_seconds = saved["seconds"]
        self.curvature = saved.get("curvature", math.nan)
        self.limits = PassLimits(**saved.get("limits", {}))
        if self.limits.edges_per_chunk is not None:
            self.network.edges_per_chunk = self.limits.edges_per_chunk


def saved_states(folder: Path) -> list[Path]:
    """The state files of a training.

    Parameters
    ----------
    folder
        Folder of the training.

    Returns
    -------
    list[Path]
        Files, the newest last.
    """
    return sorted(folder.glob("state-*.pt"))


def newest_state(folder: Path, identity: Mapping[str, Any]) -> dict[str, Any] | None:
    """Read the newest undamaged state of a folder; a damaged one gives a warning.

    Parameters
    ----------
    folder
        Folder of the training.
    identity
        Configuration and keys of the data of this training.

    Returns
    -------
    dict[str, Any] | None
        Content for `TrainingState.restore`; None without a state.

    Raises
    ------
    InputError
        The folder belongs to another training.
    """
    for path in reversed(saved_states(folder)):
        if not path.stem.endswith(_digest(path)):
            warnings.warn(f"{path} is damaged; going on from the state before it", stacklevel=2)
            continue
        try:
            saved: dict[str, Any] = torch.load(path, weights_only=True, map_location="cpu")
            is_state = isinstance(saved, dict) and isinstance(saved.get("identity"), dict)
        except Exception:  # the reader of torch's files raises errors of any type
            is_state = False
        if not is_state:
            warnings.warn(f"{path} is not a state of a training; going on from the state before it", stacklevel=2)
            continue
        if changed := _differences(saved["identity"], identity):
            raise InputError(
                f"{folder} holds a training with {'; '.join(changed)}; use a new folder, or its settings and data"
            )
        return saved
    return None


def _digest(path: Path) -> str:
    return sha256_of_file(path)[:16]


def _differences(saved: Mapping[str, Any], identity: Mapping[str, Any]) -> list[str]:
    """What a saved identity has instead of this one, by the names of its values."""
    found = []
    for name in sorted(set(saved) | set(identity)):
        before, now = saved.get(name), identity.get(name)
        if isinstance(before, dict) and isinstance(now, dict):
            found += _differences(before, now)
        elif before != now:
            found.append(f"{name} {before!r} instead of {now!r}")
    return found
