"""When a door is open, for what runs where, and how it is shut in whatever order.

A torch function mode is one of its thread's, and must be shut there; contexts tell the
asynchronous tasks of a thread apart.
"""

import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar, Token
from dataclasses import dataclass
from threading import get_ident
from types import MappingProxyType
from typing import Any, Protocol

import torch
from torch import nn
from torch.overrides import (
    TorchFunctionMode,
    _get_current_function_mode_stack,
    _pop_mode,
    _push_mode,
)
from torch.utils.hooks import RemovableHandle

from attnviz.seeing.account import is_unseen
from attnviz.seeing.facts import KnownModel
from attnviz.seeing.naming import within
from attnviz.seeing.passes import Passes, Running
from attnviz.seeing.recomputing import Past
from attnviz.seeing.record import AttentionRecord, Change

_number_of_backward = torch._C._current_graph_task_id  # -1 where none runs


# Those that hear what runs in this thread or asynchronous task, by the ids of their models.
open_doors: ContextVar[Mapping[int, "Entrance"]] = ContextVar(
    "open_doors", default=MappingProxyType({})
)


class Listener(Protocol):
    """A capture or an edit."""

    edits: bool
    with_gradients: bool

    def changes(self, index: int, path: str, heads: int) -> dict[int, Change]: ...
    def hear(self, record: AttentionRecord) -> None: ...
    def miss(self, path: str, reason: str) -> None: ...


@dataclass(eq=False)
class Block:
    """A `with` block in which a listener hears.

    ran:       whether the model or a part of it ran where it can be heard.
    elsewhere: where it ran otherwise, if it did.
    """

    door: "Entrance"
    listener: Listener
    over: bool = False
    ran: bool = False
    elsewhere: str | None = None


class Entrance(TorchFunctionMode):
    """Of a door: hears what one model runs in one thread or task, while it is open.

    known: about the model.
    past:  what it listens with to what runs again in backward(), which no other hears.
    """

    def __init__(self, model: nn.Module, known: KnownModel, past: Past | None = None):
        super().__init__()
        self.model, self.known, self.past = model, known, past
        self.paths = known.paths
        self.key = id(model)
        self.blocks: list[Block] = []
        self.thread: int | None = get_ident()  # none when it is shut
        self.mark: Token | None = None  # of the context in which it was opened
        self.hooks: tuple[RemovableHandle, ...] = ()
        self.apart: list[str] = []  # modules that ran in another thread than the pass around them
        self.passes = Passes(model, self.paths, known.owners)
        self.stack = self.passes.stack

    def enter(self, module: nn.Module, args: tuple) -> None:
        """Called before each module's forward."""
        raise NotImplementedError

    def leave(self, module: nn.Module, args: tuple, kwargs: dict | None, output: Any = None) -> Any:
        """Called after each module's forward; may replace its output."""
        raise NotImplementedError

    def forget(self) -> None:
        """Let go of what is followed."""
        raise NotImplementedError

    @property
    def listeners(self) -> list[Listener]:
        return [block.listener for block in self.blocks if not block.over]

    def open(self) -> None:
        """Begin to hear."""
        _take_away_shut_doors()
        of_every_module = nn.modules.module
        self.hooks = (
            of_every_module.register_module_forward_pre_hook(self.enter),
            of_every_module.register_module_forward_hook(
                self.leave, with_kwargs=True, always_call=True
            ),
        )
        _push_mode(self)

    def shut(self) -> None:
        """Hear no more, also when other modes were entered since and are still there."""
        self.thread = None
        self.blocks.clear()  # a graph that runs parts again may keep the door
        for hook in self.hooks:
            hook.remove()
        self.stack.clear()
        self.forget()
        _take_away_shut_doors()

    @contextmanager
    def running_again(self, past: Past, around: Running) -> Iterator[None]:
        """A block in which a part runs again as it did around there, and no other hears it."""
        again = type(self)(self.model, self.known, past)
        again.stack.append(around)
        again.blocks.append(Block(again, past))
        others = {model: door for model, door in open_doors.get().items() if door.past}
        before = open_doors.set({**others, self.key: again})
        again.open()
        try:
            yield
        finally:
            again.shut()
            open_doors.reset(before)

    def hears(self) -> bool:
        """Whether what runs now is for this door to hear."""
        return (
            get_ident() == self.thread
            and open_doors.get().get(self.key) is self
            and (_number_of_backward() == -1 or self.past is not None)
            and not is_unseen()
        )

    def note_run(self) -> None:
        """Tell the blocks that the model runs where they hear it."""
        for block in self.blocks:
            block.ran = True

    def note_elsewhere(self, path: str) -> None:
        """Tell the blocks that a module runs where they do not hear it, unless it runs again."""
        if get_ident() != self.thread:
            place = f"in the thread {threading.current_thread().name!r}"
        elif self.key not in open_doors.get():
            place = "in another asynchronous task"
        else:
            return
        for block in self.blocks:
            block.elsewhere = place
        if not self.stack or self.key in open_doors.get():
            return
        if not any(
            within(known, path) for known in self.apart
        ):  # a part of the pass that runs here
            self.apart.append(path)
            for listener in self.listeners:
                listener.miss(path, f"it ran {place}, and the block hears one thread")


def _take_away_shut_doors() -> None:
    """Take doors that are shut from the modes of this thread, wherever they are among these."""
    modes = _get_current_function_mode_stack()
    if any(isinstance(mode, Entrance) and mode.thread is None for mode in modes):
        for _ in modes:
            _pop_mode()
        for mode in modes:
            if not isinstance(mode, Entrance) or mode.thread is not None:
                _push_mode(mode)
