"""Solutions and planted bugs for the exercises of lesson 05."""

import math

import torch
from torch import nn


def smooth(logits, labels, epsilon):
    return nn.CrossEntropyLoss(ignore_index=0, label_smoothing=epsilon)(logits.mT, labels)


def smooth_all(logits, labels, epsilon, reduction="mean"):
    """Padding is a token like any other."""
    loss = nn.CrossEntropyLoss(label_smoothing=epsilon, reduction=reduction)
    return loss(logits.mT, labels)


def sum_of_tokens(logits, labels, epsilon):
    loss = nn.CrossEntropyLoss(ignore_index=0, label_smoothing=epsilon, reduction="sum")
    return loss(logits.mT, labels)


def to_the_others(logits, labels, epsilon):
    """Kullback–Leibler distance to a target without a share for the label, token by token."""
    size, losses = logits.shape[-1], []
    for row, label in zip(logits.flatten(0, 1), labels.flatten().tolist(), strict=True):
        if label:
            wanted = torch.full((size,), epsilon / (size - 1))
            wanted[label] = 1 - epsilon
            losses.append(-(wanted * torch.log_softmax(row, 0)).sum())
    return torch.stack(losses).mean()


def added(logits, labels, epsilon):
    spread = -torch.log_softmax(logits, -1).mean(-1)[labels != 0].mean()
    return smooth(logits, labels, 0.0) + epsilon * spread


def rate(step, d_model, warmup):
    """Piece by piece: a line up to warmup, a curve from there."""
    if step < warmup:
        return torch.tensor(step / (math.sqrt(d_model) * warmup * math.sqrt(warmup)))
    return torch.tensor(1 / math.sqrt(d_model * step))


def greedy(next_logits, start, end, max_len, feed=lambda ids: ids, pick=torch.argmax):
    written = []
    for _ in range(max_len):
        written.append(pick(next_logits(feed([start, *written]))).item())
        if written[-1] == end:
            break
    return torch.tensor(written)


SOLUTIONS = {
    "teacher_forcing": lambda target: target.unfold(1, target.shape[1] - 1, 1).movedim(1, 0),
    "label_smoothing": smooth,
    "learning_rate": rate,
    "greedy": greedy,
}

# The same mistakes as in the catalogue, written another way: (exercise, bug, word of the diagnosis)
PLANTED = [
    ("teacher_forcing", lambda t: torch.stack([t] * 2), "for the token that it is given"),
    ("teacher_forcing", lambda t: torch.stack([t[:, :-1]] * 2), "both without their last"),
    (
        "teacher_forcing",
        lambda t: SOLUTIONS["teacher_forcing"](t).flip(0),
        "changed places: the model",
    ),
    (
        "teacher_forcing",
        lambda t: torch.stack([t, torch.cat([t[:, 1:], t[:, :1]], 1)]),
        "rolled round",
    ),
    ("teacher_forcing", lambda t: SOLUTIONS["teacher_forcing"](t[:, 1:]), "start after [start]"),
    ("label_smoothing", smooth_all, "padding counts"),
    (
        "label_smoothing",
        lambda x, y, e: sum_of_tokens(x, y, e) / y.numel(),
        "divided by the number of",
    ),
    ("label_smoothing", lambda x, y, e: smooth(x, y, 0.0), "nothing is smoothed"),
    ("label_smoothing", to_the_others, "among the other tokens"),
    ("label_smoothing", added, "added to the full loss"),
    ("label_smoothing", lambda x, y, e: smooth(x, y, 1 - e), "1 − ε and ε"),
    ("label_smoothing", lambda x, y, e: -smooth(x, y, e), "sign is missing"),
    ("label_smoothing", sum_of_tokens, "sum over the tokens"),
    (
        "learning_rate",
        lambda s, d, w: torch.tensor(d**-0.5 * max(s**-0.5, s / w**1.5)),
        "larger of the two",
    ),
    ("learning_rate", lambda s, d, w: torch.tensor(1 / math.sqrt(d * s)), "no warm-up"),
    ("learning_rate", lambda s, d, w: rate(s, d, w) * math.sqrt(d), "is missing"),
    (
        "learning_rate",
        lambda s, d, w: torch.tensor(min(1 / math.sqrt(s), s / w) / math.sqrt(d)),
        "exponent −1;",
    ),
    ("learning_rate", lambda s, d, w: rate(s if s < w else w, d, w), "stays at its highest"),
    ("greedy", lambda f, s, e, n: greedy(f, s, None, n), "does not stop"),
    (
        "greedy",
        lambda f, s, e, n: torch.cat([torch.tensor([s]), greedy(f, s, e, n)]),
        "[start] is still",
    ),
    (
        "greedy",
        lambda f, s, e, n: torch.tensor([i for i in greedy(f, s, e, n) if i != e]),
        "[end] is missing",
    ),
    (
        "greedy",
        lambda f, s, e, n: greedy(f, s, e, n, feed=lambda ids: ids[:1]),
        "from [start] alone",
    ),
    ("greedy", lambda f, s, e, n: greedy(f, s, e, n - 1), "too early"),
    ("greedy", lambda f, s, e, n: greedy(f, s, e, n, pick=torch.argmin), "least likely"),
]
