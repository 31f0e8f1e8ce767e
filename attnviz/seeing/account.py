"""An account, kept below torch's functions, of everything in a pass that may be attention.

A `TorchDispatchMode` sees the operators (ATen) that all spellings come down to: a softmax, a few
products, a few ways to turn dimensions. Here each tensor is followed through them: what it is made
of, which of its dimensions are features, and whether it holds the weights of an attention. So it is
known of weights whether they ever met values, which tokens they lead to, and where their heads are.
"""

from __future__ import annotations

import re
import threading
import weakref
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from functools import cache
from itertools import count
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.parameter import is_lazy
from torch.utils._python_dispatch import TorchDispatchMode, _disable_current_modes

from attnviz.seeing.dimensions import (
    Dimensions,
    after,
    features,
    is_all,
    of_elements,
    places,
    unknown,
    with_heads,
)
from attnviz.seeing.origins import Known, Numbers, Origin, Weights, merged

_SOFTMAX = {"_softmax": "softmax", "_safe_softmax": "softmax", "_log_softmax": "log_softmax"}
_INSTEAD = {"sigmoid", "relu", "exp"}  # of scores, they make weights as a softmax does
_STRAIGHT = {
    *("mul", "div", "add", "sub", "rsub", "where", "masked_fill", "addcmul", "neg", "clone"),
    *("_to_copy", "copy", "cat", "stack", "constant_pad_nd", "tril", "triu", "sum", "mean"),
    *("select_scatter", "slice_scatter", "index_put", "index", "gather", "index_select", "roll"),
    *("native_dropout", "flip", "repeat", "zeros_like", "new_zeros", "fill", "zero"),
}
_PRODUCTS = {"mm", "bmm", "addmm", "baddbmm", "addbmm", "mv", "addmv"}
_LOOKUPS = {"embedding", "index", "index_select", "gather"}
_ELEMENTWISE = {
    *("mul", "div", "add", "sub", "rsub", "where", "masked_fill", "maximum", "minimum", "pow"),
    *("addcmul", "addcdiv"),
}
_FUSED = re.compile(
    r"_scaled_dot_product|_(flash|efficient|cudnn)_attention|_multi_head_attention"
    r"|_transformer_encoder_layer"
)
_FUSED_ELSEWHERE = re.compile(r"attention|attn|flash|sdpa", re.IGNORECASE)


class _Here(threading.local):
    """What each thread has of its own."""

    unseen = False


_here = _Here()


def is_unseen() -> bool:
    """Whether what runs in this thread is nobody's to see."""
    return _here.unseen


@contextmanager
def unseen() -> Iterator[None]:
    """What runs inside the block is left out of every account."""
    before, _here.unseen = _here.unseen, True
    try:
        yield
    finally:
        _here.unseen = before


_making = threading.Lock()
_entered = 0  # accounts, in all threads
_plain: list[type[Tensor]] = []  # subclasses that are made as meanwhile they cannot be


def _let_subclasses_be_made(change: int) -> None:
    """Under any dispatch mode, calling a subclass of Tensor, such as torch's CausalBias, fails.

    While there are accounts, such calls step out of all modes.
    """
    global _entered
    with _making:
        _entered += change
        if _entered == change == 1:
            _plain.extend(_made_as_tensors(Tensor))
            for kind in _plain:
                kind.__new__ = staticmethod(_make)
        elif not _entered:
            for kind in _plain:
                del kind.__new__
            _plain.clear()


def _made_as_tensors(kind: type[Tensor]) -> Iterator[type[Tensor]]:
    for inner in kind.__subclasses__():
        if inner.__new__ is Tensor.__new__:
            yield inner
        yield from _made_as_tensors(inner)


def _make(cls: type[Tensor], *args: Any, **kwargs: Any) -> Tensor:
    with _disable_current_modes():
        return Tensor.__new__(cls, *args, **kwargs)


class Account(TorchDispatchMode):
    """What was computed below torch's functions, while it is entered as a context.

    raw:   parameters and buffers, which are no data.
    path:  says in which module the model is now.
    """

    supports_higher_order_operators = True

    def __init__(self, raw: Iterable[Tensor], path: Callable[[], str]):
        super().__init__()
        self.path = path
        self.weights: list[Weights] = []  # in the order in which they were made
        self._raw: dict[int, Numbers] = {}  # by their storage
        for tensor in raw:
            self._raw.setdefault(_storage(tensor), Numbers(raw=True, learned=True))
        self._known: dict[int, tuple[weakref.ref, Known]] = {}
        self._count = count(1)

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        return False  # or torch imports its compiler when the first operator runs: a second

    @classmethod
    def ignore_compile_internals(cls) -> bool:
        return True  # or what is compiled would run uncompiled, and give other numbers

    def __enter__(self) -> Account:
        _let_subclasses_be_made(1)
        return super().__enter__()

    def __exit__(self, *error: Any) -> None:
        super().__exit__(*error)
        _let_subclasses_be_made(-1)

    def __torch_dispatch__(
        self, func: Any, types: tuple, args: tuple = (), kwargs: dict | None = None
    ) -> Any:
        kwargs = kwargs or {}
        tensors = _tensors((*args, *kwargs.values()))
        nested = any(t.is_nested or is_lazy(t) for t in tensors)
        if _here.unseen or nested or not isinstance(func, torch._ops.OpOverload):
            return self._opaque(func, args, kwargs)
        if _is_made_of_others(func) and not types:  # in inference mode, whole functions arrive here
            return self._of_others(func, args, kwargs)
        given = [self._of(t) for t in tensors]
        result = func(*args, **kwargs)
        self._note(func, args, given, _tensors((result,)))
        return result

    # --- what others ask ------------------------------------------------------------------------

    def known(self, tensor: Tensor) -> Known:
        """What is known of a tensor; of one inside torch.vmap, not its dimensions."""
        inner = _unwrapped(tensor)
        known = self._of(inner)
        if inner is tensor:
            return known
        return Known(known.numbers, unknown(tensor), tensor.shape)

    def weights_in(self, tensor: Tensor) -> list[Weights]:
        """The weights that a tensor holds, or that it was made of."""
        return sorted(self.known(tensor).numbers.weights, key=self.weights.index)

    @contextmanager
    def seeing(self) -> Iterator[None]:
        """All that looks like attention inside is recorded by the one who asks."""
        start = len(self.weights)
        yield
        for weights in self.weights[start:]:
            weights.seen = True

    # --- what is noted --------------------------------------------------------------------------

    def _of_others(self, func: Any, args: tuple, kwargs: dict) -> Any:
        """A function that is made of operators: these are noted, and its own result is given.

        Under a mode it may choose others than without one, and its result differ in the last bits.
        """
        if _is_in_place(func):
            with self:
                return func.decompose(*args, **kwargs)
        with torch.random.fork_rng(), self:
            noted = func.decompose(*args, **kwargs)
        result = _as_without_a_mode(func, args, kwargs)
        for one, other in zip(_tensors((noted,)), _tensors((result,)), strict=True):
            self._keep(other, self._of(one))
        return result

    def _opaque(self, func: Any, args: tuple, kwargs: dict) -> Any:
        if not _here.unseen and _FUSED_ELSEWHERE.search(str(func)):
            self._fused(str(func))
        return func(*args, **kwargs)

    def _note(self, func: Any, args: tuple, given: list[Known], results: list[Tensor]) -> None:
        namespace, name = func._schema.name.split("::")
        if name == "lift_fresh":  # a tensor that was written down
            for made in results:
                self._keep(made, Known(Numbers(raw=True), unknown(made), made.shape))
        elif func.is_view or name == "_unsafe_view":
            for made in results:
                dimensions = after(name, args, given[0].dimensions, made)
                self._keep(made, Known(given[0].numbers, dimensions, made.shape))
        elif _is_in_place(func):
            name = name.rstrip("_")
            for target in results:
                numbers = self._numbers(namespace, name, args, given, target.shape)
                self._of(target).numbers.take(numbers)
        elif results:
            numbers = self._numbers(namespace, name, args, given, results[0].shape)
            for made in results:
                own = numbers if made.is_floating_point() else Numbers(numbers.raw)
                dimensions = self._dimensions(name, args, given, made)
                self._keep(made, Known(own, dimensions, made.shape))

    def _numbers(
        self, namespace: str, name: str, args: tuple, given: list[Known], shape: torch.Size
    ) -> Numbers:
        """What is known of the numbers that an operator made."""
        if not given:
            return Numbers(raw=True)
        if name in _PRODUCTS:
            return self._product(given)
        first = given[0].numbers
        if name in _SOFTMAX:
            return self._softmax(_SOFTMAX[name], args[1], given[0])
        if name in _INSTEAD and first.product and not first.weights:
            return self._softmax(name, -1, given[0])
        if _FUSED.search(name) or (namespace != "aten" and _FUSED_ELSEWHERE.search(name)):
            self._fused(name)
            return Numbers(origin=self._attended(given))
        if name in _LOOKUPS and first.raw and not all(known.numbers.raw for known in given):
            return Numbers(origin=self._new())
        if name == "convolution" and given[1].numbers.weights and not first.weights:
            return self._meet(given[1].numbers.weights, given)
        return self._mixed(name, given, shape)

    def _product(self, given: list[Known]) -> Numbers:
        """Of a matrix product, and what is added to it."""
        result = self._factors(*given[-2:])
        for added in given[:-2]:
            result.take(added.numbers)
        return result

    def _factors(self, one: Known, other: Known) -> Numbers:
        first, second = one.numbers, other.numbers
        for numbers in (first, second):
            if numbers.spread:  # such as weights of a single key, whose product needs no sum
                self._meet(numbers.weights, [])
        if first.raw and second.raw:  # learned tokens that are projected
            first.number = first.number or next(self._count)
            return Numbers(origin=Origin(frozenset([-first.number])))
        flat = len(one.shape) == len(other.shape) == 2  # so that what is learned projects
        if first.raw or second.raw or (flat and first.is_learned != second.is_learned):
            weight_first = first.raw or (first.is_learned and not second.raw)
            data, summed = (other, other.row) if weight_first else (one, one.column)
            return self._projected(data, is_all(summed, True))
        one_is, other_is = first.attention, second.attention
        if one_is and other_is:
            for weights in one_is | other_is:
                weights.mixed = True
            return merged([first, second])
        weights = one_is | other_is or first.as_they_stand | second.as_they_stand
        if not weights and (first.bent or second.bent):
            weights = self._bent(first if first.bent else second).weights
        if weights:
            return self._meet(weights, [one, other])
        result = Numbers(origin=first.origin | second.origin, summed=is_all(one.column, False))
        if not (first.summed or second.summed) and _are_scores(one, other):
            result.product = first.origin, second.origin
        return result

    def _projected(self, data: Known, features_are_summed: bool) -> Numbers:
        """Of data and a parameter: heads may be mixed so, but keys are not summed over."""
        if features_are_summed and not data.numbers.spread and not data.numbers.bent:
            return merged([data.numbers])
        if data.numbers.weights:
            return self._meet(data.numbers.weights, [data])
        return Numbers(origin=data.numbers.origin)

    def _meet(self, weights: frozenset[Weights], given: list[Known]) -> Numbers:
        for own in weights:
            own.met = True
        return Numbers(origin=self._attended(given))

    def _attended(self, given: list[Known]) -> Origin:
        """Where the output of an attention comes from: it is one more attention."""
        inputs: frozenset[int] = frozenset()
        return Origin(inputs.union(*(k.numbers.origin.inputs for k in given)), self._new().inputs)

    def _softmax(self, name: str, dim: int, given: Known) -> Numbers:
        query, key = given.numbers.product or (None, None)
        over_places = query is not None or not is_all(given.dimensions[dim], True)
        weights = Weights(self.path(), name, query is not None, over_places, query, key)
        self.weights.append(weights)
        return Numbers(origin=given.numbers.origin, weights=frozenset([weights]))

    def _bent(self, scores: Numbers) -> Numbers:
        """Of scores that meet values as something that no softmax made."""
        weights = Weights(self.path(), scores.bent, True, True, *scores.product)
        self.weights.append(weights)
        return Numbers(weights=frozenset([weights]))

    def _fused(self, name: str) -> None:
        self.weights.append(
            Weights(self.path(), name, of_products=True, over_places=True, met=True)
        )

    def _mixed(self, name: str, given: list[Known], shape: torch.Size) -> Numbers:
        """Of any other operator: what everything that went into it had."""
        several = []
        for known in given:
            numbers = known.numbers
            other_form = known.shape[-2:] != shape[-2:]
            larger = bool(numbers.weights) and known.shape.numel() != shape.numel()
            if name in _ELEMENTWISE and (other_form or larger):  # it is spread over others
                weights = numbers.weights if name == "mul" else frozenset()
                spread = bool(weights)
                numbers = replace(numbers, product=None, bent="", weights=weights, spread=spread)
            several.append(numbers)
        result = merged(several)
        if result.product and not result.bent and name not in _STRAIGHT:
            result.bent = name
        if name in ("sum", "mean") and result.spread:
            return self._meet(result.weights, given)
        return result

    # --- what is known of tensors ---------------------------------------------------------------

    def _dimensions(self, name: str, args: tuple, given: list[Known], result: Tensor) -> Dimensions:
        if name in _PRODUCTS and result.dim() >= 2:
            return _of_product(*given[-2:])
        if name == "embedding":
            return (*places(given[1].dimensions), features(result.size(-1)))
        if name == "convolution":
            rest = places(unknown(result))
            return (rest[0], features(result.size(1)), *rest[2:])
        if name in ("cat", "stack") and _are_cut_from_features(args[0]):
            return with_heads(name, args, given[0].dimensions, len(args[0]))
        if name in _ELEMENTWISE:
            return of_elements([known.dimensions for known in given], result.shape)
        if not given:
            return unknown(result)
        return after(name, args, given[0].dimensions, result)

    def _of(self, tensor: Tensor) -> Known:
        known = self._known.get(id(tensor))
        if known is not None and known[0]() is tensor:
            return known[1]
        numbers = self._raw.get(_storage(tensor))
        if numbers is None and isinstance(tensor, nn.Parameter):
            numbers = Numbers(raw=True, learned=True)
        if numbers is None:
            numbers = Numbers(origin=self._new()) if tensor.is_floating_point() else Numbers()
        return self._keep(tensor, Known(numbers, unknown(tensor), tensor.shape))

    def _keep(self, tensor: Tensor, known: Known) -> Known:
        name = id(tensor)
        self._known[name] = weakref.ref(tensor, lambda _: self._known.pop(name, None)), known
        return known

    def _new(self) -> Origin:
        return Origin(frozenset([next(self._count)]))


def _are_scores(one: Known, other: Known) -> bool:
    """Whether a product compares places by their features."""
    if any(tag is None for _, tag in one.column):
        return not is_all(one.row, True) and not is_all(other.column, True)
    return not is_all(one.column, False)


def _are_cut_from_features(tensors: Any) -> bool:
    """Whether tensors are parts, side by side, of the last dimension of one."""
    first, *rest = tensors
    step = first.size(-1) * first.stride(-1) if first.dim() else 0
    places = ((i + 1) * step + first.storage_offset() for i in range(len(rest)))
    return (
        bool(rest)
        and step > 0
        and all(
            t.shape == first.shape
            and t.stride() == first.stride()
            and t.storage_offset() == place
            and _storage(t) == _storage(first)
            for t, place in zip(rest, places, strict=True)
        )
        and first.stride(-1) == 1
        and not first.is_contiguous()
    )


def _of_product(one: Known, other: Known) -> Dimensions:
    """Of a matrix product: rows of the one, columns of the other.

    What parameters make of data are features, and all but features are then places. With a
    dimension more these may be positions, or the weights of each head.
    """
    if len(one.shape) == len(other.shape) and one.shape[:-2].numel() == 1:
        if other.numbers.learned or other.numbers.is_learned:
            return (*one.dimensions[:-2], places(one.dimensions)[-2], features(other.shape[-1]))
        if one.numbers.learned or one.numbers.is_learned:
            return (*one.dimensions[:-2], features(one.shape[-2]), places(other.dimensions)[-1])
    *lead, row, _ = one.dimensions
    *others, _, column = other.dimensions
    known = all(tag is not None for dim in lead for _, tag in dim)
    return (*(lead if known else others), row, column)


def _as_without_a_mode(func: Any, args: tuple, kwargs: dict) -> Any:
    """What a function gives in inference mode, to the last bit.

    torch multiplies several rows with a parameter as one matrix; while it is in a dispatch mode it
    does not see that this is a parameter, and may multiply them as several.
    """
    name = func._schema.name
    if name not in ("aten::linear", "aten::matmul") or kwargs:
        return func.decompose(*args, **kwargs)
    rows, weight, *bias = args
    contiguous = name == "aten::linear" and rows.is_contiguous()
    if rows.dim() < 3 or weight.dim() != 2 or not weight.requires_grad or contiguous:
        return func.decompose(*args)
    columns = weight.t() if name == "aten::linear" else weight
    product = rows.reshape(-1, rows.size(-1)).mm(columns)
    product = product.view(*rows.shape[:-1], columns.size(-1))
    return product if not bias or bias[0] is None else product.add_(bias[0])


def _tensors(values: Iterable[Any]) -> list[Tensor]:
    """The tensors among arguments or results, those in lists too."""
    result = []
    for value in values:
        if isinstance(value, Tensor):
            result.append(value)
        elif isinstance(value, list | tuple):
            result += [t for t in value if isinstance(t, Tensor)]
    return result


def _unwrapped(tensor: Tensor) -> Tensor:
    """The tensor that torch.vmap or torch.func.grad has made another of."""
    while torch._C._functorch.is_functorch_wrapped_tensor(tensor):
        tensor = torch._C._functorch.get_unwrapped(tensor)
    return tensor


def _storage(tensor: Tensor) -> int:
    """A number for the memory that a tensor and its views share; its own where it has none."""
    tensor = _unwrapped(tensor)
    if is_lazy(tensor):
        return id(tensor)
    return tensor.untyped_storage()._cdata if tensor.layout == torch.strided else id(tensor)


@cache
def _is_in_place(func: torch._ops.OpOverload) -> bool:
    returns = func._schema.returns
    return any(r.alias_info is not None and r.alias_info.is_write for r in returns)


@cache
def _is_made_of_others(func: torch._ops.OpOverload) -> bool:
    composite = torch._C.DispatchKey.CompositeImplicitAutograd
    return torch._C._dispatch_has_kernel_for_dispatch_key(func.name(), composite)
