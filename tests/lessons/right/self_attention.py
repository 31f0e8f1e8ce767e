"""Right answers to the exercises of lesson 01 in several styles, and inputs to judge others on."""

import math

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from attnviz.lessons.drawing import Draw

# softmax


def softmax_by_steps(scores: Tensor) -> Tensor:
    largest = scores.max(dim=-1, keepdim=True).values
    exponentials = torch.exp(scores - largest)
    return exponentials / exponentials.sum(dim=-1, keepdim=True)


def softmax_in_numpy(scores: Tensor) -> np.ndarray:
    rows = scores.numpy()
    exponentials = np.exp(rows - rows.max(axis=-1, keepdims=True))
    return exponentials / exponentials.sum(axis=-1, keepdims=True)


def softmax_by_loops(scores: Tensor) -> Tensor:
    rows = []
    for row in scores.tolist():
        top = max(row)
        parts = [math.exp(score - top) for score in row]
        rows.append([part / sum(parts) for part in parts])
    return torch.tensor(rows)


def softmax_by_log_sum(scores: Tensor) -> Tensor:
    return torch.exp(scores - torch.logsumexp(scores, dim=1, keepdim=True))


def softmax_in_place(scores: Tensor) -> Tensor:
    weights = scores.clone()
    weights -= weights.amax(-1, keepdim=True)
    weights.exp_()
    weights /= weights.sum(-1, keepdim=True)
    return weights


def softmax_in_half_precision(scores: Tensor) -> Tensor:
    below_the_largest = scores - scores.amax(1)[:, None]
    return below_the_largest.half().softmax(-1)


def _scores(draw: Draw) -> tuple[Tensor]:
    """Of any size; some with ties, with rows far apart, or with scores far apart in a row."""
    n_queries, n_keys = draw.randint(1, 6), draw.randint(1, 6)
    scores = draw.tensor(n_queries, n_keys, scale=draw.choice([0.3, 2, 20, 150, 500]))
    if draw.random() < 0.3:
        scores = scores.round()
    if draw.random() < 0.5:
        scores += draw.choice([40, 300]) * draw.tensor(n_queries, 1)
    if draw.random() < 0.3:
        scores[:, draw.randrange(n_keys)] -= 1000
    return (scores + draw.choice([-200, 0, 60, 100]),)


# attention_weights


def weights_by_steps(query: Tensor, key: Tensor) -> Tensor:
    d_k = key.shape[1]
    scores = torch.matmul(query, key.transpose(0, 1))
    scores = scores / d_k**0.5
    return F.softmax(scores, dim=-1)


def weights_by_einsum(query: Tensor, key: Tensor) -> Tensor:
    scores = torch.einsum("qd,kd->qk", query, key) / math.sqrt(query.shape[-1])
    return scores.softmax(1)


def weights_by_loops(query: Tensor, key: Tensor) -> list:
    rows = []
    for q in query.tolist():
        scores = [
            sum(a * b for a, b in zip(q, k, strict=True)) / len(q) ** 0.5 for k in key.tolist()
        ]
        exponentials = [math.exp(score) for score in scores]
        rows.append([e / sum(exponentials) for e in exponentials])
    return rows


def weights_in_numpy(query: Tensor, key: Tensor) -> np.ndarray:
    scores = query.numpy() @ key.numpy().T / np.sqrt(query.size(1))
    exponentials = np.exp(scores - scores.max(1)[:, None])
    return exponentials / exponentials.sum(1)[:, None]


def weights_of_scaled_queries(query: Tensor, key: Tensor) -> Tensor:
    return F.linear(query * query.size(-1) ** -0.5, key).softmax(1)


def weights_by_broadcasting(query: Tensor, key: Tensor) -> Tensor:
    products = query[:, None, :] * key[None, :, :]
    return torch.softmax(products.sum(-1) / products.size(-1) ** 0.5, dim=-1)


def weights_in_half_precision(query: Tensor, key: Tensor) -> Tensor:
    return torch.softmax(query @ key.mT / query.size(-1) ** 0.5, -1).half()


def _query_and_key(draw: Draw) -> tuple[Tensor, Tensor]:
    """Scores are small enough for an exponential, which may stand there without a softmax."""
    n_queries, n_keys, d_k = draw.randint(1, 6), draw.randint(1, 6), draw.randint(1, 9)
    scale = draw.choice([0.3, 1, 2])
    query, key = draw.tensor(n_queries, d_k, scale=scale), draw.tensor(n_keys, d_k, scale=scale)
    if draw.random() < 0.2:
        query, key = query.round(), key.round()
    return query, key


# self_attention


def attention_by_steps(x: Tensor, W_q: Tensor, W_k: Tensor, W_v: Tensor) -> Tensor:
    query = x @ W_q
    key = x @ W_k
    value = x @ W_v
    scores = query @ key.T / math.sqrt(W_k.shape[1])
    return scores.softmax(-1) @ value


def attention_token_by_token(x: Tensor, W_q: Tensor, W_k: Tensor, W_v: Tensor) -> Tensor:
    mixed = []
    for token in x:
        query = token @ W_q
        scores = torch.stack([query @ (other @ W_k) for other in x]) / len(query) ** 0.5
        weights = F.softmax(scores, 0)
        mixed.append(sum(w * (other @ W_v) for w, other in zip(weights, x, strict=True)))
    return torch.stack(mixed)


def attention_by_einsum(x: Tensor, W_q: Tensor, W_k: Tensor, W_v: Tensor) -> Tensor:
    scores = torch.einsum("id,dk,jm,mk->ij", x, W_q, x, W_k) * W_q.size(1) ** -0.5
    return torch.einsum("ij,jd,dk->ik", scores.softmax(1), x, W_v)


def attention_in_numpy(x: Tensor, W_q: Tensor, W_k: Tensor, W_v: Tensor) -> np.ndarray:
    query, key, value = (x.numpy() @ W.numpy() for W in (W_q, W_k, W_v))
    scores = query @ key.T / np.sqrt(key.shape[-1])
    weights = np.exp(scores - scores.max(-1, keepdims=True))
    return weights @ value / weights.sum(-1, keepdims=True)


def attention_with_one_matrix(x: Tensor, W_q: Tensor, W_k: Tensor, W_v: Tensor) -> Tensor:
    query, key, value = (x @ torch.cat([W_q, W_k, W_v], 1)).chunk(3, dim=-1)
    return F.scaled_dot_product_attention(query[None], key[None], value[None])[0]


def attention_in_half_precision(x: Tensor, W_q: Tensor, W_k: Tensor, W_v: Tensor) -> Tensor:
    weights = torch.softmax((x @ W_q) @ (x @ W_k).mT / W_q.size(-1) ** 0.5, -1)
    return (weights @ x @ W_v).half()


def _tokens_and_matrices(draw: Draw) -> tuple[Tensor, ...]:
    n_tokens, d_model, d_k = draw.randint(1, 6), draw.randint(1, 7), draw.randint(1, 7)
    x = draw.tensor(n_tokens, d_model, scale=draw.choice([0.3, 1]))
    return x, *(draw.tensor(d_model, d_k) for _ in range(3))


# padding_mask


def mask_by_comparing(lengths: Tensor, n_keys: int) -> Tensor:
    positions = torch.arange(n_keys)
    mask = positions.unsqueeze(0) < lengths.unsqueeze(1)
    return mask.unsqueeze(1)


def mask_by_loops(lengths: Tensor, n_keys: int) -> Tensor:
    mask = torch.zeros(len(lengths), 1, n_keys, dtype=torch.bool)
    for i, length in enumerate(lengths):
        for j in range(n_keys):
            if j < length:
                mask[i, 0, j] = True
    return mask


def mask_by_slices(lengths: Tensor, n_keys: int) -> Tensor:
    mask = torch.ones((lengths.size(0), n_keys), dtype=torch.bool)
    for row, length in zip(mask, lengths.tolist(), strict=True):
        row[length:] = False
    return mask[:, None]


def mask_from_lists(lengths: Tensor, n_keys: int) -> list:
    return [[[True] * n + [False] * (n_keys - n)] for n in lengths.tolist()]


def mask_in_numpy(lengths: Tensor, n_keys: int) -> np.ndarray:
    return (np.arange(n_keys)[None, None, :] < lengths.numpy()[:, None, None]).astype(bool)


def mask_from_a_triangle(lengths: Tensor, n_keys: int) -> Tensor:
    triangle = torch.ones(n_keys + 1, n_keys).tril(-1)
    return triangle[lengths].view(-1, 1, n_keys) == 1


def _lengths(draw: Draw) -> tuple[Tensor, int]:
    """Sequences without a token, full ones, one sequence alone, as many as there are keys."""
    n_keys = draw.randint(1, 8)
    batch = draw.choice([1, 2, 3, 5, n_keys])
    return torch.tensor([draw.randint(0, n_keys) for _ in range(batch)]), n_keys


# causal_weights


def causal_by_steps(scores: Tensor) -> Tensor:
    n_tokens = scores.size(0)
    future = torch.triu(torch.ones(n_tokens, n_tokens), diagonal=1) == 1
    masked = scores.masked_fill(future, float("-inf"))
    return torch.softmax(masked, dim=-1)


def causal_row_by_row(scores: Tensor) -> Tensor:
    weights = torch.zeros_like(scores)
    for i in range(len(scores)):
        weights[i, : i + 1] = F.softmax(scores[i, : i + 1], dim=0)
    return weights


def causal_in_place(scores: Tensor) -> Tensor:
    masked = scores.clone()
    rows, columns = torch.triu_indices(len(scores), len(scores), 1)
    masked[rows, columns] = -torch.inf
    return masked.softmax(1)


def causal_in_numpy(scores: Tensor) -> np.ndarray:
    position = np.arange(len(scores))
    masked = np.where(position[:, None] >= position, scores.numpy(), -np.inf)
    exponentials = np.exp(masked - masked.max(-1, keepdims=True))
    return exponentials / exponentials.sum(-1, keepdims=True)


def causal_by_loops(scores: Tensor) -> list:
    rows = []
    for i, row in enumerate(scores.tolist()):
        exponentials = [math.exp(score) if j <= i else 0.0 for j, score in enumerate(row)]
        rows.append([e / sum(exponentials) for e in exponentials])
    return rows


def causal_by_adding(scores: Tensor) -> Tensor:
    return (scores + torch.full_like(scores, -torch.inf).triu(1)).softmax(-1)


def causal_in_half_precision(scores: Tensor) -> Tensor:
    masked = torch.where(torch.ones_like(scores).tril() > 0, scores, -torch.inf)
    return (masked - masked.amax(-1, keepdim=True)).half().softmax(-1)


def _square_scores(draw: Draw) -> tuple[Tensor]:
    """Also one token alone, ties, scores of 0, and scores far apart."""
    n_tokens = draw.randint(1, 7)
    if draw.random() < 0.5:
        scores = draw.tensor(n_tokens, n_tokens, scale=draw.choice([0.3, 1, 3]))
        return (scores.round() if draw.random() < 0.5 else scores,)
    # in float64 they fit an exponential, too
    scores = draw.tensor(n_tokens, n_tokens, scale=draw.choice([2, 20, 60])).double()
    return (scores + draw.tensor(n_tokens, 1, scale=50) + draw.choice([-250, -150, 0, 150]),)


RIGHT = {
    "softmax": (
        softmax_by_steps,
        softmax_in_numpy,
        softmax_by_loops,
        softmax_by_log_sum,
        softmax_in_place,
        softmax_in_half_precision,
    ),
    "attention_weights": (
        weights_by_steps,
        weights_by_einsum,
        weights_by_loops,
        weights_in_numpy,
        weights_of_scaled_queries,
        weights_by_broadcasting,
        weights_in_half_precision,
    ),
    "self_attention": (
        attention_by_steps,
        attention_token_by_token,
        attention_by_einsum,
        attention_in_numpy,
        attention_with_one_matrix,
        attention_in_half_precision,
    ),
    "padding_mask": (
        mask_by_comparing,
        mask_by_loops,
        mask_by_slices,
        mask_from_lists,
        mask_in_numpy,
        mask_from_a_triangle,
    ),
    "causal_weights": (
        causal_by_steps,
        causal_row_by_row,
        causal_in_place,
        causal_in_numpy,
        causal_by_loops,
        causal_by_adding,
        causal_in_half_precision,
    ),
}
INPUTS = {
    "softmax": _scores,
    "attention_weights": _query_and_key,
    "self_attention": _tokens_and_matrices,
    "padding_mask": _lengths,
    "causal_weights": _square_scores,
}
EQUIVALENT = {
    "a tensor is read number by number as a list is": (
        "softmax_by_loops: for row in scores:",
        "weights_by_loops: for q in query:",
        "weights_by_loops: scores = [sum((a * b for a, b in zip(q, k, strict=True))) / "
        "len(q) ** 0.5 for k in key]",
        "mask_by_slices: for row, length in zip(mask, lengths, strict=True):",
        "mask_from_lists: return [[[True] * n + [False] * (n_keys - n)] for n in lengths]",
        "causal_by_loops: for i, row in enumerate(scores):",
        "causal_in_numpy: masked = np.where(position[:, None] >= position, scores, -np.inf)",
    ),
    "a list serves as a tensor": (
        "softmax_by_loops: return rows",
        "attention_token_by_token: return mixed",
    ),
    "full precision serves as well": (
        "softmax_in_half_precision: return below_the_largest.softmax(-1)",
        "causal_in_half_precision: return (masked - masked.amax(-1, keepdim=True)).softmax(-1)",
        "attention_in_half_precision: return weights @ x @ W_v",
        "weights_in_half_precision: return torch.softmax(query @ key.mT / query.size(-1) ** 0.5, "
        "-1)",
    ),
    "torch chooses the only sensible dimension": (
        "weights_by_steps: return F.softmax(scores)",
        "attention_token_by_token: weights = F.softmax(scores)",
        "causal_row_by_row: weights[i, :i + 1] = F.softmax(scores[i, :i + 1])",
    ),
    "the last is the first, as there is only one": (
        "attention_token_by_token: weights = F.softmax(scores, -1)",
        "attention_with_one_matrix: return F.scaled_dot_product_attention(query[None], "
        "key[None], value[None])[-1]",
        "causal_row_by_row: weights[i, :i + 1] = F.softmax(scores[i, :i + 1], dim=-1)",
        "mask_by_slices: mask = torch.ones((lengths.size(-1), n_keys), dtype=torch.bool)",
        "mask_by_loops: mask[i, -1, j] = True",
    ),
    "transposed is transposed in either order": (
        "weights_by_steps: scores = torch.matmul(query, key.transpose(1, 0))",
    ),
    "queries and keys are as wide": (
        "weights_by_steps: d_k = query.shape[1]",
        "weights_by_einsum: scores = torch.einsum('qd,kd->qk', query, key) / "
        "math.sqrt(key.shape[-1])",
        "weights_in_numpy: scores = query.numpy() @ key.numpy().T / np.sqrt(key.size(1))",
        "weights_of_scaled_queries: return F.linear(query * key.size(-1) ** (-0.5), key)"
        ".softmax(1)",
        "weights_in_half_precision: return torch.softmax(query @ key.mT / key.size(-1) ** 0.5, "
        "-1).half()",
    ),
    "two that are as long can be zipped in any way": (
        "mask_by_slices: for row, length in zip(mask, lengths.tolist()):",
        "mask_by_slices: for row, length in zip(mask, lengths.tolist(), strict=False):",
        "attention_token_by_token: mixed.append(sum((w * (other @ W_v) for w, other in "
        "zip(weights, x))))",
        "attention_token_by_token: mixed.append(sum((w * (other @ W_v) for w, other in "
        "zip(weights, x, strict=False))))",
        "weights_by_loops: scores = [sum((a * b for a, b in zip(q, k))) / len(q) ** 0.5 "
        "for k in key.tolist()]",
        "weights_by_loops: scores = [sum((a * b for a, b in zip(k, q, strict=True))) / "
        "len(q) ** 0.5 for k in key.tolist()]",
        "weights_by_loops: scores = [sum((a * b for a, b in zip(q, k, strict=False))) / "
        "len(q) ** 0.5 for k in key.tolist()]",
    ),
    "the exponential holds, whatever is subtracted from scores of this size": (
        "weights_in_numpy: exponentials = np.exp(scores + scores.max(1)[:, None])",
        "weights_in_numpy: exponentials = np.exp(scores)",
        "weights_in_numpy: exponentials = np.exp(scores - scores.min(1)[:, None])",
        "causal_in_numpy: exponentials = np.exp(masked + masked.max(-1, keepdims=True))",
        "causal_in_numpy: exponentials = np.exp(masked)",
        "causal_in_numpy: exponentials = np.exp(masked - masked.max(keepdims=True))",
    ),
    "the exponential holds in attention, whatever is subtracted": (
        "attention_in_numpy: weights = np.exp(scores + scores.max(-1, keepdims=True))",
        "attention_in_numpy: weights = np.exp(scores)",
        "attention_in_numpy: weights = np.exp(scores - scores.min(-1, keepdims=True))",
        "attention_in_numpy: weights = np.exp(scores - scores.max(keepdims=True))",
    ),
    "the three matrices are as wide": (
        "attention_by_steps: scores = query @ key.T / math.sqrt(W_q.shape[1])",
        "attention_by_steps: scores = query @ key.T / math.sqrt(W_v.shape[1])",
        "attention_by_einsum: scores = torch.einsum('id,dk,jm,mk->ij', x, W_q, x, W_k) * "
        "W_k.size(1) ** (-0.5)",
        "attention_by_einsum: scores = torch.einsum('id,dk,jm,mk->ij', x, W_q, x, W_k) * "
        "W_v.size(1) ** (-0.5)",
        "attention_in_half_precision: weights = torch.softmax(x @ W_q @ (x @ W_k).mT / "
        "W_k.size(-1) ** 0.5, -1)",
        "attention_in_half_precision: weights = torch.softmax(x @ W_q @ (x @ W_k).mT / "
        "W_v.size(-1) ** 0.5, -1)",
    ),
    "a dot product is the same in either order": (
        "attention_token_by_token: scores = torch.stack([other @ W_k @ query for other in x]) / "
        "len(query) ** 0.5",
    ),
    "scores are square": (
        "causal_by_steps: n_tokens = scores.size(1)",
        "causal_by_steps: n_tokens = scores.size(-1)",
    ),
    "a row of positions meets a column of lengths without a further dimension": (
        "mask_by_comparing: mask = positions < lengths.unsqueeze(1)",
    ),
    "a comparison is of bool already": (
        "mask_in_numpy: return np.arange(n_keys)[None, None, :] < lengths.numpy()[:, None, None]",
    ),
    "one more row, which nobody asks for": (
        "mask_from_a_triangle: triangle = torch.ones(n_keys + 2, n_keys).tril(-1)",
    ),
}
