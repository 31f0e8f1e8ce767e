"""Which queries, keys, mask and scale made the weights of an attention that is written out."""

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import reduce
from typing import Any

import torch
from torch import Tensor

from attnviz.seeing.record import attention_weights

_ITEMS, _ROWS = 4, 8  # batch items, and rows of all of them together, whose weights are compared
_EXACT = 1e-3  # of a row's largest weight: how far off a weight may be in any precision
_LARGE = 1e5  # a mask of more than this leaves nothing of a score in any precision
_EPS_OF_ACCELERATORS = 2.0**-10  # they may round float32 to TF32 before they multiply


@dataclass(frozen=True)
class Part:
    """A tensor that broadcasts to (*lead, n, m), where lead is what the scores led with then."""

    tensor: Tensor
    lead: torch.Size

    def as_four(self, form: torch.Size) -> Tensor:
        """It as (batch, heads, n, m), where form is (batch, heads); each of the two may stay 1."""
        tensor = self.tensor[(None,) * (len(self.lead) + 2 - self.tensor.dim())]
        own, last = tensor.shape[:-2], tensor.shape[-2:]
        if own.numel() == 1:
            return tensor.reshape(1, 1, *last)
        if len(self.lead) == 1 or self.lead[-1] != form[1]:
            return tensor.expand(*self.lead, *last).reshape(*form, *last)
        if own[:-1].numel() > 1:
            tensor = tensor.expand(*self.lead[:-1], *tensor.shape[-3:])
        return tensor.flatten(0, -4)


@dataclass(frozen=True)
class Mask(Part):
    """Numbers that were added to the scores, or, bool, where they stayed and were not filled.

    infinite: whether they were filled with -inf, so that a row of these alone has no softmax.
    """

    infinite: bool = False

    def times(self, factor: float) -> "Mask":
        """The mask after the scores, and it, were multiplied with a number above zero."""
        if self.tensor.dtype == torch.bool:
            return self
        return replace(self, tensor=self.tensor * factor)

    def after(self, before: Tensor | None, form: torch.Size) -> Tensor:
        """The masks until then and this one together, as numbers to add to the scores."""
        mask = self.as_four(form)
        if mask.dtype != torch.bool:
            return mask if before is None else before + mask
        before = mask.new_zeros((), dtype=torch.float32) if before is None else before.float()
        fill = -math.inf if self.infinite else torch.finfo(torch.float32).min
        return torch.where(mask, before, fill)


@dataclass(frozen=True)
class Scores:
    """What is known of scores on their way to the softmax: query · key · scale, then the masks.

    query, key: (..., query, d_k) and (..., key, d_k).
    lead:       the leading dimensions of the scores, before query and key.
    eps:        the coarsest precision that the scores have been in.
    order:      of their dimensions, that brings the scores to (*lead, query, key), if they are not.
    sinks:      whether other scores stand beside them, which are cut off after the softmax.
    """

    query: Part
    key: Part
    lead: torch.Size
    eps: float
    order: list[int] | None = None
    scale: float = 1.0
    masks: tuple[Mask, ...] = ()
    sinks: bool = False

    def along(self, dim: int, n_dims: int) -> "Scores | None":
        """The scores with this of their n dimensions as that of the keys, if it is one of the two.

        Which of a product's operands are the keys is known when the softmax runs along them.
        """
        order = list(range(n_dims)) if self.order is None else self.order
        if dim == order[-1]:
            return self
        if dim != order[-2]:
            return None
        turned = [
            replace(m, tensor=m.tensor[(None,) * (2 - m.tensor.dim())].mT) for m in self.masks
        ]
        order = [*order[:-2], order[-1], order[-2]]
        query, key = self.key, self.query
        return replace(self, query=query, key=key, order=order, masks=tuple(turned))

    def masked(self, tensor: Tensor, infinite: bool = False) -> "Scores | None":
        """The scores with another mask, as `Mask` takes it; None where it is for sinks too."""
        if self.sinks:
            return None
        tensor = unrepeated(tensor.detach())
        if self.order is not None:
            tensor = tensor[(None,) * (len(self.order) - tensor.dim())].permute(self.order)
        return replace(self, masks=(*self.masks, Mask(tensor, self.lead, infinite)))

    @torch.no_grad()
    def behind(self, weights: Tensor, sinks: bool = False) -> dict[str, Any]:
        """What made these weights, as a record keeps it, if it is found to make them.

        weights: (batch, heads, query, key), as they came out of the softmax.
        sinks:   whether a share of each row went to no key: what the keys share is then compared.
        Returns query (batch, heads, query, d_k) and key (batch, heads or fewer, key, d_k), both
        copies; scale; and mask: None, bool or numbers, which may be the model's own tensor.
        Empty where these do not give the same weights, as far as rounding explains, in a few rows
        of a few batch items. It explains a lot where float16 may see no key at all.
        """
        form, sizes = weights.shape[:2], (self.query.tensor.size(-2), self.key.tensor.size(-2))
        if not weights.numel() or weights.shape[2:] != sizes:
            return {}
        query = self.query.as_four(form).expand(*form, -1, -1)
        key = self.key.as_four(form).expand(form[0], -1, -1, -1)
        for mask in self._masks(form):
            eps = max(self.eps, eps_of(weights))
            if _gives(weights, query, key, mask, self.scale, eps, sinks):
                copies = {"query": query.clone(), "key": key.clone()}
                return copies | {"mask": mask, "scale": self.scale}
        return {}

    def _masks(self, form: torch.Size) -> Iterator[Tensor | None]:
        """What the mask may be: in a row that may see no key, bool gives zeros, numbers do not."""
        if self.masks and all(mask.tensor.dtype == torch.bool for mask in self.masks):
            yield reduce(torch.logical_and, [mask.as_four(form) for mask in self.masks])
        yield reduce(lambda before, mask: mask.after(before, form), self.masks, None)


def unrepeated(tensor: Tensor) -> Tensor:
    """A tensor with size 1 for the dimensions in which it was expanded."""
    for dim, stride in enumerate(tensor.stride()):
        if stride == 0 and tensor.size(dim) > 1:
            tensor = tensor.narrow(dim, 0, 1)
    return tensor


def eps_of(tensor: Tensor) -> float:
    """The precision of floating numbers: the distance from 1 to the next."""
    eps = torch.finfo(tensor.dtype).eps
    return eps if tensor.device.type == "cpu" else max(eps, _EPS_OF_ACCELERATORS)


def _gives(
    weights: Tensor,
    query: Tensor,
    key: Tensor,
    mask: Tensor | None,
    scale: float,
    eps: float,
    sinks: bool,
) -> bool:
    """Whether attention gives these weights, as far as its precision tells."""
    n_items = min(weights.size(0), _ITEMS)
    items, rows = _spread(weights.size(0), n_items), _spread(weights.size(2), _ROWS // n_items)

    def some(tensor: Tensor) -> Tensor:
        tensor = tensor[:, :, rows] if tensor.size(2) > 1 else tensor
        return tensor[items] if tensor.size(0) > 1 else tensor

    weights, query, key = some(weights).float(), some(query), key[items]
    mask = None if mask is None else some(mask)
    expected = attention_weights(query, key, mask, False, scale)
    if sinks:  # a row that gave the keys nothing, as far as numbers go, says nothing of them
        expected = expected * weights.sum(-1, keepdim=True)
    largest = expected.amax(-1)
    if ((weights - expected).abs().amax(-1) <= _EXACT * largest).all():
        return True
    scores = torch.linalg.vector_norm(query.float(), dim=-1) * abs(scale)
    scores = scores * torch.linalg.vector_norm(key.float(), dim=-1).max()
    if mask is not None and mask.dtype != torch.bool:  # all of a row may be large, and hidden
        scores = scores + mask.float().amax(-1).abs().clamp(max=_LARGE)
    off = (weights.nan_to_num(0.0) - expected).abs().amax(-1)  # a row that sees nothing may be nan
    return bool((off <= (_EXACT + 4 * eps * (1 + scores)) * largest).all())


def _spread(n: int, at_most: int) -> slice | list[int]:
    """The first, the last and others between them, evenly."""
    if n <= at_most:
        return slice(None)
    return [i * (n - 1) // (at_most - 1) for i in range(at_most)]
