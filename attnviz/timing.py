"""How long things take, compared fairly: all sides in turn, so that a busy moment hits them all."""

import math
import time
from collections.abc import Callable, Mapping
from statistics import median
from typing import Any

import torch


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
    Raises ValueError without sides or rounds.
    """
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
