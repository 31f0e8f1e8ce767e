"""Token lists of different lengths as one tensor."""

import torch
from torch import Tensor

PAD, START, END = "[pad]", "[start]", "[end]"


def pad(rows: list[list[int]]) -> Tensor:
    """Ids as (batch, token) int64, the shorter rows filled up with 0."""
    longest = max(map(len, rows), default=0)
    padded = [row + [0] * (longest - len(row)) for row in rows]
    return torch.tensor(padded, dtype=torch.int64).reshape(len(rows), longest)
