"""The blocks that Transformers are stacked from."""

from collections.abc import Callable

import torch.nn.functional as F
from torch import Tensor, nn

from attnviz.checks import check_at_least_0, check_whole
from attnviz.layers.attention import MultiHeadAttention, take

Activation = Callable[[Tensor], Tensor]
Attended = tuple[Tensor, Tensor | None]  # what attention returns: vectors, and weights or None


class EncoderBlock(nn.Module):
    """Attention, then a feed-forward network; each is added to its input (a residual connection).

    d_model: width of the tokens.   n_heads: heads of the attention.   d_ff: width between the two
    feed-forward layers.   activation: between them, an exact GELU when not given.
    dropout: probability, on both branches and on the attention weights.
    eps:     added to the variance in LayerNorm (BERT: 1e-12, torch: 1e-5).
    pre_norm: normalise what goes into each branch (pre-LN), instead of each sum (post-LN).
    rotary, rotary_base: whether positions turn queries and keys, as in `MultiHeadAttention`.
    Raises ValueError or TypeError as MultiHeadAttention does, and for a d_ff below 1, an eps below
    0 or an activation that is no function.
    Source: Vaswani et al. 2017, section 3.1; GELU and eps as in Devlin et al. 2019; pre-LN as in
    Xiong et al. 2020, figure 1.
    """

    def __init__(
        self,
        d_model: int,
        n_heads: int,
        d_ff: int,
        *,
        activation: Activation = F.gelu,
        dropout: float = 0.0,
        eps: float = 1e-5,
        pre_norm: bool = False,
        rotary: bool = False,
        rotary_base: float = 10_000.0,
    ):
        super().__init__()
        d_ff, eps = check_whole("d_ff", d_ff, 1), check_at_least_0("eps", eps)
        if not callable(activation):
            raise TypeError(f"activation must be a function, got {activation!r}")
        self.attention = MultiHeadAttention(
            d_model, n_heads, dropout=dropout, rotary=rotary, rotary_base=rotary_base
        )
        d_model, dropout = self.attention.d_model, self.attention.dropout  # now Python's numbers
        self.attention_norm = nn.LayerNorm(d_model, eps)
        self.widen = nn.Linear(d_model, d_ff)
        self.narrow = nn.Linear(d_ff, d_model)
        self.feed_forward_norm = nn.LayerNorm(d_model, eps)
        self.dropout = nn.Dropout(dropout)
        self.activation, self.pre_norm = activation, pre_norm

    def forward(
        self,
        x: Tensor,
        mask: Tensor | None = None,
        need_weights: bool = False,
        bias: Tensor | None = None,
        at: Tensor | None = None,
    ) -> Attended:
        """x: (batch, token, d_model); mask, bias and at as in MultiHeadAttention.

        Returns (batch, token, d_model), or with `at` only these places, (batch, n, d_model); and
        the weights (batch, heads, query, key) or None.
        """

        def attend(x: Tensor) -> Attended:
            return self.attention(x, mask=mask, need_weights=need_weights, bias=bias, at=at)

        x, weights = self._add(x, attend, self.attention_norm, at)
        x, _ = self._add(x, self._feed_forward, self.feed_forward_norm)
        return x, weights

    def _feed_forward(self, x: Tensor) -> Attended:
        return self.narrow(self.activation(self.widen(x))), None

    def _add(
        self,
        x: Tensor,
        branch: Callable[[Tensor], Attended],
        norm: nn.LayerNorm,
        at: Tensor | None = None,
    ) -> Attended:
        """Add what a branch makes of x to x, with the LayerNorm before the branch or after."""
        change, weights = branch(norm(x) if self.pre_norm else x)
        x = (x if at is None else take(x, at)) + self.dropout(change)
        return (x if self.pre_norm else norm(x)), weights


class DecoderBlock(EncoderBlock):
    """An encoder block that also looks at a memory: attention, cross-attention, feed-forward.

    Arguments as for `EncoderBlock`; the cross-attention has heads and dropout like the first one,
    and no rotary positions, as queries and keys stand in different sequences.
    Source: Vaswani et al. 2017, section 3.1.
    """

    def __init__(
        self,
        d_model: int,
        n_heads: int,
        d_ff: int,
        *,
        activation: Activation = F.gelu,
        dropout: float = 0.0,
        eps: float = 1e-5,
        pre_norm: bool = False,
        rotary: bool = False,
        rotary_base: float = 10_000.0,
    ):
        super().__init__(
            d_model,
            n_heads,
            d_ff,
            activation=activation,
            dropout=dropout,
            eps=eps,
            pre_norm=pre_norm,
            rotary=rotary,
            rotary_base=rotary_base,
        )
        self.cross_attention = MultiHeadAttention(d_model, n_heads, dropout=dropout)
        self.cross_attention_norm = nn.LayerNorm(
            self.attention.d_model, check_at_least_0("eps", eps)
        )

    def forward(
        self,
        x: Tensor,
        memory: Tensor,
        mask: Tensor | None = None,
        memory_mask: Tensor | None = None,
        need_weights: bool = False,
    ) -> tuple[Tensor, Tensor | None, Tensor | None]:
        """Decode tokens that attend to themselves and to a memory.

        x:           (batch, query, d_model)   memory: (batch, key, d_model)
        mask:        which tokens of x may see each other, as in MultiHeadAttention: a causal one.
        memory_mask: which tokens of memory they may see.
        Returns (batch, query, d_model), and the weights of the attention (batch, heads, query,
        query) and of the cross-attention (batch, heads, query, key), or None for both.
        """

        def attend(x: Tensor) -> Attended:
            return self.attention(x, mask=mask, need_weights=need_weights)

        def attend_to_memory(x: Tensor) -> Attended:
            return self.cross_attention(x, memory, memory_mask, need_weights)

        x, weights = self._add(x, attend, self.attention_norm)
        x, cross_weights = self._add(x, attend_to_memory, self.cross_attention_norm)
        x, _ = self._add(x, self._feed_forward, self.feed_forward_norm)
        return x, weights, cross_weights
