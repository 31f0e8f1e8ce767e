"""Exercises whose checks say what is wrong: they know the mistakes that people make."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from attnviz.lessons.verdict import Verdict

_TOLERANCE = 1e-4


@dataclass(frozen=True)
class Misconception:
    """A mistake that people make.

    says:  what the reader is told when their function behaves just like it.
    wrong: a solution that makes the mistake.
    """

    says: str
    wrong: Callable


@dataclass(frozen=True)
class Exercise:
    """A function to write, and what is known about getting it wrong.

    name:           what the function is called in the lesson.
    reference:      the right function.
    cases:          lists of arguments to try it on; the first should make the best picture.
    misconceptions: the mistakes to recognise, the most telling first.
    first_step:     what to try first, said while the exercise is unsolved.
    Call it with the reader's function to get a `Verdict`.
    """

    name: str
    reference: Callable
    cases: tuple[tuple, ...]
    misconceptions: tuple[Misconception, ...]
    first_step: str

    def __call__(self, attempt: Callable) -> Verdict:
        """Run the reader's function on every case and say what it gets wrong.

        Returns a verdict: passed, not yet (still a stub) or wrong, with the reason.
        Raises TypeError when attempt cannot be called.
        """
        if attempt is ...:
            return self._not_yet()
        if not callable(attempt):
            raise TypeError(
                f"the check of {self.name} takes your function, got {type(attempt).__name__}"
            )
        yours = [_outcome(attempt, case) for case in self.cases]
        if any(_is_unsolved(outcome) for outcome in yours):
            return self._not_yet()
        right = [_outcome(self.reference, case) for case in self.cases]
        failed = [i for i in range(len(yours)) if not _same(yours[i], right[i])]
        if not failed:
            return Verdict(self.name, "passed", f"right on all {len(self.cases)} inputs.")
        reason = self._diagnose(yours) or _describe(yours[failed[0]], right[failed[0]])
        return Verdict(self.name, "wrong", reason, yours[failed[0]], right[failed[0]])

    def _not_yet(self) -> Verdict:
        return Verdict(self.name, "not yet", f"the function is still a stub. {self.first_step}")

    def _diagnose(self, yours: list[Any]) -> str | None:
        for misconception in self.misconceptions:
            theirs = (_outcome(misconception.wrong, case) for case in self.cases)
            if all(_same(a, b) for a, b in zip(yours, theirs, strict=True)):
                return misconception.says
        return None


def _outcome(function: Callable, case: tuple) -> Any:
    """What a function makes of copies of the arguments: an array, or the exception it raised."""
    arguments = [a.clone() if hasattr(a, "clone") else a for a in case]
    try:
        result = function(*arguments)
    except Exception as error:  # whatever the reader's code raises becomes part of the verdict
        return error
    if any(hasattr(a, "equal") and not a.equal(b) for a, b in zip(arguments, case, strict=True)):
        return ValueError("it changed its argument in place; make a new tensor instead")
    if result is None or result is ...:
        return result
    try:
        return np.asarray(result.detach() if hasattr(result, "detach") else result)
    except ValueError as error:
        return error


def _is_unsolved(outcome: Any) -> bool:
    return outcome is None or outcome is ... or isinstance(outcome, NotImplementedError)


def _same(a: Any, b: Any) -> bool:
    if isinstance(a, Exception) or isinstance(b, Exception):
        return type(a) is type(b) and str(a) == str(b)
    return (
        a.shape == b.shape
        and (a.dtype == bool) == (b.dtype == bool)
        and a.dtype.kind in "biuf"
        and np.allclose(a, b, atol=_TOLERANCE, equal_nan=True)
    )


def _describe(yours: Any, right: np.ndarray) -> str:
    if isinstance(yours, Exception):
        return f"it raised {type(yours).__name__}: {yours}"
    if yours.dtype.kind not in "biuf":
        return f"it must return numbers, but it returned {yours.dtype}."
    if yours.shape != right.shape:
        return f"it must return shape {right.shape} here, but it returned {yours.shape}."
    if (yours.dtype == bool) != (right.dtype == bool):
        return f"it must return {right.dtype}, but it returned {yours.dtype}."
    if not np.isfinite(yours.astype(float)).all():
        return "it returned nan or infinity."
    if not right.ndim:
        return f"it returned {float(yours):.4f} where {float(right):.4f} is right."
    gap = abs(yours.astype(float) - right.astype(float))
    where = tuple(int(i) for i in np.unravel_index(gap.argmax(), gap.shape))
    return (
        f"the numbers differ, most at {list(where)}: "
        f"{float(yours[where]):.4f} where {float(right[where]):.4f} is right."
    )
