"""Right answers to the exercises of lesson 10 in several styles, and inputs to judge others on."""

import math
from itertools import zip_longest

import numpy as np
import torch
import torch.nn.functional as F
from scipy.special import softmax
from torch import Tensor

from attnviz.lessons.drawing import Draw


def cache_by_steps(
    query: Tensor, key: Tensor, value: Tensor, past_key: Tensor, past_value: Tensor
) -> Tensor:
    past, new = past_key.shape[2], key.shape[2]
    keys = torch.cat([past_key, key], dim=2)
    values = torch.cat([past_value, value], dim=2)
    scores = query @ keys.transpose(-2, -1) / math.sqrt(query.shape[-1])
    tokens = torch.arange(past, past + new)
    scores = scores.masked_fill(torch.arange(past + new) > tokens[:, None], -math.inf)
    return torch.softmax(scores, dim=-1) @ values


def cache_token_by_token(
    query: Tensor, key: Tensor, value: Tensor, past_key: Tensor, past_value: Tensor
) -> Tensor:
    found = []
    for i in range(query.size(2)):
        keys = torch.cat([past_key, key[:, :, : i + 1]], 2)
        values = torch.cat([past_value, value[:, :, : i + 1]], 2)
        scores = query[:, :, i : i + 1] @ keys.mT * query.size(-1) ** -0.5
        found.append(scores.softmax(-1) @ values)
    return torch.cat(found, 2)


def cache_in_numpy(
    query: Tensor, key: Tensor, value: Tensor, past_key: Tensor, past_value: Tensor
) -> np.ndarray:
    keys = np.concatenate([past_key.numpy(), key.numpy()], axis=2)
    values = np.concatenate([past_value.numpy(), value.numpy()], axis=2)
    scores = np.einsum("bhqd,bhkd->bhqk", query.numpy(), keys) / np.sqrt(keys.shape[-1])
    scores += np.triu(np.full(scores.shape[-2:], -np.inf), past_key.shape[2] + 1)
    return softmax(scores, axis=-1) @ values


def cache_in_one_call(
    query: Tensor, key: Tensor, value: Tensor, past_key: Tensor, past_value: Tensor
) -> Tensor:
    keys, values = torch.cat((past_key, key), 2), torch.cat((past_value, value), 2)
    may_see = torch.ones(query.size(2), keys.size(2)).tril(past_key.size(2)).bool()
    return F.scaled_dot_product_attention(query, keys, values, attn_mask=may_see)


def top_p_by_loop(p: Tensor, top_p: float) -> Tensor:
    kept, together = torch.zeros_like(p), 0.0
    for i in p.argsort(descending=True).tolist():
        if together >= top_p:
            break
        kept[i] = p[i]
        together += p[i].item()
    return kept / kept.sum()


def top_p_in_numpy(p: Tensor, top_p: float) -> np.ndarray:
    row = p.numpy()
    order = np.argsort(-row)
    n = np.searchsorted(np.cumsum(row[order]), top_p) + 1
    kept = np.zeros_like(row)
    kept[order[:n]] = row[order[:n]]
    return kept / kept.sum()


def top_p_one_by_one(p: Tensor, top_p: float) -> Tensor:
    left, kept = p.clone(), torch.zeros_like(p)
    while kept.sum() < top_p:
        i = left.argmax()
        kept[i] = p[i]
        left[i] = -1
    return kept / kept.sum()


def top_p_in_place(p: Tensor, top_p: float) -> Tensor:
    order = p.argsort(descending=True)
    ordered = p[order]
    out = ordered.cumsum(0) - ordered >= top_p
    left = p.clone()
    left[order[out]] = 0
    left /= left.sum()
    return left


def windows_one_by_one(n: int, length: int, overlap: int) -> list[tuple[int, int]]:
    found, start = [], 0
    while start + length < n:
        found.append((start, start + length))
        start += length - overlap
    found.append((max(n - length, 0), n))
    return found


def windows_by_recursion(
    n: int, length: int, overlap: int, start: int = 0
) -> list[tuple[int, int]]:
    if start + length >= n:
        return [(max(n - length, 0), n)]
    rest = windows_by_recursion(n, length, overlap, start + length - overlap)
    return [(start, start + length), *rest]


def windows_counted(n: int, length: int, overlap: int) -> list[list[int]]:
    count = max(0, math.ceil((n - length) / (length - overlap)))
    ends = [min(length + i * (length - overlap), n) for i in range(count + 1)]
    return [[max(end - length, 0), end] for end in ends]


def windows_in_numpy(n: int, length: int, overlap: int) -> np.ndarray:
    starts = np.minimum(np.arange(0, n, length - overlap), max(n - length, 0))
    starts = np.unique(starts)
    return np.stack([starts, np.minimum(starts + length, n)], axis=1)


def int8_in_python(x: Tensor) -> Tensor:
    rows = []
    for row in x.tolist():
        scale = max(abs(number) for number in row) / 127
        rows.append([round(number / scale) * scale if scale else 0.0 for number in row])
    return torch.tensor(rows)


def int8_in_numpy(x: Tensor) -> np.ndarray:
    scale = np.abs(x.numpy()).max(axis=1)[:, None] / 127
    scale[scale == 0] = 1
    return np.round(x.numpy() / scale).astype(np.int8) * scale


def int8_by_rows(x: Tensor) -> Tensor:
    found = torch.zeros(x.shape)
    for i, row in enumerate(x):
        if row.any():
            scale = row.abs().max() / 127
            found[i] = torch.round(row / scale) * scale
    return found


def int8_of_torch(x: Tensor) -> Tensor:
    scales = x.abs().amax(1).clamp(min=1e-12) / 127
    zeros = torch.zeros(len(x)).long()
    return torch.quantize_per_channel(x, scales, zeros, 0, torch.qint8).dequantize()


def share_by_loop(lengths: list[int], batch_size: int, by_length: bool) -> float:
    if by_length:
        lengths = sorted(lengths, reverse=True)
    padding, everything = 0, 0
    for start in range(0, len(lengths), batch_size):
        batch = lengths[start : start + batch_size]
        for length in batch:
            padding += max(batch) - length
            everything += max(batch)
    return padding / everything


def share_in_numpy(lengths: list[int], batch_size: int, by_length: bool) -> float:
    row = np.sort(lengths) if by_length else np.array(lengths)
    batches = np.split(row, range(batch_size, len(row), batch_size))
    return 1 - row.sum() / sum(len(batch) * batch.max() for batch in batches)


def share_by_recursion(lengths: list[int], batch_size: int, by_length: bool) -> float:
    def padded(rest: list[int]) -> int:
        batch = rest[:batch_size]
        return len(batch) * max(batch) + padded(rest[batch_size:]) if rest else 0

    everything = padded(sorted(lengths) if by_length else lengths)
    return (everything - sum(lengths)) / everything


def share_of_columns(lengths: list[int], batch_size: int, by_length: bool) -> float:
    texts = iter(sorted(lengths) if by_length else lengths)
    sizes = []
    for batch in zip_longest(*[texts] * batch_size):
        real = [length for length in batch if length is not None]
        sizes += [max(real)] * len(real)
    return 1 - sum(lengths) / sum(sizes)


def _read_so_far(draw: Draw) -> tuple[Tensor, ...]:
    batch, heads, new, d_k = draw.sizes(4, range(1, 9))
    past, scale = draw.choice([0, 1, 3, 10]), draw.choice([0.2, 1, 9])
    past += past == new
    new_ones = [draw.tensor(batch, heads, new, d_k, scale=scale) for _ in range(2)]
    old_keys = draw.tensor(batch, heads, past, d_k, scale=scale)
    value = draw.tensor(batch, heads, new, d_k)
    return *new_ones, value, old_keys, draw.tensor(batch, heads, past, d_k)


def _distribution(draw: Draw) -> tuple[Tensor, float]:
    """Sums are exact and may be just top_p, or else far from it; it is clear how many are kept."""
    while True:
        p, top_p = draw.choice([_of_parts, _of_scores])(draw)
        ordered = p.sort(descending=True).values
        sums = ordered.cumsum(0)
        n = int((sums < top_p).sum())
        last = p == ordered[n]
        of_last = int((ordered[: n + 1] == ordered[n]).sum())
        if of_last == last.sum() or of_last > 1:  # of several, which ones may be free
            return p, top_p


def _of_parts(draw: Draw) -> tuple[Tensor, float]:
    marks = [0, *sorted(draw.choices(range(0, 65, draw.choice([1, 8])), k=7)), 64]
    return torch.tensor(marks).diff() / 64, draw.randint(1, 64) / 64


def _of_scores(draw: Draw) -> tuple[Tensor, float]:
    p = draw.tensor(draw.randint(1, 12), scale=draw.choice([0.5, 3])).softmax(0)
    sums = torch.cat([torch.zeros(1), p.sort(descending=True).values.cumsum(0)[:-1], torch.ones(1)])
    between = draw.randrange(len(p))
    return p, float(sums[between] + (sums[between + 1] - sums[between]) * draw.uniform(0.1, 0.9))


def _text(draw: Draw) -> tuple[int, int, int]:
    length = draw.randint(1, draw.choice([3, 20]))
    return draw.randint(1, draw.choice([length, 60])), length, draw.randrange(length)


def _layer(draw: Draw) -> tuple[Tensor]:
    """The largest of each row is 127 steps of a size that floats hold just so."""
    rows, columns = draw.sizes(2, range(1, 9))
    if columns == 1:
        rows, columns = columns, rows
    x = draw.tensor(rows, columns).clamp(-2, 2) / 2.1
    for row in x:
        places = draw.sample(range(columns), min(columns, 3))
        row[places] = torch.tensor([draw.choice([-1.0, 1.0]), 0.4, 0.0])[: len(places)]
        row *= 127 * draw.choice([0, 1, 2**-3, 2**-6, 2**-9])
    return (x,)


def _texts(draw: Draw) -> tuple[list[int], int, bool]:
    """To sort up gives the same share as to sort down."""
    batch_size, by_length = draw.randint(1, 6), draw.random() < 0.5
    while True:
        lengths = [draw.randint(1, draw.choice([4, 200])) for _ in range(draw.randint(1, 15))]
        shares = [
            share_by_loop(sorted(lengths, reverse=down), batch_size, False) for down in (0, 1)
        ]
        if shares[0] == shares[1]:
            return lengths, batch_size, by_length


RIGHT = {
    "attend_with_cache": (
        cache_by_steps,
        cache_token_by_token,
        cache_in_numpy,
        cache_in_one_call,
    ),
    "keep_top_p": (top_p_by_loop, top_p_in_numpy, top_p_one_by_one, top_p_in_place),
    "windows": (windows_one_by_one, windows_by_recursion, windows_counted, windows_in_numpy),
    "to_int8": (int8_in_python, int8_in_numpy, int8_by_rows, int8_of_torch),
    "padding_share": (share_by_loop, share_in_numpy, share_by_recursion, share_of_columns),
}
INPUTS = {
    "attend_with_cache": _read_so_far,
    "keep_top_p": _distribution,
    "windows": _text,
    "to_int8": _layer,
    "padding_share": _texts,
}

# Changed, and still right
EQUIVALENT = {
    "without a mistake nothing more is added": (
        "_attend_with_cache: return _mix(scores, _both(past_value, value), "
        "past_key.size(2) + 1 + further)",
        "_attend_with_cache: return _mix(scores, _both(past_value, value), "
        "past_key.size(2) + 1 - further, dim)",
        "_attend_with_cache: return _mix(scores, _both(past_value, value), "
        "past_key.size(2) + 1, dim)",
    ),
    "the sizes are the same": (
        "_attend_with_cache: return _mix(scores, _both(past_value, value), "
        "past_value.size(2) + 1 + further, dim)",
        "cache_by_steps: past, new = (past_key.shape[2], query.shape[2])",
        "cache_by_steps: past, new = (past_key.shape[2], value.shape[2])",
        "cache_by_steps: past, new = (past_value.shape[2], key.shape[2])",
        "cache_by_steps: scores = query @ keys.transpose(-2, -1) / math.sqrt(key.shape[-1])",
        "cache_by_steps: scores = query @ keys.transpose(-2, -1) / math.sqrt(past_key.shape[-1])",
        "cache_by_steps: scores = query @ keys.transpose(-2, -1) / math.sqrt(past_value.shape[-1])",
        "cache_by_steps: scores = query @ keys.transpose(-2, -1) / math.sqrt(value.shape[-1])",
        "cache_in_numpy: scores += np.triu(np.full(scores.shape[-2:], -np.inf), "
        "past_value.shape[2] + 1)",
        "cache_in_one_call: may_see = torch.ones(key.size(2), "
        "keys.size(2)).tril(past_key.size(2)).bool()",
        "cache_in_one_call: may_see = torch.ones(query.size(2), "
        "keys.size(2)).tril(past_value.size(2)).bool()",
        "cache_in_one_call: may_see = torch.ones(value.size(2), "
        "keys.size(2)).tril(past_key.size(2)).bool()",
        "cache_token_by_token: for i in range(key.size(2)):",
        "cache_token_by_token: for i in range(value.size(2)):",
        "cache_token_by_token: scores = query[:, :, i:i + 1] @ keys.mT * key.size(-1) ** (-0.5)",
        "cache_token_by_token: scores = query[:, :, i:i + 1] @ keys.mT * "
        "past_key.size(-1) ** (-0.5)",
        "cache_token_by_token: scores = query[:, :, i:i + 1] @ keys.mT * "
        "past_value.size(-1) ** (-0.5)",
        "cache_token_by_token: scores = query[:, :, i:i + 1] @ keys.mT * value.size(-1) ** (-0.5)",
    ),
    "it is unchanged": (
        "_padding_share: padding, everything = _padding_and_all(lengths, batch_size, by_length)",
        "cache_token_by_token: keys = torch.cat([past_key, key[:, :, :i + 1]], 2)",
        "share_by_loop: padding, everything = (0, 0)",
    ),
    "the last two dimensions change places in both directions": (
        "cache_by_steps: scores = query @ keys.transpose(-1, -2) / math.sqrt(query.shape[-1])",
    ),
    "a list, an array and a tensor hold the same": (
        "cache_in_numpy: keys = np.concatenate([past_key, key.numpy()], axis=2)",
        "cache_in_numpy: keys = np.concatenate([past_key.numpy(), key], axis=2)",
        "cache_in_numpy: scores = np.einsum('bhqd,bhkd->bhqk', query, keys) / "
        "np.sqrt(keys.shape[-1])",
        "cache_in_numpy: values = np.concatenate([past_value, value.numpy()], axis=2)",
        "cache_in_numpy: values = np.concatenate([past_value.numpy(), value], axis=2)",
        "int8_in_python: return rows",
        "top_p_by_loop: for i in p.argsort(descending=True):",
        "top_p_by_loop: together += p[i]",
        "top_p_in_numpy: row = p",
    ),
    "np.triu works on the last two dimensions": (
        "cache_in_numpy: scores += np.triu(np.full(scores.shape[-3:], -np.inf), "
        "past_key.shape[2] + 1)",
        "cache_in_numpy: scores += np.triu(np.full(scores.shape[:], -np.inf), "
        "past_key.shape[2] + 1)",
    ),
    "whole numbers are whole numbers in float, too": (
        "int8_in_numpy: return np.round(x.numpy() / scale) * scale",
        "int8_of_torch: zeros = torch.zeros(len(x))",
    ),
    "nan becomes 0 as int8, and a row of zeros is 0 at any scale": (
        "int8_in_numpy: scale[scale == -1] = 1",
        "int8_in_numpy: scale[scale == 0] = 0",
        "int8_in_numpy: scale[scale == 0] = 2",
        "int8_in_numpy: scale[scale == 1] = 1",
        "int8_in_numpy: without scale[scale == 0] = 1",
    ),
    "torch takes a scale of zero for a row of zeros": (
        "int8_of_torch: scales = x.abs().amax(1) / 127",
        "int8_of_torch: scales = x.abs().amax(1).clamp(min=-0.999999999999) / 127",
    ),
    "sorted up or down, the share is the same": (
        "share_by_loop: lengths = sorted(lengths)",
        "share_by_loop: lengths = sorted(lengths, reverse=False)",
    ),
    "one dimension is the first and the last": (
        "top_p_in_place: out = ordered.cumsum(-1) - ordered >= top_p",
    ),
    "no probability is as low as that": (
        "top_p_one_by_one: left[i] = -0",
        "top_p_one_by_one: left[i] = -2",
    ),
    "of two numbers, the order does not matter": (
        "windows_by_recursion: return [(max(0, n - length), n)]",
        "windows_counted: count = max(math.ceil((n - length) / (length - overlap)), 0)",
        "windows_counted: ends = [min(n, length + i * (length - overlap)) for i in "
        "range(count + 1)]",
        "windows_counted: return [[max(0, end - length), end] for end in ends]",
        "windows_in_numpy: return np.stack([starts, np.minimum(n, starts + length)], axis=1)",
        "windows_in_numpy: starts = np.minimum(max(n - length, 0), np.arange(0, n, "
        "length - overlap))",
        "windows_in_numpy: starts = np.minimum(np.arange(0, n, length - overlap), max(0, "
        "n - length))",
        "windows_one_by_one: found.append((max(0, n - length), n))",
    ),
}
