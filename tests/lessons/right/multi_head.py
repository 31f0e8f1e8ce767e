"""Right answers to the exercises of lesson 02 in several styles, and inputs to judge others on."""

import math

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from attnviz.lessons.drawing import Draw

# split_heads


def split_by_steps(x: Tensor, n_heads: int) -> Tensor:
    batch, n_tokens, d_model = x.shape
    cut = x.view(batch, n_tokens, n_heads, d_model // n_heads)
    return cut.permute(0, 2, 1, 3)


def split_by_slices(x: Tensor, n_heads: int) -> Tensor:
    d_k = x.size(-1) // n_heads
    heads = [x[..., i * d_k : (i + 1) * d_k] for i in range(n_heads)]
    return torch.stack(heads, dim=1)


def split_by_chunks(x: Tensor, n_heads: int) -> Tensor:
    return torch.cat([head.unsqueeze(1) for head in x.chunk(n_heads, dim=-1)], dim=1)


def split_in_numpy(x: Tensor, n_heads: int) -> np.ndarray:
    cut = x.numpy().reshape(x.shape[0], x.shape[1], n_heads, -1)
    return cut.swapaxes(1, 2)


def split_number_by_number(x: Tensor, n_heads: int) -> Tensor:
    batch, n_tokens, d_model = x.shape
    d_k = d_model // n_heads
    heads = torch.zeros(batch, n_heads, n_tokens, d_k)
    for place in range(d_model):
        heads[:, place // d_k, :, place % d_k] = x[:, :, place]
    return heads


def split_in_half_precision(x: Tensor, n_heads: int) -> Tensor:
    return x.half().reshape(*x.shape[:2], n_heads, -1).transpose(2, 1)


def _tokens_to_split(draw: Draw) -> tuple[Tensor, int]:
    """Also one head, heads of one number, one token, and a batch of one."""
    batch, n_heads, n_tokens, d_k = (draw.randint(1, 5) for _ in range(4))
    return draw.tensor(batch, n_tokens, n_heads * d_k), n_heads


# merge_heads


def merge_by_steps(x: Tensor) -> Tensor:
    batch, n_heads, n_tokens, d_k = x.shape
    behind = x.permute(0, 2, 1, 3).contiguous()
    return behind.view(batch, n_tokens, n_heads * d_k)


def merge_side_by_side(x: Tensor) -> Tensor:
    return torch.cat([x[:, head] for head in range(x.size(1))], dim=-1)


def merge_in_numpy(x: Tensor) -> np.ndarray:
    return np.concatenate(list(x.numpy().transpose(1, 0, 2, 3)), axis=2)


def merge_token_by_token(x: Tensor) -> Tensor:
    def merged(text: Tensor) -> Tensor:
        return torch.stack([text[:, i].reshape(-1) for i in range(text.shape[1])])

    return torch.stack([merged(text) for text in x])


def merge_in_place(x: Tensor) -> Tensor:
    batch, n_heads, n_tokens, d_k = x.shape
    merged = torch.zeros(batch, n_tokens, n_heads * d_k)
    for head in range(n_heads):
        merged[:, :, head * d_k : (head + 1) * d_k] = x[:, head]
    return merged


def merge_in_half_precision(x: Tensor) -> Tensor:
    return x.half().transpose(1, 2).flatten(-2)


def _heads(draw: Draw) -> tuple[Tensor]:
    return (draw.tensor(*(draw.randint(1, 5) for _ in range(4))),)


# multi_head_attention


def multi_by_steps(
    x: Tensor, W_q: Tensor, W_k: Tensor, W_v: Tensor, W_o: Tensor, n_heads: int
) -> Tensor:
    batch, n_tokens, d_model = x.shape
    d_k = d_model // n_heads
    query = (x @ W_q).view(batch, n_tokens, n_heads, d_k).transpose(1, 2)
    key = (x @ W_k).view(batch, n_tokens, n_heads, d_k).transpose(1, 2)
    value = (x @ W_v).view(batch, n_tokens, n_heads, d_k).transpose(1, 2)
    weights = torch.softmax(query @ key.transpose(2, 3) / math.sqrt(d_k), dim=-1)
    mixed = (weights @ value).transpose(1, 2).reshape(batch, n_tokens, d_model)
    return mixed @ W_o


def multi_head_by_head(
    x: Tensor, W_q: Tensor, W_k: Tensor, W_v: Tensor, W_o: Tensor, n_heads: int
) -> Tensor:
    d_k = x.size(-1) // n_heads
    found = []
    for head in range(n_heads):
        mine = slice(head * d_k, (head + 1) * d_k)
        query, key, value = x @ W_q[:, mine], x @ W_k[:, mine], x @ W_v[:, mine]
        found.append((query @ key.mT / d_k**0.5).softmax(-1) @ value)
    return torch.cat(found, dim=-1) @ W_o


def multi_by_einsum(
    x: Tensor, W_q: Tensor, W_k: Tensor, W_v: Tensor, W_o: Tensor, n_heads: int
) -> Tensor:
    query, key, value = (
        torch.einsum("btm,mhd->bhtd", x, W.unflatten(1, (n_heads, -1))) for W in (W_q, W_k, W_v)
    )
    weights = F.softmax(torch.einsum("bhid,bhjd->bhij", query, key) * query.size(-1) ** -0.5, 3)
    return torch.einsum("bhij,bhjd,hdm->bim", weights, value, W_o.unflatten(0, (n_heads, -1)))


def multi_by_sums(
    x: Tensor, W_q: Tensor, W_k: Tensor, W_v: Tensor, W_o: Tensor, n_heads: int
) -> Tensor:
    columns = [W.chunk(n_heads, 1) for W in (W_q, W_k, W_v)]
    output = torch.zeros_like(x)
    for to_query, to_key, to_value, back in zip(*columns, W_o.chunk(n_heads), strict=True):
        output += F.scaled_dot_product_attention(x @ to_query, x @ to_key, x @ to_value) @ back
    return output


def multi_in_half_precision(
    x: Tensor, W_q: Tensor, W_k: Tensor, W_v: Tensor, W_o: Tensor, n_heads: int
) -> Tensor:
    heads = [torch.stack((x @ W).chunk(n_heads, -1), 1).double() for W in (W_q, W_k, W_v)]
    mixed = F.scaled_dot_product_attention(*heads)
    return (mixed.transpose(1, 2).flatten(2) @ W_o.double()).half()


def _tokens_and_heads(draw: Draw) -> tuple:
    batch, n_heads, n_tokens, d_k = (draw.randint(1, 4) for _ in range(4))
    d_model = n_heads * d_k
    x = draw.tensor(batch, n_tokens, d_model, scale=draw.choice([0.3, 1]))
    return x, *(draw.tensor(d_model, d_model) for _ in range(4)), n_heads


# cross_attention


def cross_by_steps(x: Tensor, memory: Tensor, W_q: Tensor, W_k: Tensor, W_v: Tensor) -> Tensor:
    query = x @ W_q
    key = memory @ W_k
    value = memory @ W_v
    scores = torch.bmm(query, key.transpose(1, 2)) / math.sqrt(query.size(2))
    return torch.bmm(torch.softmax(scores, dim=2), value)


def cross_text_by_text(x: Tensor, memory: Tensor, W_q: Tensor, W_k: Tensor, W_v: Tensor) -> Tensor:
    mixed = []
    for text, other in zip(x, memory, strict=True):
        scores = (text @ W_q) @ (other @ W_k).T / W_k.shape[1] ** 0.5
        mixed.append(F.softmax(scores, 1) @ other @ W_v)
    return torch.stack(mixed)


def cross_by_einsum(x: Tensor, memory: Tensor, W_q: Tensor, W_k: Tensor, W_v: Tensor) -> Tensor:
    scores = torch.einsum("bid,dk,bjm,mk->bij", x, W_q, memory, W_k) * W_q.size(-1) ** -0.5
    return torch.einsum("bij,bjd,dk->bik", scores.softmax(-1), memory, W_v)


def cross_in_numpy(x: Tensor, memory: Tensor, W_q: Tensor, W_k: Tensor, W_v: Tensor) -> np.ndarray:
    query, key, value = x.numpy() @ W_q.numpy(), memory.numpy() @ W_k.numpy(), memory @ W_v
    scores = query @ key.swapaxes(1, 2) / np.sqrt(query.shape[-1])
    weights = np.exp(scores - scores.max(axis=-1, keepdims=True))
    weights = weights / weights.sum(axis=-1, keepdims=True)
    return weights @ value.numpy()


def cross_in_half_precision(
    x: Tensor, memory: Tensor, W_q: Tensor, W_k: Tensor, W_v: Tensor
) -> Tensor:
    mixed = F.scaled_dot_product_attention(x @ W_q, memory @ W_k, memory @ W_v)
    return mixed.half()


def _two_texts(draw: Draw) -> tuple[Tensor, ...]:
    """Also one token on either side, and a batch of one."""
    batch, n_tokens, others, d_model, d_k = (draw.randint(1, 6) for _ in range(5))
    x = draw.tensor(batch, n_tokens, d_model)
    memory = draw.tensor(batch, others, d_model, scale=draw.choice([0.3, 1]))
    return x, memory, *(draw.tensor(d_model, d_k) for _ in range(3))


RIGHT = {
    "split_heads": (
        split_by_steps,
        split_by_slices,
        split_by_chunks,
        split_in_numpy,
        split_number_by_number,
        split_in_half_precision,
    ),
    "merge_heads": (
        merge_by_steps,
        merge_side_by_side,
        merge_in_numpy,
        merge_token_by_token,
        merge_in_place,
        merge_in_half_precision,
    ),
    "multi_head_attention": (
        multi_by_steps,
        multi_head_by_head,
        multi_by_einsum,
        multi_by_sums,
        multi_in_half_precision,
    ),
    "cross_attention": (
        cross_by_steps,
        cross_text_by_text,
        cross_by_einsum,
        cross_in_numpy,
        cross_in_half_precision,
    ),
}
INPUTS = {
    "split_heads": _tokens_to_split,
    "merge_heads": _heads,
    "multi_head_attention": _tokens_and_heads,
    "cross_attention": _two_texts,
}
EQUIVALENT = {
    "two dimensions change places in either order": (
        "split_in_numpy: return cut.swapaxes(2, 1)",
        "split_in_half_precision: return x.half().reshape(*x.shape[:2], n_heads, -1)"
        ".transpose(1, 2)",
        "_split: return x.unflatten(-1, (n_heads, -1)).transpose(2, 1)",
        "merge_in_half_precision: return x.half().transpose(2, 1).flatten(-2)",
        "_merge: return x.transpose(2, 1).flatten(2)",
        "multi_by_steps: query = (x @ W_q).view(batch, n_tokens, n_heads, d_k).transpose(2, 1)",
        "multi_by_steps: key = (x @ W_k).view(batch, n_tokens, n_heads, d_k).transpose(2, 1)",
        "multi_by_steps: value = (x @ W_v).view(batch, n_tokens, n_heads, d_k).transpose(2, 1)",
        "multi_by_steps: mixed = (weights @ value).transpose(2, 1).reshape(batch, n_tokens, "
        "d_model)",
        "multi_by_steps: weights = torch.softmax(query @ key.transpose(3, 2) / math.sqrt(d_k), "
        "dim=-1)",
        "multi_in_half_precision: return (mixed.transpose(2, 1).flatten(2) @ W_o.double()).half()",
        "cross_by_steps: scores = torch.bmm(query, key.transpose(2, 1)) / math.sqrt(query.size(2))",
        "cross_in_numpy: scores = query @ key.swapaxes(2, 1) / np.sqrt(query.shape[-1])",
    ),
    "full precision serves as well": (
        "split_in_half_precision: return x.reshape(*x.shape[:2], n_heads, -1).transpose(2, 1)",
        "merge_in_half_precision: return x.transpose(1, 2).flatten(-2)",
        "multi_in_half_precision: return mixed.transpose(1, 2).flatten(2) @ W_o.double()",
        "cross_in_half_precision: return mixed",
    ),
    "torch cuts as NumPy does": (
        "split_in_numpy: cut = x.reshape(x.shape[0], x.shape[1], n_heads, -1)",
    ),
    "NumPy takes any negative size for the one to be found": (
        "split_in_numpy: cut = x.numpy().reshape(x.shape[0], x.shape[1], n_heads, -2)",
    ),
    "every place is written to": (
        "split_number_by_number: heads = torch.ones(batch, n_heads, n_tokens, d_k)",
        "merge_in_place: merged = torch.ones(batch, n_tokens, n_heads * d_k)",
    ),
    "an array or a list of tensors serves as a tensor or a list": (
        "merge_in_numpy: return np.concatenate(x.numpy().transpose(1, 0, 2, 3), axis=2)",
        "merge_token_by_token: return [merged(text) for text in x]",
        "cross_text_by_text: return mixed",
    ),
    "the matrices are square": (
        "multi_head_by_head: d_k = W_q.size(-1) // n_heads",
        "multi_head_by_head: d_k = W_k.size(-1) // n_heads",
        "multi_head_by_head: d_k = W_v.size(-1) // n_heads",
        "multi_head_by_head: d_k = W_o.size(-1) // n_heads",
    ),
    "the matrices are as wide": (
        "cross_text_by_text: scores = text @ W_q @ (other @ W_k).T / W_q.shape[1] ** 0.5",
        "cross_text_by_text: scores = text @ W_q @ (other @ W_k).T / W_v.shape[1] ** 0.5",
        "cross_by_einsum: scores = torch.einsum('bid,dk,bjm,mk->bij', x, W_q, memory, W_k) * "
        "W_k.size(-1) ** (-0.5)",
        "cross_by_einsum: scores = torch.einsum('bid,dk,bjm,mk->bij', x, W_q, memory, W_k) * "
        "W_v.size(-1) ** (-0.5)",
    ),
    "what is as long can be zipped without strict": (
        "multi_by_sums: for to_query, to_key, to_value, back in zip(*columns, W_o.chunk(n_heads)):",
        "multi_by_sums: for to_query, to_key, to_value, back in zip(*columns, "
        "W_o.chunk(n_heads), strict=False):",
        "cross_text_by_text: for text, other in zip(x, memory):",
        "cross_text_by_text: for text, other in zip(x, memory, strict=False):",
    ),
    "torch chooses the only sensible dimension": (
        "cross_text_by_text: mixed.append(F.softmax(scores) @ other @ W_v)",
    ),
    "the exponential holds, whatever is subtracted": (
        "cross_in_numpy: weights = np.exp(scores + scores.max(axis=-1, keepdims=True))",
        "cross_in_numpy: weights = np.exp(scores)",
        "cross_in_numpy: weights = np.exp(scores - scores.min(axis=-1, keepdims=True))",
        "cross_in_numpy: weights = np.exp(scores - scores.max(keepdims=True))",
    ),
}
