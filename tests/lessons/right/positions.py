"""Right answers to the exercises of lesson 03 in several styles, and inputs to judge others on."""

import math

import numpy as np
import torch
from torch import Tensor

from attnviz.lessons.drawing import Draw


def sinusoidal_by_steps(n: int, d_model: int) -> Tensor:
    exponents = torch.arange(0, d_model, 2) / d_model
    angles = torch.arange(n).unsqueeze(1) / 10_000.0**exponents
    pairs = torch.stack([torch.sin(angles), torch.cos(angles)], dim=-1)
    return pairs.reshape(n, d_model)


def sinusoidal_in_slices(n: int, d_model: int) -> Tensor:
    table = torch.zeros(n, d_model)
    omega = torch.exp(torch.arange(0, d_model, 2) * (-math.log(10_000) / d_model))
    table[:, 0::2] = torch.sin(torch.arange(n)[:, None] * omega)
    table[:, 1::2] = torch.cos(torch.arange(n)[:, None] * omega)
    return table


def sinusoidal_by_loops(n: int, d_model: int) -> list[list[float]]:
    rows = []
    for p in range(n):
        row = []
        for i in range(d_model // 2):
            angle = p / 10_000 ** (2 * i / d_model)
            row += [math.sin(angle), math.cos(angle)]
        rows.append(row)
    return rows


def sinusoidal_in_numpy(n: int, d_model: int) -> np.ndarray:
    pair = np.arange(d_model) // 2
    angles = np.outer(np.arange(n), 10_000.0 ** (-2 * pair / d_model))
    return np.where(np.arange(d_model) % 2 == 0, np.sin(angles), np.cos(angles))


def sinusoidal_by_turning(n: int, d_model: int) -> Tensor:
    """Every row is the one before it, turned by the frequencies."""
    omega = 10_000.0 ** (-torch.arange(0, d_model, 2).double() / d_model)
    sin, cos = torch.zeros_like(omega), torch.ones_like(omega)
    rows = []
    for _ in range(n):
        rows.append(torch.stack([sin, cos], 1).flatten())
        sin, cos = (
            sin * omega.cos() + cos * omega.sin(),
            cos * omega.cos() - sin * omega.sin(),
        )
    return torch.stack(rows)


def sinusoidal_in_half_precision(n: int, d_model: int) -> Tensor:
    omega = 10_000.0 ** (-torch.arange(0, d_model, 2) / d_model)
    angles = torch.einsum("p,i->pi", torch.arange(n).float(), omega)
    return torch.stack([angles.sin(), angles.cos()], 2).flatten(1).half()


def step_by_theorems(encoding: Tensor, k: int) -> Tensor:
    d_model = encoding.size(1)
    angle = k * 10_000.0 ** (-torch.arange(0, d_model, 2) / d_model)
    sin, cos = encoding[:, 0::2], encoding[:, 1::2]
    later = torch.empty_like(encoding)
    later[:, 0::2] = sin * torch.cos(angle) + cos * torch.sin(angle)
    later[:, 1::2] = cos * torch.cos(angle) - sin * torch.sin(angle)
    return later


def step_by_matrices(encoding: Tensor, k: int) -> Tensor:
    """One rotation matrix for each pair."""
    pairs = encoding.unflatten(1, (-1, 2))
    n_pairs = pairs.size(1)
    angle = k / 10_000.0 ** (torch.arange(n_pairs) / n_pairs)
    sin, cos = angle.sin(), angle.cos()
    turns = torch.stack([torch.stack([cos, sin], -1), torch.stack([-sin, cos], -1)], -2)
    return torch.einsum("iab,pib->pia", turns, pairs).flatten(1)


def step_by_angles(encoding: Tensor, k: int) -> np.ndarray:
    """Reads the angles from the hands, and moves them on."""
    rows = encoding.numpy()
    d_model = rows.shape[1]
    angles = np.arctan2(rows[:, 0::2], rows[:, 1::2])
    angles = angles + k * 10_000.0 ** (-np.arange(0, d_model, 2) / d_model)
    return np.dstack([np.sin(angles), np.cos(angles)]).reshape(rows.shape)


def step_by_complex_numbers(encoding: Tensor, k: int) -> Tensor:
    d_model = encoding.size(1)
    omega = 10_000.0 ** (-torch.arange(0, d_model, 2) / d_model)
    hands = torch.complex(encoding[:, 1::2], encoding[:, 0::2])
    hands = hands * torch.exp(1j * k * omega)
    return torch.stack([hands.imag, hands.real], -1).flatten(1)


def step_one_by_one(encoding: Tensor, k: int) -> Tensor:
    """Turns the hands k times by one position."""
    even = torch.arange(0, encoding.size(1), 2)
    omega = torch.exp(even * -math.log(10_000) / encoding.size(1))
    hands = torch.view_as_complex(encoding.unflatten(1, (-1, 2)).contiguous())
    for _ in range(k):  # the real part is the sine, so it turns clockwise
        hands = hands * torch.exp(-1j * omega)
    return torch.view_as_real(hands).flatten(1)


def step_in_half_precision(encoding: Tensor, k: int) -> Tensor:
    n_pairs = encoding.size(1) // 2
    angle = k * torch.logspace(0, -4, n_pairs + 1)[:n_pairs]
    sin, cos = encoding.unflatten(1, (n_pairs, 2)).unbind(-1)
    hands = torch.complex(cos, sin) * torch.polar(torch.ones(n_pairs), angle)
    return torch.stack([hands.imag, hands.real], -1).reshape(encoding.shape).half()


def rotate_by_halves(x: Tensor, positions: Tensor) -> Tensor:
    d_k = x.size(-1)
    omega = 10_000.0 ** (-torch.arange(0, d_k, 2) / d_k)
    angles = positions.unsqueeze(-1) * omega
    first, second = x[:, : d_k // 2], x[:, d_k // 2 :]
    new_first = first * angles.cos() - second * angles.sin()
    new_second = first * angles.sin() + second * angles.cos()
    return torch.cat([new_first, new_second], dim=-1)


def rotate_as_in_llama(x: Tensor, positions: Tensor) -> Tensor:
    """x times the cosines, plus the swapped halves times the sines."""
    first, second = x.chunk(2, -1)
    n_pairs = first.size(1)
    angles = positions[:, None] / 10_000.0 ** (torch.arange(n_pairs) / n_pairs)
    angles = torch.cat([angles, angles], -1)
    return x * angles.cos() + torch.cat([-second, first], -1) * angles.sin()


def rotate_by_loops(x: Tensor, positions: Tensor) -> Tensor:
    half = x.size(1) // 2
    turned = x.clone()
    for t in range(len(x)):
        for i in range(half):
            angle = positions[t].item() / 10_000 ** (i / half)
            a, b = x[t, i].item(), x[t, i + half].item()
            turned[t, i] = a * math.cos(angle) - b * math.sin(angle)
            turned[t, i + half] = a * math.sin(angle) + b * math.cos(angle)
    return turned


def rotate_by_complex_numbers(x: Tensor, positions: Tensor) -> Tensor:
    first, second = x.chunk(2, -1)
    omega = 10_000.0 ** (-torch.arange(0, x.size(1), 2) / x.size(1))
    angles = torch.outer(positions.float(), omega)
    turned = torch.complex(first, second) * torch.polar(torch.ones_like(angles), angles)
    return torch.cat([turned.real, turned.imag], -1)


def rotate_in_numpy(x: Tensor, positions: Tensor) -> np.ndarray:
    first, second = np.split(x.numpy(), 2, axis=-1)
    exponents = np.arange(first.shape[1]) / first.shape[1]
    angles = positions.numpy()[:, None] * np.power(10_000.0, -exponents)
    return np.concatenate(
        [
            first * np.cos(angles) - second * np.sin(angles),
            first * np.sin(angles) + second * np.cos(angles),
        ],
        axis=-1,
    )


def rotate_in_half_precision(x: Tensor, positions: Tensor) -> Tensor:
    """One rotation matrix for each token and pair."""
    omega = 10_000.0 ** (-torch.arange(0, x.size(1), 2) / x.size(1))
    angles = torch.einsum("t,i->ti", positions.float(), omega)
    sin, cos = angles.sin(), angles.cos()
    turns = torch.stack([torch.stack([cos, sin]), torch.stack([-sin, cos])])
    return torch.einsum("abti,tai->tbi", turns, x.unflatten(1, (2, -1))).flatten(1).half()


def alibi_by_broadcasting(n_heads: int, n: int) -> Tensor:
    places = torch.arange(n)
    distance = (places.view(-1, 1) - places.view(1, -1)).abs()
    slopes = 2.0 ** (-8 * torch.arange(1, n_heads + 1) / n_heads)
    return -slopes.view(-1, 1, 1) * distance


def alibi_by_loops(n_heads: int, n: int) -> list[list[list[float]]]:
    heads = []
    for h in range(n_heads):
        slope = 2 ** (-8 * (h + 1) / n_heads)
        heads.append([[-slope * abs(m - k) for k in range(n)] for m in range(n)])
    return heads


def alibi_in_numpy(n_heads: int, n: int) -> np.ndarray:
    m, k = np.indices((n, n))
    slopes = np.exp2(-8 * np.arange(1, n_heads + 1) / n_heads)
    return np.minimum(m - k, k - m) * slopes[:, None, None]


def alibi_by_ratio(n_heads: int, n: int) -> Tensor:
    """Each head is as many times flatter than the one before."""
    ratio = 2 ** (-8 / n_heads)
    row = torch.arange(n)
    head = -(row[None, :] - row[:, None]).abs().double()
    heads = []
    for _ in range(n_heads):
        head = head * ratio
        heads.append(head)
    return torch.stack(heads)


def alibi_by_einsum(n_heads: int, n: int) -> Tensor:
    one_side = torch.tril(torch.arange(n)[None, :] - torch.arange(n)[:, None])
    penalty = (one_side + one_side.T).float()
    slopes = torch.logspace(-8 / n_heads, -8, n_heads, base=2)
    return torch.einsum("h,mk->hmk", slopes, penalty)


def alibi_in_half_precision(n_heads: int, n: int) -> Tensor:
    slopes = 2.0 ** (-8 / n_heads * torch.arange(1, n_heads + 1))
    distance = (torch.arange(n)[:, None] - torch.arange(n)).abs()
    return (-slopes[:, None, None] * distance).half()


def _even(draw: Draw) -> int:
    return draw.choice([2, 4, 6, 8, 10, 16, 22])


def _size(draw: Draw) -> tuple[int, int]:
    """Few rows of many frequencies, or many rows of few."""
    few = draw.choice([1, 2, 3, 5, 9]), _even(draw)
    return draw.choice([few, few, (draw.choice([40, 60]), draw.choice([4, 8, 10]))])


def _encoding(draw: Draw) -> tuple[Tensor, int]:
    """The rows of some positions, in order or not."""
    d_model, first = draw.choice([4, 6, 8, 10, 16]), draw.randrange(60)
    positions = range(first, first + draw.choice([1, 2, 3, 7]))
    if draw.random() < 0.3:
        positions = draw.choices(range(80), k=draw.choice([2, 4, 5]))
    rows = [sinusoidal_by_loops(p + 1, d_model)[-1] for p in positions]
    return torch.tensor(rows), draw.choice([0, 1, 2, 5, 30])


def _vectors(draw: Draw) -> tuple[Tensor, Tensor]:
    n, first = draw.choice([1, 2, 3, 5, 7]), draw.randrange(50)
    positions = draw.choice(
        [
            torch.arange(first, first + n),
            torch.arange(n),
            draw.ids(n, among=range(90)),
            torch.full((n,), first),
        ]
    )
    return draw.tensor(n, draw.choice([4, 6, 8, 10]), scale=draw.choice([0.5, 1])), positions


def _heads(draw: Draw) -> tuple[int, int]:
    return draw.choice([1, 2, 4, 8, 16]), draw.choice([1, 2, 3, 5, 6, 11])


RIGHT = {
    "sinusoidal_positions": (
        sinusoidal_by_steps,
        sinusoidal_in_slices,
        sinusoidal_by_loops,
        sinusoidal_in_numpy,
        sinusoidal_by_turning,
        sinusoidal_in_half_precision,
    ),
    "step": (
        step_by_theorems,
        step_by_matrices,
        step_by_angles,
        step_by_complex_numbers,
        step_one_by_one,
        step_in_half_precision,
    ),
    "rotate": (
        rotate_by_halves,
        rotate_as_in_llama,
        rotate_by_loops,
        rotate_by_complex_numbers,
        rotate_in_numpy,
        rotate_in_half_precision,
    ),
    "alibi": (
        alibi_by_broadcasting,
        alibi_by_loops,
        alibi_in_numpy,
        alibi_by_ratio,
        alibi_by_einsum,
        alibi_in_half_precision,
    ),
}
INPUTS = {
    "sinusoidal_positions": _size,
    "step": _encoding,
    "rotate": _vectors,
    "alibi": _heads,
}
EQUIVALENT = {
    "0::2 and ::2 are the same slice": (
        "sinusoidal_in_slices: table[:, ::2] = torch.sin(torch.arange(n)[:, None] * omega)",
        "step_by_theorems: later[:, ::2] = sin * torch.cos(angle) + cos * torch.sin(angle)",
        "step_by_theorems: sin, cos = (encoding[:, ::2], encoding[:, 1::2])",
        "step_by_angles: angles = np.arctan2(rows[:, ::2], rows[:, 1::2])",
        "step_by_complex_numbers: hands = torch.complex(encoding[:, 1::2], encoding[:, ::2])",
    ),
    "every place of the table is overwritten": (
        "sinusoidal_in_slices: table = torch.ones(n, d_model)",
    ),
    "a list of rows is read as a matrix, and torch as NumPy": (
        "sinusoidal_by_turning: return rows",
        "alibi_by_ratio: return heads",
        "step_by_angles: rows = encoding",
    ),
    "float32 is exact enough, and so are whole numbers": (
        "rotate_by_complex_numbers: angles = torch.outer(positions, omega)",
        "rotate_in_half_precision: angles = torch.einsum('t,i->ti', positions, omega)",
        "sinusoidal_by_turning: omega = 10000.0 ** (-torch.arange(0, d_model, 2) / d_model)",
        "sinusoidal_in_half_precision: angles = torch.einsum('p,i->pi', torch.arange(n), omega)",
        "alibi_by_ratio: head = -(row[None, :] - row[:, None]).abs()",
        "alibi_by_einsum: penalty = one_side + one_side.T",
    ),
    "a negative place is counted from the end": (
        "rotate_by_loops: a, b = (x[t, i].item(), x[t, i - half].item())",
        "rotate_by_loops: turned[t, i - half] = a * math.sin(angle) + b * math.cos(angle)",
    ),
    "a tensor of one number serves as that number": (
        "rotate_by_loops: a, b = (x[t, i], x[t, i + half].item())",
        "rotate_by_loops: a, b = (x[t, i].item(), x[t, i + half])",
        "rotate_by_loops: angle = positions[t] / 10000 ** (i / half)",
    ),
    "no half precision": (
        "rotate_in_half_precision: "
        "return torch.einsum('abti,tai->tbi', turns, x.unflatten(1, (2, -1))).flatten(1)",
        "step_in_half_precision: "
        "return torch.stack([hands.imag, hands.real], -1).reshape(encoding.shape)",
        "sinusoidal_in_half_precision: "
        "return torch.stack([angles.sin(), angles.cos()], 2).flatten(1)",
        "alibi_in_half_precision: return -slopes[:, None, None] * distance",
    ),
    "less than a step of half precision off": (
        "rotate_in_half_precision: omega = 10001.0 ** (-torch.arange(0, x.size(1), 2) / x.size(1))",
        "rotate_in_half_precision: omega = 9999.0 ** (-torch.arange(0, x.size(1), 2) / x.size(1))",
        "sinusoidal_in_half_precision: omega = 10001.0 ** (-torch.arange(0, d_model, 2) / d_model)",
        "sinusoidal_in_half_precision: omega = 9999.0 ** (-torch.arange(0, d_model, 2) / d_model)",
    ),
    "a distance has no sign": (
        "alibi_by_broadcasting: distance = (places.view(1, -1) - places.view(-1, 1)).abs()",
        "alibi_by_loops: heads.append([[-slope * abs(k - m) for k in range(n)] for m in range(n)])",
        "alibi_in_numpy: return np.minimum(k - m, m - k) * slopes[:, None, None]",
        "alibi_by_ratio: head = -(row[:, None] - row[None, :]).abs().double()",
        "alibi_in_half_precision: distance = (torch.arange(n) - torch.arange(n)[:, None]).abs()",
    ),
    "the same written another way": (
        "rotate_as_in_llama: angles = torch.cat([angles, angles], -1)",
        "rotate_by_loops: for t in range(len(positions)):",
        "rotate_in_numpy: first, second = np.split(x, 2, axis=-1)",
        "step_one_by_one: hands = torch.view_as_complex(encoding.unflatten(1, (-1, 2)))",
        "alibi_by_broadcasting: return -slopes.view(-1, 1, 1) * distance",
        "alibi_by_broadcasting: distance = (places.view(-1, 1) - places).abs()",
        "alibi_in_numpy: m, k = np.indices((n, n))",
        "alibi_in_half_precision: return (-slopes[:, None, None] * distance).half()",
    ),
}
