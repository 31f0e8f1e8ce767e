"""The exercises of lesson 05, with the mistakes that their checks recognise."""

from collections.abc import Callable

import torch
from torch import Tensor

from attnviz.lessons.exercise import Exercise, Misconception
from attnviz.models import translation_loss

START, END = 1, 2

_TARGETS = (  # [start] … [end], padded with 0
    torch.tensor([[1, 5, 3, 2, 0], [1, 4, 6, 7, 2]]),
    torch.tensor([[1, 3, 8, 4, 9, 2]]),
)


def _pair(inputs: Tensor, labels: Tensor) -> Tensor:
    return torch.stack([inputs, labels])


teacher_forcing = Exercise(
    name="teacher_forcing",
    reference=lambda target: _pair(target[:, :-1], target[:, 1:]),
    cases=tuple((target,) for target in _TARGETS),
    misconceptions=(
        Misconception(
            "inputs and labels are the same: the model is asked for the token that it is given. "
            "The loss falls to zero and nothing is learned. The label is the token after.",
            lambda target: _pair(target, target),
        ),
        Misconception(
            "inputs and labels are the same, both without their last token. The label is the "
            "token after: target[:, 1:].",
            lambda target: _pair(target[:, :-1], target[:, :-1]),
        ),
        Misconception(
            "the two have changed places: the model would be given what comes after, and asked "
            "for what was before.",
            lambda target: _pair(target[:, 1:], target[:, :-1]),
        ),
        Misconception(
            "the labels are rolled round, so the last one is [start] again. Leave out the first "
            "token instead, and the last of the inputs.",
            lambda target: _pair(target, target.roll(-1, 1)),
        ),
        Misconception(
            "the inputs start after [start]: the model would have nothing to write the first "
            "token from. They are all tokens but the last.",
            lambda target: _pair(target[:, 1:-1], target[:, 2:]),
        ),
    ),
    first_step="Slices along the second dimension: all but the last token, all but the first.",
)


def _random_logits(seed: int, batch: int, n: int, size: int) -> Tensor:
    return torch.randn(batch, n, size, generator=torch.Generator().manual_seed(seed))


def _smoothed(logits: Tensor, labels: Tensor, epsilon: float, others: bool = False) -> Tensor:
    """Per token, (batch, token); others: the share is given to the other tokens alone."""
    log_p = logits.log_softmax(-1)
    right = log_p.gather(-1, labels[..., None])[..., 0]
    rest = (log_p.sum(-1) - right) / (logits.size(-1) - 1) if others else log_p.mean(-1)
    return -((1 - epsilon) * right + epsilon * rest)


def _masked_mean(losses: Tensor, labels: Tensor) -> Tensor:
    return losses[labels != 0].mean()


label_smoothing = Exercise(
    name="label_smoothing",
    reference=translation_loss,
    cases=(
        (_random_logits(0, 2, 4, 6), torch.tensor([[3, 5, 2, 0], [4, 2, 0, 0]]), 0.1),
        (_random_logits(1, 1, 5, 9), torch.tensor([[8, 1, 3, 2, 0]]), 0.3),
    ),
    misconceptions=(
        Misconception(
            "padding counts as well: the mean is over all places. Take only those where the "
            "label is not 0.",
            lambda logits, labels, epsilon: _smoothed(logits, labels, epsilon).mean(),
        ),
        Misconception(
            "the losses at padding are set to zero, but the sum is still divided by the number of "
            "all places. Divide by the number of labels that are not 0.",
            lambda logits, labels, epsilon: (
                _smoothed(logits, labels, epsilon) * (labels != 0)
            ).mean(),
        ),
        Misconception(
            "nothing is smoothed: this is the cross-entropy with all certainty on the label.",
            lambda logits, labels, epsilon: translation_loss(logits, labels),
        ),
        Misconception(
            "ε is shared out among the other tokens only. As in torch and in the paper's code, it "
            "is spread over all of them, the right one included: ε · mean over the vocabulary.",
            lambda logits, labels, epsilon: _masked_mean(
                _smoothed(logits, labels, epsilon, others=True), labels
            ),
        ),
        Misconception(
            "the share ε is added to the full loss; the label keeps only 1 − ε of its certainty.",
            lambda logits, labels, epsilon: _masked_mean(
                _smoothed(logits, labels, epsilon) + epsilon * _smoothed(logits, labels, 0), labels
            ),
        ),
        Misconception(
            "1 − ε and ε have changed places: nearly all certainty is spread over everything.",
            lambda logits, labels, epsilon: translation_loss(logits, labels, 1 - epsilon),
        ),
        Misconception(
            "the sign is missing: a loss is minus the log probability.",
            lambda logits, labels, epsilon: -translation_loss(logits, labels, epsilon),
        ),
        Misconception(
            "the loss is the sum over the tokens; take their mean, or long sentences would weigh "
            "more than short ones.",
            lambda logits, labels, epsilon: _smoothed(logits, labels, epsilon)[labels != 0].sum(),
        ),
    ),
    first_step="log_p = logits.log_softmax(-1); the label's own is log_p.gather(-1, …).",
)


def _rate(step: int, d_model: int, warmup: int) -> Tensor:
    return torch.tensor(d_model**-0.5 * min(step**-0.5, step * warmup**-1.5))


learning_rate = Exercise(
    name="learning_rate",
    reference=_rate,
    cases=((1, 512, 4000), (4000, 512, 4000), (16_000, 512, 4000), (30, 64, 20), (7, 64, 20)),
    misconceptions=(
        Misconception(
            "the larger of the two is taken; with min, the rising line counts first and the "
            "falling curve afterwards.",
            lambda step, d_model, warmup: torch.tensor(
                d_model**-0.5 * max(step**-0.5, step * warmup**-1.5)
            ),
        ),
        Misconception(
            "there is no warm-up: the rate begins at its highest and falls.",
            lambda step, d_model, warmup: torch.tensor(d_model**-0.5 * step**-0.5),
        ),
        Misconception(
            "the factor d_model^(−1/2) is missing.",
            lambda step, d_model, warmup: _rate(step, 1, warmup),
        ),
        Misconception(
            "warmup has the exponent −1; with −1.5 the line and the curve meet at warmup.",
            lambda step, d_model, warmup: torch.tensor(
                d_model**-0.5 * min(step**-0.5, step / warmup)
            ),
        ),
        Misconception(
            "the rate stays at its highest; after warmup it falls with step^(−1/2).",
            lambda step, d_model, warmup: _rate(min(step, warmup), d_model, warmup),
        ),
    ),
    first_step="The rising part is step * warmup**-1.5, the falling one step**-0.5.",
)


def _follow(table: dict[int, list[float]]) -> Callable[[list[int]], Tensor]:
    """Logits that depend on the last id alone."""

    def next_logits(ids: list[int]) -> Tensor:
        if not isinstance(ids, list):
            raise TypeError(f"next_logits takes a list of ids, got a {type(ids).__name__}")
        return torch.tensor(table[ids[-1]])

    return next_logits


# ids: 0 padding, 1 [start], 2 [end], 3, 4
_AFTER_END = {0: [0.0, -1, 0, 1, 0], 2: [0.0, -1, 0, 9, 0]}  # nobody should ask
_CHAIN = _follow({1: [0, -1, 0, 2, 1], 3: [0, -1, 0.5, 0, 3], 4: [0, -1, 5, 1, 0], **_AFTER_END})
_ENDLESS = _follow({1: [0, -1, 0, 1, 3], 4: [0, -1, 1, 2, 0], 3: [0, -1, 1, 0, 2], **_AFTER_END})


def _greedy(
    next_logits: Callable[[list[int]], Tensor], start: int, end: int, max_len: int
) -> list[int]:
    ids = [start]
    while len(ids) <= max_len and ids[-1] != end:
        ids.append(int(next_logits(ids).argmax()))
    return ids[1:]


def _only_the_last(next_logits: Callable, start: int, end: int, max_len: int) -> list[int]:
    ids = [start]
    while len(ids) <= max_len and ids[-1] != end:
        ids.append(int(next_logits([start]).argmax()))
    return ids[1:]


greedy = Exercise(
    name="greedy",
    reference=lambda *arguments: torch.tensor(_greedy(*arguments)),
    cases=((_CHAIN, START, END, 8), (_ENDLESS, START, END, 5), (_CHAIN, START, END, 2)),
    misconceptions=(
        Misconception(
            "it does not stop at [end], but goes on until max_len.",
            lambda f, start, end, n: torch.tensor(_greedy(f, start, -1, n)),
        ),
        Misconception(
            "[start] is still in the result; it was only there to begin with.",
            lambda f, start, end, n: torch.tensor([start, *_greedy(f, start, end, n)]),
        ),
        Misconception(
            "[end] is missing: keep it, it says that the sentence is complete.",
            lambda f, start, end, n: torch.tensor(
                [i for i in _greedy(f, start, end, n) if i != end]
            ),
        ),
        Misconception(
            "every token is chosen from [start] alone. What was written so far has to be given "
            "back to next_logits each time.",
            lambda f, start, end, n: torch.tensor(_only_the_last(f, start, end, n)),
        ),
        Misconception(
            "it stops one token too early: max_len tokens may follow [start].",
            lambda f, start, end, n: torch.tensor(_greedy(f, start, end, n - 1)),
        ),
        Misconception(
            "the least likely token is taken: argmax, not argmin.",
            lambda f, start, end, n: torch.tensor(_greedy(lambda ids: -f(ids), start, end, n)),
        ),
    ),
    first_step="ids = [start]; in a loop, append int(next_logits(ids).argmax()) until it is end.",
)
