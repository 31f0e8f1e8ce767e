"""Solutions and planted bugs for the exercises of lesson 04."""

from functools import reduce

import torch
import torch.nn.functional as F
from torch import nn


def block_parameters(d_model, d_ff):
    layer = nn.TransformerEncoderLayer(d_model, 1, d_ff)
    return sum(p.numel() for p in layer.parameters())


def less(amount):
    """A count that leaves something out: amount(d_model, d_ff)."""
    return lambda d, d_ff: block_parameters(d, d_ff) - amount(d, d_ff)


def pre(x, attend, ff, norm_1, norm_2):
    attended = torch.add(x, attend(norm_1(x)))
    return torch.add(attended, ff(norm_2(attended)))


def standardised(x, eps, dims):
    variance, mean = torch.var_mean(x, dims, correction=0, keepdim=True)
    return (x - mean) * torch.rsqrt(variance + eps)


def expanded(w_1, b_1, w_2, b_2, activation=F.relu):
    return nn_like(w_1, b_1), activation, nn_like(w_2, b_2)


def nn_like(weight, bias):
    return lambda x: F.linear(x, weight.T, bias)


def network(*layers):
    return lambda x: reduce(lambda h, layer: layer(h), layers, x)


SOLUTIONS = {  # written with torch's own pieces, not with ours
    "residual_stack": lambda x, branches: reduce(lambda h, f: torch.add(f(h), h), branches, x),
    "layer_norm": lambda x, gain, shift, eps: F.layer_norm(x, gain.shape, gain, shift, eps),
    "feed_forward": lambda x, *weights: network(*expanded(*weights))(x),
    "pre_norm_block": pre,
    "count_parameters": block_parameters,
}


def return_too_early(x, branches):
    for f in branches:
        x = f(x) + x
        return x


def overwritten(x, branches):
    for f in branches:
        x = f(x)
        x = 2 * x
    return x


def norm_into_the_sum(x, attend, ff, norm_1, norm_2):
    x = norm_1(x)
    x = attend(x) + x
    x = norm_2(x)
    return ff(x) + x


def std_variant(x, gain, shift, eps, correction):
    std = torch.std(x, -1, correction=correction, keepdim=True)
    return torch.addcmul(shift, gain, (x - x.mean(-1)[..., None]) / (std + eps))


def d_minus_1(x, gain, shift, eps):
    d = x.shape[-1]
    variance = x.var(-1, correction=0, keepdim=True) * d / (d - 1)
    return (x - x.mean(-1, keepdim=True)) / torch.sqrt(variance + eps) * gain + shift


# The same mistakes as in the catalogue, written another way: (exercise, bug, word of the diagnosis)
PLANTED = [
    ("residual_stack", lambda x, fs: reduce(lambda h, f: f(h), fs, x), "replaces what it"),
    ("residual_stack", lambda x, fs: reduce(lambda h, f: f(h) + x, fs, x), "is thrown away"),
    ("residual_stack", lambda x, fs: torch.stack([x, *(f(x) for f in fs)]).sum(0), "side by side"),
    ("residual_stack", lambda x, fs: reduce(lambda h, f: f(h), fs, x) + x, "a single residual"),
    ("residual_stack", return_too_early, "indented too far"),
    ("residual_stack", overwritten, "was overwritten"),
    ("residual_stack", lambda x, fs: reduce(lambda h, f: f(2 * h), fs, x), "before the branch"),
    ("residual_stack", lambda x, fs: reduce(lambda h, f: f(h) * h, fs, x), "multiplied"),
    ("residual_stack", lambda x, fs: x.clone(), "no branch has been called"),
    (
        "layer_norm",
        lambda x, g, b, eps: std_variant(x, g, b, 0.0, 0),
        "0 / 0",
    ),
    ("layer_norm", lambda x, g, b, eps: std_variant(x, g, b, eps, 1), "two things at once"),
    ("layer_norm", d_minus_1, "the variance is divided by d − 1, the default"),
    ("layer_norm", lambda x, g, b, eps: std_variant(x, g, b, eps, 0), "to the standard deviation;"),
    (
        "layer_norm",
        lambda x, g, b, eps: F.layer_norm(x.mT, x.shape[1:2], eps=eps).mT * g + b,
        "runs over the tokens, so",
    ),
    (
        "layer_norm",
        lambda x, g, b, eps: standardised(x, eps, [0]) * g + b,
        "runs over the batch, so",
    ),
    (
        "layer_norm",
        lambda x, g, b, eps: F.batch_norm(x.mT, None, None, g, b, True, eps=eps).mT,
        "batch normalisation",
    ),
    (
        "layer_norm",
        lambda x, g, b, eps: F.layer_norm(x, x.shape[1:], eps=eps) * g + b,
        "tokens and features together",
    ),
    (
        "layer_norm",
        lambda x, g, b, eps: (x - x.mean()) / (x.var(correction=0) + eps).sqrt() * g + b,
        "over everything",
    ),
    ("layer_norm", lambda x, g, b, eps: (x - x.mean(dim=2)) * g + b, "keepdim=True keeps"),
    ("layer_norm", lambda x, g, b, eps: F.layer_norm(x, g.shape, eps=eps), "both forgotten"),
    ("layer_norm", lambda x, g, b, eps: F.layer_norm(x, g.shape, g, None, eps), "shift was forg"),
    ("layer_norm", lambda x, g, b, eps: F.layer_norm(x, g.shape, eps=eps) + b, "gain was forg"),
    (
        "layer_norm",
        lambda x, g, b, eps: g * (b + F.layer_norm(x, g.shape, eps=eps)),
        "stretches it too",
    ),
    (
        "layer_norm",
        lambda x, g, b, eps: (
            F.layer_norm(x, g.shape, g, None, eps)
            / (x.var(-1, correction=0, keepdim=True) + eps).sqrt()
            + b
        ),
        "divided by the variance",
    ),
    (
        "layer_norm",
        lambda x, g, b, eps: x * g * (x.var(-1, correction=0)[..., None] + eps).rsqrt() + b,
        "mean is not subtracted",
    ),
    ("layer_norm", lambda x, g, b, eps: F.rms_norm(x, g.shape, g, eps) + b, "RMSNorm"),
    (
        "layer_norm",
        lambda x, g, b, eps: (x - x.mean(-1, keepdim=True)) * g + b,
        "is not divided by",
    ),
    ("feed_forward", lambda x, w, b, v, c: network(nn_like(w, b), nn_like(v, c))(x), "no bend"),
    (
        "feed_forward",
        lambda x, w, b, v, c: network(nn_like(w, b), nn_like(v, c), F.relu)(x),
        "behind the second layer; it",
    ),
    (
        "feed_forward",
        lambda x, *weights: network(*expanded(*weights), F.relu)(x),
        "behind both layers",
    ),
    (
        "feed_forward",
        lambda x, w, b, v, c: network(F.relu, nn_like(w, b), nn_like(v, c))(x),
        "before the first layer",
    ),
    ("feed_forward", lambda x, w, b, v, c: (F.relu(x @ w) + b) @ v + c, "behind the ReLU; it"),
    (
        "feed_forward",
        lambda x, *weights: network(*expanded(*weights, F.gelu))(x),
        "this is a GELU",
    ),
    (
        "feed_forward",
        lambda x, w, b, v, c: network(*expanded(w, None, v, None))(x),
        "both biases were",
    ),
    ("feed_forward", lambda x, w, b, v, c: network(*expanded(w, None, v, c))(x), "b_1, was forg"),
    ("feed_forward", lambda x, w, b, v, c: network(*expanded(w, b, v, None))(x), "b_2, was forg"),
    ("feed_forward", lambda x, *weights: network(*expanded(*weights))(x) + x, "x was added"),
    ("feed_forward", lambda x, w, b, v, c: F.relu(x @ v + c) @ w + b, "first product does not fit"),
    ("feed_forward", lambda x, w, b, v, c: F.relu(nn_like(w, b)(x)), "inner layer"),
    (
        "pre_norm_block",
        lambda x, a, f, n, m: m(n(a(x) + x) + f(n(a(x) + x))),
        "this is the post-LN block",
    ),
    ("pre_norm_block", norm_into_the_sum, "overwritten by its own norm"),
    ("pre_norm_block", lambda x, a, f, n, m: network(n, a, m, f)(x), "no residual connection is"),
    (
        "pre_norm_block",
        lambda x, a, f, n, m: a(n(x)) + f(m(a(n(x)))),
        "in the first line",
    ),
    (
        "pre_norm_block",
        lambda x, a, f, n, m: network(lambda x: a(n(x)) + x, m, f)(x),
        "in the second line",
    ),
    (
        "pre_norm_block",
        lambda x, a, f, n, m: f(m(a(n(x)) + x)) + x,
        "only through the feed-forward network",
    ),
    ("pre_norm_block", lambda x, a, f, n, m: f(m(x)) + a(n(x)) + x, "both branches read"),
    ("pre_norm_block", lambda x, a, f, n, m: pre(x, a, f, m, n), "norms have changed places"),
    ("pre_norm_block", lambda x, a, f, n, m: pre(x, a, f, n, n), "used twice"),
    ("pre_norm_block", lambda x, a, f, n, m: a(x) + x + f(a(x) + x), "never called"),
    ("pre_norm_block", lambda x, a, f, n, m: a(x) + x + f(m(a(x) + x)), "attention reads x"),
    (
        "pre_norm_block",
        lambda x, a, f, n, m: a(n(x)) + x + f(a(n(x)) + x),
        "feed-forward network reads x",
    ),
    (
        "pre_norm_block",
        lambda x, a, f, n, m: n(a(x)) + x + m(f(n(a(x)) + x)),
        "what the branches return",
    ),
    ("pre_norm_block", lambda x, a, f, n, m: pre(x, f, a, m, n), "comes first; the"),
    ("pre_norm_block", lambda x, a, f, n, m: m(pre(x, a, f, n, m)), "one norm too many"),
    ("pre_norm_block", lambda x, a, f, n, m: a(n(x)) + x, "ends after the attention"),
    ("count_parameters", lambda d, d_ff: 12 * d**2 + 13 * d, "d_ff is 4 · d_model"),
    ("count_parameters", less(lambda d, d_ff: 5 * d + d_ff), "no bias is counted"),
    ("count_parameters", less(lambda d, d_ff: 9 * d + d_ff), "weight matrices alone"),
    ("count_parameters", less(lambda d, d_ff: d * (d + 1)), "four projections is missing"),
    ("count_parameters", less(lambda d, d_ff: 4 * d), "4 · d_model are missing"),
    ("count_parameters", less(lambda d, d_ff: 2 * d), "half of that is missing"),
    ("count_parameters", less(lambda d, d_ff: d * d_ff), "only one is counted"),
    ("count_parameters", less(lambda d, d_ff: d + d_ff), "feed-forward network are missing:"),
    ("count_parameters", less(lambda d, d_ff: d - d_ff), "counted as d_ff;"),
    ("count_parameters", less(lambda d, d_ff: d_ff - d), "counted as d_model;"),
    (
        "count_parameters",
        lambda d, d_ff: sum(p.numel() for p in nn.MultiheadAttention(d, 1).parameters()),
        "the attention alone",
    ),
    ("count_parameters", lambda d, d_ff: d * d_ff * 2 + d + d_ff, "feed-forward network alone"),
]
