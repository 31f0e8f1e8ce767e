"""Solutions and planted bugs for the warm-up of lesson 00."""

import torch

SOLUTIONS = {
    "next_token_score": lambda w: sum(w[i, i + 1] for i in range(len(w) - 1)) / (len(w) - 1)
}


def average(weights):
    weights = list(weights)
    return sum(weights) / len(weights)


# The same mistakes as in the catalogue, written another way: (exercise, bug, word of the diagnosis)
PLANTED = [
    ("next_token_score", lambda w: w[1:, :-1].trace() / (len(w) - 1), "offset 1, not -1"),
    (
        "next_token_score",
        lambda w: average(w[i, i - 1] for i in range(len(w) - 1)),
        "counts from the end",
    ),
    ("next_token_score", lambda w: w.trace() / len(w), "give diagonal the offset"),
    ("next_token_score", lambda w: average(w[i, i] for i in range(len(w) - 1)), "but the last att"),
    ("next_token_score", lambda w: w[:, 2:].trace() / (len(w) - 2), "after the next"),
    ("next_token_score", lambda w: average(w.flatten()), "the whole matrix"),
    ("next_token_score", lambda w: w[:-1, 1:].trace() / len(w), "use mean()"),
    ("next_token_score", lambda w: w[:-1, 1:].trace(), "adds the weights up"),
    ("next_token_score", lambda w: w[:-1, 1:].trace() * (len(w) - 1), "multiplied"),
    ("next_token_score", lambda w: (len(w) - 1) / w[:-1, 1:].trace(), "upside down"),
    (
        "next_token_score",
        lambda w: sum(w[i, i + 1] for i in range(len(w) - 2)) / (len(w) - 1),
        "counted in the division",
    ),
    ("next_token_score", lambda w: w[:-2, 1:-1].diagonal().mean(), "last token but one"),
    ("next_token_score", lambda w: w.diagonal(1), "of shape ()"),
    ("next_token_score", lambda w: torch.tensor(0.0), "all of it is zero"),
    ("next_token_score", lambda w: torch.tensor(0.2), "does not depend on weights"),
    ("next_token_score", lambda w: w.mT.fill_diagonal_(0).diagonal(1).mean(), "in place"),
    ("next_token_score", lambda w: w.diagonal(1).max(), "it returned 0."),
]
