"""Right answers to the exercises of lesson 09 in several styles, and inputs to judge others on."""

from collections.abc import Callable

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from attnviz.lessons.drawing import Draw


def weight_on_query_by_query(weights: Tensor, target: Tensor) -> Tensor:
    total, asking = 0, 0
    for query in range(target.shape[0]):
        if target[query].any():
            total = total + weights[:, query, target[query]].sum(dim=1)
            asking += 1
    return total / asking


def weight_on_in_numpy(weights: Tensor, target: Tensor) -> np.ndarray:
    on_target = np.where(target.numpy(), weights.numpy(), 0).sum(axis=2)
    asks = target.numpy().sum(axis=1) > 0
    return on_target[:, asks].mean(axis=1)


def weight_on_by_einsum(weights: Tensor, target: Tensor) -> Tensor:
    wanted = target.float()
    asking = (wanted.sum(-1) > 0).sum()
    return torch.einsum("hqk,qk->h", weights, wanted) / asking


def weight_on_by_loops(weights: Tensor, target: Tensor) -> Tensor:
    found = []
    for head in weights.tolist():
        total, asking = 0.0, 0
        for query, wanted in enumerate(target.tolist()):
            if any(wanted):
                asking += 1
                total += sum(head[query][key] for key, asked in enumerate(wanted) if asked)
        found.append(total / asking)
    return torch.tensor(found)


def weight_on_in_half_precision(weights: Tensor, target: Tensor) -> Tensor:
    kept = weights.half().masked_fill(~target, 0)
    return kept.sum(-1)[:, target.any(-1)].mean(-1)


def words_by_dictionary(weights: Tensor, word_ids: list[int | None]) -> Tensor:
    pieces: dict[int, list[int]] = {}
    for piece, word in enumerate(word_ids):
        if word is not None:
            pieces.setdefault(word, []).append(piece)
    rows = []
    for word in sorted(pieces):
        given = weights[:, pieces[word]].mean(1)
        rows.append(torch.stack([given[:, pieces[other]].sum(-1) for other in sorted(pieces)], -1))
    return torch.stack(rows, 1)


def words_in_numpy(weights: Tensor, word_ids: list[int | None]) -> np.ndarray:
    ids = np.array([-1 if word is None else word for word in word_ids])
    members = (ids == np.arange(ids.max() + 1)[:, None]).astype(float)
    shares = members / members.sum(1)[:, None]
    return np.einsum("wp,hpq,vq->hwv", shares, weights.numpy(), members)


def words_added_up(weights: Tensor, word_ids: list[int | None]) -> Tensor:
    inner = [i for i, word in enumerate(word_ids) if word is not None]
    word = torch.tensor([word_ids[i] for i in inner])
    n = int(word.max()) + 1
    between = weights[:, inner][:, :, inner]
    columns = torch.zeros(len(weights), len(inner), n).index_add(2, word, between)
    rows = torch.zeros(len(weights), n, n).index_add(1, word, columns)
    return rows / word.bincount()[:, None]


def words_in_half_precision(weights: Tensor, word_ids: list[int | None]) -> Tensor:
    members = F.one_hot(torch.tensor(word_ids[1:-1])).half()
    of_words = weights[:, 1:-1, 1:-1].half() @ members
    return (members / members.sum(0)).T @ of_words


def agreement_by_squares(first: Tensor, second: Tensor) -> Tensor:
    n = len(first)
    gaps = first.argsort().argsort() - second.argsort().argsort()
    return 1 - 6 * (gaps**2).sum() / (n * (n**2 - 1))


def agreement_by_places(first: Tensor, second: Tensor) -> Tensor:
    n = len(first)
    ranks = torch.zeros(2, n)
    ranks[0, first.argsort()] = torch.arange(1, n + 1).float()
    ranks[1, second.argsort()] = torch.arange(1, n + 1).float()
    return torch.corrcoef(ranks)[0, 1]


def agreement_in_numpy(first: Tensor, second: Tensor) -> float:
    ranks = [np.argsort(np.argsort(scores.numpy())) for scores in (first, second)]
    return np.corrcoef(*ranks)[0, 1]


def agreement_by_loops(first: Tensor, second: Tensor) -> float:
    ranks = []
    for scores in (first.tolist(), second.tolist()):
        ordered = sorted(scores)
        ranks.append([ordered.index(score) for score in scores])
    n, mean = len(first), (len(first) - 1) / 2
    together = sum((ranks[0][i] - mean) * (ranks[1][i] - mean) for i in range(n))
    return together / sum((rank - mean) ** 2 for rank in ranks[0])


def agreement_by_counting(first: Tensor, second: Tensor) -> Tensor:
    ranks = [(scores[:, None] > scores).sum(1).float() for scores in (first, second)]
    one, other = (r - r.mean() for r in ranks)
    return torch.cosine_similarity(one, other, dim=0)


def gradients_by_backward(f: Callable, x: Tensor, baseline: Tensor, steps: int) -> Tensor:
    total = torch.zeros_like(x)
    for k in range(steps):
        point = (baseline + (k + 0.5) / steps * (x - baseline)).requires_grad_()
        f(point).backward()
        total += point.grad
    return total / steps * (x - baseline)


def gradients_stacked(f: Callable, x: Tensor, baseline: Tensor, steps: int) -> Tensor:
    slopes = []
    for share in (torch.arange(steps) + 0.5) / steps:
        point = torch.lerp(baseline, x, share).requires_grad_()
        slopes.append(torch.autograd.grad(f(point), point)[0])
    return torch.stack(slopes).mean(0) * (x - baseline)


def gradients_by_function(f: Callable, x: Tensor, baseline: Tensor, steps: int) -> Tensor:
    way, slope = x - baseline, torch.func.grad(f)
    points = [baseline + (2 * k + 1) * way / (2 * steps) for k in range(steps)]
    return way * sum(map(slope, points)) / steps


def gradients_all_at_once(f: Callable, x: Tensor, baseline: Tensor, steps: int) -> Tensor:
    half = 0.5 / steps
    shares = torch.linspace(half, 1 - half, steps).view(steps, *[1] * x.ndim)
    points = (baseline + shares * (x - baseline)).requires_grad_()
    sum(f(point) for point in points).backward()
    return points.grad.mean(0) * (x - baseline)


def importance_by_einsum(weights: Tensor, gradient: Tensor) -> Tensor:
    return torch.einsum("bhqk,bhqk->bh", weights, gradient).abs().mean(0)


def importance_by_loops(weights: Tensor, gradient: Tensor) -> Tensor:
    n_texts, n_heads = weights.shape[:2]
    found = torch.zeros(n_heads)
    for head in range(n_heads):
        for text in range(n_texts):
            found[head] += abs((weights[text, head] * gradient[text, head]).sum())
    return found / n_texts


def importance_in_numpy(weights: Tensor, gradient: Tensor) -> np.ndarray:
    products = weights.numpy() * gradient.numpy()
    return np.abs(products.sum(axis=(2, 3))).mean(axis=0)


def importance_by_products(weights: Tensor, gradient: Tensor) -> Tensor:
    squares = weights.double() @ gradient.double().mT
    gates = squares.diagonal(dim1=2, dim2=3).sum(-1)
    return torch.where(gates < 0, -gates, gates).sum(0) / len(gates)


def _attention(draw: Draw, *shape: int) -> Tensor:
    return draw.tensor(*shape, scale=draw.choice([0.5, 2, 5])).softmax(-1)


def _patterns(draw: Draw) -> tuple[Tensor, Tensor]:
    heads, queries, keys = (draw.randint(1, 9) for _ in range(3))
    target = torch.zeros(queries, keys, dtype=torch.bool)
    for query in draw.sample(range(queries), draw.randint(1, queries)):
        target[query, draw.sample(range(keys), draw.randint(1, keys))] = True
    return _attention(draw, heads, queries, keys), target


def _pieces(draw: Draw) -> tuple[Tensor, list[int | None]]:
    words = [word for word in range(draw.randint(1, 7)) for _ in range(draw.choice([1, 1, 2, 4]))]
    n = len(words) + 2
    return _attention(draw, draw.randint(1, 4), n, n), [None, *words, None]


def _scores(draw: Draw) -> tuple[Tensor, Tensor]:
    n = draw.randint(2, 20)
    order = draw.sample(range(n), n)
    first = torch.linspace(draw.uniform(-3, 0), draw.uniform(0.5, 40), n)[order]
    second = draw.choice([-1, 0, 1, 1]) * first.sinh() + draw.tensor(n, scale=draw.choice([1, 9]))
    return first, second


def _on_the_way(draw: Draw) -> tuple[Callable, Tensor, Tensor, int]:
    shape = draw.choice([(1,), (4,), (2, 3), (3, 1), (1, 4, 2)])
    factors, power = draw.tensor(*shape), draw.choice([1, 2, 3])

    def f(vectors: Tensor) -> Tensor:
        return (factors * vectors).sum().sin() + (vectors**power * factors.cos()).mean()

    x, baseline = draw.tensor(*shape), draw.tensor(*shape, scale=draw.choice([0.3, 1]))
    return f, x, baseline, draw.randint(1, 9)


def _with_gradient(draw: Draw) -> tuple[Tensor, Tensor]:
    shape = [draw.randint(1, 6) for _ in range(4)]
    return _attention(draw, *shape), draw.tensor(*shape, scale=draw.choice([0.5, 3]))


RIGHT = {
    "weight_on": (
        weight_on_query_by_query,
        weight_on_in_numpy,
        weight_on_by_einsum,
        weight_on_by_loops,
        weight_on_in_half_precision,
    ),
    "word_weights": (
        words_by_dictionary,
        words_in_numpy,
        words_added_up,
        words_in_half_precision,
    ),
    "rank_agreement": (
        agreement_by_squares,
        agreement_by_places,
        agreement_in_numpy,
        agreement_by_loops,
        agreement_by_counting,
    ),
    "integrated_gradients": (
        gradients_by_backward,
        gradients_stacked,
        gradients_by_function,
        gradients_all_at_once,
    ),
    "head_importance": (
        importance_by_einsum,
        importance_by_loops,
        importance_in_numpy,
        importance_by_products,
    ),
}
INPUTS = {
    "weight_on": _patterns,
    "word_weights": _pieces,
    "rank_agreement": _scores,
    "integrated_gradients": _on_the_way,
    "head_importance": _with_gradient,
}

# Changed, and still right
EQUIVALENT = {
    "products and sums may change places": (
        "_head_importance: return _along(gradient, weights).abs().mean(0)",
        "_weight_on: return _mean_of_askers(_on_target(target, weights), target)",
        "importance_by_einsum: return torch.einsum('bhqk,bhqk->bh', gradient, "
        "weights).abs().mean(0)",
        "importance_by_products: return torch.where(gates <= 0, -gates, gates).sum(0) / len(gates)",
        "importance_by_products: squares = gradient.double().mT @ weights.double()",
        "importance_in_numpy: return np.abs(products.sum(axis=(3, 2))).mean(axis=0)",
    ),
    "what is there before is written over, and a row more is not read": (
        "agreement_by_places: ranks = torch.ones(2, n)",
        "agreement_by_places: ranks = torch.zeros(3, n)",
    ),
    "the correlation of two lists is that of the other with the one": (
        "_rank_agreement: return _correlation(_ranks(second), _ranks(first))",
        "agreement_by_counting: ranks = [(scores[:, None] > scores).sum(1).float() for "
        "scores in (second, first)]",
        "agreement_by_counting: return torch.cosine_similarity(other, one, dim=0)",
        "agreement_by_loops: for scores in (second.tolist(), first.tolist()):",
        "agreement_by_loops: return together / sum(((rank - mean) ** 2 for rank in ranks[1]))",
        "agreement_by_places: return torch.corrcoef(ranks)[1, 0]",
        "agreement_by_squares: gaps = second.argsort().argsort() - first.argsort().argsort()",
        "agreement_in_numpy: ranks = [np.argsort(np.argsort(scores.numpy())) for scores "
        "in (second, first)]",
        "agreement_in_numpy: return np.corrcoef(*ranks)[1, 0]",
    ),
    "both lists may be ranked from the top, or from another number": (
        "agreement_by_counting: one, other = (r.mean() - r for r in ranks)",
        "agreement_by_counting: ranks = [(scores[:, None] < scores).sum(1).float() for "
        "scores in (first, second)]",
        "agreement_by_counting: ranks = [(scores[:, None] > scores).sum(0).float() for "
        "scores in (first, second)]",
        "agreement_by_counting: ranks = [(scores[:, None] >= scores).sum(1).float() for "
        "scores in (first, second)]",
        "agreement_by_loops: return together / sum(((mean - rank) ** 2 for rank in ranks[0]))",
    ),
    "one dimension is the first and the last": (
        "agreement_by_counting: return torch.cosine_similarity(one, other, dim=-1)",
        "agreement_by_loops: return together / sum(((rank - mean) ** 2 for rank in ranks[-1]))",
        "gradients_stacked: slopes.append(torch.autograd.grad(f(point), point)[-1])",
    ),
    "a list, an array and a tensor hold the same": (
        "agreement_by_loops: for scores in (first, second.tolist()):",
        "agreement_by_loops: for scores in (first.tolist(), second):",
        "agreement_in_numpy: ranks = [np.argsort(np.argsort(scores)) for scores in "
        "(first, second)]",
        "importance_in_numpy: products = weights * gradient.numpy()",
        "weight_on_by_loops: for head in weights:",
        "weight_on_by_loops: for query, wanted in enumerate(target):",
        "weight_on_by_loops: return found",
        "weight_on_in_numpy: on_target = np.where(target, weights.numpy(), 0).sum(axis=2)",
        "weight_on_in_numpy: on_target = np.where(target.numpy(), weights, 0).sum(axis=2)",
        "words_in_numpy: return np.einsum('wp,hpq,vq->hwv', shares, weights, members)",
    ),
    "the sizes are the same": (
        "agreement_by_loops: n, mean = (len(first), (len(second) - 1) / 2)",
        "agreement_by_loops: n, mean = (len(second), (len(first) - 1) / 2)",
        "agreement_by_places: n = len(second)",
        "agreement_by_squares: n = len(second)",
        "gradients_all_at_once: shares = torch.linspace(half, 1 - half, "
        "steps).view(steps, *[1] * baseline.ndim)",
        "gradients_by_backward: total = torch.zeros_like(baseline)",
        "importance_by_loops: n_texts, n_heads = gradient.shape[:2]",
    ),
    "only one of the lists needs its mean taken off": (
        "agreement_by_loops: together = sum(((ranks[0][i] + mean) * (ranks[1][i] - mean) "
        "for i in range(n)))",
        "agreement_by_loops: together = sum(((ranks[0][i] - mean) * (ranks[1][i] + mean) "
        "for i in range(n)))",
        "agreement_by_loops: together = sum(((ranks[0][i] - mean) * ranks[1][i] for i in "
        "range(n)))",
        "agreement_by_loops: together = sum((ranks[0][i] * (ranks[1][i] - mean) for i in "
        "range(n)))",
    ),
    "the middles are the same from either end": (
        "gradients_all_at_once: shares = torch.linspace(1 - half, half, "
        "steps).view(steps, *[1] * x.ndim)",
        "gradients_stacked: point = torch.lerp(x, baseline, share).requires_grad_()",
    ),
    "to divide by a positive number leaves what is above zero": (
        "weight_on_by_einsum: asking = (wanted.mean(-1) > 0).sum()",
        "weight_on_in_numpy: asks = target.numpy().mean(axis=1) > 0",
    ),
    "0 and 0.0 are the same": ("weight_on_by_loops: total, asking = (0, 0.0)",),
    "single precision is as good as half": (
        "weight_on_in_half_precision: kept = weights.masked_fill(~target, 0)",
    ),
    "it is unchanged": (
        "weight_on_query_by_query: total, asking = (0, 0)",
        "words_added_up: between = weights[:, inner][:, :, inner]",
        "words_by_dictionary: pieces: dict[list[int], int] = {}",
        "words_in_half_precision: of_words = weights[:, 1:-1, 1:-1].half() @ members",
    ),
    "of two numbers, the order does not matter": (
        "words_added_up: n = word.max() + 1",
        "words_in_numpy: members = ids == np.arange(ids.max() + 1)[:, None]",
    ),
    "the words come in their order": (
        "words_by_dictionary: for word in pieces:",
        "words_by_dictionary: rows.append(torch.stack([given[:, pieces[other]].sum(-1) "
        "for other in pieces], -1))",
    ),
    "no word has this number": (
        "words_in_numpy: ids = np.array([-2 if word is None else word for word in word_ids])",
    ),
}
