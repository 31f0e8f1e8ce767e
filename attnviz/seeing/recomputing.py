"""Parts of a model that run a second time in backward(), under activation checkpointing.

They must run as they did at first: with the same edits, also when the block of the edit is over,
and without being told to listeners again. `torch.utils.checkpoint` has no place for saying so, but
it keeps the function that it will run in an attribute, which is replaced here while that function
runs for the first time.
"""

import inspect
from collections.abc import Callable
from contextlib import AbstractContextManager
from sys import _getframe
from types import FrameType
from typing import Any, NamedTuple, Protocol

import torch
from torch import nn
from torch.autograd.function import FunctionCtx
from torch.utils.checkpoint import CheckpointFunction, checkpoint

from attnviz.seeing.passes import Running
from attnviz.seeing.record import AttentionRecord, Change

_REENTRANT = CheckpointFunction.forward.__code__
_CHECKPOINT = inspect.unwrap(checkpoint).__code__


class Watcher(Protocol):
    """A door."""

    stack: list[Running]

    def running_again(self, past: "Past", around: Running) -> AbstractContextManager: ...


class Attended(NamedTuple):
    """An attention that passed by; with its record, if its weights are yet to be in a graph."""

    path: str
    changes: dict[int, Change]
    record: AttentionRecord | None


class Past:
    """The listener for what runs again: changes what was changed at first, and tells nobody."""

    edits = True

    def __init__(self, attended: list[Attended], with_gradients: bool):
        self.attended, self.with_gradients = attended, with_gradients
        self._done = 0

    def changes(self, index: int, path: str, heads: int) -> dict[int, Change]:
        then = self.attended[self._done] if self._done < len(self.attended) else None
        if then is None or then.path != path:
            raise RuntimeError(
                f"neither edits nor weights in the graph can follow: {path} attends when "
                "activation checkpointing runs it again, but did not, or not then, at first"
            )
        self._done += 1
        return then.changes

    @property
    def first(self) -> AttentionRecord | None:
        """The record of the first run of what attends now."""
        return self.attended[self._done - 1].record

    def hear(self, record: AttentionRecord) -> None:
        """Let the record of the first run have the weights through which gradients flow."""
        first = self.first
        if first is not None:
            record.written_out.grad = first.written_out.grad
            first.written_out = record.written_out

    def miss(self, path: str, reason: str) -> None:
        pass


class _Again:
    """A function that runs again, under what a door then saw and changed.

    around: the module in which it ran.
    """

    def __init__(self, function: Callable, door: Watcher, around: nn.Module, with_gradients: bool):
        self.function, self.door, self.around = function, door, around
        self.with_gradients = with_gradients
        self.attended: list[Attended] = []

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        past, around = Past(self.attended, self.with_gradients), Running(self.around, _getframe())
        with self.door.running_again(past, around):
            return self.function(*args, **kwargs)


_AGAIN = _Again.__call__.__code__


def follow_when_run_again(
    door: Watcher, record: AttentionRecord, first: AttentionRecord | None, with_gradients: bool
) -> None:
    """Remember how a door changes an attention, wherever that will run again in backward().

    first: the record of its first run, if this one is not.
    Raises ValueError where an edit would be wrong then.
    """
    changes = dict(record.changes)
    kept = first if with_gradients and not torch.is_grad_enabled() else None
    frame = _getframe(1)
    while frame is not None and frame.f_code is not _AGAIN:
        keeper = _kept_by_checkpoint(frame)
        if keeper is not None:
            again = _again(*keeper, door, frame, with_gradients)
            again.attended.append(Attended(record.path, changes, kept))
        elif changes:
            _check_function(frame, record.path)
        frame = frame.f_back


def has_graph_later() -> bool:
    """Whether what runs now, without gradients, will run again with them."""
    frame = _getframe(1)
    while frame is not None and frame.f_code is not _AGAIN:
        if frame.f_code is _REENTRANT and frame.f_locals["ctx"].next_functions:
            return True
        frame = frame.f_back
    return False


def _kept_by_checkpoint(frame: FrameType) -> tuple[Any, str] | None:
    """What keeps a running function to run it again, and the name of the attribute."""
    if frame.f_code is _REENTRANT:
        keeper, name = frame.f_locals.get("ctx"), "run_function"
    elif frame.f_code is _CHECKPOINT and not frame.f_locals.get("use_reentrant"):
        began = getattr(frame.f_locals.get("gen"), "gi_frame", None)
        keeper, name = began and began.f_locals.get("new_frame"), "recompute_fn"
    else:
        return None
    if not hasattr(keeper, name):
        raise RuntimeError(
            f"torch {torch.__version__} does not show what activation checkpointing will run again "
            "in backward(), so that edits would be wrong there: switch it off meanwhile"
        )
    return keeper, name


def _again(keeper: Any, name: str, door: Watcher, frame: FrameType, with_gradients: bool) -> _Again:
    """The function that is kept, made one that runs again as this door wants it."""
    function = getattr(keeper, name)
    again = function
    while isinstance(again, _Again):
        if again.door is door:
            return again
        again = again.function
    again = _Again(function, door, _module_around(frame, door.stack), with_gradients)
    setattr(keeper, name, again)
    return again


def _module_around(frame: FrameType | None, stack: list[Running]) -> nn.Module:
    """The innermost module that already ran when a frame began; or the outermost of all."""
    modules = {id(running.frame): running.module for running in stack}
    while frame is not None and id(frame) not in modules:
        frame = frame.f_back
    return stack[0].module if frame is None else modules[id(frame)]


def _check_function(frame: FrameType, path: str) -> None:
    """Refuse to edit in a function that has a backward() of its own, which an edit cannot reach."""
    code = frame.f_code
    if not code.co_argcount or code.co_varnames[0] != "ctx":
        return
    ctx = frame.f_locals.get("ctx")
    if isinstance(ctx, FunctionCtx) and getattr(ctx, "next_functions", ()):
        raise ValueError(
            f"{path} attends inside an autograd function of the model's own, whose backward() an "
            "edit cannot follow: run the model under torch.no_grad()"
        )
