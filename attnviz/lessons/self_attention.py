"""The exercises of lesson 01, with the mistakes that their checks recognise."""

import torch
from torch import Tensor

from attnviz.layers import masks
from attnviz.layers.attention import attention_weights as _attention_weights
from attnviz.lessons.exercise import Exercise, Misconception


def _random(*shapes: tuple[int, ...]) -> tuple[Tensor, ...]:
    generator = torch.Generator().manual_seed(sum(map(sum, shapes)))
    return tuple(torch.randn(shape, generator=generator) for shape in shapes)


softmax = Exercise(
    name="softmax",
    reference=lambda scores: scores.softmax(-1),
    cases=(*(_random(s) for s in [(4, 4), (3, 5)]), (torch.tensor([[1000.0, 1001.0, 1002.0]]),)),
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
            "right for small scores, but e^1000 overflows and the result is nan. Subtract each "
            "row's largest score first; the weights stay the same.",
            lambda scores: scores.exp() / scores.exp().sum(-1, keepdim=True),
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

attention_weights = Exercise(
    name="attention_weights",
    reference=_attention_weights,
    cases=tuple(_random(*s) for s in [((5, 8), (5, 8)), ((3, 4), (6, 4)), ((2, 16), (7, 16))]),
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
            lambda query, key: query @ key,
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


causal_weights = Exercise(
    name="causal_weights",
    reference=lambda scores: scores.masked_fill(~_causal(scores), -torch.inf).softmax(-1),
    cases=tuple(_random(s) for s in [(5, 5), (2, 2), (8, 8)]),
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


padding_mask = Exercise(
    name="padding_mask",
    reference=masks.padding_mask,
    cases=tuple((torch.tensor(lengths), n) for lengths, n in [([3, 5, 1], 5), ([0, 4], 6)]),
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
            lambda lengths, n: _positions(n) < lengths,
        ),
    ),
    first_step="Compare torch.arange(n_keys) with lengths[:, None] and look at what comes out.",
)


def _mix(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
    return _attention_weights(query, key) @ value


self_attention = Exercise(
    name="self_attention",
    reference=lambda x, W_q, W_k, W_v: _mix(x @ W_q, x @ W_k, x @ W_v),
    cases=tuple(_random((n, d), *[(d, k)] * 3) for n, d, k in [(5, 4, 7), (3, 8, 4), (6, 6, 6)]),
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
            lambda x, W_q, W_k, W_v: ((x @ W_q) @ (x @ W_k).T).softmax(-1) @ (x @ W_v),
        ),
        Misconception(
            "the root is of d_model, the width of the tokens; it should be of d_k, the width of "
            "the queries and keys.",
            lambda x, W_q, W_k, W_v: (
                ((x @ W_q) @ (x @ W_k).T / x.size(-1) ** 0.5).softmax(-1) @ (x @ W_v)
            ),
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
