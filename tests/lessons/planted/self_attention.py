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


def divided(exponentials):
    return exponentials / exponentials.sum(1)[:, None]


def below(scores, offset=0):
    return torch.ones_like(scores).tril(offset) > 0


# The same mistakes as in the catalogue, written another way: (exercise, bug, word of the diagnosis)
PLANTED = [
    ("softmax", lambda s: F.softmax(s, dim=0), "each column sums"),
    ("softmax", lambda s: F.softmax(s.reshape(-1), dim=0).reshape(s.shape), "whole matrix sums"),
    ("softmax", lambda s: torch.exp(s) / torch.exp(s).sum(1), "a column"),
    ("softmax", lambda s: torch.exp(s) / torch.exp(s).sum(1, keepdim=True), "e^1000 overflows"),
    (
        "softmax",
        lambda s: (s - s.max(1)[0][:, None]).exp() / (s - s.max(1)[0][:, None]).exp().sum(1),
        "as well",
    ),
    ("softmax", lambda s: divided(torch.exp(s - s.amax())), "of the whole matrix is subtracted"),
    ("softmax", lambda s: divided(torch.exp(s - s.min(1)[0][:, None])), "row's smallest"),
    ("softmax", lambda s: divided(torch.exp(s + s.max(1)[0][:, None])), "is added"),
    ("softmax", lambda s: divided(torch.exp(s - s.max(1)[0])), "keepdim=True, too"),
    ("softmax", lambda s: divided(torch.exp(s - s.max(0)[0])), "of each column is subtracted"),
    ("softmax", lambda s: F.softmax(-s, 1), "signs of the scores"),
    ("softmax", lambda s: divided(torch.exp(s.max(1)[0][:, None] - s)), "difference is the wrong"),
    ("softmax", lambda s: divided(s - s.max(1)[0][:, None]), "exponential is missing"),
    ("softmax", lambda s: s - s.logsumexp(1)[:, None], "logarithms"),
    ("softmax", lambda s: s / s.sum(1)[:, None], "without the exponential"),
    ("softmax", lambda s: F.softmax(s, 1) ** 2, "its rows do not sum to one"),
    ("softmax", lambda s: F.softmax(2 * s, 1), "the numbers differ"),
    ("softmax", lambda s: torch.exp(s - s.max(1, keepdim=True).values), "not divided"),
    ("attention_weights", lambda q, k: F.softmax(q @ k.mT, 1), "not divided by √d_k"),
    ("attention_weights", lambda q, k: F.softmax(q @ k.mT / k.shape[1], 1), "d_k instead"),
    ("attention_weights", lambda q, k: F.softmax(q @ k.mT / k.shape[1] ** 0.5, 0), "over the quer"),
    ("attention_weights", lambda q, k: F.softmax(q @ k.mT / len(k) ** 0.5, 1), "number of keys"),
    ("attention_weights", lambda q, k: F.softmax(q @ k.mT / len(q) ** 0.5, 1), "number of queries"),
    ("attention_weights", lambda q, k: F.softmax(k @ k.mT / k.shape[1] ** 0.5, 1), "with keys"),
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
    ("causal_weights", lambda s: F.softmax(torch.where(below(s), s, -100), -1), "-100"),
    ("causal_weights", lambda s: F.softmax(torch.where(below(s), s, torch.inf), -1), "plus inf"),
    (
        "causal_weights",
        lambda s: F.softmax(torch.where(s * below(s) == 0, -torch.inf, s), -1),
        "happens to be 0",
    ),
    (
        "causal_weights",
        lambda s: F.softmax(torch.where(s * below(s) > 0, s, -torch.inf), -1),
        "scores below 0",
    ),
    (
        "causal_weights",
        lambda s: F.softmax(torch.where(below(s), s, -torch.inf), -1).log(),
        "logarithms",
    ),
    ("causal_weights", lambda s: F.softmax(s + below(s).to(s.dtype), -1), "ones and zeros"),
    (
        "causal_weights",
        lambda s: F.softmax(torch.where(below(s), s, -torch.inf), 0),
        "each column sums",
    ),
    ("padding_mask", lambda n, k: (n > torch.arange(k))[:, None, :], "one by one"),
    ("padding_mask", lambda n, k: ~SOLUTIONS["padding_mask"](n, k), "inverted"),
    ("padding_mask", lambda n, k: SOLUTIONS["padding_mask"](n + 1, k), "one token of padding"),
    ("padding_mask", lambda n, k: SOLUTIONS["padding_mask"](n - 1, k), "last real token of each"),
    ("padding_mask", lambda n, k: ~SOLUTIONS["padding_mask"](n + 1, k), "not even all"),
    ("padding_mask", lambda n, k: SOLUTIONS["padding_mask"](n, k).float(), "must return bool"),
    ("padding_mask", lambda n, k: SOLUTIONS["padding_mask"](n, k).flip(-1), "from the front"),
    ("padding_mask", lambda n, k: SOLUTIONS["padding_mask"](n, k)[:, 0], "shape is (batch, key)"),
    ("padding_mask", lambda n, k: SOLUTIONS["padding_mask"](n, k).mT, "hides queries"),
    (
        "self_attention",
        lambda x, q, k, v: F.scaled_dot_product_attention(x @ k, x @ q, x @ v),
        "query and key have",
    ),
    (
        "self_attention",
        lambda x, q, k, v: F.scaled_dot_product_attention(x @ q, x @ k, x),
        "tokens themselves are mixed",
    ),
    (
        "self_attention",
        lambda x, q, k, v: F.scaled_dot_product_attention(x @ q, x @ k, x @ k),
        "the keys are mixed",
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
            x @ q, x @ k, x @ v, scale=1 / q.shape[1]
        ),
        "divided by d_k instead",
    ),
    (
        "self_attention",
        lambda x, q, k, v: F.scaled_dot_product_attention(
            x @ q, x @ k, x @ v, scale=q.shape[1] ** 0.5
        ),
        "multiplied by √d_k",
    ),
    (
        "self_attention",
        lambda x, q, k, v: F.scaled_dot_product_attention(
            x @ q, x @ k, x @ v, scale=x.shape[0] ** -0.5
        ),
        "number of tokens",
    ),
    (
        "self_attention",
        lambda x, q, k, v: (x @ q) @ (x @ k).mT @ (x @ v) * q.shape[1] ** -0.5,
        "softmax is missing",
    ),
    (
        "self_attention",
        lambda x, q, k, v: F.scaled_dot_product_attention(x @ q, x @ q, x @ v),
        "compared with queries",
    ),
    (
        "self_attention",
        lambda x, q, k, v: F.softmax(q.shape[1] ** 0.5 / (x @ q @ (x @ k).mT), 1) @ x @ v,
        "upside down",
    ),
    (
        "self_attention",
        lambda x, q, k, v: F.log_softmax(x @ q @ (x @ k).mT / q.shape[1] ** 0.5, 1) @ x @ v,
        "logarithms",
    ),
    (
        "self_attention",
        lambda x, q, k, v: F.softmax((x @ q) @ (x @ k) / q.shape[1] ** 0.5, 1) @ x @ v,
        "does not fit",
    ),
    (
        "self_attention",
        lambda x, q, k, v: F.softmax(x @ (x @ k).mT / x.shape[1] ** 0.5, 1) @ x @ v,
        "place of the queries",
    ),
    (
        "self_attention",
        lambda x, q, k, v: F.softmax((x @ q) @ x.mT / q.shape[1] ** 0.5, 1) @ x @ v,
        "place of the keys",
    ),
    (
        "self_attention",
        lambda x, q, k, v: F.scaled_dot_product_attention(q @ x, k @ x, v @ x),
        "stands before the tokens",
    ),
    (
        "self_attention",
        lambda x, q, k, v: F.scaled_dot_product_attention(x @ k, x @ k, x @ v),
        "compared with keys",
    ),
    (
        "self_attention",
        lambda x, q, k, v: F.scaled_dot_product_attention(x @ q, x @ k, x @ q),
        "the queries are mixed",
    ),
    (
        "self_attention",
        lambda x, q, k, v: F.scaled_dot_product_attention(x @ q, x @ v, x @ k),
        "keys and values",
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
