"""Attention rollout: how much of each input token arrives at the top."""

from collections.abc import Iterable

import torch
from torch import Tensor

from attnviz.checks import check_kind
from attnviz.seeing.record import AttentionRecord


def rollout(seen: Iterable[AttentionRecord]) -> Tensor:
    """Multiply the layers' attention, averaged over heads, with half of each kept as a residual.

    seen: the self-attentions of one pass, in order, with the same tokens in each.
    Returns (batch, query, key): what each token at the top draws from each input token; rows sum to
    one.
    Raises ValueError when there are none, or they are not of that kind; TypeError for what are no
    records.
    Source: Abnar & Zuidema 2020, "Quantifying Attention Flow in Transformers", section 3.
    """
    records = list(seen) if isinstance(seen, Iterable) else [seen]
    if not records:
        raise ValueError("rollout needs at least one attention, got none")
    for record in records:
        check_kind("each of seen", record, AttentionRecord)
    n = records[0].n_queries
    for record in records:
        if record.kind != "self" or (record.n_queries, record.n_keys) != (n, n):
            raise ValueError(f"rollout needs self-attentions of {n} × {n} tokens, got {record}")
    if len({record.pass_number for record in records}) > 1:
        raise ValueError("rollout needs the attentions of one pass, got several passes")
    arrived = torch.eye(n, device=records[0].weights.device)
    for record in records:
        kept = 0.5 * record.weights.mean(1) + 0.5 * torch.eye(n, device=arrived.device)
        arrived = kept / kept.sum(-1, keepdim=True) @ arrived
    return arrived
