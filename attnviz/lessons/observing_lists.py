"""What can be seen of wrong text, lists and counts beside the right ones."""

from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import Any

Wrong = Sequence[tuple[Any, Any]]  # yours beside the right one, of those inputs where they differ


def seen_in_lists(wrong: Wrong) -> str | None:
    """The first thing that is so of all wrong results; None where nothing is."""
    if not wrong or not all(type(y) is type(r) and _is_plain(y) for y, r in wrong):
        return None
    rules = _OF_DICTS if isinstance(wrong[0][0], dict) else _OF_LISTS
    for says, holds in rules:
        if all(holds(yours, right) for yours, right in wrong):
            return says
    return None if rules is _OF_DICTS else _one_of_each(wrong)


def how_long(wrong: Wrong, right: Sequence[Any]) -> str | None:
    """Whether lists or texts are too long or too short wherever they are wrong.

    Or whether they are wrong wherever the right one is long.   right: the results that are right.
    """
    every = [*wrong, *((one, one) for one in right)]
    if not wrong or not all(isinstance(one, tuple | str) for pair in every for one in pair):
        return None
    if all(yours == result[: len(yours)] for yours, result in wrong):
        return "it ends too early."
    if all(yours[: len(result)] == result for yours, result in wrong):
        return "it goes on too long: its beginning is right."
    if all(len(yours) > len(result) for yours, result in wrong):
        return "it is too long wherever it is wrong."
    if all(len(yours) < len(result) for yours, result in wrong):
        return "it is too short wherever it is wrong."
    shortest, longest = min(len(r) for _, r in wrong), max(map(len, right), default=0)
    if right and longest < shortest:
        return f"it is right where the result has at most {longest}, and wrong where it has more."
    return None


def _is_plain(value: Any) -> bool:
    """Whether it is text, a list or a dict of what can be compared without surprises."""
    if isinstance(value, dict):
        return all(map(_is_plain, [*value.keys(), *value.values()]))
    if isinstance(value, tuple):
        return all(map(_is_plain, value))
    return isinstance(value, str | int | float)


def _moved(yours: Sequence, right: Sequence, by: int) -> bool:
    numbers = all(isinstance(one, int) for one in [*yours, *right])
    return len(yours) > 0 and numbers and [*yours] == [one + by for one in right]


def _without_doubles(items: Sequence) -> list:
    return [one for before, one in pairwise([object(), *items]) if before != one]


def _differing(yours: Sequence, right: Sequence) -> list[int]:
    """The places of one and the other that differ; empty where the lengths do."""
    alike = len(yours) == len(right)
    return (
        [i for i, (y, r) in enumerate(zip(yours, right, strict=False)) if y != r] if alike else []
    )


def _sorted(items: Sequence) -> list:
    return sorted(items, key=repr)


def _one_of_each(wrong: Wrong) -> str | None:
    """Of lists of tuples: the one place in each tuple at which alone something is wrong."""
    found = set()
    for yours, right in wrong:
        items = [*yours, *right]
        if len(yours) != len(right) or not all(isinstance(one, tuple) for one in items):
            return None
        if len({len(one) for one in items}) != 1:
            return None
        columns = zip(zip(*yours, strict=True), zip(*right, strict=True), strict=True)
        found |= {i for i, (one, other) in enumerate(columns) if one != other}
    return f"of each item only number {found.pop() + 1} is wrong." if len(found) == 1 else None


Rules = tuple[tuple[str, Callable[[Any, Any], bool]], ...]

_OF_LISTS: Rules = (
    ("it is empty.", lambda y, r: not y),
    ("the last one is missing.", lambda y, r: y == r[:-1]),
    ("the first one is missing.", lambda y, r: y == r[1:]),
    ("there is one too many at the end.", lambda y, r: len(y) > 0 and y[:-1] == r),
    ("there is one too many at the beginning.", lambda y, r: len(y) > 0 and y[1:] == r),
    ("it is in the opposite order.", lambda y, r: y == r[::-1]),
    ("the right ones are there in another order.", lambda y, r: _sorted(y) == _sorted(r)),
    ("some come twice in a row.", lambda y, r: _without_doubles(y) == [*r]),
    ("every number is one too large.", lambda y, r: _moved(y, r, 1)),
    ("every number is one too small.", lambda y, r: _moved(y, r, -1)),
    ("only the last one is wrong.", lambda y, r: len(r) > 1 and _differing(y, r) == [len(r) - 1]),
    ("only the first one is wrong.", lambda y, r: len(r) > 1 and _differing(y, r) == [0]),
    (
        "only the first one is right.",
        lambda y, r: len(r) > 1 and _differing(y, r) == [*range(1, len(r))],
    ),
    ("only one of them is wrong.", lambda y, r: len(r) > 1 and len(_differing(y, r)) == 1),
)

_OF_DICTS: Rules = (
    ("it is empty.", lambda y, r: not y),
    ("its keys are right, what they lead to is not.", lambda y, r: y.keys() == r.keys()),
    ("some keys are missing; what is there is right.", lambda y, r: y.items() <= r.items()),
    ("some keys do not belong there; the others are right.", lambda y, r: y.items() >= r.items()),
    ("none of its keys is right.", lambda y, r: y.keys().isdisjoint(r)),
)
