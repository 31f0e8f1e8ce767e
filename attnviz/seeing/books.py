"""When an account of a pass is kept, and what it found out is looked up when it is not."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Hashable, Iterator
from contextlib import contextmanager, nullcontext
from itertools import chain

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import (
    _get_current_dispatch_mode_stack,
    _pop_mode,
    _push_mode,
)

from attnviz.seeing.account import Account
from attnviz.seeing.dimensions import is_all
from attnviz.seeing.facts import Fact, Facts, KnownModel, kind_of_pass
from attnviz.seeing.leading import Lead
from attnviz.seeing.origins import Weights, attends_to_itself
from attnviz.seeing.passes import Running
from attnviz.seeing.products import Product


class Books:
    """The accounts of one model's passes, in one thread.

    An account costs about a third of a pass. It is kept when a pass is of a new kind (sizes, flags,
    settings), and inside a module that has not yet run in a pass of this kind.
    """

    def __init__(self, model: nn.Module, known: KnownModel, path: Callable[[], str]):
        self.account: Account | None = None
        self.facts: Facts | None = None  # of the pass that is running
        self._model, self._path = model, path
        self._known = known
        self._kind: Hashable = None
        self._first: Running | None = None  # the module with which the account was begun
        self._asked: Counter[str] = Counter()  # attentions of the pass so far, by path

    def begin(self, running: Running, args: tuple, kwargs: dict | None, outermost: bool) -> None:
        """A module begins to run."""
        if outermost or self.facts is None:
            self.stop()
            self._asked.clear()
            self._kind = kind_of_pass(running.module, args, kwargs)
            self.facts = self._known.get(self._kind) or Facts()
        if self.account is None and id(running.module) not in self.facts.modules:
            parameters = chain(self._model.parameters(), self._model.buffers())
            torch.clear_autocast_cache()  # of weights that were cast where nothing was noted
            self.account = Account(parameters, self._path)
            self.account.__enter__()
            self._first = running
        self.facts.modules.add(id(running.module))

    def end(self, running: Running, finished: bool, outermost: bool) -> None:
        """A module has run; finished: without an error."""
        accounted = self.account is not None
        if running is self._first or outermost:
            self._close()
        if not finished:  # what would have come after is not known
            self._known.forget(self._kind)
        elif outermost and accounted:
            self._known.keep(self._kind, self.facts)

    def stop(self) -> None:
        """Keep no account any more, whatever became of it."""
        account, self.account, self._first = self.account, None, None
        if account is None:
            return
        modes = _get_current_dispatch_mode_stack()
        if account not in modes:
            return
        above = modes[modes.index(account) + 1 :]  # modes of others, entered since
        for _ in above:
            _pop_mode()
        account.__exit__(None, None, None)
        for mode in above:
            _push_mode(mode)

    def _close(self) -> None:
        account = self.account
        self.stop()
        for weights in account.weights if account else []:
            if _looks_like_attention(weights) and not weights.seen:
                self.facts.missed[weights.path] = _why(weights)

    def fact(self, running: Running, path: str, find: Callable[[Account], Fact]) -> Fact | None:
        """What is known of the attention that is passing by; None where there was no account."""
        if self.facts is None or not running.called:
            return None
        place = path, self._asked[path]
        self._asked[path] += 1
        if self.account is not None:
            self.facts.found[place] = find(self.account)
        elif place not in self.facts.found:  # this pass runs otherwise than the one before
            self._known.forget(self._kind)
        return self.facts.found.get(place)

    def made(self, tensor: Tensor) -> tuple[Weights, ...]:
        """The weights that a tensor holds, as far as there is an account of them."""
        return tuple(self.account.weights_in(tensor)) if self.account else ()

    @contextmanager
    def seeing(self) -> Iterator[None]:
        """What looks like attention inside the block is recorded, or is ours."""
        with self.account.seeing() if self.account else nullcontext():
            yield


def of_call(account: Account, query: Tensor, key: Tensor) -> Fact:
    """Of fused attention; query, key: as it was given them."""
    first, second = account.known(query), account.known(key)
    itself = attends_to_itself(first.numbers.origin, second.numbers.origin)
    return Fact("self" if itself else "cross", Lead.known(first.dimensions))


def of_weights(
    account: Account, weights: Tensor, certain: bool, tensor: Tensor, product: Product | None
) -> Fact:
    """Of weights that were written out.

    weights: (..., query, key).   certain: whether their scores are a product of two activations.
    tensor, product: what they meet the values as, and in.
    Where their scores are no product, keys come from where the values do.
    """
    held, known = account.weights_in(weights), account.known(weights)
    values = [] if product is None else [t for t, _ in product.operands if t is not tensor]
    query, key = known.numbers.origin, known.numbers.origin
    if held and held[-1].query is not None:
        query, key = held[-1].query, held[-1].key
    elif values:
        key = account.known(values[0]).numbers.origin
    left_out = any(account.known(value).numbers.attention for value in values)
    left_out |= not held and not certain
    if any(not own.over_places for own in held):
        left_out |= not _sums_over_places(account, tensor, product)
    if not left_out:
        for own in held:
            own.seen = True
    kind = "self" if attends_to_itself(query, key) else "cross"
    return Fact(kind, Lead.known(known.dimensions), left_out)


def _sums_over_places(account: Account, tensor: Tensor, product: Product | None) -> bool:
    """Whether a product sums over the tokens of the values."""
    own = product.labels_of(tensor) if product else ()
    return any(
        is_all(dim, False)
        for value, labels in (product.operands if product else [])
        if value is not tensor
        for label, dim in zip(labels, account.known(value).dimensions, strict=True)
        if label in own and label not in product.output
    )


def _why(weights: Weights) -> str:
    if weights.mixed:
        return "its weights are multiplied with other weights before they meet the values"
    if weights.query is None:
        return f"it is computed by {weights.made_by}"
    return f"what its {weights.made_by} makes meets the values in a way that is not followed"


def _looks_like_attention(weights: Weights) -> bool:
    named = re.search("attention|attn", weights.path, re.IGNORECASE)
    return weights.met and weights.over_places and bool(weights.of_products or named)
