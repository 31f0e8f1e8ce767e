"""Scaled dot-product attention and multi-head attention (Vaswani et al. 2017, section 3.2)."""

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from attnviz.checks import check_positive, check_rate, check_whole
from attnviz.layers.masks import check_mask
from attnviz.layers.positions import rotate
from attnviz.tensors import check_floats, check_tensor, extremes


def attention_weights(
    query: Tensor, key: Tensor, mask: Tensor | None = None, bias: Tensor | None = None
) -> Tensor:
    """How much each query attends to each key: softmax(q kᵀ / √d_k) over the keys it may see.

    query: (..., n_queries, d_k)   key: (..., n_keys, d_k)
    mask:  bool, True where a query may attend: (n_queries, n_keys) for all, or with as many
           dimensions as query, each of the full size or 1.
    bias:  finite numbers added to the scores, such as `alibi`; broadcasts to them.
    Returns (..., n_queries, n_keys); every row sums to one, a row with nothing to see is zero.
    Raises TypeError for what are no tensors of floating-point numbers, a mask that is not bool or a
    bias that is, ValueError for shapes that do not fit.
    Source: Vaswani et al. 2017, equation 1.
    """
    _check_query_and_key(query, key)
    scores = query @ key.transpose(-2, -1) / math.sqrt(query.size(-1))  # (..., query, key)
    if bias is not None:
        scores = scores + _to_add(bias, scores.shape, scores.dtype)
    if mask is None:
        return scores.softmax(-1)
    check_mask(mask, scores.shape)
    weights = scores.masked_fill(~mask, torch.finfo(scores.dtype).min).softmax(-1)
    return weights * mask  # a row with nothing to see becomes zeros, and its gradient stays finite


def scaled_dot_product_attention(
    query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """Mix the values by how well each query matches each key.

    query: (..., n_queries, d_k)   key: (..., n_keys, d_k)   value: (..., n_keys, d_v)
    mask:  as in `attention_weights`.
    Returns the mixed values (..., n_queries, d_v) and the weights (..., n_queries, n_keys).
    Raises as `attention_weights`, and ValueError when key and value differ in number.
    Source: Vaswani et al. 2017, equation 1.
    """
    weights = attention_weights(query, key, mask)
    check_floats("value", value)
    if value.shape[:-1] != key.shape[:-1]:
        raise ValueError(
            f"value must come with one vector for each key: expected {tuple(key.shape[:-1])} "
            f"before the last dimension, got {tuple(value.shape[:-1])}"
        )
    return weights @ value, weights


def _check_query_and_key(query: Tensor, key: Tensor) -> None:
    check_floats("query", query)
    check_floats("key", key)
    if query.dim() < 2 or key.dim() != query.dim() or query.shape[:-2] != key.shape[:-2]:
        raise ValueError(
            "query (..., n_queries, d_k) and key (..., n_keys, d_k) must agree in their leading "
            f"dimensions, got {tuple(query.shape)} and {tuple(key.shape)}"
        )
    if query.size(-1) != key.size(-1):
        raise ValueError(
            "query and key must have the same d_k (last dimension), "
            f"got {query.size(-1)} and {key.size(-1)}"
        )


def _for_heads(mask: Tensor, shape: tuple[int, ...]) -> Tensor:
    """A mask that fits scores of this shape (batch, heads, query, key), or an error."""
    if isinstance(mask, Tensor) and mask.dim() == 3:  # (batch, query, key), the same for each head
        check_mask(mask, (shape[0], *shape[2:]))
        return mask.unsqueeze(1)
    check_mask(mask, shape)
    return mask


def _to_add(bias: Tensor, shape: tuple[int, ...], dtype: torch.dtype) -> Tensor:
    """A bias in the dtype of scores of this shape, with their last two dimensions, or an error."""
    check_tensor("bias", bias)
    if bias.dtype == torch.bool:
        raise TypeError("bias must hold numbers to add to the scores, got torch.bool; give a mask")
    bias, shape = torch.atleast_2d(bias), tuple(shape)
    extra = len(shape) - bias.dim()
    if extra < 0 or any(n not in (1, m) for n, m in zip(bias.shape, shape[extra:], strict=True)):
        raise ValueError(f"bias must broadcast to {shape}, got {tuple(bias.shape)}")
    return bias.to(dtype)


def _merge(mask: Tensor | None, bias: Tensor | None) -> Tensor | None:
    """A mask and a bias as the one thing that the fused kernel takes."""
    if mask is None or bias is None:
        return bias if mask is None else mask
    return torch.where(mask, bias, -math.inf)


def _fused(
    query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None, dropout: float
) -> Tensor:
    """Attention in torch's fused kernel; on CPUs in float32, as its bfloat16 backward is slow."""
    if query.device.type != "cpu" or not torch.is_autocast_enabled("cpu"):
        return F.scaled_dot_product_attention(query, key, value, mask, dropout)
    with torch.autocast("cpu", enabled=False):
        mask = mask.float() if mask is not None and mask.is_floating_point() else mask
        inputs = (t.float() for t in (query, key, value))
        return F.scaled_dot_product_attention(*inputs, mask, dropout)


def take(x: Tensor, at: Tensor) -> Tensor:
    """The vectors of x at some places of each row.

    x: (batch, token, d_model)   at: (batch, n) int64, 0 to token - 1.
    Returns (batch, n, d_model).
    """
    return x.gather(1, at[..., None].expand(-1, -1, x.size(2)))


def _check_places(at: Tensor, x: Tensor) -> None:
    check_tensor("at", at)
    if at.dtype != torch.int64:
        raise TypeError(f"at must be int64, got {at.dtype}")
    if at.dim() != 2 or len(at) != len(x):
        raise ValueError(f"at must be (batch={len(x)}, n), got {tuple(at.shape)}")
    low, high = extremes(at, x.size(1))
    if low < 0 or high >= x.size(1):
        raise ValueError(f"at must be between 0 and {x.size(1) - 1}, got {low} to {high}")


class MultiHeadAttention(nn.Module):
    """Several attentions side by side, each on its own slice of the model's width.

    d_model: width of the tokens, in and out.   n_heads: number of heads; must divide d_model.
    bias:    whether the projections add a bias.
    dropout: probability with which a weight is dropped in training, before it meets the values.
    rotary:  whether queries and keys are turned by their positions (see `rotate`).
    rotary_base: the longest wavelength, in 2π tokens.
    Raises ValueError when n_heads does not divide d_model, dropout is not in [0, 1), rotary_base is
    not positive, or a head has an odd width and rotary is set; TypeError for what are no numbers.
    Source: Vaswani et al. 2017, section 3.2.2.
    """

    def __init__(
        self,
        d_model: int,
        n_heads: int,
        *,
        bias: bool = True,
        dropout: float = 0.0,
        rotary: bool = False,
        rotary_base: float = 10_000.0,
    ):
        super().__init__()
        d_model, n_heads = check_whole("d_model", d_model), check_whole("n_heads", n_heads)
        if n_heads < 1 or d_model < 1 or d_model % n_heads:
            raise ValueError(
                f"d_model must be a positive multiple of n_heads, got d_model={d_model} "
                f"and n_heads={n_heads}"
            )
        if rotary and d_model // n_heads % 2:
            raise ValueError(
                f"rotary needs heads of even width, got d_model={d_model} and n_heads={n_heads}"
            )
        self.d_model, self.n_heads = d_model, n_heads
        self.dropout = check_rate("dropout", dropout)
        self.rotary, self.rotary_base = rotary, check_positive("rotary_base", rotary_base)
        self.qkv_proj = nn.Linear(d_model, 3 * d_model, bias=bias)  # rows: query, key, value
        self.out_proj = nn.Linear(d_model, d_model, bias=bias)
        nn.init.xavier_uniform_(self.qkv_proj.weight)
        if bias:
            nn.init.zeros_(self.qkv_proj.bias)
            nn.init.zeros_(self.out_proj.bias)

    def forward(
        self,
        x: Tensor,
        memory: Tensor | None = None,
        mask: Tensor | None = None,
        need_weights: bool = False,
        bias: Tensor | None = None,
        at: Tensor | None = None,
    ) -> tuple[Tensor, Tensor | None]:
        """Let the tokens of x attend to themselves, or to those of memory (cross-attention).

        x:      (batch, query, d_model)   memory: (batch, key, d_model)
        mask:   bool, True where a query may attend: (query, key), (batch, query, key) or
                (batch, heads, query, key); in the last two a dimension may be 1.
        need_weights: return the weights too; without them the fused kernel of torch is used.
        bias:   finite numbers added to the scores, such as `alibi`; broadcasts to (batch, heads,
                query, key).
        at:     (batch, query) int64: of self-attention only the results at these places of x are
                wanted. They are the queries then; all tokens are keys. This saves time where the
                other results would not be used.
        Returns (batch, query, d_model) and the weights (batch, heads, query, key) or None.
        Raises ValueError or TypeError for inputs, a mask or a bias that do not fit.
        """
        self._check_tokens("x", x)
        if memory is not None:
            self._check_tokens("memory", memory)
            if memory.size(0) != x.size(0):
                raise ValueError(f"memory has batch size {len(memory)}, x has {len(x)}")
        if at is not None:
            if memory is not None:
                raise ValueError("at chooses queries of self-attention: give it without memory")
            _check_places(at, x)
            x, memory = take(x, at), x
        query, key, value = self._project(x, memory, at)  # (batch, heads, token, d_k) each
        scores = (*query.shape[:-1], key.size(-2))  # (batch, heads, query, key)
        mask = None if mask is None else _for_heads(mask, scores)
        bias = None if bias is None else _to_add(bias, scores, query.dtype)
        weights = None
        dropout = self.dropout if self.training else 0.0
        if need_weights:
            weights = attention_weights(query, key, mask, bias)
            mixed = F.dropout(weights, dropout) @ value
        else:
            mixed = _fused(query, key, value, _merge(mask, bias), dropout)
        return self.out_proj(mixed.transpose(1, 2).flatten(2)), weights

    def _project(
        self, x: Tensor, memory: Tensor | None, at: Tensor | None
    ) -> tuple[Tensor, Tensor, Tensor]:
        if memory is None:
            projected = self.qkv_proj(x).chunk(3, dim=-1)
        else:
            weight, bias, d_model = self.qkv_proj.weight, self.qkv_proj.bias, self.d_model
            bias_q, bias_kv = (None, None) if bias is None else (bias[:d_model], bias[d_model:])
            query = F.linear(x, weight[:d_model], bias_q)
            projected = query, *F.linear(memory, weight[d_model:], bias_kv).chunk(2, dim=-1)
        query, key, value = (t.unflatten(-1, (self.n_heads, -1)).transpose(1, 2) for t in projected)
        if self.rotary:
            query = rotate(query, None if at is None else at[:, None], self.rotary_base)
            key = rotate(key, base=self.rotary_base)
        return query, key, value

    def _check_tokens(self, name: str, tokens: Tensor) -> None:
        check_floats(name, tokens)
        if tokens.dim() != 3 or tokens.size(-1) != self.d_model:
            raise ValueError(
                f"{name} must be (batch, token, d_model={self.d_model}), got {tuple(tokens.shape)}"
            )
