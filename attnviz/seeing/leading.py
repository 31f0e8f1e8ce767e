"""The dimensions before query and key: batch items and heads, in whatever order they come."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property

from torch import Tensor

from attnviz.seeing.dimensions import Dimensions


@dataclass(frozen=True)
class Lead:
    """What comes before the last two dimensions of weights, queries or keys.

    sizes: of the factors of these dimensions, in order.   heads: which of them are heads.
    """

    sizes: tuple[int, ...]
    heads: tuple[int, ...]

    @classmethod
    def plain(cls, shape: tuple[int, ...], heads: int | None = None) -> Lead:
        """As models have it mostly: the last is heads, where there are several.

        shape: of the leading dimensions.   heads: how many are folded into a single one.
        """
        if len(shape) == 1:
            return cls((shape[0] // (heads or 1), heads or 1), (1,))
        return cls(tuple(shape), (len(shape) - 1,) if shape else ())

    @classmethod
    def known(cls, dimensions: Dimensions) -> Lead | None:
        """By what the dimensions are made of, query and key included; None if they do not tell."""
        factors = [factor for dim in dimensions[:-2] for factor in dim]
        heads = tuple(i for i, (_, tag) in enumerate(factors) if tag)
        if not heads and any(tag is None for _, tag in factors):
            return None
        return cls(tuple(n for n, _ in factors), heads)

    @cached_property
    def n_heads(self) -> int:
        return math.prod(self.sizes[i] for i in self.heads)

    def is_plain(self, shape: tuple[int, ...]) -> bool:
        """Whether a shape is that of the batch, and then of the heads."""
        return len(shape) == 2 and self.in_order and self.n_heads == shape[1]

    @cached_property
    def in_order(self) -> bool:
        """Whether the batch comes before the heads, so that a reshape is all it takes."""
        return self._order == sorted(self._order)

    @cached_property
    def _order(self) -> list[int]:
        items = [i for i in range(len(self.sizes)) if i not in self.heads]
        return [*items, *self.heads]

    def to_four(self, tensor: Tensor) -> Tensor:
        """A tensor (..., n, m) as (batch, heads, n, m)."""
        last = tensor.shape[-2:]
        if self.is_plain(tensor.shape[:-2]):
            return tensor
        turned = tensor.reshape(*self.sizes, *last)
        if not self.in_order:
            turned = turned.permute(*self._order, -2, -1)
        return turned.reshape(-1, self.n_heads, *last)

    def back(self, four: Tensor, shape: tuple[int, ...]) -> Tensor:
        """A tensor (batch, heads, n, m) in the order and the leading shape of the model."""
        if self.in_order:
            return four.reshape(*shape, *four.shape[-2:])
        order, last = self._order, four.shape[-2:]
        turned = four.reshape(*(self.sizes[i] for i in order), *last)
        places = [order.index(i) for i in range(len(order))]
        return turned.permute(*places, -2, -1).reshape(*shape, *last)
