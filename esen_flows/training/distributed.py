"""The processes that train one network together: torchrun or srun start them, gloo or NCCL connects them."""

import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

from esen_flows.errors import InputError


@dataclass(frozen=True)
class World:
    """The processes that share the work, as one of them sees it. A single process communicates nothing.

    Attributes
    ----------
    rank
        Number of this process, from 0.
    size
        Number of processes.
    device
        Where this process computes.
    """

    rank: int = 0
    size: int = 1
    device: torch.device = torch.device("cpu")  # noqa: RUF009 - immutable

    @property
    def leads(self) -> bool:
        """Whether this process writes files and messages for all."""
        return self.rank == 0

    def sum(self, values: Sequence[float]) -> list[float]:
        """Sum numbers over all processes, in float64.

        Parameters
        ----------
        values
            Numbers of this process.

        Returns
        -------
        list[float]
            The sums, the same in all processes.
        """
        if self.size == 1:
            return [float(value) for value in values]
        tensor = torch.tensor(list(values), dtype=torch.float64, device=self.device)
        dist.all_reduce(tensor)
        return [float(value) for value in tensor.tolist()]

    def sum_tensors(self, tensors: Sequence[Tensor]) -> None:
        """Replace tensors by their sums over all processes.

        Parameters
        ----------
        tensors
            Tensors of one dtype, of the same shapes in all processes.
        """
        if self.size == 1 or not tensors:
            return
        # One message: a message for each of the many small tensors would cost its latency each time.
        flat = torch.cat([tensor.reshape(-1) for tensor in tensors])
        dist.all_reduce(flat)
        parts = flat.split([tensor.numel() for tensor in tensors])
        for tensor, part in zip(tensors, parts, strict=True):
            tensor.copy_(part.view_as(tensor))

    def share(self, tensors: Sequence[Tensor]) -> None:
        """Overwrite tensors with those of the first process.

        Parameters
        ----------
        tensors
            Tensors of the same shapes in all processes.
        """
        if self.size > 1:
            for tensor in tensors:
                dist.broadcast(tensor, 0)

    def share_object(self, value: Any) -> Any:
        """Give all processes the value of the first one.

        Parameters
        ----------
        value
            A value that can be pickled; only that of the first process counts.

        Returns
        -------
        Any
            The first process's value.
        """
        if self.size == 1:
            return value
        box = [value]
        dist.broadcast_object_list(box, 0)
        return box[0]

    def wait(self) -> None:
        """Wait until all processes are here."""
        if self.size > 1:
            dist.barrier()


ALONE = World()
# What torchrun and srun tell each process. Not SLURM_NTASKS: a batch script that srun did not start has that too.
# The first node's address comes with torchrun; with srun, the job script has to give it.
_NAMES = (("RANK", "WORLD_SIZE", "LOCAL_RANK"), ("SLURM_PROCID", "SLURM_STEP_NUM_TASKS", "SLURM_LOCALID"))


@contextmanager
def joined(device: str = "cpu", environment: Mapping[str, str] | None = None) -> Iterator[World]:
    """Join the other processes of this job, if there are any, and leave them at the end of the `with` block.

    Parameters
    ----------
    device
        "cpu" (gloo), or "cuda" (NCCL, one process per GPU, chosen by the local rank).
    environment
        Variables that torchrun or srun has set; None: those of this process.

    Yields
    ------
    World
        The processes, and the device of this one.

    Raises
    ------
    InputError
        The address of the first process is missing, or a node has more processes than GPUs.

    Examples
    --------
    >>> with joined(environment={}) as world:
    ...     world.leads, world.size
    (True, 1)
    """
    values = os.environ if environment is None else environment
    found = next((names for names in _NAMES if all(name in values for name in names)), None)
    rank, size, local = (int(values[name]) for name in found) if found else (0, 1, 0)
    if size == 1:
        yield World(device=torch.device(device))
        return
    if missing := [name for name in ("MASTER_ADDR", "MASTER_PORT") if name not in values]:
        raise InputError(
            f"{size} processes train together, but {' and '.join(missing)} is not set; start them with torchrun, or "
            "export the first node's name and a free port"
        )
    cuda = device.startswith("cuda")
    if cuda and local >= torch.cuda.device_count():
        raise InputError(
            f"process {local} of this node has no GPU of its own: {torch.cuda.device_count()} visible; start one "
            "process per GPU"
        )
    place = torch.device("cuda", local) if cuda else torch.device(device)
    if cuda:
        torch.cuda.set_device(place)
    address = f"tcp://{values['MASTER_ADDR']}:{values['MASTER_PORT']}"
    dist.init_process_group("nccl" if cuda else "gloo", init_method=address, rank=rank, world_size=size)
    try:
        yield World(rank, size, place)
    finally:
        dist.destroy_process_group()
