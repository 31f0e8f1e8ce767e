"""The three models of appendix A as they should be, for readers who go on without their own."""

import torch
from torch import Tensor, nn

from attnviz.layers import EncoderBlock
from attnviz.models import Transformer, TransformerConfig

_N_SYMBOLS, _N_WORDS, _N_PLACES = 10, 10, 16


class _EncoderDecoder(nn.Module):
    """The package's Transformer, with nothing but its logits as the result."""

    def __init__(self, config: TransformerConfig) -> None:
        super().__init__()
        self.model = Transformer(config)

    def forward(self, source: Tensor, target: Tensor) -> Tensor:
        """source, target: (batch, token).   Returns logits (batch, token, symbol)."""
        return self.model(source, target).logits


def encoder_decoder(
    d_model: int = 32, n_heads: int = 4, n_layers: int = 1, d_ff: int = 64
) -> nn.Module:
    """A Transformer from a source and a target to logits, with as many layers on both sides."""
    config = TransformerConfig(
        _N_SYMBOLS, _N_SYMBOLS, d_model=d_model, n_heads=n_heads, n_layers=n_layers, d_ff=d_ff
    )
    return _EncoderDecoder(config)


class _Bert(nn.Module):
    def __init__(self, d_model: int, n_heads: int, d_ff: int) -> None:
        super().__init__()
        self.words = nn.Embedding(_N_WORDS, d_model)
        self.places = nn.Embedding(_N_PLACES, d_model)
        self.segments = nn.Embedding(2, d_model)
        self.layers = nn.ModuleList(EncoderBlock(d_model, n_heads, d_ff) for _ in range(2))
        self.output = nn.Linear(d_model, _N_WORDS)

    def forward(self, ids: Tensor, segments: Tensor) -> Tensor:
        """ids, segments: (batch, token).   Returns logits (batch, token, word)."""
        places = self.places(torch.arange(ids.size(1), device=ids.device))
        x = self.words(ids) + places + self.segments(segments)
        for layer in self.layers:
            x, _ = layer(x)
        return self.output(x)


def bert(d_model: int = 32, n_heads: int = 4, d_ff: int = 64) -> nn.Module:
    """A BERT of two layers from words and segments to logits."""
    return _Bert(d_model, n_heads, d_ff)
