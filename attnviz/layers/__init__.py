"""Attention layers and masks: short, exact, fast."""

from attnviz.layers.attention import (
    MultiHeadAttention,
    attention_weights,
    scaled_dot_product_attention,
)
from attnviz.layers.blocks import EncoderBlock
from attnviz.layers.masks import causal_mask, combine_masks, padding_mask

__all__ = [
    "EncoderBlock",
    "MultiHeadAttention",
    "attention_weights",
    "causal_mask",
    "combine_masks",
    "padding_mask",
    "scaled_dot_product_attention",
]
