"""Solutions and planted bugs for the exercises of lesson 10."""

import itertools
import math
from fractions import Fraction

import numpy as np
import torch
import torch.nn.functional as F
from torch.nn.utils.rnn import pad_sequence


def attend_with_cache(query, key, value, past_key, past_value, itself=True):
    """Token by token, as in writing: no mask is needed."""
    keys, values = list(past_key.unbind(2)), list(past_value.unbind(2))
    mixed = []
    for q, k, v in zip(query.unbind(2), key.unbind(2), value.unbind(2), strict=True):
        seen = len(keys) + itself
        keys.append(k)
        values.append(v)
        rows = torch.stack(keys[:seen], 2), torch.stack(values[:seen], 2)
        mixed.append(F.scaled_dot_product_attention(q[:, :, None], *rows))
    return torch.cat(mixed, 2)


def fused(order, value_order=None, may_see=lambda token, place, past: place <= past + token, **how):
    """A bug in the order of past and new ones, 1 and -1, or in what a token may see."""

    def bug(query, key, value, past_key, past_value):
        keys = torch.cat([past_key, key][::order], 2)
        values = torch.cat([past_value, value][:: value_order or order], 2)
        token, place = torch.arange(query.size(2))[:, None], torch.arange(keys.size(2))
        mask = may_see(token, place, past_key.size(2))
        return F.scaled_dot_product_attention(query, keys, values, mask, **how)

    return bug


def masked(weigh):
    """A bug in what becomes of the scores, given which of them may be seen."""

    def bug(query, key, value, past_key, past_value):
        keys, values = torch.cat([past_key, key], 2), torch.cat([past_value, value], 2)
        scores = torch.einsum("bhqd,bhkd->bhqk", query, keys) / math.sqrt(query.shape[3])
        token, place = torch.arange(query.size(2))[:, None], torch.arange(keys.size(2))
        return weigh(scores, place <= past_key.size(2) + token) @ values

    return bug


def shared_out(scores, may_see):
    exponentials = torch.where(may_see, 2 ** (scores * math.log2(math.e)), 0)
    return exponentials.mT.div(exponentials.sum(3).unsqueeze(2)).mT


def keys_turned(query, key, value, past_key, past_value):
    new, past = key.size(2), past_key.size(2)
    order = [*range(past, past + new), *range(past)]
    keys = torch.cat([past_key, key], 2)[:, :, order]
    seen = torch.ones(new, past + new).tril(past).bool()
    values = torch.cat([past_value, value], 2)
    return F.scaled_dot_product_attention(query, keys, values, seen)


def from_the_corner(query, key, value, past_key, past_value):
    everything = torch.cat([past_key, key], 2), torch.cat([past_value, value], 2)
    return F.scaled_dot_product_attention(query, *everything, is_causal=True)


def exponentials(query, key, past_key):
    scores = torch.einsum("bhqd,bhkd->bhqk", query, torch.cat([past_key, key], -2))
    return (scores / math.sqrt(query.shape[3])).exp().tril(past_key.shape[2])


def forgotten_values(query, key, value, past_key, past_value):
    weights = F.normalize(exponentials(query, key, past_key), p=1, dim=3)
    return torch.matmul(weights, value)


def small_mask(query, key, value, past_key, past_value):
    hidden = torch.full((key.shape[2],) * 2, -torch.inf).triu(1)
    scores = query @ torch.cat([past_key, key], 2).transpose(2, 3) / math.sqrt(key.shape[3])
    return (scores + hidden).softmax(3) @ torch.cat([past_value, value], 2)


def chosen(p, top_p, more=0, key=lambda i, p: -p[i]):
    """The tokens that are kept, one after the other until they reach top_p, and some more."""
    p = p.tolist()
    order, together, n = sorted(range(len(p)), key=lambda i: key(i, p)), 0.0, 0
    while together < top_p:
        together += p[order[n]]
        n += 1
    return order[: max(n + more, 0)]


def only(p, tokens):
    kept = torch.zeros(len(p))
    for i in tokens:
        kept[i] = p[i]
    return kept


def picked(choose):
    """A bug in which tokens are kept."""
    return lambda p, top_p: F.normalize(only(p, choose(p, top_p)), p=1, dim=0, eps=0)


def dropped(p, top_p):
    order, together, tokens = sorted(range(len(p)), key=lambda i: -p[i]), 0.0, []
    for i in order:
        together += float(p[i])
        if together > top_p:
            break
        tokens.append(i)
    kept = only(p, tokens)
    return kept.div(kept.sum())


def from_the_last(p, top_p):
    """All that are at least as likely as the last one kept."""
    least = min(float(p[i]) for i in chosen(p, top_p))
    kept = torch.where(p < least, 0, p)
    return kept.div(kept.sum())


def reaching_left_out(p, top_p):
    kept = only(p, chosen(p, top_p, -1))
    return kept.div(kept.sum())


def just_so(p, top_p):
    """Goes on where the sum is just top_p."""
    tokens = chosen(p, top_p)
    if float(p[tokens].sum()) == top_p:
        tokens = chosen(p, top_p, min(1, len(p) - len(tokens)))
    kept = only(p, tokens)
    return kept.div(kept.sum())


def alone(p, top_p):
    kept = torch.where(p < top_p, 0, p)
    return kept.div(kept.sum())


def in_order(p, top_p):
    return keep_top_p(p, top_p).sort(descending=True)[0]


def read_back(p, top_p):
    return in_order(p, top_p).gather(0, p.sort(descending=True)[1])


keep_top_p = picked(chosen)


def windows(n, length, overlap):
    """One after the other, until one reaches the end."""
    found, start = [], 0
    while not found or found[-1][1] < n:
        end = min(start + length, n)
        found.append([max(end - length, 0), end])
        start += length - overlap
    return found


def walking(step, more=lambda start, n, length, overlap: start + length < n):
    """A bug in the step, or in when another window begins; moved back wherever it is needed."""

    def bug(n, length, overlap):
        starts = [0]
        while more(starts[-1], n, length, overlap):
            starts.append(starts[-1] + step(length, overlap))
        starts = np.minimum(starts, max(n - length, 0))
        return list(zip(starts.tolist(), np.minimum(starts + length, n).tolist(), strict=True))

    return bug


def stepping(length, overlap):
    return length - overlap


def ranged(step):
    """A bug in the step, which may be zero or less."""

    def bug(n, length, overlap):
        if n < length + 1:
            return [[0, n]]
        starts = [*range(0, n - length, step(length, overlap)), n - length]
        return [[start, start + length] for start in starts]

    return bug


def unmoved(n, length, overlap):
    """The windows in their places, none moved back, up to the first that reaches the end."""
    step = length - overlap
    count = 1 + max(0, math.ceil((n - length) / step))
    return [(i * step, i * step + length) for i in range(count)]


def fitting(n, length, overlap):
    places = torch.arange(n)
    if n < length:
        return []
    return [(int(w[0]), int(w[-1]) + 1) for w in places.unfold(0, length, length - overlap)]


def cut_off(n, length, overlap):
    return [(a, n if b > n else b) for a, b in unmoved(n, length, overlap)]


def every_start(n, length, overlap):
    starts = itertools.takewhile(lambda s: s < n, itertools.count(0, length - overlap))
    return [(s, s + len(range(n)[s : s + length])) for s in starts]


def moved_to_before(n, length, overlap):
    return [(b - length, b) for _, b in cut_off(n, length, overlap)]


def beyond_a_short_text(n, length, overlap):
    return [(a, a + length) for a, _ in windows(n, length, overlap)]


def to_int8(x, steps=127, largest=lambda row: max(map(abs, row)), whole=round):
    """Row by row, in Python's numbers."""
    rows = []
    for row in x.tolist():
        scale = largest(row) / steps or 1.0
        rows.append([scale * max(-127, min(127, whole(a / scale))) for a in row])
    return torch.tensor(rows)


def rowwise(
    x,
    scale=lambda row, top: top / 127,
    there=lambda a, scale: a / scale,
    back=lambda n, scale: n * scale,
):
    """Row by row, with nothing that keeps the numbers small; zeros stay."""
    rows = []
    for row in x.tolist():
        size = scale(row, max(map(abs, row)))
        rows.append([back(round(there(a, size)), size) if size else a for a in row])
    return torch.tensor(rows)


def shifted(x):
    rows = []
    for row in x.double():
        least, width = row.min(), row.max() - row.min()
        rows.append(torch.round((row - least) * 255 / width) * width / 255 + least)
    return torch.stack(rows).nan_to_num(0)


def nan_for_zeros(x):
    scale = torch.linalg.vector_norm(x, torch.inf, 1, True) / 127
    return x.div(scale).round().mul(scale)


def stretched(x):
    scale = torch.stack([row.abs().max() for row in x]).div(127)
    return (x / scale).round() * scale


def padding_share(lengths, batch_size, by_length):
    """With real padding, which is counted."""
    ones = [torch.ones(n) for n in (sorted(lengths, reverse=True) if by_length else lengths)]
    starts = range(0, len(ones), batch_size)
    padded = [pad_sequence(ones[start : start + batch_size]) for start in starts]
    filled = torch.cat([batch.flatten() for batch in padded])
    return (filled == 0).float().mean()


def counted(answer):
    """A bug in what is made of the batches; answer takes them and batch_size."""

    def bug(lengths, batch_size, by_length):
        row = np.array(lengths)
        row = np.sort(row) if by_length else row
        batches = np.split(row, range(batch_size, len(row), batch_size))
        return float(answer(batches, batch_size))

    return bug


def padding_of(batch):
    return (batch.max() - batch).sum()


def to_the_very_longest(batches, batch_size):
    every = np.concatenate(batches)
    return (every.max() - every).mean() / every.max()


def beside_real_ones(batches, batch_size):
    return Fraction(int(sum(map(padding_of, batches))), int(sum(map(sum, batches))))


def only_full(batches, batch_size):
    full = [batch.tolist() for batch in batches if len(batch) == batch_size]
    return sum(max(b) - n for b in full for n in b) / sum(max(b) for b in full for _ in b)


def tokens(lengths, batch_size, by_length, size=lambda row: row.numel()):
    """How many tokens there are in all, padding included, and how many are real."""
    ones = [torch.ones(n) for n in (sorted(lengths) if by_length else lengths)]
    starts = range(0, len(ones), batch_size)
    padded = [pad_sequence(ones[i : i + batch_size], batch_first=True) for i in starts]
    return sum(map(size, padded)), sum(lengths)


def of_tokens(answer, **how):
    return lambda *arguments: answer(*tokens(*arguments, **how))


def filled_up(batches, batch_size):
    every = np.stack([np.pad(batch, (0, batch_size - len(batch))) for batch in batches])
    return 1 - every.mean() / every.max(1).mean()


SOLUTIONS = {
    "attend_with_cache": attend_with_cache,
    "keep_top_p": keep_top_p,
    "windows": windows,
    "to_int8": to_int8,
    "padding_share": padding_share,
}

# The same mistakes as in the catalogue, written another way: (exercise, bug, word of the diagnosis)
PLANTED = [
    (
        "attend_with_cache",
        lambda q, k, v, *past: F.scaled_dot_product_attention(q, k, v, is_causal=True),
        "the past is not read",
    ),
    (
        "attend_with_cache",
        fused(1, may_see=lambda token, place, past: token + place >= 0),
        "the causal mask is missing",
    ),
    ("attend_with_cache", from_the_corner, "the upper left corner"),
    ("attend_with_cache", fused(-1), "stand in front of the past"),
    ("attend_with_cache", fused(1, -1), "in different orders"),
    ("attend_with_cache", keys_turned, "of the keys the new ones come first"),
    (
        "attend_with_cache",
        lambda q, k, v, old_k, old_v: attend_with_cache(q, v, k, old_v, old_k),
        "keys and values have changed places",
    ),
    (
        "attend_with_cache",
        lambda q, *rest: fused(1, may_see=lambda i, j, past: j <= i + q.size(2))(q, *rest),
        "moved by the number of new tokens",
    ),
    (
        "attend_with_cache",
        lambda q, *rest: fused(1, scale=q.size(3) ** 0.5)(q, *rest),
        "multiplied by √d_k",
    ),
    (
        "attend_with_cache",
        masked(lambda scores, may_see: F.softmax(torch.where(may_see, scores, torch.inf), 3)),
        "the largest score there is",
    ),
    ("attend_with_cache", fused(1, scale=1.0), "not divided by √d_k"),
    (
        "attend_with_cache",
        lambda q, k, *rest: attend_with_cache(q / math.sqrt(q.shape[3]), k, *rest),
        "divided by d_k itself",
    ),
    (
        "attend_with_cache",
        masked(lambda scores, may_see: F.softmax(scores * may_see, 3)),
        "the hidden scores become zero",
    ),
    (
        "attend_with_cache",
        masked(lambda scores, may_see: F.softmax(scores, 3) * may_see),
        "the mask comes behind the softmax",
    ),
    (
        "attend_with_cache",
        masked(lambda scores, may_see: F.softmax(torch.where(may_see, scores, -100), 3)),
        "only the last along dimension -2 is right",
    ),
    (
        "attend_with_cache",
        masked(lambda scores, may_see: F.softmax(torch.where(may_see, -torch.inf, scores), 3)),
        "the mask is the wrong way round",
    ),
    (
        "attend_with_cache",
        fused(1, may_see=lambda token, place, past: place >= past + token),
        "sees itself and what comes behind",
    ),
    (
        "attend_with_cache",
        masked(shared_out),
        "exponential of a large score",
    ),
    (
        "attend_with_cache",
        masked(lambda scores, may_see: F.softmax(torch.where(may_see, scores, -torch.inf), 2)),
        "runs over the queries",
    ),
    (
        "attend_with_cache",
        lambda *arguments: attend_with_cache(*arguments, itself=False),
        "does not see itself",
    ),
    (
        "attend_with_cache",
        fused(1, may_see=lambda token, place, past: place <= past + token + 1),
        "one step into the future",
    ),
    ("attend_with_cache", forgotten_values, "it raised RuntimeError"),
    ("attend_with_cache", small_mask, "a column for each new token alone"),
    ("keep_top_p", dropped, "that crosses the line is left out"),
    ("keep_top_p", reaching_left_out, "with which the sum reaches top_p is left out"),
    ("keep_top_p", lambda p, top_p: only(p, chosen(p, top_p)), "does not sum to one"),
    ("keep_top_p", alone, "compared with top_p by itself"),
    ("keep_top_p", in_order, "still in order"),
    ("keep_top_p", read_back, "put back the wrong way"),
    ("keep_top_p", picked(lambda p, top_p: chosen(p, top_p, 1)), "one token too many"),
    (
        "keep_top_p",
        picked(lambda p, top_p: chosen(p, top_p, key=lambda i, p: p[i])),
        "from the least likely one",
    ),
    (
        "keep_top_p",
        picked(lambda p, top_p: chosen(p, top_p, key=lambda i, p: i)),
        "as they stand in the vocabulary",
    ),
    (
        "keep_top_p",
        picked(lambda p, top_p: p.topk(math.floor(top_p * p.numel() + 0.5)).indices.tolist()),
        "a share of the vocabulary",
    ),
    ("keep_top_p", just_so, "where the sum reaches top_p just so"),
    ("keep_top_p", from_the_last, "as likely as the last one kept"),
    (
        "keep_top_p",
        lambda p, top_p: F.softmax(only(p, chosen(p, top_p)), -1),
        "the softmax of probabilities",
    ),
    ("windows", walking(lambda length, overlap: length), "stand side by side"),
    ("windows", ranged(lambda length, overlap: overlap), "every overlap tokens"),
    (
        "windows",
        ranged(lambda length, overlap: length - overlap - overlap),
        "twice as many tokens",
    ),
    (
        "windows",
        ranged(lambda length, overlap: length - (overlap or 1)),
        "there are too many windows",
    ),
    ("windows", lambda *sizes: [(b, a) for a, b in windows(*sizes)], "have changed places"),
    (
        "windows",
        lambda n, length, overlap: [*windows(n, length, overlap)[:-1], (0, n)],
        "only the last window is wrong",
    ),
    (
        "windows",
        lambda *sizes: [(a, b + 1) for a, b in windows(*sizes)],
        "the starts are right",
    ),
    (
        "windows",
        lambda *sizes: [(a + 1, b) for a, b in windows(*sizes)],
        "the ends are right",
    ),
    (
        "windows",
        lambda n, length, overlap: [(a, b) for a, b in windows(n, length, overlap) if a or n < 5],
        "the first one is missing",
    ),
    ("windows", cut_off, "the last window is short"),
    ("windows", fitting, "only windows that fit whole"),
    ("windows", every_start, "so the last windows are short"),
    ("windows", unmoved, "the last window ends behind the text"),
    (
        "windows",
        lambda *sizes: fitting(*sizes) + windows(*sizes)[-1:],
        "is always added",
    ),
    (
        "windows",
        walking(stepping, lambda start, n, length, overlap: start + length - overlap < n),
        "again and again",
    ),
    ("windows", moved_to_before, "to before its first token"),
    ("windows", beyond_a_short_text, "in a text shorter than a window"),
    ("windows", lambda *sizes: [[a, b - 1] for a, b in windows(*sizes)], "place of the last token"),
    (
        "to_int8",
        lambda x: to_int8(x.reshape(1, -1)).reshape(x.shape),
        "one scale for all rows",
    ),
    ("to_int8", lambda x: to_int8(x.T).T, "a scale for each column"),
    ("to_int8", lambda x: to_int8(x, 128), "becomes 128"),
    ("to_int8", lambda x: rowwise(x, lambda row, top: top / 128), "divided by 128"),
    ("to_int8", lambda x: rowwise(x, lambda row, top: top / 126), "becomes 126"),
    ("to_int8", lambda x: rowwise(x, back=lambda n, scale: n + scale), "the scale is added"),
    ("to_int8", lambda x: rowwise(x, lambda row, top: top), "only -1, 0 and 1 are left"),
    (
        "to_int8",
        lambda x: rowwise(x, back=lambda n, scale: n / scale),
        "divided by the scale once more",
    ),
    ("to_int8", lambda x: rowwise(x, there=lambda a, scale: a), "x itself is rounded"),
    (
        "to_int8",
        lambda x: rowwise(x, there=lambda a, scale: a * scale),
        "multiplied by the scale before",
    ),
    ("to_int8", lambda x: rowwise(x, lambda row, top: max(row) / 127), "less than -127"),
    ("to_int8", lambda x: to_int8(x, 255), "becomes 255"),
    ("to_int8", lambda x: to_int8(x, whole=int), "the fractions are cut off"),
    ("to_int8", lambda x: to_int8(x, whole=math.floor), "is rounded down"),
    ("to_int8", lambda x: to_int8(x, whole=math.ceil), "is rounded up"),
    ("to_int8", lambda x: to_int8(x, whole=float), "nothing is rounded"),
    ("to_int8", shifted, "from the least to the largest"),
    (
        "to_int8",
        lambda x: F.normalize(x, p=torch.inf, dim=1).mul(127).round().to(torch.int8),
        "these are the whole numbers",
    ),
    ("to_int8", lambda x: to_int8(x, largest=max), "with its sign"),
    ("to_int8", nan_for_zeros, "becomes nan"),
    ("to_int8", stretched, "it stretches from the right"),
    ("padding_share", counted(to_the_very_longest), "the longest of them all"),
    ("padding_share", counted(beside_real_ones), "by the number of real tokens"),
    (
        "padding_share",
        counted(lambda batches, n: np.mean([padding_of(b) / b.max() / len(b) for b in batches])),
        "mean of the batches' shares",
    ),
    ("padding_share", counted(only_full), "the last batch is left out"),
    ("padding_share", counted(filled_up), "as if it were full"),
    (
        "padding_share",
        lambda lengths, n, by_length: padding_share(lengths, n, 0),
        "by_length changes nothing",
    ),
    (
        "padding_share",
        lambda lengths, n, by_length: padding_share(lengths, n, "yes"),
        "always sorted",
    ),
    (
        "padding_share",
        lambda lengths, n, by_length: padding_share(
            sorted(lengths, key=str) if by_length else lengths, n, False
        ),
        "where 0.",
    ),
    (
        "padding_share",
        lambda *arguments: torch.ones(()) - padding_share(*arguments),
        "the share of the real tokens",
    ),
    (
        "padding_share",
        counted(lambda batches, n: sum(map(padding_of, batches))),
        "the number of tokens that are padding",
    ),
    ("padding_share", of_tokens(lambda every, real: (every - real) * every), "never more than 1"),
    ("padding_share", of_tokens(lambda every, real: 1 - every), "never less than 0"),
    ("padding_share", of_tokens(lambda every, real: real / every - 1), "the sign is wrong"),
    (
        "padding_share",
        of_tokens(
            lambda every, real: 1 - real / every,
            size=lambda batch: len(batch) * int(batch.sum(1).min()),
        ),
        "as long as its shortest text",
    ),
    ("padding_share", of_tokens(lambda every, real: 1 + real / every), "added to the padded ones"),
    ("padding_share", of_tokens(lambda every, real: every / (every - real)), "upside down"),
    ("padding_share", of_tokens(lambda every, real: 1 - every / real), "divided by the real ones"),
    (
        "padding_share",
        of_tokens(lambda every, real: 1 - real / every, size=lambda batch: sum(batch.shape)),
        "not plus it",
    ),
]
