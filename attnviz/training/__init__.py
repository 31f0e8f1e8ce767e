"""One training loop, and what goes around it."""

from attnviz.training.distill import distillation_loss
from attnviz.training.loop import History, train
from attnviz.training.schedules import inverse_sqrt, warmup_linear
from attnviz.training.together import Together, muon_and_adamw

__all__ = [
    "History",
    "Together",
    "distillation_loss",
    "inverse_sqrt",
    "muon_and_adamw",
    "train",
    "warmup_linear",
]
