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
    ("multi_head_attention", viewed, "bare reshape"),
    (
        "multi_head_attention",
        lambda x, q, k, v, o, n: multi_head(x, q, k, v, torch.eye(len(o)), n),
        "last step is missing",
    ),
    ("multi_head_attention", split_first, "split before it is multiplied"),
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
]
