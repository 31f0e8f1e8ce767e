"""Attention with fewer heads."""

import copy
from collections.abc import Iterable, Sequence

import torch

from attnviz.checks import check_kind, whole_or_none
from attnviz.layers.attention import MultiHeadAttention


@torch.no_grad()
def keep_heads(attention: MultiHeadAttention, heads: Sequence[int]) -> MultiHeadAttention:
    """The same attention without its other heads: smaller, faster, and changed as little as can be.

    heads: the heads that stay, at least one, in the order that they shall have.
    Returns a new layer, for self-attention: its projections hold the rows and columns of these
    heads alone. What it returns is what the old layer returns with the weights of the others at 0.
    Raises TypeError for another layer, ValueError for no heads, one that is named twice, one that
    is not there or what are no whole numbers.
    Source: Michel et al. 2019, "Are Sixteen Heads Really Better than One?", section 2.3.
    """
    check_kind("attention", attention, MultiHeadAttention)
    heads = list(heads) if isinstance(heads, Iterable) else [heads]
    kept = [whole_or_none(head) for head in heads]
    if not kept or len(set(kept)) < len(kept) or not set(kept) <= {*range(attention.n_heads)}:
        raise ValueError(
            f"heads must be at least one of 0 to {attention.n_heads - 1}, each once, got {heads}"
        )
    heads = kept
    fewer = copy.deepcopy(attention)
    d_k = attention.out_proj.in_features // attention.n_heads
    columns = (torch.tensor(heads)[:, None] * d_k + torch.arange(d_k)).flatten()
    columns = columns.to(attention.out_proj.weight.device)
    rows = torch.cat([columns + part * attention.out_proj.in_features for part in range(3)])
    fewer.n_heads = len(heads)
    fewer.qkv_proj.weight.data = attention.qkv_proj.weight[rows].clone()
    if attention.qkv_proj.bias is not None:
        fewer.qkv_proj.bias.data = attention.qkv_proj.bias[rows].clone()
    fewer.out_proj.weight.data = attention.out_proj.weight[:, columns].clone()
    fewer.qkv_proj.out_features, fewer.out_proj.in_features = len(rows), len(columns)
    return fewer
