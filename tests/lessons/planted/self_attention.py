"""Solutions and planted bugs for the exercises of lesson 01."""

import torch
import torch.nn.functional as F

SOLUTIONS = {  # written with torch's own pieces, not with ours
    "softmax": lambda scores: F.softmax(scores, dim=-1),
    "attention_weights": lambda query, key: F.softmax(
        torch.einsum("qd,kd->qk", query, key) * query.shape[1] ** -0.5, dim=1
    ),
    "causal_weights": lambda scores: F.softmax(
        scores + torch.full_like(scores, -torch.inf).triu(1), dim=-1
    ),
    "padding_mask": lambda lengths, n_keys: torch.stack(
        [torch.tensor([[j < n for j in range(n_keys)]]) for n in lengths.tolist()]
    ),
    "self_attention": lambda x, W_q, W_k, W_v: F.scaled_dot_product_attention(
        x @ W_q, x @ W_k, x @ W_v
    ),
}

# The same mistakes as in the catalogue, written another way: (exercise, bug, word of the diagnosis)
PLANTED = [
    ("softmax", lambda s: F.softmax(s, dim=0), "each column"),
    ("softmax", lambda s: F.softmax(s.reshape(-1), dim=0).reshape(s.shape), "whole matrix"),
    ("softmax", lambda s: torch.exp(s) / torch.exp(s).sum(1), "a column"),
    ("softmax", lambda s: torch.exp(s) / torch.exp(s).sum(1, keepdim=True), "overflows"),
    ("softmax", lambda s: s / s.sum(1)[:, None], "without the exponential"),
    ("softmax", lambda s: torch.exp(s - s.max(1, keepdim=True).values), "not divided"),
    ("attention_weights", lambda q, k: F.softmax(q @ k.mT, 1), "not divided by √d_k"),
    ("attention_weights", lambda q, k: F.softmax(q @ k.mT / k.shape[1], 1), "d_k instead"),
    ("attention_weights", lambda q, k: F.softmax(q @ k.mT / k.shape[1] ** 0.5, 0), "over the quer"),
    ("attention_weights", lambda q, k: F.softmax(q @ k.mT / len(k) ** 0.5, 1), "number of keys"),
    ("attention_weights", lambda q, k: F.softmax(q @ q.mT / k.shape[1] ** 0.5, 1), "with queries"),
    ("attention_weights", lambda q, k: F.softmax(k @ q.mT / k.shape[1] ** 0.5, 1), "wrong way"),
    ("attention_weights", lambda q, k: q @ k.mT * k.shape[1] ** -0.5, "still need the softmax"),
    ("attention_weights", lambda q, k: F.softmax(q @ k, 1), "does not fit"),
    ("attention_weights", lambda q, k: F.softmax(q @ k.mT * k.shape[1] ** 0.5, 1), "multiplied"),
    ("attention_weights", lambda q, k: F.softmax(q @ k.mT, 1) * k.shape[1] ** -0.5, "before it"),
    ("causal_weights", lambda s: F.softmax(s, -1).tril(), "after the softmax"),
    (
        "causal_weights",
        lambda s: F.softmax(s + torch.full_like(s, -torch.inf).tril(-1), -1),
        "future instead",
    ),
    (
        "causal_weights",
        lambda s: F.softmax(torch.where(torch.ones_like(s).tril() > 0, -torch.inf, s), -1),
        "mask is inverted",
    ),
    (
        "causal_weights",
        lambda s: F.softmax(torch.where(torch.ones_like(s).tril(-1) > 0, s, -torch.inf), -1),
        "do not see themselves",
    ),
    (
        "causal_weights",
        lambda s: F.softmax(torch.where(torch.ones_like(s).tril(1) > 0, s, -torch.inf), -1),
        "one step into the future",
    ),
    ("causal_weights", lambda s: F.softmax(s.tril(), -1), "set to 0"),
    ("causal_weights", lambda s: F.softmax(s, -1), "nothing is masked"),
    (
        "causal_weights",
        lambda s: s + torch.full_like(s, -torch.inf).triu(1),
        "still need the softmax",
    ),
    (
        "causal_weights",
        lambda s: F.softmax(s + torch.ones_like(s).triu(1) * -torch.inf, -1),
        "0 · ∞",
    ),
    ("padding_mask", lambda n, k: (n > torch.arange(k))[:, None], "one by one"),
    ("padding_mask", lambda n, k: ~SOLUTIONS["padding_mask"](n, k), "inverted"),
    ("padding_mask", lambda n, k: SOLUTIONS["padding_mask"](n + 1, k), "one token of padding"),
    ("padding_mask", lambda n, k: SOLUTIONS["padding_mask"](n, k).flip(-1), "from the front"),
    ("padding_mask", lambda n, k: SOLUTIONS["padding_mask"](n, k)[:, 0], "shape is (batch, key)"),
    ("padding_mask", lambda n, k: SOLUTIONS["padding_mask"](n, k).mT, "hides queries"),
    (
        "self_attention",
        lambda x, q, k, v: F.scaled_dot_product_attention(x @ k, x @ q, x @ v),
        "changed places",
    ),
    (
        "self_attention",
        lambda x, q, k, v: F.scaled_dot_product_attention(x @ q, x @ k, x),
        "tokens themselves are mixed",
    ),
    (
        "self_attention",
        lambda x, q, k, v: F.scaled_dot_product_attention(x @ q, x @ k, x @ k),
        "keys are mixed",
    ),
    (
        "self_attention",
        lambda x, q, k, v: F.scaled_dot_product_attention(x, x, x @ v),
        "not projected",
    ),
    (
        "self_attention",
        lambda x, q, k, v: F.scaled_dot_product_attention(x @ q, x @ k, x @ v, scale=1.0),
        "not divided by √d_k",
    ),
    (
        "self_attention",
        lambda x, q, k, v: F.scaled_dot_product_attention(
            x @ q, x @ k, x @ v, scale=x.shape[1] ** -0.5
        ),
        "root is of d_model",
    ),
    (
        "self_attention",
        lambda x, q, k, v: F.softmax((x @ q) @ (x @ k).mT / q.shape[1] ** 0.5, 0) @ (x @ v),
        "over the queries",
    ),
    (
        "self_attention",
        lambda x, q, k, v: F.softmax((x @ q) @ (x @ k).mT / q.shape[1] ** 0.5, 1),
        "these are the weights",
    ),
    (
        "self_attention",
        lambda x, q, k, v: F.softmax((x @ q) @ (x @ k).mT / q.shape[1] ** 0.5, 1).mT @ (x @ v),
        "transposed",
    ),
]
