"""Exercises whose checks say what is wrong: they know the mistakes that people make."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from attnviz.lessons.verdict import Verdict
from attnviz.views.inputs import to_array

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
        yours = [self._outcome(attempt, case) for case in self.cases]
        if any(outcome is ... or isinstance(outcome, NotImplementedError) for outcome in yours):
            return self._not_yet()
        right = [self._outcome(self.reference, case) for case in self.cases]
        failed = [i for i in range(len(yours)) if not self._same(yours[i], right[i])]
        if not failed:
            return Verdict(self.name, "passed", f"right on all {len(self.cases)} inputs.")
        return self._wrong(self._diagnose(yours), failed[0], yours, right)

    def _not_yet(self) -> Verdict:
        return Verdict(self.name, "not yet", f"the function is still a stub. {self.first_step}")

    def _diagnose(self, yours: list[Any]) -> str | None:
        """The mistake that gives just these results, or else one that gives all but the nans."""
        everything = range(len(yours))
        for tried in (everything, [i for i in everything if not _has_nan(yours[i])]):
            for misconception in self.misconceptions:
                theirs = [self._outcome(misconception.wrong, self.cases[i]) for i in tried]
                pairs = zip(tried, theirs, strict=True)
                if theirs and all(self._same(yours[i], t) for i, t in pairs):
                    return misconception.says
        return None

    def _wrong(self, diagnosis: str | None, first: int, yours: list, right: list) -> Verdict:
        """The verdict on results of which the first wrong one has this number."""
        reason = diagnosis or _describe(yours[first], right[first])
        return Verdict(self.name, "wrong", reason, yours[first], right[first])

    def _outcome(self, function: Callable, case: tuple) -> Any:
        return _outcome(function, case)

    def _same(self, a: Any, b: Any) -> bool:
        return _same(a, b)


def _outcome(function: Callable, case: tuple) -> Any:
    """What a function makes of copies of the arguments.

    An array; `...`, as a stub returns; the exception it raised; or a remark, a str, on what it
    returned or did instead.
    """
    arguments = [a.clone() if hasattr(a, "clone") else a for a in case]
    try:
        result = function(*arguments)
    except Exception as error:  # whatever the reader's code raises becomes part of the verdict
        return error
    if any(hasattr(a, "equal") and not a.equal(b) for a, b in zip(arguments, case, strict=True)):
        return "it changed its argument in place; make a new tensor instead."
    if result is ...:
        return result
    if result is None:
        return "it returned nothing: does it end with a return?"
    if isinstance(result, tuple):
        return f"it returned {len(result)} things; return only the one that is asked for."
    try:
        array = to_array(result)
    except Exception:  # ragged lists, sparse tensors and whatever else has no numbers to compare
        array = None
    if array is None or array.dtype.kind not in "biuf":
        return f"it must return a tensor of numbers, but it returned a {type(result).__name__}."
    return array


def _has_nan(outcome: Any) -> bool:
    return isinstance(outcome, np.ndarray) and not np.isfinite(outcome).all()


def _same(a: Any, b: Any) -> bool:
    if not isinstance(a, np.ndarray) or not isinstance(b, np.ndarray):
        # in any order: torch names the shapes of a @ b and of b @ a the other way round
        return type(a) is type(b) and sorted(str(a).split()) == sorted(str(b).split())
    return (
        a.shape == b.shape
        and (a.dtype == bool) == (b.dtype == bool)
        and np.allclose(a, b, atol=_TOLERANCE, equal_nan=True)
    )


def _describe(yours: Any, right: np.ndarray) -> str:
    if isinstance(yours, Exception):
        return f"it raised {type(yours).__name__}: {yours}"
    if isinstance(yours, str):
        return yours
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
