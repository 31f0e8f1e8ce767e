"""The exercises of lesson 09, with the mistakes that their checks recognise."""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from attnviz.lessons.attempt import is_result, tried
from attnviz.lessons.drawing import Draw, drawn
from attnviz.lessons.exercise import Exercise, Misconception


def _weights(seed: int, *shape: int) -> Tensor:
    """Weights whose rows sum to one, of this shape."""
    generator = torch.Generator().manual_seed(seed)
    return (2 * torch.randn(*shape, generator=generator)).softmax(-1)


def _targets(*rows: str) -> Tensor:
    """Which keys each query asks for, (query, key), from rows such as "x.x"."""
    return torch.tensor([[mark == "x" for mark in row] for row in rows])


def _pattern(draw: Draw) -> tuple[Tensor, Tensor]:
    """As many queries as keys or not: in the lesson [CLS] and [SEP] do not ask."""
    heads, queries, keys = draw.sizes(3)
    target = draw.allowed(queries, keys, share=0.3)
    target[draw.sample(range(queries), queries // 3)] = False
    return _weights(draw.randrange(1000), heads, queries, keys), target


def _on_target(weights: Tensor, target: Tensor) -> Tensor:
    """The weight of each query on its target keys, (heads, query)."""
    return (weights * target).sum(-1)


def _mean_of_askers(values: Tensor, target: Tensor) -> Tensor:
    """The mean over the queries that have a target: (heads, query) to (heads,)."""
    return values[:, target.any(-1)].mean(-1)


def _weight_on(weights: Tensor, target: Tensor) -> Tensor:
    return _mean_of_askers(_on_target(weights, target), target)


weight_on = Exercise(
    name="weight_on",
    reference=_weight_on,
    cases=(
        (_weights(0, 3, 4, 4), _targets("x.x.", "....", ".x..", "xxx.")),
        (_weights(1, 2, 5, 5), _targets(".....", "x....", "xx...", "..x.x", ".....")),
        (_weights(2, 4, 3, 3), _targets("...", "..x", "xx.")),
        (_weights(3, 5, 2, 3), _targets("xxx", ".x.")),
        *drawn(8, _pattern),
    ),
    misconceptions=(
        Misconception(
            "the queries that have no target are counted, with a zero. A head that always looks at "
            "the other place where a word stands would get little for it, as few words stand "
            "twice. Take the mean over target.any(-1).",
            lambda weights, target: _on_target(weights, target).mean(-1),
        ),
        Misconception(
            "this is the mean over all target cells, so two targets of one query count as two "
            "halves. First add up each query's weight on its targets, then take the mean over the "
            "queries.",
            lambda weights, target: weights[:, target].mean(-1),
        ),
        Misconception(
            "target is taken the wrong way round, (key, query).",
            lambda weights, target: _weight_on(weights, target.T),
        ),
        Misconception(
            "over the keys this takes the mean, so the result depends on how long the sentence is. "
            "A query shares out one unit of weight: add up what falls on the targets.",
            lambda weights, target: _weight_on(weights, target) / target.size(1),
        ),
        Misconception(
            "this is the sum over the queries; a longer sentence would have more of it. Take the "
            "mean.",
            lambda weights, target: _on_target(weights, target).sum(-1),
        ),
        Misconception(
            "of each query's targets only the one with the most weight counts. What falls on the "
            "others is weight on a target, too.",
            lambda weights, target: _mean_of_askers((weights * target).amax(-1), target),
        ),
        Misconception(
            "of each query this takes the mean over its targets. What falls on them is its weight "
            "on targets: add up.",
            lambda weights, target: _mean_of_askers(
                _on_target(weights, target) / target.sum(-1), target
            ),
        ),
        Misconception(
            "only those queries count of which every key is a target. One target is enough: "
            "target.any(-1).",
            lambda weights, target: _on_target(weights, target)[:, target.all(-1)].mean(-1),
        ),
        Misconception(
            "the mean is taken over the heads, so there is a number for each query. Take it over "
            "the queries, and each head gets its own.",
            lambda weights, target: _on_target(weights, target)[:, target.any(-1)].mean(0),
        ),
        Misconception(
            "this is one number for all heads. Keep the first dimension: each head gets its own.",
            lambda weights, target: _weight_on(weights, target).mean(),
        ),
        Misconception(
            "this is the weight on everything but the targets.",
            lambda weights, target: _mean_of_askers(_on_target(weights, ~target), target),
        ),
    ),
    first_step="(weights * target).sum(-1) is (heads, query); which queries have a target at all?",
)


def _members(word_ids: list[int | None], of: Callable[[list[int]], list[int]] = list) -> Tensor:
    """Which pieces belong to which word, (word, piece); of: chooses among a word's pieces."""
    n = max(word for word in word_ids if word is not None) + 1
    members = torch.zeros(n, len(word_ids))
    for word in range(n):
        members[word, of([i for i, its in enumerate(word_ids) if its == word])] = 1
    return members


def _join(weights: Tensor, rows: Tensor, columns: Tensor) -> Tensor:
    """rows, columns: (word, piece), how the queries and the keys of a word are added up."""
    return rows @ weights @ columns.T


def _mean(members: Tensor) -> Tensor:
    return members / members.sum(1, keepdim=True)


def _word_weights(weights: Tensor, word_ids: list[int | None]) -> Tensor:
    members = _members(word_ids)
    return _join(weights, _mean(members), members)


def _with(rows: Callable[[Tensor], Tensor], columns: Callable[[Tensor], Tensor]) -> Callable:
    def wrong(weights: Tensor, word_ids: list[int | None]) -> Tensor:
        members = _members(word_ids)
        return _join(weights, rows(members), columns(members))

    return wrong


def _one_piece(of: Callable[[list[int]], list[int]]) -> Callable:
    def wrong(weights: Tensor, word_ids: list[int | None]) -> Tensor:
        members = _members(word_ids, of)
        return _join(weights, members, members)

    return wrong


def _specials_too(weights: Tensor, word_ids: list[int | None]) -> Tensor:
    """[CLS] as the first word, [SEP] as the last."""
    last = max(word for word in word_ids if word is not None) + 2
    shifted = [word + 1 if word is not None else last for word in word_ids]
    return _word_weights(weights, [0, *shifted[1:]])


def _specials_as_last(weights: Tensor, word_ids: list[int | None]) -> Tensor:
    last = max(word for word in word_ids if word is not None)
    return _word_weights(weights, [last if word is None else word for word in word_ids])


def _sum_to_one(weights: Tensor, word_ids: list[int | None]) -> Tensor:
    joined = _word_weights(weights, word_ids)
    return joined / joined.sum(-1, keepdim=True)


def _same(members: Tensor) -> Tensor:
    return members


def _sentence(draw: Draw) -> tuple[Tensor, list[int | None]]:
    heads, words = draw.sizes(2, range(2, 6))
    word_ids = [word for word in range(words) for _ in range(draw.randint(1, 3))]
    n = len(word_ids) + 2
    return _weights(draw.randrange(1000), heads, n, n), [None, *word_ids, None]


word_weights = Exercise(
    name="word_weights",
    reference=_word_weights,
    cases=(
        (_weights(3, 2, 6, 6), [None, 0, 1, 1, 2, None]),
        (_weights(4, 3, 8, 8), [None, 0, 0, 0, 1, 2, 2, None]),
        (_weights(5, 1, 5, 5), [None, 0, 1, 1, None]),
        *drawn(8, _sentence),
    ),
    misconceptions=(
        Misconception(
            "this is the mean over the pieces on both sides. What a query gives to a word is what "
            "it gives to all its pieces together: on the side of the keys, add up.",
            _with(_mean, _mean),
        ),
        Misconception(
            "this is the sum on both sides, so a word of three pieces has three units of weight to "
            "give. Of the queries take the mean.",
            _with(_same, _same),
        ),
        Misconception(
            "the two sides are exchanged: the queries are added up, and of the keys the mean is "
            "taken.",
            _with(_same, _mean),
        ),
        Misconception(
            "only the first piece of each word is looked at, as lesson 08 did with labels. Here "
            "weight that falls on the other pieces would be lost.",
            _one_piece(lambda pieces: pieces[:1]),
        ),
        Misconception(
            "only the last piece of each word is looked at; the weight on the others is lost.",
            _one_piece(lambda pieces: pieces[-1:]),
        ),
        Misconception(
            "[CLS] and [SEP] are counted as words. Their id is None: leave them out.",
            _specials_too,
        ),
        Misconception(
            "[CLS] and [SEP] are counted as pieces of the first word. Their id is None: leave them "
            "out.",
            lambda weights, word_ids: _word_weights(weights, [word or 0 for word in word_ids]),
        ),
        Misconception(
            "[CLS] and [SEP] are counted as pieces of the last word. Their id is None: leave them "
            "out.",
            _specials_as_last,
        ),
        Misconception(
            "of the queries this is no mean: the sum is divided by the number of all pieces. "
            "Divide by how many pieces the word has.",
            _with(lambda members: members / members.sum(), _same),
        ),
        Misconception(
            "what a word gives is multiplied by how many pieces it has. Divide by that: the mean "
            "of its pieces is asked for.",
            _with(lambda members: members * members.sum(1, keepdim=True), _same),
        ),
        Misconception(
            "the rows are made to sum to one. What falls on [CLS] and [SEP] is part of what a head "
            "does: a row may sum to less.",
            _sum_to_one,
        ),
        Misconception(
            "rows and columns are exchanged: the first of the two is the word that looks.",
            lambda weights, word_ids: _word_weights(weights, word_ids).mT,
        ),
    ),
    first_step="Build a matrix (word, piece) with a 1 where a piece belongs to a word.",
)


def _numbers(seed: int, n: int) -> tuple[Tensor, Tensor]:
    """Two lists of scores that agree in part, without ties; one has a far larger number."""
    generator = torch.Generator().manual_seed(seed)
    first = torch.randn(n, generator=generator)
    second = 0.7 * first + 0.6 * torch.randn(n, generator=generator) - 0.2
    second[n // 2] *= 8
    return first, second


def _drawn_numbers(draw: Draw) -> tuple[Tensor, Tensor]:
    first, second = _numbers(draw.randrange(1000), draw.randint(3, 12))
    return first + draw.choice([-1, 0, 2]), draw.choice([-1, 1, 20]) * second


def _ranks(scores: Tensor) -> Tensor:
    return scores.argsort().argsort().double()


def _correlation(first: Tensor, second: Tensor) -> Tensor:
    return torch.corrcoef(torch.stack([first, second]).double())[0, 1]


def _rank_agreement(first: Tensor, second: Tensor) -> Tensor:
    return _correlation(_ranks(first), _ranks(second))


def _without_the_square(first: Tensor, second: Tensor) -> Tensor:
    n = len(first)
    return 1 - 6 * (_ranks(first) - _ranks(second)).pow(2).sum() / (n * (n - 1))


def _pairs(first: Tensor, second: Tensor) -> Tensor:
    n = len(first)
    signs = [(one[:, None] - one).sign() for one in (first, second)]
    return (signs[0] * signs[1]).sum() / (n * (n - 1))


class _Correlation(Exercise):
    def _seen(self, pairs: list[tuple[Any, Any]]) -> str | None:
        seen = super()._seen(pairs)
        if seen is None and any((abs(yours.array) > 1.0001).any() for yours, _ in pairs):
            return "a correlation is never below -1 or above 1."
        return seen


rank_agreement = _Correlation(
    name="rank_agreement",
    reference=_rank_agreement,
    cases=(
        _numbers(0, 7),
        _numbers(1, 10),
        _numbers(2, 6),
        _numbers(3, 15),
        *drawn(8, _drawn_numbers),
    ),
    misconceptions=(
        Misconception(
            "this is the correlation of the scores themselves: one huge score decides it. Replace "
            "each score by its rank first.",
            _correlation,
        ),
        Misconception(
            "argsort() says which token comes first, which second, and so on; that is an order, "
            "not ranks. The rank of each token is argsort().argsort().",
            lambda first, second: _correlation(first.argsort(), second.argsort()),
        ),
        Misconception(
            "only the first list is ranked. Rank the second, too.",
            lambda first, second: _correlation(_ranks(first), second),
        ),
        Misconception(
            "only the second list is ranked. Rank the first, too.",
            lambda first, second: _correlation(first, _ranks(second)),
        ),
        Misconception(
            "the first list is ranked, but of the second this takes the order: argsort() once. "
            "Ranks are argsort().argsort().",
            lambda first, second: _correlation(_ranks(first), second.argsort()),
        ),
        Misconception(
            "the second list is ranked, but of the first this takes the order: argsort() once. "
            "Ranks are argsort().argsort().",
            lambda first, second: _correlation(first.argsort(), _ranks(second)),
        ),
        Misconception(
            "n / 2 is taken off, but the ranks begin at 0, so their mean is (n - 1) / 2.",
            lambda first, second: torch.cosine_similarity(
                *(_ranks(scores) - len(scores) / 2 for scores in (first, second)), dim=0
            ),
        ),
        Misconception(
            "in the formula with the squares of the gaps, six times their sum is divided by "
            "n · (n² - 1).",
            _without_the_square,
        ),
        Misconception(
            "the mean of the ranks is not taken off: so any two lists seem to agree. Take it off "
            "before you multiply.",
            lambda first, second: torch.cosine_similarity(_ranks(first), _ranks(second), 0),
        ),
        Misconception(
            "one list is ranked from the top, the other from the bottom: the sign is wrong.",
            lambda first, second: -_rank_agreement(first, second),
        ),
        Misconception(
            "the scores lose their sign before they are ranked. A token that speaks against the "
            "verdict belongs at the end, not at the top.",
            lambda first, second: _rank_agreement(first.abs(), second.abs()),
        ),
        Misconception(
            "this is the share of the tokens that have exactly the same rank in both lists. A "
            "rank that is off by one is nearly right.",
            lambda first, second: (_ranks(first) == _ranks(second)).double().mean(),
        ),
        Misconception(
            "this is Kendall's measure, which counts pairs in the same order. It is a good one, "
            "but here Spearman's is asked for: the correlation of the ranks.",
            _pairs,
        ),
        Misconception(
            "this is the covariance of the ranks: divide by both standard deviations, so that it "
            "ends between -1 and 1.",
            lambda first, second: torch.stack([_ranks(first), _ranks(second)]).cov()[0, 1],
        ),
    ),
    first_step="scores.argsort().argsort() holds the rank of each score, from 0.",
)


def _curved(vectors: Tensor) -> Tensor:
    return torch.tanh(vectors[0] * vectors[1]) + vectors.pow(3).sum() / 5


def _steep(vectors: Tensor) -> Tensor:
    return torch.sigmoid(3 * vectors.sum()) * vectors[..., 0].sum()


def _uneven(vectors: Tensor) -> Tensor:
    """Depends on each number in another way."""
    places = torch.arange(1.0, 1 + vectors.numel()).view(vectors.shape)
    return (places * vectors).sum().sin() + (vectors**2 / places).sum()


def _way(draw: Draw) -> tuple[Callable, Tensor, Tensor, int]:
    n_dimensions = draw.randint(1, 3)
    shape = draw.sizes(n_dimensions, range(1, 5))
    x, baseline = draw.tensor(*shape), draw.tensor(*shape, scale=0.5)
    return draw.choice([_steep, _uneven]), x, baseline, draw.randint(2, 7)


def _points(steps: int, shift: float) -> list[float]:
    """How far along the way each gradient is taken; shift: 0.5 is the middle of each step."""
    return [(i + shift) / steps for i in range(steps)]


def _mean_gradient(
    f: Callable[[Tensor], Tensor], x: Tensor, baseline: Tensor, points: Sequence[float]
) -> Tensor:
    total = torch.zeros_like(x)
    for point in points:
        between = (baseline + point * (x - baseline)).detach().requires_grad_()
        total += torch.autograd.grad(f(between), between)[0]
    return total / len(points)


def _integrated(f: Callable, x: Tensor, baseline: Tensor, points: Sequence[float]) -> Tensor:
    return (x - baseline) * _mean_gradient(f, x, baseline, points)


def _integrated_gradients(f: Callable, x: Tensor, baseline: Tensor, steps: int) -> Tensor:
    return _integrated(f, x, baseline, _points(steps, 0.5))


def _from_zero(f: Callable, x: Tensor, baseline: Tensor, steps: int) -> Tensor:
    nothing = torch.zeros_like(x)
    return (x - baseline) * _mean_gradient(f, x, nothing, _points(steps, 0.5))


class _AlongTheWay(Exercise):
    """Says, of what it cannot explain, at which points f is asked."""

    def _observed(self, attempt: Callable, yours: list[Any], right: list[Any]) -> str | None:
        seen = super()._observed(attempt, yours, right)
        return seen or (_seen_of_points(attempt, self.cases[0]) if is_result(yours[0]) else None)


def _seen_of_points(attempt: Callable, case: tuple) -> str | None:
    f, x, baseline, steps = case
    asked: list[Tensor] = []

    def listening(vectors: Tensor) -> Tensor:
        asked.append(torch.tensor(vectors.detach().tolist()))
        return f(vectors)

    outcome = tried(attempt, (listening, x, baseline, steps))
    if not is_result(outcome) or not asked:  # some ways of asking cannot be listened to
        return None
    if any(point.shape != x.shape for point in asked):
        return "f is not asked about tensors of the shape of x."
    way = x - baseline
    shares = sorted(float(((point - baseline) * way).sum() / (way * way).sum()) for point in asked)
    between = {share: baseline + share * way for share in shares}.values()
    if not all(any(torch.allclose(p, b, atol=1e-4) for b in between) for p in asked):
        return "some points are not on the straight way from the baseline to x."
    if len(shares) != steps or not np.allclose(shares, _points(steps, 0.5), atol=1e-4):
        return (
            f"with {steps} steps your points stand at {_listed(shares)} of the way from the "
            f"baseline to x, where {_listed(_points(steps, 0.5))} is right."
        )
    return "the points are right; look at what becomes of the gradients."


def _listed(shares: Sequence[float]) -> str:
    return ", ".join(f"{share:.3g}" for share in shares[:6]) + ", …" * (len(shares) > 6)


integrated_gradients = _AlongTheWay(
    name="integrated_gradients",
    reference=_integrated_gradients,
    cases=(
        (_curved, torch.tensor([1.0, -2.0, 0.5]), torch.tensor([0.2, 0.1, -0.3]), 4),
        (_steep, torch.tensor([[0.5, -0.2], [0.9, 0.4]]), torch.full((2, 2), -0.25), 5),
        (_curved, torch.tensor([-1.0, 1.5]), torch.tensor([0.5, -0.5]), 3),
        *drawn(8, _way),
    ),
    misconceptions=(
        Misconception(
            "this is the mean gradient, how steep the way is. Multiply it by how far each number "
            "went, x - baseline.",
            lambda f, x, baseline, steps: _mean_gradient(f, x, baseline, _points(steps, 0.5)),
        ),
        Misconception(
            "the mean gradient is multiplied by x. The way began at the baseline, not at zero: "
            "multiply by x - baseline.",
            lambda f, x, baseline, steps: x * _mean_gradient(f, x, baseline, _points(steps, 0.5)),
        ),
        Misconception(
            "this is the gradient at x times x. Take the mean of the gradients on the way from the "
            "baseline to x, and multiply it by x - baseline.",
            lambda f, x, baseline, steps: x * _mean_gradient(f, x, baseline, [1.0]),
        ),
        Misconception(
            "the gradient is taken at x alone. There it may be flat although the way there was "
            "steep: take it at points between the baseline and x.",
            lambda f, x, baseline, steps: _integrated(f, x, baseline, [1.0]),
        ),
        Misconception(
            "the gradients are added up and not divided by steps: more steps would give more.",
            lambda f, x, baseline, steps: steps * _integrated_gradients(f, x, baseline, steps),
        ),
        Misconception(
            "the points lie between zero and x. The way begins at the baseline: "
            "baseline + share * (x - baseline).",
            _from_zero,
        ),
        Misconception(
            "the sign is wrong: the way leads from the baseline to x, so x - baseline.",
            lambda f, x, baseline, steps: -_integrated_gradients(f, x, baseline, steps),
        ),
        Misconception(
            "the points stand at the beginning of each step, the first at the baseline itself. In "
            "the middle, at (k + 0.5) / steps, they are right with far fewer steps.",
            lambda f, x, baseline, steps: _integrated(f, x, baseline, _points(steps, 0)),
        ),
        Misconception(
            "the points stand at the end of each step, the last at x itself. In the middle, at "
            "(k + 0.5) / steps, they are right with far fewer steps.",
            lambda f, x, baseline, steps: _integrated(f, x, baseline, _points(steps, 1)),
        ),
        Misconception(
            "the points run from the baseline to x with both ends among them. Take the middle of "
            "each step, (k + 0.5) / steps.",
            lambda f, x, baseline, steps: _integrated(
                f, x, baseline, torch.linspace(0, 1, steps).tolist()
            ),
        ),
    ),
    first_step="For k = 0 the point is baseline + 0.5 / steps * (x - baseline): its gradient?",
)


def _gradients(seed: int, *shape: int) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(100 + seed)
    return _weights(seed, *shape), torch.randn(*shape, generator=generator)


def _drawn_gradients(draw: Draw) -> tuple[Tensor, Tensor]:
    weights, gradient = _gradients(draw.randrange(1000), *draw.sizes(4, range(1, 7)))
    return weights, draw.choice([1, 3]) * gradient


def _along(weights: Tensor, gradient: Tensor) -> Tensor:
    """What a gate on the head would change, (batch, heads)."""
    return (weights * gradient).sum((2, 3))


def _head_importance(weights: Tensor, gradient: Tensor) -> Tensor:
    return _along(weights, gradient).abs().mean(0)


head_importance = Exercise(
    name="head_importance",
    reference=_head_importance,
    cases=(
        _gradients(0, 4, 3, 5, 5),
        _gradients(1, 6, 2, 4, 4),
        _gradients(2, 3, 5, 3, 3),
        *drawn(8, _drawn_gradients),
    ),
    misconceptions=(
        Misconception(
            "the absolute value is taken of each cell. Within one text, cells that pull both ways "
            "do cancel out: first add up over queries and keys.",
            lambda weights, gradient: (weights * gradient).abs().sum((2, 3)).mean(0),
        ),
        Misconception(
            "the absolute value is taken after the mean over the texts. A head that pulls one text "
            "up and another down matters for both: here the two cancel out.",
            lambda weights, gradient: _along(weights, gradient).mean(0).abs(),
        ),
        Misconception(
            "there is no absolute value. A head may matter for better or for worse, and here the "
            "two cancel out.",
            lambda weights, gradient: _along(weights, gradient).mean(0),
        ),
        Misconception(
            "the weights are left out: this is the gradient alone, also where the head does not "
            "look at all.",
            lambda weights, gradient: gradient.sum((2, 3)).abs().mean(0),
        ),
        Misconception(
            "the gradient is left out. The weights of each row sum to one, so all heads seem to be "
            "alike.",
            lambda weights, gradient: weights.sum((2, 3)).abs().mean(0),
        ),
        Misconception(
            "over the queries and keys this is the mean, so a long text counts for less. A gate "
            "on a head closes on all of its cells: add up.",
            lambda weights, gradient: (weights * gradient).mean((2, 3)).abs().mean(0),
        ),
        Misconception(
            "this is the sum over the texts; take the mean.",
            lambda weights, gradient: _along(weights, gradient).abs().sum(0),
        ),
        Misconception(
            "this is one number for all heads. Sum over the last two dimensions and take the mean "
            "over the first: (heads,) is left.",
            lambda weights, gradient: _along(weights, gradient).abs().mean(),
        ),
    ),
    first_step="(weights * gradient).sum((2, 3)) is (batch, heads); now the texts are left.",
)
