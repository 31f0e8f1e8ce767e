"""Finding a good target, one token after the other: greedily, or with a beam of candidates."""

import math

import torch
from torch import Tensor

from attnviz.checks import check_number, check_whole
from attnviz.evaluating import evaluating
from attnviz.models.transformer import PAD, Transformer
from attnviz.tensors import check_tensor, check_values


@torch.no_grad()
def greedy_search(model: Transformer, source: Tensor, start: int, end: int, max_len: int) -> Tensor:
    """Write the most likely token, again and again, until every target has ended.

    source:  (batch, token).   start, end: ids of [start] and [end].
    max_len: the most tokens after [start].
    Dropout is off meanwhile, also in a model that is being trained.
    Returns (batch, token) without [start], with [end] where it was reached, padded with 0.
    Raises ValueError when max_len is not positive or longer than the model, or an id is negative;
    TypeError for what are no whole numbers, and as the model does.
    """
    start, end, max_len = _checked(model, source, start, end, max_len)
    with evaluating(model):
        memory, mask = model.encode(source)
        target = torch.full((len(source), 1), start, device=source.device)
        ended = torch.zeros(len(source), dtype=torch.bool, device=source.device)
        for _ in range(max_len):
            best = model.decode(target, memory, mask).logits[:, -1].argmax(-1)
            best = best.masked_fill(ended, PAD)
            target = torch.cat([target, best[:, None]], 1)
            ended |= best == end
            if ended.all():
                break
    return target[:, 1:]


@torch.no_grad()
def beam_search(
    model: Transformer,
    source: Tensor,
    start: int,
    end: int,
    max_len: int,
    width: int = 4,
    length_penalty: float = 0.0,
) -> list[tuple[list[int], float]]:
    """Follow the most likely beginnings of a target side by side, and keep the best that end.

    source:  (token,) or (1, token), one source.   start, end, max_len: as in `greedy_search`.
    width:   beginnings that are kept at each step; one, without a penalty, is greedy search.
    length_penalty: a target's log probability is divided by ((5 + length) / 6) to this power, as
             otherwise short ones win (Wu et al. 2016, equation 14).
    Returns at most width targets (ids with [end], without [start]) with their scores, best first;
    one that did not end within max_len is only among them when too few did.
    Raises ValueError when width or max_len is not positive, or there is more than one source, and
    as `greedy_search`.
    """
    start, end, max_len = _checked(model, source, start, end, max_len)
    width = check_whole("width", width, 1)
    length_penalty = check_number("length_penalty", length_penalty, "finite", math.isfinite)
    source = source[None] if source.dim() == 1 else source
    if len(source) != 1:
        raise ValueError(f"beam search takes one source, got {len(source)}")
    beams: list[tuple[list[int], float]] = [([start], 0.0)]  # ids, log probability
    finished: list[tuple[list[int], float]] = []
    with evaluating(model):
        memory, mask = model.encode(source)
        for _ in range(max_len):
            beams, ended = _grow(model, beams, memory, mask, width, end)
            finished += ended
            if not beams or _cannot_be_beaten(finished, beams, width, length_penalty, max_len):
                break
    finished = finished if len(finished) >= width else finished + beams
    scored = [(ids[1:], p / _penalty(len(ids) - 1, length_penalty)) for ids, p in finished]
    return sorted(scored, key=lambda one: -one[1])[:width]


def _grow(
    model: Transformer, beams: list, memory: Tensor, mask: Tensor, width: int, end: int
) -> tuple[list, list]:
    """The best beginnings that are one token longer, and those of the best that end with it."""
    target = torch.tensor([ids for ids, _ in beams], device=memory.device)
    n = len(beams)
    logits = model.decode(target, memory.expand(n, -1, -1), mask.expand(n, -1, -1)).logits
    gained = logits[:, -1].float().log_softmax(-1)
    total = gained + torch.tensor([p for _, p in beams], device=gained.device)[:, None]
    best = total.flatten().topk(min(2 * width, total.numel()))  # half of them may end here
    longer, ended = [], []
    candidates = zip(best.values.tolist(), best.indices.tolist(), strict=True)
    for rank, (p, place) in enumerate(candidates):
        ids = [*target[place // total.size(1)].tolist(), place % total.size(1)]
        if ids[-1] != end:
            longer.append((ids, p))
        elif rank < width:  # a worse end is dropped, as a worse beginning is
            ended.append((ids, p))
    return longer[:width], ended


def _cannot_be_beaten(
    finished: list, beams: list, width: int, length_penalty: float, max_len: int
) -> bool:
    """Whether no beginning can still become better than the worst of the best that ended."""
    if len(finished) < width:
        return False
    scores = sorted(p / _penalty(len(ids) - 1, length_penalty) for ids, p in finished)
    # a log probability only falls, and the most that a penalty can help is that of the longest
    best = max(p for _, p in beams) / max(
        _penalty(max_len, length_penalty), _penalty(len(beams[0][0]), length_penalty)
    )
    return scores[-width] >= best


def _penalty(length: int, power: float) -> float:
    return ((5 + length) / 6) ** power


def _checked(
    model: Transformer, source: Tensor, start: int, end: int, max_len: int
) -> tuple[int, int, int]:
    check_tensor("source", source)
    check_values("source", source)
    return (
        check_whole("start", start, 0),
        check_whole("end", end, 0),
        check_whole("max_len", max_len, 1, model.config.max_len),
    )
