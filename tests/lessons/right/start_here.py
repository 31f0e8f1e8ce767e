"""Right answers to the warm-up of lesson 00 in several styles, and inputs to judge others on."""

import numpy as np
import torch
from torch import Tensor

from attnviz.lessons.drawing import Draw


def next_by_diagonal(weights: Tensor) -> Tensor:
    return torch.diagonal(weights, offset=1).mean()


def next_by_a_loop(weights: Tensor) -> float:
    total = 0.0
    n_tokens = len(weights)
    for token in range(n_tokens - 1):
        total += float(weights[token, token + 1])
    return total / (n_tokens - 1)


def next_by_pairs_of_lists(weights: Tensor) -> float:
    rows = weights.tolist()
    to_next = [row[i + 1] for i, row in enumerate(rows[:-1])]
    return sum(to_next) / len(to_next)


def next_in_numpy(weights: Tensor) -> float:
    matrix = np.asarray(weights)
    last = matrix.shape[0] - 1
    return matrix[np.arange(last), np.arange(last) + 1].mean()


def next_by_trace(weights: Tensor) -> Tensor:
    shifted = weights[:-1, 1:]
    return shifted.trace() / shifted.size(0)


def next_by_a_mask(weights: Tensor) -> Tensor:
    position = torch.arange(weights.size(0))
    is_next = position[None, :] - position[:, None] == 1
    return weights[is_next].mean()


def next_by_recursion(weights: Tensor) -> float:
    def added_up(matrix: Tensor) -> float:
        if len(matrix) < 2:
            return 0.0
        return matrix[0, 1].item() + added_up(matrix[1:, 1:])

    return added_up(weights) / (weights.shape[0] - 1)


def next_in_half_precision(weights: Tensor) -> Tensor:
    return weights.half().diagonal(1).mean()


def _weights(draw: Draw) -> tuple[Tensor]:
    """Rows that sum to one: soft, sharp, equal, of a model that looks back or of one token."""
    n_tokens = draw.choice([2, 3, 4, 6, 7, 11])
    kind = draw.choice(["soft", "soft", "sharp", "equal", "past", "future", "one"])
    scores = draw.tensor(n_tokens, n_tokens, scale=4.0 if kind == "sharp" else 1.0)
    if kind == "equal":
        scores = torch.zeros(n_tokens, n_tokens)
    if kind == "past":
        scores -= 9 * torch.ones_like(scores).triu(1)
    if kind == "future":
        scores -= 9 * torch.ones_like(scores).tril(-1)
    if kind == "one":
        scores[:, draw.randrange(n_tokens)] += 7
    return (scores.softmax(-1),)


RIGHT = {
    "next_token_score": (
        next_by_diagonal,
        next_by_a_loop,
        next_by_pairs_of_lists,
        next_in_numpy,
        next_by_trace,
        next_by_a_mask,
        next_by_recursion,
        next_in_half_precision,
    )
}
INPUTS = {"next_token_score": _weights}
EQUIVALENT = {
    "a number in a tensor serves as a float": (
        "next_by_a_loop: total += weights[token, token + 1]",
        "next_by_recursion: return matrix[0, 1] + added_up(matrix[1:, 1:])",
    ),
    "a tensor is read as a list or an array is": (
        "next_by_pairs_of_lists: rows = weights",
        "next_in_numpy: matrix = weights",
    ),
    "the matrix is square": (
        "next_in_numpy: last = matrix.shape[1] - 1",
        "next_in_numpy: last = matrix.shape[-1] - 1",
        "next_by_trace: return shifted.trace() / shifted.size(1)",
        "next_by_trace: return shifted.trace() / shifted.size(-1)",
        "next_by_a_mask: position = torch.arange(weights.size(1))",
        "next_by_a_mask: position = torch.arange(weights.size(-1))",
        "next_by_recursion: return added_up(weights) / (weights.shape[1] - 1)",
        "next_by_recursion: return added_up(weights) / (weights.shape[-1] - 1)",
    ),
    "full precision serves as well": ("next_in_half_precision: return weights.diagonal(1).mean()",),
}
