"""Whole models, made of `attnviz.layers`."""

from attnviz.models.bert import BertConfig, BertEncoder, EncoderOutput, load_minilm

__all__ = ["BertConfig", "BertEncoder", "EncoderOutput", "load_minilm"]
