"""Right answers to the exercises of lesson 05 in several styles, and inputs to judge others on."""

import math
import random

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from attnviz.lessons.drawing import Draw


def forcing_by_steps(target: Tensor) -> Tensor:
    inputs = target[:, :-1]
    labels = target[:, 1:]
    return torch.stack((inputs, labels))


def forcing_by_loops(target: Tensor) -> Tensor:
    inputs, labels = [], []
    for row in target.tolist():
        inputs.append(row[:-1])
        labels.append(row[1:])
    return torch.tensor([inputs, labels])


def forcing_in_numpy(target: Tensor) -> np.ndarray:
    rows = target.numpy()
    return np.stack([np.delete(rows, -1, axis=1), np.delete(rows, 0, axis=1)])


def forcing_by_places(target: Tensor) -> Tensor:
    first = torch.arange(target.size(1) - 1)
    places = torch.stack([first, first + 1])
    return target[:, places].transpose(0, 1)


def forcing_in_place(target: Tensor) -> Tensor:
    batch, tokens = target.shape
    pair = torch.zeros(2, batch, tokens - 1, dtype=torch.long)
    for i in range(tokens - 1):
        pair[0, :, i] = target[:, i]
        pair[1, :, i] = target[:, i + 1]
    return pair


def forcing_as_a_tuple(target: Tensor) -> tuple[Tensor, Tensor]:
    tokens = target.size(1)
    return target.narrow(1, 0, tokens - 1), target.narrow(1, 1, tokens - 1)


def forcing_by_rolling(target: Tensor) -> Tensor:
    both = torch.stack([target, target.roll(-1, 1)])
    return both[:, :, :-1]


def _targets(draw: Draw) -> tuple[Tensor]:
    """Any ids in any place: what is a label does not depend on what they say."""
    batch, tokens = draw.sizes(2, range(1, 10))
    return (draw.ids(batch, tokens + 1, among=range(draw.choice([3, 50]))),)


def loss_by_steps(logits: Tensor, labels: Tensor, epsilon: float) -> Tensor:
    log_p = F.log_softmax(logits, dim=-1)
    right = log_p.gather(-1, labels.unsqueeze(-1)).squeeze(-1)
    losses = -(1 - epsilon) * right - epsilon * log_p.mean(dim=-1)
    mask = labels != 0
    return (losses * mask).sum() / mask.sum()


def loss_by_loops(logits: Tensor, labels: Tensor, epsilon: float) -> float:
    losses = []
    for rows, row_labels in zip(logits.tolist(), labels.tolist(), strict=True):
        for row, label in zip(rows, row_labels, strict=True):
            if label == 0:
                continue
            top = max(row)
            log_sum = top + math.log(sum(math.exp(x - top) for x in row))
            spread = sum(x - log_sum for x in row) / len(row)
            losses.append(-(1 - epsilon) * (row[label] - log_sum) - epsilon * spread)
    return sum(losses) / len(losses)


def loss_of_a_soft_target(logits: Tensor, labels: Tensor, epsilon: float) -> Tensor:
    size = logits.size(-1)
    wanted = (1 - epsilon) * F.one_hot(labels, size) + epsilon / size
    losses = -torch.einsum("btv,btv->bt", wanted, logits.log_softmax(-1))
    return losses[labels > 0].mean()


def loss_by_torch(logits: Tensor, labels: Tensor, epsilon: float) -> Tensor:
    return F.cross_entropy(logits.transpose(1, 2), labels, ignore_index=0, label_smoothing=epsilon)


def loss_in_numpy(logits: Tensor, labels: Tensor, epsilon: float) -> np.floating:
    rows = logits.numpy().reshape(-1, logits.shape[-1])
    places = labels.numpy().reshape(-1)
    rows, places = rows[places != 0], places[places != 0]
    shifted = rows - rows.max(axis=1, keepdims=True)
    log_p = shifted - np.log(np.exp(shifted).sum(axis=1, keepdims=True))
    right = log_p[np.arange(len(places)), places]
    return np.mean((epsilon - 1) * right - epsilon * log_p.mean(axis=1))


def loss_in_half_precision(logits: Tensor, labels: Tensor, epsilon: float) -> Tensor:
    counts = labels.bool()
    log_p, kept = logits[counts].log_softmax(-1), labels[counts]
    right = log_p[torch.arange(len(kept)), kept]
    return -((1 - epsilon) * right + epsilon * log_p.mean(-1)).bfloat16().mean()


def _losses(draw: Draw) -> tuple[Tensor, Tensor, float]:
    """Padding anywhere, also in whole sentences; the first place always counts."""
    size, batch, tokens = draw.sizes(3, range(1, 12))
    size = max(size, 3)
    labels = draw.ids(batch, tokens, among=range(1, size))
    labels[~draw.allowed(batch, tokens, share=draw.choice([0.4, 0.8, 1.0]))] = 0
    labels[0, 0] = draw.randrange(2, size)
    logits = draw.tensor(batch, tokens, size, scale=draw.choice([0.2, 3, 20, 400]))
    logits += draw.tensor(batch, tokens, 1, scale=draw.choice([0, 1, 200]))
    return logits, labels, draw.choice([0.02, 0.1, 0.25, 0.6])


def rate_by_steps(step: int, d_model: int, warmup: int) -> float:
    rising = step * warmup**-1.5
    falling = step**-0.5
    return min(rising, falling) * d_model**-0.5


def rate_piece_by_piece(step: int, d_model: int, warmup: int) -> float:
    if step <= warmup:
        return step / (math.sqrt(d_model) * warmup * math.sqrt(warmup))
    return 1 / math.sqrt(d_model * step)


def rate_of_tensors(step: int, d_model: int, warmup: int) -> Tensor:
    both = torch.tensor([step**-0.5, step * warmup**-1.5])
    return both.amin() / d_model**0.5


def rate_in_numpy(step: int, d_model: int, warmup: int) -> np.floating:
    return np.power(d_model, -0.5) * np.minimum(step**-0.5, step / warmup**1.5)


def rate_by_logarithms(step: int, d_model: int, warmup: int) -> float:
    lower, *_ = sorted([-0.5 * math.log(step), math.log(step) - 1.5 * math.log(warmup)])
    return math.exp(lower - 0.5 * math.log(d_model))


def rate_from_its_peak(step: int, d_model: int, warmup: int) -> float:
    """The highest rate, times a share that is 1 at the end of the warm-up."""
    peak = (d_model * warmup) ** -0.5
    share = step / warmup
    return peak * (share if share < 1 else share**-0.5)


def rate_in_half_precision(step: int, d_model: int, warmup: int) -> Tensor:
    step, warmup = torch.tensor([step, warmup], dtype=torch.bfloat16)
    return torch.minimum(step.rsqrt(), step * warmup.pow(-1.5)) * d_model**-0.5


def _steps(draw: Draw) -> tuple[int, int, int]:
    """Before, at and behind the end of the warm-up."""
    warmup = draw.randint(1, 25)
    step = draw.choice([warmup, draw.randint(1, warmup), warmup + draw.randint(1, 90)])
    return step, draw.choice([1, 3, 4, 10, 32]), warmup


def greedy_by_while(next_logits, start: int, end: int, max_len: int) -> list[int]:
    ids = [start]
    while len(ids) - 1 < max_len:
        logits = next_logits(ids)
        choice = logits.argmax().item()
        ids.append(choice)
        if choice == end:
            break
    return ids[1:]


def greedy_by_for(next_logits, start: int, end: int, max_len: int) -> list[int]:
    written = []
    for _ in range(max_len):
        logits = next_logits(ids=[start, *written])
        written.append(int(torch.argmax(logits, dim=-1)))
        if written[-1] == end:
            return written
    return written


def greedy_by_recursion(next_logits, start: int, end: int, max_len: int) -> list[int]:
    def go_on(ids):
        if len(ids) > max_len or ids[-1] == end:
            return ids
        return go_on([*ids, int(next_logits(ids).argmax())])

    return go_on([start])[1:]


def greedy_of_tensors(next_logits, start: int, end: int, max_len: int) -> Tensor:
    ids = torch.tensor([start])
    while ids[-1] != end and ids.numel() < max_len + 1:
        chosen = next_logits(ids).topk(1).indices
        ids = torch.cat([ids, chosen])
    return ids[1:]


def greedy_by_yielding(next_logits, start: int, end: int, max_len: int):
    ids = (start,)
    for _ in range(max_len):
        scores = next_logits(list(ids)).tolist()
        best = max(range(len(scores)), key=scores.__getitem__)
        yield best
        if best == end:
            return
        ids += (best,)


def greedy_in_numpy(next_logits, start: int, end: int, max_len: int) -> np.ndarray:
    ids = np.full(max_len + 1, start)
    last = 0
    while last < max_len and (last == 0 or ids[last] != end):
        ids[last + 1] = np.argmax(next_logits(ids[: last + 1].tolist()).numpy())
        last += 1
    return ids[1 : last + 1]


def _writing(draw: Draw) -> tuple:
    """A model that draws its logits by lot, another one for each beginning."""
    seed, size = draw.random(), draw.choice([3, 4, 9])
    start, end = draw.sample(range(size), 2)

    def next_logits(ids):
        so_far = [int(i) for i in ids]
        if not all(0 <= i < size for i in so_far):
            raise IndexError(f"there is no such id among {so_far}")
        lot = random.Random(f"{seed} {so_far}")
        return torch.tensor([lot.gauss(-5, 3) for _ in range(size)])

    return next_logits, start, end, draw.choice([0, 1, 2, 3, 5, 12])


RIGHT = {
    "teacher_forcing": (
        forcing_by_steps,
        forcing_by_loops,
        forcing_in_numpy,
        forcing_by_places,
        forcing_in_place,
        forcing_as_a_tuple,
        forcing_by_rolling,
    ),
    "label_smoothing": (
        loss_by_steps,
        loss_by_loops,
        loss_of_a_soft_target,
        loss_by_torch,
        loss_in_numpy,
        loss_in_half_precision,
    ),
    "learning_rate": (
        rate_by_steps,
        rate_piece_by_piece,
        rate_of_tensors,
        rate_in_numpy,
        rate_by_logarithms,
        rate_from_its_peak,
        rate_in_half_precision,
    ),
    "greedy": (
        greedy_by_while,
        greedy_by_for,
        greedy_by_recursion,
        greedy_of_tensors,
        greedy_by_yielding,
        greedy_in_numpy,
    ),
}
INPUTS = {
    "teacher_forcing": _targets,
    "label_smoothing": _losses,
    "learning_rate": _steps,
    "greedy": _writing,
}
EQUIVALENT = {
    "both are of one length": (
        "loss_by_loops: for rows, row_labels in zip(logits.tolist(), labels.tolist()):",
        "loss_by_loops: for rows, row_labels in zip(logits.tolist(), labels.tolist(), "
        "strict=False):",
        "loss_by_loops: for row, label in zip(rows, row_labels):",
        "loss_by_loops: for row, label in zip(rows, row_labels, strict=False):",
    ),
    "a tensor is read number by number as a list is, and by NumPy": (
        "loss_by_loops: for rows, row_labels in zip(logits, labels.tolist(), strict=True):",
        "loss_by_loops: for rows, row_labels in zip(logits.tolist(), labels, strict=True):",
        "loss_in_numpy: places = labels.reshape(-1)",
    ),
    "NumPy takes any negative size for the one to be found": (
        "loss_in_numpy: rows = logits.numpy().reshape(-2, logits.shape[-1])",
        "loss_in_numpy: places = labels.numpy().reshape(-2)",
    ),
    "both have the same dimensions, and a product has no order": (
        "loss_of_a_soft_target: losses = "
        "-torch.einsum('btv,btv->bt', logits.log_softmax(-1), wanted)",
    ),
    "the mean of means is the mean of all, as all have the same number": (
        "loss_in_numpy: return np.mean((epsilon - 1) * right - epsilon * log_p.mean())",
        "loss_in_half_precision: return "
        "-((1 - epsilon) * right + epsilon * log_p.mean()).bfloat16().mean()",
    ),
    "two that are returned are stacked by the check": (
        "forcing_by_steps: return (inputs, labels)",
        "forcing_by_loops: return [inputs, labels]",
        "forcing_in_numpy: return [np.delete(rows, -1, axis=1), np.delete(rows, 0, axis=1)]",
    ),
    "NumPy reads a tensor, and the model a list of tensors or an array": (
        "forcing_in_numpy: rows = target",
        "greedy_by_while: choice = logits.argmax()",
        "greedy_by_for: written.append(torch.argmax(logits, dim=-1))",
        "greedy_by_recursion: return go_on([*ids, next_logits(ids).argmax()])",
        "greedy_by_yielding: scores = next_logits(list(ids))",
        "greedy_by_yielding: scores = next_logits(ids).tolist()",
        "greedy_in_numpy: ids[last + 1] = np.argmax(next_logits(ids[:last + 1].tolist()))",
        "greedy_in_numpy: ids[last + 1] = np.argmax(next_logits(ids[:last + 1]).numpy())",
        "_greedy: ids.append(next_logits(ids).argmax())",
    ),
    "the two dimensions change places in either order": (
        "forcing_by_places: return target[:, places].transpose(1, 0)",
        "loss_by_torch: return F.cross_entropy(logits.transpose(2, 1), labels, "
        "ignore_index=0, label_smoothing=epsilon)",
    ),
    "all places are written afterwards, and ids are compared as numbers": (
        "forcing_in_place: pair = torch.ones(2, batch, tokens - 1, dtype=torch.long)",
        "forcing_in_place: pair = torch.zeros(2, batch, tokens - 1)",
    ),
    "what comes from the next sentence is cut off": (
        "forcing_by_rolling: both = torch.stack([target, target.roll(-1)])",
    ),
    "there is one dimension only": (
        "greedy_by_for: written.append(int(torch.argmax(logits)))",
        "greedy_by_for: written.append(int(torch.argmax(logits, dim=-0)))",
    ),
    "no sentence starts with its end": (
        "greedy_in_numpy: while last < max_len and ids[last] != end:",
        "greedy_in_numpy: while last < max_len and (last == -1 or ids[last] != end):",
    ),
    "there is room for one more, which stays free": (
        "greedy_in_numpy: ids = np.full(max_len + 2, start)",
    ),
    "the smaller of two is the same in either order": (
        "rate_by_steps: return min(falling, rising) * d_model ** (-0.5)",
        "rate_of_tensors: both = torch.tensor([step * warmup ** (-1.5), step ** (-0.5)])",
        "rate_in_numpy: return np.power(d_model, -0.5) * "
        "np.minimum(step / warmup ** 1.5, step ** (-0.5))",
        "rate_by_logarithms: lower, *_ = sorted([math.log(step) - 1.5 * math.log(warmup), "
        "-0.5 * math.log(step)])",
        "rate_in_half_precision: return "
        "torch.minimum(step * warmup.pow(-1.5), step.rsqrt()) * d_model ** (-0.5)",
        "_learning_rate: return d_model ** (-0.5) * min(step * warmup ** (-1.5), step ** (-0.5))",
    ),
    "at the end of the warm-up both are the same": (
        "rate_piece_by_piece: if step < warmup:",
        "rate_from_its_peak: return peak * (share if share <= 1 else share ** (-0.5))",
    ),
    "full precision serves as well": (
        "rate_in_half_precision: step, warmup = torch.tensor([step, warmup])",
        "loss_in_half_precision: return -((1 - epsilon) * right + epsilon * log_p.mean(-1)).mean()",
    ),
}
