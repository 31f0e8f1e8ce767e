"""What the dimensions of a tensor are made of, followed through the ways in which models turn them.

Each dimension is a product of factors, outermost first: heads folded into the batch are one
dimension with two factors. A factor is a part of the features that a projection made, or of the
places (batch items, tokens, windows) that have features.
"""

import math
from collections.abc import Callable, Sequence
from typing import Any

from torch import Tensor

Factor = tuple[int, bool | None]  # its size; True for features, False for places, None: not known
Dimensions = tuple[tuple[Factor, ...], ...]


def unknown(tensor: Tensor) -> Dimensions:
    """Of a tensor that comes from elsewhere."""
    return tuple(_one(n, None) for n in tensor.shape)


def places(dimensions: Dimensions) -> Dimensions:
    """Beside features, what was not known is places."""
    return tuple(tuple((n, bool(tag)) for n, tag in dim) for dim in dimensions)


def features(size: int) -> tuple[Factor, ...]:
    """A dimension that a projection made."""
    return _one(size, True)


def is_all(dim: tuple[Factor, ...], tag: bool) -> bool:
    """Whether a dimension is of one kind alone."""
    return bool(dim) and all(own is tag for _, own in dim)


def reshaped(dimensions: Dimensions, shape: Sequence[int]) -> Dimensions | None:
    """The same numbers in another shape; None where a factor is cut in two uneven parts."""
    factors = [factor for dim in dimensions for factor in dim]
    result = []
    for size in shape:
        dim: list[Factor] = []
        while size > 1:
            if not factors:
                return None
            n, tag = factors.pop(0)
            taken = math.gcd(n, size)
            if taken == 1 or (taken < n and taken < size):
                return None
            dim.append((taken, tag))
            size //= taken
            if taken < n:
                factors.insert(0, (n // taken, tag))
        result.append(tuple(dim))
    return tuple(result)


def after(name: str, args: tuple, known: Dimensions, result: Tensor) -> Dimensions:
    """What an operator made of the dimensions of its main argument.

    name: of the ATen operator, such as "transpose".   args: as it was called, the tensor first.
    """
    shape = tuple(result.shape)
    made = _TURNS[name](known, args, result) if name in _TURNS else None
    if made is None:
        made = _alike(known, shape)
    fits = made is not None and tuple(map(_size, made)) == shape
    return made if fits else tuple(_one(n, None) for n in shape)


def _one(size: int, tag: bool | None) -> tuple[Factor, ...]:
    return ((size, tag),) if size != 1 else ()


def of_elements(several: Sequence[Dimensions], shape: Sequence[int]) -> Dimensions:
    """Of numbers made one by one of several tensors, which broadcast to a shape."""
    result = []
    for place, size in zip(range(-len(shape), 0), shape, strict=True):
        fit = [d[place] for d in several if len(d) >= -place and _size(d[place]) == size]
        told = [dim for dim in fit if all(tag is not None for _, tag in dim)] or fit
        agree = told and all(is_all(dim, True) == is_all(told[0], True) for dim in told)
        result.append(told[0] if agree else _one(size, None))
    return tuple(result)


def with_heads(name: str, args: tuple, known: Dimensions, n: int) -> Dimensions:
    """Of n equal parts of the features, joined ("cat") or put side by side ("stack")."""
    rank = len(known) + (name == "stack")
    place = (args[1] if len(args) > 1 else 0) % rank
    if name == "stack":
        return (*known[:place], _one(n, True), *known[place:])
    return (*known[:place], (*_one(n, True), *known[place]), *known[place + 1 :])


def _size(dim: tuple[Factor, ...]) -> int:
    return math.prod(n for n, _ in dim)


def _alike(known: Dimensions, shape: tuple) -> Dimensions | None:
    """Of an operator that keeps the order of dimensions, where their number tells."""
    if len(known) > len(shape):
        return None
    lead = tuple(_one(n, None) for n in shape[: len(shape) - len(known)])
    return lead + tuple(_resized(dim, n) for dim, n in zip(known, shape[len(lead) :], strict=True))


def _resized(dim: tuple[Factor, ...], size: int) -> tuple[Factor, ...]:
    """A dimension, or a part of it, or it and more."""
    if _size(dim) == size:
        return dim
    tags = {tag for _, tag in dim}
    return _one(size, tags.pop() if len(tags) == 1 else None)


def _permuted(known: Dimensions, args: tuple, _: Tensor) -> Dimensions:
    return tuple(known[i] for i in args[1])


def _transposed(known: Dimensions, args: tuple, _: Tensor) -> Dimensions:
    turned = list(known)
    first, second = args[1:3] if len(args) > 2 else (0, -1)
    if known:
        turned[first], turned[second] = known[second], known[first]
    return tuple(turned)


def _without(known: Dimensions, args: tuple, result: Tensor) -> Dimensions | None:
    """Without some dimensions: chosen from, or of size 1."""
    gone = args[1] if len(args) > 1 else None
    if gone is None:
        return None if result.dim() else ()
    gone = {i % len(known) for i in (gone if isinstance(gone, list | tuple) else [gone])}
    left = tuple(dim for i, dim in enumerate(known) if i not in gone)
    return left if len(left) == result.dim() else None


def _unbound(known: Dimensions, args: tuple, result: Tensor) -> Dimensions | None:
    return _without(known, (*args, 0), result)


def _squeezed(known: Dimensions, args: tuple, result: Tensor) -> Dimensions | None:
    if len(args) == 1:
        return tuple(dim for dim in known if dim)
    return _without(known, args, result)


def _stacked(known: Dimensions, args: tuple, result: Tensor) -> Dimensions:
    place = (args[1] if len(args) > 1 else 0) % result.dim()
    return (*known[:place], _one(result.size(place), None), *known[place:])


def _unsqueezed(known: Dimensions, args: tuple, result: Tensor) -> Dimensions:
    place = args[1] % result.dim()
    return (*known[:place], (), *known[place:])


def _viewed(known: Dimensions, _: tuple, result: Tensor) -> Dimensions:
    return reshaped(known, result.shape) or unknown(result)


def _strided(known: Dimensions, args: tuple, result: Tensor) -> Dimensions:
    """Dimensions of the same size and stride are the same; the others are places."""
    before = args[0]
    own = {(n, s): dim for n, s, dim in zip(before.shape, before.stride(), known, strict=True)}
    pairs = zip(result.shape, result.stride(), strict=True)
    return tuple(own.get((n, stride), _one(n, False)) for n, stride in pairs)


_TURNS: dict[str, Callable[[Dimensions, tuple, Tensor], Any]] = {
    "permute": _permuted,
    **dict.fromkeys(("transpose", "t", "transpose_"), _transposed),
    **dict.fromkeys(("select", "sum", "mean", "amax", "amin", "logsumexp"), _without),
    "unbind": _unbound,
    "squeeze": _squeezed,
    **dict.fromkeys(("unsqueeze", "unsqueeze_"), _unsqueezed),
    "stack": _stacked,
    **dict.fromkeys(("view", "_unsafe_view", "_reshape_alias", "reshape"), _viewed),
    "as_strided": _strided,
}
