"""Everything that training needs to go on as if it had never stopped, in one file."""

import warnings
from math import isfinite
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from attnviz import files
from attnviz.training import processes

_PARTS = ["model", "optimizer", "optimizer_class", "random", "state", "origin"]
_AS_LARGE = {"exp_avg", "exp_avg_sq", "max_exp_avg_sq", "momentum_buffer"}  # as the parameter


def save(
    path: Path,
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    state: dict[str, list[float]],
    origin: dict | None = None,
) -> None:
    """Write a checkpoint; the one that was there stays until the new one is complete.

    state:  "losses" and "seconds", a number for each step so far.
    origin: what must be the same when training goes on, by name.
    Of several processes all must call it; the first writes.
    Raises FileExistsError for a file that is no checkpoint, OSError for what cannot be written.
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
    with files.replacing(path, _is_one) as unfinished:
        torch.save(everything, unfinished)


def check(path: Path) -> None:
    """Raise now what `save` and the reading in `load` would raise later.

    ValueError for a file that is no checkpoint, OSError for what cannot be written.
    """
    if path.exists():
        _read(path, mmap=True)
    if processes.is_first():
        files.check(path, _is_one)


def _is_one(path: Path) -> bool:
    """Whether a file looks like a checkpoint; quick, as it is asked before each one."""
    return files.holds(path, b"optimizer_class")


def steps_done(path: Path) -> int:
    """How many steps a checkpoint has behind it, 0 where there is none.

    Raises ValueError for a file that is no checkpoint.
    """
    return len(_read(path, mmap=True)["state"]["losses"]) if path.exists() else 0


def load(
    path: Path, model: nn.Module, optimizer: torch.optim.Optimizer, origin: dict | None = None
) -> dict[str, list[float]]:
    """Put a checkpoint into a model, its optimizer and the random generators; return its state.

    Raises ValueError for a file that is no checkpoint, or one of another model, optimizer or
    origin; then nothing has changed.
    """
    everything = _read(path)
    model = processes.unwrapped(model)
    _check_weights(path, everything["model"], model)
    _check_origin(path, everything["origin"], origin or {})
    random = processes.own(everything["random"])
    _load_optimizer(path, everything, optimizer)  # leaves it as it is when it refuses
    model.load_state_dict(everything["model"])
    if random:
        torch.set_rng_state(random["cpu"])
        if "cuda" in random and torch.cuda.is_available():
            torch.cuda.set_rng_state_all(random["cuda"][: torch.cuda.device_count()])
        elif torch.accelerator.is_available():
            device = torch.accelerator.current_accelerator()
            if device.type in random:
                torch.get_device_module(device).set_rng_state(random[device.type])
    return everything["state"]


def _read(path: Path, mmap: bool = False) -> dict[str, Any]:
    """What a checkpoint holds, each part of the kind that it must be.

    mmap: leave the weights in the file, which must then not be written to.
    """
    unreadable = (
        f"{path} is not a checkpoint that can be read: choose another name, or move it away "
        "to train from the beginning"
    )
    if not path.is_file():
        raise ValueError(unreadable)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            everything = torch.load(path, map_location="cpu", weights_only=True, mmap=mmap)
    except Exception:  # torch raises whatever the broken file makes it stumble over,
        raise ValueError(unreadable) from None  # and advises to run the code of strangers
    if not isinstance(everything, dict) or everything.keys() != set(_PARTS):
        raise ValueError(unreadable)
    for name, is_right in _RIGHT.items():
        if not is_right(everything[name]):
            raise ValueError(f"{unreadable}: its part {name!r} is damaged")
    return everything


def _is_state(state: Any) -> bool:
    """Whether it is losses and seconds, as many finite numbers of both."""
    if not isinstance(state, dict) or state.keys() != {"losses", "seconds"}:
        return False
    losses, seconds = state["losses"], state["seconds"]
    if not isinstance(losses, list) or not isinstance(seconds, list) or len(losses) != len(seconds):
        return False
    return all(type(n) in (int, float) and isfinite(n) for n in [*losses, *seconds])


def _is_random(random: Any) -> bool:
    """Whether it is a list of states that the generators take, one for each process."""
    try:
        for one in random:
            torch.Generator().set_state(one["cpu"])
            for state in one.get("cuda", []) if torch.cuda.is_available() else []:
                torch.Generator("cuda").set_state(state)
    except (AttributeError, KeyError, RuntimeError, TypeError):
        return False
    return isinstance(random, list) and len(random) > 0


def _are_weights(weights: Any) -> bool:
    return isinstance(weights, dict) and all(isinstance(w, Tensor) for w in weights.values())


_RIGHT = {
    "model": _are_weights,
    "optimizer": lambda moments: isinstance(moments, dict),
    "optimizer_class": lambda name: isinstance(name, str),
    "random": _is_random,
    "state": _is_state,
    "origin": lambda origin: isinstance(origin, dict),
}


def _check_weights(path: Path, weights: dict[str, Tensor], model: nn.Module) -> None:
    there, here = _shapes(weights), _shapes(model.state_dict())
    for name in [*there, *here]:
        if there.get(name) != here.get(name):
            raise ValueError(
                f"{path} is of another model: {name} is {there.get(name, 'missing')} in the file "
                f"and {here.get(name, 'missing')} in the model"
            )
        if not weights[name].isfinite().all():
            raise ValueError(f"{path} is damaged: {name} must hold finite numbers alone")


def _check_origin(path: Path, its: dict[str, Any], origin: dict[str, Any]) -> None:
    for name in [*its, *origin]:
        if its.get(name) != origin.get(name):
            raise ValueError(
                f"{path} is of another training: {name} was {its.get(name)!r} there and is "
                f"{origin.get(name)!r} here"
            )


def _load_optimizer(
    path: Path, everything: dict[str, Any], optimizer: torch.optim.Optimizer
) -> None:
    """Raise ValueError for the moments of another optimizer; it then stays as it was."""
    if everything["optimizer_class"] != type(optimizer).__name__:
        raise ValueError(f"{path} is of another optimizer: {everything['optimizer_class']}")
    before, groups = optimizer.state_dict(), [dict(group) for group in optimizer.param_groups]
    try:
        optimizer.load_state_dict(everything["optimizer"])
        _check_groups(groups, optimizer.param_groups)
        for part in getattr(optimizer, "parts", [optimizer]):
            _check_moments(part.state)
    except Exception as error:  # anything at all, as optimizers do not look at what they are given
        optimizer.load_state_dict(before)
        raise ValueError(f"{path} is of another optimizer: {error}") from error


def _check_groups(before: list[dict[str, Any]], after: list[dict[str, Any]]) -> None:
    for old, new in zip(before, after, strict=True):
        for name, value in new.items():
            wanted = old["lr"] if name == "full_lr" else old.get(name)
            if None not in (wanted, value) and name != "params" and _form(wanted) != _form(value):
                raise ValueError(f"{name} is {value!r} in the file and {wanted!r} here")


def _form(value: Any) -> Any:
    """What must be the same of two options: that they are numbers, or several, or of one class."""
    if isinstance(value, list | tuple):
        return [_form(one) for one in value]
    if isinstance(value, int | float | Tensor):
        return "a number" if isfinite(value) else "no number"
    return type(value)


def _check_moments(state: dict[Tensor, dict[str, Any]]) -> None:
    for parameter, kept in state.items():
        for name, value in kept.items():
            shape = tuple(value.shape) if isinstance(value, Tensor) else ()
            if name in _AS_LARGE and value is not None and shape != tuple(parameter.shape):
                raise ValueError(f"{name} is {shape} for a parameter {tuple(parameter.shape)}")
            if name == "step" and _form(value) != "a number":
                raise ValueError(f"step is {value!r}")
            if isinstance(value, Tensor) and not value.isfinite().all():
                raise ValueError(f"{name} must hold finite numbers alone")


def _shapes(weights: dict[str, Tensor]) -> dict[str, tuple[int, ...]]:
    return {name: tuple(part.shape) for name, part in weights.items()}
