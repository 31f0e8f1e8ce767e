"""Exercises whose results are text, lists or counts, and right only when they are the same."""

from collections.abc import Mapping
from math import isclose
from numbers import Integral, Number, Real
from typing import Any

from attnviz.lessons.attempt import is_result, quote
from attnviz.lessons.exercise import Exercise
from attnviz.lessons.observing_lists import how_long, seen_in_lists
from attnviz.lessons.verdict import Verdict


class ExactExercise(Exercise):
    """An exercise whose results are compared one by one; lists and tuples are the same.

    Arguments as for `Exercise`; of the cases the easiest comes first, as it is quoted.
    """

    def _wrong(self, reason: str, yours: Any, right: Any) -> Verdict:
        return Verdict(self.name, "wrong", reason)

    def _read(self, outcome: Any) -> Any:
        return _plain(outcome) if is_result(outcome) else outcome

    def _same(self, a: Any, b: Any) -> bool:
        return _same(a, b)

    def _seen(self, pairs: list[tuple[Any, Any]]) -> str | None:
        return seen_in_lists([pair for pair in pairs if not self._same(*pair)])

    def _seen_at_least(self, pairs: list[tuple[Any, Any]]) -> str | None:
        wrong = [pair for pair in pairs if not self._same(*pair)]
        return how_long(wrong, [right for yours, right in pairs if self._same(yours, right)])

    def _describe(self, case: tuple, yours: Any, right: Any) -> str:
        return _describe(case, yours, right)


def _plain(value: Any) -> Any:
    """Lists, arrays, tensors and bytes as tuples, counters as dicts."""
    if hasattr(value, "tolist"):
        value = value.tolist()
    if isinstance(value, Mapping):
        return {_plain(key): _plain(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple | bytes):
        return tuple(_plain(inner) for inner in value)
    return value


def _same(a: Any, b: Any) -> bool:
    if isinstance(a, BaseException) or isinstance(b, BaseException):
        return type(a) is type(b)
    if isinstance(a, dict) and isinstance(b, dict):
        return a.keys() == b.keys() and all(_same(a[key], b[key]) for key in a)
    if isinstance(a, tuple) and isinstance(b, tuple):
        return len(a) == len(b) and all(map(_same, a, b))
    if isinstance(a, Number) and isinstance(b, Number):
        return _same_number(a, b)
    try:
        return type(a) is type(b) and bool(a == b)
    except Exception:  # objects of the reader's own class may refuse
        return False


def _same_number(a: Any, b: Any) -> bool:
    """True and 1 differ, and so do 2.0 and 2; a Fraction may stand for a float."""
    if isinstance(a, bool) or isinstance(b, bool) or not isinstance(a, Real):
        return a is b
    if isinstance(a, Integral) != isinstance(b, Integral):
        return False
    return a == b if isinstance(a, Integral) else isclose(a, b, rel_tol=1e-9)


def _with_kind(value: Any) -> str:
    return f"{quote(value)} ({type(value).__name__})"


def _describe(case: tuple, yours: Any, right: Any) -> str:
    asked = ", ".join(map(quote, case))
    if isinstance(yours, Number) and isinstance(right, Number) and yours == right:  # 2.0 and 2
        return f"for {asked} it returned {_with_kind(yours)} where {_with_kind(right)} is right."
    return f"for {asked} it returned {quote(yours)} where {quote(right)} is right."
