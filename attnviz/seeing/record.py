"""One attention, as it happened: queries, keys and mask; weights are worked out when asked for.

Where a model writes its weights out, they are kept as they are, beside the queries and keys.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass, field, replace

import torch
import torch.nn.functional as F
from torch import Tensor

from attnviz.checks import check_whole

_BLOCK = 2**24  # weights held at once while an overview is made: 64 MB of float32

Change = Callable[[Tensor], Tensor]


@dataclass(eq=False, repr=False)
class AttentionRecord:
    """One attention inside a forward pass.

    index: position among the attentions of its pass.   pass_number: which pass, from 0.
    path: the module that attended, such as "encoder.layer.3.attention.self".
    kind: "self" or "cross".   heads, n_queries, n_keys, batch_size: sizes.
    query, key, mask, scale: softmax(query · key · scale, masked) are the weights, before any edit.
        Of a model that writes its weights out, query and key are None where they were not found:
        between the product of the two and the softmax there was a step that has no place here, such
        as a tanh. What was found gives a few rows of the written weights, up to rounding.
    written_out: the weights of such a model, or those in the graph; the record then answers from
        these.
    sinks: whether a share of each row may go to no key, as in models whose softmax has learned
        sinks beside the keys (gpt-oss): rows then sum to less than one, and `rest` is what is left.
        Softmax(query · key · scale, masked) is then what the keys share among themselves.
    """

    index: int
    pass_number: int
    path: str
    kind: str
    query: Tensor | None = None  # (batch, heads, query, d_k)
    key: Tensor | None = None  # (batch, heads or fewer, key, d_k)
    mask: Tensor | None = None  # bool or added to the scores, broadcasts to (batch, heads, q, k)
    is_causal: bool = False
    scale: float = 1.0
    written_out: Tensor | None = None  # (batch, heads, query, key), the model's own weights
    changes: dict[int, Change] = field(default_factory=dict)  # head: what an edit made of it
    sinks: bool = False

    _version: int | None = field(default=None, init=False)  # how often these had been changed

    def __post_init__(self) -> None:
        self.keep(self.written_out)

    def keep(self, weights: Tensor | None) -> None:
        """Keep weights that were written out; they must not be changed in place from now on."""
        self.written_out = weights
        self._version = None if weights is None else version_of(weights)

    def free(self) -> None:
        """Give the memory back; asking for weights raises RuntimeError from now on."""
        self.query = self.key = self.mask = self.written_out = None
        self.changes = {}

    @property
    def batch_size(self) -> int:
        return self._like.size(0)

    @property
    def heads(self) -> int:
        return self._like.size(1)

    @property
    def n_queries(self) -> int:
        return self._like.size(2)

    @property
    def n_keys(self) -> int:
        like = self._like
        return like.size(3) if like is self.written_out else self.key.size(2)

    @property
    def weights(self) -> Tensor:
        """All weights, (batch, heads, query, key), float32; computed anew at each call.

        Captured with gradients: the tensor in the graph itself, so that its .grad is there after
        backward(), in the model's own dtype where the model wrote its weights out.
        """
        if self.written_out is not None and self.written_out.requires_grad:
            self._check_unchanged()
            return self.written_out
        return self.tile(slice(None), slice(None))

    @property
    def rest(self) -> Tensor:
        """The share of each row that goes to no key, (batch, heads, query), float32.

        After an edit, it is what the edit left: all of it where a head is off. Zeros for a record
        without sinks, also where a query may attend to nothing.
        """
        if self.sinks:
            return (1 - self.weights.float().sum(-1)).clamp(0, 1)
        like = self._like
        return torch.zeros(like.shape[:3], dtype=torch.float32, device=like.device)

    def row(self, query: int) -> Tensor:
        """What one query attends to: (batch, heads, key).

        query: its position; negative numbers count from the end.
        Raises TypeError for what is no whole number, IndexError outside the queries.
        """
        query = check_whole("query", query)
        if not -self.n_queries <= query < self.n_queries:
            n = self.n_queries
            raise IndexError(f"query must be between {-n} and {n - 1}, got {query}")
        return self.tile(slice(query, query + 1 or None), slice(None))[:, :, 0]

    def tile(self, queries: slice, keys: slice) -> Tensor:
        """The weights of some queries and keys, (batch, heads, query, key), float32.

        queries, keys: slices, as in weights[:, :, queries, keys].
        """
        if not isinstance(queries, slice) or not isinstance(keys, slice):
            raise TypeError(f"queries and keys must be slices, got {queries!r} and {keys!r}")
        if self.changes and queries != slice(None):  # a change may look at all rows
            return self.tile(slice(None), keys)[:, :, queries]
        weights = self._weights_of(queries)
        if self.changes:
            weights = apply_changes(weights, self.changes, self.sinks)
        return weights[..., keys]

    def part(self, item: int, heads: slice) -> "AttentionRecord":
        """The same attention for one batch item and some of its heads; nothing is copied.

        item: its place in the batch.   heads: a slice of the heads.
        A change made by `edit` sees this item alone. Raises TypeError for what is no whole number
        or no slice, IndexError when there is no such item.
        """
        item = check_whole("item", item)
        if not isinstance(heads, slice):
            raise TypeError(f"heads must be a slice, got {heads!r}")
        if not 0 <= item < self.batch_size:
            raise IndexError(f"item must be between 0 and {self.batch_size - 1}, got {item}")
        self._check_unchanged()
        chosen = range(self.heads)[heads]
        items = slice(item, item + 1)

        def cut(tensor: Tensor | None) -> Tensor | None:
            if tensor is None:
                return None
            while tensor.dim() < 4:  # a mask may leave out dimensions, or be alike for all
                tensor = tensor[None]
            tensor = tensor[items] if tensor.size(0) > 1 else tensor
            return tensor[:, heads] if tensor.size(1) > 1 else tensor

        key = None if self.key is None else self.key[items]
        if key is not None and key.size(1) == self.heads:
            key = key[:, heads]
        elif key is not None and chosen != range(self.heads):  # grouped queries share keys
            group = self.heads // key.size(1)
            key = torch.cat([key[:, h // group, None] for h in chosen], 1)
        return replace(
            self,
            query=cut(self.query),
            key=key,
            mask=cut(self.mask),
            written_out=cut(self.written_out),
            changes={i: self.changes[h] for i, h in enumerate(chosen) if h in self.changes},
        )

    def overview(self, size: int) -> Tensor:
        """The weights, made smaller by keeping the largest of each patch.

        size: the most queries and keys that the result may have.
        Returns (batch, heads, query, key) with at most size queries and keys, float32. It is worked
        out in blocks of queries: N × N weights are never held for all heads at once, unless an
        edit changed them, which may look at all rows.
        Raises TypeError when size is no whole number, ValueError when it is not positive.
        """
        size = check_whole("size", size, 1)
        rows, columns = min(size, self.n_queries), min(size, self.n_keys)
        edges = [self.n_queries * i // rows for i in range(rows + 1)]
        at_once = max(1, _BLOCK // (self.batch_size * self.heads * self.n_keys))
        whole = self.weights if self.changes else None
        result = []
        start = 0
        while start < rows:
            stop = start + 1
            while stop < rows and edges[stop + 1] - edges[start] <= at_once:
                stop += 1
            queries = slice(edges[start], edges[stop])
            block = self.tile(queries, slice(None)) if whole is None else whole[:, :, queries]
            for i in range(start, stop):
                patch = block[:, :, edges[i] - edges[start] : edges[i + 1] - edges[start]]
                result.append(F.adaptive_max_pool1d(patch.amax(2), columns))
            start = stop
        return torch.stack(result, 2)

    def _weights_of(self, queries: slice) -> Tensor:
        if self._like is self.written_out:
            self._check_unchanged()
            return self.written_out[:, :, queries].float()
        return attention_weights(
            self.query, self.key, self.mask, self.is_causal, self.scale, queries
        )

    @property
    def _like(self) -> Tensor:
        like = self.query if self.written_out is None else self.written_out
        if like is None:
            raise RuntimeError(
                f"attention {self.index} ({self.path}) was freed: capture it again to see it"
            )
        return like

    def _check_unchanged(self) -> None:
        if self.written_out is not None and version_of(self.written_out) != self._version:
            raise RuntimeError(
                f"the weights of attention {self.index} ({self.path}), which are the model's own, "
                "were changed in place after they were seen: capture them again, and change a "
                "clone of what the model returned"
            )

    def __repr__(self) -> str:
        place = f"attention {self.index} of pass {self.pass_number}"
        if self.query is None and self.written_out is None:
            return f"<{place}: {self.path}, {self.kind}, freed>"
        sizes = f"{self.heads} heads, {self.n_queries} × {self.n_keys}"
        sizes += ", with sinks" if self.sinks else ""
        return f"<{place}: {self.path}, {self.kind}, {sizes}>"


def attention_weights(
    query: Tensor,
    key: Tensor,
    mask: Tensor | None,
    is_causal: bool,
    scale: float,
    queries: slice = slice(None),
) -> Tensor:
    """The softmax that fused attention computes inside, in float32, for some of the queries.

    query: (batch, heads, query, d_k)   key: (batch, heads or a divisor of them, key, d_k)
    mask:  None, bool (True: may attend) or numbers added to the scores.
    Returns (batch, heads, query, key). A row that the mask forbids altogether is zero; one whose
    scores are nan stays nan.
    """
    n_queries, n_keys = query.size(2), key.size(2)
    query = query[:, :, queries].float()
    if key.size(1) != query.size(1):  # grouped queries: several heads share a key
        key = key.repeat_interleave(query.size(1) // key.size(1), dim=1)
    scores = (query @ key.float().mT).mul_(scale)  # (batch, heads, query, key)
    if is_causal:
        places = torch.arange(max(n_queries, n_keys), device=scores.device)
        future = places[:n_keys] > places[:n_queries][queries, None]
        scores = scores.masked_fill(future, -math.inf)
    if mask is not None:
        mask = mask[..., queries, :] if mask.size(-2) > 1 else mask
        if mask.dtype == torch.bool:
            scores = scores.masked_fill(~mask, -math.inf)
        else:
            scores = scores + mask.float()
    weights = scores.softmax(-1)
    # a softmax without any finite score is nan throughout; on the meta device nothing has values
    if not weights.is_meta and weights[..., 0].isnan().any():
        weights = weights.masked_fill((scores == -math.inf).all(-1, keepdim=True), 0.0)
    return weights


def version_of(tensor: Tensor) -> int | None:
    """A number that grows with each change in place; inference mode does not count them."""
    return None if tensor.is_inference() else tensor._version


def apply_changes(weights: Tensor, changes: dict[int, Change], sinks: bool = False) -> Tensor:
    """Weights with some heads changed; weights and result are (batch, heads, query, key).

    sinks: whether a share of each row may go to no key.
    """
    heads = [
        changed_head(weights[:, h], changes[h], h, sinks) if h in changes else weights[:, h]
        for h in range(weights.size(1))
    ]
    return torch.stack(heads, 1)


def changed_head(weights: Tensor, change: Change, head: int, sinks: bool = False) -> Tensor:
    """One head's weights (batch, query, key) after a change, checked.

    sinks: whether a share of each row may go to no key.
    Raises ValueError when the change does not return weights of the same shape whose rows sum to
    one, or to what they summed to before (in a model that gates its weights), or are all zero; with
    sinks, to at most one. A TypeError, too, becomes a ValueError: behind an operator such as
    weights @ value Python would take it for a missing operator and hide its message.
    """
    try:
        changed = change(weights)
    except TypeError as error:
        raise ValueError(f"the edit of head {head} raised TypeError: {error}") from error
    if not isinstance(changed, Tensor):
        raise ValueError(
            f"the edit of head {head} must return a tensor, got {type(changed).__name__}"
        )
    if changed.shape != weights.shape:
        raise ValueError(
            f"the edit of head {head} must keep the shape (batch, query, key) = "
            f"{tuple(weights.shape)}, got {tuple(changed.shape)}"
        )
    if changed.is_meta:  # without values, there is nothing more to check
        return changed
    sums = changed.detach().float().sum(-1)
    before = weights.detach().float().sum(-1)
    off = (sums - sums.clamp(0, 1)) if sinks else (sums - 1) * (sums != 0)
    as_before = (sums - before).abs() <= 0.02 * before.abs()
    wrong = sums[(off.abs() > 0.02) & ~as_before | ~sums.isfinite()]
    if len(wrong):
        wanted = "at most 1 (the rest goes to no key)" if sinks else "1 (or are all zero)"
        raise ValueError(
            f"the edit of head {head} must return rows that sum to {wanted}, "
            f"got one that sums to {wrong[0].item():.4g}"
        )
    return changed
