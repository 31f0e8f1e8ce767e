"""Exercises whose results are text, lists or counts, and right only when they are the same."""

import copy
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from attnviz.lessons.exercise import Exercise
from attnviz.lessons.verdict import Verdict

_LONGEST = 160  # characters of a result that are quoted


class ExactExercise(Exercise):
    """An exercise whose results are compared with ==; lists and tuples are the same.

    Arguments as for `Exercise`; of the cases the easiest comes first, as it is quoted.
    """

    def _wrong(self, diagnosis: str | None, first: int, yours: list, right: list) -> Verdict:
        reason = diagnosis or _describe(self.cases[first], yours[first], right[first])
        return Verdict(self.name, "wrong", reason)

    def _outcome(self, function: Callable, case: tuple) -> Any:
        return _outcome(function, case)

    def _same(self, a: Any, b: Any) -> bool:
        return _same(a, b)


@dataclass(frozen=True)
class _Remark:
    """What a function did instead of returning a result."""

    text: str


def _outcome(function: Callable, case: tuple) -> Any:
    """What a function makes of copies of the arguments: a plain result, an exception or a remark;
    `...` as a stub returns."""
    arguments = copy.deepcopy(case)
    try:
        result = function(*arguments)
        if hasattr(result, "__next__"):
            result = list(result)
    except Exception as error:  # whatever the reader's code raises becomes part of the verdict
        return error
    if arguments != case:
        return _Remark("it changed its argument in place; make a new object instead.")
    if result is None:
        return _Remark("it returned nothing: does it end with a return?")
    return _plain(result)


def _plain(value: Any) -> Any:
    """Lists as tuples, arrays and tensors as tuples of numbers, counters as dicts."""
    if hasattr(value, "tolist"):
        value = value.tolist()
    if isinstance(value, Mapping):
        return {_plain(key): _plain(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return tuple(_plain(inner) for inner in value)
    return value


def _same(a: Any, b: Any) -> bool:
    if isinstance(a, Exception) or isinstance(b, Exception):
        return type(a) is type(b)
    return type(a) is type(b) and a == b


def _describe(case: tuple, yours: Any, right: Any) -> str:
    if isinstance(yours, Exception):
        return f"it raised {type(yours).__name__}: {yours}"
    if isinstance(yours, _Remark):
        return yours.text
    asked = ", ".join(map(_quote, case))
    return f"for {asked} it returned {_quote(yours)} where {_quote(right)} is right."


def _quote(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= _LONGEST else f"{text[: _LONGEST - 1]}…"
