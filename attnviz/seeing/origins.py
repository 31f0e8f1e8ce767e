"""Where the numbers of a tensor come from: parameters, the tokens of an input, an attention."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from attnviz.seeing.dimensions import Dimensions, Factor


@dataclass(eq=False)
class Weights:
    """Numbers that may be the weights of an attention: what a softmax, or what stands for it, made.

    path:        the module in which they were made.
    made_by:     the operator, such as "softmax".
    of_products: whether the scores came from a product of two projected tensors.
    over_places: whether the softmax ran over places (tokens), and not over features.
    query, key:  where the two factors of that product came from.
    mixed:       whether they went through a product with other weights before the values.
    met:         whether they met values.   seen: whether they were recorded.
    """

    path: str
    made_by: str
    of_products: bool
    over_places: bool
    query: Origin | None = None
    key: Origin | None = None
    mixed: bool = False
    met: bool = False
    seen: bool = False


@dataclass(frozen=True)
class Origin:
    """Which inputs a tensor was made of, and which attentions have been added to it.

    inputs:     numbers of the tensors that came from outside; negative ones are parameters.
    attentions: numbers of the attentions whose output is part of it.
    """

    inputs: frozenset[int] = frozenset()
    attentions: frozenset[int] = frozenset()

    def __or__(self, other: Origin) -> Origin:
        if other is self:
            return self
        return Origin(self.inputs | other.inputs, self.attentions | other.attentions)

    @property
    def tokens(self) -> frozenset[int]:
        """The inputs that are data; where there are none, the learned ones."""
        return frozenset(i for i in self.inputs if i >= 0) or self.inputs


NOWHERE = Origin()


def attends_to_itself(query: Origin, key: Origin) -> bool:
    """Whether keys come from the tokens of the queries.

    They do not where the queries have tokens that the keys have not, or where the two have gone
    different ways, each through attentions of its own.
    """
    if not query.tokens <= key.inputs:
        return False
    shared = query.attentions & key.attentions
    return shared in (query.attentions, key.attentions)


@dataclass(eq=False)
class Numbers:
    """What is known of some numbers in memory, shared by all tensors that are views of them.

    raw:     parameters as they are, or constants: no data, and no projection of learned inputs.
    learned: of raw ones, whether there are parameters among them.
    number:  by which learned inputs are told apart.
    product: the origins of the two factors, where these are scores: a product of two projected
             tensors, or what was made of one.
    summed:  whether they are a product that summed over places: no scores come from such numbers.
    bent:    by which operator scores were made into something other than their multiples and sums.
    weights: the weights that these are, or are made of.
    spread:  whether weights were multiplied with values, whose sum is still to come.
    """

    raw: bool = False
    origin: Origin = NOWHERE
    product: tuple[Origin, Origin] | None = None
    summed: bool = False
    bent: str = ""
    weights: frozenset[Weights] = frozenset()
    spread: bool = False
    learned: bool = False
    number: int = 0

    @property
    def is_learned(self) -> bool:
        """Whether these are made of parameters alone, such as a product of two."""
        inputs = self.origin.inputs
        return bool(inputs) and not self.origin.attentions and max(inputs) < 0

    @property
    def attention(self) -> frozenset[Weights]:
        """Those of the weights that were made of scores, as long as these are no values yet."""
        return frozenset(own for own in self.as_they_stand if own.of_products)

    @property
    def as_they_stand(self) -> frozenset[Weights]:
        """The weights that these are, and not something that was multiplied with them."""
        return frozenset() if self.spread else self.weights

    def take(self, other: Numbers) -> None:
        """Be changed in place by other numbers."""
        if other.raw:
            self.learned |= self.raw and other.learned
        if other is self or other.raw:
            return
        self.raw = self.learned = False
        self.origin |= other.origin
        self.product = _both(self.product, other.product)
        self.summed |= other.summed
        self.bent = self.bent or other.bent
        self.weights |= other.weights
        self.spread |= other.spread


def merged(several: list[Numbers]) -> Numbers:
    """What is made of several, number by number."""
    raw, learned = all(n.raw for n in several), any(n.learned for n in several)
    result = Numbers(raw, learned=raw and learned)
    for numbers in several:
        result.take(numbers)
    return result


def _both(
    one: tuple[Origin, Origin] | None, other: tuple[Origin, Origin] | None
) -> tuple[Origin, Origin] | None:
    if one is None or other is None or one == other:
        return one or other
    return one[0] | other[0], one[1] | other[1]


@dataclass(eq=False)
class Known:
    """What is known of a tensor."""

    numbers: Numbers
    dimensions: Dimensions
    shape: torch.Size

    @property
    def row(self) -> tuple[Factor, ...]:
        """Its last dimension but one, as a matrix has it; its only one, as a vector."""
        return self.dimensions[-2:][0]

    @property
    def column(self) -> tuple[Factor, ...]:
        return self.dimensions[-1]
