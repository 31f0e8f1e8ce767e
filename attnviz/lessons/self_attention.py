"""The exercises of lesson 01, with the mistakes that their checks recognise."""

import torch
from torch import Tensor

from attnviz.layers import masks
from attnviz.layers.attention import attention_weights as _attention_weights
from attnviz.lessons.drawing import Draw, drawn
from attnviz.lessons.exercise import Exercise, Misconception


def _random(*shapes: tuple[int, ...]) -> tuple[Tensor, ...]:
    generator = torch.Generator().manual_seed(sum(map(sum, shapes)))
    return tuple(torch.randn(shape, generator=generator) for shape in shapes)


def _shares(exponentials: Tensor) -> Tensor:
    return exponentials / exponentials.sum(-1, keepdim=True)


def _divided_along_the_wrong_dimension(scores: Tensor) -> Tensor:
    exponentials = (scores - scores.amax(-1, keepdim=True)).exp()
    return exponentials / exponentials.sum(-1)


def _rows_far_apart(draw: Draw) -> tuple[Tensor]:
    n_queries, n_keys = draw.sizes(2)
    return (draw.tensor(n_queries, n_keys, scale=3) + draw.tensor(n_queries, 1, scale=300),)


def _keys_far_apart(draw: Draw) -> tuple[Tensor]:
    return (draw.tensor(*draw.sizes(2, among=range(2, 8)), scale=100),)


softmax = Exercise(
    name="softmax",
    reference=lambda scores: scores.softmax(-1),
    cases=(
        *(_random(s) for s in [(4, 4), (3, 5)]),
        (torch.tensor([[1000.0, 1001.0, 1002.0]]),),
        (torch.tensor([[60.0, 61.0], [-60.0, -62.0]]),),  # the exponential bears it, not its square
        (torch.tensor([[2.0, 0.0, 2.0], [300.0, 301.0, 299.0]]),),
        (torch.tensor([[120.3, 0.0, 119.9], [0.0, 900.0, -900.0]]),),
        *drawn(4, _rows_far_apart),
        *drawn(4, _keys_far_apart),
    ),
    misconceptions=(
        Misconception(
            "each column sums to one, but each row should: a row holds the scores of one query, "
            "and the sum must run over its keys (dim=-1, with keepdim=True).",
            lambda scores: scores.softmax(0),
        ),
        Misconception(
            "the whole matrix sums to one, but each row should: sum over dim=-1 with keepdim=True.",
            lambda scores: scores.flatten().softmax(0).view_as(scores),
        ),
        Misconception(
            "the sum over the keys has shape (query,), so it divides along the wrong dimension; "
            "keepdim=True keeps it a column.",
            lambda scores: scores.exp() / scores.exp().sum(-1),
        ),
        Misconception(
            "the largest score is subtracted well, but the sum over the keys has shape (query,), "
            "so it divides along the wrong dimension: give sum keepdim=True as well.",
            _divided_along_the_wrong_dimension,
        ),
        Misconception(
            "right for small scores, but e^1000 overflows and the result is nan. Subtract each "
            "row's largest score first; the weights stay the same.",
            lambda scores: scores.exp() / scores.exp().sum(-1, keepdim=True),
        ),
        Misconception(
            "right where all rows are about as large, but the largest score of the whole matrix "
            "is subtracted: in a row far below it all exponentials become 0, and the result nan. "
            "Subtract from each row its own largest score.",
            lambda scores: _shares((scores - scores.max()).exp()),
        ),
        Misconception(
            "each row's smallest score is subtracted, so the largest can still overflow, and the "
            "result is nan. Subtract each row's largest score.",
            lambda scores: _shares((scores - scores.amin(-1, keepdim=True)).exp()),
        ),
        Misconception(
            "each row's largest score is added, so the exponential overflows even earlier. "
            "Subtract it.",
            lambda scores: _shares((scores + scores.amax(-1, keepdim=True)).exp()),
        ),
        Misconception(
            "the rows' largest scores have shape (query,), so they are subtracted along the wrong "
            "dimension. Give amax (or max) keepdim=True, too.",
            lambda scores: _shares((scores - scores.amax(-1)).exp()),
        ),
        Misconception(
            "the largest score of each column is subtracted, so each key of a row loses another "
            "number, which changes the weights. Subtract each row's largest score (dim=-1).",
            lambda scores: _shares((scores - scores.amax(0)).exp()),
        ),
        Misconception(
            "the smaller a score, the larger is its weight: the signs of the scores are reversed.",
            lambda scores: (-scores).softmax(-1),
        ),
        Misconception(
            "the difference is the wrong way round, so the smallest score gets the largest weight. "
            "It is scores minus the largest score.",
            lambda scores: _shares((scores.amax(-1, keepdim=True) - scores).exp()),
        ),
        Misconception(
            "the exponential is missing: what is left after subtracting the largest score is "
            "divided by its sum. Take exp of it first.",
            lambda scores: _shares(scores - scores.amax(-1, keepdim=True)),
        ),
        Misconception(
            "these are the logarithms of the weights: softmax, not log_softmax.",
            lambda scores: scores.log_softmax(-1),
        ),
        Misconception(
            "the scores are divided by their sum without the exponential, so negative scores "
            "become negative weights. Take exp first.",
            lambda scores: scores / scores.sum(-1, keepdim=True),
        ),
        Misconception(
            "the exponentials are not divided by their sum yet, so the rows do not sum to one.",
            lambda scores: (scores - scores.amax(-1, keepdim=True)).exp(),
        ),
    ),
    first_step="Start with the exponential of the scores, then divide each row by its sum.",
)


def _queries_and_keys(draw: Draw) -> tuple[Tensor, Tensor]:
    n_queries, n_keys, d_k = draw.sizes(3)
    return draw.tensor(n_queries, d_k, scale=1.5), draw.tensor(n_keys, d_k, scale=1.5)


attention_weights = Exercise(
    name="attention_weights",
    reference=lambda query, key: _attention_weights(query, key),
    cases=(
        *(_random(*s) for s in [((5, 8), (5, 8)), ((3, 4), (6, 4)), ((2, 16), (7, 16))]),
        *drawn(8, _queries_and_keys),
    ),
    misconceptions=(
        Misconception(
            "the scores are not divided by √d_k, so the softmax is sharper than it should be, the "
            "more so the wider the vectors. Divide by math.sqrt(query.size(-1)).",
            lambda query, key: (query @ key.T).softmax(-1),
        ),
        Misconception(
            "the scores are divided by d_k instead of its square root, so the weights are flatter "
            "than they should be.",
            lambda query, key: (query @ key.T / query.size(-1)).softmax(-1),
        ),
        Misconception(
            "the softmax runs over the queries: each column sums to one. Each query shares out one "
            "unit of attention among the keys, so use softmax(-1).",
            lambda query, key: (query @ key.T / query.size(-1) ** 0.5).softmax(0),
        ),
        Misconception(
            "the root is of the number of keys. It should be of d_k, the length of each vector: "
            "the number of terms in each dot product.",
            lambda query, key: (query @ key.T / key.size(0) ** 0.5).softmax(-1),
        ),
        Misconception(
            "the root is of the number of queries. It should be of d_k, the length of each vector: "
            "the number of terms in each dot product.",
            lambda query, key: (query @ key.T / query.size(0) ** 0.5).softmax(-1),
        ),
        Misconception(
            "keys are compared with keys: the first matrix of the product should be query.",
            lambda query, key: (key @ key.T / query.size(-1) ** 0.5).softmax(-1),
        ),
        Misconception(
            "queries are compared with queries: the second matrix of the product should be key.",
            lambda query, key: (query @ query.T / query.size(-1) ** 0.5).softmax(-1),
        ),
        Misconception(
            "the matrix is the wrong way round: one row for each query, one column for each key "
            "is query @ key.T, not key @ query.T.",
            lambda query, key: (key @ query.T / query.size(-1) ** 0.5).softmax(-1),
        ),
        Misconception(
            "query @ key does not fit: the key needs its rows as columns, key.T, so that each "
            "query meets each key.",
            lambda query, key: (query @ key / query.size(-1) ** 0.5).softmax(-1),
        ),
        Misconception(
            "the scores are multiplied by √d_k; they should be divided by it.",
            lambda query, key: (query @ key.T * query.size(-1) ** 0.5).softmax(-1),
        ),
        Misconception(
            "the weights are divided by √d_k, after the softmax; the scores should be, before it.",
            lambda query, key: (query @ key.T).softmax(-1) / query.size(-1) ** 0.5,
        ),
        Misconception(
            "these are the scaled scores; they still need the softmax over the keys.",
            lambda query, key: query @ key.T / query.size(-1) ** 0.5,
        ),
    ),
    first_step="Start with the matrix of dot products, query @ key.T, and look at its shape.",
)


def _causal(scores: Tensor, offset: int = 0) -> Tensor:
    return torch.ones_like(scores, dtype=torch.bool).tril(offset)


def _filled(scores: Tensor, number: float) -> Tensor:
    return scores.masked_fill(~_causal(scores), number)


def _square(draw: Draw) -> tuple[Tensor]:
    n_tokens = draw.randint(2, 7)
    return (draw.tensor(n_tokens, n_tokens, scale=2),)


def _low_and_far_apart(draw: Draw) -> tuple[Tensor]:
    """In float64, so that the exponential of each score can still be taken."""
    n_tokens = draw.randint(2, 6)
    scale, by = draw.choice([(2, 250), (40, 150)])
    scores = draw.tensor(n_tokens, n_tokens, scale=scale).double()
    return (scores + draw.tensor(n_tokens, 1, scale=40) - by,)


causal_weights = Exercise(
    name="causal_weights",
    reference=lambda scores: scores.masked_fill(~_causal(scores), -torch.inf).softmax(-1),
    cases=(
        *(_random(s) for s in [(5, 5), (2, 2), (8, 8)]),
        (torch.tensor([[-150.0, 0.0], [-450.1, -450.45]]).double(),),
        (torch.tensor([[0.0, 1.0, 2.0], [0.0, 0.0, 1.0], [2.0, 0.0, 1.0]]),),
        *drawn(5, _square),
        *drawn(5, _low_and_far_apart),
    ),
    misconceptions=(
        Misconception(
            "the mask is put on after the softmax, so a row that lost weights no longer sums to "
            "one. Mask the scores, then take the softmax.",
            lambda scores: scores.softmax(-1) * _causal(scores),
        ),
        Misconception(
            "the mask is the wrong way round: tokens see themselves and the future instead of the "
            "past. True (or 1) below the diagonal means: may attend.",
            lambda scores: scores.masked_fill(~_causal(scores).T, -torch.inf).softmax(-1),
        ),
        Misconception(
            "the mask is inverted: masked_fill fills the places where its mask is True, so what "
            "should be allowed is hidden. Give it ~allowed.",
            lambda scores: scores.masked_fill(_causal(scores), -torch.inf).softmax(-1),
        ),
        Misconception(
            "tokens do not see themselves, so the first one has nothing to look at and becomes "
            "nan. The diagonal belongs to the allowed part.",
            lambda scores: scores.masked_fill(~_causal(scores, -1), -torch.inf).softmax(-1),
        ),
        Misconception(
            "tokens see one step into the future: the allowed part ends with the diagonal "
            "(offset 0).",
            lambda scores: scores.masked_fill(~_causal(scores, 1), -torch.inf).softmax(-1),
        ),
        Misconception(
            "masked scores are set to 0, but e^0 = 1 is a weight like any other. Use minus "
            "infinity, whose exponential is 0.",
            lambda scores: (scores * _causal(scores)).softmax(-1),
        ),
        Misconception(
            "masked scores are set to -100, but other scores can be as low as that, and then the "
            "future gets a share. Use minus infinity.",
            lambda scores: _filled(scores, -100).softmax(-1),
        ),
        Misconception(
            "masked scores are set to plus infinity, so the future gets everything, and ∞ / ∞ is "
            "nan. Use minus infinity, whose exponential is 0.",
            lambda scores: _filled(scores, torch.inf).softmax(-1),
        ),
        Misconception(
            "a score that happens to be 0 is hidden, too: the mask is read off the scores. Make it "
            "from ones: torch.ones_like(scores, dtype=torch.bool).tril().",
            lambda scores: scores.masked_fill(scores.tril() == 0, -torch.inf).softmax(-1),
        ),
        Misconception(
            "scores below 0 are hidden, too: the mask is read off the scores. Make it from ones.",
            lambda scores: scores.masked_fill(scores.tril() <= 0, -torch.inf).softmax(-1),
        ),
        Misconception(
            "these are the logarithms of the weights: softmax, not log_softmax.",
            lambda scores: _filled(scores, -torch.inf).log_softmax(-1),
        ),
        Misconception(
            "the mask is added as ones and zeros, so what may be seen is only favored. Add "
            "nothing to it, and minus infinity to the rest, or use masked_fill.",
            lambda scores: (scores + _causal(scores)).softmax(-1),
        ),
        Misconception(
            "the softmax runs over the queries: each column sums to one. Use softmax(-1).",
            lambda scores: _filled(scores, -torch.inf).softmax(0),
        ),
        Misconception(
            "nothing is masked yet: these are the plain weights.",
            lambda scores: scores.softmax(-1),
        ),
        Misconception(
            "the scores are masked, and still need the softmax over the keys.",
            lambda scores: scores.masked_fill(~_causal(scores), -torch.inf),
        ),
        Misconception(
            "everything became nan, because 0 · ∞ is not a number: do not multiply a mask by "
            "infinity, use masked_fill.",
            lambda scores: torch.full_like(scores, torch.nan),
        ),
    ),
    first_step="Start with the mask: torch.ones_like(scores, dtype=torch.bool).tril().",
)


def _positions(n_keys: int) -> Tensor:
    return torch.arange(n_keys)


def _some_lengths(draw: Draw) -> tuple[Tensor, int]:
    batch, n_keys = draw.sizes(2, among=range(2, 9))
    return torch.tensor([draw.randint(0, n_keys) for _ in range(batch)]), n_keys


padding_mask = Exercise(
    name="padding_mask",
    reference=lambda lengths, n_keys: masks.padding_mask(lengths, n_keys),
    cases=(
        *(
            (torch.tensor(lengths), n)
            for lengths, n in [([3, 5, 1], 5), ([0, 4], 6), ([2, 3, 0], 3)]
        ),
        *drawn(8, _some_lengths),
    ),
    misconceptions=(
        Misconception(
            "the mask is inverted: it marks the padding. True should mean: this is a real token, "
            "you may attend to it. (Some libraries use the opposite sign; check before you mix.)",
            lambda lengths, n: (_positions(n) >= lengths[:, None])[:, None, :],
        ),
        Misconception(
            "one token of padding is let through: positions count from 0, so the last real token "
            "of a sequence of length 3 is at position 2. Use <, not <=.",
            lambda lengths, n: (_positions(n) <= lengths[:, None])[:, None, :],
        ),
        Misconception(
            "the last real token of each sequence is hidden: positions count from 0, so a length "
            "of 3 means the positions 0, 1 and 2.",
            lambda lengths, n: (_positions(n) < lengths[:, None] - 1)[:, None, :],
        ),
        Misconception(
            "the mask marks padding, and not even all of it: the first one is at the position that "
            "is the length. True should mean a real token: positions < lengths[:, None].",
            lambda lengths, n: (_positions(n) > lengths[:, None])[:, None, :],
        ),
        Misconception(
            "the padding is taken from the front; here it stands at the end of each sequence.",
            lambda lengths, n: (_positions(n) >= n - lengths[:, None])[:, None, :],
        ),
        Misconception(
            "the values are right, but the shape is (batch, key). Put a dimension of 1 between, "
            "[:, None, :], so that it serves every query; without it, a batch with as many "
            "sequences as queries would be masked by the wrong rows.",
            lambda lengths, n: _positions(n) < lengths[:, None],
        ),
        Misconception(
            "this hides queries, not keys: the key dimension is the last one, (batch, 1, key).",
            lambda lengths, n: (_positions(n) < lengths[:, None])[:, :, None],
        ),
        Misconception(
            "the positions (n_keys,) and the lengths (batch,) cannot be compared one by one: make "
            "the lengths a column, lengths[:, None].",
            lambda lengths, n: (_positions(n) < lengths)[:, None, :],
        ),
    ),
    first_step="Compare torch.arange(n_keys) with lengths[:, None] and look at what comes out.",
)


def _mix(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
    """With plain products, which refuse what does not fit with the same words as a reader's do."""
    return (query @ key.T / query.size(-1) ** 0.5).softmax(-1) @ value


def _some_tokens(draw: Draw) -> tuple[Tensor, ...]:
    n_tokens, d_model, d_k = draw.sizes(3)
    return draw.tensor(n_tokens, d_model), *(draw.tensor(d_model, d_k) for _ in range(3))


def _mixed_scores(
    x: Tensor, W_q: Tensor, W_k: Tensor, W_v: Tensor, divisor: float, softmax: bool = True
) -> Tensor:
    scores = (x @ W_q) @ (x @ W_k).T / divisor
    return (scores.softmax(-1) if softmax else scores) @ (x @ W_v)


self_attention = Exercise(
    name="self_attention",
    reference=lambda x, W_q, W_k, W_v: _mix(x @ W_q, x @ W_k, x @ W_v),
    cases=(
        *(_random((n, d), *[(d, k)] * 3) for n, d, k in [(5, 4, 7), (3, 8, 4), (6, 6, 6)]),
        *drawn(8, _some_tokens),
    ),
    misconceptions=(
        Misconception(
            "query and key have changed places: x @ W_q asks, x @ W_k answers.",
            lambda x, W_q, W_k, W_v: _mix(x @ W_k, x @ W_q, x @ W_v),
        ),
        Misconception(
            "the tokens themselves are mixed; it should be their values, x @ W_v.",
            lambda x, W_q, W_k, W_v: _mix(x @ W_q, x @ W_k, x),
        ),
        Misconception(
            "the keys are mixed; it should be the values, x @ W_v.",
            lambda x, W_q, W_k, W_v: _mix(x @ W_q, x @ W_k, x @ W_k),
        ),
        Misconception(
            "the queries and keys are not projected: compare x @ W_q with x @ W_k, not x with x.",
            lambda x, W_q, W_k, W_v: _mix(x, x, x @ W_v),
        ),
        Misconception(
            "the scores are not divided by √d_k.",
            lambda x, W_q, W_k, W_v: _mixed_scores(x, W_q, W_k, W_v, 1),
        ),
        Misconception(
            "the scores are divided by d_k instead of its square root.",
            lambda x, W_q, W_k, W_v: _mixed_scores(x, W_q, W_k, W_v, W_k.size(1)),
        ),
        Misconception(
            "the scores are multiplied by √d_k; they should be divided by it.",
            lambda x, W_q, W_k, W_v: _mixed_scores(x, W_q, W_k, W_v, W_k.size(1) ** -0.5),
        ),
        Misconception(
            "the root is of the number of tokens; it should be of d_k, the width of the queries "
            "and keys.",
            lambda x, W_q, W_k, W_v: _mixed_scores(x, W_q, W_k, W_v, len(x) ** 0.5),
        ),
        Misconception(
            "the softmax is missing: the scores mix the values as they are.",
            lambda x, W_q, W_k, W_v: _mixed_scores(
                x, W_q, W_k, W_v, W_k.size(1) ** 0.5, softmax=False
            ),
        ),
        Misconception(
            "the scores are divided into √d_k: the division is upside down.",
            lambda x, W_q, W_k, W_v: (
                (W_k.size(1) ** 0.5 / ((x @ W_q) @ (x @ W_k).T)).softmax(-1) @ (x @ W_v)
            ),
        ),
        Misconception(
            "the values are mixed by the logarithms of the weights: softmax, not log_softmax.",
            lambda x, W_q, W_k, W_v: _attention_weights(x @ W_q, x @ W_k).log() @ (x @ W_v),
        ),
        Misconception(
            "query @ key does not fit: the key needs its rows as columns, key.T, so that each "
            "query meets each key.",
            lambda x, W_q, W_k, W_v: _mix(x @ W_q, (x @ W_k).T, x @ W_v),
        ),
        Misconception(
            "x is compared as it is, in the place of the queries: they are x @ W_q.",
            lambda x, W_q, W_k, W_v: _mix(x, x @ W_k, x @ W_v),
        ),
        Misconception(
            "x is compared as it is, in the place of the keys: they are x @ W_k.",
            lambda x, W_q, W_k, W_v: _mix(x @ W_q, x, x @ W_v),
        ),
        Misconception(
            "a matrix stands before the tokens: each row of x is a token, so it is x @ W_q.",
            lambda x, W_q, W_k, W_v: _mix(W_q @ x, W_k @ x, W_v @ x),
        ),
        Misconception(
            "queries are compared with queries: the keys are x @ W_k.",
            lambda x, W_q, W_k, W_v: _mix(x @ W_q, x @ W_q, x @ W_v),
        ),
        Misconception(
            "keys are compared with keys: the queries are x @ W_q.",
            lambda x, W_q, W_k, W_v: _mix(x @ W_k, x @ W_k, x @ W_v),
        ),
        Misconception(
            "the queries are mixed; it should be the values, x @ W_v.",
            lambda x, W_q, W_k, W_v: _mix(x @ W_q, x @ W_k, x @ W_q),
        ),
        Misconception(
            "keys and values have changed places: x @ W_k is compared, x @ W_v is mixed.",
            lambda x, W_q, W_k, W_v: _mix(x @ W_q, x @ W_v, x @ W_k),
        ),
        Misconception(
            "the root is of d_model, the width of the tokens; it should be of d_k, the width of "
            "the queries and keys.",
            lambda x, W_q, W_k, W_v: _mixed_scores(x, W_q, W_k, W_v, x.size(-1) ** 0.5),
        ),
        Misconception(
            "the softmax runs over the queries; it should run over the keys, softmax(-1).",
            lambda x, W_q, W_k, W_v: (
                ((x @ W_q) @ (x @ W_k).T / W_q.size(-1) ** 0.5).softmax(0) @ (x @ W_v)
            ),
        ),
        Misconception(
            "these are the weights; they still have to mix the values, weights @ value.",
            lambda x, W_q, W_k, W_v: _attention_weights(x @ W_q, x @ W_k),
        ),
        Misconception(
            "the weights are transposed when they meet the values: row i of the weights belongs "
            "to query i, so it is weights @ value.",
            lambda x, W_q, W_k, W_v: _attention_weights(x @ W_q, x @ W_k).T @ (x @ W_v),
        ),
    ),
    first_step="Start with the three projections: query, key and value are x @ W_q, x @ W_k, ….",
)
