"""Whole models, made of `attnviz.layers`."""

from attnviz.models.bert import BertConfig, BertEncoder, EncoderOutput, load_minilm
from attnviz.models.search import beam_search, greedy_search
from attnviz.models.transformer import (
    Transformer,
    TransformerConfig,
    TransformerOutput,
    translation_loss,
)

__all__ = [
    "BertConfig",
    "BertEncoder",
    "EncoderOutput",
    "Transformer",
    "TransformerConfig",
    "TransformerOutput",
    "beam_search",
    "greedy_search",
    "load_minilm",
    "translation_loss",
]
