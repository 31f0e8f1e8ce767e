"""Attention rollout: how much of each input token arrives at the top."""

from collections.abc import Iterable

import torch
from torch import Tensor

from attnviz.checks import check_kind
from attnviz.seeing.record import AttentionRecord


def rollout(seen: Iterable[AttentionRecord]) -> Tensor:
    """Multiply the layers' attention, averaged over heads, each with its residual added.

    seen: the self-attentions of one pass, in order, with the same tokens in each.
    Returns (batch, query, key): what each token at the top draws from each input token; rows sum to
    one. Weights that sum to one are one half of a layer, and the residual is the other. Attention
    to no key (sinks, or a head that is off) adds nothing to a token, so the residual, which stays
    the same, is the larger part of it: with all of a row to no key, the token is what it was.
    Raises ValueError when there are none, or they are not of that kind, as attention within windows
    (Swin), whose tokens are spread over the batch; TypeError for what are no records.
    Source: Abnar & Zuidema 2020, "Quantifying Attention Flow in Transformers", section 3: the
    identity is added to the weights, for the residual, and the rows are normalised again.
    """
    records = list(seen) if isinstance(seen, Iterable) else [seen]
    if not records:
        raise ValueError("rollout needs at least one attention, got none")
    for record in records:
        check_kind("each of seen", record, AttentionRecord)
    _check_one_sequence(records)
    residual = torch.eye(records[0].n_queries, device=records[0].weights.device)
    arrived = residual
    for record in records:
        together = record.weights.mean(1) + residual
        arrived = together / together.sum(-1, keepdim=True) @ arrived
    return arrived


def _check_one_sequence(records: list[AttentionRecord]) -> None:
    """Raise ValueError for records that are not self-attentions of the same tokens in one pass."""
    first = records[0]
    passes = sorted({record.pass_number for record in records})
    if len(passes) > 1:
        raise ValueError(
            f"rollout needs the attentions of one pass, got several passes: choose one, such as "
            f"[r for r in seen if r.pass_number == {passes[0]}]"
        )
    n = first.n_queries
    for record in records:
        if record.kind != "self" or (record.n_queries, record.n_keys) != (n, n):
            raise ValueError(
                f"rollout needs self-attentions of {n} × {n} tokens, got {record}"
                + _remedy(records)
            )
        if record.batch_size != first.batch_size:
            raise ValueError(
                f"rollout needs the same tokens in each attention, but {record.path} has a batch "
                f"of {record.batch_size} and {first.path} of {first.batch_size}: attention within "
                "windows, such as Swin's, spreads the tokens over the batch, and rollout cannot "
                "follow them; look at one layer's windows by themselves, such as "
                f"attnviz.heads([seen[{records.index(record)}]], tokens, item=0)"
            )


def _remedy(records: list[AttentionRecord]) -> str:
    """Which of the records to choose, if some go together."""
    sizes = [(r.n_queries, r.n_keys) for r in records if r.kind == "self"]
    square = [size for size in sizes if size[0] == size[1]]
    if not square:
        return ""
    n = square[0][0]
    only = "" if set(sizes) == {(n, n)} else f" and (r.n_queries, r.n_keys) == ({n}, {n})"
    return f'; choose those that go together: [r for r in seen if r.kind == "self"{only}]'
