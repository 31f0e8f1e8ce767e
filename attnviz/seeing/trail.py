"""Scores followed from the product of queries and keys to the softmax, in models that write it out.

Each step that attention takes on the way has a function here, which says what a torch function made
of the scores, or None where that is not known.
"""

import math
import weakref
from collections.abc import Callable, Hashable
from dataclasses import replace
from functools import partial
from numbers import Real
from typing import Any

import torch
from torch import Tensor

from attnviz.seeing.axes import axes_after, axes_of
from attnviz.seeing.products import Labels, einsum_labels, name_of
from attnviz.seeing.record import version_of
from attnviz.seeing.scores import Part, Scores, eps_of, unrepeated
from attnviz.seeing.visible import is_batched

_BADDBMM = {torch.baddbmm, Tensor.baddbmm}
PRODUCTS = {
    *(torch.matmul, Tensor.matmul, Tensor.__matmul__, torch.bmm, Tensor.bmm, torch.einsum),
    *(torch.mm, Tensor.mm, torch.linalg.matmul, *_BADDBMM),
}
_CAT = {torch.cat, torch.concat, torch.concatenate}
_AT_ONCE = 4  # tensors of scores that are followed
_PATIENCE = 64  # functions that may run after a product before it is forgotten
_HIDDEN = -1e4  # scores filled with this or less are hidden


class Trail:
    """The latest scores of a running pass, each for as long as the model itself keeps them."""

    def __init__(self) -> None:
        self.known: dict[int, tuple[weakref.ref, int | None, Scores]] = {}
        self._patience = 0

    def run(self, func: Callable, args: tuple, kwargs: dict) -> Any:
        """Run a torch function and see what it makes of the scores; returns its result."""
        if func in PRODUCTS:
            self._patience = _PATIENCE
            result = func(*args, **kwargs)
            self._remember(result, _product(func, args, kwargs, result))
            return result
        found = [(place, s) for place, a in enumerate(args) if (s := self.recall(a))]
        result = func(*args, **kwargs)
        if func in _CAT:
            self._remember(result, self._beside_sinks(args, result))
        if len(found) == 1:  # a sum of two products has no single query and key
            self._remember(result, _after(func, *found[0], args, kwargs, result))
        self._patience -= 1
        if not self._patience:
            self.known.clear()
        return result

    def _beside_sinks(self, args: tuple, result: Tensor) -> Scores | None:
        """The scores among tensors that were put side by side, if all others may be sinks."""
        if not args or not isinstance(args[0], tuple | list):
            return None
        found = [(t, s) for t in args[0] if (s := self.recall(t))]
        if len(found) != 1 or found[0][1].order is not None:
            return None
        longer = result.shape[:-1] == found[0][0].shape[:-1] and result.is_floating_point()
        return replace(found[0][1], sinks=True) if longer else None

    def recall(self, tensor: Any) -> Scores | None:
        """What is known of a tensor of scores, unless it was changed in a way that is not."""
        known = self.known.get(id(tensor))
        if known is None or known[0]() is not tensor or known[1] != version_of(tensor):
            return None
        return known[2]

    def _remember(self, tensor: Any, scores: Scores | None) -> None:
        if scores is None:
            return
        name = id(tensor)
        while len(self.known) >= _AT_ONCE:
            del self.known[next(iter(self.known))]
        ref = weakref.ref(tensor, lambda _: self.known.pop(name, None))
        self.known[name] = ref, version_of(tensor), scores


# --- the product ----------------------------------------------------------------------------------


def _product(func: Callable, args: tuple, kwargs: dict, result: Tensor) -> Scores | None:
    """The scores that a product is, if it may be one of queries and keys."""
    if func is torch.einsum:
        operands = args[1:] if isinstance(args[1], Tensor) else args[1]
        return _einsum(args[0], operands, result) if all(map(_fits, operands)) else None
    if func in _BADDBMM:
        return _baddbmm(*args, **kwargs)(result) if _fits(result) else None
    operands = [*args, *kwargs.values()]
    if len(operands) != 2 or not all(map(_fits, operands)):
        return None
    return _scores(operands[0], operands[1].mT, result)


def _fits(tensor: Any) -> bool:
    """Whether a tensor may be queries or keys."""
    if not isinstance(tensor, Tensor) or tensor.is_meta or tensor.is_nested or is_batched(tensor):
        return False
    return tensor.is_floating_point() and tensor.dim() >= 2


def _scores(query: Tensor, key: Tensor, result: Tensor, order: list[int] | None = None) -> Scores:
    """Scores of queries and keys, both (..., token, d_k)."""
    lead = (result if order is None else result.permute(order)).shape[:-2]
    eps = max(map(eps_of, (query, key, result)))
    return Scores(Part(query, lead), Part(key, lead), lead, eps, order)


def _baddbmm(
    input: Tensor, batch1: Tensor, batch2: Tensor, *, beta: float = 1, alpha: float = 1, **out: Any
) -> Callable[[Tensor], Scores | None]:
    """Take the arguments as the function does: beta · input + alpha · batch1 @ batch2."""

    def scores(result: Tensor) -> Scores | None:
        made = _times(_scores(batch1, batch2.mT, result), alpha)
        if made is None or not beta:
            return made
        return made.masked(input if beta == 1 else input * beta)

    return scores


def _einsum(equation: Any, operands: list[Tensor], result: Tensor) -> Scores | None:
    """The scores of an einsum, in whatever order of dimensions.

    The keys are the last dimension of the result that only one of two operands has.
    """
    if not isinstance(equation, str):
        return None
    labels, output = einsum_labels(equation, operands)
    if len(labels) != 2 or len(output) < 2 or any(len(set(t)) != len(t) for t in labels):
        return None
    pairs = list(zip(labels, operands, strict=True))
    made = (_scores_along(column, pairs, output, result) for column in reversed(output))
    return next((scores for scores in made if scores is not None), None)


def _scores_along(
    column: Hashable, pairs: list[tuple[Labels, Tensor]], output: Labels, result: Tensor
) -> Scores | None:
    """The scores of an einsum whose keys are one dimension of its result.

    The queries are the one before the last, or else the only one that the keys' operand has not.
    """
    (of_query, query), (of_key, key) = sorted(pairs, key=lambda pair: column in pair[0])
    rest = [d for d in output if d != column]
    own = [d for d in rest if d not in of_key]
    width = [d for d in of_query if d not in output]
    if len(width) != 1 or not (len(own) == 1 or rest[-1] in own):
        return None
    if column != output[-1] and any(d in of_key and d not in of_query for d in rest):
        return None  # it might as well be the other
    of_row = rest[-1] if rest[-1] in own else own[0]
    lead = [d for d in rest if d != of_row]
    rows, columns = ([*lead, d, *width] for d in (of_row, column))
    if not set(of_query) <= set(rows) or not {column, *width} <= set(of_key) <= set(columns):
        return None
    query, key = _arranged(query, of_query, rows), _arranged(key, of_key, columns)
    order = [output.index(d) for d in (*lead, of_row, column)]
    return _scores(query, key, result, None if order == sorted(order) else order)


def _arranged(tensor: Tensor, labels: Labels, wanted: list[Hashable]) -> Tensor:
    """A tensor with its dimensions in the order that is wanted, and 1 for one that it has not."""
    tensor = tensor.permute([labels.index(d) for d in wanted if d in labels])
    return tensor[tuple(slice(None) if d in labels else None for d in wanted)]


# --- the steps ------------------------------------------------------------------------------------


def _after(
    func: Callable, place: int, scores: Scores, args: tuple, kwargs: dict, result: Any
) -> Scores | None:
    """What the scores, which are one of the arguments, have become; None if that is not known."""
    step = _STEPS.get(name_of(func))
    before = args[place]
    if step is None or not isinstance(result, Tensor) or not result.is_floating_point():
        return None
    if result.device != before.device or result.numel() != before.numel():
        return None
    if result.shape != before.shape and step not in (_reshaped, _turned):
        return None
    made = step(scores, place, args, kwargs, result)
    return made and replace(made, eps=max(made.eps, eps_of(result)))


def _multiplied(scores: Scores, place: int, args: tuple, kwargs: dict, _: Tensor) -> Scores | None:
    return None if kwargs or len(args) != 2 else _times(scores, _number(args[1 - place]))


def _divided(scores: Scores, place: int, args: tuple, kwargs: dict, _: Tensor) -> Scores | None:
    number = None if kwargs or len(args) != 2 or place else _number(args[1])
    return _times(scores, 1 / number) if number else None


def _times(scores: Scores, factor: float | None) -> Scores | None:
    if not factor or (factor < 0 and scores.masks):
        return None
    masks = tuple(mask.times(factor) for mask in scores.masks)
    return replace(scores, scale=scores.scale * factor, masks=masks)


def _plus(
    sign: int, scores: Scores, place: int, args: tuple, kwargs: dict, result: Tensor
) -> Scores | None:
    if kwargs or len(args) != 2 or (place and sign < 0):
        return None
    other = args[1 - place]
    if not isinstance(other, Tensor) or not other.dim():
        return scores  # a softmax does not feel a number that is added to all scores,
    if other.size(-1) == 1 and result.numel() and not result.amax(-1).any():
        return scores  # nor that the largest of each row is taken off
    other = other if other.is_floating_point() else other.float()
    return scores.masked(other if sign > 0 else -other)


def _filled(scores: Scores, place: int, args: tuple, kwargs: dict, _: Tensor) -> Scores | None:
    rest = dict(zip(("mask", "value"), args[1:], strict=False)) | kwargs
    return None if place else _hidden(scores, rest["mask"], rest["value"], seen=False)


def _chosen(scores: Scores, place: int, args: tuple, kwargs: dict, _: Tensor) -> Scores | None:
    """`torch.where(condition, scores, number)`, or its method, or the two the other way round."""
    if kwargs or len(args) != 3:
        return None
    if place == 0:  # a method of the scores
        return _hidden(scores, args[1], args[2], seen=True)
    return _hidden(scores, args[0], args[3 - place], seen=place == 1)


def _hidden(scores: Scores, mask: Tensor, fill: Any, seen: bool) -> Scores | None:
    """Scores that stay where the mask is as `seen` says, and are filled with a number elsewhere."""
    if isinstance(fill, Tensor) and fill.numel() > 1:
        low, high = fill.detach().aminmax()
        fill = low if low == high else None
    number = _number(fill)
    if mask.dtype != torch.bool or not mask.dim() or number is None or not number <= _HIDDEN:
        return None
    mask = unrepeated(mask)
    return scores.masked(mask if seen else ~mask, number == -math.inf)


def _reshaped(
    scores: Scores, place: int, args: tuple, kwargs: dict, result: Tensor
) -> Scores | None:
    """Heads folded into the batch, or taken out of it; rows and columns stay."""
    if place or scores.order is not None or result.shape[-2:] != args[0].shape[-2:]:
        return None
    return replace(scores, lead=result.shape[:-2])


def _turned(scores: Scores, place: int, args: tuple, kwargs: dict, result: Tensor) -> Scores | None:
    """Dimensions in another order."""
    before = args[place]
    axes = axes_after("", before, axes_of(before), result)
    if place or axes is None or any(len(a) != 1 for a in axes):
        return None
    places = {d: i for i, (d,) in enumerate(axes)}
    order = [places[d] for d in scores.order or range(before.dim())]
    return replace(scores, order=None if order == sorted(order) else order)


def _same(scores: Scores, place: int, args: tuple, kwargs: dict, _: Tensor) -> Scores | None:
    return None if place else scores


def _number(given: Any) -> float | None:
    """A number, or the only one in a tensor."""
    if isinstance(given, Tensor) and given.numel() == 1 and not given.is_complex():
        return float(given.detach())
    return float(given) if isinstance(given, Real) else None


_STEPS = {  # by the names of torch's functions, without the underscores of methods and operators
    **dict.fromkeys(("mul", "multiply"), _multiplied),
    **dict.fromkeys(("div", "divide", "true_divide"), _divided),
    "add": partial(_plus, 1),
    **dict.fromkeys(("sub", "subtract"), partial(_plus, -1)),
    "masked_fill": _filled,
    "where": _chosen,
    **dict.fromkeys(("view", "reshape", "flatten", "unflatten", "squeeze", "unsqueeze"), _reshaped),
    **dict.fromkeys(("transpose", "swapaxes", "swapdims", "permute", "movedim"), _turned),
    **dict.fromkeys(("moveaxis", "mT", "T", "t"), _turned),
    **dict.fromkeys(("to", "float", "double", "half", "bfloat16", "type", "type_as"), _same),
    **dict.fromkeys(("contiguous", "clone", "detach"), _same),
}
