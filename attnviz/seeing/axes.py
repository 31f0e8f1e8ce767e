"""Where the dimensions of a tensor went, when a torch function made another of it.

Each dimension has a set: which dimensions of the first tensor it goes through. A dimension that two
were merged into has both; one that is new, or that a value was repeated along, has none.
"""

import torch
from torch import Tensor

Axes = tuple[frozenset[int], ...]

_NONE: frozenset[int] = frozenset()
_RESHAPED = {
    *("view", "reshape", "flatten", "unflatten", "squeeze", "unsqueeze", "ravel"),
    *("view_as", "reshape_as"),
}
_REPEATED = {"expand", "expand_as", "broadcast_to"}
_UNKNOWN = {"as_strided", "diagonal", "unfold", "diag", "gather", "scatter"}


def axes_of(tensor: Tensor) -> Axes:
    """The axes of a first tensor: each dimension is its own."""
    return tuple(frozenset({i}) for i in range(tensor.dim()))


def axes_after(name: str, before: Tensor, axes: Axes, result: Tensor) -> Axes | None:
    """The axes of what a torch function of this name made of a tensor; None if not known."""
    if name in _UNKNOWN:
        return None
    if name in _RESHAPED:
        return reshaped(before.shape, axes, result.shape)
    if name in _REPEATED:
        return broadcast(before, axes, result)
    if torch._C._is_alias_of(before, result) and result.dim() and before.dim():
        return _viewed(before, axes, result)
    return axes if result.dim() == before.dim() else None


def broadcast(before: Tensor, axes: Axes, result: Tensor) -> Axes | None:
    """The axes of a tensor that met one with more dimensions, or longer ones."""
    new = result.dim() - before.dim()
    if new < 0:
        return None
    kept = (a if result.size(i + new) == before.size(i) else _NONE for i, a in enumerate(axes))
    return (*[_NONE] * new, *kept)


def reshaped(before: torch.Size, axes: Axes, after: torch.Size) -> Axes:
    """The axes of the same numbers in the same order, in another shape."""
    old = [(n, a) for n, a in zip(before, axes, strict=True) if n != 1]
    result: list[frozenset[int]] = [_NONE] * len(after)
    new = [i for i, n in enumerate(after) if n != 1]
    while old and new:  # the shortest runs of dimensions that hold as many numbers
        (n_old, merged), n_new, run = old.pop(0), after[new[0]], [new.pop(0)]
        while n_old != n_new and (old or new):
            if n_old < n_new and old:
                n_old, merged = n_old * old[0][0], merged | old.pop(0)[1]
            elif new:
                n_new, run = n_new * after[new[0]], [*run, new.pop(0)]
            else:
                break
        for i in run:
            result[i] = merged
    _place_ones(before, axes, after, result)
    return tuple(result)


def _place_ones(
    before: torch.Size, axes: Axes, after: torch.Size, result: list[frozenset[int]]
) -> None:
    """A dimension of size one stays where those around it stayed."""
    if len(before) == len(after):
        pairs = zip(range(len(after)), range(len(before)), strict=True)
    else:  # counted from the end, which is where queries and keys are
        shared = min(len(before), len(after))
        pairs = ((len(after) - 1 - i, len(before) - 1 - i) for i in range(shared))
    for i, j in pairs:
        if after[i] == before[j] == 1 and not result[i]:
            result[i] = axes[j]


def _viewed(before: Tensor, axes: Axes, result: Tensor) -> Axes:
    """The axes of a view, known by the distances in memory: of a slice, a permutation, an index."""
    steps = [(before.stride(i), before.size(i), axes[i]) for i in range(before.dim())]
    found: list[frozenset[int]] = [_NONE] * result.dim()
    places = list(range(result.dim()))
    if before.shape == result.shape and before.stride() == result.stride():
        return axes
    for fits in (_same, _shorter, _with_gaps):
        for i in list(places):
            step, size = result.stride(i), result.size(i)
            match = next((s for s in steps if fits(s[0], s[1], step, size)), None)
            if match:
                found[i] = match[2]
                steps.remove(match)
                places.remove(i)
    return tuple(found)


def _same(step: int, size: int, new_step: int, new_size: int) -> bool:
    return (step, size) == (new_step, new_size)


def _shorter(step: int, size: int, new_step: int, new_size: int) -> bool:
    return step == new_step != 0 and size > new_size


def _with_gaps(step: int, size: int, new_step: int, new_size: int) -> bool:
    return new_size > 1 and step > 0 == new_step % step and (new_size - 1) * new_step < size * step
