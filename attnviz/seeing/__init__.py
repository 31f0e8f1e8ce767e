"""Seeing and changing the attention inside any PyTorch model."""

from attnviz.seeing.changes import mask, off, only, temperature, uniform
from attnviz.seeing.record import AttentionRecord
from attnviz.seeing.rollout import rollout
from attnviz.seeing.seen import Seen
from attnviz.seeing.using import capture, edit

__all__ = [
    "AttentionRecord",
    "Seen",
    "capture",
    "edit",
    "mask",
    "off",
    "only",
    "rollout",
    "temperature",
    "uniform",
]
