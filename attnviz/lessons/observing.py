"""What can be seen of wrong numbers beside the right ones, before it is said where they differ."""

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np

_NEAR = 1e-4
_ENOUGH = 2  # single numbers that may agree by chance

Pairs = Sequence[tuple[np.ndarray, np.ndarray]]  # yours and the right one, for each input


def seen_in_numbers(pairs: Pairs) -> str | None:
    """The first thing that is so of all results without nan; None where nothing is.

    pairs: results beside the right ones, of every input that has one.
    """
    if all(y.dtype == bool and y.shape == r.shape and (y != r).all() for y, r in pairs):
        return "True and False have changed places."
    pairs = [(np.asarray(y, float), np.asarray(r, float)) for y, r in pairs]
    finite = [(yours, right) for yours, right in pairs if np.isfinite(yours).all()]
    return next(_all_that_is_seen(finite), None) if finite else None


def _all_that_is_seen(pairs: Pairs) -> Iterator[str]:
    if _each(pairs, _is_transposed):
        yield "it is the right answer with its last two dimensions swapped."
    if not all(yours.shape == right.shape for yours, right in pairs):
        return
    yield from _sums(pairs)
    yield from _multiple_or_shift(pairs)
    for axis in range(1, 1 + min(right.ndim for _, right in pairs)):
        yield from _along(pairs, -axis)


def how_large(pairs: Pairs) -> str | None:
    """Whether single numbers are too large, or too small, for every input."""
    single = [pair for pair in pairs if pair[0].size == pair[1].size == 1]
    wrong = [(y.item(), r.item()) for y, r in single if not _near(y, r)]
    if len(wrong) <= _ENOUGH or len(wrong) < len(pairs):
        return None
    if all(yours > right for yours, right in wrong):
        return "it is too large, for every input."
    return "it is too small, for every input." if all(y < r for y, r in wrong) else None


def _is_transposed(yours: np.ndarray, right: np.ndarray) -> bool:
    return right.ndim >= 2 and _near(yours, right.swapaxes(-1, -2))


def _sums(pairs: Pairs) -> Iterator[str]:
    """Rows that should sum to one and do not."""
    if all(r.ndim and _near(r.sum(-1), np.ones(r.shape[:-1])) for _, r in pairs) and any(
        not _near(y.sum(-1), np.ones(y.shape[:-1])) for y, _ in pairs
    ):
        columns = all(y.ndim > 1 and _near(y.sum(-2), np.ones(y.sum(-2).shape)) for y, _ in pairs)
        yield "its rows do not sum to one" + (", but its columns do." if columns else ".")


def _multiple_or_shift(pairs: Pairs) -> Iterator[str]:
    """One number that all of a result is multiplied with, or that is added to all of it."""
    if not any(yours.any() for yours, _ in pairs):
        yield "all of it is zero."
        return
    pairs = [(yours, right) for yours, right in pairs if yours.any() or right.any()]
    factors = [_factor(yours, right) for yours, right in pairs]
    shifts = [_shift(yours, right) for yours, right in pairs]
    if _one_number(factors, pairs) and _near(factors[0], -1):
        yield "it is the right answer with the opposite sign."
    elif _one_number(factors, pairs) and not _near(factors[0], 1):
        yield f"all of it is {factors[0]:.4g} times the right answer."
    elif _one_number(shifts, pairs) and not _near(shifts[0], 0):
        yield f"all of it is the right answer plus {shifts[0]:.4g}."
    elif None not in factors and _many_numbers(pairs) and not _near(factors, np.ones(len(pairs))):
        say = "all of the right answer is multiplied by one number"
        yield f"{say}, another one for each input: {factors[0]:.4g} for the first."
    elif None not in shifts and _many_numbers(pairs) and not _near(shifts, np.zeros(len(pairs))):
        say = "to all of the right answer one number is added"
        yield f"{say}, another one for each input: {shifts[0]:.4g} for the first."


def _factor(yours: np.ndarray, right: np.ndarray) -> float | None:
    """The number that right is multiplied with, where there is one."""
    if not right.any():
        return None
    at = np.unravel_index(abs(right).argmax(), right.shape)
    factor = float(yours[at] / right[at])
    return factor if _near(yours, factor * right) else None


def _shift(yours: np.ndarray, right: np.ndarray) -> float | None:
    """The number that is added to right, where there is one."""
    gap = yours - right
    return float(gap.flat[0]) if gap.size and _near(gap, np.full_like(gap, gap.flat[0])) else None


def _one_number(found: Sequence[float | None], pairs: Pairs) -> bool:
    """Whether all inputs agree on it; of single numbers it takes three to tell."""
    enough = len(found) > _ENOUGH or _many_numbers(pairs)
    return enough and None not in found and _near(found, np.full(len(found), found[0]))


def _many_numbers(pairs: Pairs) -> bool:
    return sum(right.size > 2 for _, right in pairs) > len(pairs) / 2


def _along(pairs: Pairs, axis: int) -> Iterator[str]:
    """What is so of the places along one dimension, counted from the last."""
    name = f"dimension {axis}"
    if _each(pairs, lambda y, r: _near(y, np.flip(r, axis))):
        yield f"it is the right answer in the opposite order along {name}."
    for by, when in ((1, "late"), (-1, "early")):
        if _each(pairs, lambda y, r, by=by: _is_moved(y, r, axis, by)):
            yield f"everything is one place too {when} along {name}."
    wrong = [places for y, r in pairs if (places := _wrong_places(y, r, axis))]
    lengths = [r.shape[axis] for y, r in pairs if _wrong_places(y, r, axis)]
    if not wrong or min(lengths) < 2:
        return
    for says, holds in _OF_PLACES:
        if all(places == holds(n) for places, n in zip(wrong, lengths, strict=True)):
            yield says.format(name)


_OF_PLACES: tuple[tuple[str, Callable[[int], list[int]]], ...] = (  # which are wrong, of n
    ("only the first along {} is wrong.", lambda n: [0]),
    ("only the last along {} is wrong.", lambda n: [n - 1]),
    ("only the first along {} is right.", lambda n: [*range(1, n)]),
    ("only the last along {} is right.", lambda n: [*range(n - 1)]),
    ("along {} places 0, 2, 4, … are wrong, the others right.", lambda n: [*range(0, n, 2)]),
    ("along {} places 1, 3, 5, … are wrong, the others right.", lambda n: [*range(1, n, 2)]),
    ("along {} the first half is wrong, the second right.", lambda n: [*range(n // 2)]),
    ("along {} the second half is wrong, the first right.", lambda n: [*range(n // 2, n)]),
)


def _is_moved(yours: np.ndarray, right: np.ndarray, axis: int, by: int) -> bool:
    """Whether all but the place that nothing moves to is that of its neighbour."""
    length = right.shape[axis]
    to = np.arange(max(by, 0), length + min(by, 0))
    return length > 1 and _near(yours.take(to, axis), right.take(to - by, axis))


def _wrong_places(yours: np.ndarray, right: np.ndarray, axis: int) -> list[int]:
    places = range(right.shape[axis])
    return [i for i in places if not _near(yours.take(i, axis), right.take(i, axis))]


def _each(pairs: Pairs, holds: Callable[[np.ndarray, np.ndarray], bool]) -> bool:
    """Whether it holds for every input, and not because nothing is wrong."""
    return any(not _near(y, r) for y, r in pairs) and all(holds(y, r) for y, r in pairs)


def _near(one: Any, other: Any) -> bool:
    same_shape = np.shape(one) == np.shape(other)
    return same_shape and bool(np.allclose(one, other, atol=_NEAR, rtol=_NEAR))
