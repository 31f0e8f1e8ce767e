"""Where a token stands, told to attention, which by itself cannot see any order."""

from typing import Any

import torch
from torch import Tensor

from attnviz.checks import check_positive, check_whole
from attnviz.tensors import check_floats, check_tensor


def sinusoidal_positions(n: int, d_model: int) -> Tensor:
    """A fixed vector for each position, to be added to the token vectors.

    n: positions 0 to n - 1.   d_model: width, even.
    Returns (n, d_model) float32: sines at the even places and cosines at the odd ones, of
    wavelengths from 2π to 10,000 · 2π. Moving on by k positions turns each sine–cosine pair by an
    angle that depends on k alone.
    Raises ValueError for an odd or non-positive width, or a negative n; TypeError for what are no
    whole numbers.
    Source: Vaswani et al. 2017, section 3.5.
    """
    n, d_model = check_whole("n", n), check_whole("d_model", d_model)
    _check_even("d_model", d_model)
    if n < 0:
        raise ValueError(f"n must not be negative, got {n}")
    angles = torch.arange(n)[:, None] * _frequencies(d_model, 10_000.0)  # (n, d_model / 2)
    return torch.stack([angles.sin(), angles.cos()], -1).flatten(1)


def rotate(x: Tensor, positions: Tensor | None = None, base: float = 10_000.0) -> Tensor:
    """Turn queries or keys by angles that grow with their position (rotary embedding, RoPE).

    x:         (..., token, d_k), d_k even; place i is paired with place i + d_k / 2.
    positions: (token,), or as many as x has vectors after broadcasting, such as (batch, 1, token);
               0 to token - 1 when not given.
    base:      wavelengths run from 2π to base · 2π tokens.
    Returns x turned, of the same shape and dtype; lengths do not change, and the dot product of a
    turned query and a turned key depends on their distance alone.
    Raises TypeError for what are no floating-point numbers, or positions that are no numbers;
    ValueError for an odd d_k, positions that do not fit the tokens, or a base that is not positive.
    Source: Su et al. 2021, "RoFormer", section 3.4.2; pairing as in Llama.
    """
    check_floats("x", x)
    if x.dim() < 2:
        raise ValueError(f"x must be (..., token, d_k), got {tuple(x.shape)}")
    base = check_positive("base", base)
    d_k, n = x.size(-1), x.size(-2)
    _check_even("d_k (the last dimension of x)", d_k)
    if positions is None:
        positions = torch.arange(n, device=x.device)
    else:
        _check_positions(positions, x)
    frequencies = _frequencies(d_k, base).to(x.device)
    angles = positions.to(x.device)[..., None] * frequencies  # (..., token, d_k / 2)
    cos, sin = angles.cos().to(x.dtype), angles.sin().to(x.dtype)
    return _Turned.apply(x, torch.cat([cos, cos], -1), torch.cat([-sin, sin], -1))


def _check_positions(positions: Tensor, x: Tensor) -> None:
    check_tensor("positions", positions)
    if positions.dtype == torch.bool or positions.is_complex():
        raise TypeError(f"positions must hold numbers, got {positions.dtype}")
    if not _broadcasts(positions.shape, x.shape[:-1]):
        raise ValueError(
            f"positions must be ({x.size(-2)},), one a token, or broadcast to "
            f"{tuple(x.shape[:-1])}, got {tuple(positions.shape)}"
        )


class _Turned(torch.autograd.Function):
    """First half · cos - second · sin, then second · cos + first · sin, in few passes over memory.

    The gradient is the incoming one turned back, which autograd by itself would not see.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
        ctx.save_for_backward(cos, sin)
        halves_swapped = x.roll(x.size(-1) // 2, -1)
        return torch.addcmul(x * cos, halves_swapped, sin)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None]:
        cos, sin = ctx.saved_tensors
        return _Turned.apply(gradient, cos, -sin), None, None


def alibi(n_heads: int, n_queries: int, n_keys: int | None = None) -> Tensor:
    """A penalty on scores that grows with distance, steeper in the first heads than in the last.

    n_heads:   the slopes are powers of two, 2^(-8 / n_heads) to 2^-8; where n_heads is no power
               of two, those of the next smaller one and then every other one of the next.
    n_queries: number of queries.
    n_keys:    number of keys, n_queries when not given; with more, the queries are the last.
    Returns (n_heads, n_queries, n_keys) float32, to be added to the scores; zero on the diagonal.
    Raises ValueError when n_heads is not positive, or there are fewer keys than queries; TypeError
    for what are no whole numbers.
    Source: Press et al. 2022, "Train Short, Test Long", section 3; for attention in both directions
    the distance is taken without its sign.
    """
    n_heads, n_queries = check_whole("n_heads", n_heads, 1), check_whole("n_queries", n_queries)
    n_keys = n_queries if n_keys is None else check_whole("n_keys", n_keys)
    if not 0 <= n_queries <= n_keys:
        raise ValueError(
            f"n_keys must be at least n_queries, got n_queries={n_queries}, n_keys={n_keys}"
        )
    queries = torch.arange(n_keys - n_queries, n_keys)
    distance = (queries[:, None] - torch.arange(n_keys)).abs()  # (query, key)
    return -_slopes(n_heads)[:, None, None] * distance


def _broadcasts(shape: tuple[int, ...], to: tuple[int, ...]) -> bool:
    """Whether this shape broadcasts to the other one, and has its last size."""
    if not shape or len(shape) > len(to) or shape[-1] != to[-1]:
        return False
    return all(n in (1, m) for n, m in zip(reversed(shape), reversed(to), strict=False))


def _slopes(n_heads: int) -> Tensor:
    power = 2 ** (n_heads.bit_length() - 1)  # the largest power of two among the heads
    slopes = 2.0 ** (-8 / power * torch.arange(1, power + 1))
    if power < n_heads:
        between = 2.0 ** (-4 / power * torch.arange(1, 2 * power + 1, 2))
        slopes = torch.cat([slopes, between[: n_heads - power]])
    return slopes


def _frequencies(width: int, base: float) -> Tensor:
    """Radians a position, for each pair of places: 1 down to (almost) 1 / base."""
    return base ** (-torch.arange(0, width, 2) / width)


def _check_even(name: str, width: int) -> None:
    if width < 2 or width % 2:
        raise ValueError(f"{name} must be a positive even number, got {width}")
