"""The exercises of lesson 03, with the mistakes that their checks recognise."""

import torch
from torch import Tensor

from attnviz import layers
from attnviz.lessons.exercise import Exercise, Misconception


def _random(*shapes: tuple[int, ...]) -> tuple[Tensor, ...]:
    generator = torch.Generator().manual_seed(sum(map(sum, shapes)))
    return tuple(torch.randn(shape, generator=generator) for shape in shapes)


def _frequencies(d: int) -> Tensor:
    return 10_000.0 ** (-torch.arange(0, d, 2) / d)


def _sinusoids(n: int, d: int, angles: Tensor | None = None) -> Tensor:
    angles = torch.arange(n)[:, None] * _frequencies(d) if angles is None else angles
    return torch.stack([angles.sin(), angles.cos()], -1).flatten(1)


def _halves(n: int, d: int) -> Tensor:
    angles = torch.arange(n)[:, None] * _frequencies(d)
    return torch.cat([angles.sin(), angles.cos()], -1)


sinusoidal_positions = Exercise(
    name="sinusoidal_positions",
    reference=_sinusoids,
    cases=((12, 4), (2, 8), (3, 2)),
    misconceptions=(
        Misconception(
            "sines and cosines have changed places: the sine comes first, at the even places.",
            lambda n, d: _sinusoids(n, d).unflatten(1, (-1, 2)).flip(-1).flatten(1),
        ),
        Misconception(
            "all sines stand in the first half and all cosines in the second. That works as well, "
            "but the paper's formula has them in turn: sin, cos, sin, cos. torch.stack(…, -1) "
            "makes pairs, and flatten(1) lays them side by side.",
            _halves,
        ),
        Misconception(
            "the exponent counts the pairs as 0, 1, 2, … over d_model. It is 2i / d_model: "
            "torch.arange(0, d_model, 2) gives the 2i.",
            lambda n, d: _sinusoids(
                n, d, torch.arange(n)[:, None] * 10_000.0 ** (-torch.arange(d // 2) / d)
            ),
        ),
        Misconception(
            "sine and cosine of a pair have different frequencies: each of the d_model places got "
            "its own. The two of a pair share one; only then is a step a rotation.",
            lambda n, d: _own_frequencies(n, d),
        ),
        Misconception(
            "the position is multiplied by 10000^(2i/d_model); it is divided by it. The waves "
            "should get longer from pair to pair.",
            lambda n, d: _sinusoids(n, d, torch.arange(n)[:, None] / _frequencies(d)),
        ),
        Misconception(
            "positions count from 1; the first token stands at position 0.",
            lambda n, d: _sinusoids(n + 1, d)[1:],
        ),
        Misconception(
            "this is the transposed matrix: one row for each position, (n, d_model).",
            lambda n, d: _sinusoids(n, d).T,
        ),
    ),
    first_step="Start with the angles: torch.arange(n)[:, None] / 10_000 ** (…), (n, d_model / 2).",
)


def _own_frequencies(n: int, d: int) -> Tensor:
    angles = torch.arange(n)[:, None] * 10_000.0 ** (-torch.arange(d) / d)
    even = torch.arange(d) % 2 == 0
    return torch.where(even, angles.sin(), angles.cos())


def _turn(encoding: Tensor, k: int, sign: int = 1) -> Tensor:
    angle = sign * k * _frequencies(encoding.size(1))  # (d / 2,)
    sin, cos = encoding[:, 0::2], encoding[:, 1::2]
    return torch.stack(
        [sin * angle.cos() + cos * angle.sin(), cos * angle.cos() - sin * angle.sin()], -1
    ).flatten(1)


step = Exercise(
    name="step",
    reference=_turn,
    cases=((_sinusoids(10, 8), 3), (_sinusoids(5, 4), 7), (_sinusoids(4, 6), 0)),
    misconceptions=(
        Misconception(
            "the rotation goes the wrong way round: this is k positions back. Look at the signs in "
            "the addition theorems.",
            lambda encoding, k: _turn(encoding, k, -1),
        ),
        Misconception(
            "every pair is turned by the same angle, k. Each has a frequency of its own: the angle "
            "is k · ω.",
            lambda encoding, k: _turn_alike(encoding, k),
        ),
        Misconception(
            "both terms have the same sign. The cosine's new value has a minus: "
            "cos(a + b) = cos a cos b − sin a sin b.",
            lambda encoding, k: _same_signs(encoding, k),
        ),
        Misconception(
            "the encodings are added up instead of turned; the sum is no encoding of any position "
            "(its pairs no longer have length 1).",
            lambda encoding, k: encoding + _sinusoids(k + 1, encoding.size(1))[k],
        ),
        Misconception(
            "the rows are moved, which loses those at the end. Compute each new row from the old "
            "one alone.",
            lambda encoding, k: encoding.roll(-k, 0),
        ),
        Misconception("nothing has moved.", lambda encoding, k: encoding),
    ),
    first_step="sin, cos = encoding[:, 0::2], encoding[:, 1::2]; then the two addition theorems.",
)


def _turn_alike(encoding: Tensor, k: int) -> Tensor:
    angle = torch.tensor(float(k))
    sin, cos = encoding[:, 0::2], encoding[:, 1::2]
    return torch.stack(
        [sin * angle.cos() + cos * angle.sin(), cos * angle.cos() - sin * angle.sin()], -1
    ).flatten(1)


def _same_signs(encoding: Tensor, k: int) -> Tensor:
    angle = k * _frequencies(encoding.size(1))
    sin, cos = encoding[:, 0::2], encoding[:, 1::2]
    return torch.stack(
        [sin * angle.cos() + cos * angle.sin(), cos * angle.cos() + sin * angle.sin()], -1
    ).flatten(1)


def _rotated(x: Tensor, positions: Tensor, sign: int = 1) -> Tensor:
    angles = sign * positions[:, None] * _frequencies(x.size(1))
    cos, sin = angles.cos(), angles.sin()
    first, second = x.chunk(2, -1)
    return torch.cat([first * cos - second * sin, first * sin + second * cos], -1)


def _interleaved(x: Tensor, positions: Tensor) -> Tensor:
    angles = positions[:, None] * _frequencies(x.size(1))
    first, second = x[:, 0::2], x[:, 1::2]
    turned = (
        first * angles.cos() - second * angles.sin(),
        first * angles.sin() + second * angles.cos(),
    )
    return torch.stack(turned, -1).flatten(1)


rotate = Exercise(
    name="rotate",
    reference=_rotated,
    cases=(
        (*_random((6, 8)), torch.arange(6)),
        (*_random((4, 4)), torch.tensor([5, 0, 2, 9])),
    ),
    misconceptions=(
        Misconception(
            "the pairs are neighbours, (0, 1), (2, 3), …, as in the first paper. Here, as in Llama "
            "and in our layers, place i is paired with place i + d_k / 2: x.chunk(2, -1). Mixing "
            "up the two is how weights get loaded wrongly.",
            _interleaved,
        ),
        Misconception(
            "it turns the wrong way round: first · cos − second · sin comes first.",
            lambda x, positions: _rotated(x, positions, -1),
        ),
        Misconception(
            "the positions are taken as 0, 1, 2, …; use the ones that are given, as a piece of a "
            "sequence may start anywhere.",
            lambda x, positions: _rotated(x, torch.arange(len(x))),
        ),
        Misconception(
            "the sinusoids are added to x. Rotary positions turn it, so that its length stays.",
            lambda x, positions: x + _sinusoids(int(positions.max()) + 1, x.size(1))[positions],
        ),
        Misconception(
            "x is multiplied by the cosines alone; without the sines that is no rotation, and "
            "vectors get shorter.",
            lambda x, positions: x * (positions[:, None] * _frequencies(x.size(1)).repeat(2)).cos(),
        ),
        Misconception(
            "every pair is turned by the same angle. Each has a frequency of its own.",
            lambda x, positions: _rotated_alike(x, positions),
        ),
    ),
    first_step="angles = positions[:, None] * frequencies, then first, second = x.chunk(2, -1).",
)


def _rotated_alike(x: Tensor, positions: Tensor) -> Tensor:
    angles = positions[:, None].float()
    first, second = x.chunk(2, -1)
    turned = (
        first * angles.cos() - second * angles.sin(),
        first * angles.sin() + second * angles.cos(),
    )
    return torch.cat(turned, -1)


def _slopes(n_heads: int) -> Tensor:
    return 2.0 ** (-8 / n_heads * torch.arange(1, n_heads + 1))[:, None, None]


alibi = Exercise(
    name="alibi",
    reference=layers.alibi,
    cases=((4, 6), (2, 3), (8, 5)),
    misconceptions=(
        Misconception(
            "the sign is missing: a penalty is negative, or the farthest tokens would get most.",
            lambda h, n: -layers.alibi(h, n),
        ),
        Misconception(
            "the distance has kept its sign, so that keys after the query get a bonus. Take "
            ".abs(): further away is further away.",
            lambda h, n: _slopes(h) * (torch.arange(n) - torch.arange(n)[:, None]),
        ),
        Misconception(
            "all heads have the same slope. They should differ, so that some look near and some "
            "far.",
            lambda h, n: layers.alibi(h, n)[:1].expand(h, -1, -1),
        ),
        Misconception(
            "the slopes start at 1 (exponent 0); the first is 2^(−8/h).",
            lambda h, n: layers.alibi(h, n) * 2 ** (8 / h),
        ),
        Misconception(
            "the slopes are in the wrong order: the first head is the steepest.",
            lambda h, n: layers.alibi(h, n).flip(0),
        ),
        Misconception(
            "the slopes fall evenly (1/h, 2/h, …); they are powers of two, each head as many "
            "times flatter than the one before.",
            lambda h, n: (
                layers.alibi(h, n) / _slopes(h) * (torch.arange(h, 0, -1) / h)[:, None, None]
            ),
        ),
    ),
    first_step="The distance first: (torch.arange(n)[:, None] - torch.arange(n)).abs().",
)
