"""The question and the warm-up exercise of lesson 00."""

import torch

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


def _weights(n_tokens: int) -> torch.Tensor:
    generator = torch.Generator().manual_seed(n_tokens)
    return torch.randn(n_tokens, n_tokens, generator=generator).softmax(-1)


next_token_score = Exercise(
    name="next_token_score",
    reference=lambda weights: weights.diagonal(1).mean(),
    cases=tuple((_weights(n),) for n in (5, 4, 9)),
    misconceptions=(
        Misconception(
            "this scores the token before. The next token's column is one to the right of the "
            "diagonal: offset 1, not -1.",
            lambda weights: weights.diagonal(-1).mean(),
        ),
        Misconception(
            "this scores how much tokens attend to themselves: give diagonal the offset 1.",
            lambda weights: weights.diagonal().mean(),
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
    ),
    first_step="Print torch.arange(16).view(4, 4).diagonal(1) and see which numbers it picks.",
)
