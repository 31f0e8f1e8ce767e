"""The `with` blocks in which something listens to a model, in whatever order they end."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

from torch import nn
from torch.overrides import _get_current_function_mode_stack

from attnviz.seeing.door import Door
from attnviz.seeing.entrance import Block, Listener, open_doors
from attnviz.seeing.facts import known_model
from attnviz.seeing.visible import refusing

_mark: ContextVar[None] = ContextVar("mark")  # its tokens tell the contexts of two doors apart


@contextmanager
def listening(model: nn.Module, listener: Listener) -> Iterator[Block]:
    """Let a listener hear the attentions of a model in this thread or asynchronous task.

    Raises RuntimeError when the block ends in another thread, or when something else that ended
    before it took its mode away from torch.
    """
    door = _door_to(model)
    _check_others(door, listener)
    block = Block(door, listener)
    door.blocks.append(block)
    try:
        with refusing(door.paths):
            yield block
    except GeneratorExit:  # a generator is closed, which may happen in any thread
        _end(block)
        raise
    except BaseException:
        _end(block, complain=False)
        raise
    _end(block)


def _check_others(door: Door, listener: Listener) -> None:
    """Refuse edits next to other blocks on a part of the model, or on a model that it is part of.

    Neither of the two would know what the other has changed.
    """
    for other in open_doors.get().values():
        edited = listener.edits or any(block.listener.edits for block in other.blocks)
        if other is not door and edited and not door.paths.keys().isdisjoint(other.paths):
            if not door.blocks:
                _shut(door)
            raise ValueError(
                f"a block of edit and another are about a {type(door.model).__name__} and a "
                f"{type(other.model).__name__}, which share modules: open both on the same model, "
                "and name the layers by the paths of their modules"
            )


def _door_to(model: nn.Module) -> Door:
    """The door at which the blocks of this thread or task listen to a model, opened if need be.

    A task that was begun inside a block has a door of its own, at which that block listens too.
    """
    known = open_doors.get().get(id(model))
    if known is not None and known.thread != threading.get_ident():
        known = None
    if known is not None and _is_of_this_context(known):
        return known
    door = Door(model, known_model(model))
    if known is not None:
        door.blocks += known.blocks
        door.passes.numbers = known.passes.numbers
    door.mark = _mark.set(None)
    open_doors.set({**open_doors.get(), id(model): door})
    door.open()
    return door


def _is_of_this_context(door: Door) -> bool:
    """Whether a door was opened in this task, not in one that this task was begun from."""
    try:
        _mark.reset(door.mark)
    except ValueError:
        return False
    door.mark = _mark.set(None)
    return True


def _end(block: Block, complain: bool = True) -> None:
    door, thread = block.door, block.door.thread
    here = thread == threading.get_ident()
    taken = here and door not in _get_current_function_mode_stack()
    block.over = True
    door.blocks.remove(block)
    if not any(other.door is door for other in door.blocks):
        _shut(door)
    if not complain:
        return
    if not here:
        raise RuntimeError(
            "a block of capture or edit ended in another thread than it began in, so that part of "
            "it may be lost: let the same thread begin and end it, such as with the whole block "
            "inside the function that the thread runs"
        )
    if taken:
        raise RuntimeError(
            "a block of capture or edit lost sight of the model, as another torch function mode "
            "that began before it ended before it: end that one, with what is in it, after this"
        )


def _shut(door: Door) -> None:
    door.shut()
    if open_doors.get().get(id(door.model)) is door:
        left = {i: other for i, other in open_doors.get().items() if other is not door}
        open_doors.set(left)
