"""One training loop, and what goes around it."""

from attnviz.training.loop import History, train
from attnviz.training.schedules import inverse_sqrt, warmup_linear

__all__ = ["History", "inverse_sqrt", "train", "warmup_linear"]
