"""What can be seen of a whole Transformer from outside, for the repairs of appendix A.

Nothing here asks what a part is called. A model is judged by what it answers, by the attentions
that `capture` sees (source, target and batch have sizes of their own, so that the shape of its
weights tells which attention it is), by its gradients, and by the shapes of its parameters. Of an
attention that is written so that nothing is seen of it, only the answers are judged.
"""

import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from attnviz.lessons.repair import Property
from attnviz.seeing import AttentionRecord, capture, edit, off

NOTICEABLE = 1e-5  # a smaller difference between two outputs is rounding
_ALIKE = 1e-4  # as far may batches of other sizes differ

Holds = Callable[[nn.Module], bool]
Inputs = tuple[Tensor, Tensor]  # source and target, or ids and segments: (batch, token) each


@dataclass(frozen=True)
class Sizes:
    """What was asked for. layers: of the encoder and of the decoder, 0 where there is none."""

    layers: tuple[int, int]
    d_model: int = 32
    d_ff: int = 64
    n_heads: int = 4
    d_k: int = 8
    n_symbols: int = 10

    @property
    def feed_forwards(self) -> int:
        return sum(self.layers)

    @property
    def attentions(self) -> int:
        return self.layers[0] + 2 * self.layers[1]


def where(gate: Holds, *properties: Property) -> tuple[Property, ...]:
    """Properties that are asked for only where something else holds: elsewhere they mislead."""
    return tuple(
        Property(one.says, lambda model, one=one: not gate(model) or one.holds(model))
        for one in properties
    )


_found: dict[tuple[int, Callable], Any] = {}


def once(measure: Callable[[nn.Module], Any]) -> Callable[[nn.Module], Any]:
    """What a model is measured for by several properties; `afresh` forgets it."""

    def measured(model: nn.Module) -> Any:
        key = id(model), measure
        if key not in _found:
            _found[key] = measure(model)
        return _found[key]

    return measured


def afresh(holds: Holds) -> Holds:
    """For the first property: what was found of another model, or of this one, is no more known."""

    def begins(model: nn.Module) -> bool:
        _found.clear()
        return holds(model)

    return begins


def safely(holds: Holds) -> Holds:
    """False also where the model raises."""

    def without_error(model: nn.Module) -> bool:
        try:
            return holds(model)
        except Exception:  # whatever the reader's model raises
            return False

    return without_error


# --- what a model answers -------------------------------------------------------------------------


def answers(inputs: Inputs, n_symbols: int) -> Holds:
    """Whether a model gives a tensor (batch, token, symbol), as many tokens as the last input."""

    def holds(model: nn.Module) -> bool:
        logits = model(*inputs)
        return isinstance(logits, Tensor) and logits.shape == (*inputs[-1].shape, n_symbols)

    return holds


def is_finite(inputs: Inputs) -> Holds:
    return lambda model: bool(model(*inputs).isfinite().all())


def is_repeatable(inputs: Inputs) -> Holds:
    return lambda model: bool((model(*inputs) - model(*inputs)).abs().max() < NOTICEABLE)


def are_logits(inputs: Inputs) -> Holds:
    """Whether the rows are no probabilities, which sum to one."""
    return lambda model: bool((model(*inputs).sum(-1) - 1).abs().max() > _ALIKE)


def keeps_items_apart(inputs: Inputs) -> Holds:
    """Whether each item of a batch gets the answer that it gets alone."""

    def holds(model: nn.Module) -> bool:
        alone = [model(*(ids[i : i + 1] for ids in inputs)) for i in range(len(inputs[0]))]
        return _alike(model(*inputs), torch.cat(alone))

    return holds


def changes(one: Inputs, other: Inputs) -> Callable[[nn.Module], Tensor]:
    """By how much the answers to the first item differ, at each place: (token,)."""
    return lambda model: (model(*one) - model(*other))[0].detach().abs().amax(-1)


def hears(
    model: nn.Module, inputs: Inputs, which: int, other: Callable[[Tensor], Tensor]
) -> Tensor:
    """Whether a place of the output notices another symbol: (place of the symbol, place).

    inputs: one item.   which: the input that is changed.   other: from symbols to other ones.
    All changes are made at once, in a batch.
    """
    n = inputs[which].size(1)
    rows = [ids.repeat(n + 1, 1) for ids in inputs]  # the last one stays as it is
    changed = torch.eye(n + 1, n, dtype=torch.bool)
    rows[which] = torch.where(changed, other(rows[which]), rows[which])
    said = model(*rows).detach()
    return (said[:-1] - said[-1:]).abs().amax(-1) > NOTICEABLE


def tells_apart(model: nn.Module, inputs: Inputs) -> Tensor:
    """Whether the answers at two places of the first item differ: (place, place), no diagonal."""
    said = model(*inputs)[0].detach()
    differ = (said[:, None] - said[None]).abs().amax(-1) > NOTICEABLE
    return differ[~torch.eye(len(said), dtype=torch.bool)]


def swapped(ids: Tensor, place: int) -> Tensor:
    """Ids with the symbols at this place and the next in each other's place."""
    order = list(range(ids.size(1)))
    order[place : place + 2] = place + 1, place
    return ids[:, order]


def _alike(one: Tensor, other: Tensor) -> bool:
    return one.shape == other.shape and bool((one - other).abs().max() < _ALIKE)


def padded(ids: Tensor, lengths: Sequence[int]) -> Tensor:
    """Ids with 0 behind as many symbols of each item."""
    return ids * (torch.arange(ids.size(1)) < torch.tensor(lengths)[:, None])


def same_without_padding(source: Tensor, target: Tensor, lengths: Sequence[int]) -> Holds:
    """Whether sources of these lengths, padded together with 0, are answered as each alone."""

    def holds(model: nn.Module) -> bool:
        alone = [
            model(source[i : i + 1, :length], target[i : i + 1]) for i, length in enumerate(lengths)
        ]
        return _alike(model(padded(source, lengths), target), torch.cat(alone))

    return holds


def same_for_longer(inputs: Inputs) -> Holds:
    """Whether padding behind the target leaves what is said before it."""

    def holds(model: nn.Module) -> bool:
        source, target = inputs
        longer = model(source, F.pad(target, (0, 2)))
        return _alike(longer[:, : target.size(1)], model(source, target))

    return holds


# --- the attentions, by the shape of their weights ------------------------------------------------


def attentions(model: nn.Module, inputs: Inputs) -> list[AttentionRecord]:
    """Those that can be seen, in the order in which they run.

    All parameters are made small, so that no weight is zero but one that a mask hides.
    """
    with warnings.catch_warnings(), multiplied(list(model.parameters()), 0.1):
        warnings.simplefilter("ignore")  # of modules that are called attention and show none
        try:
            with capture(model) as seen:
                model(*inputs)
        except ValueError:  # no attention was seen
            return []
    return list(seen)


def have_heads(inputs: Inputs, sizes: Sizes) -> Holds:
    """Whether all have as many heads of this width; heads may also run one by one."""

    def holds(model: nn.Module) -> bool:
        seen = attentions(model, inputs)
        widths = {r.query.size(-1) for r in seen if r.query is not None}
        heads = [_heads(r, inputs) for r in seen]
        return all(n == sizes.n_heads or n <= 1 for n in heads) and widths <= {sizes.d_k}

    return holds


def layers(seen: Sequence[AttentionRecord], inputs: Inputs, sizes: Sizes) -> float:
    """In how many layers attentions ran, where heads that run one by one are a part of one."""
    heads = [_heads(r, inputs) for r in seen]
    return sum(n / sizes.n_heads if n <= 1 else 1 for n in heads)


def _heads(record: AttentionRecord, inputs: Inputs) -> float:
    """How many heads; they may be folded into the batch, or the items of a batch run one by one."""
    return record.heads * record.batch_size / len(inputs[0])


def all_seen(seen: Sequence[AttentionRecord], wanted: Tensor | None = None) -> bool:
    """Whether no weight is zero, of all or of the wanted ones, a mask (query, key)."""
    hidden = [r.weights == 0 for r in seen]
    return not any(h.any() if wanted is None else h[..., wanted].any() for h in hidden)


@contextmanager
def switched_off(model: nn.Module, seen: Sequence[AttentionRecord]) -> Iterator[None]:
    """These attentions attend to nothing while the block runs."""
    if not seen:
        yield
        return
    with edit(model, dict.fromkeys([r.index for r in seen], off)):
        yield


# --- gradients and parameters ---------------------------------------------------------------------


def gradients(model: nn.Module, inputs: Inputs, symbols: Sequence[int]) -> list[tuple]:
    """Each parameter with its gradient from the logits of these symbols, None where it has none."""
    logits = model(*inputs)[..., list(symbols)]
    wanted = [p for p in model.parameters() if p.requires_grad]
    if not logits.requires_grad:
        return [(p, None) for p in wanted]
    weighed = logits * torch.linspace(1, 2, logits.size(-2))[:, None]  # no two places cancel out
    found = torch.autograd.grad(weighed.square().sum(), wanted, allow_unused=True)
    return list(zip(wanted, found, strict=True))


def all_take_part(inputs: Inputs, sizes: Sizes) -> Holds:
    every = range(sizes.n_symbols)
    return lambda model: all(g is not None for _, g in gradients(model, inputs, every))


def enough_parameters(sizes: Sizes) -> Holds:
    """Whether there are as many as these sizes need, without biases and tables."""
    of_attention, of_network = 4 * sizes.d_model**2, 2 * sizes.d_model * sizes.d_ff
    least = sizes.attentions * of_attention + sizes.feed_forwards * of_network
    least += sizes.n_symbols * sizes.d_model

    return lambda model: sum(p.numel() for p in model.parameters()) >= least


def network_weights(model: nn.Module, sizes: Sizes) -> list[Tensor]:
    """The weights between d_model and d_ff, in their order in the model."""
    wanted = sorted((sizes.d_model, sizes.d_ff))
    return [p for p in model.parameters() if sorted(n for n in p.shape if n != 1) == wanted]


def networks_are_wide(sizes: Sizes) -> Holds:
    return lambda model: len(network_weights(model, sizes)) >= 2 * sizes.feed_forwards


def networks_bend(inputs: Inputs, sizes: Sizes) -> Holds:
    """Whether no feed-forward network is linear.

    A linear one stays the same when all its numbers before the second bias change their sign, and
    when the first are doubled and the second halved. (ReLU stays the same only under the second.)
    """

    def holds(model: nn.Module) -> bool:
        of_networks = network_weights(model, sizes)
        biases = [p for p in model.parameters() if p.shape == (sizes.d_ff,)]
        before = model(*inputs).detach()
        for i in range(0, len(of_networks) - 1, 2):
            first, second = of_networks[i : i + 2]
            bias = biases[i // 2 : i // 2 + 1]
            linear = True
            for a, b in ((-1, -1), (2, 0.5)):
                with multiplied([first, *bias], a), multiplied([second], b):
                    linear &= _alike(model(*inputs), before)
            if linear:
                return False
        return True

    return holds


@contextmanager
def multiplied(parameters: Sequence[Tensor], factor: float) -> Iterator[None]:
    """Parameters with all their numbers multiplied, while the block runs."""
    kept = [p.detach().clone() for p in parameters]
    with torch.no_grad():
        for p in parameters:
            p.mul_(factor)
    try:
        yield
    finally:
        with torch.no_grad():
            for p, old in zip(parameters, kept, strict=True):
                p.copy_(old)


class _Norms(TorchFunctionMode):
    """Counts torch's norms as they run."""

    count = 0

    def __torch_function__(
        self, function: Callable, types: tuple, args: tuple = (), kwargs: dict | None = None
    ) -> object:
        self.count += function in (F.layer_norm, F.rms_norm)
        return function(*args, **(kwargs or {}))


def enough_norms(inputs: Inputs, sizes: Sizes) -> Holds:
    """Whether there is one for each attention and network; norms of one's own are not seen."""

    def holds(model: nn.Module) -> bool:
        with _Norms() as norms:
            model(*inputs)
        return norms.count == 0 or norms.count >= sizes.attentions + sizes.feed_forwards

    return holds


def places_are_added(inputs: Inputs, sizes: Sizes) -> Holds:
    """Whether tables of words and of places get the same gradient altogether, up to a factor.

    As each token's vector is the sum of one row of both, it must; in a product it would not.
    Symbol 0 must not be among the inputs: its logits alone are asked for, so that a word table
    which is the output's, too, has only one row that belongs to the output.
    """

    def holds(model: nn.Module) -> bool:
        used = {i for ids in inputs for i in ids.flatten().tolist()}
        longest = max(ids.size(1) for ids in inputs)
        words, places = torch.zeros(sizes.d_model), torch.zeros(sizes.d_model)
        for p, gradient in gradients(model, inputs, [0]):
            if gradient is None or p.dim() != 2 or p.size(1) != sizes.d_model:
                continue
            rows = set(gradient.abs().sum(-1).nonzero().flatten().tolist())
            if rows - {0} and rows - {0} <= used and len(p) == sizes.n_symbols:
                words += gradient[1:].sum(0)
            elif len(p) >= longest and rows in ({*range(ids.size(1))} for ids in inputs):
                places += gradient.sum(0)
        if not words.any() or not places.any():
            return True
        return bool(F.cosine_similarity(words, places, 0).abs() > 0.999)

    return holds
