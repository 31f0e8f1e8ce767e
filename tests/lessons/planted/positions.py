"""Solutions and planted bugs for the exercises of lesson 03."""

import math

import torch


def omega(i, d):
    return 1 / 10_000 ** (2 * i / d)


def sinusoids(n, d, first=0, frequency=omega, even=math.sin, odd=math.cos):
    """Number by number, as the formula stands in the paper."""
    rows = []
    for p in range(first, first + n):
        row = []
        for i in range(d // 2):
            row += [even(frequency(i, d) * p), odd(frequency(i, d) * p)]
        rows.append(row)
    return torch.tensor(rows)


def own_frequencies(n, d):
    return torch.tensor(
        [
            [(math.cos if j % 2 else math.sin)(p / 10_000 ** (j / d)) for j in range(d)]
            for p in range(n)
        ]
    )


def turn(encoding, angles, sign=1):
    """As complex numbers: cos + i sin of the encoding, times cos + i sin of the angle."""
    hands = torch.complex(encoding[:, 1::2], encoding[:, 0::2])
    turned = hands * torch.polar(torch.ones_like(angles), sign * angles)
    return torch.stack([turned.imag, turned.real], -1).flatten(1)


def step(encoding, k, sign=1):
    d = encoding.shape[1]
    return turn(encoding, torch.tensor([k * omega(i, d) for i in range(d // 2)]), sign)


def same_signs(encoding, k):
    d = encoding.shape[1]
    angle = torch.tensor([k * omega(i, d) for i in range(d // 2)])
    sin, cos = encoding.unflatten(1, (-1, 2)).unbind(-1)
    right = step(encoding, k)
    right[:, 1::2] = cos * torch.cos(angle) + sin * torch.sin(angle)
    return right


def rotate(x, positions, sign=1, frequency=omega, neighbours=False):
    d = x.shape[1]
    x = x.unflatten(1, (-1, 2)).mT.flatten(1) if neighbours else x
    hands = torch.complex(x[:, : d // 2], x[:, d // 2 :])
    angles = positions[:, None] * torch.tensor([frequency(i, d) for i in range(d // 2)])
    turned = hands * torch.polar(torch.ones_like(angles), sign * angles)
    result = torch.cat([turned.real, turned.imag], 1)
    return result.unflatten(1, (2, -1)).mT.flatten(1) if neighbours else result


def cosines_only(x, positions):
    d = x.shape[1]
    angles = positions[:, None] * torch.tensor([omega(i, d) for i in range(d // 2)])
    return torch.cat([half * torch.cos(angles) for half in x.chunk(2, 1)], 1)


def alibi(h, n, slope=lambda i, h: 2 ** (-8 * (i + 1) / h), distance=lambda m, n: abs(m - n)):
    return torch.tensor(
        [[[-slope(i, h) * distance(m, k) for k in range(n)] for m in range(n)] for i in range(h)],
        dtype=torch.float32,
    )


SOLUTIONS = {"sinusoidal_positions": sinusoids, "step": step, "rotate": rotate, "alibi": alibi}

# The same mistakes as in the catalogue, written another way: (exercise, bug, word of the diagnosis)
PLANTED = [
    (
        "sinusoidal_positions",
        lambda n, d: sinusoids(n, d, even=math.cos, odd=math.sin),
        "changed places",
    ),
    (
        "sinusoidal_positions",
        lambda n, d: torch.cat([sinusoids(n, d)[:, 0::2], sinusoids(n, d)[:, 1::2]], 1),
        "in the first half",
    ),
    (
        "sinusoidal_positions",
        lambda n, d: sinusoids(n, d, frequency=lambda i, d: 10_000 ** (-i / d)),
        "counts the pairs",
    ),
    ("sinusoidal_positions", own_frequencies, "different frequencies"),
    (
        "sinusoidal_positions",
        lambda n, d: sinusoids(n, d, frequency=lambda i, d: 10_000 ** (2 * i / d)),
        "is multiplied by",
    ),
    ("sinusoidal_positions", lambda n, d: sinusoids(n, d, first=1), "count from 1"),
    ("sinusoidal_positions", lambda n, d: sinusoids(n, d).mT, "transposed"),
    ("step", lambda e, k: step(e, -k), "wrong way round"),
    (
        "step",
        lambda e, k: turn(e, torch.full((e.shape[1] // 2,), float(k))),
        "by the same angle, k",
    ),
    ("step", same_signs, "both terms have the same sign"),
    ("step", lambda e, k: e + sinusoids(1, e.shape[1], first=k), "added up"),
    ("step", lambda e, k: torch.cat([e, e])[k % len(e) :][: len(e)], "rows are moved"),
    ("step", lambda e, k: e + 0, "nothing has moved"),
    ("rotate", lambda x, p: rotate(x, p, neighbours=True), "are neighbours"),
    ("rotate", lambda x, p: rotate(x, -p), "wrong way round"),
    ("rotate", lambda x, p: rotate(x, torch.arange(x.shape[0])), "taken as 0, 1, 2"),
    (
        "rotate",
        lambda x, p: x + torch.cat([sinusoids(1, x.shape[1], first=i) for i in p.tolist()]),
        "are added to x",
    ),
    ("rotate", cosines_only, "cosines alone"),
    ("rotate", lambda x, p: rotate(x, p, frequency=lambda i, d: 1.0), "by the same angle. Each"),
    ("alibi", lambda h, n: alibi(h, n).abs(), "sign is missing"),
    ("alibi", lambda h, n: alibi(h, n, distance=lambda m, k: m - k), "kept its sign"),
    ("alibi", lambda h, n: alibi(h, n, slope=lambda i, h: 2 ** (-8 / h)), "the same slope"),
    ("alibi", lambda h, n: alibi(h, n, slope=lambda i, h: 2 ** (-8 * i / h)), "start at 1"),
    ("alibi", lambda h, n: alibi(h, n, slope=lambda i, h: 2 ** (-8 * (h - i) / h)), "wrong order"),
    ("alibi", lambda h, n: alibi(h, n, slope=lambda i, h: (h - i) / h), "fall evenly"),
]
