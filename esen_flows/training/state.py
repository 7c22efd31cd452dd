"""Where a training is: saved atomically, the newest whole file is taken up again."""

import hashlib
import os
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from esen_flows.errors import InputError
from esen_flows.network.esen import ESEN
from esen_flows.training.config import TrainingConfig
from esen_flows.training.schedule import MovingAverage, make_optimizer

KEPT = 2  # the newest one, and one more in case that it is damaged


@dataclass
class TrainingState:
    """All that a resumed training needs besides its data and configuration.

    There is no state of random numbers: what is random is a function of seed, epoch, batch and place in the batch.

    Attributes
    ----------
    network, optimizer, average
        as after `step` steps.
    scale_ev, references_ev
        what turns network units into eV.
    epoch, batch
        the next batch to compute; step : optimiser steps done.
    seconds, cpu_seconds
        spent on them, the latter by this process.
    """

    network: ESEN
    optimizer: torch.optim.Optimizer
    average: MovingAverage
    scale_ev: float
    references_ev: dict[int, float]
    epoch: int = 0
    batch: int = 0
    step: int = 0
    seconds: float = 0.0
    cpu_seconds: float = 0.0

    @classmethod
    def fresh(
        cls, network: ESEN, scale_ev: float, references_ev: dict[int, float], config: TrainingConfig
    ) -> "TrainingState":
        """Before the first step."""
        average = MovingAverage(network.parameters(), config.ema_decay)
        return cls(network, make_optimizer(network, config), average, scale_ev, references_ev)

    def save(self, folder: Path, identity: Mapping[str, Any]) -> None:
        """Write a new file, with a digest of its content in its name, then remove those before the last `KEPT`."""
        temporary = folder / f".state.{os.getpid()}.tmp"
        content = {
            "identity": dict(identity),
            "network": self.network.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "average": self.average.shadow,
            "scale_ev": self.scale_ev,
            "references_ev": self.references_ev,
            "position": [self.epoch, self.batch, self.step],
            "seconds": [self.seconds, self.cpu_seconds],
        }
        try:
            with temporary.open("wb") as stream:
                torch.save(content, stream)
                stream.flush()
                os.fsync(stream.fileno())
            os.replace(temporary, folder / f"state-{self.step:010d}-{_digest(temporary)}.pt")
        finally:
            temporary.unlink(missing_ok=True)
        for old in saved_states(folder)[:-KEPT]:
            old.unlink(missing_ok=True)

    def restore(self, saved: Mapping[str, Any]) -> None:
        """Continue from what `newest_state` found."""
        self.network.load_state_dict(saved["network"])
        self.optimizer.load_state_dict(saved["optimizer"])
        for mine, theirs in zip(self.average.shadow, saved["average"], strict=True):
            mine.copy_(theirs)
        self.scale_ev, self.references_ev = saved["scale_ev"], dict(saved["references_ev"])
        self.epoch, self.batch, self.step = saved["position"]
        self.seconds, self.cpu_seconds = saved["seconds"]


def saved_states(folder: Path) -> list[Path]:
    """Files of a training's states, the newest last."""
    return sorted(folder.glob("state-*.pt"))


def newest_state(folder: Path, identity: Mapping[str, Any]) -> dict[str, Any] | None:
    """The newest state of a folder that can be read, or None; damaged ones are passed over with a warning.

    Raises
    ------
    InputError
        the folder belongs to another training.
    """
    for path in reversed(saved_states(folder)):
        if not path.stem.endswith(_digest(path)):
            warnings.warn(f"{path} is damaged; going on from the state before it", stacklevel=2)
            continue
        saved: dict[str, Any] = torch.load(path, weights_only=True, map_location="cpu")
        if changed := _differences(saved["identity"], identity):
            raise InputError(
                f"{folder} holds a training with {'; '.join(changed)}; use a new folder, or its settings and data"
            )
        return saved
    return None


def _digest(path: Path) -> str:
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()[:16]


def _differences(saved: Mapping[str, Any], identity: Mapping[str, Any]) -> list[str]:
    found = []
    for name in sorted(set(saved) | set(identity)):
        before, now = saved.get(name), identity.get(name)
        if isinstance(before, dict) and isinstance(now, dict):
            found += _differences(before, now)
        elif before != now:
            found.append(f"{name} {before!r} instead of {now!r}")
    return found
