"""Which modules of a model are running, and where one pass ends and the next begins."""

from itertools import count
from types import CodeType, FrameType
from typing import Any

from torch import Tensor, nn

_number = count(1).__next__


class Running:
    """A module that is running: because it was called, or because one of its methods runs.

    frame:     the Python frame of the call or the method; it is over when this no longer runs.
    called:    whether it was called, so that its hooks ran.
    arguments: of the method.
    changed:   whether one in it was edited.
    inner:     attentions in it and in the modules inside it.
    """

    __slots__ = ("_number", "arguments", "called", "changed", "frame", "inner", "module")

    def __init__(self, module: nn.Module, frame: FrameType, arguments: tuple | None = None):
        self.module, self.frame = module, frame
        self.called, self.arguments = arguments is None, arguments
        self.changed, self.inner, self._number = False, 0, 0

    @property
    def number(self) -> int:
        """One of its own, unlike that of any other."""
        self._number = self._number or _number()
        return self._number


class Passes:
    """The modules that are running, and the attentions of the running pass.

    One call of the model is one pass. Where its parts are called instead, by one of its methods or
    by hand, a pass lasts until one of its attentions would run again. It may do so within a part;
    or where the same run of a method calls parts again for as many tokens, as for layers that share
    their parameters.
    """

    def __init__(self, model: nn.Module, paths: dict[int, str], owners: set[str]):
        self.numbers = count()  # of the passes
        self.stack: list[Running] = []
        self.number, self.index = -1, 0
        self._model, self._paths, self._owners = model, paths, owners
        self._whole: int | None = None  # the call of the model that makes the running pass
        self._met: dict[str, tuple] = {}  # by path: in which part, called by which run, and sizes

    def begin(self, module: nn.Module, frame: FrameType) -> Running:
        """A module is called, in this frame, from which all was settled."""
        running = Running(module, frame)
        if not (self.stack and self.stack[-1].called):
            if module is self._model:
                self._begin_pass(running.number)
            else:
                self.look_for_method(frame)
        self.stack.append(running)
        return running

    def end(self, frame: FrameType) -> Running | None:
        """The call in this frame is over; returns what ran, if it was seen to begin."""
        if self.stack[-1].frame is frame:
            return self.stack.pop()
        for depth in range(len(self.stack) - 1, -1, -1):
            if self.stack[depth].frame is frame:
                running = self.stack[depth]
                del self.stack[depth:]  # what is above it was interrupted
                return running
        return None

    def settle(self, frame: FrameType) -> None:
        """Forget what no longer runs, seen from a frame: methods that returned, and interruptions.

        Hooks are not called when an interruption, such as KeyboardInterrupt, ends a module.
        """
        while self.stack:
            inner, outer = frame, self.stack[-1].frame
            while inner is not None and inner is not outer:
                inner = inner.f_back
            if inner is not None:
                return
            self.stack.pop()

    def look_for_method(self, frame: FrameType) -> None:
        """Note the innermost running method of a module of the model, unless it is noted."""
        known = self.stack[-1] if self.stack else None
        while frame is not None and (known is None or frame is not known.frame):
            if known is not None and known.called and _is_method_of(known.module, frame.f_code):
                return
            module = self._module_of_method(frame)
            if module is not None and id(module) in self._paths:
                self.stack.append(Running(module, frame, _arguments(frame)))
                return
            frame = frame.f_back

    def _module_of_method(self, frame: FrameType) -> nn.Module | None:
        """The module whose method runs in a frame, if one does.

        Locals are asked for as late as can be, as Python then keeps a copy while the frame runs.
        """
        code = frame.f_code
        if _owner(code) not in self._owners or not code.co_argcount or code.co_name == "__call__":
            return None
        module = frame.f_locals.get(code.co_varnames[0])
        return module if isinstance(module, nn.Module) and _is_method_of(module, code) else None

    def attend(self, path: str, sizes: tuple[int, int]) -> None:
        """An attention of so many queries and keys is about to run: it may begin a pass."""
        part, caller = self._part()
        whole = part.number if part.module is self._model and part.called else None
        met = self._met.get(path)
        again = met is not None and met[0] != part.number and met[1:] != (caller, sizes)
        if self.number < 0 or whole != self._whole or again:
            self._begin_pass(whole)
        self._met[path] = (part.number, caller, sizes)

    def _begin_pass(self, whole: int | None) -> None:
        self.number, self.index, self._whole = next(self.numbers), 0, whole
        self._met.clear()

    def _part(self) -> tuple[Running, int]:
        """The outermost call that is running, and the number of the run of a method around it.

        What a method attends to itself is a part of its own. A module that one of its own methods
        calls, as where text is generated, is called by a new run each time.
        """
        part = next((running for running in self.stack if running.called), self.stack[-1])
        place = self.stack.index(part)
        around = self.stack[place - 1] if place and part.called else part
        return part, part.number if around.module is part.module else around.number


def _owner(code: CodeType) -> str:
    """The class in which code was written, or a like name for a function that is no method."""
    return code.co_qualname.rpartition(".")[0]


def _is_method_of(module: nn.Module, code: CodeType) -> bool:
    """Whether code belongs to a method of such a module."""
    owner = _owner(code)
    return any(kind.__qualname__ == owner for kind in type(module).__mro__)


def _arguments(frame: FrameType) -> tuple[Any, ...]:
    """The tensors that a method was given."""
    code = frame.f_code
    names = code.co_varnames[1 : code.co_argcount + code.co_kwonlyargcount]
    given = [frame.f_locals.get(name) for name in names]
    return tuple(t for t in given if isinstance(t, Tensor))
