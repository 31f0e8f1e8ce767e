"""Attention layers, positions, masks and blocks: short, exact, fast."""

from attnviz.layers.attention import (
    MultiHeadAttention,
    attention_weights,
    scaled_dot_product_attention,
)
from attnviz.layers.blocks import DecoderBlock, EncoderBlock
from attnviz.layers.int8 import Int8Embedding, Int8Linear
from attnviz.layers.masks import causal_mask, combine_masks, padding_mask
from attnviz.layers.positions import alibi, rotate, sinusoidal_positions
from attnviz.layers.pruning import keep_heads

__all__ = [
    "DecoderBlock",
    "EncoderBlock",
    "Int8Embedding",
    "Int8Linear",
    "MultiHeadAttention",
    "alibi",
    "attention_weights",
    "causal_mask",
    "combine_masks",
    "keep_heads",
    "padding_mask",
    "rotate",
    "scaled_dot_product_attention",
    "sinusoidal_positions",
]
