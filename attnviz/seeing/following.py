"""Weights followed from where they are made to the values, through whatever is done to them.

A tensor that was made of weights is either the weights as they now stand (masked, renormalised,
cast, turned round), which is what will be recorded when they meet the values, or made of those by a
step that leaves some behind (a slice, dropout, a repetition). Such steps are kept: changed weights
go through the same steps again.
"""

import weakref
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any

import torch.nn.functional as F
from torch import Tensor, nn

from attnviz.seeing.axes import Axes, axes_after, axes_of, broadcast
from attnviz.seeing.origins import Weights
from attnviz.seeing.products import Product, changes_in_place, name_of, product_of
from attnviz.seeing.record import AttentionRecord
from attnviz.seeing.scores import Scores

LOGARITHMS, NUMBERS = "logarithms", "numbers"

_TIMES = {"mul", "multiply", "rmul", "imul"}
_OVER = {"div", "divide", "true_divide", "truediv", "itruediv"}
_REDUCED = {
    *("sum", "mean", "amax", "amin", "max", "min", "logsumexp", "norm", "nansum", "prod", "std"),
    *("var", "median", "all", "any", "nanmean", "vector_norm"),
}
_JOINED = {"cat", "concat", "concatenate"}
_NOT_AGAIN = {"topk", "sort", "msort", "kthvalue", "bernoulli", "multinomial", "rrelu", "unique"}


class NotAgain(Exception):
    """A step that would make something else of changed weights than of the model's own."""


@dataclass(eq=False)
class Origin:
    """Weights as they stand before steps that leave some of them behind.

    key, query: the dimensions of the softmax's result that are keys and queries; query is None
                where only the values will tell.
    known:      whether their scores are known to be a product of two activations.
    heads:      how many heads were folded into the first of three dimensions, if they were.
    sinks:      whether columns that are no keys were cut off.
    scores:     what the softmax was given, as far as that is known, until they are recorded.
    record:     what was recorded of them, once they have met the values.
    changed:    the weights that are to meet the values in their stead, if others are to.
    edited:     whether these are other numbers, too.
    made:       what an account has of the weights when they are made.
    """

    axes: Axes
    key: int
    query: int | None = None
    known: bool = False
    heads: int | None = None
    scores: Scores | None = None
    record: AttentionRecord | None = None
    changed: Tensor | None = None
    edited: bool = False
    made: tuple[Weights, ...] = ()
    sinks: bool = False

    def order(self, product: Product | None, tensor: Tensor, axes: Axes) -> list[int]:
        """The order that brings the weights to (..., query, key).

        product, tensor, axes: what they meet the values in, as which tensor, and its dimensions.
        """
        key = next(i for i, a in enumerate(self.axes) if self.key in a)
        rest = [i for i in range(len(self.axes)) if i != key]
        rest.sort(key=lambda i: min(self.axes[i], default=0))
        own = frozenset[int]() if self.query is None else frozenset({self.query})
        if not own and product is not None:
            dims = product.own(tensor)
            own = axes[dims[-1]] if dims else own
        query = next((i for i in reversed(rest) if self.axes[i] & own), None)
        if query is not None:
            rest = [*(i for i in rest if i != query), query]
        return [*rest, key]


@dataclass(frozen=True)
class _Given:
    """In a step's arguments: a tensor that was followed itself.

    tensor: it, where its own step was dropout, whose chances do not come again.
    """

    followed: "Followed"
    tensor: Tensor | None


@dataclass(frozen=True)
class Step:
    """How a followed tensor was made: a call of a torch function, in which others are `_Given`.

    before: of dropout, what was dropped from.   part: which of several results it is.
    """

    func: Callable
    args: tuple
    kwargs: dict
    part: int | None = None
    before: Tensor | None = None

    @property
    def is_repeatable(self) -> bool:
        """Whether it makes of changed weights what the model would: what it was given is there."""
        lost = changes_in_place(self.func) and not isinstance(self.args[0], _Given)
        return not lost and name_of(self.func) not in _NOT_AGAIN

    def again(self, dropped: Tensor | None) -> Tensor:
        """What the step makes of changed weights; dropped: of dropout, what was left then."""
        if self.before is not None:
            before = self.before.detach()
            kept = (dropped.detach() / before).masked_fill(before == 0, 1)
            return changed_of(self.args[0]) * kept
        args, kwargs = substituted(self.args, self.kwargs, changed_of)
        if changes_in_place(self.func):
            args = (args[0].clone(), *args[1:])
        result = self.func(*args, **{k: v for k, v in kwargs.items() if k != "out"})
        if self.func is Tensor.__setitem__:
            return args[0]
        return result if self.part is None else result[self.part]


@dataclass(eq=False)
class Followed:
    """What is known of a tensor that was made of weights.

    axes:     its dimensions, of those of the softmax's result.
    origin:   the weights that it was made of, or that it is.
    made:     by which step; None where it is the weights themselves.
    weights:  those, where it is not.
    unready:  why it is no weights yet: LOGARITHMS, or NUMBERS that are still to be normalised.
    spread:   whether it was multiplied with something larger, that may be values, but not summed.
    sums:     of sums over some dimensions, which; these are no weights themselves.
    """

    axes: Axes
    origin: Origin
    made: Step | None = None
    weights: Tensor | None = None
    unready: str = ""
    spread: bool = False
    sums: frozenset[int] | None = None

    def is_ready(self, tensor: Tensor) -> bool:
        """Whether these are weights; exp(scores - logsumexp(scores)) is known by its sums."""
        if self.unready != NUMBERS or self.made is not None:
            return not self.unready
        sums = tensor.detach().float().sum(self.origin.key)
        return bool(((sums - 1).abs() < 0.02).all())

    def changed(self, tensor: Tensor | None) -> Tensor:
        """What it becomes when the weights become others; tensor: it, as the model has it."""
        if self.made is None:
            return self.origin.changed
        if self.origin.edited and not self.made.is_repeatable:
            raise NotAgain(name_of(self.made.func))
        return self.made.again(tensor)


def changed_of(given: Any) -> Any:
    """An argument of a step, changed if it was followed."""
    return given.followed.changed(given.tensor) if isinstance(given, _Given) else given


def substituted(args: tuple, kwargs: dict, by: Callable[[Any], Any]) -> tuple[tuple, dict]:
    """Arguments with another for each, also inside lists and tuples."""

    def one(given: Any) -> Any:
        if isinstance(given, list | tuple) and any(isinstance(t, Tensor | _Given) for t in given):
            return [by(t) for t in given]
        return by(given)

    return tuple(map(one, args)), {k: one(v) for k, v in kwargs.items()}


class Following:
    """The followed tensors of a running pass, each for as long as the model itself keeps it."""

    def __init__(self) -> None:
        self.known: dict[int, tuple[weakref.ref, Followed]] = {}

    def start(
        self,
        tensor: Tensor,
        dim: int,
        scores: Scores | None,
        known: bool,
        unready: str = "",
        made: tuple[Weights, ...] = (),
    ) -> None:
        """Follow weights from where they were made; dim: the one that they are shared out along.

        scores: what they were made of.   known, unready: as `Origin` and `Followed` have them.
        """
        query = None
        if scores is not None:
            query = dim - 1 if scores.order is None else scores.order[-2]
        origin = Origin(axes_of(tensor), dim, query, known, scores=scores, made=made)
        self.remember(tensor, Followed(origin.axes, origin, unready=unready))

    def remember(self, tensor: Tensor, followed: Followed) -> None:
        name = id(tensor)
        self.known[name] = weakref.ref(tensor, lambda _: self.known.pop(name, None)), followed

    def recall(self, tensor: Any) -> Followed | None:
        known = self.known.get(id(tensor))
        return known[1] if known and known[0]() is tensor else None

    def among(self, args: tuple, kwargs: dict) -> list[tuple[Tensor, Followed]]:
        """The followed tensors among arguments, also inside lists and tuples."""
        if not self.known:
            return []
        return [(t, f) for t in _flat((*args, *kwargs.values())) if (f := self.recall(t))]

    # --- the values -----------------------------------------------------------------------------

    def at_the_values(
        self, func: Callable, args: tuple, kwargs: dict, found: list[tuple[Tensor, Followed]]
    ) -> tuple[Tensor, Followed, Product | None] | None:
        """Which of the followed tensors meets the values in this call, and in which product."""
        ready = [(t, f) for t, f in found if f.sums is None and f.is_ready(t)]
        if name_of(func) in ("sum", "nansum"):
            for tensor, followed in ready:
                dims = _summed(args, kwargs, tensor, followed)
                if followed.spread and followed.origin.known and followed.origin.key in dims:
                    return tensor, followed, None
        product = product_of(func, args, kwargs) if ready else None
        if product is None:
            return None
        if func is F.linear and isinstance(product.operands[1][0], nn.Parameter):
            return None  # a layer of its own
        meeting = ((t, f, product) for t, f in ready if _meets(product, t, f))
        return next(meeting, None)

    def carry_over(self, args: tuple, kwargs: dict, origin: Origin) -> tuple[tuple, dict]:
        """Arguments with what became of changed weights in the place of what was made of them."""

        def by(given: Any) -> Any:
            followed = self.recall(given)
            return followed.changed(given) if followed and followed.origin is origin else given

        return substituted(args, kwargs, by)

    # --- the steps ------------------------------------------------------------------------------

    def before(self, func: Callable, args: tuple, kwargs: dict) -> tuple:
        """The arguments as `after` will know them: a copy of what is lost when a call changes it.

        A step is kept with what it was given, and dropout with what it dropped from.
        """
        followed = self.recall(args[0]) if args else None
        dropped = "dropout" in name_of(func)
        in_place = changes_in_place(func) or (
            dropped and (kwargs.get("inplace") or True in args[3:4])
        )
        if followed is None or not in_place:
            return args
        if followed.made is None and followed.origin.record is None and not dropped:
            return args  # the weights themselves go on, as they will be
        copy = args[0].clone()
        self.remember(copy, followed)
        return (copy, *args[1:])

    def after(self, func: Callable, target: Any, args: tuple, kwargs: dict, result: Any) -> None:
        """Follow what a torch function made of followed tensors.

        target: its first argument.   args: as `before` gave them.
        """
        found = self.among(args, kwargs)
        if func is Tensor.__setitem__:
            self._set(target, func, args, kwargs, found)
            return
        for tensor, _ in found:
            if result is tensor and not changes_in_place(func) and "out" not in kwargs:
                return  # nothing was made
        parts = enumerate(result) if isinstance(result, tuple | list) else [(None, result)]
        for i, part in parts:
            self._made(func, args, kwargs, part, found, i)

    def _made(
        self,
        func: Callable,
        args: tuple,
        kwargs: dict,
        result: Any,
        found: list[tuple[Tensor, Followed]],
        part: int | None = None,
    ) -> None:
        if not isinstance(result, Tensor) or not result.is_floating_point():
            return
        tensor, followed = next(((t, f) for t, f in found if f.sums is None), found[0])
        made = _made_of(func, args, kwargs, tensor, followed, found, result)
        if made is None:
            self.known.pop(id(result), None)
        elif made.made is not None:
            step = self._step(func, args, kwargs, part, tensor, result, made.origin)
            self.remember(result, replace(made, made=step))
        else:
            self.remember(result, made)

    def _step(
        self,
        func: Callable,
        args: tuple,
        kwargs: dict,
        part: int | None,
        tensor: Tensor,
        result: Tensor,
        origin: Origin,
    ) -> Step:
        def given(value: Any) -> Any:
            followed = self.recall(value)
            if followed is None or followed.origin is not origin:
                return value
            dropped = followed.made is not None and followed.made.before is not None
            return _Given(followed, value if dropped else None)

        if "dropout" in name_of(func) and result is not tensor:
            return Step(func, (given(tensor),), {}, before=tensor)
        args, kwargs = substituted(args, kwargs, given)
        return Step(func, args, kwargs, part)

    def _set(self, target: Tensor, func: Callable, args: tuple, kwargs: dict, found: list) -> None:
        """Part of a tensor was set: of a followed one, or to a followed one."""
        if followed := self.recall(args[0]):
            if target is not args[0]:  # `before` made a copy, as there are steps to be kept
                step = self._step(func, args, kwargs, None, args[0], target, followed.origin)
                weights = args[0] if followed.made is None else followed.weights
                self.remember(target, replace(followed, made=step, weights=weights))
            return
        tensor, followed = found[-1]
        n = target.dim() - len(followed.axes)
        at_the_end = bool(followed.axes) and followed.origin.key in followed.axes[-1]
        whole = followed.sums is None and not followed.unready and n >= 0 and at_the_end
        if whole and target.size(-1) == tensor.size(-1):
            new = tuple(frozenset({i - n}) for i in range(n))
            origin = replace(followed.origin, axes=(*new, *followed.axes), scores=None, record=None)
            self.remember(target, Followed(origin.axes, origin))


_PENDING = Step(lambda: None, (), {})  # stands for a step that is still to be written down


def _made_of(
    func: Callable,
    args: tuple,
    kwargs: dict,
    tensor: Tensor,
    followed: Followed,
    found: list[tuple[Tensor, Followed]],
    result: Tensor,
) -> Followed | None:
    """What a result is; `made` is _PENDING where it is not the weights themselves."""
    name, origin = name_of(func), followed.origin
    if followed.sums is not None:
        return replace(followed, made=_PENDING)
    if name in _REDUCED:
        return _reduced(name, args, kwargs, tensor, followed, result)
    product = product_of(func, args, kwargs)
    axes, spread = _axes(product, name, args, kwargs, tensor, followed, result)
    if axes is None or not any(origin.key in a for a in axes):
        return None
    mixed = product is not None and followed.made is None and origin.record is None
    if name in _JOINED or name == "stack" or mixed:
        return Followed(*_joined(origin, axes), unready=followed.unready)
    unready, key = _readiness(name, tensor, followed, found)
    new = replace(followed, axes=axes, unready=unready, spread=spread, made=_PENDING)
    if followed.made is None:
        new.weights = tensor
    if followed.made is not None or origin.record is not None or spread:
        return new
    if not _stays_whole(name, tensor, followed, result, axes):
        return new
    heads = origin.heads
    if (tensor.dim(), result.dim()) == (4, 3):
        heads = tensor.size(1)
    query = origin.key if origin.query == key else origin.query
    heads = heads if result.dim() == 3 else None
    sinks = origin.sinks or _all_keys(followed, tensor, result, axes)
    moved = replace(origin, axes=axes, key=key, query=query, heads=heads, sinks=sinks)
    return Followed(axes, moved, unready=unready)


def _axes(
    product: Product | None,
    name: str,
    args: tuple,
    kwargs: dict,
    tensor: Tensor,
    followed: Followed,
    result: Tensor,
) -> tuple[Axes | None, bool]:
    """The axes of a result, and whether its weights were spread over something larger."""
    axes = followed.axes
    if product is not None:
        labels = product.labels_of(tensor)
        if labels is None or any(
            followed.origin.key in axes[i] for i, d in enumerate(labels) if d not in product.output
        ):
            return None, False
        by_name = dict(zip(labels, axes, strict=True))
        return tuple(by_name.get(d, frozenset()) for d in product.output), followed.spread
    if name == "stack":
        dim = kwargs.get("dim", args[1] if len(args) > 1 else 0) % result.dim()
        return (*axes[:dim], frozenset(), *axes[dim:]), followed.spread
    if name in _TIMES and result.shape != tensor.shape:
        return broadcast(tensor, axes, result), True
    return axes_after(name, tensor, axes, result), followed.spread


def _joined(origin: Origin, axes: Axes) -> tuple[Axes, Origin]:
    """Weights that several were put together to; their dimensions are counted anew."""
    key = next(i for i, a in enumerate(axes) if origin.key in a)
    query = next((i for i, a in enumerate(axes) if origin.query in a), None)
    axes = tuple(frozenset({i}) for i in range(len(axes)))
    return axes, Origin(axes, key, query, origin.known, made=origin.made)


def _readiness(
    name: str, tensor: Tensor, followed: Followed, found: list[tuple[Tensor, Followed]]
) -> tuple[str, int]:
    """Why a result is no weights yet, and along which dimension it is shared out."""
    key = followed.origin.key
    if name == "exp" and followed.unready == LOGARITHMS:
        return "", key
    if name in _OVER and found[0][0] is tensor:
        sums = next((f.sums for _, f in found[1:] if f.sums), None)
        if sums is not None and len(sums) == 1:
            return "", next(iter(sums))
    return followed.unready, key


def _stays_whole(name: str, tensor: Tensor, followed: Followed, result: Tensor, axes: Axes) -> bool:
    """Whether a step leaves nothing of the weights behind: it is these that will be recorded."""
    if "dropout" in name:
        return False
    if result.numel() == tensor.numel() and tensor.dim() == result.dim():
        return all(len(a) == 1 for a in axes)
    if result.numel() == tensor.numel():  # heads are folded into the batch, or taken out of it
        ends = result.dim() > 1 and tensor.shape[-2:] == result.shape[-2:]
        return ends and axes[-2:] == followed.axes[-2:] and bool(axes[-2]) and result.dim() > 2
    return _all_keys(followed, tensor, result, axes)


def _all_keys(followed: Followed, tensor: Tensor, result: Tensor, axes: Axes) -> bool:
    """Whether a result is all the keys, and only sinks, which have no values, were cut off."""
    place = [i for i, a in enumerate(axes) if a == {followed.origin.key}]
    others = tensor.dim() == result.dim() and axes == followed.axes
    if not others or len(place) != 1:
        return False
    (i,) = place
    rest = [n for j, n in enumerate(result.shape) if j != i]
    if rest != [n for j, n in enumerate(tensor.shape) if j != i]:
        return False
    scores = followed.origin.scores
    if scores is None:
        return result.size(i) == tensor.size(i) - 1
    return scores.key.tensor.size(-2) <= result.size(i) < tensor.size(i)


def _reduced(
    name: str, args: tuple, kwargs: dict, tensor: Tensor, followed: Followed, result: Tensor
) -> Followed | None:
    """Sums and the like: over the keys they are no weights any more, over heads they still are."""
    dims = _dims(args, kwargs, tensor)
    over = frozenset(d for i in dims for d in followed.axes[i])
    if over & {followed.origin.key, followed.origin.query} or not over:
        over = over if name == "sum" else frozenset()
        return replace(followed, axes=(), sums=over, made=_PENDING, weights=None)
    if name not in ("sum", "mean"):
        return None
    if result.dim() == tensor.dim():
        axes = followed.axes
    else:
        axes = tuple(a for i, a in enumerate(followed.axes) if i not in dims)
    if followed.made is not None or followed.origin.record is not None:
        weights = tensor if followed.made is None else followed.weights
        return replace(followed, axes=axes, made=_PENDING, weights=weights)
    return Followed(axes, replace(followed.origin, axes=axes, scores=None, heads=None))


def _dims(args: tuple, kwargs: dict, tensor: Tensor) -> list[int]:
    """Over which dimensions a reduction runs; all when it names none."""
    given = kwargs.get("dim", kwargs.get("axis", args[1] if len(args) > 1 else None))
    if given is None or isinstance(given, float):
        return list(range(tensor.dim()))
    dims = given if isinstance(given, list | tuple) else [given]
    return [d % tensor.dim() for d in dims if isinstance(d, int)]


def _summed(args: tuple, kwargs: dict, tensor: Tensor, followed: Followed) -> set[int]:
    return {d for i in _dims(args, kwargs, tensor) for d in followed.axes[i]}


def _meets(product: Product, tensor: Tensor, followed: Followed) -> bool:
    """Whether a product sums over the keys: then the others are the values."""
    labels = product.labels_of(tensor)
    if labels is None:
        return False
    summed = {d for i, d in enumerate(labels) if d not in product.output for d in followed.axes[i]}
    return followed.origin.key in summed


def _flat(given: tuple) -> Iterator[Any]:
    for one in given:
        if isinstance(one, list | tuple):
            yield from one
        else:
            yield one
