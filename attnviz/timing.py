"""How long things take, compared fairly: all sides in turn, so that a busy moment hits them all;
and how much memory they take."""

import math
import os
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from statistics import median
from typing import Any

import torch
from torch.profiler import profile

from attnviz.checks import check_whole


class Seconds(list[float]):
    """How long each round of one side took, in seconds."""

    @property
    def p50(self) -> float:
        """The median."""
        return median(self)

    @property
    def p95(self) -> float:
        """What 95 % of the rounds did not exceed."""
        return sorted(self)[math.ceil(0.95 * len(self)) - 1]

    def __repr__(self) -> str:
        return f"{1000 * self.p50:.3g} ms (p95 {1000 * self.p95:.3g} ms, {len(self)} rounds)"


def timeit(
    sides: Mapping[str, Callable[[], Any]], rounds: int = 10, warm_up: int = 1
) -> dict[str, Seconds]:
    """Run several functions in turn, again and again, and time each call.

    sides:   the functions, by name; what they return is dropped.
    rounds:  how often each is timed.   warm_up: how often each is run before, untimed.
    On a GPU each call is waited for to its end. Returns the times of each side; their `p50` is the
    median.
    Raises ValueError without sides or rounds; TypeError for what are no functions by name, or no
    whole numbers.
    """
    _check_sides(sides)
    rounds, warm_up = check_whole("rounds", rounds), check_whole("warm_up", warm_up)
    if not sides or rounds < 1 or warm_up < 0:
        raise ValueError(
            f"sides must not be empty, rounds at least 1 and warm_up at least 0, got {len(sides)} "
            f"sides, rounds={rounds}, warm_up={warm_up}"
        )
    taken = {name: Seconds() for name in sides}
    for i in range(warm_up + rounds):
        for name, run in sides.items():
            seconds = _seconds(run)
            if i >= warm_up:
                taken[name].append(seconds)
    return taken


def _check_sides(sides: object) -> None:
    if not isinstance(sides, Mapping):
        raise TypeError(
            f"sides must be functions by name, such as {{'mine': f}}, got {type(sides).__name__}"
        )
    for name, run in sides.items():
        _check_function(f"sides[{name!r}]", run)


def _check_function(name: str, given: object) -> None:
    if not callable(given):
        raise TypeError(f"{name} must be a function, got {given!r}")


def _seconds(run: Callable[[], Any]) -> float:
    _wait()
    begun = time.perf_counter()
    run()
    _wait()
    return time.perf_counter() - begun


def _wait() -> None:
    """Until a GPU has done all that was asked of it: calls return before their work is done."""
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    elif torch.backends.mps.is_available():
        torch.mps.synchronize()


def most_memory(run: Callable[[], Any]) -> int:
    """The most bytes that tensors take at one time while run() goes on, beyond what was there.

    run: a function without arguments; what it returns is dropped.
    Counted are torch's own allocations, those inside of its kernels too, on the GPU where there is
    one, else on the CPU.
    Raises TypeError for what is no function.
    """
    _check_function("run", run)
    if torch.cuda.is_available():
        torch.cuda.synchronize()
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        run()
        torch.cuda.synchronize()
        return torch.cuda.max_memory_allocated() - before
    with _unheard(), profile(profile_memory=True) as seen:
        run()
    events = sorted(seen.profiler.kineto_results.events(), key=lambda event: event.start_ns())
    bytes_now = most = 0
    for event in events:
        if event.name() == "[memory]":
            bytes_now += event.nbytes()
            most = max(most, bytes_now)
    return most


@contextmanager
def _unheard() -> Iterator[None]:
    """Without what C++ writes to the standard error: the profiler says there when it starts."""
    saved, nowhere = os.dup(2), os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 2)
    try:
        yield
    finally:
        os.dup2(saved, 2)
        os.close(saved)
        os.close(nowhere)
