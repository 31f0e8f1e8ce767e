"""Solutions and planted bugs for the exercises of lesson 07."""

import math

import numpy as np
import torch
import torch.nn.functional as F


def mask_tokens(ids, drawn, fate, other):
    """Place by place, so that it shares nothing with ours."""
    hidden, labels = ids.clone(), torch.full_like(ids, -100)
    for place in np.ndindex(*ids.shape):
        if ids[place] < 5 or drawn[place] >= 0.15:
            continue
        labels[place] = ids[place]
        if fate[place] < 0.8:
            hidden[place] = 4
        elif fate[place] < 0.9:
            hidden[place] = other[place]
    return torch.stack([hidden, labels])


def masking(ids, drawn, fate, other, least=5, share=0.15, first=0.8, second=0.9):
    """With other numbers for what is chosen and what becomes of it."""
    chosen = (ids >= least) * (drawn < share)
    hidden = ids.masked_fill(chosen * (fate < first), 4)
    swap = chosen * (fate >= first) * (fate < second)
    hidden = other * swap + hidden * ~swap
    return torch.stack([hidden, ids.masked_fill(~chosen, -100)])


def masking_the_rest(ids, drawn, fate, other):
    chosen = (ids >= 5) & ~(drawn < 0.15)
    hidden = ids.masked_fill(chosen & (fate < 0.8), 4)
    hidden = torch.where(chosen & (fate >= 0.8) & (fate < 0.9), other, hidden)
    return torch.stack([hidden, ids.masked_fill(~chosen, -100)])


def special_alone(ids, drawn, fate, other):
    hidden, labels = ids.clone(), torch.full_like(ids, -100)
    for place in np.ndindex(*ids.shape):
        if ids[place] < 5 and drawn[place] < 0.15:
            labels[place] = ids[place]
            if fate[place] < 0.9:
                hidden[place] = 4 if fate[place] < 0.8 else other[place]
    return torch.stack([hidden, labels])


def overwritten(ids, drawn, fate, other):
    chosen = (drawn < 0.15) & (ids > 4)
    hidden = torch.where(chosen & (fate < 0.8), 4, ids)
    hidden = torch.where(chosen & (fate >= 0.8) & (fate < 0.9), other, ids)
    return torch.stack([hidden, torch.where(chosen, ids, -100)])


def masking_everywhere(ids, drawn, fate, other):
    hidden = torch.where(fate < 0.8, torch.tensor(4), torch.where(fate < 0.9, other, ids))
    hidden = torch.where(ids < 5, ids, hidden)
    return torch.stack([hidden, mask_tokens(ids, drawn, fate, other)[1]])


def relabelled(labels_of):
    """A bug in the labels alone: labels_of takes ids, hidden ids and the right labels."""

    def bug(ids, drawn, fate, other):
        hidden, labels = mask_tokens(ids, drawn, fate, other)
        return torch.stack([hidden, labels_of(ids, hidden, labels)])

    return bug


def shifted(ids, hidden, labels):
    return torch.cat([labels[:, 1:], labels[:, :1]], 1)


def masked_loss(logits, labels):
    total, n = 0.0, 0
    for row, wanted in zip(logits, labels, strict=True):
        for scores, label in zip(row, wanted.tolist(), strict=True):
            if label != -100:
                total, n = total + scores.logsumexp(0) - scores[label], n + 1
    return total / n


def each_place(logits, labels):
    return torch.stack(
        [F.cross_entropy(x, y, reduction="none") for x, y in zip(logits, labels, strict=True)]
    )


def row_by_row(logits, labels):
    return torch.stack([F.cross_entropy(x, y) for x, y in zip(logits, labels, strict=True)]).mean()


def over_places(logits, labels):
    log_p = logits - logits.logsumexp(1, keepdim=True)
    asked = labels != -100
    return -log_p[asked].gather(1, labels[asked][:, None]).mean()


def over_questions(logits, labels):
    asked = labels >= 0
    p = logits[asked].exp() / logits[asked].exp().sum(0)
    return -sum(p[i, label].log() for i, label in enumerate(labels[asked])) / asked.sum()


def viewed(logits, labels):
    batch, n, size = logits.shape
    return F.cross_entropy(logits.contiguous().view(batch, size, n), labels)


def entropy(counts):
    shares = [count / sum(counts.tolist()) for count in counts.tolist()]
    return torch.tensor(-sum(p * math.log(p) for p in shares if p))


def p_log_p(p):
    return -sum(one * math.log(one) for one in p.tolist())


def sentence_pair(a, b, length):
    row = torch.zeros(3, length, dtype=torch.int64)
    n = len(a) + len(b) + 3
    row[0, :n] = torch.tensor([2, *a, 3, *b, 3])
    row[1, len(a) + 2 : n] = 1
    row[2, :n] = 1
    return row


def pair_of(a, b, length, ids, first):
    """Any ids, with types 1 from a place on."""
    rest = length - len(ids)
    types = [int(i >= first) for i in range(len(ids))]
    return torch.tensor([ids + [0] * rest, types + [0] * rest, [1] * len(ids) + [0] * rest])


def changed(change):
    """A bug in a pair that was right."""

    def bug(a, b, length):
        row = sentence_pair(a, b, length)
        return change(row, len(a), len(b))

    return bug


def first_sep_is_b(row, n_a, n_b):
    row[1, n_a + 1] = 1
    return row


def padding_is_b(row, n_a, n_b):
    row[1, n_a + n_b + 3 :] = 1
    return row


def no_types(row, n_a, n_b):
    row[1] = 0
    return row


def types_of_all(row, n_a, n_b):
    row[1, : n_a + n_b + 3] = 1
    return row


def types_swapped(row, n_a, n_b):
    row[1] = 0
    row[1, : n_a + 2] = 1
    return row


def types_from_one(row, n_a, n_b):
    row[1] += 1
    return row


def mask_inverted(row, n_a, n_b):
    row[2] = row[2] == 0
    return row


def mask_of_ones(row, n_a, n_b):
    row[2] = 1
    return row


def padded_left(row, n_a, n_b):
    n = n_a + n_b + 3
    return torch.cat([row[:, n:], row[:, :n]], 1)


def answers(model, ids):
    model.train(False)
    return model(ids).logits.max(-1).indices


def masked_accuracy(model, ids, labels):
    said = answers(model, ids)
    pairs = [(s, t) for s, t in zip(said.flatten(), labels.flatten(), strict=True) if t >= 0]
    return sum(int(s == t) for s, t in pairs) / len(pairs)


def forgot_eval(model, ids, labels):
    asked = labels >= 0
    return (model(ids).logits[asked].argmax(1) == labels[asked]).double().mean()


def accuracy_of_rows(model, ids, labels):
    rows = [masked_accuracy(model, x[None], y[None]) for x, y in zip(ids, labels, strict=True)]
    return sum(rows) / len(rows)


def lowest(model, ids, labels):
    said = model.eval()(ids).logits[labels >= 0].min(-1).indices
    return (said == labels[labels >= 0]).double().mean()


def shifted_accuracy(model, ids, labels):
    said, wanted = answers(model, ids)[:, :-1], labels[:, 1:]
    return (said[wanted >= 0] == wanted[wanted >= 0]).double().mean()


SOLUTIONS = {
    "mask_tokens": mask_tokens,
    "masked_loss": masked_loss,
    "unigram_entropy": entropy,
    "sentence_pair": sentence_pair,
    "masked_accuracy": masked_accuracy,
}

# The same mistakes as in the catalogue, written another way: (exercise, bug, word of the diagnosis)
PLANTED = [
    ("mask_tokens", lambda *a: masking(*a, least=0), "special pieces are hidden"),
    ("mask_tokens", lambda *a: masking(*a, least=4), "[MASK] itself is chosen"),
    ("mask_tokens", lambda *a: masking(*a, least=6), "id 5 is never chosen"),
    ("mask_tokens", special_alone, "only special pieces are chosen"),
    ("mask_tokens", overwritten, "what was hidden is lost"),
    (
        "mask_tokens",
        relabelled(lambda ids, hidden, labels: labels.masked_fill(hidden != 4, -100)),
        "only places with [MASK] have a label",
    ),
    ("mask_tokens", lambda *a: masking(*a, share=99), "does not depend on drawn"),
    ("mask_tokens", lambda *a: mask_tokens(*a).flip(0), "opposite order along dimension -3"),
    (
        "mask_tokens",
        relabelled(lambda ids, hidden, labels: labels - (labels == -100).long()),
        "only the last along dimension -3",
    ),
    ("mask_tokens", lambda *a: masking(*a, first=1.0, second=1.0), "become [MASK]"),
    ("mask_tokens", lambda *a: masking(*a, second=0.8), "no piece is exchanged"),
    ("mask_tokens", lambda *a: masking(*a, second=1.0), "not behind [MASK] is exchanged"),
    ("mask_tokens", lambda *a: masking(*a, first=0.1, second=0.9), "have changed places"),
    ("mask_tokens", masking_everywhere, "not chosen are hidden"),
    ("mask_tokens", masking_the_rest, "85 %"),
    (
        "mask_tokens",
        relabelled(lambda ids, hidden, labels: torch.where(labels >= 0, hidden, labels)),
        "what is left after hiding",
    ),
    (
        "mask_tokens",
        relabelled(lambda ids, hidden, labels: labels.masked_fill(hidden == ids, -100)),
        "get no label",
    ),
    ("mask_tokens", relabelled(lambda ids, hidden, labels: ids), "every piece has a label"),
    (
        "mask_tokens",
        relabelled(lambda ids, hidden, labels: ids.masked_fill(labels >= 0, -100)),
        "the wrong way round",
    ),
    (
        "mask_tokens",
        relabelled(lambda ids, hidden, labels: labels * (labels >= 0)),
        "the id of [PAD]",
    ),
    ("mask_tokens", relabelled(shifted), "moved by one place"),
    (
        "masked_loss",
        lambda x, y: each_place(x, y).sum() / y.numel(),
        "number of all places",
    ),
    (
        "masked_loss",
        lambda x, y: each_place(x, torch.where(y < 0, 0, y)).mean(),
        "question for piece 0",
    ),
    ("masked_loss", lambda x, y: masked_loss(F.softmax(x, 2), y), "has one of its own"),
    (
        "masked_loss",
        lambda x, y: F.cross_entropy(x[:, :-1].mT, y[:, 1:]),
        "moved by one place",
    ),
    ("masked_loss", lambda x, y: F.cross_entropy(x, y, ignore_index=-100), "in dimension 1"),
    ("masked_loss", lambda x, y: F.nll_loss(x.mT.softmax(1), y), "the logarithm is missing"),
    (
        "masked_loss",
        lambda x, y: -x[y >= 0].gather(1, y[y >= 0][:, None]).mean(),
        "there is no softmax",
    ),
    ("masked_loss", lambda x, y: F.cross_entropy(x[y > 0], y[y > 0]), "for piece 0 are left out"),
    ("masked_loss", lambda x, y: masked_loss(x, y) / (y >= 0).sum(), "divided once more"),
    ("masked_loss", lambda x, y: (y >= 0).sum() / each_place(x, y).sum(), "division is the wrong"),
    ("masked_loss", over_questions, "runs over the questions"),
    ("masked_loss", row_by_row, "each row counts the same"),
    ("masked_loss", lambda x, y: each_place(x, y).sum(), "the sum over the questions"),
    ("masked_loss", viewed, "with a reshape"),
    ("masked_loss", over_places, "runs over the places"),
    ("masked_loss", lambda x, y: 0 - masked_loss(x, y), "sign is missing"),
    ("masked_loss", lambda x, y: masked_loss(x, y) * math.log2(math.e), "in bits"),
    (
        "unigram_entropy",
        lambda counts: -torch.sum(counts / counts.sum() * torch.log(counts / counts.sum())),
        "gives nan",
    ),
    (
        "unigram_entropy",
        lambda counts: torch.distributions.Categorical(counts.float()).entropy() / math.log(2),
        "in bits",
    ),
    (
        "unigram_entropy",
        lambda counts: (
            sum(math.log(sum(counts) / c) for c in counts.tolist() if c)
            / sum(c > 0 for c in counts.tolist())
        ),
        "each piece counts the same",
    ),
    ("unigram_entropy", lambda counts: math.log(counts.numel()), "guessing uniformly"),
    ("unigram_entropy", lambda counts: math.log(counts.count_nonzero()), "how many pieces occur"),
    (
        "unigram_entropy",
        lambda counts: sum(c * math.log(sum(counts) / c) for c in counts.tolist() if c),
        "the whole text together",
    ),
    ("unigram_entropy", lambda c: -(c[c > 0] * c[c > 0].log()).sum(), "counts are taken as"),
    ("unigram_entropy", lambda c: p_log_p(c.sum() / c[c > 0]), "upside down: a"),
    ("unigram_entropy", lambda c: p_log_p(sum(c) / c), "upside down, and infinite"),
    ("unigram_entropy", lambda c: p_log_p(c[c != 0] * sum(c)), "multiplied by their sum"),
    ("unigram_entropy", lambda c: torch.special.entr(c / c.sum()).mean(), "over the pieces. The"),
    (
        "unigram_entropy",
        lambda c: torch.special.entr(c[c > 0] / c.sum()).mean(),
        "over the pieces that occur. The",
    ),
    ("unigram_entropy", lambda c: -sum((n / sum(c)) ** 2 for n in c), "adds up p · p"),
    ("unigram_entropy", lambda c: p_log_p(c[c >= 2] / sum(c)), "occur once are left out"),
    (
        "unigram_entropy",
        lambda c: -sum(n / sum(c) * math.exp(n / sum(c)) for n in c),
        "e to the power of p where",
    ),
    (
        "unigram_entropy",
        lambda c: -1 - (c[c > 0] / c.sum()).log().sum(),
        "added to log p",
    ),
    (
        "unigram_entropy",
        lambda c: -sum(n / c.sum() / (n / c.sum()).log() for n in c if n),
        "divided by log p",
    ),
    ("unigram_entropy", lambda counts: math.e ** entropy(counts), "perplexity"),
    (
        "unigram_entropy",
        lambda counts: sum(
            c / sum(counts) * math.log(c / sum(counts)) for c in counts.tolist() if c
        ),
        "sign is missing",
    ),
    (
        "unigram_entropy",
        lambda counts: torch.distributions.Categorical(logits=counts.double()).entropy(),
        "through a softmax",
    ),
    ("unigram_entropy", lambda counts: max(counts) / sum(counts), "most frequent piece"),
    (
        "sentence_pair",
        lambda a, b, n: pair_of(a, b, n, [2, *a, 3, *b], len(a) + 2),
        "the last [SEP]",
    ),
    (
        "sentence_pair",
        lambda a, b, n: pair_of(a, b, n, [2, *a, *b, 3], len(a) + 1),
        "between the sentences",
    ),
    (
        "sentence_pair",
        lambda a, b, n: pair_of(a, b, n, [*a, 3, *b, 3], len(a) + 1),
        "[CLS] is missing",
    ),
    (
        "sentence_pair",
        lambda a, b, n: pair_of(a, b, n, [2, *a, 3, 2, *b, 3], len(a) + 2),
        "second [CLS]",
    ),
    ("sentence_pair", changed(first_sep_is_b), "the first [SEP] has type 1"),
    ("sentence_pair", changed(padding_is_b), "padding has type 1"),
    ("sentence_pair", changed(no_types), "all types are 0"),
    ("sentence_pair", changed(types_of_all), "all real pieces have type 1"),
    ("sentence_pair", changed(types_swapped), "types have changed places"),
    ("sentence_pair", changed(types_from_one), "types are 1 and 2"),
    ("sentence_pair", changed(mask_inverted), "the mask is the wrong way"),
    ("sentence_pair", changed(mask_of_ones), "look at padding"),
    ("sentence_pair", changed(padded_left), "stands in front"),
    ("masked_accuracy", forgot_eval, "model.eval() is missing"),
    (
        "masked_accuracy",
        lambda model, ids, labels: (answers(model, ids) == labels).sum() / labels.numel(),
        "number of all places",
    ),
    (
        "masked_accuracy",
        lambda model, ids, labels: masked_accuracy(model, ids, torch.where(labels < 0, -100, ids)),
        "what the model reads",
    ),
    (
        "masked_accuracy",
        lambda model, ids, labels: masked_accuracy(model, ids, labels.masked_fill(ids != 4, -100)),
        "places with [MASK] count",
    ),
    (
        "masked_accuracy",
        lambda model, ids, labels: masked_accuracy(model, ids, ids),
        "repeats the piece",
    ),
    ("masked_accuracy", lowest, "the lowest score"),
    ("masked_accuracy", accuracy_of_rows, "each row counts the same"),
    ("masked_accuracy", shifted_accuracy, "moved by one place"),
    (
        "masked_accuracy",
        lambda model, ids, labels: masked_accuracy(model, ids, labels) * int((labels >= 0).sum()),
        "number of right answers",
    ),
    (
        "masked_accuracy",
        lambda model, ids, labels: masked_accuracy(model, ids, labels) * 100,
        "percentage",
    ),
    (
        "masked_accuracy",
        lambda model, ids, labels: 1 - masked_accuracy(model, ids, labels),
        "wrong answers",
    ),
]
