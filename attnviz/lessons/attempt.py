"""A reader's function, tried: on copies of its arguments, for a limited time, without a trace."""

import copy
import ctypes
import io
import random
import sys
from _thread import LockType, allocate_lock, start_new_thread
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, redirect_stdout
from dataclasses import dataclass
from functools import partial
from itertools import islice
from threading import get_ident
from time import sleep
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

SECONDS = 5.0  # for one input; a right answer takes a few milliseconds
_MOST = 100_000  # things that are taken from a generator
_PATIENT = 50  # exceptions that are raised with pauses between them
_MOST_PRINTED = 2_000  # characters
_LONGEST = 160  # characters of a value that are quoted


@dataclass(frozen=True)
class Remark:
    """What a function did instead of returning a result."""

    text: str


@dataclass(frozen=True)
class Endless(Remark):
    """It did not come to an end, and was stopped."""


class _Stop(BaseException):
    """What stops an attempt; no Exception, so that `except Exception` lets it through."""


def tried(
    function: Callable, case: tuple, seconds: float | None = None, aloud: bool = False
) -> Any:
    """What a function makes of a deep copy of the arguments.

    seconds: how long it may take; otherwise `SECONDS`.   aloud: whether what it prints is shown.
    Its result, the exception that it raised, `...` from a stub, or a `Remark`. What it has changed
    of its arguments, of the random numbers or of torch's settings is as it was.
    """
    given, printed = copy.deepcopy(case), io.StringIO()
    try:
        with _settings_kept(), redirect_stdout(printed):
            result = _in_time(lambda: _whole(function(*given)), seconds or SECONDS)
    except _Stop:
        asked = " for " + ", ".join(map(quote, case)) if case else ""
        return Endless(f"it did not come to an end{asked}, and was stopped.")
    except (Exception, SystemExit) as error:  # whatever the reader's code raises is a finding
        return ... if _is_stub(error) else error
    finally:
        if aloud:
            print(printed.getvalue()[:_MOST_PRINTED], end="")
    if result is ...:
        return result
    if not _alike(list(given), list(case)):
        return Remark("it changed its argument in place; make a new object instead.")
    if result is None and printed.getvalue():
        return Remark("it printed something, but returned nothing: write return, not print.")
    if result is None:
        return Remark("it returned nothing: does it end with a return?")
    return result


def is_result(outcome: Any) -> bool:
    """Whether a function returned something that can be judged."""
    return outcome is not ... and not isinstance(outcome, BaseException | Remark)


def said(outcome: BaseException | Remark, who: str = "it") -> str:
    """What there is to say where there is no result; who did it, for the message."""
    if isinstance(outcome, BaseException):
        return f"{who} raised {type(outcome).__name__}: {outcome}"
    return f"{who}{outcome.text.removeprefix('it')}"


def quote(value: object) -> str:
    """A value as a message names it."""
    if isinstance(value, Tensor) and value.numel() > 12:
        return f"a tensor {tuple(value.shape)}"
    if isinstance(value, nn.Module):
        return f"a {type(value).__name__.strip('_')}"
    if isinstance(value, list | tuple) and any(map(callable, value)):
        return f"[{', '.join(map(quote, value))}]"
    text = getattr(value, "__name__", None) or repr(value)
    return text if len(text) <= _LONGEST else f"{text[: _LONGEST - 1]}…"


def _is_stub(error: BaseException) -> bool:
    """Whether it is a bare `raise NotImplementedError`: torch raises it, too, but with a text."""
    return type(error) is NotImplementedError and not error.args


def _whole(result: Any) -> Any:
    """A generator's results, at once: what it does is part of the attempt."""
    if not hasattr(result, "__next__"):
        return result
    found = list(islice(result, _MOST))
    if len(found) == _MOST:
        raise _Stop
    return found


def _in_time(run: Callable[[], Any], seconds: float) -> Any:
    """What run returns; raises _Stop where it takes longer, in whatever line it then is.

    Python can raise an exception in another thread on every system, where signals cannot. It is
    raised again and again, as most lines may stand in a `try` that catches everything; sooner or
    later it comes between two of these. No lock that is written in Python (an Event, a Thread's
    own) may be held meanwhile: the exception could come while it is being taken or given back.
    """
    running, left, ended = [True], [], allocate_lock()
    ended.acquire()

    def settle() -> None:
        if ended.locked():
            ended.release()
        while not left:
            sleep(0)
        sleep(0)  # here, at the latest, comes one that is on its way

    try:
        _start(partial(_raise_after, seconds, get_ident(), running, left, ended), left)
        return run()
    finally:
        del running[:]  # nothing before this looks for exceptions; then one more may be on its way
        try:
            settle()
        except _Stop:
            settle()


def _start(watch: Callable[[], None], left: list) -> None:
    try:
        start_new_thread(watch, ())
    except RuntimeError:  # the system has no more threads
        left.append(True)
        raise


def _raise_after(seconds: float, thread: int, running: list, left: list, ended: LockType) -> None:
    """Raise _Stop in a thread when the time is up, until running is empty; say so in left.

    At first with pauses, in which the thread can leave; then without, and threads take turns often.
    """
    usual, raised = sys.getswitchinterval(), 0
    try:
        pause = seconds
        while not ended.acquire(timeout=pause) and running:
            ctypes.pythonapi.PyThreadState_SetAsyncExc(
                ctypes.c_ulong(thread), ctypes.py_object(_Stop)
            )
            raised += 1
            pause = 0.01 if raised < _PATIENT else 0
            if raised == _PATIENT:
                sys.setswitchinterval(1e-6)
    finally:
        sys.setswitchinterval(usual)
        left.append(True)


@contextmanager
def _settings_kept() -> Iterator[None]:
    """Put random numbers and torch's settings back afterwards."""
    of_numpy, of_python = np.random.get_state(), random.getstate()
    gradients, dtype = torch.is_grad_enabled(), torch.get_default_dtype()
    with torch.random.fork_rng(devices=[]):
        try:
            yield
        finally:
            np.random.set_state(of_numpy)
            random.setstate(of_python)
            torch.set_grad_enabled(gradients)
            torch.set_default_dtype(dtype)


def _alike(one: Any, other: Any) -> bool:
    """Whether two arguments hold the same; of a model, whether its weights do."""
    if type(one) is not type(other):
        return False
    if isinstance(one, Tensor):
        return one.shape == other.shape and one.dtype == other.dtype and _equal(one, other)
    if isinstance(one, np.ndarray):
        return _alike(one.tolist(), other.tolist())
    if isinstance(one, nn.Module):
        return _alike(dict(one.state_dict()), dict(other.state_dict()))
    if isinstance(one, Mapping):
        return one.keys() == other.keys() and all(_alike(one[key], other[key]) for key in one)
    if isinstance(one, list | tuple):
        return len(one) == len(other) and all(map(_alike, one, other))
    if isinstance(one, str | bytes | int | float | complex | set | frozenset):
        return one == other or one != one  # nan stays nan
    return True  # functions, generators and what else is not compared


def _equal(one: Tensor, other: Tensor) -> bool:
    return bool(((one == other) | ((one != one) & (other != other))).all())
