"""Exercises whose checks say what is wrong: they know the mistakes that people make."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from numbers import Real
from typing import Any

import numpy as np
import torch
from torch import Tensor

from attnviz.lessons.attempt import Endless, Remark, is_result, said, tried
from attnviz.lessons.depending import other_parameters, unused_argument
from attnviz.lessons.observing import how_large, seen_in_numbers
from attnviz.lessons.verdict import Verdict
from attnviz.views.inputs import to_array

_TOLERANCE = 1e-4
_STEPS = 4  # how many of its smallest steps a number of half precision may be off


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
    first_step:     what to try first: said on `hint()`, and behind what no mistake explains.
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
        return replace(self._judged(attempt), attempt=attempt, reference=self.reference)

    def hint(self) -> Verdict:
        """What to try first."""
        return Verdict(self.name, "hint", self.first_step)

    def _judged(self, attempt: Callable) -> Verdict:
        if attempt is ...:
            return not_yet(self.name)
        check_callable(self.name, attempt)
        misfit = other_parameters(self.name, attempt, self.reference, self.cases)
        if misfit:
            return Verdict(self.name, "wrong", misfit)
        right = [self._right(case) for case in self.cases]
        yours: list[Any] = []
        for case in self.cases:  # what the reader prints is shown once
            yours.append(self._read(tried(attempt, case, aloud=not yours)))
            if yours[-1] is ...:
                return not_yet(self.name)
            if isinstance(yours[-1], Endless):
                return Verdict(self.name, "wrong", yours[-1].text)
        failed = [i for i in range(len(yours)) if not self._same(yours[i], right[i])]
        if not failed:
            return Verdict(self.name, "passed", f"right on all {len(self.cases)} inputs.")
        first = failed[0]
        reason = self._diagnose(yours, failed)
        if reason is None:
            seen = yours[first], right[first]
            what = self._describe(self.cases[first], *seen) if is_result(seen[0]) else said(seen[0])
            observed = self._observed(attempt, yours, right)
            what = f"{observed} {what[0].upper()}{what[1:]}" if observed else what
            reason = f"{what} {self.first_step}"
        return self._wrong(reason, yours[first], right[first])

    def _right(self, case: tuple) -> Any:
        """What is right; raises where the check itself is broken, as then it can judge nothing."""
        outcome = tried(self.reference, case)
        if not is_result(outcome):
            raise RuntimeError(f"the check of {self.name} is broken: {outcome}")
        return self._read(outcome)

    def _diagnose(self, yours: list[Any], failed: list[int]) -> str | None:
        """The mistake that gives just these results.

        Or else one that gives nan where these have infinity or the reverse; or all but the results
        with nan, where some of the others are wrong.
        """
        spoilt = {i for i in range(len(yours)) if _has_nan(yours[i])}
        passes = [(self._same, set())]
        if spoilt:
            passes.append((lambda a, b: self._same(_as_nan(a), _as_nan(b)), set()))
        if not spoilt.issuperset(failed):
            passes.append((self._same, spoilt))
        for same, left_out in passes:
            asked = [i for i in range(len(yours)) if i not in left_out]
            for mistake in self.misconceptions:
                if all(same(yours[i], self._outcome(mistake.wrong, self.cases[i])) for i in asked):
                    return mistake.says
        return None

    def _observed(self, attempt: Callable, yours: list[Any], right: list[Any]) -> str | None:
        """What is so of all results, or of what they depend on."""
        pairs = [(y, r) for y, r in zip(yours, right, strict=True) if is_result(y)]
        seen = self._seen(pairs) if pairs else None
        if seen is None and len(pairs) == len(yours):
            known = list(zip(self.cases, yours, right, strict=True))
            seen = unused_argument(self._outcome, self._same, attempt, self.reference, known)
        return seen or self._seen_at_least(pairs)

    def _seen_at_least(self, pairs: list[tuple[Any, Any]]) -> str | None:
        """What there is to say where nothing better is seen."""
        return how_large([(yours.array, right.array) for yours, right in pairs])

    def _outcome(self, function: Callable, case: tuple) -> Any:
        return self._read(tried(function, case))

    def _seen(self, pairs: list[tuple[Any, Any]]) -> str | None:
        return seen_in_numbers([(yours.array, right.array) for yours, right in pairs])

    def _wrong(self, reason: str, yours: Any, right: Any) -> Verdict:
        pair = (x.array if isinstance(x, _Numbers) else x for x in (yours, right))
        return Verdict(self.name, "wrong", reason, *pair)

    def _read(self, outcome: Any) -> Any:
        """What `tried` gave, as it is compared."""
        return _read(outcome)

    def _same(self, a: Any, b: Any) -> bool:
        return _same(a, b)

    def _describe(self, case: tuple, yours: Any, right: Any) -> str:
        return _describe(yours, right.array)


def not_yet(name: str) -> Verdict:
    """The verdict on a stub. It gives nothing away before a first try."""
    return Verdict(
        name, "not yet", f"the function is still a stub. check.{name}.hint() says how to begin."
    )


def check_callable(name: str, attempt: object) -> None:
    """Raise TypeError for what is no function."""
    if isinstance(attempt, type) or not callable(attempt):
        what = f"the class {attempt.__name__}" if isinstance(attempt, type) else ""
        raise TypeError(
            f"the check of {name} takes your function, got {what or type(attempt).__name__}"
        )


@dataclass(frozen=True)
class _Numbers:
    """A result.

    tolerance: how far its numbers may be off.   things: how many it was of, where it was a tuple.
    """

    array: np.ndarray
    tolerance: float
    things: int = 0


def _read(outcome: Any) -> Any:
    """Numbers, where it is some; else the exception, the remark or the stub."""
    if not is_result(outcome):
        return outcome
    try:
        array = to_array(_listed(outcome))
    except Exception:  # ragged lists, sparse tensors and whatever else has no numbers to compare
        array = None
    if array is None or array.dtype.kind not in "biuf":
        if isinstance(outcome, tuple):
            return Remark(f"it returned {len(outcome)} things, which do not make one tensor.")
        what = type(outcome).__name__
        return Remark(f"it must return a tensor of numbers, but it returned a {what}.")
    things = len(outcome) if isinstance(outcome, tuple) else 0
    return _Numbers(array, _tolerance(outcome), things)


def _listed(value: Any) -> Any:
    """Fractions and the like as floats, also in lists."""
    if isinstance(value, list | tuple):
        return [_listed(one) for one in value]
    known = isinstance(value, bool | int | float | np.generic)
    return float(value) if isinstance(value, Real) and not known else value


def _tolerance(value: Any) -> float:
    """Half precision may be off by some of its own steps, whatever holds it."""
    if isinstance(value, list | tuple):
        return max(map(_tolerance, value), default=_TOLERANCE)
    if isinstance(value, Tensor) and value.dtype in (torch.float16, torch.bfloat16):
        return _STEPS * torch.finfo(value.dtype).eps
    if getattr(value, "dtype", None) == np.float16:
        return _STEPS * float(np.finfo(np.float16).eps)
    return _TOLERANCE


def _as_nan(outcome: Any) -> Any:
    """The same with nan for infinity: which of the two it is depends on how it was written."""
    if not _has_nan(outcome):
        return outcome
    return replace(outcome, array=np.where(np.isfinite(outcome.array), outcome.array, np.nan))


def _has_nan(outcome: Any) -> bool:
    return isinstance(outcome, _Numbers) and not np.isfinite(outcome.array).all()


def _same(a: Any, b: Any) -> bool:
    if not isinstance(a, _Numbers) or not isinstance(b, _Numbers):
        # in any order: torch names the shapes of a @ b and of b @ a the other way round
        return type(a) is type(b) and sorted(str(a).split()) == sorted(str(b).split())
    off = max(a.tolerance, b.tolerance)
    relative = 1e-5 if off == _TOLERANCE else off
    one, other = a.array, b.array
    return (
        one.shape == other.shape
        and (one.dtype == bool) == (other.dtype == bool)
        and np.allclose(one, other, atol=off, rtol=relative, equal_nan=True)
    )


def _describe(yours: Any, right: np.ndarray) -> str:
    things, yours = yours.things, yours.array
    if yours.shape != right.shape and things:
        return f"it returned {things} things; return only the one that is asked for."
    if yours.shape != right.shape:
        number = "one number, of shape (), and no list of one"
        wanted = f"shape {right.shape}" if right.ndim else number
        return f"it must return {wanted} here, but it returned {yours.shape}."
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
