"""The question and the warm-up exercise of lesson 00."""

import torch
from torch import Tensor

from attnviz.lessons.drawing import Draw, drawn
from attnviz.lessons.exercise import Exercise, Misconception
from attnviz.lessons.quiz import Quiz, predict


def predict_previous_token() -> Quiz:
    """Ask whether one head attends to the token before and to nothing else."""
    return predict(
        "Will one of the 72 heads do nothing but attend to the token before?",
        [
            "No: meaning matters more than neighbourhood",
            "Partly: some head gives it about a third",
            "Yes: nine tenths of its weight or more",
        ],
        answer=2,
        because="One head gives the left neighbour nearly all its weight, whatever the words are.",
    )


def _weights(n_tokens: int) -> tuple[Tensor]:
    generator = torch.Generator().manual_seed(n_tokens)
    return (torch.randn(n_tokens, n_tokens, generator=generator).softmax(-1),)


def _sharp_weights(draw: Draw) -> tuple[Tensor]:
    n_tokens = draw.randint(2, 8)
    return (draw.tensor(n_tokens, n_tokens, scale=3).softmax(-1),)


next_token_score = Exercise(
    name="next_token_score",
    reference=lambda weights: weights.diagonal(1).mean(),
    cases=(*map(_weights, (5, 4, 9, 2)), *drawn(8, _sharp_weights)),
    misconceptions=(
        Misconception(
            "this scores the token before. The next token's column is one to the right of the "
            "diagonal: offset 1, not -1.",
            lambda weights: weights.diagonal(-1).mean(),
        ),
        Misconception(
            "this scores the token before, and for the first token, which has none, the last one: "
            "an index of -1 counts from the end. The next token's column is one to the right of "
            "the diagonal.",
            lambda weights: weights.roll(1, 1).diagonal()[:-1].mean(),
        ),
        Misconception(
            "this scores how much tokens attend to themselves: give diagonal the offset 1.",
            lambda weights: weights.diagonal().mean(),
        ),
        Misconception(
            "this scores how much all tokens but the last attend to themselves. The next token's "
            "column is one to the right: row i, column i + 1.",
            lambda weights: weights.diagonal()[:-1].mean(),
        ),
        Misconception(
            "this scores the token after the next: one column too far to the right.",
            lambda weights: weights.diagonal(2).mean(),
        ),
        Misconception(
            "this is the mean of the whole matrix. Only the weights to the next token count.",
            lambda weights: weights.mean(),
        ),
        Misconception(
            "the sum should be divided by the number of tokens that have a next one, which is one "
            "less than the number of tokens: use mean().",
            lambda weights: weights.diagonal(1).sum() / len(weights),
        ),
        Misconception(
            "this adds the weights up; their average is wanted, so that long and short texts can "
            "be compared.",
            lambda weights: weights.diagonal(1).sum(),
        ),
        Misconception(
            "the sum is multiplied by the number of weights; divide by it to get the average.",
            lambda weights: weights.diagonal(1).sum() * (len(weights) - 1),
        ),
        Misconception(
            "the division is upside down: the average is the sum divided by how many there are.",
            lambda weights: 1 / weights.diagonal(1).mean(),
        ),
        Misconception(
            "the last pair of neighbours is left out of the sum, but counted in the division. All "
            "tokens but one have a next one.",
            lambda weights: weights.diagonal(1)[:-1].sum() / (len(weights) - 1),
        ),
        Misconception(
            "the last pair of neighbours is left out: the last token but one has a next one, too.",
            lambda weights: weights.diagonal(1)[:-1].mean(),
        ),
    ),
    first_step="Print torch.arange(16).view(4, 4).diagonal(1) and see which numbers it picks.",
)
