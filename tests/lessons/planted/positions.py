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


def reshaped(n, d):
    """As torch.stack without a dimension."""
    rows = sinusoids(n, d)
    return torch.cat([rows[:, 0::2].flatten(), rows[:, 1::2].flatten()]).view(n, d)


def own_frequencies(n, d):
    return torch.tensor(
        [
            [(math.cos if j % 2 else math.sin)(p / 10_000 ** (j / d)) for j in range(d)]
            for p in range(n)
        ]
    )


def turn(encoding, angles):
    """As complex numbers: cos + i sin of the encoding, times cos + i sin of the angle."""
    hands = torch.complex(encoding[:, 1::2], encoding[:, 0::2])
    turned = hands * torch.polar(torch.ones_like(angles), angles)
    return torch.stack([turned.imag, turned.real], -1).flatten(1)


def step(encoding, k, sign=1):
    return step_at(encoding, sign * k, omega)


def step_at(encoding, k, frequency):
    d = encoding.shape[1]
    return turn(encoding, torch.tensor([k * frequency(i, d) for i in range(d // 2)]))


def one_term(right, encoding, k, place):
    """The sines (place 0) or cosines (1) of the right result with their first term alone."""
    mean = (step(encoding, k) + step(encoding, -k)) / 2
    right[:, place::2] = mean[:, place::2]
    return right


def same_signs(encoding, k):
    d = encoding.shape[1]
    angle = torch.tensor([k * omega(i, d) for i in range(d // 2)])
    sin, cos = encoding.unflatten(1, (-1, 2)).unbind(-1)
    right = step(encoding, k)
    right[:, 1::2] = cos * torch.cos(angle) + sin * torch.sin(angle)
    return right


def quarter_turns(encoding):
    sin, cos = encoding.unflatten(1, (-1, 2)).unbind(-1)
    return torch.stack([cos, -sin], -1).flatten(1)


def minus_twice(encoding, k):
    right, back = step(encoding, k), step(encoding, -k)
    right[:, 0::2] = back[:, 0::2]
    return right


def rotate(x, positions, sign=1, frequency=omega, neighbours=False):
    d = x.shape[1]
    x = x.unflatten(1, (-1, 2)).mT.flatten(1) if neighbours else x
    hands = torch.complex(x[:, : d // 2], x[:, d // 2 :])
    angles = positions[:, None] * torch.tensor([frequency(i, d) for i in range(d // 2)])
    turned = hands * torch.polar(torch.ones_like(angles), sign * angles)
    result = torch.cat([turned.real, turned.imag], 1)
    return result.unflatten(1, (2, -1)).mT.flatten(1) if neighbours else result


def half_of_each(x, positions, first, second):
    """The first half of one rotation, the second of another; each with its sign."""
    d = x.shape[1]
    one, other = (rotate(x, sign * positions) for sign in (first, second))
    return torch.cat([one[:, : d // 2], other[:, d // 2 :]], 1)


def half_turned(x, positions, half):
    """The right result, but one half has its cosines alone."""
    halves = list(rotate(x, positions).chunk(2, 1))
    halves[half] = cosines_only(x, positions).chunk(2, 1)[half]
    return torch.cat(halves, 1)


def neighbours_then_halves(x, positions):
    return torch.cat(rotate(x, positions, neighbours=True).unflatten(1, (-1, 2)).unbind(-1), 1)


def cosines_only(x, positions):
    d = x.shape[1]
    angles = positions[:, None] * torch.tensor([omega(i, d) for i in range(d // 2)])
    return torch.cat([half * torch.cos(angles) for half in x.chunk(2, 1)], 1)


def alibi(h, n, slope=lambda i, h: 2 ** (-8 * (i + 1) / h), distance=lambda m, n: abs(m - n)):
    return torch.tensor(
        [[[-slope(i, h) * distance(m, k) for k in range(n)] for m in range(n)] for i in range(h)],
        dtype=torch.float32,
    )


def one_sided(h, n):
    """The causal one, as it is often written for decoders."""
    bias = torch.full((h, n, n), float("-inf"))
    for i, m in ((i, m) for i in range(h) for m in range(n)):
        bias[i, m, : m + 1] = alibi(h, n)[i, m, : m + 1]
    return bias


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
    ("sinusoidal_positions", reshaped, "stacked in front"),
    ("sinusoidal_positions", lambda n, d: sinusoids(n, d, odd=math.sin), "pair are sines"),
    ("sinusoidal_positions", lambda n, d: sinusoids(n, d, even=math.cos), "pair are cosines"),
    (
        "sinusoidal_positions",
        lambda n, d: sinusoids(n, d, frequency=lambda i, d: 10_000 ** (-4 * i / d)),
        "doubled twice",
    ),
    (
        "sinusoidal_positions",
        lambda n, d: sinusoids(n, d, frequency=lambda i, d: 10_000 ** (-2 * i)),
        "not divided by d_model",
    ),
    (
        "sinusoidal_positions",
        lambda n, d: sinusoids(n, d, frequency=lambda i, d: 1),
        "at the same speed",
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
    ("step", minus_twice, "a minus in both"),
    ("step", lambda e, k: quarter_turns(step(e, -k)), "of the angle have"),
    ("step", lambda e, k: e * torch.ones(e.shape[1] // 2), "does not fit"),
    ("step", lambda e, k: one_term(step(e, k), e, k, 0), "the new sine lacks"),
    ("step", lambda e, k: one_term(step(e, k), e, k, 1), "the new cosine lacks"),
    ("step", lambda e, k: (step(e, k) + step(e, -k)) / 2, "both theorems lack"),
    (
        "step",
        lambda e, k: torch.stack([step(e, k)[:, 0::2], step(e, k)[:, 1::2]]).view(e.shape),
        "stacked in front",
    ),
    ("step", lambda e, k: step(torch.stack([e[:, ::2]] * 2, 2).flatten(1), k), "are read twice"),
    ("step", lambda e, k: step(e.unflatten(1, (-1, 2)).flip(-1).flatten(1), k), "are read from"),
    ("step", lambda e, k: step_at(e, k, lambda i, d: 10_000 ** (2 * i / d)), "k is multiplied"),
    (
        "step",
        lambda e, k: step_at(e, k, lambda i, d: 10_000.0 ** (-2 * i)),
        "not divided by d_model",
    ),
    ("step", lambda e, k: step_at(e, k, lambda i, d: omega(i / 2, d)), "counts the pairs"),
    ("step", lambda e, k: step_at(e, k, lambda i, d: omega(2 * i, d)), "doubled twice"),
    (
        "step",
        lambda e, k: torch.cat([step(e, k)[:, 0::2], step(e, k)[:, 1::2]], 1),
        "in the first half",
    ),
    (
        "step",
        lambda e, k: step(e, k).unflatten(1, (-1, 2))[..., [1, 0]].flatten(1),
        "sines and cosines have changed pl",
    ),
    ("step", lambda e, k: sinusoids(len(e), e.shape[1], first=k), "made anew"),
    ("step", lambda e, k: step(e, 1), "does not depend on k"),
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
    (
        "rotate",
        lambda x, p: torch.stack(rotate(x, p).chunk(2, 1), 2).reshape(x.shape),
        "laid out in turn",
    ),
    ("rotate", neighbours_then_halves, "neighbours are taken"),
    ("rotate", lambda x, p: half_of_each(x, p, -1, 1), "both sines are added"),
    ("rotate", lambda x, p: half_of_each(x, p, 1, -1), "both sines are subtracted"),
    ("rotate", lambda x, p: torch.cat(rotate(x, p).chunk(2, 1)[::-1], 1), "halves of the result"),
    ("rotate", lambda x, p: rotate(x, torch.tensor([1 + i for i in p.tolist()])), "one more than"),
    ("rotate", lambda x, p: rotate(x, p, frequency=lambda i, d: omega(i / 2, d)), "counts the pa"),
    ("rotate", lambda x, p: rotate(x, p, frequency=lambda i, d: omega(2 * i, d)), "doubled twice"),
    ("rotate", lambda x, p: rotate(x, p, frequency=lambda i, d: 10_000.0 ** (-2 * i)), "not div"),
    (
        "rotate",
        lambda x, p: rotate(x, p, frequency=lambda i, d: 10_000 ** (2 * i / d)),
        "is multiplied by 10000",
    ),
    ("rotate", lambda x, p: half_turned(x, p, 0), "the first partner's new value lacks"),
    ("rotate", lambda x, p: half_turned(x, p, 1), "the second partner's new value lacks"),
    ("rotate", lambda x, p: x.chunk(2, 1)[0] * torch.ones(x.shape), "does not fit"),
    ("rotate", lambda x, p: rotate(torch.cat(x.chunk(2, 1)[::-1], 1), p), "halves of x"),
    (
        "rotate",
        lambda x, p: torch.cat([-rotate(x, -p).chunk(2, 1)[1], rotate(x, -p).chunk(2, 1)[0]], 1),
        "of the angles have",
    ),
    ("rotate", lambda x, p: 1 * x, "nothing has turned"),
    ("rotate", cosines_only, "cosines alone"),
    ("rotate", lambda x, p: rotate(x, p, frequency=lambda i, d: 1.0), "by the same angle. Each"),
    ("alibi", lambda h, n: alibi(h, n).abs(), "sign is missing"),
    (
        "alibi",
        lambda h, n: alibi(h, n, distance=lambda m, k: m - k),
        "the query get a bonus. Take .",
    ),
    ("alibi", lambda h, n: alibi(h, n, distance=lambda m, k: k - m), "there is no minus"),
    ("alibi", one_sided, "masked with −inf"),
    (
        "alibi",
        lambda h, n: alibi(h, n, distance=lambda m, k: max(m - k, 0)),
        "after the query get no",
    ),
    (
        "alibi",
        lambda h, n: alibi(h, n, distance=lambda m, k: max(k - m, 0)),
        "before the query get no",
    ),
    ("alibi", lambda h, n: alibi(h, n, distance=lambda m, k: (m - k) ** 2), "is squared"),
    ("alibi", lambda h, n: alibi(h, n, slope=lambda i, h: 1), "there are no slopes"),
    ("alibi", lambda h, n: alibi(h, n, slope=lambda i, h: 2 ** (-8 * i - 8)), "256 times"),
    (
        "alibi",
        lambda h, n: alibi(h, n, slope=lambda i, h: 2 ** (-8 * (i + 1) / n)),
        "of tokens; it",
    ),
    ("alibi", lambda h, n: alibi(h, n, slope=lambda i, h: 2 ** -(i + 1)), "however many heads"),
    ("alibi", lambda h, n: alibi(h, n, slope=lambda i, h: 2 ** (8 / h * (i + 1))), "slopes grow"),
    ("alibi", lambda h, n: alibi(h, n, slope=lambda i, h: 2 ** (-8 / h)), "the same slope"),
    ("alibi", lambda h, n: alibi(h, n, slope=lambda i, h: 2 ** (-8 * i / h)), "start at 1"),
    ("alibi", lambda h, n: alibi(h, n, slope=lambda i, h: 2 ** (-8 * (h - i) / h)), "wrong order"),
    ("alibi", lambda h, n: alibi(h, n, slope=lambda i, h: (h - i) / h), "fall evenly"),
]
