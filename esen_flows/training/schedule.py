"""Learning rate, weight-decay groups and the moving average of weights."""

import math
from collections.abc import Iterable

import torch
from torch import Tensor, nn

from esen_flows.training.config import TrainingConfig

# Decaying embeddings, basis parameters or biases towards zero would move what they encode, not its complexity.
NO_DECAY = ("embedding", "frequencies", "bias")


def learning_rate_factor(step: int, done: float, steps_per_epoch: float, config: TrainingConfig) -> float:
    """A linear warm-up times a cosine from 1 to `final_factor` over the whole training.

    Parameters
    ----------
    step
        steps done so far.
    done
        the share of the training that is done, 0 to 1.
    steps_per_epoch
        for a warm-up given in epochs.
    """
    if config.warmup_steps is not None:
        warmup = float(config.warmup_steps)
    else:
        warmup = (config.warmup_epochs or 0.0) * steps_per_epoch
    rise = 1.0 if step >= warmup else config.warmup_factor + (1.0 - config.warmup_factor) * step / warmup
    cosine = 0.5 * (1.0 + math.cos(math.pi * min(1.0, done)))
    return rise * (config.final_factor + (1.0 - config.final_factor) * cosine)


def make_optimizer(network: nn.Module, config: TrainingConfig) -> torch.optim.AdamW:
    """AdamW with the paper's exclusions from weight decay, over what is not frozen."""
    decay: list[Tensor] = []
    keep: list[Tensor] = []
    for name, parameter in network.named_parameters():
        if parameter.requires_grad:
            (keep if any(part in name for part in NO_DECAY) else decay).append(parameter)
    groups = [
        {"params": decay, "weight_decay": config.weight_decay},
        {"params": keep, "weight_decay": 0.0},
    ]
    return torch.optim.AdamW(groups, lr=config.learning_rate, betas=config.betas)


class MovingAverage:
    """Exponential moving average of the parameters: shadow += (1 - decay) (parameter - shadow)."""

    def __init__(self, parameters: Iterable[Tensor], decay: float) -> None:
        self.decay = decay
        self.shadow = [parameter.detach().clone() for parameter in parameters]

    @torch.no_grad()
    def update(self, parameters: Iterable[Tensor]) -> None:
        """Take one step towards the parameters."""
        for shadow, parameter in zip(self.shadow, parameters, strict=True):
            shadow.lerp_(parameter, 1.0 - self.decay)

    @torch.no_grad()
    def copy_to(self, parameters: Iterable[Tensor]) -> None:
        """Overwrite the parameters with the average."""
        for shadow, parameter in zip(self.shadow, parameters, strict=True):
            parameter.copy_(shadow)
