"""Solutions and planted bugs for the exercises of lesson 09."""

import numpy as np
import torch
from scipy.stats import kendalltau, spearmanr


def weight_on(weights, target):
    """Query by query."""
    found = []
    for query, keys in enumerate(target.tolist()):
        places = [key for key, wanted in enumerate(keys) if wanted]
        if places:
            found.append(sum(weights[:, query, key] for key in places))
    return sum(found) / len(found)


def cells_alike(weights, target):
    cells = target.nonzero().tolist()
    return torch.stack([weights[:, q, k] for q, k in cells]).mean(0)


def best_target_only(weights, target):
    rows = [weights[:, q][:, keys].max(-1).values for q, keys in enumerate(target) if keys.any()]
    return torch.stack(rows, -1).mean(-1)


def means_of_targets(weights, target):
    rows = [weights[:, q][:, keys].mean(1) for q, keys in enumerate(target) if keys.any()]
    return torch.stack(rows, 1).mean(1)


def zeros_counted(weights, target):
    return torch.einsum("hqk,qk->h", weights, target.float()) / len(target)


def summed_queries(weights, target):
    return torch.einsum("hqk,qk->h", weights, target.float())


def mean_over_keys(weights, target):
    asks = target.sum(1) > 0
    return torch.where(target, weights, 0.0)[:, asks].mean((1, 2))


def elsewhere(weights, target):
    return 1 - weight_on(weights, target)


def word_weights(weights, word_ids):
    """Cell by cell, with dictionaries."""
    pieces = {}
    for piece, word in enumerate(word_ids):
        if word is not None:
            pieces.setdefault(word, []).append(piece)
    n = len(pieces)
    joined = torch.zeros(len(weights), n, n)
    for one, queries in pieces.items():
        for other, keys in pieces.items():
            for query in queries:
                joined[:, one, other] += weights[:, query, keys].sum(-1) / len(queries)
    return joined


def reduced(rows, columns):
    """A bug in how the pieces of a word are joined; both take a tensor and a dimension."""

    def bug(weights, word_ids):
        words = sorted({word for word in word_ids if word is not None})
        chosen = [[i for i, its in enumerate(word_ids) if its == word] for word in words]
        keys = torch.stack([columns(weights[:, :, some], 2) for some in chosen], 2)
        return torch.stack([rows(keys[:, some], 1) for some in chosen], 1)

    return bug


def multiplied(weights, word_ids):
    pieces = torch.tensor(word_ids[1:-1]).bincount()[:, None]
    return word_weights(weights, word_ids) * pieces**2


def picked(place):
    def bug(weights, word_ids):
        words = sorted({word for word in word_ids if word is not None})
        chosen = [[i for i, w in enumerate(word_ids) if w == word][place] for word in words]
        return weights[:, chosen][:, :, chosen]

    return bug


def with_specials(weights, word_ids):
    renamed = [word_ids[i] for i in range(1, len(word_ids) - 1)]
    n = max(renamed)
    return word_weights(weights, [0, *(word + 1 for word in renamed), n + 2])


def normalised(weights, word_ids):
    return torch.nn.functional.normalize(word_weights(weights, word_ids), p=1, dim=-1)


def rank_agreement(first, second):
    """By the formula for ranks without ties."""
    ranks = [[sum(y < x for y in scores) for x in scores] for scores in (first, second)]
    n = len(first)
    squares = sum(float(a - b) ** 2 for a, b in zip(*ranks, strict=True))
    return torch.tensor(1 - 6 * squares / (n * (n * n - 1)))


def pearson(first, second):
    return torch.tensor(np.corrcoef(first, second)[0, 1])


def orders(first, second):
    return pearson(*(scores.numpy().argsort() for scores in (first, second)))


def ranked(values):
    return np.array([int((values < value).sum()) for value in values])


def half_off(first, second):
    one, other = (ranked(scores) - len(scores) / 2 for scores in (first, second))
    return (one * other).sum() / np.sqrt((one**2).sum() * (other**2).sum())


def by_squares(first, second):
    n = len(first)
    gaps = ranked(first) - ranked(second)
    return 1 - 6 * float((gaps**2).sum()) / n / (n - 1)


def uncentred(first, second):
    ranks = [scores.numpy().argsort().argsort() for scores in (first, second)]
    norms = [np.sqrt((r * r).sum()) for r in ranks]
    return torch.tensor((ranks[0] * ranks[1]).sum() / norms[0] / norms[1])


def upside_down(first, second):
    return torch.tensor(spearmanr(first, -second).statistic)


def unsigned(first, second):
    return torch.tensor(spearmanr(abs(first), abs(second)).statistic)


def same_ranks(first, second):
    ranks = [scores.argsort().argsort() for scores in (first, second)]
    return sum(a == b for a, b in zip(*ranks, strict=True)) / len(first)


def kendall(first, second):
    return torch.tensor(kendalltau(first, second).statistic)


def covariance(first, second):
    ranks = [scores.argsort().argsort().double() for scores in (first, second)]
    centred = [r - r.mean() for r in ranks]
    return (centred[0] * centred[1]).sum() / (len(first) - 1)


def slope(f, at):
    """The gradient of f, by autograd."""
    at = at.clone().requires_grad_()
    f(at).backward()
    return at.grad


def way(points, factor, start=None):
    """Gradients at these shares of the way, each times a factor of x and the baseline.

    points: from the number of steps to the shares.   start: from the baseline to where it begins.
    """

    def attributions(f, x, baseline, steps):
        begin = baseline if start is None else start(baseline)
        slopes = [slope(f, torch.lerp(begin, x, share)) for share in points(steps)]
        return torch.stack(slopes).mean(0) * factor(x, baseline)

    return attributions


def middles(steps):
    return ((np.arange(steps) + 0.5) / steps).tolist()


def moved(x, baseline):
    return x - baseline


integrated_gradients = way(middles, moved)


def summed_steps(f, x, baseline, steps):
    return sum(slope(f, torch.lerp(baseline, x, p)) * (x - baseline) for p in middles(steps))


def head_importance(weights, gradient):
    """With one product for each text and head."""
    found = torch.zeros(weights.size(1))
    for one, its in zip(weights, gradient, strict=True):
        for head in range(len(found)):
            found[head] += torch.dot(one[head].flatten(), its[head].flatten()).abs()
    return found / len(weights)


def gates(weights, gradient):
    return torch.einsum("bhqk,bhqk->bh", weights, gradient)


SOLUTIONS = {
    "weight_on": weight_on,
    "word_weights": word_weights,
    "rank_agreement": rank_agreement,
    "integrated_gradients": integrated_gradients,
    "head_importance": head_importance,
}

# The same mistakes as in the catalogue, written another way: (exercise, bug, word of the diagnosis)
PLANTED = [
    ("weight_on", zeros_counted, "counted, with a zero"),
    ("weight_on", cells_alike, "mean over all target cells"),
    (
        "weight_on",
        lambda w, t: torch.where(t.transpose(0, 1), w, 0).sum(2)[:, t.sum(0) > 0].mean(1),
        "(key, query)",
    ),
    ("weight_on", mean_over_keys, "over the keys this takes the mean"),
    ("weight_on", summed_queries, "this is the sum over the queries"),
    ("weight_on", best_target_only, "only the one with the most weight"),
    ("weight_on", means_of_targets, "the mean over its targets"),
    (
        "weight_on",
        lambda w, t: torch.where(t, w, 0)[:, t.sum(1) == t.size(1)].sum(2).mean(1),
        "of which every key is a target",
    ),
    (
        "weight_on",
        lambda w, t: torch.einsum("hqk,qk->q", w, t.float())[t.any(1)] / len(w),
        "over the heads, so",
    ),
    ("weight_on", lambda w, t: sum(weight_on(w, t)) / len(w), "one number for all heads"),
    ("weight_on", elsewhere, "everything but the targets"),
    ("word_weights", reduced(torch.mean, torch.mean), "the mean over the pieces on both sides"),
    ("word_weights", reduced(torch.sum, torch.sum), "the sum on both sides"),
    ("word_weights", reduced(torch.sum, torch.mean), "the two sides are exchanged"),
    ("word_weights", picked(0), "only the first piece"),
    ("word_weights", picked(-1), "only the last piece"),
    ("word_weights", with_specials, "counted as words"),
    (
        "word_weights",
        lambda w, i: word_weights(w, [0, *i[1:-1], 0]),
        "pieces of the first word",
    ),
    (
        "word_weights",
        lambda w, i: word_weights(w, [i[-2], *i[1:-1], i[-2]]),
        "pieces of the last word",
    ),
    (
        "word_weights",
        lambda w, i: reduced(torch.sum, torch.sum)(w, i) / (len(i) - 2),
        "divided by the number of all pieces",
    ),
    ("word_weights", multiplied, "multiplied by how many pieces"),
    ("word_weights", normalised, "made to sum to one"),
    ("word_weights", lambda w, i: word_weights(w, i).transpose(1, 2), "rows and columns"),
    ("rank_agreement", pearson, "correlation of the scores themselves"),
    ("rank_agreement", orders, "an order, not ranks"),
    ("rank_agreement", lambda a, b: pearson(ranked(a), b), "only the first list is ranked"),
    ("rank_agreement", lambda a, b: pearson(a, ranked(b)), "only the second list is ranked"),
    (
        "rank_agreement",
        lambda a, b: pearson(ranked(a), b.numpy().argsort()),
        "of the second this takes the order",
    ),
    (
        "rank_agreement",
        lambda a, b: pearson(a.numpy().argsort(), ranked(b)),
        "of the first this takes the order",
    ),
    ("rank_agreement", half_off, "n / 2 is taken off"),
    ("rank_agreement", by_squares, "with the squares of the gaps"),
    ("rank_agreement", lambda a, b: 1 / pearson(ranked(a), ranked(b)), "never below -1 or above 1"),
    ("rank_agreement", uncentred, "the mean of the ranks is not taken off"),
    ("rank_agreement", upside_down, "the sign is wrong"),
    ("rank_agreement", unsigned, "lose their sign"),
    ("rank_agreement", same_ranks, "exactly the same rank"),
    ("rank_agreement", kendall, "Kendall's measure"),
    ("rank_agreement", covariance, "the covariance of the ranks"),
    ("integrated_gradients", way(middles, lambda x, b: 1), "this is the mean gradient"),
    ("integrated_gradients", way(middles, lambda x, b: x), "multiplied by x."),
    ("integrated_gradients", way(lambda n: [1.0], moved), "taken at x alone"),
    ("integrated_gradients", lambda f, x, b, n: slope(f, x) * x, "the gradient at x times x"),
    (
        "integrated_gradients",
        way(lambda n: [(i + 1) / (n + 1) for i in range(n)], moved),
        "your points stand at 0.2, 0.4, 0.6, 0.8 of the way",
    ),
    ("integrated_gradients", way(middles, lambda x, b: x + b), "the points are right"),
    (
        "integrated_gradients",
        way(middles, moved, lambda b: b + 1),
        "some points are not on the straight way",
    ),
    ("integrated_gradients", lambda f, x, b, n: (x - b) / n, "does not depend on f"),
    ("integrated_gradients", summed_steps, "not divided by steps"),
    ("integrated_gradients", way(middles, moved, torch.zeros_like), "between zero and x"),
    ("integrated_gradients", way(middles, lambda x, b: b - x), "the sign is wrong"),
    (
        "integrated_gradients",
        way(lambda n: (np.arange(n) / n).tolist(), moved),
        "the beginning of each step",
    ),
    (
        "integrated_gradients",
        way(lambda n: (np.arange(1, n + 1) / n).tolist(), moved),
        "the end of each step",
    ),
    (
        "integrated_gradients",
        way(lambda n: np.linspace(0, 1, n).tolist(), moved),
        "both ends among them",
    ),
    (
        "head_importance",
        lambda w, g: (w * g).flatten(2).norm(p=1, dim=-1).mean(0),
        "taken of each cell",
    ),
    ("head_importance", lambda w, g: abs(gates(w, g).mean(0)), "after the mean over the texts"),
    ("head_importance", lambda w, g: gates(w, g).sum(0) / len(w), "no absolute value"),
    ("head_importance", lambda w, g: gates(torch.ones_like(w), g).abs().mean(0), "gradient alone"),
    ("head_importance", lambda w, g: w.flatten(2).sum(-1).mean(0), "all heads seem to be alike"),
    (
        "head_importance",
        lambda w, g: head_importance(w, g) / w[0, 0].numel(),
        "a long text counts for less",
    ),
    ("head_importance", lambda w, g: gates(w, g).norm(p=1, dim=0), "the sum over the texts"),
    ("head_importance", lambda w, g: gates(w, g).abs().mean(), "one number for all heads"),
]
