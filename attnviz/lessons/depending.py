"""Which arguments a wrong answer takes, and which it does not depend on though it should."""

from collections.abc import Callable, Iterator, Sequence
from inspect import Parameter, isfunction, signature
from typing import Any

import torch
from torch import Tensor

from attnviz.lessons.attempt import is_result

_ENOUGH = 2  # inputs for which an argument should have made a difference


def unused_argument(
    outcome: Callable[[Callable, tuple], Any],
    same: Callable[[Any, Any], bool],
    attempt: Callable,
    reference: Callable,
    known: Sequence[tuple[tuple, Any, Any]],
) -> str | None:
    """The first argument that changes the right answer wherever it changes, and never the reader's.

    outcome: of a function and its arguments.   same: whether two outcomes are.
    known: lists of arguments, each with the reader's outcome and the right one.
    """
    for place, name in enumerate(_names(reference)):
        asked = list(_should_differ(outcome, same, reference, known, place))
        if len(asked) >= _ENOUGH and all(same(y, outcome(attempt, case)) for case, y in asked):
            return f"it does not depend on {name}: with another one the result stays the same."
    return None


def other_parameters(
    name: str, attempt: Callable, reference: Callable, cases: Sequence[tuple]
) -> str | None:
    """What to say of a function that cannot be called with what the right one is called with."""
    try:
        takes = signature(attempt)
        for case in cases:
            takes.bind(*case)
    except ValueError:  # some of those that are written in C tell nothing
        return None
    except TypeError:
        asked = ", ".join(_names(reference))
        return f"it takes {takes}, but is called with ({asked}): write def {name}({asked})."
    return None


def _names(function: Callable) -> list[str]:
    known = Parameter.POSITIONAL_ONLY, Parameter.POSITIONAL_OR_KEYWORD
    try:
        parameters = signature(function).parameters
    except ValueError:  # some of those that are written in C have none
        return []
    return [name for name, p in parameters.items() if p.kind in known]


def _should_differ(
    outcome: Callable,
    same: Callable,
    reference: Callable,
    known: Sequence[tuple[tuple, Any, Any]],
    place: int,
) -> Iterator[tuple[tuple, Any]]:
    """Lists of arguments with one changed that changes the right answer; the reader's without."""
    for case, yours, right in known:
        other = _another(case[place]) if place < len(case) else None
        if other is None:
            continue
        changed = (*case[:place], other, *case[place + 1 :])
        right_now = outcome(reference, changed)
        if is_result(right_now) and not same(right, right_now):
            yield changed, yours


def _another(value: Any) -> Any:
    """Another value of the same kind and shape, None where there is none to be made up."""
    if isinstance(value, Tensor):
        return _another_tensor(value)
    if isinstance(value, bool):
        return not value
    if isinstance(value, int):
        return value + 1
    if isinstance(value, float):
        return 0.8 * value or 0.1
    if isfunction(value):
        return lambda *arguments: 2 * value(*arguments)
    if isinstance(value, list | tuple) and value and all(map(_is_number, value)):
        return type(value)(map(_another, value))
    if isinstance(value, str | list | tuple) and value:
        return value[1:] + value[:1]
    return None


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _another_tensor(value: Tensor) -> Tensor | None:
    if not value.numel():
        return None
    if value.dtype == torch.bool:
        return ~value
    if not value.is_floating_point():  # ids stay ids that there are
        return (
            value.roll(1, -1)
            if value.ndim > 1
            else value + (torch.arange(value.numel()) == 0).view(value.shape)
        )
    noise = torch.randn(value.shape, generator=torch.Generator().manual_seed(0))
    return value + noise.to(value.dtype)
