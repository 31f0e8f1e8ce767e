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


def mean_of_means(logits, labels, epsilon):
    rows = range(len(labels))
    return sum(smooth(logits[i : i + 1], labels[i : i + 1], epsilon) for i in rows) / len(rows)


def soft(log_p, labels, epsilon):
    """The wanted distribution times what should be the logarithms of the probabilities."""
    wanted = torch.full_like(log_p, epsilon / log_p.shape[-1])
    wanted.scatter_add_(-1, labels[..., None], torch.full_like(log_p[..., :1], 1 - epsilon))
    return -(wanted * log_p).sum(-1)[labels > 0].mean()


def weighed(logits, labels, of_label, of_all):
    everything = soft(torch.log_softmax(logits, -1), labels, 1)
    return of_label * smooth(logits, labels, 0.0) + of_all * everything


def of_exponentials(logits, labels, epsilon):
    exponentials = torch.exp(logits)
    return soft(logits - torch.log(exponentials.sum(-1, True)), labels, epsilon)


def by_the_largest_of_all(logits, labels, epsilon):
    return of_exponentials(logits - logits.max(), labels, epsilon)


def along(logits, labels, epsilon, dimension):
    return soft(logits - logits.logsumexp(dimension, keepdim=True), labels, epsilon)


def added(logits, labels, epsilon):
    spread = -torch.log_softmax(logits, -1).mean(-1)[labels != 0].mean()
    return smooth(logits, labels, 0.0) + epsilon * spread


def rate(step, d_model, warmup):
    """Piece by piece: a line up to warmup, a curve from there."""
    if step < warmup:
        return torch.tensor(step / (math.sqrt(d_model) * warmup * math.sqrt(warmup)))
    return torch.tensor(1 / math.sqrt(d_model * step))


def step_or_curve(step, d_model, warmup):
    """The scale stands before the curve alone."""
    return torch.tensor([(d_model * step) ** -0.5, step / warmup**1.5]).min()


def greedy(next_logits, start, end, max_len, feed=lambda ids: ids, pick=torch.argmax):
    written = []
    for _ in range(max_len):
        written.append(pick(next_logits(feed([start, *written]))).item())
        if written[-1] == end:
            break
    return torch.tensor(written, dtype=torch.long)


def without_limit(next_logits, start, end, max_len):
    ids = [start]
    while ids[-1] != end:
        ids.append(next_logits(ids).argmax().item())
    return ids[1:]


def do_while(next_logits, start, end, max_len):
    ids = torch.tensor([start])
    while True:
        ids = torch.cat([ids, next_logits(ids).argmax().view(1)])
        if ids[-1] == end or len(ids) > max_len:
            return ids[1:]


def stopping_at_others(next_logits, start, end, max_len):
    written = []
    for _ in range(max_len):
        written.append(next_logits([start, *written]).argmax().item())
        if written[-1] != end:
            break
    return written


def in_front(next_logits, start, end, max_len):
    ids = torch.tensor([start])
    for _ in range(max_len):
        ids = torch.cat([next_logits(ids).argmax().view(1), ids])
    return ids[1:]


def only_the_last(next_logits, start, end, max_len):
    """The newest id is all that it hands on."""
    written, last = [], start
    while len(written) < max_len and last != end:
        last = next_logits([last]).argmax().item()
        written.append(last)
    return written


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
    ("teacher_forcing", lambda t: (t[:-1], t[1:]), "sentences are left out"),
    ("teacher_forcing", lambda t: torch.vstack([t[:, :-1], t[:, 1:]]), "as cat puts"),
    ("teacher_forcing", lambda t: t.unfold(1, 2, 1), "each token stands beside the next"),
    (
        "teacher_forcing",
        lambda t: t.unfold(1, t.shape[1] - 1, 1),
        "inputs and labels alternate",
    ),
    ("teacher_forcing", lambda t: torch.stack([t[:, :-1], t[:, 1:].flip(1)]), "numbers differ"),
    ("label_smoothing", smooth_all, "padding counts"),
    (
        "label_smoothing",
        lambda x, y, e: sum_of_tokens(x, y, e) / y.numel(),
        "number of all places",
    ),
    ("label_smoothing", lambda x, y, e: smooth(x, y, 0.0), "nothing is smoothed"),
    ("label_smoothing", to_the_others, "among the other tokens"),
    ("label_smoothing", added, "added to the full loss"),
    ("label_smoothing", lambda x, y, e: smooth(x, y, 1 - e), "1 − ε and ε"),
    ("label_smoothing", lambda x, y, e: -smooth(x, y, e), "sign is missing"),
    ("label_smoothing", sum_of_tokens, "sum over the tokens"),
    (
        "label_smoothing",
        lambda x, y, e: (smooth_all(x, y, e, "none") * (y == 0)).sum() / (y == 0).sum(),
        "over the padding alone",
    ),
    ("label_smoothing", mean_of_means, "each sentence has its mean"),
    ("label_smoothing", lambda x, y, e: weighed(x, y, 1 - e, e * x.shape[2]), "gets ε / V"),
    ("label_smoothing", lambda x, y, e: weighed(x, y, 1 - e, 0), "certainty is lost"),
    (
        "label_smoothing",
        lambda x, y, e: weighed(x, y, 1 - e, -e),
        "the vocabulary has the wrong sign",
    ),
    ("label_smoothing", lambda x, y, e: weighed(x, y, e - 1, e), "the label has the wrong sign"),
    ("label_smoothing", lambda x, y, e: weighed(x, y, 1 + e, e), "keeps 1 + ε"),
    ("label_smoothing", lambda x, y, e: weighed(x, y, 1 - e, 0) - e, "is ε alone"),
    ("label_smoothing", lambda x, y, e: weighed(x, y, 1 - e, 1) - e, "is added to ε"),
    (
        "label_smoothing",
        lambda x, y, e: smooth_all(x, y, e, "sum") / y.count_nonzero(),
        "are still in it",
    ),
    (
        "label_smoothing",
        lambda x, y, e: nn.CrossEntropyLoss(ignore_index=1, label_smoothing=e)(x.mT, y),
        "with label 1 are left out",
    ),
    ("label_smoothing", of_exponentials, "exp of them is infinite"),
    ("label_smoothing", by_the_largest_of_all, "nan or infinity"),
    ("label_smoothing", lambda x, y, e: soft(torch.softmax(x, -1).log(), y, e), "minus infinity"),
    ("label_smoothing", lambda x, y, e: soft(torch.softmax(x, -1), y, e), "logarithm is missing"),
    ("label_smoothing", soft, "log_softmax is missing"),
    ("label_smoothing", lambda x, y, e: smooth(torch.softmax(x, -1), y, e), "taken twice"),
    ("label_smoothing", lambda x, y, e: along(x, y, e, 1), "over the tokens of a sentence"),
    ("label_smoothing", lambda x, y, e: along(x, y, e, 0), "over the sentences of the batch"),
    (
        "label_smoothing",
        lambda x, y, e: nn.CrossEntropyLoss(ignore_index=0, label_smoothing=e)(x, y),
        "logits.transpose(1, 2)",
    ),
    (
        "learning_rate",
        lambda s, d, w: torch.tensor(d**-0.5 * max(s**-0.5, s / w**1.5)),
        "larger of the two",
    ),
    (
        "learning_rate",  # the line never is the smaller one
        lambda s, d, w: min(1 / math.sqrt(s), s * w**1.5) / math.sqrt(d),
        "no warm-up",
    ),
    ("learning_rate", lambda s, d, w: s / (w * math.sqrt(w * d)), "rises for ever"),
    ("learning_rate", lambda s, d, w: rate(s, d, w) * math.sqrt(d), "is missing"),
    ("learning_rate", lambda s, d, w: rate(s, d, w) * d, "has the exponent +1/2"),
    ("learning_rate", lambda s, d, w: rate(max(s, w), d, w), "does not rise"),
    ("learning_rate", lambda s, d, w: rate(s, 1, w) / d, "is divided by d_model;"),
    ("learning_rate", lambda s, d, w: rate(s, d, w) * d**1.5, "with d_model itself"),
    ("learning_rate", lambda s, d, w: 1 / math.sqrt(d) + rate(s, 1, w), "is added; it is"),
    ("learning_rate", lambda s, d, w: 1 / (rate(s, 1, w) * math.sqrt(d)), "by the smaller of"),
    ("learning_rate", lambda s, d, w: rate(s, d, w) / d, "exponent −1.5; it"),
    ("learning_rate", step_or_curve, "only the first of the two"),
    ("learning_rate", lambda s, d, w: rate(w, d, s), "changed places"),
    (
        "learning_rate",
        lambda s, d, w: torch.tensor(min(1 / math.sqrt(s), s / math.sqrt(w)) / math.sqrt(d)),
        "exponent −0.5;",
    ),
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
    ("greedy", only_the_last, "from the last one alone"),
    ("greedy", lambda f, s, e, n: greedy(f, s, e, n, feed=lambda ids: ids[1:] or ids), "any more"),
    ("greedy", lambda f, s, e, n: greedy(f, s, e, n, feed=lambda ids: ids[-1]), "list of all ids"),
    ("greedy", lambda f, s, e, n: greedy(f, s, e, n, feed=lambda ids: [ids]), "list of all ids"),
    ("greedy", lambda f, s, e, n: greedy(f, s, e, n)[:-1], "always left out"),
    ("greedy", without_limit, "max_len is not heeded"),
    ("greedy", do_while, "where max_len is 0"),
    ("greedy", lambda f, s, e, n: greedy(f, s, e, n - 1), "one token too early"),
    ("greedy", lambda f, s, e, n: greedy(f, s, e, n - 2), "two tokens too early"),
    ("greedy", stopping_at_others, "question for [end] is turned round"),
    ("greedy", in_front, "put before the others"),
    ("greedy", lambda f, s, e, n: greedy(f, s, e, n + 1), "too late"),
    ("greedy", lambda f, s, e, n: greedy(f, s, e, n, pick=torch.argmin), "least likely"),
]
