"""Learning rate, weight-decay groups and the moving average of weights."""

import math
from collections.abc import Iterable

import torch
from torch import Tensor, nn

from esen_flows.training.config import TrainingConfig

# Decay towards zero would move what embeddings, basis parameters and biases encode; it would not simplify the network.
NO_DECAY = ("embedding", "frequencies", "bias")


def learning_rate_factor(step: int, done: float, steps_per_epoch: float, config: TrainingConfig) -> float:
    """Factor on the peak learning rate: a linear warm-up times a cosine over the whole training.

    Parameters
    ----------
    step
        Steps done so far.
    done
        Share of the training that is done, 0 to 1.
    steps_per_epoch
        Turns a warm-up in epochs into steps.
    config
        Settings of the stage: warm-up and final factor.

    Returns
    -------
    float
        `warmup_factor` at first, 1 at the peak, `final_factor` at the end.
    """
    if config.warmup_steps is not None:
        warmup = float(config.warmup_steps)
    else:
        warmup = (config.warmup_epochs or 0.0) * steps_per_epoch
    rise = 1.0 if step >= warmup else config.warmup_factor + (1.0 - config.warmup_factor) * step / warmup
    cosine = 0.5 * (1.0 + math.cos(math.pi * min(1.0, done)))
    return rise * (config.final_factor + (1.0 - config.final_factor) * cosine)


def make_optimizer(network: nn.Module, config: TrainingConfig) -> torch.optim.AdamW:
    """AdamW over the parameters that are not frozen, with the paper's exclusions from weight decay.

    Parameters
    ----------
    network
        The network to train.
    config
        Settings of the stage.

    Returns
    -------
    torch.optim.AdamW
        The optimiser, with one group that decays and one that does not.
    """
    decay: list[Tensor] = []
    keep: list[Tensor] = []
    for name, parameter in network.named_parameters():
        if parameter.requires_grad:
            (keep if any(part in name for part in NO_DECAY) else decay).append(parameter)
    groups = [{"params": decay, "weight_decay": config.weight_decay}, {"params": keep, "weight_decay": 0.0}]
    return torch.optim.AdamW(groups, lr=config.learning_rate, betas=config.betas)


class MovingAverage:
    """Exponential moving average of the parameters: shadow += (1 - decay) (parameter - shadow).

    Parameters
    ----------
    parameters
        Parameters to begin with.
    decay
        Share of the old average that a step keeps.
    """

    def __init__(self, parameters: Iterable[Tensor], decay: float) -> None:
        self.decay = decay
        self.shadow = [parameter.detach().clone() for parameter in parameters]

    @torch.no_grad()
    def update(self, parameters: Iterable[Tensor]) -> None:
        """Move the average one step towards the parameters.

        Parameters
        ----------
        parameters
            The parameters now, in the order of the first ones.
        """
        for shadow, parameter in zip(self.shadow, parameters, strict=True):
            shadow.lerp_(parameter, 1.0 - self.decay)

    @torch.no_grad()
    def copy_to(self, parameters: Iterable[Tensor]) -> None:
        """Overwrite parameters with the average.

        Parameters
        ----------
        parameters
            Parameters to overwrite, in the order of the first ones.
        """
        for shadow, parameter in zip(self.shadow, parameters, strict=True):
            parameter.copy_(shadow)
