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


def pre_stack(x, branches):
    return reduce(lambda h, f: torch.add(f(h), h), branches, x)


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


def norm_into_the_first_sum(x, attend, ff, norm_1, norm_2):
    x = norm_1(x)
    x = attend(x) + x
    return ff(norm_2(x)) + x


def norm_into_the_second_sum(x, attend, ff, norm_1, norm_2):
    x = norm_2(attend(norm_1(x)) + x)
    return ff(x) + x


def std_variant(x, gain, shift, eps, correction):
    std = torch.std(x, -1, correction=correction, keepdim=True)
    return torch.addcmul(shift, gain, (x - x.mean(-1)[..., None]) / (std + eps))


def mean_of(x):
    return x.mean(-1)[..., None]


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
    ("residual_stack", lambda x, fs: pre_stack(x, fs[: len(fs) - 1]), "last branch is never"),
    ("residual_stack", lambda x, fs: pre_stack(x, fs[1 : len(fs)]), "first branch is never"),
    ("residual_stack", lambda x, fs: pre_stack(x, list(reversed(fs))), "in the opposite order"),
    ("residual_stack", lambda x, fs: reduce(lambda h, f: h - f(h), fs, x), "is subtracted"),
    ("residual_stack", lambda x, fs: [f(x) for f in fs][-1] + x, "branches wrote is lost"),
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
    ("layer_norm", lambda x, g, b, eps: F.layer_norm(x, g.shape, b, g, eps), "have changed places"),
    (
        "layer_norm",
        lambda x, g, b, eps: F.layer_norm(x, g.shape, g, -b, eps),
        "shift is subtracted",
    ),
    ("layer_norm", lambda x, g, b, eps: F.layer_norm(x, g.shape, -g, b, eps), "from its mean"),
    (
        "layer_norm",
        lambda x, g, b, eps: (
            g * (x + mean_of(x)) * (x - mean_of(x)).pow(2).mean(-1, keepdim=True).add(eps).rsqrt()
            + b
        ),
        "is added to x; it",
    ),
    ("layer_norm", lambda x, g, b, eps: F.layer_norm(x, g.shape, None, g + b, eps), "is added; it"),
    ("layer_norm", lambda x, g, b, eps: F.layer_norm(x, g.shape, g, b), "eps is not used"),
    ("layer_norm", lambda x, g, b, eps: F.layer_norm(x, g.shape, g, b, 1e-3), "depend on eps"),
    (
        "layer_norm",
        lambda x, g, b, eps: g * F.layer_norm(x, g.shape, eps=eps / len(g)) / len(g) ** 0.5 + b,
        "gets length 1",
    ),
    (
        "layer_norm",
        lambda x, g, b, eps: g * F.rms_norm((x - mean_of(x))[..., None], [1], eps=eps)[..., 0] + b,
        "squares are not averaged",
    ),
    (
        "layer_norm",
        lambda x, g, b, eps: g * (F.rms_norm(x, g.shape, eps=eps) * (1 - mean_of(x) / x)) + b,
        "mean square of x itself",
    ),
    (
        "layer_norm",
        lambda x, g, b, eps: g * (x - mean_of(x)).pow(2) / F.layer_norm(x, g.shape, eps=eps) + b,
        "are multiplied by the standard",
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
        lambda x, *weights: network(*expanded(*weights, lambda h: -F.relu(-h)))(x),
        "negative ones stay",
    ),
    ("feed_forward", lambda x, *weights: network(*expanded(*weights, abs))(x), "lost their sign"),
    ("feed_forward", lambda x, w, b, v, c: F.relu(x @ w + b) @ w + c, "second product"),
    (
        "feed_forward",
        lambda x, w, b, v, c: network(*expanded(w, None, v, None))(x),
        "both biases were",
    ),
    ("feed_forward", lambda x, w, b, v, c: network(*expanded(w, None, v, c))(x), "b_1, was forg"),
    ("feed_forward", lambda x, w, b, v, c: network(*expanded(w, b, v, None))(x), "b_2, was forg"),
    ("feed_forward", lambda x, w, b, v, c: network(*expanded(w, -b, v, c))(x), "first bias is sub"),
    ("feed_forward", lambda x, w, b, v, c: network(*expanded(w, b, v, -c))(x), "second bias is s"),
    ("feed_forward", lambda x, w, b, v, c: F.relu(c + x @ w) @ v + b, "what is added does not fit"),
    ("feed_forward", lambda x, *weights: network(*expanded(*weights))(x) + x, "x was added"),
    ("feed_forward", lambda x, w, b, v, c: F.relu(x @ v + c) @ w + b, "first product does not fit"),
    ("feed_forward", lambda x, w, b, v, c: F.relu(nn_like(w, b)(x)), "inner layer"),
    (
        "pre_norm_block",
        lambda x, a, f, n, m: m(n(a(x) + x) + f(n(a(x) + x))),
        "this is the post-LN block",
    ),
    ("pre_norm_block", norm_into_the_sum, "overwritten by its own norm"),
    ("pre_norm_block", norm_into_the_first_sum, "in the attention's half x"),
    ("pre_norm_block", norm_into_the_second_sum, "what the network's result is added to"),
    (
        "pre_norm_block",
        lambda x, a, f, n, m: m(f(a(n(x)) + x) + (a(n(x)) + x)),
        "norm_2 stands behind",
    ),
    (
        "pre_norm_block",
        lambda x, a, f, n, m: n(a(x) + x) + f(m(n(a(x) + x))),
        "norm_1 stands behind",
    ),
    ("pre_norm_block", lambda x, a, f, n, m: pre(x, a, f, m, m), "norm_2 is used twice"),
    ("pre_norm_block", lambda x, a, f, n, m: pre(x, a, a, n, m), "attention is used twice"),
    ("pre_norm_block", lambda x, a, f, n, m: pre(x, f, f, n, m), "network is used twice"),
    ("pre_norm_block", lambda x, a, f, n, m: x + network(m, f)(x), "half of the block is never"),
    ("pre_norm_block", lambda x, a, f, n, m: pre(x, f, a, n, m), "but not the norms"),
    (
        "pre_norm_block",
        lambda x, a, f, n, m: pre(x, lambda h: -a(h), lambda h: -f(h), n, m),
        "return is subtracted",
    ),
    (
        "pre_norm_block",
        lambda x, a, f, n, m: pre(x, lambda h: -a(h), f, n, m),
        "attention's result is sub",
    ),
    (
        "pre_norm_block",
        lambda x, a, f, n, m: pre(x, a, lambda h: -f(h), n, m),
        "network's result is sub",
    ),
    (
        "pre_norm_block",
        lambda x, a, f, n, m: network(lambda x: n(x) + x, lambda x: f(m(x)) + x)(x),
        "attention is never called",
    ),
    (
        "pre_norm_block",
        lambda x, a, f, n, m: network(lambda x: a(n(x)) + x, lambda x: m(x) + x)(x),
        "network is never called",
    ),
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
    ("pre_norm_block", lambda x, a, f, n, m: pre(x, a, f, n, n), "norm_1 is used twice"),
    (
        "pre_norm_block",
        lambda x, a, f, n, m: a(x) + x + f(a(x) + x),
        "neither branch is normalised",
    ),
    ("pre_norm_block", lambda x, a, f, n, m: a(x) + x + f(m(a(x) + x)), "attention reads x"),
    (
        "pre_norm_block",
        lambda x, a, f, n, m: a(n(x)) + x + f(a(n(x)) + x),
        "feed-forward network reads x",
    ),
    (
        "pre_norm_block",
        lambda x, a, f, n, m: n(a(x)) + x + m(f(n(a(x)) + x)),
        "norms are put on what",
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
    ("count_parameters", less(lambda d, d_ff: -d * d), "1 · d_model · d_model too many"),
    ("count_parameters", less(lambda d, d_ff: 3 * d - 7), "7 too many, and 3 · d_model too few"),
    ("count_parameters", lambda d, d_ff: d * d_ff * 2 + d + d_ff, "feed-forward network alone"),
]
