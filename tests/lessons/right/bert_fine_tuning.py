"""Right answers to the exercises of lesson 08 in several styles, and inputs to judge others on."""

import itertools
import re

import numpy as np
import torch
from torch import Tensor

from attnviz.lessons.drawing import Draw


def pool_by_steps(hidden: Tensor, mask: Tensor) -> Tensor:
    real = mask.unsqueeze(-1)
    sums = (hidden * real).sum(dim=1)
    return sums / real.sum(dim=1)


def pool_by_loops(hidden: Tensor, mask: Tensor) -> Tensor:
    pooled = torch.zeros(len(hidden), hidden.size(-1))
    for i in range(len(hidden)):
        states = [hidden[i, t] for t in range(hidden.size(1)) if mask[i, t]]
        pooled[i] = sum(states) / len(states)
    return pooled


def pool_by_einsum(hidden: Tensor, mask: Tensor) -> Tensor:
    weights = mask.float()
    weights = weights / weights.sum(1, keepdim=True)
    return torch.einsum("btd,bt->bd", hidden, weights)


def pool_in_numpy(hidden: Tensor, mask: Tensor) -> np.ndarray:
    hidden, mask = hidden.numpy(), mask.numpy()
    return np.where(mask[:, :, None], hidden, 0).sum(1) / mask.sum(1)[:, None]


def pool_in_place(hidden: Tensor, mask: Tensor) -> Tensor:
    states = hidden.clone()
    states[~mask] = 0
    pooled = states.sum(1)
    pooled /= mask.sum(1)[:, None]
    return pooled


def pool_by_nan(hidden: Tensor, mask: Tensor) -> Tensor:
    return hidden.masked_fill(~mask[..., None], torch.nan).nanmean(dim=1)


def pool_in_half_precision(hidden: Tensor, mask: Tensor) -> Tensor:
    weights = (mask.float() / mask.sum(-1, keepdim=True)).half()
    return (weights[:, None, :] @ hidden.half())[:, 0]


def _hidden(draw: Draw) -> tuple[Tensor, Tensor]:
    """Texts of one piece up to all places, as long as each other or not; padding is far off."""
    batch, n, d_model = draw.sizes(3, range(1, 10))
    lengths = torch.tensor([draw.choice([1, n, draw.randint(1, n)]) for _ in range(batch)])
    mask = torch.arange(n).expand(batch, n) < lengths.unsqueeze(1)
    hidden = draw.tensor(batch, n, d_model) + draw.choice([0, 1, -3])
    return torch.where(mask[..., None], hidden, 2 - 5 * hidden), mask


def cut_by_slices(ids: list[int], length: int) -> list[int]:
    if len(ids) <= length:
        return ids
    head = length // 4
    tail = length - head
    return ids[:head] + ids[-tail:]


def cut_by_loops(ids: list[int], length: int) -> list[int]:
    kept, too_many = [], max(len(ids) - length, 0)
    head = length // 4
    for i, one in enumerate(ids):
        if i >= head and i < head + too_many:
            continue
        kept.append(one)
    return kept


def cut_in_place(ids: list[int], length: int) -> list[int]:
    kept = list(ids)
    if len(kept) > length:
        del kept[length // 4 : len(kept) - (length - length // 4)]
    return kept


def cut_by_recursion(ids: list[int], length: int) -> list[int]:
    if len(ids) <= length:
        return ids
    middle = length // 4
    return cut_by_recursion(ids[:middle] + ids[middle + 1 :], length)


def cut_in_numpy(ids: list[int], length: int) -> np.ndarray:
    ids = np.array(ids)
    if ids.size > length:
        head, _ = divmod(length, 4)
        ids = np.concatenate([ids[:head], ids[ids.size - length + head :]])
    return ids


def cut_by_iterators(ids: list[int], length: int) -> list[int]:
    skipped = 0 if len(ids) < length else len(ids) - length
    head = itertools.islice(ids, length // 4)
    tail = itertools.islice(ids, length // 4 + skipped, None)
    return list(itertools.chain(head, tail))


def _text(draw: Draw) -> tuple[list[int], int]:
    """Texts below, at and above the length, with pieces that come again."""
    length = draw.randint(1, 21)
    n = max(2, length + draw.choice([-7, -1, 0, 1, 2, 5, 30]))
    return [101, *draw.choices(range(200, 200 + draw.choice([4, 900])), k=n - 2), 102], length


def align_by_loop(labels: list[int], word_ids: list[int | None]) -> list[int]:
    aligned = []
    before = None
    for word in word_ids:
        if word is None or word == before:
            aligned.append(-100)
        else:
            aligned.append(labels[word])
        before = word
    return aligned


def align_by_comprehension(labels: list[int], word_ids: list[int | None]) -> list[int]:
    return [
        labels[word] if word is not None and word not in word_ids[:i] else -100
        for i, word in enumerate(word_ids)
    ]


def align_by_words(labels: list[int], word_ids: list[int | None]) -> list[int]:
    aligned = [-100] * len(word_ids)
    for word, label in enumerate(labels):
        if word in word_ids:
            aligned[word_ids.index(word)] = label
    return aligned


def align_with_a_set(labels: list[int], word_ids: list[int | None]) -> list[int]:
    seen, aligned = {None}, []
    for word in word_ids:
        aligned.append(-100 if word in seen else labels[word])
        seen.add(word)
    return aligned


def align_by_groups(labels: list[int], word_ids: list[int | None]) -> list[int]:
    aligned = []
    for word, pieces in itertools.groupby(word_ids):
        rest = [-100] * len(list(pieces))
        if word is not None:
            rest[0] = labels[word]
        aligned += rest
    return aligned


def align_from_behind(labels: list[int], word_ids: list[int | None]) -> list[int]:
    first = {}
    for i in range(len(word_ids) - 1, -1, -1):
        first[word_ids[i]] = i
    return [
        labels[word] if word is not None and first[word] == i else -100
        for i, word in enumerate(word_ids)
    ]


def _pieces_of_words(draw: Draw) -> tuple[list[int], list[int | None]]:
    """Words of several pieces, or none; special pieces around and between; some words cut off."""
    words = draw.randint(0, 9)
    labels = draw.choices(range(draw.choice([1, 2, 9])), k=words)
    word_ids = [None] * draw.choice([0, 1, 1, 2])
    for word in range(draw.choice([words, words, words // 2])):
        word_ids += [word] * draw.choice([0, 1, 1, 2, 4])
        word_ids += [None] * draw.choice([0, 0, 0, 0, 1])
    return labels, word_ids + [None] * draw.choice([0, 1, 3])


def spans_by_loop(tags: list[str]) -> list[tuple[str, int, int]]:
    spans, kind, start = [], None, None
    for i, tag in enumerate(tags):
        if kind is not None and tag == "I-" + kind:
            continue
        if kind is not None:
            spans.append((kind, start, i))
            kind = None
        if tag != "O":
            kind, start = tag[2:], i
    if kind is not None:
        spans.append((kind, start, len(tags)))
    return spans


def spans_by_growing(tags: list[str]) -> list[tuple[str, int, int]]:
    spans = []
    for i, tag in enumerate(tags):
        if tag == "O":
            continue
        mark, kind = tag.split("-", 1)
        if mark == "I" and spans and spans[-1][0] == kind and spans[-1][2] == i:
            spans[-1][2] = i + 1
        else:
            spans.append([kind, i, i + 1])
    return [tuple(span) for span in spans]


def spans_by_while(tags: list[str]) -> list[tuple[str, int, int]]:
    spans, i = [], 0
    while i < len(tags):
        start = i
        i += 1
        if tags[start] == "O":
            continue
        kind = tags[start][2:]
        while i < len(tags) and tags[i] == f"I-{kind}":
            i += 1
        spans.append((kind, start, i))
    return spans


def spans_by_borders(tags: list[str]) -> list[tuple[str, int, int]]:
    padded = ["O", *tags, "O"]
    kinds = [tag[2:] for tag in padded]
    starts, ends = [], []
    for i in range(1, len(padded)):
        goes_on = padded[i].startswith("I-") and kinds[i] == kinds[i - 1]
        if kinds[i - 1] and not goes_on:
            ends.append(i - 1)
        if kinds[i] and not goes_on:
            starts.append(i - 1)
    return [(tags[start][2:], start, end) for start, end in zip(starts, ends, strict=True)]


def spans_by_recursion(tags: list[str], start: int = 0) -> list[tuple[str, int, int]]:
    if start >= len(tags):
        return []
    if tags[start] == "O":
        return spans_by_recursion(tags, start + 1)
    kind, end = re.sub("^[BI]-", "", tags[start]), start + 1
    while end < len(tags) and tags[end][0] == "I" and tags[end][2:] == kind:
        end += 1
    return [(kind, start, end), *spans_by_recursion(tags, end)]


def _tags(draw: Draw) -> tuple[list[str]]:
    """Any tag behind any other; types that begin like a mark, and like each other."""
    kinds = draw.sample(["PER", "LOC", "BAND", "ION", "IBIS", "BIB", "ORG", "OR", "PERS", "DER"], 2)
    choices = ["O", *(f"{mark}-{kind}" for mark in "BI" for kind in kinds)]
    return (draw.choices(choices, k=draw.randint(0, 10)),)


def span_by_loops(start: Tensor, end: Tensor, longest: int) -> Tensor:
    best, found = -float("inf"), None
    for first in range(len(start)):
        for last in range(first, min(first + longest, len(end))):
            score = start[first] + end[last]
            if score > best:
                best, found = score, [first, last]
    return torch.tensor(found)


def span_by_matrix(start: Tensor, end: Tensor, longest: int) -> Tensor:
    n = len(start)
    sums = start[:, None] + end[None, :]
    allowed = torch.ones(n, n, dtype=torch.bool).triu().tril(longest - 1)
    sums[~allowed] = -float("inf")
    best = sums.argmax()
    return torch.stack([best // n, best % n])


def span_in_numpy(start: Tensor, end: Tensor, longest: int) -> tuple[int, ...]:
    sums = np.add.outer(start.numpy(), end.numpy())
    first, last = np.indices(sums.shape)
    sums[(last < first) | (last - first >= longest)] = -np.inf
    return np.unravel_index(sums.argmax(), sums.shape)


def span_by_max(start: Tensor, end: Tensor, longest: int) -> Tensor:
    n, scores = len(start), {}
    for first in range(n):
        for last in range(first, n):
            if last < first + longest:
                scores[first, last] = float(start[first] + end[last])
    return torch.tensor(max(scores, key=scores.get))


def span_by_lengths(start: Tensor, end: Tensor, longest: int) -> list[int]:
    best = (-torch.inf, 0, 0)
    for more in range(min(longest, len(start))):
        sums = start[: len(start) - more] + end[more:]
        first = int(sums.argmax())
        best = max(best, (float(sums[first]), first, first + more))
    return list(best[1:])


def span_by_windows(start: Tensor, end: Tensor, longest: int) -> Tensor:
    lasts, sums = [], []
    for first in range(len(start)):
        window = end[first : first + longest]
        lasts.append(first + int(window.argmax()))
        sums.append(start[first] + window.max())
    first = int(torch.stack(sums).argmax())
    return torch.tensor([first, lasts[first]])


def _logits_of_a_text(draw: Draw) -> tuple[Tensor, Tensor, int]:
    """From one piece on; all above zero or far below; a part that cannot be the answer."""
    n = draw.randint(1, 14)
    start, end = draw.tensor(2, n, scale=draw.choice([0.5, 2, 6])) + draw.choice([-900, -40, 0, 30])
    if n > 3 and draw.random() < 0.3:
        outside = torch.arange(n) < draw.randrange(n - 1)
        start, end = (logits.masked_fill(outside, -1e4) for logits in (start, end))
    return start, end, draw.choice([1, 2, 3, 5, 20])


RIGHT = {
    "mean_pool": (
        pool_by_steps,
        pool_by_loops,
        pool_by_einsum,
        pool_in_numpy,
        pool_in_place,
        pool_by_nan,
        pool_in_half_precision,
    ),
    "head_and_tail": (
        cut_by_slices,
        cut_by_loops,
        cut_in_place,
        cut_by_recursion,
        cut_in_numpy,
        cut_by_iterators,
    ),
    "align_labels": (
        align_by_loop,
        align_by_comprehension,
        align_by_words,
        align_with_a_set,
        align_by_groups,
        align_from_behind,
    ),
    "spans_of": (
        spans_by_loop,
        spans_by_growing,
        spans_by_while,
        spans_by_borders,
        spans_by_recursion,
    ),
    "best_span": (
        span_by_loops,
        span_by_matrix,
        span_in_numpy,
        span_by_max,
        span_by_lengths,
        span_by_windows,
    ),
}
INPUTS = {
    "mean_pool": _hidden,
    "head_and_tail": _text,
    "align_labels": _pieces_of_words,
    "spans_of": _tags,
    "best_span": _logits_of_a_text,
}
EQUIVALENT = {  # mutants that are the same function
    "each row is written over": (
        "pool_by_loops: pooled = torch.ones(len(hidden), hidden.size(-1))",
    ),
    "both have the same shape": (
        "pool_by_loops: pooled = torch.zeros(len(mask), hidden.size(-1))",
        "pool_by_loops: for i in range(len(mask)):",
        "pool_by_loops: states = [hidden[i, t] for t in range(mask.size(1)) if mask[i, t]]",
        "span_by_loops: for first in range(len(end)):",
        "span_by_loops: for last in range(first, min(first + longest, len(start))):",
        "span_by_matrix: n = len(end)",
        "span_by_max: n, scores = (len(end), {})",
        "span_by_lengths: for more in range(min(longest, len(end))):",
        "span_by_lengths: sums = start[:len(end) - more] + end[more:]",
        "span_by_windows: for first in range(len(end)):",
    ),
    "the same numbers, held by another kind": (
        "pool_by_einsum: weights = mask",
        "pool_in_numpy: hidden, mask = (hidden, mask.numpy())",
        "pool_in_numpy: hidden, mask = (hidden.numpy(), mask)",
        "pool_in_half_precision: weights = (mask / mask.sum(-1, keepdim=True)).half()",
        "span_in_numpy: sums = np.add.outer(start, end.numpy())",
        "span_in_numpy: sums = np.add.outer(start.numpy(), end)",
        "span_by_max: scores[first, last] = start[first] + end[last]",
        "span_by_lengths: first = sums.argmax()",
        "span_by_lengths: best = max((float(sums[first]), first, first + more), best)",
        "span_by_lengths: best = max(best, (sums[first], first, first + more))",
        "span_by_windows: first = torch.stack(sums).argmax()",
        "span_by_windows: lasts.append(first + window.argmax())",
    ),
    "lists, tuples and iterators of the same numbers, and other kinds of numbers, are as right": (
        "cut_by_iterators: return itertools.chain(head, tail)",
        "spans_by_growing: return [span for span in spans]",
        "span_by_loops: return found",
        "span_by_matrix: return [best // n, best % n]",
        "span_by_max: return max(scores, key=scores.get)",
        "span_by_lengths: return best[1:]",
        "span_by_windows: return [first, lasts[first]]",
    ),
    "there is only one": (
        "pool_in_half_precision: return (weights[:, None, :] @ hidden.half())[:, -1]",
    ),
    "nothing is cut at the border": (
        "cut_by_slices: if len(ids) < length:",
        "cut_in_place: if len(kept) >= length:",
        "cut_in_numpy: if ids.size >= length:",
        "cut_by_iterators: skipped = 0 if len(ids) <= length else len(ids) - length",
    ),
    "the order does not matter": (
        "cut_by_loops: kept, too_many = ([], max(0, len(ids) - length))",
        "span_by_loops: for last in range(first, min(len(end), first + longest)):",
        "span_by_lengths: for more in range(min(len(start), longest)):",
    ),
    "the first value is never used, or is the same": (
        "span_by_lengths: best = (-torch.inf, 0, -1)",
        "span_by_lengths: best = (-torch.inf, 1, 0)",
        "span_by_lengths: best = (-torch.inf, -1, 0)",
        "span_by_lengths: best = (-torch.inf, 0, 1)",
    ),
    "no type has a hyphen, and what stands around the tags is never read": (
        "spans_by_growing: mark, kind = tag.split('-')",
        "spans_by_growing: mark, kind = tag.split('-', 2)",
        "spans_by_borders: padded = ['', *tags, 'O']",
        "spans_by_borders: padded = ['O', *tags, '']",
        "spans_by_borders: for i in range(0, len(padded)):",
        "spans_by_borders: kinds = [tag[1:] for tag in padded]",
    ),
    "the lists are of one length": (
        "spans_by_borders: return [(tags[start][2:], start, end) for "
        "start, end in zip(starts, ends)]",
        "spans_by_borders: return [(tags[start][2:], start, end) for "
        "start, end in zip(starts, ends, strict=False)]",
    ),
    "no two spans are as good": ("span_by_loops: if score >= best:",),
    "a negative number of ids too many leaves the places as they are": (
        "cut_by_loops: kept, too_many = ([], len(ids) - length)",
        "cut_by_loops: kept, too_many = ([], max(len(ids) - length, -1))",
    ),
}
