"""What several processes that train one model must agree on; with one process, nothing."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
import torch.distributed as dist
from torch import nn


def is_first() -> bool:
    """Whether this process is the only one, or the first of several."""
    return place() == 0


def number() -> int:
    """How many processes train together."""
    return dist.get_world_size() if _several() else 1


def place() -> int:
    """Which of them this is, from 0."""
    return dist.get_rank() if _several() else 0


def check_wrapped(model: nn.Module) -> None:
    """Raise ValueError where several processes would each train a model of their own."""
    if _several() and not isinstance(model, nn.parallel.DistributedDataParallel):
        raise ValueError(
            f"{number()} processes train together: wrap the model in DistributedDataParallel, "
            f"got {type(model).__name__}"
        )


def agree(
    loss: float, elapsed: float, stopped: bool, device: torch.device
) -> tuple[float, float, bool]:
    """The mean loss of all processes, the seconds of the first, and whether any wants to stop."""
    if not _several():
        return loss, elapsed, stopped
    numbers = [loss / number(), elapsed if is_first() else 0.0, float(stopped)]
    shared = torch.tensor(numbers, dtype=torch.float64, device=device)
    dist.all_reduce(shared)
    loss, elapsed, stopped = shared.tolist()
    return loss, elapsed, stopped > 0


def of_the_first(number: float, device: torch.device) -> float:
    """The first process's number, in all of them."""
    return agree(0.0, number, False, device)[1]


def gathered(one: object) -> list[object]:
    """What all processes have, in their order."""
    if not _several():
        return [one]
    everyone = [None] * number()
    dist.all_gather_object(everyone, one)
    return everyone


def own(everyone: list) -> object | None:
    """This process's part of what was gathered, or None if there were fewer processes then."""
    return everyone[place()] if place() < len(everyone) else None


@contextmanager
def apart(model: nn.Module, *, apart: bool) -> Iterator[None]:
    """Keep gradients to each process while more of them are to be added up."""
    if apart and isinstance(model, nn.parallel.DistributedDataParallel):
        with model.no_sync():
            yield
    else:
        yield


def unwrapped(model: nn.Module) -> nn.Module:
    """The model itself, without what several processes or the compiler put around it."""
    while isinstance(model, nn.parallel.DistributedDataParallel) or hasattr(model, "_orig_mod"):
        model = model._orig_mod if hasattr(model, "_orig_mod") else model.module
    return model


def _several() -> bool:
    return dist.is_available() and dist.is_initialized() and dist.get_world_size() > 1
