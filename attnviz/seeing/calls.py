"""The forms in which attention is called, brought to one: (batch, heads, token, d_k)."""

import math
from dataclasses import dataclass, replace
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from attnviz.seeing.record import AttentionRecord, Change, attention_weights, changed_head
from attnviz.seeing.scores import Scores


def as_four(tensor: Tensor, heads: int | None = None) -> Tensor:
    """A tensor (..., n, m) as (batch, heads, n, m).

    heads: how many heads are folded into the first of three dimensions; one when not given.
    """
    if tensor.dim() == 3:
        return tensor.unflatten(0, (-1, heads)) if heads else tensor[:, None]
    return tensor[None, None] if tensor.dim() == 2 else tensor.flatten(0, -4)


@dataclass
class FusedCall:
    """A call of `F.scaled_dot_product_attention`, its arguments brought to four dimensions."""

    query: Tensor
    key: Tensor
    value: Tensor
    mask: Tensor | None
    dropout: float
    is_causal: bool
    scale: float
    form: torch.Size  # (..., query) as the caller has them

    @classmethod
    def bind(
        cls,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        attn_mask: Tensor | None = None,
        dropout_p: float = 0.0,
        is_causal: bool = False,
        *,
        scale: float | None = None,
        enable_gqa: bool = False,
    ) -> "FusedCall":
        """Take the arguments as the function takes them."""
        scale = 1 / math.sqrt(query.size(-1)) if scale is None else scale
        lead = query.shape[:-2]
        if not enable_gqa:  # the leading dimensions may broadcast
            key, value = (t.expand(*lead, *t.shape[-2:]) for t in (key, value))
        if attn_mask is not None and attn_mask.dim() > 2:
            if query.dim() > 4:
                attn_mask = attn_mask.expand(*lead, *attn_mask.shape[-2:])
            while attn_mask.dim() < query.dim():
                attn_mask = attn_mask[None]
        mask = None if attn_mask is None else as_four(attn_mask)
        four = (as_four(t) for t in (query, key, value))
        return cls(*four, mask, dropout_p, is_causal, scale, query.shape[:-1])

    def unpacked(self, module: nn.Module) -> "FusedCall":
        """The call with its heads apart, where transformers packed them.

        For a single token, it may turn the heads that share a key into queries of one head.
        """
        shared = getattr(module, "num_key_value_groups", 1)
        heads = getattr(getattr(module, "config", None), "num_attention_heads", None)
        if shared == 1 or self.query.size(2) != shared or self.heads * shared != heads:
            return self
        mask = self.mask
        if mask is not None and mask.size(2) > 1:
            mask = mask.flatten(1, 2)[:, :, None]
        return replace(self, query=self.query.flatten(1, 2)[:, :, None], mask=mask)

    @property
    def heads(self) -> int:
        return self.query.size(1)

    def kept(self) -> dict[str, Any]:
        """What a record keeps: copies of query and key, as views would hold larger tensors."""
        copies = {"query": self.query.detach().clone(), "key": self.key.detach().clone()}
        return copies | {"mask": self.mask, "is_causal": self.is_causal, "scale": self.scale}

    def weights(self) -> Tensor:
        """The weights, (batch, heads, query, key), float32, in the graph."""
        return attention_weights(self.query, self.key, self.mask, self.is_causal, self.scale)

    def mix(self, weights: Tensor) -> Tensor:
        """The output that these weights give, in the form of the call's own."""
        value = self.value
        if value.size(1) != self.heads:
            value = value.repeat_interleave(self.heads // value.size(1), dim=1)
        mixed = F.dropout(weights, self.dropout).to(value.dtype) @ value
        return mixed.reshape(*self.form, mixed.size(-1))

    def mix_changed(self, output: Tensor, changes: dict[int, Change]) -> Tensor:
        """The call's own output with the changed heads computed anew, and nothing else touched."""
        shape = output.shape
        output = output.reshape(*self.query.shape[:3], -1).clone()
        shared = self.heads // self.key.size(1)  # heads that share a key, with grouped queries
        for head, change in changes.items():
            group = slice(head // shared, head // shared + 1)
            query = self.query[:, head : head + 1]
            mask = self.mask
            if mask is not None and mask.size(1) > 1:
                mask = mask[:, head : head + 1]
            weights = attention_weights(query, self.key[:, group], mask, self.is_causal, self.scale)
            weights = F.dropout(changed_head(weights[:, 0], change, head), self.dropout)
            output[:, head] = weights.to(output.dtype) @ self.value[:, group][:, 0]
        return output.reshape(shape)


@dataclass
class WrittenOut:
    """What is known of a tensor of weights on its way from the softmax to the values.

    undropped: the weights before dropout, when dropout has been on them.
    heads:     how many heads were folded into the batch, if they were.
    record:    what was recorded of them, once they have met the values.
    scores:    what the softmax was given, as far as that is known, until then.
    """

    undropped: Tensor | None = None
    heads: int | None = None
    record: AttentionRecord | None = None
    scores: Scores | None = None

    def carry_over(self, changed: Tensor, weights: Tensor) -> Tensor:
        """Changed weights in the form of the old, under the dropout that the old went through."""
        changed = changed.reshape(weights.shape).to(weights.dtype)
        if self.undropped is None:
            return changed
        undropped = self.undropped.detach().reshape(weights.shape)
        kept = (weights.detach() / undropped).masked_fill(undropped == 0, 1)
        return changed * kept


def einsum_order(equation: Any, number: int) -> list[int] | None:
    """The order that brings the weights in an einsum to (..., query, key).

    equation: as given to torch.einsum.   number: which of its operands the weights are.
    The key is their last dimension, along which the softmax ran; the query is the one that the
    output has too, and no other operand. None where the equation does not tell.
    """
    if not isinstance(equation, str) or "->" not in equation or "." in equation:
        return None
    inputs, output = equation.replace(" ", "").split("->")
    labels = inputs.split(",")
    weights, others = labels[number], "".join(labels[:number] + labels[number + 1 :])
    queries = [d for d in weights if d in output and d not in others]
    if len(queries) != 1:
        return None
    rest = [d for d in weights[:-1] if d not in queries]
    return [weights.index(d) for d in (*rest, *queries, weights[-1])]


def kind_of(module: nn.Module, args: tuple, kwargs: dict, record: AttentionRecord) -> str:
    """Whether a module attended to its own tokens or to others that it was given beside them.

    Others are a second sequence among its arguments: (batch, key, width), with as many tokens as
    the attention had keys. Numbers for a mask, (batch, query, key), are no sequence.
    """
    sequences = [
        t
        for t in (*args, *kwargs.values())
        if isinstance(t, Tensor) and t.dim() == 3 and t.is_floating_point()
    ]
    mask = (record.n_queries, record.n_keys)
    others = [
        t
        for t in sequences[1:]
        if t is not sequences[0]
        and t.size(1) == record.n_keys
        and (t.shape[1:] != mask or t.size(2) == sequences[0].size(2))
    ]
    return "cross" if others else "self"
