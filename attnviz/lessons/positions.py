"""The exercises of lesson 03, with the mistakes that their checks recognise."""

from collections.abc import Callable

import torch
from torch import Tensor

from attnviz import layers
from attnviz.lessons.drawing import Draw, drawn
from attnviz.lessons.exercise import Exercise, Misconception


def _random(*shapes: tuple[int, ...]) -> tuple[Tensor, ...]:
    generator = torch.Generator().manual_seed(sum(map(sum, shapes)))
    return tuple(torch.randn(shape, generator=generator) for shape in shapes)


def _frequencies(d_model: int) -> Tensor:
    return 10_000.0 ** (-torch.arange(0, d_model, 2) / d_model)


def _sinusoids(n: int, d_model: int) -> Tensor:
    return _pairs(torch.arange(n)[:, None] * _frequencies(d_model))


def _with_frequencies(n: int, frequencies: Tensor) -> Tensor:
    return _pairs(torch.arange(n)[:, None] * frequencies)


def _pairs(angles: Tensor) -> Tensor:
    return torch.stack([angles.sin(), angles.cos()], -1).flatten(1)


def _halves(n: int, d: int) -> Tensor:
    return _apart(_sinusoids(n, d))


def _apart(rows: Tensor) -> Tensor:
    """The even places, then the odd ones."""
    return torch.cat([rows[:, 0::2], rows[:, 1::2]], -1)


def _reshaped(rows: Tensor) -> Tensor:
    """What becomes of the rows where their pairs are stacked in front."""
    return rows.unflatten(1, (-1, 2)).movedim(-1, 0).reshape(rows.shape)


def _swapped(rows: Tensor) -> Tensor:
    """The two of each pair, exchanged."""
    return rows.unflatten(1, (-1, 2)).flip(-1).flatten(1)


def _own_frequencies(n: int, d: int) -> Tensor:
    angles = torch.arange(n)[:, None] * 10_000.0 ** (-torch.arange(d) / d)
    even = torch.arange(d) % 2 == 0
    return torch.where(even, angles.sin(), angles.cos())


def _multiplied(n: int, d: int) -> Tensor:
    """In half precision, as float32 does not hold the sine of such an angle more exactly."""
    return _pairs(torch.arange(n)[:, None] / _frequencies(d).double()).bfloat16()


def _size(draw: Draw) -> tuple[int, int]:
    return draw.randint(1, 9), draw.choice([2, 4, 6, 10])


sinusoidal_positions = Exercise(
    name="sinusoidal_positions",
    reference=_sinusoids,
    cases=((12, 4), (2, 8), (3, 2), (1, 6), (60, 8), *drawn(8, _size)),
    misconceptions=(
        Misconception(
            "sines and cosines have changed places: the sine comes first, at the even places.",
            lambda n, d: _swapped(_sinusoids(n, d)),
        ),
        Misconception(
            "all sines stand in the first half and all cosines in the second. That works as well, "
            "but the paper's formula has them in turn: sin, cos, sin, cos. torch.stack(…, -1) "
            "makes pairs, and flatten(1) lays them side by side.",
            _halves,
        ),
        Misconception(
            "the sines and the cosines are stacked in front, and reshaping then fills the rows "
            "with what belongs to several positions. torch.stack(…, -1) makes pairs, and "
            "flatten(1) lays them side by side.",
            lambda n, d: _reshaped(_sinusoids(n, d)),
        ),
        Misconception(
            "both numbers of a pair are sines; the second is the cosine.",
            lambda n, d: _sinusoids(n, d)[:, 0::2].repeat_interleave(2, 1),
        ),
        Misconception(
            "both numbers of a pair are cosines; the first is the sine.",
            lambda n, d: _sinusoids(n, d)[:, 1::2].repeat_interleave(2, 1),
        ),
        Misconception(
            "the exponent counts the pairs as 0, 1, 2, … over d_model. It is 2i / d_model: "
            "torch.arange(0, d_model, 2) gives the 2i.",
            lambda n, d: _with_frequencies(n, 10_000.0 ** (-torch.arange(d // 2) / d)),
        ),
        Misconception(
            "the exponent is doubled twice: torch.arange(0, d_model, 2) is the 2i already. Divide "
            "it by d_model.",
            lambda n, d: _with_frequencies(n, _frequencies(d) ** 2),
        ),
        Misconception(
            "the exponent is not divided by d_model, so the waves get long much too fast. It is "
            "2i / d_model, which stays below 1.",
            lambda n, d: _with_frequencies(n, 10_000.0 ** -torch.arange(0, d, 2)),
        ),
        Misconception(
            "sine and cosine of a pair have different frequencies: each of the d_model places got "
            "its own. The two of a pair share one; only then is a step a rotation.",
            _own_frequencies,
        ),
        Misconception(
            "all pairs turn at the same speed, one radian a position. Each has a frequency of its "
            "own, 10000^(−2i/d_model).",
            lambda n, d: _with_frequencies(n, torch.ones(d // 2)),
        ),
        Misconception(
            "the position is multiplied by 10000^(2i/d_model); it is divided by it. The waves "
            "should get longer from pair to pair.",
            _multiplied,
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


def _turn(encoding: Tensor, k: int) -> Tensor:
    return _turned(encoding, k * _frequencies(encoding.size(1)))


def _turned(encoding: Tensor, angle: Tensor, signs: tuple[int, int] = (1, -1)) -> Tensor:
    """Both theorems, with the signs between their two terms."""
    sin, cos = encoding[:, 0::2], encoding[:, 1::2]
    later_sin = sin * angle.cos() + signs[0] * cos * angle.sin()
    later_cos = cos * angle.cos() + signs[1] * sin * angle.sin()
    return torch.stack([later_sin, later_cos], -1).flatten(1)


def _with_signs(*signs: int) -> Callable[[Tensor, int], Tensor]:
    return lambda encoding, k: _turned(encoding, k * _frequencies(encoding.size(1)), signs)


def _rows_case(draw: Draw) -> tuple[Tensor, int]:
    """The rows of positions that begin anywhere, in order or not."""
    n, d_model = draw.randint(1, 6), draw.choice([4, 6, 8, 10])
    first = draw.randint(1, 30)
    places = draw.choice([list(range(first, first + n)), draw.sample(range(40), n)])
    return _sinusoids(max(places) + 1, d_model)[places], draw.choice([1, 2, 4, 9, 25])


step = Exercise(
    name="step",
    reference=_turn,
    cases=(
        (_sinusoids(10, 8), 3),
        (_sinusoids(5, 4), 7),
        (_sinusoids(4, 6), 0),
        (_sinusoids(9, 6)[5:], 2),
        (_sinusoids(16, 10)[[11, 3, 15, 3]], 40),
        *drawn(8, _rows_case),
    ),
    misconceptions=(
        Misconception(
            "the rotation goes the wrong way round: this is k positions back. Look at the signs in "
            "the addition theorems.",
            lambda encoding, k: _turn(encoding, -k),
        ),
        Misconception(
            "every pair is turned by the same angle, k. Each has a frequency of its own: the angle "
            "is k · ω.",
            lambda encoding, k: _turned(encoding, torch.tensor(float(k))),
        ),
        Misconception(
            "both terms have the same sign. The cosine's new value has a minus: "
            "cos(a + b) = cos a cos b − sin a sin b.",
            _with_signs(1, 1),
        ),
        Misconception(
            "there is a minus in both theorems. The sine's new value has a plus: "
            "sin(a + b) = sin a cos b + cos a sin b.",
            _with_signs(-1, -1),
        ),
        Misconception(
            "what is multiplied does not fit: one of the two has d_model columns, the other half "
            "as many. There are d_model / 2 pairs, each with one sine, one cosine and one angle.",
            lambda encoding, k: encoding[:, 0::2] * torch.arange(encoding.size(1)),
        ),
        Misconception(
            "sine and cosine of the angle have changed places: sin(a + b) = sin a cos b + "
            "cos a sin b, where b is the angle.",
            lambda encoding, k: _turned(
                encoding, torch.pi / 2 - k * _frequencies(encoding.size(1))
            ),
        ),
        Misconception(
            "the new sine lacks its second term, cos a sin b: "
            "sin(a + b) = sin a cos b + cos a sin b.",
            _with_signs(0, -1),
        ),
        Misconception(
            "the new cosine lacks its second term, sin a sin b: "
            "cos(a + b) = cos a cos b − sin a sin b.",
            _with_signs(1, 0),
        ),
        Misconception(
            "both theorems lack their second term: the encoding is multiplied by cosines alone, "
            "which makes its pairs shorter than 1.",
            _with_signs(0, 0),
        ),
        Misconception(
            "the new sines and cosines are stacked in front, and reshaping then fills the rows "
            "with what belongs to several positions. torch.stack(…, -1) makes pairs, and "
            "flatten(1) lays them side by side.",
            lambda encoding, k: _reshaped(_turn(encoding, k)),
        ),
        Misconception(
            "the sines are read twice, and the cosines not at all: encoding[:, 1::2].",
            lambda encoding, k: _turn(encoding[:, 0::2].repeat_interleave(2, 1), k),
        ),
        Misconception(
            "sines and cosines are read from each other's places: the sine comes first in a pair, "
            "encoding[:, 0::2].",
            lambda encoding, k: _turn(_swapped(encoding), k),
        ),
        Misconception(
            "k is multiplied by 10000^(2i/d_model); it is divided by it. The frequencies should "
            "fall from pair to pair.",
            lambda encoding, k: _turned(
                encoding.double(), k / _frequencies(encoding.size(1)).double()
            ).bfloat16(),
        ),
        Misconception(
            "the exponent of the frequencies is not divided by d_model. It is 2i / d_model, which "
            "stays below 1.",
            lambda encoding, k: _turned(
                encoding, k * 10_000.0 ** -torch.arange(0, encoding.size(1), 2)
            ),
        ),
        Misconception(
            "the exponent counts the pairs as 0, 1, 2, … over d_model. It is 2i / d_model: "
            "torch.arange(0, d_model, 2) gives the 2i.",
            lambda encoding, k: _turned(encoding, k * _frequencies(encoding.size(1)).sqrt()),
        ),
        Misconception(
            "the exponent is doubled twice: torch.arange(0, d_model, 2) is the 2i already. Divide "
            "it by d_model.",
            lambda encoding, k: _turned(encoding, k * _frequencies(encoding.size(1)).square()),
        ),
        Misconception(
            "the new sines stand in the first half and the new cosines in the second. They belong "
            "in turn, as they came: torch.stack(…, -1), then flatten(1).",
            lambda encoding, k: _apart(_turn(encoding, k)),
        ),
        Misconception(
            "the new sines and cosines have changed places: the sine comes first in a pair.",
            lambda encoding, k: _swapped(_turn(encoding, k)),
        ),
        Misconception(
            "these are the encodings of the positions k, k + 1, …, made anew, as though the rows "
            "began at position 0. They may begin anywhere: turn the rows that are given.",
            lambda encoding, k: _sinusoids(len(encoding) + k, encoding.size(1))[k:],
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


def _rotated(x: Tensor, positions: Tensor) -> Tensor:
    return _rotated_by(x, positions[:, None] * _frequencies(x.size(1)))


def _rotated_by(x: Tensor, angles: Tensor, signs: tuple[int, int] = (-1, 1)) -> Tensor:
    """By angles, (token, d_k / 2), with the signs of the two sines."""
    first, second = x.chunk(2, -1)
    cos, sin = angles.cos(), angles.sin()
    turned = first * cos + signs[0] * second * sin, signs[1] * first * sin + second * cos
    return torch.cat(turned, -1)


def _rotated_with_signs(*signs: int) -> Callable[[Tensor, Tensor], Tensor]:
    return lambda x, positions: _rotated_by(x, positions[:, None] * _frequencies(x.size(1)), signs)


def _in_turn(x: Tensor) -> Tensor:
    """What stands in two halves, laid out as neighbours: the opposite of `_apart`."""
    return x.unflatten(-1, (2, -1)).mT.flatten(-2)


def _vectors_case(draw: Draw) -> tuple[Tensor, Tensor]:
    """Vectors at positions that begin anywhere, or are in no order."""
    n, first = draw.randint(1, 6), draw.randint(0, 30)
    positions = draw.choice([torch.arange(first, first + n), draw.ids(n, among=range(60))])
    return draw.tensor(n, draw.choice([4, 6, 8, 10])), positions


rotate = Exercise(
    name="rotate",
    reference=_rotated,
    cases=(
        (*_random((6, 8)), torch.arange(6)),
        (*_random((4, 4)), torch.tensor([5, 0, 2, 9])),
        (*_random((3, 6)), torch.tensor([40, 40, 41])),
        (*_random((1, 4)), torch.tensor([7])),
        *drawn(8, _vectors_case),
    ),
    misconceptions=(
        Misconception(
            "the pairs are neighbours, (0, 1), (2, 3), …, as in the first paper. Here, as in Llama "
            "and in our layers, place i is paired with place i + d_k / 2: x.chunk(2, -1). Mixing "
            "up the two is how weights get loaded wrongly.",
            lambda x, positions: _in_turn(_rotated(_apart(x), positions)),
        ),
        Misconception(
            "the turned halves are laid out in turn, a pair side by side. Each belongs where it "
            "came from: torch.cat, the first partners and then the second ones.",
            lambda x, positions: _in_turn(_rotated(x, positions)),
        ),
        Misconception(
            "neighbours are taken as pairs, and then all first partners are put before all second "
            "ones. Place i is paired with place i + d_k / 2: x.chunk(2, -1).",
            lambda x, positions: _rotated(_apart(x), positions),
        ),
        Misconception(
            "it turns the wrong way round: first · cos − second · sin comes first.",
            lambda x, positions: _rotated(x, -positions),
        ),
        Misconception(
            "both sines are added. The first partner's new value has a minus: "
            "first · cos − second · sin.",
            _rotated_with_signs(1, 1),
        ),
        Misconception(
            "both sines are subtracted. The second partner's new value has a plus: "
            "first · sin + second · cos.",
            _rotated_with_signs(-1, -1),
        ),
        Misconception(
            "what is multiplied does not fit: one of the two has d_k columns, the other half as "
            "many. There are d_k / 2 pairs, each with two partners and one angle.",
            lambda x, positions: x * _frequencies(x.size(1)),
        ),
        Misconception(
            "the halves of x have changed places: the first partners come first, x.chunk(2, -1).",
            lambda x, positions: _rotated(x.roll(x.size(1) // 2, -1), positions),
        ),
        Misconception(
            "sine and cosine of the angles have changed places: first · cos − second · sin comes "
            "first.",
            lambda x, positions: _rotated_by(
                x, torch.pi / 2 - positions[:, None] * _frequencies(x.size(1))
            ),
        ),
        Misconception(
            "the first partner's new value lacks its second term: first · cos − second · sin.",
            _rotated_with_signs(0, 1),
        ),
        Misconception(
            "the second partner's new value lacks its first term: first · sin + second · cos.",
            _rotated_with_signs(-1, 0),
        ),
        Misconception(
            "the two halves of the result have changed places: first · cos − second · sin comes "
            "first.",
            lambda x, positions: _rotated(x, positions).roll(x.size(1) // 2, -1),
        ),
        Misconception(
            "the positions are taken as 0, 1, 2, …; use the ones that are given, as a piece of a "
            "sequence may start anywhere.",
            lambda x, positions: _rotated(x, torch.arange(len(x))),
        ),
        Misconception(
            "every token is turned by one more than its position; the angle is ω · position, with "
            "the positions as they are given.",
            lambda x, positions: _rotated(x, positions + 1),
        ),
        Misconception(
            "the sinusoids are added to x. Rotary positions turn it, so that its length stays.",
            lambda x, positions: x + _sinusoids(int(positions.max()) + 1, x.size(1))[positions],
        ),
        Misconception(
            "x is multiplied by the cosines alone; without the sines that is no rotation, and "
            "vectors get shorter.",
            _rotated_with_signs(0, 0),
        ),
        Misconception(
            "every pair is turned by the same angle. Each has a frequency of its own.",
            lambda x, positions: _rotated_by(x, positions[:, None].float()),
        ),
        Misconception(
            "the exponent counts the pairs as 0, 1, 2, … over d_k. It is 2i / d_k: "
            "torch.arange(0, d_k, 2) gives the 2i.",
            lambda x, positions: _rotated_by(
                x, positions[:, None] * _frequencies(x.size(1)).sqrt()
            ),
        ),
        Misconception(
            "the exponent is doubled twice: torch.arange(0, d_k, 2) is the 2i already. Divide it "
            "by d_k.",
            lambda x, positions: _rotated_by(
                x, positions[:, None] * _frequencies(x.size(1)).square()
            ),
        ),
        Misconception(
            "the exponent is not divided by d_k. It is 2i / d_k, which stays below 1.",
            lambda x, positions: _rotated_by(
                x, positions[:, None] * 10_000.0 ** -torch.arange(0, x.size(1), 2)
            ),
        ),
        Misconception(
            "the position is multiplied by 10000^(2i/d_k); it is divided by it. The frequencies "
            "should fall from pair to pair.",
            lambda x, positions: _rotated_by(
                x.double(), positions[:, None] / _frequencies(x.size(1)).double()
            ).bfloat16(),
        ),
        Misconception("nothing has turned: x came back as it was.", lambda x, positions: x),
    ),
    first_step="angles = positions[:, None] * frequencies, then first, second = x.chunk(2, -1).",
)


def _alibi(n_heads: int, n: int) -> Tensor:
    return layers.alibi(n_heads, n)


def _slopes(n_heads: int) -> Tensor:
    return 2.0 ** (-8 / n_heads * torch.arange(1, n_heads + 1))[:, None, None]


def _distances(n: int) -> Tensor:
    """Of each query from each key, with its sign: positive for the keys before it."""
    return torch.arange(n)[:, None] - torch.arange(n)


def _instead_of_slopes(h: int, n: int, numbers: Tensor) -> Tensor:
    return -numbers[:, None, None] * _distances(n).abs()


def _causal(h: int, n: int) -> Tensor:
    return _alibi(h, n).masked_fill(_distances(n) < 0, -torch.inf)


def _heads(draw: Draw) -> tuple[int, int]:
    return draw.choice([1, 2, 4, 8, 16]), draw.choice([2, 3, 5, 7, 9])


alibi = Exercise(
    name="alibi",
    reference=_alibi,
    cases=((4, 6), (2, 3), (8, 5), (16, 4), (1, 7), (4, 1), *drawn(6, _heads)),
    misconceptions=(
        Misconception(
            "the sign is missing: a penalty is negative, or the farthest tokens would get most.",
            lambda h, n: -_alibi(h, n),
        ),
        Misconception(
            "the distance has kept its sign, so that keys after the query get a bonus. Take "
            ".abs(): further away is further away.",
            lambda h, n: -_slopes(h) * _distances(n),
        ),
        Misconception(
            "the distance has kept its sign and there is no minus, so that keys before the query "
            "get a bonus. Take −slope times .abs().",
            lambda h, n: _slopes(h) * _distances(n),
        ),
        Misconception(
            "keys after the query are masked with −inf. This ALiBi is for attention in both "
            "directions: they get a penalty for their distance, like those before it.",
            _causal,
        ),
        Misconception(
            "keys after the query get no penalty. This ALiBi is for attention in both directions: "
            "take .abs() of the distance.",
            lambda h, n: -_slopes(h) * _distances(n).relu(),
        ),
        Misconception(
            "keys before the query get no penalty. Take .abs() of the distance: it counts in both "
            "directions.",
            lambda h, n: -_slopes(h) * _distances(n).neg().relu(),
        ),
        Misconception(
            "the distance is squared; the penalty grows evenly with it: .abs().",
            lambda h, n: -_slopes(h) * _distances(n).square(),
        ),
        Misconception(
            "all heads have the same slope. They should differ, so that some look near and some "
            "far.",
            lambda h, n: _alibi(h, n)[:1].expand(h, -1, -1),
        ),
        Misconception(
            "there are no slopes: every head gets the bare distance. Multiply it by 2^(−8h/H), "
            "another number for each head.",
            lambda h, n: _instead_of_slopes(h, n, torch.ones(h)),
        ),
        Misconception(
            "the slopes are 2^(−h) however many heads there are, so that with few of them none is "
            "flat. They are 2^(−8h/H), with H heads.",
            lambda h, n: _instead_of_slopes(h, n, 2.0 ** -torch.arange(1, h + 1)),
        ),
        Misconception(
            "the exponent −8h is not divided by the number of heads, so each head is 256 times "
            "flatter than the one before. The slopes are 2^(−8h/H), with H heads.",
            lambda h, n: _instead_of_slopes(h, n, 2.0 ** (-8 * torch.arange(1, h + 1))),
        ),
        Misconception(
            "the exponent −8h is divided by the number of tokens; it is divided by the number of "
            "heads: 2^(−8h/H), with H heads.",
            lambda h, n: _instead_of_slopes(h, n, 2.0 ** (-8 / n * torch.arange(1, h + 1))),
        ),
        Misconception(
            "the slopes start at 1 (exponent 0); the first is 2^(−8/H), with H heads.",
            lambda h, n: _alibi(h, n) * 2 ** (8 / h),
        ),
        Misconception(
            "the slopes grow from head to head: the exponent is negative, −8h/H.",
            lambda h, n: _instead_of_slopes(h, n, 1 / _slopes(h).flatten()),
        ),
        Misconception(
            "the slopes are in the wrong order: the first head is the steepest.",
            lambda h, n: _alibi(h, n).flip(0),
        ),
        Misconception(
            "the slopes fall evenly (1/h, 2/h, …); they are powers of two, each head as many "
            "times flatter than the one before.",
            lambda h, n: _instead_of_slopes(h, n, torch.arange(h, 0, -1) / h),
        ),
    ),
    first_step="The distance first: (torch.arange(n)[:, None] - torch.arange(n)).abs().",
)
