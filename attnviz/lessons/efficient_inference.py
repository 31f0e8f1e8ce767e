"""The exercises of lesson 10, with the mistakes that their checks recognise."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor

from attnviz.lessons.drawing import Draw, drawn
from attnviz.lessons.exact import ExactExercise
from attnviz.lessons.exercise import Exercise, Misconception


def _read_and_new(
    seed: int, batch: int, heads: int, past: int, new: int, d_k: int, scale: float = 1
) -> tuple[Tensor, ...]:
    """Query, key and value of new tokens; key and value of those that were read before.

    scale: of queries and keys.
    """
    generator = torch.Generator().manual_seed(seed)
    tokens = torch.randn(5, batch, heads, past + new, d_k, generator=generator)
    tokens[[0, 1, 3]] *= scale
    return (*tokens[:3, :, :, past:], *tokens[3:, :, :, :past])


def _far_below_zero() -> tuple[Tensor, ...]:
    """Scores of about -130, so that a score of -100 for what is hidden does not hide it."""
    query, key, value, past_key, past_value = _read_and_new(4, 1, 2, past=2, new=3, d_k=4)
    return query + 8, key - 8, value, past_key - 8, past_value


def _drawn_tokens(draw: Draw) -> tuple[Tensor, ...]:
    batch, heads, past, new, d_k = draw.sizes(5)
    return _read_and_new(
        draw.randrange(1000), batch, heads, past, new, d_k, draw.choice([0.5, 1, 8])
    )


def _both(past: Tensor, new: Tensor) -> Tensor:
    return torch.cat([past, new], 2)


def _scores(query: Tensor, key: Tensor) -> Tensor:
    return query @ key.mT / query.size(-1) ** 0.5


def _mix(scores: Tensor, value: Tensor, seen: int | None, dim: int = -1) -> Tensor:
    """seen: how many keys the first query may see; each query sees one more; None: all see all.

    dim: over which the softmax runs.
    """
    if seen is not None:
        allowed = torch.ones_like(scores, dtype=torch.bool).tril(seen - 1)
        scores = scores.masked_fill(~allowed, -torch.inf)
    return scores.softmax(dim) @ value


def _attend_with_cache(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    past_key: Tensor,
    past_value: Tensor,
    further: int = 0,
    dim: int = -1,
) -> Tensor:
    """further: how far a token sees beyond itself."""
    scores = _scores(query, _both(past_key, key))
    return _mix(scores, _both(past_value, value), past_key.size(2) + 1 + further, dim)


def _with_weights(of_scores: Callable[[Tensor, int], Tensor]) -> Callable:
    """A mistake in what becomes of the scores; of_scores: also takes how long the past is."""

    def wrong(
        query: Tensor, key: Tensor, value: Tensor, past_key: Tensor, past_value: Tensor
    ) -> Tensor:
        scores = _scores(query, _both(past_key, key))
        return of_scores(scores, past_key.size(2)) @ _both(past_value, value)

    return wrong


def _plain_exponentials(scores: Tensor, past: int) -> Tensor:
    exponentials = scores.exp().tril(past)
    return exponentials / exponentials.sum(-1, keepdim=True)


def _hidden_shown(scores: Tensor, past: int) -> Tensor:
    allowed = torch.ones_like(scores, dtype=torch.bool).tril(past)
    return scores.masked_fill(allowed, -torch.inf).softmax(-1)


def _infinitely_much(scores: Tensor, past: int) -> Tensor:
    allowed = torch.ones_like(scores, dtype=torch.bool).tril(past)
    return scores.masked_fill(~allowed, torch.inf).softmax(-1)


def _moved_by_new(scores: Tensor, past: int) -> Tensor:
    allowed = torch.ones_like(scores, dtype=torch.bool).tril(scores.size(-2))
    return scores.masked_fill(~allowed, -torch.inf).softmax(-1)


def _keys_in_other_order(
    query: Tensor, key: Tensor, value: Tensor, past_key: Tensor, past_value: Tensor
) -> Tensor:
    scores = _scores(query, _both(key, past_key))
    return _mix(scores, _both(past_value, value), past_key.size(2) + 1)


def _future_alone(scores: Tensor, past: int) -> Tensor:
    allowed = torch.ones_like(scores, dtype=torch.bool).triu(past)
    return scores.masked_fill(~allowed, -torch.inf).softmax(-1)


def _new_in_front(
    query: Tensor, key: Tensor, value: Tensor, past_key: Tensor, past_value: Tensor
) -> Tensor:
    scores = _scores(query, _both(key, past_key))
    return _mix(scores, _both(value, past_value), past_key.size(2) + 1)


def _values_in_other_order(
    query: Tensor, key: Tensor, value: Tensor, past_key: Tensor, past_value: Tensor
) -> Tensor:
    scores = _scores(query, _both(past_key, key))
    return _mix(scores, _both(value, past_value), past_key.size(2) + 1)


def _mask_of_new_alone(
    query: Tensor, key: Tensor, value: Tensor, past_key: Tensor, past_value: Tensor
) -> Tensor:
    hidden = ~torch.ones(query.size(2), query.size(2), dtype=torch.bool).tril()
    scores = _scores(query, _both(past_key, key)).masked_fill(hidden, -torch.inf)
    return scores.softmax(-1) @ _both(past_value, value)


attend_with_cache = Exercise(
    name="attend_with_cache",
    reference=_attend_with_cache,
    cases=(
        _read_and_new(0, batch=1, heads=1, past=4, new=3, d_k=8),
        _read_and_new(1, batch=2, heads=3, past=6, new=1, d_k=4),
        _read_and_new(2, batch=2, heads=2, past=2, new=5, d_k=6),
        _far_below_zero(),
        *drawn(8, _drawn_tokens),
    ),
    misconceptions=(
        Misconception(
            "the past is not read: each new token sees only new ones. Put past_key in front of "
            "key and past_value in front of value, torch.cat([past_key, key], 2).",
            lambda query, key, value, past_key, past_value: _mix(_scores(query, key), value, 1),
        ),
        Misconception(
            "new tokens see the new ones behind them. That does no harm while one token comes at a "
            "time, but here several come at once: the causal mask is missing.",
            lambda query, key, value, past_key, past_value: _mix(
                _scores(query, _both(past_key, key)), _both(past_value, value), None
            ),
        ),
        Misconception(
            "the mask begins in the upper left corner, as if the first query were the first token, "
            "and it hides nearly all of the past. Query i is token past + i, so the diagonal has "
            "to move: tril(past_key.size(2)).",
            lambda query, key, value, past_key, past_value: _mix(
                _scores(query, _both(past_key, key)), _both(past_value, value), 1
            ),
        ),
        Misconception(
            "the new keys stand in front of the past ones, so the mask hides the wrong ones. The "
            "past was there first: torch.cat([past_key, key], 2).",
            _new_in_front,
        ),
        Misconception(
            "keys and values are joined in different orders, so a weight meets the value of "
            "another token. The past comes first in both.",
            _values_in_other_order,
        ),
        Misconception(
            "of the keys the new ones come first, but of the values the past, so a weight meets "
            "the value of another token. The past comes first in both.",
            _keys_in_other_order,
        ),
        Misconception(
            "keys and values have changed places: queries meet keys, and values are mixed.",
            lambda query, key, value, past_key, past_value: _attend_with_cache(
                query, value, key, past_value, past_key
            ),
        ),
        Misconception(
            "the diagonal is moved by the number of new tokens. Move it by how many came before: "
            "tril(past_key.size(2)).",
            _with_weights(_moved_by_new),
        ),
        Misconception(
            "the scores are multiplied by √d_k. Divide.",
            lambda query, *cached: _attend_with_cache(query * query.size(-1), *cached),
        ),
        Misconception(
            "the scores are not divided by √d_k.",
            lambda query, *cached: _attend_with_cache(query * query.size(-1) ** 0.5, *cached),
        ),
        Misconception(
            "the scores are divided by d_k itself. Divide by its root, √d_k.",
            lambda query, *cached: _attend_with_cache(query / query.size(-1) ** 0.5, *cached),
        ),
        Misconception(
            "the hidden scores become zero, and e⁰ is 1: what is hidden still gets weight. Fill "
            "with -torch.inf before the softmax.",
            _with_weights(lambda scores, past: scores.tril(past).softmax(-1)),
        ),
        Misconception(
            "the mask comes behind the softmax, so what a token may see gets less than one in all. "
            "Hide the scores before it, with -torch.inf.",
            _with_weights(lambda scores, past: scores.softmax(-1).tril(past)),
        ),
        Misconception(
            "what is hidden gets inf, which is the largest score there is, and makes nan. It is "
            "-torch.inf that hides.",
            _with_weights(_infinitely_much),
        ),
        Misconception(
            "the mask is the wrong way round: what a token may see is hidden from it.",
            _with_weights(_hidden_shown),
        ),
        Misconception(
            "each token sees itself and what comes behind it. The past and itself are the lower "
            "left part of the matrix: tril, not triu.",
            _with_weights(_future_alone),
        ),
        Misconception(
            "the exponential of a large score is infinite. Use softmax(-1), which subtracts the "
            "largest score of each row before.",
            _with_weights(_plain_exponentials),
        ),
        Misconception(
            "the softmax runs over the queries, so the weights of a token depend on which others "
            "are read along with it. Each query shares out its attention: softmax(-1).",
            partial(_attend_with_cache, dim=-2),
        ),
        Misconception(
            "a new token does not see itself: query i may see the past and the new tokens 0 to i, "
            "and i is one of them.",
            partial(_attend_with_cache, further=-1),
        ),
        Misconception(
            "each new token sees one step into the future: with past_key.size(2) keys in front, "
            "query i may see past_key.size(2) + i + 1 of them, itself the last.",
            partial(_attend_with_cache, further=1),
        ),
        Misconception(
            "the mask has a column for each new token alone, and the scores have more: those of "
            "the past come first. Make it as large as the scores, (new, past + new).",
            _mask_of_new_alone,
        ),
    ),
    first_step="Begin with torch.cat([past_key, key], 2); which of these keys may query i see?",
)


class _UpToTies(Exercise):
    """Of tokens that are as likely as the last that stays, which ones stay is free."""

    def _same(self, a: Any, b: Any) -> bool:
        return super()._same(a, b) or super()._same(_least_at_the_end(a), _least_at_the_end(b))


def _least_at_the_end(numbers: Any) -> Any:
    """Where the least positive number comes more than once: how often, in place of where."""
    array = getattr(numbers, "array", np.zeros(0))
    if array.ndim != 1 or not (array > 0).any():
        return numbers
    least = np.isclose(array, array[array > 0].min())
    if least.sum() < 2:
        return numbers
    return replace(numbers, array=np.append(np.where(least, 0.0, array), least.sum()))


def _likely(seed: int, n: int) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return (2 * torch.randn(n, generator=generator)).softmax(0)


def _drawn_likely(draw: Draw) -> tuple[Tensor, float]:
    n = draw.choice([5, 10])
    return _likely(draw.randrange(1000), n), draw.choice([0.2, 0.4, 0.6, 0.8])


def _parts(*sizes: int) -> Tensor:
    """Probabilities whose sums are exact where the sizes sum to a power of two."""
    return torch.tensor(sizes) / sum(sizes)


def _before(ordered: Tensor) -> Tensor:
    """What those in front of each one reach together."""
    return ordered.cumsum(0) - ordered


def _inside(ordered: Tensor, top_p: float) -> Tensor:
    """Up to the one that crosses the line, that one included."""
    return _before(ordered) < top_p


def _leave(
    p: Tensor,
    top_p: float,
    keep: Callable[[Tensor, float], Tensor] = _inside,
    descending: bool = True,
) -> Tensor:
    """keep: from the probabilities in order, and top_p, to those that are left, bool."""
    ordered, places = p.sort(descending=descending)
    return torch.zeros_like(p).scatter(0, places, ordered * keep(ordered, top_p))


def _shared_out(kept: Tensor) -> Tensor:
    return kept / kept.sum()


def _keep_top_p(p: Tensor, top_p: float) -> Tensor:
    return _shared_out(_leave(p, top_p))


def _first(ordered: Tensor, n: float) -> Tensor:
    return torch.arange(len(ordered)) < n


def _in_order(p: Tensor, top_p: float) -> Tensor:
    ordered = p.sort(descending=True).values
    return _shared_out(ordered * _inside(ordered, top_p))


def _put_back_wrongly(p: Tensor, top_p: float) -> Tensor:
    return _in_order(p, top_p)[p.argsort(descending=True)]


def _all_alike_too(p: Tensor, top_p: float) -> Tensor:
    kept = _leave(p, top_p)
    return _shared_out(p * (p >= kept[kept > 0].min()))


keep_top_p = _UpToTies(
    name="keep_top_p",
    reference=_keep_top_p,
    cases=(  # each vocabulary · top_p is a whole number
        (torch.tensor([0.05, 0.4, 0.1, 0.25, 0.2]), 0.6),
        (torch.tensor([0.22, 0.05, 0.3, 0.18, 0.25]), 0.2),
        (_likely(0, 10), 0.9),
        (_likely(1, 20), 0.5),
        (_parts(3, 8, 1, 4), 0.75),  # 8 and 4 reach it just so
        (_parts(4, 10, 18, 1, 14, 3, 9, 5), 0.5),
        (_parts(4, 10, 18, 1, 14, 3, 9, 5), 0.875),
        (_parts(1, 1, 1, 1, 1, 1, 1, 1), 0.5),  # all are alike, and half of them are left
        (_parts(1, 1, 3, 1, 1, 1), 2 / 3),
        *drawn(6, _drawn_likely),
    ),
    misconceptions=(
        Misconception(
            "the token that crosses the line is left out, so those kept do not reach top_p, and "
            "when the likeliest one is above it, none is left. Ask what the ones before it reach.",
            lambda p, top_p: _shared_out(_leave(p, top_p, lambda o, top_p: o.cumsum(0) <= top_p)),
        ),
        Misconception(
            "the token with which the sum reaches top_p is left out, whether it comes to top_p "
            "just so or crosses it. Ask what the ones before it reach.",
            lambda p, top_p: _shared_out(_leave(p, top_p, lambda o, top_p: o.cumsum(0) < top_p)),
        ),
        Misconception(
            "what is kept does not sum to one. Divide it by its sum.",
            _leave,
        ),
        Misconception(
            "each probability is compared with top_p by itself. It is the sum of the likeliest "
            "ones that has to reach it: sort them, then cumsum.",
            lambda p, top_p: _shared_out(p * (p >= top_p)),
        ),
        Misconception(
            "the probabilities are still in order, the likeliest first. The place says which token "
            "it is: put them back, with the indices that sort returns.",
            _in_order,
        ),
        Misconception(
            "they are put back the wrong way. The indices of sort say where each one came from, so "
            "write there, zeros.scatter(0, places, kept); kept[places] reads from there.",
            _put_back_wrongly,
        ),
        Misconception(
            "one token too many is kept: the one that crosses the line is the last.",
            lambda p, top_p: _shared_out(
                _leave(p, top_p, lambda o, top_p: _first(o, _inside(o, top_p).sum() + 1))
            ),
        ),
        Misconception(
            "they are added up from the least likely one, and the likeliest are cut off. Sort with "
            "descending=True.",
            lambda p, top_p: _shared_out(_leave(p, top_p, descending=False)),
        ),
        Misconception(
            "they are added up as they stand in the vocabulary. The likeliest ones should come "
            "first: sort before cumsum.",
            lambda p, top_p: _shared_out(p * _inside(p, top_p)),
        ),
        Misconception(
            "top_p is taken for a share of the vocabulary. It is a share of the probability: few "
            "tokens are enough where the model is sure.",
            lambda p, top_p: _shared_out(
                _leave(p, top_p, lambda o, top_p: _first(o, round(top_p * len(o))))
            ),
        ),
        Misconception(
            "where the sum reaches top_p just so, one more is kept. A token stays if those before "
            "it are still below top_p: <, not <=.",
            lambda p, top_p: _shared_out(_leave(p, top_p, lambda o, top_p: _before(o) <= top_p)),
        ),
        Misconception(
            "all tokens that are as likely as the last one kept are kept, too, however many they "
            "are. Compare places in the order, not probabilities.",
            _all_alike_too,
        ),
        Misconception(
            "the softmax of probabilities is no sharing out: e⁰ is 1, so those that were set to "
            "zero come back. Divide by the sum.",
            lambda p, top_p: _leave(p, top_p).softmax(0),
        ),
    ),
    first_step="ordered, places = p.sort(descending=True); then look at ordered.cumsum(0).",
)

Window = tuple[int, int]


def _in_steps(n: int, length: int, step: int) -> list[Window]:
    if n <= length:
        return [(0, n)]
    return [(start, start + length) for start in [*range(0, n - length, step), n - length]]


def _windows(n: int, length: int, overlap: int) -> list[Window]:
    return _in_steps(n, length, length - overlap)


def _starts(n: int, length: int, overlap: int) -> range:
    """Where the windows begin if none is moved back."""
    return range(0, max(n - overlap, 1), length - overlap)


def _only_whole(n: int, length: int, overlap: int) -> list[Window]:
    starts = range(0, n - length + 1, length - overlap)
    return [(start, start + length) for start in starts]


def _to_the_end(n: int, length: int, overlap: int) -> list[Window]:
    starts = range(0, n, length - overlap)
    return [(start, min(start + length, n)) for start in starts]


def _last_always_added(n: int, length: int, overlap: int) -> list[Window]:
    return [*_only_whole(n, length, overlap), (max(n - length, 0), n)]


def _all_moved_back(n: int, length: int, overlap: int) -> list[Window]:
    ends = [min(start + length, n) for start in range(0, n, length - overlap)]
    return [(max(end - length, 0), end) for end in ends]


def _unchecked(n: int, length: int, overlap: int) -> list[Window]:
    starts = [*range(0, n - length, length - overlap), n - length]
    return [(start, start + length) for start in starts]


class _Windows(ExactExercise):
    def _seen(self, pairs: list[tuple[Any, Any]]) -> str | None:
        wrong = [pair for pair in pairs if not self._same(*pair)]
        return _seen_in_windows(wrong) or super()._seen(pairs)


def _seen_in_windows(wrong: list[tuple[Any, Any]]) -> str | None:
    """The first thing that is so of all wrong answers; each stands beside the right one."""
    if not all(_are_windows(yours) for yours, _ in wrong):
        return None
    said = (says for says, holds in _OF_WINDOWS if all(holds(y, r) for y, r in wrong))
    return next(said, None)


def _are_windows(yours: Any) -> bool:
    return (
        isinstance(yours, tuple)
        and len(yours) > 0
        and all(isinstance(one, tuple) and len(one) == 2 for one in yours)
    )


def _starts_of(windows: Sequence[Window]) -> list[int]:
    return [start for start, _ in windows]


def _ends_of(windows: Sequence[Window]) -> list[int]:
    return [end for _, end in windows]


def _of_other_length(yours: Sequence[Window], right: Sequence[Window]) -> bool:
    length = right[0][1] - right[0][0]
    return any(end - start != length for start, end in yours)


_OF_WINDOWS: tuple[tuple[str, Callable[[Any, Any], bool]], ...] = (
    ("only texts that fit into one window are wrong.", lambda y, r: len(r) == 1),
    ("start and end have changed places.", lambda y, r: [one[::-1] for one in y] == list(r)),
    ("only the last window is wrong.", lambda y, r: len(y) == len(r) and y[:-1] == r[:-1]),
    ("the starts are right, but not the ends.", lambda y, r: _starts_of(y) == _starts_of(r)),
    ("the ends are right, but not the starts.", lambda y, r: _ends_of(y) == _ends_of(r)),
    ("the first window does not begin at 0.", lambda y, r: y[0][0] != 0),
    ("the last window does not end at n.", lambda y, r: y[-1][1] != r[-1][1]),
    ("some windows do not have the full length.", _of_other_length),
    ("there are too many windows.", lambda y, r: len(y) > len(r)),
    ("there are too few windows.", lambda y, r: len(y) < len(r)),
)


def _text(draw: Draw) -> tuple[int, int, int]:
    length = draw.randint(1, 12)
    return draw.randint(1, 40), length, draw.randrange(length)


windows = _Windows(
    name="windows",
    reference=_windows,
    cases=(
        (10, 4, 1),
        (9, 4, 1),
        (3, 4, 1),
        (4, 4, 1),
        (5, 4, 1),
        (17, 8, 3),
        (23, 8, 3),
        (600, 128, 32),
        (12, 4, 0),
        (14, 4, 0),
        (10, 4, 3),
        (1, 1, 0),
        (3, 1, 0),
        *drawn(10, _text),
    ),
    misconceptions=(
        Misconception(
            "the windows stand side by side: what spans a border is seen whole by none. Each "
            "begins length - overlap behind the one before.",
            lambda n, length, overlap: _in_steps(n, length, length),
        ),
        Misconception(
            "the windows begin every overlap tokens. That many are shared, so the step is what is "
            "left of the length: length - overlap.",
            lambda n, length, overlap: _in_steps(n, length, overlap),
        ),
        Misconception(
            "neighbours share twice as many tokens as they should: the step is length - overlap, "
            "for an overlap belongs to both of them.",
            lambda n, length, overlap: _in_steps(n, length, length - 2 * overlap),
        ),
        Misconception(
            "the last window is short. Move it back, so that it ends at n and has its full length.",
            lambda n, length, overlap: [
                (start, min(start + length, n)) for start in _starts(n, length, overlap)
            ],
        ),
        Misconception(
            "only windows that fit whole are taken, and the tokens behind the last of them are in "
            "none. One more has to end at n.",
            _only_whole,
        ),
        Misconception(
            "the starts go on until n, so the last windows are short, and one may hold nothing but "
            "what the window before it has, too. Stop at the first that reaches n, and move it "
            "back.",
            _to_the_end,
        ),
        Misconception(
            "the last window ends behind the text: end is at most n. Move the window back.",
            lambda n, length, overlap: [
                (start, start + length) for start in _starts(n, length, overlap)
            ],
        ),
        Misconception(
            "a window that ends at n is always added, even where one ends there already: then the "
            "last window comes twice.",
            _last_always_added,
        ),
        Misconception(
            "the starts go on until n and are moved back, so the last window may come again and "
            "again. Stop at the first that reaches n.",
            _all_moved_back,
        ),
        Misconception(
            "a text shorter than a window is moved back, too, to before its first token. There the "
            "only window is (0, n).",
            _unchecked,
        ),
        Misconception(
            "in a text shorter than a window, the window ends behind the text. There the only one "
            "is (0, n).",
            lambda n, length, overlap: _windows(max(n, length), length, overlap),
        ),
        Misconception(
            "the end is the place of the last token; it should be one further, as in Python's "
            "slices: ids[start:end] is the window.",
            lambda *arguments: [(start, end - 1) for start, end in _windows(*arguments)],
        ),
    ),
    first_step="For n > length the starts are 0, step, 2 · step, … and at the end n - length.",
)


def _weights(seed: int, scales: Sequence[float], columns: int) -> tuple[Tensor]:
    """A row for each scale; the largest is 127 times that just so, however one computes it."""
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(len(scales), columns, generator=generator)
    rows = torch.arange(len(scales))
    x[rows, 1 + rows % (columns - 1)] = 0  # a weight may be zero in a row that is not
    x = x / x.abs().amax(1, keepdim=True)
    x[:, 0] = x[:, 0].abs()  # a row without a positive number would make many scales negative
    return (x * 127 * torch.tensor(scales)[:, None],)


def _layer(draw: Draw) -> tuple[Tensor]:
    rows, columns = draw.sizes(2, range(2, 10))
    scales = [draw.choice([0.0, 1 / 4, 1 / 16, 1 / 64, 1 / 256, 1.0]) for _ in range(rows - 1)]
    scales.append(1 / 8)
    return _weights(draw.randrange(1000), scales, columns)


_LEAST_SCALE = 1e-12  # for a row of zeros


def _unlimited(x: Tensor, scale: Tensor) -> Tensor:
    """Not kept from -127 to 127."""
    return ((x / scale).round() * scale).masked_fill(scale == 0, 0)


def _there_and_back(
    x: Tensor, scale: Tensor, whole: Callable[[Tensor], Tensor] = torch.round, back: bool = True
) -> Tensor:
    """whole: what makes numbers whole.   back: whether they are multiplied by the scale again."""
    scale = scale.clamp(min=_LEAST_SCALE)
    q = whole(x / scale).clamp(-127, 127)
    return q * scale if back else q


def _scale(x: Tensor, steps: int = 127, dim: int | tuple[int, int] = 1) -> Tensor:
    return x.abs().amax(dim, keepdim=True) / steps


def _from_least_to_largest(x: Tensor) -> Tensor:
    least, largest = x.amin(1, keepdim=True), x.amax(1, keepdim=True)
    scale = ((largest - least) / 255).clamp(min=_LEAST_SCALE)
    return ((x - least) / scale).round() * scale + least


to_int8 = Exercise(
    name="to_int8",
    reference=lambda x: _there_and_back(x, _scale(x)),
    cases=(
        _weights(0, [1 / 64, 1 / 8, 1 / 512, 1 / 32], 6),
        _weights(1, [1 / 32, 0.0, 1 / 64], 5),  # a row of zeros
        _weights(2, [1 / 128, 1 / 64, 1 / 16, 1 / 32, 1 / 64], 40),
        _weights(3, [1 / 32], 4),
        *drawn(8, _layer),
    ),
    misconceptions=(
        Misconception(
            "there is one scale for all rows, so one large weight makes the steps coarse "
            "everywhere. Take the largest of each row, amax(1, keepdim=True).",
            lambda x: _there_and_back(x, _scale(x, dim=(0, 1))),
        ),
        Misconception(
            "there is a scale for each column; each row should have its own: amax(1, "
            "keepdim=True).",
            lambda x: _there_and_back(x, _scale(x, dim=0)),
        ),
        Misconception(
            "the largest weight of a row becomes 128, which int8 does not have, so it is cut off: "
            "127 is as far as it goes. Divide by 127.",
            lambda x: _there_and_back(x, _scale(x, 128)),
        ),
        Misconception(
            "the scale is the largest weight divided by 128, and int8 ends at 127. Divide by 127.",
            lambda x: _unlimited(x, _scale(x, 128)),
        ),
        Misconception(
            "the largest weight of a row becomes 126, and int8 goes to 127. Divide by 127.",
            lambda x: _unlimited(x, _scale(x, 126)),
        ),
        Misconception(
            "the scale is added to the whole numbers. What they stand for is number times scale.",
            lambda x: (_unlimited(x, _scale(x)) / _scale(x) + _scale(x)).nan_to_num(0),
        ),
        Misconception(
            "the scale is the largest weight of a row itself, so only -1, 0 and 1 are left. Divide "
            "it by 127.",
            lambda x: _unlimited(x, _scale(x, 1)),
        ),
        Misconception(
            "the whole numbers are divided by the scale once more. What they stand for is number "
            "times scale.",
            lambda x: (
                (x / _scale(x).clamp(min=_LEAST_SCALE)).round() / _scale(x).clamp(min=_LEAST_SCALE)
            ),
        ),
        Misconception(
            "x itself is rounded. Divide it by the scale before.",
            lambda x: x.round() * _scale(x),
        ),
        Misconception(
            "x is multiplied by the scale before it is rounded. Divide by it; multiply only to go "
            "back.",
            lambda x: (x * _scale(x)).round() * _scale(x),
        ),
        Misconception(
            "the largest weight of a row becomes 255, so all above 127 is cut off. The 255 steps "
            "are for both signs together: divide by 127.",
            lambda x: _there_and_back(x, _scale(x, 255)),
        ),
        Misconception(
            "the fractions are cut off, as int8 does by itself, and every weight comes nearer to "
            "zero. Round first.",
            lambda x: _there_and_back(x, _scale(x), torch.trunc),
        ),
        Misconception(
            "every number is rounded down, so the negative ones go away from zero. Round to the "
            "nearest one, with round().",
            lambda x: _there_and_back(x, _scale(x), torch.floor),
        ),
        Misconception(
            "every number is rounded up, so the positive ones go away from zero. Round to the "
            "nearest one, with round().",
            lambda x: _there_and_back(x, _scale(x), torch.ceil),
        ),
        Misconception(
            "nothing is rounded: this is x itself. Make the numbers whole before you multiply "
            "them by the scale again.",
            lambda x: x.clone(),
        ),
        Misconception(
            "the steps go from the least to the largest weight of a row, which needs a shift "
            "besides the scale. Here zero stays zero: the scale is max |row| / 127, and no more.",
            _from_least_to_largest,
        ),
        Misconception(
            "these are the whole numbers. Multiply them by the scale again, so that they can be "
            "compared with x.",
            lambda x: _there_and_back(x, _scale(x), back=False),
        ),
        Misconception(
            "the largest weight is taken with its sign, so where a negative one is further from "
            "zero, it is cut off. Take the largest of x.abs().",
            lambda x: _there_and_back(x, x.amax(1, keepdim=True) / 127),
        ),
        Misconception(
            "the sign of the largest weight counts, so a negative one that is further from zero "
            "becomes less than -127. Take the largest of x.abs().",
            lambda x: _unlimited(x, x.amax(1, keepdim=True) / 127),
        ),
        Misconception(
            "a row of zeros becomes nan: its scale is 0, and 0 / 0 is not a number. Keep the scale "
            "above zero with clamp(min=…); the row stays zero.",
            lambda x: (x / _scale(x)).round() * _scale(x),
        ),
        Misconception(
            "the scales are (rows,), so torch takes them for columns: it stretches from the right. "
            "Make them (rows, 1), with keepdim=True.",
            lambda x: _there_and_back(x, _scale(x)[:, 0]),
        ),
    ),
    first_step="The scale is x.abs().amax(1, keepdim=True) / 127; which whole number is each x?",
)


def _batches(lengths: Sequence[int], batch_size: int, by_length: bool) -> list[Sequence[int]]:
    lengths = sorted(lengths) if by_length else lengths
    return [lengths[i : i + batch_size] for i in range(0, len(lengths), batch_size)]


def _size(batch: Sequence[int]) -> int:
    """The number of tokens of a padded batch."""
    return len(batch) * max(batch)


def _padding_and_all(
    lengths: Sequence[int], batch_size: int, by_length: bool, size: Callable = _size
) -> tuple[int, int]:
    """How many tokens are padding, and how many there are; size: of a padded batch."""
    everything = sum(map(size, _batches(lengths, batch_size, by_length)))
    return everything - sum(lengths), everything


def _padding_share(
    lengths: Sequence[int], batch_size: int, by_length: bool, size: Callable = _size
) -> float:
    padding, everything = _padding_and_all(lengths, batch_size, by_length, size)
    return padding / everything


def _to_longest_of_all(lengths: Sequence[int], batch_size: int, by_length: bool) -> float:
    return _padding_share(lengths, len(lengths), by_length)


def _of_real_tokens(lengths: Sequence[int], batch_size: int, by_length: bool) -> float:
    return _padding_and_all(lengths, batch_size, by_length)[0] / sum(lengths)


def _upside_down(lengths: Sequence[int], batch_size: int, by_length: bool) -> float:
    padding, everything = _padding_and_all(lengths, batch_size, by_length)
    return everything / padding


def _mean_of_shares(lengths: Sequence[int], batch_size: int, by_length: bool) -> float:
    batches = _batches(lengths, batch_size, by_length)
    return sum(1 - sum(batch) / _size(batch) for batch in batches) / len(batches)


def _without_the_last(lengths: Sequence[int], batch_size: int, by_length: bool) -> float:
    whole = [b for b in _batches(lengths, batch_size, by_length) if len(b) == batch_size]
    return 1 - sum(map(sum, whole)) / sum(map(_size, whole))


def _texts(draw: Draw) -> tuple[list[int], int, bool]:
    """Sorted up or down, the share is the same."""
    batch_size, by_length = draw.randint(2, 4), draw.choice([False, True])
    while True:
        n = draw.randint(batch_size, 4 * batch_size)
        lengths = [draw.randint(1, draw.choice([9, 30, 200])) for _ in range(n)]
        up, down = sorted(lengths), sorted(lengths, reverse=True)
        if _padding_share(up, batch_size, False) == _padding_share(down, batch_size, False):
            return lengths, batch_size, by_length


class _Share(Exercise):
    def _seen(self, pairs: list[tuple[Any, Any]]) -> str | None:
        seen = super()._seen(pairs)
        if seen is None and any((yours.array > 1).any() for yours, _ in pairs):
            return "a share is never more than 1."
        if seen is None and any((yours.array < 0).any() for yours, _ in pairs):
            return "a share is never less than 0."
        return seen


padding_share = _Share(
    name="padding_share",
    reference=_padding_share,
    cases=(
        ([5, 14, 2, 9, 6], 2, False),
        ([5, 14, 2, 9, 6, 13], 2, True),
        ([12, 5, 21, 8, 6, 18, 10, 15], 3, False),
        ([12, 5, 21, 8, 6, 18, 10, 15, 30], 3, True),
        ([4, 6, 5], 1, False),  # nothing to fill up
        ([48, 8, 25, 12, 33, 30], 4, False),
        ([7, 102, 9, 31, 12, 5], 3, True),
        ([3, 8], 4, True),  # fewer than a batch
        *drawn(8, _texts),
    ),
    misconceptions=(
        Misconception(
            "all texts are padded to the longest of them all. Each batch is padded to its own "
            "longest: this is what sorting gains by.",
            _to_longest_of_all,
        ),
        Misconception(
            "the padding is divided by the number of real tokens. Divide by all of them, padding "
            "included: that is what the model computes.",
            _of_real_tokens,
        ),
        Misconception(
            "this is the mean of the batches' shares, in which a batch of short texts counts as "
            "much as one of long ones. Add up the tokens of all batches first, then divide.",
            _mean_of_shares,
        ),
        Misconception(
            "the last batch is left out when it is smaller than the others. Its texts are read, "
            "too.",
            _without_the_last,
        ),
        Misconception(
            "the last batch counts as if it were full. It may have fewer texts: multiply its "
            "longest by the number that it has.",
            lambda lengths, batch_size, by_length: _padding_share(
                lengths, batch_size, by_length, lambda batch: batch_size * max(batch)
            ),
        ),
        Misconception(
            "by_length changes nothing. Sort all texts before they are cut into batches; to sort "
            "within a batch leaves its longest as it was.",
            lambda lengths, batch_size, by_length: _padding_share(lengths, batch_size, False),
        ),
        Misconception(
            "the texts are always sorted. Without by_length they stay in the order given.",
            lambda lengths, batch_size, by_length: _padding_share(lengths, batch_size, True),
        ),
        Misconception(
            "this is the share of the real tokens; asked for is what is left of 1, the padding.",
            lambda *arguments: 1 - _padding_share(*arguments),
        ),
        Misconception(
            "this is the number of tokens that are padding. Divide it by the number of all.",
            lambda *arguments: _padding_and_all(*arguments)[0],
        ),
        Misconception(
            "the sign is wrong: padding is what there is in all, less the real tokens.",
            lambda *arguments: -_padding_share(*arguments),
        ),
        Misconception(
            "each batch is as long as its shortest text. The shorter ones are filled up to the "
            "longest: max.",
            lambda lengths, batch_size, by_length: _padding_share(
                lengths, batch_size, by_length, lambda batch: len(batch) * min(batch)
            ),
        ),
        Misconception(
            "the real tokens are added to the padded ones; take them off.",
            lambda *arguments: 2 - _padding_share(*arguments),
        ),
        Misconception(
            "the fraction is upside down: the share is padding divided by all.",
            _upside_down,
        ),
        Misconception(
            "all tokens are divided by the real ones. It is the real ones, divided by all, that "
            "are taken from 1.",
            lambda *arguments: -_of_real_tokens(*arguments),
        ),
        Misconception(
            "a padded batch has as many tokens as it has texts times its longest, not plus it.",
            lambda lengths, batch_size, by_length: _padding_share(
                lengths, batch_size, by_length, lambda batch: len(batch) + max(batch)
            ),
        ),
    ),
    first_step="Cut the lengths into batches; a padded batch has len(batch) * max(batch) tokens.",
)
