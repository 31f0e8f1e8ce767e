"""The blocks that Transformers are stacked from."""

import torch.nn.functional as F
from torch import Tensor, nn

from attnviz.layers.attention import MultiHeadAttention


class EncoderBlock(nn.Module):
    """Attention, then a feed-forward network; each is added to its input and normalised (post-LN).

    d_model: width of the tokens.   n_heads: heads of the attention.   d_ff: width between the two
    feed-forward layers, with an exact GELU.   dropout: probability, on both branches and on the
    attention weights.   eps: added to the variance in LayerNorm (BERT: 1e-12, torch: 1e-5).
    Raises ValueError as MultiHeadAttention does.
    Source: Vaswani et al. 2017, section 3.1; GELU and eps as in Devlin et al. 2019.
    """

    def __init__(
        self, d_model: int, n_heads: int, d_ff: int, *, dropout: float = 0.0, eps: float = 1e-5
    ):
        super().__init__()
        self.attention = MultiHeadAttention(d_model, n_heads, dropout=dropout)
        self.attention_norm = nn.LayerNorm(d_model, eps)
        self.widen = nn.Linear(d_model, d_ff)
        self.narrow = nn.Linear(d_ff, d_model)
        self.feed_forward_norm = nn.LayerNorm(d_model, eps)
        self.dropout = nn.Dropout(dropout)

    def forward(
        self, x: Tensor, mask: Tensor | None = None, need_weights: bool = False
    ) -> tuple[Tensor, Tensor | None]:
        """x: (batch, token, d_model), mask as in MultiHeadAttention.

        Returns (batch, token, d_model) and the weights (batch, heads, query, key) or None.
        """
        attended, weights = self.attention(x, mask=mask, need_weights=need_weights)
        x = self.attention_norm(x + self.dropout(attended))
        fed_forward = self.narrow(F.gelu(self.widen(x)))
        return self.feed_forward_norm(x + self.dropout(fed_forward)), weights
