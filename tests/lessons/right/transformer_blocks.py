"""Right answers to the exercises of lesson 04 in several styles, and inputs to judge others on."""

import math
from collections.abc import Callable
from functools import reduce

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from attnviz.lessons.drawing import Draw


def residual_by_loop(x, branches):
    for branch in branches:
        x = x + branch(x)
    return x


def residual_by_reduce(x, branches):
    return reduce(lambda h, branch: torch.add(branch(h), h), branches, x)


def residual_by_recursion(x, branches):
    if len(branches) == 0:
        return x
    first, *others = branches
    return residual_by_recursion(first(x) + x, others)


def residual_in_place(x, branches):
    stream = x.clone()
    for i in range(len(branches)):
        stream += branches[i](stream)
    return stream


def residual_from_what_was_added(x, branches):
    """The sum of x and of all that the branches have written so far."""
    written = [x]
    for branch in branches:
        so_far = torch.stack(written).sum(0)
        written.append(branch(so_far))
    return torch.stack(written).sum(0)


def residual_in_half_precision(x, branches):
    stream = x.double()
    for branch in branches:
        stream = torch.stack([stream, branch(stream.float())]).sum(0)
    return stream.half()


def layer_norm_by_steps(x, gain, shift, eps=1e-5):
    mean = x.mean(dim=-1, keepdim=True)
    variance = ((x - mean) ** 2).mean(dim=-1, keepdim=True)
    return gain * (x - mean) / torch.sqrt(variance + eps) + shift


def layer_norm_by_var(x, gain, shift, eps=1e-5):
    variance, mean = torch.var_mean(x, -1, correction=0, keepdim=True)
    return torch.addcmul(shift, (x - mean) * torch.rsqrt(variance + eps), gain)


def layer_norm_in_numpy(x, gain, shift, eps=1e-5):
    tokens = x.numpy().astype(np.float64)
    mean, variance = tokens.mean(-1), tokens.var(-1)
    normalised = (tokens - mean[..., None]) / np.sqrt(variance + eps)[..., None]
    return normalised * gain.numpy() + shift.numpy()


def layer_norm_by_loops(x, gain, shift, eps=1e-5):
    result = torch.empty_like(x)
    for b, sequence in enumerate(x.tolist()):
        for t, token in enumerate(sequence):
            mean = sum(token) / len(token)
            variance = sum((number - mean) ** 2 for number in token) / len(token)
            for i, number in enumerate(token):
                standard = (number - mean) / math.sqrt(variance + eps)
                result[b, t, i] = standard * gain[i] + shift[i]
    return result


def layer_norm_by_einsum(x, gain, shift, eps=1e-5):
    d_model = x.size(-1)
    deviation = x - torch.einsum("btd->bt", x).unsqueeze(-1) / d_model
    variance = torch.einsum("btd,btd->bt", deviation, deviation) / d_model
    return torch.einsum("btd,bt,d->btd", deviation, (variance + eps) ** -0.5, gain) + shift


def layer_norm_in_place(x, gain, shift, eps=1e-5):
    y = x.clone()
    y -= y.mean(-1, keepdim=True)
    y /= (y.square().mean(-1, keepdim=True) + eps).sqrt()
    y *= gain
    y += shift
    return y


def layer_norm_in_half_precision(x, gain, shift, eps=1e-5):
    deviation = x - x.mean(-1)[..., None]
    variance = x.var(-1, unbiased=False)[..., None]
    return (deviation / (variance + eps).sqrt() * gain + shift).half()


def feed_forward_by_steps(x, W_1, b_1, W_2, b_2):
    hidden = torch.relu(x @ W_1 + b_1)
    return hidden @ W_2 + b_2


def feed_forward_with_linear(x, W_1, b_1, W_2, b_2):
    return F.linear(F.relu(F.linear(x, W_1.T, b_1)), W_2.T, b_2)


def feed_forward_by_einsum(x, W_1, b_1, W_2, b_2):
    hidden = torch.einsum("btd,df->btf", x, W_1) + b_1
    hidden = torch.where(hidden > 0, hidden, 0)
    return torch.einsum("btf,fd->btd", hidden, W_2) + b_2


def feed_forward_in_numpy(x, W_1, b_1, W_2, b_2):
    x, W_1, b_1, W_2, b_2 = (t.numpy() for t in (x, W_1, b_1, W_2, b_2))
    return np.maximum(0, np.matmul(x, W_1) + b_1).dot(W_2) + b_2


def feed_forward_unit_by_unit(x, W_1, b_1, W_2, b_2):
    """Each unit of the inner layer adds its row of W_2."""
    result = b_2.expand_as(x).clone()
    for f in range(len(b_1)):
        unit = (x * W_1[:, f]).sum(-1) + b_1[f]
        unit[unit < 0] = 0
        result += unit[..., None] * W_2[f]
    return result


def feed_forward_in_half_precision(x, W_1, b_1, W_2, b_2):
    hidden = (x.matmul(W_1) + b_1).clamp(min=0)
    return (hidden.matmul(W_2) + b_2).half()


def pre_norm_in_two_lines(x, attention, feed_forward, norm_1, norm_2):
    x = x + attention(norm_1(x))
    return x + feed_forward(norm_2(x))


def pre_norm_with_names(x, attention, feed_forward, norm_1, norm_2):
    normed = norm_1(x)
    attended = attention(normed)
    middle = torch.add(x, attended)
    normed = norm_2(middle)
    return torch.add(feed_forward(normed), middle)


def pre_norm_by_loop(x, attention, feed_forward, norm_1, norm_2):
    for norm, branch in ((norm_1, attention), (norm_2, feed_forward)):
        x = branch(norm(x)) + x
    return x


def pre_norm_in_place(x, attention, feed_forward, norm_1, norm_2):
    stream = x.clone()
    stream += attention(norm_1(stream))
    stream += feed_forward(norm_2(stream))
    return stream


def pre_norm_as_residual_stack(x, attention, feed_forward, norm_1, norm_2):
    branches = [lambda h: attention(norm_1(h)), lambda h: feed_forward(norm_2(h))]
    return reduce(lambda h, branch: h + branch(h), branches, x)


def pre_norm_in_half_precision(x, attention, feed_forward, norm_1, norm_2):
    from_attention = attention(norm_1(x))
    from_network = feed_forward(norm_2(x + from_attention))
    return torch.stack([x, from_attention, from_network]).sum(0).half()


def count_by_parts(d_model, d_ff):
    attention = 4 * (d_model * d_model + d_model)
    feed_forward = (d_model * d_ff + d_ff) + (d_ff * d_model + d_model)
    norms = 2 * (d_model + d_model)
    return attention + feed_forward + norms


def count_by_powers(d_model, d_ff):
    return 4 * d_model**2 + 2 * d_model * d_ff + 9 * d_model + d_ff


def count_by_layers(d_model, d_ff):
    linear = [(d_model, d_model)] * 4 + [(d_model, d_ff), (d_ff, d_model)]
    total = sum(a * b + b for a, b in linear)
    for _ in range(2):
        total += 2 * d_model
    return total


def count_by_shapes(d_model, d_ff):
    matrices = [(3 * d_model, d_model), (d_model, d_model), (d_ff, d_model), (d_model, d_ff)]
    vectors = [(3, d_model), (d_model,), (d_ff,), (d_model,), (2, 2, d_model)]
    return sum(math.prod(shape) for shape in matrices + vectors)


def count_by_torch(d_model, d_ff):
    layer = torch.nn.TransformerEncoderLayer(d_model, 1, d_ff, device="meta")
    return sum(weight.numel() for weight in layer.parameters())


def _mixing(draw: Draw, d_model: int) -> Callable[[Tensor], Tensor]:
    """A function of tokens that mixes them."""
    weight, bias = draw.tensor(d_model, d_model, scale=d_model**-0.5), draw.tensor(d_model)
    return lambda x: (x @ weight + x.mean(-2, keepdim=True) + bias).sin()


def _tokens(draw: Draw, d_model: int) -> Tensor:
    n, batch = draw.sizes(2)
    shape = draw.choice([(n, d_model), (batch, n, d_model), (1, n, d_model), (batch, 1, d_model)])
    return draw.tensor(*shape, scale=draw.choice([0.3, 1, 4])) + draw.choice([-2, 0, 1])


def _stack(draw: Draw) -> tuple[Tensor, list[Callable]]:
    d_model = draw.randint(1, 8)
    branches = [_mixing(draw, d_model) for _ in range(draw.choice([1, 2, 3, 6]))]
    return _tokens(draw, d_model), branches


def _to_normalise(draw: Draw) -> tuple[Tensor, Tensor, Tensor, float]:
    batch, n, d_model = draw.sizes(3, range(2, 9))
    scale, offset = draw.choice([(0.002, 0), (0.3, 0), (0.3, -2), (1, 0), (1, 5), (20, 5)])
    x = draw.tensor(batch, n, d_model, scale=scale) + offset
    if draw.random() < 0.5:  # a token whose numbers are all equal
        x[draw.randrange(batch), draw.randrange(n)] = draw.choice([-3.0, 0, 2.0])
    x = x[:1] if draw.random() < 0.2 else x
    return x, draw.tensor(d_model), draw.tensor(d_model), draw.choice([1e-6, 1e-5, 1e-3, 0.1, 2.0])


def _network(draw: Draw) -> tuple[Tensor, ...]:
    batch, n, d_model, d_ff = draw.sizes(4, range(2, 11))
    return (
        draw.tensor(batch, n, d_model, scale=draw.choice([0.3, 1, 3])),
        draw.tensor(d_model, d_ff),
        draw.tensor(d_ff),
        draw.tensor(d_ff, d_model),
        draw.tensor(d_model),
    )


def _affine(draw: Draw, d_model: int) -> Callable[[Tensor], Tensor]:
    gain, shift = draw.tensor(d_model), draw.tensor(d_model)
    return lambda x: F.layer_norm(x, (d_model,), gain, shift)


def _block(draw: Draw) -> tuple:
    d_model = draw.randint(2, 8)
    branches = _mixing(draw, d_model), _mixing(draw, d_model)
    return _tokens(draw, d_model), *branches, _affine(draw, d_model), _affine(draw, d_model)


def _widths(draw: Draw) -> tuple[int, int]:
    d_model = draw.choice([1, 2, 3, 5, 8, 12, 30])
    return d_model, draw.choice([1, 2, 7, 20, 4 * d_model, draw.randint(1, 60)])


RIGHT = {
    "residual_stack": (
        residual_by_loop,
        residual_by_reduce,
        residual_by_recursion,
        residual_in_place,
        residual_from_what_was_added,
        residual_in_half_precision,
    ),
    "layer_norm": (
        layer_norm_by_steps,
        layer_norm_by_var,
        layer_norm_in_numpy,
        layer_norm_by_loops,
        layer_norm_by_einsum,
        layer_norm_in_place,
        layer_norm_in_half_precision,
    ),
    "feed_forward": (
        feed_forward_by_steps,
        feed_forward_with_linear,
        feed_forward_by_einsum,
        feed_forward_in_numpy,
        feed_forward_unit_by_unit,
        feed_forward_in_half_precision,
    ),
    "pre_norm_block": (
        pre_norm_in_two_lines,
        pre_norm_with_names,
        pre_norm_by_loop,
        pre_norm_in_place,
        pre_norm_as_residual_stack,
        pre_norm_in_half_precision,
    ),
    "count_parameters": (
        count_by_parts,
        count_by_powers,
        count_by_layers,
        count_by_shapes,
        count_by_torch,
    ),
}
INPUTS = {
    "residual_stack": _stack,
    "layer_norm": _to_normalise,
    "feed_forward": _network,
    "pre_norm_block": _block,
    "count_parameters": _widths,
}
EQUIVALENT = {
    "a sum in another order": (
        "residual_by_reduce: return reduce(lambda h, branch: torch.add(h, branch(h)), branches, x)",
        "residual_in_half_precision: stream = torch.stack([branch(stream.float()), stream]).sum(0)",
        "pre_norm_with_names: middle = torch.add(attended, x)",
        "pre_norm_with_names: return torch.add(middle, feed_forward(normed))",
        "pre_norm_in_half_precision: "
        "return torch.stack([from_attention, x, from_network]).sum(0).half()",
        "pre_norm_in_half_precision: "
        "return torch.stack([x, from_network, from_attention]).sum(0).half()",
        "count_by_layers: linear = [(d_model, d_model)] * 4 + [(d_ff, d_model), (d_model, d_ff)]",
        "count_by_shapes: "
        "matrices = [(d_model, d_model), (3 * d_model, d_model), (d_ff, d_model), (d_model, d_ff)]",
        "count_by_shapes: "
        "matrices = [(3 * d_model, d_model), (d_ff, d_model), (d_model, d_model), (d_model, d_ff)]",
        "count_by_shapes: "
        "matrices = [(3 * d_model, d_model), (d_model, d_model), (d_model, d_ff), (d_ff, d_model)]",
        "count_by_shapes: "
        "vectors = [(d_model,), (3, d_model), (d_ff,), (d_model,), (2, 2, d_model)]",
        "count_by_shapes: "
        "vectors = [(3, d_model), (d_ff,), (d_model,), (d_model,), (2, 2, d_model)]",
        "count_by_shapes: "
        "vectors = [(3, d_model), (d_model,), (d_model,), (d_ff,), (2, 2, d_model)]",
        "count_by_shapes: "
        "vectors = [(3, d_model), (d_model,), (d_ff,), (2, 2, d_model), (d_model,)]",
    ),
    "a matrix on its side has as many numbers": (
        "count_by_shapes: "
        "matrices = [(d_model, 3 * d_model), (d_model, d_model), (d_ff, d_model), (d_model, d_ff)]",
        "count_by_shapes: "
        "matrices = [(3 * d_model, d_model), (d_model, d_model), (d_model, d_ff), (d_model, d_ff)]",
        "count_by_shapes: "
        "matrices = [(3 * d_model, d_model), (d_model, d_model), (d_ff, d_model), (d_ff, d_model)]",
        "count_by_shapes: "
        "vectors = [(d_model, 3), (d_model,), (d_ff,), (d_model,), (2, 2, d_model)]",
        "count_by_shapes: "
        "vectors = [(3, d_model), (d_model,), (d_ff,), (d_model,), (2, d_model, 2)]",
    ),
    "where the weights are does not count": (
        "count_by_torch: layer = torch.nn.TransformerEncoderLayer(d_model, 1, d_ff)",
    ),
    "no half or double precision": (
        "residual_in_half_precision: stream = x",
        "residual_in_half_precision: return stream",
        "pre_norm_in_half_precision: return torch.stack([x, from_attention, from_network]).sum(0)",
        "feed_forward_in_half_precision: return hidden.matmul(W_2) + b_2",
        "layer_norm_in_half_precision: return deviation / (variance + eps).sqrt() * gain + shift",
        "layer_norm_in_numpy: tokens = x.numpy()",
    ),
    "0 becomes 0 either way": (
        "feed_forward_by_einsum: hidden = torch.where(hidden >= 0, hidden, 0)",
        "feed_forward_unit_by_unit: unit[unit <= 0] = 0",
    ),
    "the same written another way": (
        "feed_forward_in_numpy: return np.maximum(np.matmul(x, W_1) + b_1, 0).dot(W_2) + b_2",
        "feed_forward_unit_by_unit: for f in range(len(W_2)):",
        "layer_norm_by_var: "
        "return torch.addcmul(shift, gain, (x - mean) * torch.rsqrt(variance + eps))",
        "layer_norm_by_loops: for b, sequence in enumerate(x):",
        "layer_norm_by_einsum: d_model = gain.size(-1)",
        "layer_norm_by_einsum: d_model = shift.size(-1)",
    ),
    "a square has no sign": (
        "layer_norm_by_steps: variance = ((mean - x) ** 2).mean(dim=-1, keepdim=True)",
        "layer_norm_by_loops: "
        "variance = sum(((mean - number) ** 2 for number in token)) / len(token)",
    ),
}
