"""The training loop, top to bottom: data, network, optimiser, steps, validation, checkpoint."""

import csv
import os
import signal
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from types import FrameType
from typing import Any

import torch

from esen_flows.data.labelled import LabelledStructure
from esen_flows.data.references import fit_references, force_scale
from esen_flows.errors import EsenFlowsError, InputError
from esen_flows.forcefield.checkpoint import Checkpoint, save
from esen_flows.network.derivatives import energy_forces_stress
from esen_flows.network.esen import ESEN
from esen_flows.training.config import TrainingConfig
from esen_flows.training.evaluate import averaged_copy, group_errors
from esen_flows.training.frames import Frame, collate, epoch_batches, make_frames
from esen_flows.training.loss import training_loss
from esen_flows.training.schedule import MovingAverage, learning_rate_factor, make_optimizer

STATE_NAME = "training_state.pt"
CHECKPOINT_NAME = "checkpoint.safetensors"
HISTORY_NAME = "history.csv"
SAVE_EVERY_SECONDS = 60.0
Progress = Callable[[dict[str, float]], None]


class TrainingDivergedError(EsenFlowsError):
    """The loss became NaN or infinite."""

    final = True


@dataclass
class TrainingState:
    """Where a training is: all that a resumed one needs besides the data and the configuration."""

    network: ESEN
    optimizer: torch.optim.Optimizer
    average: MovingAverage
    epoch: int = 0
    batch: int = 0  # batches of this epoch already done
    step: int = 0
    seconds: float = 0.0

    def save(self, path: Path, config: TrainingConfig) -> None:
        """Write atomically."""
        temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
        torch.save(
            {
                "config": asdict(config),
                "network": self.network.state_dict(),
                "optimizer": self.optimizer.state_dict(),
                "average": self.average.shadow,
                "position": [self.epoch, self.batch, self.step],
                "seconds": self.seconds,
            },
            temporary,
        )
        os.replace(temporary, path)

    def restore(self, path: Path, config: TrainingConfig) -> None:
        """Continue from a file written by `save`.

        Raises
        ------
        InputError : it belongs to another configuration.
        """
        saved: dict[str, Any] = torch.load(path, weights_only=True)
        if saved["config"] != asdict(config):
            changed = sorted(k for k, v in asdict(config).items() if saved["config"].get(k) != v)
            raise InputError(
                f"{path} was written with other settings ({changed}); use a new folder or the same settings"
            )
        self.network.load_state_dict(saved["network"])
        self.optimizer.load_state_dict(saved["optimizer"])
        self.average.shadow = saved["average"]
        self.epoch, self.batch, self.step = saved["position"]
        self.seconds = saved["seconds"]


def train(
    config: TrainingConfig,
    training: Sequence[LabelledStructure],
    validation: Sequence[LabelledStructure],
    folder: str | Path,
    *,
    initial: Checkpoint | None = None,
    provenance: dict[str, Any] | None = None,
    progress: Progress | None = None,
) -> Path:
    """Train an eSEN and return the path of its checkpoint (weights: the moving average).

    Interrupted by SIGTERM or SIGINT it saves and raises KeyboardInterrupt; called again with the same folder it goes
    on, batch for batch as if it had never stopped.

    Parameters
    ----------
    training, validation : labelled structures.
    initial : start from these weights, with their scale and element references, instead of random ones.
    folder : receives history.csv, training_state.pt and checkpoint.safetensors.
    provenance : goes into the checkpoint's header, not into its key.
    progress : called after every step with epoch, step, total_steps, loss, learning_rate, seconds.

    Raises
    ------
    InputError : no data, or a folder of another configuration.
    TrainingDivergedError : NaN loss, with the step.
    """
    if not training or not validation:
        raise InputError(f"need training and validation structures, got {len(training)} and {len(validation)}")
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    if initial is None:
        references = fit_references([s.atoms.numbers for s in training], [s.energy for s in training])
        scale_ev = force_scale([s.forces for s in training])
    else:
        _check_initial(initial, config, training)
        references, scale_ev = initial.references_ev, initial.scale_ev
    frames = make_frames(training, config.cutoff_angstrom, references, config.max_neighbors)
    held_out = make_frames(validation, config.cutoff_angstrom, references, config.max_neighbors)

    torch.manual_seed(config.seed)
    network = ESEN(config.architecture)
    with torch.no_grad():
        network.get_parameter("energy_block.4.weight").mul_(config.initial_head_factor)
    if initial is not None:
        network.load_state_dict(initial.network.state_dict())
    state = TrainingState(
        network, make_optimizer(network, config), MovingAverage(network.parameters(), config.ema_decay)
    )
    if (folder / STATE_NAME).exists():
        state.restore(folder / STATE_NAME, config)
    batches_per_epoch = [sum(1 for _ in _batches(frames, config, epoch)) for epoch in range(config.epochs)]
    total_steps = sum(batches_per_epoch)

    def checkpoint(errors: dict[str, Any]) -> None:
        header = {
            "config": asdict(config),
            "initial_model_key": initial.model_key if initial else None,
            "epoch": state.epoch,
            "steps": state.step,
            "total_steps": total_steps,
            "seconds": state.seconds,
            "validation": errors,
            "provenance": provenance or {},
        }
        averaged = averaged_copy(network, state.average)
        save(folder / CHECKPOINT_NAME, Checkpoint(averaged, scale_ev, references, tuple(references), header))

    with _StopRequest() as stop:
        while state.epoch < config.epochs:
            mean_loss = _run_epoch(state, frames, config, scale_ev, total_steps, stop, folder, progress)
            state.epoch, state.batch = state.epoch + 1, 0
            if state.epoch % config.validate_every_epochs == 0 or state.epoch == config.epochs:
                errors = group_errors(averaged_copy(network, state.average), held_out, scale_ev)
                _write_history(folder / HISTORY_NAME, state, mean_loss, errors["all"])
                checkpoint(errors)
            state.save(folder / STATE_NAME, config)
    return folder / CHECKPOINT_NAME


def _check_initial(initial: Checkpoint, config: TrainingConfig, training: Sequence[LabelledStructure]) -> None:
    if initial.network.config != config.architecture:
        raise InputError(
            f"the initial checkpoint is {initial.network.config}, the training asks for {config.architecture}; "
            "give the same sizes"
        )
    unknown = {int(z) for s in training for z in s.atoms.numbers} - set(initial.references_ev)
    if unknown:
        raise InputError(f"the initial checkpoint has no reference energy for atomic numbers {sorted(unknown)}")


def _batches(frames: Sequence[Frame], config: TrainingConfig, epoch: int) -> Any:
    return epoch_batches(
        frames,
        edges_per_batch=config.edges_per_batch,
        seed=config.seed,
        epoch=epoch,
        group_share=config.group_share,
        random_inversion=config.random_inversion,
    )


def _run_epoch(
    state: TrainingState,
    frames: Sequence[Frame],
    config: TrainingConfig,
    scale_ev: float,
    total_steps: int,
    stop: "_StopRequest",
    folder: Path,
    progress: Progress | None,
) -> float:
    """The rest of an epoch; returns the mean loss of its steps."""
    losses: list[float] = []
    saved = time.monotonic()
    for index, chosen in enumerate(_batches(frames, config, state.epoch)):
        if index < state.batch:
            continue
        started = time.monotonic()
        rate = config.learning_rate * learning_rate_factor(state.step, total_steps, config)
        losses.append(_step(state, chosen, config, scale_ev, rate))
        state.batch, state.step = index + 1, state.step + 1
        state.seconds += time.monotonic() - started
        if progress:
            progress(
                {"epoch": state.epoch, "step": state.step, "total_steps": total_steps, "loss": losses[-1],
                 "learning_rate": rate, "seconds": state.seconds}
            )  # fmt: skip
        if stop.requested or time.monotonic() - saved > SAVE_EVERY_SECONDS:
            state.save(folder / STATE_NAME, config)
            saved = time.monotonic()
        if stop.requested:
            raise KeyboardInterrupt(f"stopped at step {state.step}; the same call goes on from there")
    return sum(losses) / max(1, len(losses))


def _step(state: TrainingState, chosen: Sequence[Frame], config: TrainingConfig, scale_ev: float, rate: float) -> float:
    """One optimiser step; returns the loss before it."""
    for group in state.optimizer.param_groups:
        group["lr"] = rate
    batch = collate(chosen)
    state.optimizer.zero_grad(set_to_none=True)
    prediction = energy_forces_stress(state.network, batch.graph, create_graph=True)
    loss = training_loss(prediction, batch, config, scale_ev)
    if not torch.isfinite(loss):
        raise TrainingDivergedError(
            f"the loss is {loss.item()} at step {state.step} (epoch {state.epoch}, learning rate {rate:.2g}); "
            "lower learning_rate or clip_norm, or look for broken labels"
        )
    loss.backward()
    torch.nn.utils.clip_grad_norm_(state.network.parameters(), config.clip_norm)
    state.optimizer.step()
    state.average.update(state.network.parameters())
    return float(loss.detach())


def _write_history(path: Path, state: TrainingState, loss: float, errors: dict[str, float]) -> None:
    row = {"epoch": state.epoch, "step": state.step, "seconds": round(state.seconds, 1), "loss": loss, **errors}
    fresh = not path.exists()
    with path.open("a", newline="") as stream:
        writer = csv.DictWriter(stream, row)
        if fresh:
            writer.writeheader()
        writer.writerow(row)


class _StopRequest:
    """Turns SIGTERM and SIGINT into a request that the loop answers between two steps."""

    requested = False

    def __enter__(self) -> "_StopRequest":
        self._previous: dict[int, Any] = {}
        for number in (signal.SIGTERM, signal.SIGINT):
            try:
                self._previous[number] = signal.signal(number, self._ask)
            except ValueError:  # not in the main thread: whoever runs us there handles signals
                break
        return self

    def _ask(self, number: int, frame: FrameType | None) -> None:
        self.requested = True

    def __exit__(self, *details: object) -> None:
        for number, handler in self._previous.items():
            signal.signal(number, handler)
