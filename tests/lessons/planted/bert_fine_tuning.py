"""Solutions and planted bugs for the exercises of lesson 08."""

import itertools
import re

import torch


def mean_pool(hidden, mask):
    """Text by text, so that it shares nothing with ours."""
    means = []
    for states, real in zip(hidden, mask.tolist(), strict=True):
        kept = [state for state, is_real in zip(states, real, strict=True) if is_real]
        means.append(sum(kept) / len(kept))
    return torch.stack(means)


def weighed(hidden, weights):
    """A sum over the tokens with a weight each, (batch, token)."""
    return torch.einsum("btd,bt->bd", hidden, weights.to(hidden.dtype))


def largest(hidden, mask):
    return torch.stack(
        [states[real].max(0).values for states, real in zip(hidden, mask, strict=True)]
    )


def head_and_tail(ids, length):
    """By taking out of the middle."""
    kept, place = list(ids), length // 4
    while len(kept) > length:
        kept.pop(place)
    return kept


def without_middle(head, behind):
    """A bug in where the middle begins, and where it ends, counted from the back."""

    def bug(ids, length):
        if len(ids) <= length:
            return tuple(ids)
        begin, end = head(length), len(ids) - behind(length)
        return [one for i, one in enumerate(ids) if not begin <= i < end]

    return bug


def parts(tail):
    """A bug in what follows behind the head of a long text."""
    return lambda ids, n: ids if len(ids) <= n else [*itertools.islice(ids, n // 4), *tail(ids, n)]


def twice(ids, length):
    quarter = int(length / 4)
    return [*itertools.islice(ids, quarter), *ids[-(length - quarter) :]]


def lost_sep(ids, length):
    kept = head_and_tail(ids, length)
    return kept[:-1] if len(ids) > length else kept


def align_labels(labels, word_ids):
    """From each word to its first piece."""
    aligned = [-100] * len(word_ids)
    for word, label in enumerate(labels):
        if word in word_ids:
            aligned[word_ids.index(word)] = label
    return aligned


def all_pieces(labels, word_ids):
    return [-100 if word is None else labels[word] for word in word_ids]


def patched(label_of):
    """A bug in labels that were right: label_of takes the label, the word and the place."""

    def bug(labels, word_ids):
        aligned = align_labels(labels, word_ids)
        numbered = enumerate(zip(aligned, word_ids, strict=True))
        return [label_of(label, word, i, labels) for i, (label, word) in numbered]

    return bug


def last_pieces(labels, word_ids):
    followed = [*word_ids[1:], None]
    return [
        labels[word] if word is not None and word != after else -100
        for word, after in zip(word_ids, followed, strict=True)
    ]


def used_up(labels, word_ids):
    left, aligned = list(labels), []
    for i, word in enumerate(word_ids):
        begins = word is not None and (i == 0 or word_ids[i - 1] != word)
        aligned.append(left.pop(0) if begins else -100)
    return aligned


def new_labels(labels, word_ids):
    every = all_pieces(labels, word_ids)
    return [a if i == 0 or a != every[i - 1] else -100 for i, a in enumerate(every)]


def falsy_word(labels, word_ids):
    aligned, last = [], None
    for word in word_ids:
        if word and word != last:
            aligned.append(labels[word])
        else:
            aligned.append(-100)
        last = word
    return aligned


def pieces_of_words(labels, word_ids):
    kept = [word for word in word_ids if word is not None]
    return align_labels(labels, kept)


def spans_of(tags):
    """With a regular expression over the sentence, each word by its tag and its place."""
    text = " ".join(f"{tag}@{i}" for i, tag in enumerate(tags))
    found = re.finditer(r"[BI]-(\w+)@(\d+)(?: I-\1@\d+)*", text)
    return [[one[1], int(one[2]), int(one[2]) + len(one[0].split())] for one in found]


def reading(open_at, join_at):
    """A bug in what begins a span and what joins the last one; both take a tag and its type."""

    def bug(tags):
        spans, is_open = [], False
        for i, tag in enumerate(tags):
            mark, _, kind = tag.partition("-")
            if is_open and join_at(mark, kind, spans[-1][0]):
                spans[-1][2] = i + 1
            elif open_at(mark):
                spans.append([kind, i, i + 1])
                is_open = True
            else:
                is_open = False
        return spans

    return bug


def forgot_last(tags):
    spans, kind, start = [], "", 0
    for i, tag in enumerate(tags):
        if kind and tag != "I-" + kind:
            spans.append((kind, start, i))
            kind = ""
        if not kind and tag != "O":
            kind, start = tag.split("-")[1], i
    return spans


def with_o(tags):
    spans, i = [], 0
    while i < len(tags):
        end = i + 1
        while end < len(tags) and tags[i] != "O" and tags[end] == f"I-{tags[i][2:]}":
            end += 1
        spans.append((tags[i][2:], i, end))
        i = end
    return spans


def best_span(start, end, longest):
    n = len(start)
    pairs = [(i, j) for i in range(n) for j in range(i, min(n, i + longest))]
    return torch.tensor(max(pairs, key=lambda pair: start[pair[0]] + end[pair[1]]))


def searched(allowed, score=lambda a, b: a + b):
    """All pairs that are allowed, by another rule or with another score."""

    def bug(start, end, longest):
        best, found = -float("inf"), None
        for i, j in itertools.product(range(len(start)), repeat=2):
            value = float(score(start[i], end[j]))
            if allowed(i, j, longest) and value > best:
                best, found = value, [i, j]
        return torch.tensor(found)

    return bug


def greedy(start, end, longest):
    first = start.tolist().index(max(start))
    ends = {j: end[j] for j in range(first, first + longest) if j < len(end)}
    return torch.tensor([first, max(ends, key=ends.get)])


def exclusive(start, end, longest):
    first, last = best_span(start, end, longest).tolist()
    return torch.tensor([first, last + 1])


SOLUTIONS = {
    "mean_pool": mean_pool,
    "head_and_tail": head_and_tail,
    "align_labels": align_labels,
    "spans_of": spans_of,
    "best_span": best_span,
}

# The same mistakes as in the catalogue, written another way: (exercise, bug, word of the diagnosis)
PLANTED = [
    ("mean_pool", lambda x, m: x.sum(1) / m.shape[-1], "padding is averaged in"),
    ("mean_pool", lambda x, m: (x * m[:, :, None]).mean(-2), "still counted"),
    (
        "mean_pool",
        lambda x, m: torch.stack([s[~r].mean(0) for s, r in zip(x, m, strict=True)]),
        "the wrong way round",
    ),
    ("mean_pool", lambda x, m: weighed(x, m) / m.sum(1).float().mean(), "mean length of the batch"),
    (
        "mean_pool",
        lambda x, m: x.flatten(0, 1)[m.flatten()].sum(0) / m.sum(),
        "one mean for the whole batch",
    ),
    ("mean_pool", weighed, "this is the sum"),
    ("mean_pool", lambda x, m: x.select(1, 0), "[CLS] alone"),
    ("mean_pool", largest, "largest value"),
    ("mean_pool", lambda x, m: weighed(x, m).div(m.count_nonzero(1)), "stretches from the right"),
    (
        "head_and_tail",
        lambda ids, n: [one for i, one in enumerate(ids) if i < n],
        "this is the beginning alone",
    ),
    ("head_and_tail", without_middle(lambda n: n - 1, lambda n: 1), "[SEP] put behind"),
    ("head_and_tail", lambda ids, n: list(reversed(ids[::-1][:n])), "this is the end alone"),
    ("head_and_tail", without_middle(lambda n: 1, lambda n: n - 1), "only [CLS] is kept"),
    ("head_and_tail", without_middle(lambda n: n // 2, lambda n: (n + 1) // 2), "are halves"),
    (
        "head_and_tail",
        without_middle(lambda n: n - n // 4, lambda n: n // 4),
        "three quarters and the tail one",
    ),
    ("head_and_tail", twice, "a short text is cut as well"),
    (
        "head_and_tail",
        without_middle(lambda n: n // 4 + 1, lambda n: n - n // 4),
        "one id too many",
    ),
    ("head_and_tail", without_middle(lambda n: n // 4, lambda n: 0), "the tail is missing"),
    ("head_and_tail", without_middle(lambda n: 0, lambda n: n - n // 4), "the head is missing"),
    ("head_and_tail", parts(lambda ids, n: ids[-n:]), "the head comes on top"),
    ("head_and_tail", parts(lambda ids, n: ids), "the whole text follows"),
    ("head_and_tail", lambda ids, n: [*ids], "nothing is cut"),
    (
        "head_and_tail",
        lambda ids, n: (
            [one for i, one in enumerate(head_and_tail(ids, n)) if i != n // 4 - 1]
            if len(ids) > n
            else ids
        ),
        "one id too few",
    ),
    ("head_and_tail", lost_sep, "the last id is cut off"),
    ("align_labels", all_pieces, "every piece of a word has its label"),
    (
        "align_labels",
        patched(lambda label, word, i, labels: max(label, 0) if word is not None else label),
        "the later pieces of a word have label 0",
    ),
    (
        "align_labels",
        patched(lambda label, word, i, labels: 0 if word is None else label),
        "[SEP] and padding have label 0",
    ),
    (
        "align_labels",
        patched(lambda label, word, i, labels: labels[i] if label >= 0 else label),
        "by the place of the piece",
    ),
    ("align_labels", used_up, "used up one after the other"),
    ("align_labels", last_pieces, "the last piece of a word has its label"),
    ("align_labels", new_labels, "its neighbour has the same one"),
    ("align_labels", falsy_word, "the first word has no label"),
    ("align_labels", pieces_of_words, "are left out, so the list is too short"),
    (
        "spans_of",
        lambda tags: [(kind, i, j - 1) for kind, i, j in spans_of(tags)],
        "the place of the last word",
    ),
    ("spans_of", forgot_last, "reaches the end of the sentence"),
    (
        "spans_of",
        reading(lambda mark: mark != "O", lambda mark, kind, before: kind == before),
        "two neighbours of the same type",
    ),
    (
        "spans_of",
        reading(lambda mark: mark == "B", lambda mark, kind, before: (mark, kind) == ("I", before)),
        "none to go on with",
    ),
    (
        "spans_of",
        reading(lambda mark: mark == "B", lambda mark, kind, before: mark == "I"),
        "only a B- changes the type",
    ),
    (
        "spans_of",
        reading(lambda mark: mark in "BI", lambda mark, kind, before: mark == "I"),
        "Compare the types",
    ),
    (
        "spans_of",
        lambda tags: [(tag[2:], i, i + 1) for i, tag in enumerate(tags) if tag != "O"],
        "each tagged word is a span",
    ),
    (
        "spans_of",
        lambda tags: [(f"{tags[i][0]}-{kind}", i, j) for kind, i, j in spans_of(tags)],
        "still has its B- or I-",
    ),
    (
        "spans_of",
        lambda tags: [(re.sub("^[BI-]+", "", kind), i, j) for kind, i, j in spans_of(tags)],
        "lost letters",
    ),
    ("spans_of", with_o, "words with O become names"),
    ("spans_of", lambda tags: [(s[0], *s[:0:-1]) for s in spans_of(tags)], "have changed places"),
    ("spans_of", lambda tags: [(s[1], s[0], s[2]) for s in spans_of(tags)], "in the middle"),
    ("spans_of", lambda tags: [(*s[1:], s[0]) for s in spans_of(tags)], "type stands at the end"),
    ("spans_of", lambda tags: [(s[0], s[1], s[1] + 1) for s in spans_of(tags)], "its first word"),
    ("spans_of", lambda tags: [(*s[:2], s[2] + 1) for s in spans_of(tags)], "one too far"),
    ("spans_of", lambda tags: spans_of(tags)[:-1], "the last one is missing"),
    (
        "best_span",
        lambda start, end, longest: torch.stack([start, end]).max(1).indices,
        "on their own",
    ),
    ("best_span", greedy, "the best start is taken first"),
    ("best_span", searched(lambda i, j, n: i <= j), "has no limit"),
    ("best_span", searched(lambda i, j, n: i <= j <= i + n), "one token too many"),
    ("best_span", searched(lambda i, j, n: j < i + n), "first <= last is missing"),
    ("best_span", searched(lambda i, j, n: i < j < i + n), "an answer of one token"),
    ("best_span", exclusive, "last is one too far"),
    (
        "best_span",
        searched(lambda i, j, n: i <= j < i + n, lambda a, b: a * b),
        "the logits are multiplied",
    ),
    (
        "best_span",
        lambda start, end, longest: best_span(*torch.stack([end, start]), longest),
        "start and end are exchanged",
    ),
]
