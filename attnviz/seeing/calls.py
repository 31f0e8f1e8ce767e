"""The forms in which attention is called, brought to one: (batch, heads, token, d_k)."""

import math
import sys
from dataclasses import dataclass, replace
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from attnviz.seeing.leading import Lead
from attnviz.seeing.record import AttentionRecord, Change, attention_weights, changed_head


def _as_plain(mask: Tensor | None, device: torch.device) -> Tensor | None:
    """A mask as numbers or bool, where it is one of torch's causal biases, which hold neither."""
    biases = sys.modules.get("torch.nn.attention.bias")  # where it was not imported, there are none
    if biases is not None and isinstance(mask, biases.CausalBias):
        return mask._materialize(device)
    return mask


def in_form_of(weights: Tensor, four: Tensor, order: list[int]) -> Tensor:
    """Weights (batch, heads, query, key) in the form, type and memory of those they replace.

    order: the order of dimensions that brought these to (..., query, key).
    """
    four = four.reshape([weights.size(d) for d in order]).to(weights.dtype)
    changed = four.permute([order.index(i) for i in range(len(order))])
    in_memory = sorted(range(weights.dim()), key=weights.stride, reverse=True)
    if not weights.permute(in_memory).is_contiguous():
        return changed
    changed = changed.permute(in_memory).contiguous()
    return changed.permute([in_memory.index(i) for i in range(weights.dim())])


def _mask(mask: Tensor, lead: Lead, form: torch.Size) -> Tensor:
    """A mask as (batch, heads, query, key), where each may be 1."""
    if mask.dim() > 2 and not lead.is_plain(form):
        return lead.to_four(mask.expand(*form, *mask.shape[-2:]))
    return mask[(None,) * (4 - mask.dim())]


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
    lead: Lead  # what the dimensions before the query are

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
        lead: Lead | None = None,
    ) -> "FusedCall":
        """Take the arguments as the function takes them; lead: as `Lead` has it, where known."""
        scale = 1 / math.sqrt(query.size(-1)) if scale is None else scale
        attn_mask = _as_plain(attn_mask, query.device)
        form = query.shape[:-2]
        if not enable_gqa:  # the leading dimensions may broadcast
            form = torch.broadcast_shapes(*(t.shape[:-2] for t in (query, key, value)))
        if form != query.shape[:-2]:
            query, lead = query.expand(*form, *query.shape[-2:]), None
        if lead is None or enable_gqa:
            lead = Lead.plain(form)
        if enable_gqa:  # keys have fewer heads
            if query.dim() == 3:  # and there is no batch
                lead, key, value = Lead(tuple(form), (0,)), key[None], value[None]
            key, value = (Lead.plain(t.shape[:-2]).to_four(t) for t in (key, value))
        else:  # the leading dimensions may broadcast
            key, value = (lead.to_four(t.expand(*form, *t.shape[-2:])) for t in (key, value))
        mask = None if attn_mask is None else _mask(attn_mask, lead, form)
        return cls(
            lead.to_four(query),
            key,
            value,
            mask,
            dropout_p,
            is_causal,
            scale,
            query.shape[:-1],
            lead,
        )

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
        return self._back(mixed)

    def mix_changed(self, output: Tensor, changes: dict[int, Change]) -> Tensor:
        """The call's own output with the changed heads computed anew, and nothing else touched."""
        output = self.lead.to_four(output).reshape(*self.query.shape[:3], -1).clone()
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
        return self._back(output)

    def _back(self, output: Tensor) -> Tensor:
        """An output (batch, heads, query, d_v) in the form of the call's own."""
        four = output.reshape(-1, self.lead.n_heads, self.form[-1], output.size(-1))
        return self.lead.back(four, self.form[:-1])


def kind_of(module: nn.Module, args: tuple, record: AttentionRecord) -> str:
    """Whether a module attended to its own tokens or to others that it was given beside them.

    Others are a second sequence among its arguments: (batch, key, width), with as many tokens as
    the attention had keys. Numbers for a mask, (batch, query, key), are no sequence.
    """
    sequences = [
        t for t in args if isinstance(t, Tensor) and t.dim() == 3 and t.is_floating_point()
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
