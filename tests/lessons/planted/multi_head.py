"""Solutions and planted bugs for the exercises of lesson 02."""

import torch
import torch.nn.functional as F


def split(x, n):
    """With a loop over slices, so that it shares nothing with ours."""
    width = x.shape[2] // n
    return torch.stack([x[:, :, i * width : (i + 1) * width] for i in range(n)], 1)


def merge(x):
    return torch.cat(list(x.unbind(1)), -1)


def multi_head(x, q, k, v, o, n, scale=None):
    heads = (split(x @ w, n) for w in (q, k, v))
    return merge(F.scaled_dot_product_attention(*heads, scale=scale)) @ o


def cross(x, memory, q, k, v):
    return F.scaled_dot_product_attention(x @ q, memory @ k, memory @ v)


def softmax_over_heads(x, q, k, v, o, n):
    query, key, value = (split(x @ w, n) for w in (q, k, v))
    scores = torch.einsum("bhqd,bhkd->bhqk", query, key) * query.shape[3] ** -0.5
    return merge(F.softmax(scores, 1) @ value) @ o


def viewed(x, q, k, v, o, n):
    heads = ((x @ w).view(len(x), n, x.shape[1], x.shape[2] // n).contiguous() for w in (q, k, v))
    return F.scaled_dot_product_attention(*heads).view_as(x) @ o


def split_first(x, q, k, v, o, n):
    """Each head sees its slice of x and of the matrices' rows and columns."""
    width = x.shape[2] // n
    found = []
    for i in range(n):
        mine = slice(i * width, (i + 1) * width)
        found.append(
            F.scaled_dot_product_attention(*(x[..., mine] @ w[:width, mine] for w in (q, k, v)))
        )
    return torch.cat(found, -1) @ o


def heads_of(wrong):
    """Multi-head attention in which the heads' query, key and value meet in another way."""
    return lambda x, q, k, v, o, n: merge(wrong(*(split(x @ w, n) for w in (q, k, v)))) @ o


def crossed(wrong):
    return lambda x, memory, q, k, v: wrong(x @ q, memory @ k, memory @ v)


def scaled(scale_of):
    """Attention whose scores are multiplied by a number that depends on the query."""
    return lambda q, k, v: F.scaled_dot_product_attention(q, k, v, scale=scale_of(q))


def normalised(axis):
    """Attention with a softmax over another dimension."""
    return lambda q, k, v: F.softmax(q @ k.mT * q.shape[-1] ** -0.5, axis) @ v


sdpa = F.scaled_dot_product_attention

SOLUTIONS = {
    "split_heads": split,
    "merge_heads": merge,
    "multi_head_attention": multi_head,
    "cross_attention": cross,
}

# The same mistakes as in the catalogue, written another way: (exercise, bug, word of the diagnosis)
PLANTED = [
    (
        "split_heads",
        lambda x, n: x.contiguous().view(len(x), n, x.shape[1], x.shape[2] // n),
        "wrong places",
    ),
    (
        "split_heads",
        lambda x, n: torch.stack([x[:, :, i::n] for i in range(n)], 1),
        "every n-th number",
    ),
    (
        "split_heads",
        lambda x, n: x.view(*x.shape[:2], n, x.shape[2] // n),
        "transpose(1, 2) is missing",
    ),
    ("split_heads", lambda x, n: torch.stack([x] * n, 1), "the whole vector"),
    ("split_heads", lambda x, n: split(x, n).transpose(0, 1), "before the batch"),
    ("split_heads", lambda x, n: split(x, n).permute(0, 2, 3, 1), "the heads stand last"),
    ("split_heads", lambda x, n: split(x, x.shape[2] // n), "heads of n_heads numbers"),
    ("merge_heads", lambda x: x.reshape(len(x), -1, x.shape[3]), "heads · token, d_k"),
    ("merge_heads", lambda x: torch.cat(x.unbind(2), 1), "token · heads, d_k"),
    ("merge_heads", lambda x: torch.cat(x.unbind(2), -1), "token · d_k"),
    ("merge_heads", lambda x: x.contiguous().view(len(x), x.shape[2], -1), "pieces of other"),
    ("merge_heads", lambda x: torch.stack(x.unbind(1)).mean(0), "averaged"),
    ("merge_heads", lambda x: torch.einsum("bhtd->btd", x), "added up"),
    ("merge_heads", lambda x: torch.stack(x.unbind(1), -1).flatten(2), "shuffled into each other"),
    ("merge_heads", lambda x: torch.stack(x.unbind(1), 2), "four dimensions"),
    (
        "multi_head_attention",
        lambda x, *rest: multi_head(x, *rest, scale=x.shape[2] ** -0.5),
        "divided by √d_model",
    ),
    (
        "multi_head_attention",
        lambda x, q, k, v, o, n: F.scaled_dot_product_attention(x @ q, x @ k, x @ v) @ o,
        "one wide head",
    ),
    ("multi_head_attention", softmax_over_heads, "over the heads"),
    ("multi_head_attention", viewed, "cut and glued with"),
    (
        "multi_head_attention",
        lambda x, q, k, v, o, n: multi_head(x, q, k, v, torch.eye(len(o)), n),
        "last step is missing",
    ),
    ("multi_head_attention", split_first, "split before it is multiplied"),
    ("multi_head_attention", heads_of(normalised(2)), "over the queries"),
    ("multi_head_attention", heads_of(normalised(0)), "over the batch"),
    (
        "multi_head_attention",
        heads_of(lambda q, k, v: F.log_softmax(q @ k.mT * q.shape[3] ** -0.5, 3) @ v),
        "logarithms",
    ),
    (
        "multi_head_attention",
        heads_of(lambda q, k, v: F.softmax(q.shape[3] ** 0.5 / (q @ k.mT), 3) @ v),
        "upside down",
    ),
    ("multi_head_attention", heads_of(scaled(lambda q: q.shape[2] ** -0.5)), "number of tokens"),
    (
        "multi_head_attention",
        heads_of(lambda q, k, v: F.softmax(q @ k * k.shape[3] ** -0.5, 3) @ v),
        "does not fit",
    ),
    ("multi_head_attention", heads_of(lambda q, k, v: normalised(3)(q, k, v) * 2), "2 times"),
    (
        "multi_head_attention",
        heads_of(lambda q, k, v: q * q.shape[3] ** -0.5 @ k.mT @ v),
        "softmax is missing",
    ),
    ("multi_head_attention", heads_of(scaled(lambda q: 1.0)), "not divided by √d_k"),
    ("multi_head_attention", heads_of(scaled(lambda q: 1 / q.shape[3])), "by d_k instead"),
    ("multi_head_attention", heads_of(scaled(lambda q: q.shape[3] ** 0.5)), "multiplied by √d_k"),
    ("multi_head_attention", heads_of(scaled(lambda q: q.shape[1] ** -0.5)), "number of heads"),
    ("multi_head_attention", heads_of(lambda q, k, v: sdpa(k, q, v)), "query and key have"),
    ("multi_head_attention", heads_of(lambda q, k, v: sdpa(q, q, v)), "compared with queries"),
    ("multi_head_attention", heads_of(lambda q, k, v: sdpa(k, k, v)), "compared with keys"),
    ("multi_head_attention", heads_of(lambda q, k, v: sdpa(q, k, k)), "the keys are mixed"),
    ("multi_head_attention", heads_of(lambda q, k, v: sdpa(q, k, q)), "the queries are mixed"),
    ("multi_head_attention", heads_of(lambda q, k, v: sdpa(q, v, k)), "keys and values"),
    (
        "multi_head_attention",
        lambda x, q, k, v, o, n: F.linear(multi_head(x, q, k, v, torch.eye(len(o)), n), o),
        "W_o is transposed",
    ),
    (
        "multi_head_attention",
        lambda x, q, k, v, o, n: (
            sdpa(*(split(x @ w, n) for w in (q, k, v))).contiguous().view(x.shape) @ o
        ),
        "cut out right",
    ),
    (
        "multi_head_attention",
        lambda x, q, k, v, o, n: (
            merge(sdpa(*((x @ w).view(len(x), n, x.shape[1], -1) for w in (q, k, v)))) @ o
        ),
        "merged rightly",
    ),
    ("cross_attention", lambda x, memory, *w: cross(memory, x, *w), "swapped"),
    ("cross_attention", lambda x, memory, *w: cross(x, x, *w), "self-attention of x"),
    (
        "cross_attention",
        lambda x, memory, *w: cross(x, torch.hstack([x, memory]), *w),
        "x is among the keys",
    ),
    (
        "cross_attention",
        lambda x, memory, q, k, v: (
            F.softmax((x @ q) @ (memory @ k).mT * len(q) ** -0.5, -1) @ (x @ v)
        ),
        "values come from x",
    ),
    ("cross_attention", lambda x, memory, q, k, v: sdpa(x @ q, x @ k, memory @ v), "the keys come"),
    ("cross_attention", lambda x, memory, *w: cross(memory, memory, *w), "x is never read"),
    ("cross_attention", crossed(scaled(lambda q: 1.0)), "not divided by √d_k"),
    ("cross_attention", crossed(scaled(lambda q: 1 / q.shape[2])), "by d_k instead"),
    ("cross_attention", crossed(scaled(lambda q: q.shape[2] ** 0.5)), "multiplied by √d_k"),
    (
        "cross_attention",
        lambda x, memory, q, k, v: sdpa(x @ q, memory @ k, memory @ v, scale=len(q) ** -0.5),
        "root is of d_model",
    ),
    ("cross_attention", crossed(scaled(lambda q: 0.5)), "the numbers differ"),
    (
        "cross_attention",
        crossed(lambda q, k, v: F.log_softmax(q @ k.mT * q.shape[2] ** -0.5, 2) @ v),
        "logarithms",
    ),
    (
        "cross_attention",
        crossed(lambda q, k, v: F.softmax(q.shape[2] ** 0.5 / (q @ k.mT), 2) @ v),
        "upside down",
    ),
    ("cross_attention", crossed(scaled(lambda q: q.shape[1] ** -0.5)), "tokens of x;"),
    (
        "cross_attention",
        crossed(lambda q, k, v: sdpa(q, k, v, scale=k.shape[1] ** -0.5)),
        "tokens of memory;",
    ),
    (
        "cross_attention",
        crossed(lambda q, k, v: F.softmax(torch.matmul(q, k) * q.shape[2] ** -0.5, 2) @ v),
        "does not fit",
    ),
    (
        "cross_attention",
        crossed(
            lambda q, k, v: (lambda s: torch.exp(s - s.max(2, keepdim=True)[0]) @ v)(
                q @ k.mT * q.shape[2] ** -0.5
            )
        ),
        "not divided by their sum",
    ),
    ("cross_attention", crossed(normalised(1)), "over the queries"),
    ("cross_attention", crossed(normalised(0)), "over the batch"),
    (
        "cross_attention",
        crossed(lambda q, k, v: torch.einsum("bid,bjd->bij", q, k) @ v * q.shape[2] ** -0.5),
        "softmax is missing",
    ),
    (
        "cross_attention",
        crossed(lambda q, k, v: F.softmax(q @ k.mT * q.shape[2] ** -0.5, 2)),
        "these are the weights",
    ),
    ("cross_attention", crossed(lambda q, k, v: sdpa(q, k, k)), "the keys are mixed"),
    ("cross_attention", crossed(lambda q, k, v: sdpa(q, v, k)), "keys and values have"),
    ("cross_attention", lambda x, memory, q, k, v: cross(x, memory, k, q, v), "W_q and W_k have"),
    (
        "cross_attention",
        lambda x, memory, *w: cross(x, memory[:1].expand_as(memory), *w),
        "only the first along dimension -3 is right",
    ),
]
