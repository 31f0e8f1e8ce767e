"""Everything that training needs to go on as if it had never stopped, in one file."""

import os
from pathlib import Path
from typing import Any

import torch
from torch import nn

from attnviz.training import processes


def save(
    path: Path,
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    state: dict,
    origin: dict | None = None,
) -> None:
    """Write a checkpoint; the file that was there stays until the new one is complete.

    state:  numbers and lists of numbers, such as the step and the losses so far.
    origin: what must be the same when training goes on, by name.
    Of several processes all must call it; the first writes.
    """
    random = {"cpu": torch.get_rng_state()}
    if torch.cuda.is_available():
        random["cuda"] = torch.cuda.get_rng_state_all()
    elif torch.accelerator.is_available():  # one of another make, such as Apple's
        device = torch.accelerator.current_accelerator()
        random[device.type] = torch.get_device_module(device).get_rng_state()
    random = processes.gathered(random)
    if not processes.is_first():
        return
    everything = {
        "model": processes.unwrapped(model).state_dict(),
        "optimizer": optimizer.state_dict(),
        "optimizer_class": type(optimizer).__name__,
        "random": random,
        "state": state,
        "origin": origin or {},
    }
    unfinished = path.with_name(f"{path.name}.{os.getpid()}.unfinished")
    try:
        torch.save(everything, unfinished)
        unfinished.replace(path)
    finally:
        unfinished.unlink(missing_ok=True)


def load(
    path: Path, model: nn.Module, optimizer: torch.optim.Optimizer, origin: dict | None = None
) -> dict[str, Any]:
    """Put a checkpoint into a model, its optimizer and the random generators; return its state.

    Raises ValueError for a file that is no checkpoint, or one of another model, optimizer or
    origin; then nothing has changed.
    """
    names = ["model", "optimizer", "optimizer_class", "random", "state", "origin"]
    try:
        everything = torch.load(path, map_location="cpu", weights_only=True)
        weights, moments, optimizer_class, random, state, its = (everything[n] for n in names)
    except Exception as error:  # torch raises whatever the broken file makes it stumble over
        raise ValueError(f"{path} is not a checkpoint that can be read: {error}") from error
    model = processes.unwrapped(model)
    there, here = _shapes(weights), _shapes(model.state_dict())
    for name in [*there, *here]:
        if there.get(name) != here.get(name):
            raise ValueError(
                f"{path} is of another model: {name} is {there.get(name, 'missing')} in the file "
                f"and {here.get(name, 'missing')} in the model"
            )
    origin = origin or {}
    for name in [*its, *origin]:
        if its.get(name) != origin.get(name):
            raise ValueError(
                f"{path} is of another training: {name} was {its.get(name)!r} there and is "
                f"{origin.get(name)!r} here"
            )
    if optimizer_class != type(optimizer).__name__:
        raise ValueError(f"{path} is of another optimizer: {optimizer_class}")
    try:
        optimizer.load_state_dict(moments)
    except ValueError as error:  # parameters in other groups
        raise ValueError(f"{path} is of another optimizer: {error}") from error
    model.load_state_dict(weights)
    if random := processes.own(random):
        torch.set_rng_state(random["cpu"])
        if "cuda" in random and torch.cuda.is_available():
            torch.cuda.set_rng_state_all(random["cuda"][: torch.cuda.device_count()])
        elif torch.accelerator.is_available():
            device = torch.accelerator.current_accelerator()
            if device.type in random:
                torch.get_device_module(device).set_rng_state(random[device.type])
    return state


def _shapes(weights: dict[str, Any]) -> dict[str, tuple[int, ...]]:
    return {name: tuple(part.shape) for name, part in weights.items()}
