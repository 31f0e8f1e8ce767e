"""Everything that training needs to go on as if it had never stopped, in one file."""

import os
from pathlib import Path
from typing import Any

import torch
from torch import nn


def save(path: Path, model: nn.Module, optimizer: torch.optim.Optimizer, state: dict) -> None:
    """Write a checkpoint; the file that was there stays until the new one is complete.

    state: numbers and lists of numbers, such as the step and the losses so far.
    """
    random = {"cpu": torch.get_rng_state()}
    if torch.cuda.is_available():
        random["cuda"] = torch.cuda.get_rng_state_all()
    everything = {
        "model": model.state_dict(),
        "optimizer": optimizer.state_dict(),
        "random": random,
        "state": state,
    }
    unfinished = path.with_name(f"{path.name}.{os.getpid()}.unfinished")
    try:
        torch.save(everything, unfinished)
        unfinished.replace(path)
    finally:
        unfinished.unlink(missing_ok=True)


def load(path: Path, model: nn.Module, optimizer: torch.optim.Optimizer) -> dict[str, Any]:
    """Put a checkpoint into a model, its optimizer and the random generators; return its state.

    Raises ValueError for a file that is no checkpoint, or one of another model or optimizer.
    """
    try:
        everything = torch.load(path, map_location="cpu", weights_only=True)
        parts = [everything[name] for name in ("model", "optimizer", "random", "state")]
    except Exception as error:  # torch raises whatever the broken file makes it stumble over
        raise ValueError(f"{path} is not a checkpoint that can be read: {error}") from error
    weights, moments, random, state = parts
    try:
        model.load_state_dict(weights)
        optimizer.load_state_dict(moments)
    except (RuntimeError, ValueError, KeyError) as error:
        raise ValueError(f"{path} is of another model or optimizer: {error}") from error
    torch.set_rng_state(random["cpu"])
    if "cuda" in random and torch.cuda.is_available():
        torch.cuda.set_rng_state_all(random["cuda"])
    return state
