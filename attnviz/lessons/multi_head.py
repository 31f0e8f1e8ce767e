"""The exercises of lesson 02, with the mistakes that their checks recognise."""

from collections.abc import Callable

import torch
from torch import Tensor

from attnviz.lessons.drawing import Draw, drawn
from attnviz.lessons.exercise import Exercise, Misconception


def _random(*shapes: tuple[int, ...]) -> tuple[Tensor, ...]:
    generator = torch.Generator().manual_seed(sum(map(sum, shapes)))
    return tuple(torch.randn(shape, generator=generator) for shape in shapes)


def _split(x: Tensor, n_heads: int) -> Tensor:
    return x.unflatten(-1, (n_heads, -1)).transpose(1, 2)


def _merge(x: Tensor) -> Tensor:
    return x.transpose(1, 2).flatten(2)


def _attend(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
    return (query @ key.mT / query.size(-1) ** 0.5).softmax(-1) @ value


def _to_split(draw: Draw) -> tuple[Tensor, int]:
    batch, n_heads, n_tokens, d_k = draw.sizes(4, among=range(1, 6))
    return draw.tensor(batch, n_tokens, n_heads * d_k), n_heads


split_heads = Exercise(
    name="split_heads",
    reference=_split,
    cases=(
        *((*_random(shape), n) for shape, n in [((2, 5, 6), 2), ((1, 4, 12), 3)]),
        *drawn(8, _to_split),
    ),
    misconceptions=(
        Misconception(
            "the shape is right, but the numbers are in the wrong places: a reshape straight to "
            "(batch, heads, token, d_k) fills the first head with the first tokens. Cut the last "
            "dimension into (heads, d_k) first, then transpose heads and tokens.",
            lambda x, n: x.reshape(x.size(0), n, x.size(1), -1),
        ),
        Misconception(
            "the last dimension is cut into (d_k, heads), so a head gets every n-th number instead "
            "of a slice of neighbours. PyTorch and every pretrained model use slices.",
            lambda x, n: x.unflatten(-1, (-1, n)).permute(0, 3, 1, 2),
        ),
        Misconception(
            "the result is still (batch, token, heads, d_k): transpose(1, 2) is missing.",
            lambda x, n: x.unflatten(-1, (n, -1)),
        ),
        Misconception(
            "every head got the whole vector; it should get a slice, d_model / n_heads numbers.",
            lambda x, n: x[:, None].expand(-1, n, -1, -1),
        ),
        Misconception(
            "the heads stand before the batch: (heads, batch, token, d_k). Give torch.stack the "
            "dimension 1.",
            lambda x, n: torch.stack(x.chunk(n, -1)),
        ),
        Misconception(
            "the heads stand last: (batch, token, d_k, heads). Give torch.stack the dimension 1.",
            lambda x, n: torch.stack(x.chunk(n, -1), -1),
        ),
        Misconception(
            "these are heads of n_heads numbers each: there should be n_heads heads, of "
            "d_model / n_heads numbers each.",
            lambda x, n: x.unflatten(-1, (-1, n)).transpose(1, 2),
        ),
    ),
    first_step="Try x.unflatten(-1, (n_heads, -1)) and print its shape.",
)

merge_heads = Exercise(
    name="merge_heads",
    reference=_merge,
    cases=(
        *(_random(shape) for shape in [(2, 3, 5, 4), (1, 2, 4, 6)]),
        *drawn(8, lambda draw: (draw.tensor(*draw.sizes(4, among=range(1, 6))),)),
    ),
    misconceptions=(
        Misconception(
            "the heads are flattened without moving them back behind the tokens, so a token gets "
            "pieces of other tokens. transpose(1, 2) comes first.",
            lambda x: x.reshape(x.size(0), x.size(2), -1),
        ),
        Misconception(
            "the heads are averaged; they should stand side by side.",
            lambda x: x.mean(1),
        ),
        Misconception(
            "the heads are added up; they should stand side by side.",
            lambda x: x.sum(1),
        ),
        Misconception(
            "the numbers of the heads are shuffled into each other: flatten (heads, d_k), not "
            "(d_k, heads).",
            lambda x: x.permute(0, 2, 3, 1).flatten(2),
        ),
        Misconception(
            "the result still has four dimensions: flatten the last two.",
            lambda x: x.transpose(1, 2),
        ),
        Misconception(
            "the heads' tokens stand one below the other, (batch, heads · token, d_k): the heads "
            "of one token should stand side by side.",
            lambda x: x.flatten(1, 2),
        ),
        Misconception(
            "each token has its heads one below the other, (batch, token · heads, d_k): flatten "
            "the last two dimensions, flatten(2).",
            lambda x: x.transpose(1, 2).flatten(1, 2),
        ),
        Misconception(
            "these are (batch, heads, token · d_k): the heads have to move behind the tokens, "
            "transpose(1, 2), before the last two dimensions are flattened.",
            lambda x: x.flatten(2),
        ),
    ),
    first_step="Undo the split backwards: first transpose, then flatten.",
)


def _multi_head(
    x: Tensor, W_q: Tensor, W_k: Tensor, W_v: Tensor, W_o: Tensor, n_heads: int
) -> Tensor:
    query, key, value = (_split(x @ W, n_heads) for W in (W_q, W_k, W_v))
    return _merge(_attend(query, key, value)) @ W_o


def _other_attention(attend: Callable[[Tensor, Tensor, Tensor], Tensor]) -> Callable:
    """Multi-head attention with something else in the middle."""

    def wrong(
        x: Tensor, W_q: Tensor, W_k: Tensor, W_v: Tensor, W_o: Tensor, n_heads: int
    ) -> Tensor:
        query, key, value = (_split(x @ W, n_heads) for W in (W_q, W_k, W_v))
        return _merge(attend(query, key, value)) @ W_o

    return wrong


def _other_shapes(split: Callable[[Tensor, int], Tensor], merge: Callable) -> Callable:
    """Multi-head attention whose heads are cut or glued in another way."""

    def wrong(
        x: Tensor, W_q: Tensor, W_k: Tensor, W_v: Tensor, W_o: Tensor, n_heads: int
    ) -> Tensor:
        query, key, value = (split(x @ W, n_heads) for W in (W_q, W_k, W_v))
        return merge(_attend(query, key, value)).reshape(x.shape) @ W_o

    return wrong


def _reshaped(x: Tensor, n_heads: int) -> Tensor:
    return x.reshape(x.size(0), n_heads, x.size(1), -1)


def _scores(query: Tensor, key: Tensor) -> Tensor:
    return query @ key.mT / query.size(-1) ** 0.5


def _exponentials(scores: Tensor) -> Tensor:
    return (scores - scores.amax(-1, keepdim=True)).exp()


def _attend_with_factor(query: Tensor, key: Tensor, value: Tensor, factor: float) -> Tensor:
    return (query @ key.mT * factor).softmax(-1) @ value


def _tokens_and_matrices(draw: Draw) -> tuple:
    batch, n_heads, n_tokens, d_k = draw.sizes(4, among=range(1, 6))
    d_model = n_heads * d_k
    x = draw.tensor(batch, n_tokens, d_model, scale=0.5)
    return x, *(draw.tensor(d_model, d_model, scale=0.7) for _ in range(4)), n_heads


multi_head_attention = Exercise(
    name="multi_head_attention",
    reference=_multi_head,
    cases=(
        (*_random((2, 5, 6), *[(6, 6)] * 4), 2),
        (*_random((1, 4, 12), *[(12, 12)] * 4), 3),
        *drawn(8, _tokens_and_matrices),
    ),
    misconceptions=(
        Misconception(
            "the scores are divided by √d_model. A head's dot products have only d_k = d_model / "
            "n_heads terms, so the root is of that.",
            _other_attention(
                lambda q, k, v: _attend_with_factor(q, k, v, (q.size(1) * q.size(3)) ** -0.5)
            ),
        ),
        Misconception(
            "this is one wide head: split query, key and value before they meet.",
            lambda x, W_q, W_k, W_v, W_o, n: _attend(x @ W_q, x @ W_k, x @ W_v) @ W_o,
        ),
        Misconception(
            "the softmax runs over the heads. Each head shares out its own unit of attention among "
            "the keys: softmax(-1).",
            _other_attention(lambda q, k, v: _scores(q, k).softmax(1) @ v),
        ),
        Misconception(
            "the softmax runs over the queries. It should run over the keys: softmax(-1).",
            _other_attention(lambda q, k, v: _scores(q, k).softmax(-2) @ v),
        ),
        Misconception(
            "the softmax runs over the batch. It should run over the keys: softmax(-1).",
            _other_attention(lambda q, k, v: _scores(q, k).softmax(0) @ v),
        ),
        Misconception(
            "the values are mixed by the logarithms of the weights: softmax, not log_softmax.",
            _other_attention(lambda q, k, v: _scores(q, k).log_softmax(-1) @ v),
        ),
        Misconception(
            "the scores are divided into √d_k: the division is upside down.",
            _other_attention(lambda q, k, v: (1 / _scores(q, k)).softmax(-1) @ v),
        ),
        Misconception(
            "the root is of the number of tokens; it should be of d_k = d_model / n_heads.",
            _other_attention(lambda q, k, v: _attend_with_factor(q, k, v, q.size(2) ** -0.5)),
        ),
        Misconception(
            "query @ key does not fit: the key needs its rows as columns, key.mT, so that each "
            "query meets each key.",
            _other_attention(lambda q, k, v: _attend(q, k.mT, v)),
        ),
        Misconception(
            "the softmax is missing: the scores mix the values as they are.",
            _other_attention(lambda q, k, v: _scores(q, k) @ v),
        ),
        Misconception(
            "the scores are not divided by √d_k.",
            _other_attention(lambda q, k, v: _attend_with_factor(q, k, v, 1)),
        ),
        Misconception(
            "the scores are divided by d_k instead of its square root.",
            _other_attention(lambda q, k, v: _attend_with_factor(q, k, v, 1 / q.size(-1))),
        ),
        Misconception(
            "the scores are multiplied by √d_k; they should be divided by it.",
            _other_attention(lambda q, k, v: _attend_with_factor(q, k, v, q.size(-1) ** 0.5)),
        ),
        Misconception(
            "the root is of the number of heads; it should be of d_k = d_model / n_heads.",
            _other_attention(lambda q, k, v: _attend_with_factor(q, k, v, q.size(1) ** -0.5)),
        ),
        Misconception(
            "query and key have changed places: x @ W_q asks, x @ W_k answers.",
            _other_attention(lambda q, k, v: _attend(k, q, v)),
        ),
        Misconception(
            "queries are compared with queries: the keys are x @ W_k.",
            _other_attention(lambda q, k, v: _attend(q, q, v)),
        ),
        Misconception(
            "keys are compared with keys: the queries are x @ W_q.",
            _other_attention(lambda q, k, v: _attend(k, k, v)),
        ),
        Misconception(
            "the keys are mixed; it should be the values, x @ W_v.",
            _other_attention(lambda q, k, v: _attend(q, k, k)),
        ),
        Misconception(
            "the queries are mixed; it should be the values, x @ W_v.",
            _other_attention(lambda q, k, v: _attend(q, k, q)),
        ),
        Misconception(
            "keys and values have changed places: x @ W_k is compared, x @ W_v is mixed.",
            _other_attention(lambda q, k, v: _attend(q, v, k)),
        ),
        Misconception(
            "W_o is transposed: the last step is @ W_o. (nn.Linear keeps its matrix the other way "
            "round, but this is no nn.Linear.)",
            lambda x, W_q, W_k, W_v, W_o, n: _multi_head(x, W_q, W_k, W_v, W_o.T, n),
        ),
        Misconception(
            "the heads are cut out right, but glued with a bare reshape, so a token gets pieces of "
            "other tokens: use your merge_heads.",
            _other_shapes(_split, lambda x: x),
        ),
        Misconception(
            "the heads are cut with a bare reshape, which mixes tokens with heads, and merged "
            "rightly: use your split_heads.",
            _other_shapes(_reshaped, _merge),
        ),
        Misconception(
            "the heads are cut and glued with a bare reshape, which mixes tokens with heads; use "
            "your split_heads and merge_heads.",
            _other_shapes(_reshaped, lambda x: x),
        ),
        Misconception(
            "the last step is missing: what the heads found is mixed by W_o.",
            lambda x, W_q, W_k, W_v, W_o, n: _merge(
                _attend(_split(x @ W_q, n), _split(x @ W_k, n), _split(x @ W_v, n))
            ),
        ),
        Misconception(
            "x is split before it is multiplied, so each head sees only a slice of the tokens' "
            "vectors. Project first, then split.",
            lambda x, W_q, W_k, W_v, W_o, n: (
                _merge(
                    _attend(
                        *(
                            _split(x, n) @ _split(W[None], n)[0, :, : x.size(-1) // n]
                            for W in (W_q, W_k, W_v)
                        )
                    )
                )
                @ W_o
            ),
        ),
    ),
    first_step="Start with split_heads(x @ W_q, n_heads), and the same for key and value.",
)


def _other_cross_attention(attend: Callable[[Tensor, Tensor, Tensor], Tensor]) -> Callable:
    """Cross-attention with the right query, key and value, and something else done with them."""
    return lambda x, memory, W_q, W_k, W_v: attend(x @ W_q, memory @ W_k, memory @ W_v)


def _two_texts(draw: Draw) -> tuple[Tensor, ...]:
    batch, n_tokens, others, d_model, d_k = draw.sizes(5)
    x, memory = draw.tensor(batch, n_tokens, d_model), draw.tensor(batch, others, d_model)
    return x, memory, *(draw.tensor(d_model, d_k) for _ in range(3))


cross_attention = Exercise(
    name="cross_attention",
    reference=lambda x, memory, W_q, W_k, W_v: _attend(x @ W_q, memory @ W_k, memory @ W_v),
    cases=(
        *(_random((1, n, 4), (1, m, 4), *[(4, 4)] * 3) for n, m in [(3, 5), (6, 2), (4, 4)]),
        _random((3, 5, 6), (3, 5, 6), *[(6, 6)] * 3),
        *drawn(8, _two_texts),
    ),
    misconceptions=(
        Misconception(
            "the two sides are swapped: x asks, so the queries come from x, and there is one "
            "result for each token of x. memory answers with keys and values.",
            lambda x, memory, W_q, W_k, W_v: _attend(memory @ W_q, x @ W_k, x @ W_v),
        ),
        Misconception(
            "this is self-attention of x; memory is never read.",
            lambda x, memory, W_q, W_k, W_v: _attend(x @ W_q, x @ W_k, x @ W_v),
        ),
        Misconception(
            "x is among the keys and values as well: in cross-attention they come from memory "
            "alone.",
            lambda x, memory, W_q, W_k, W_v: _attend(
                x @ W_q,
                torch.cat([x, memory], 1) @ W_k,
                torch.cat([x, memory], 1) @ W_v,
            ),
        ),
        Misconception(
            "the values come from x. What is mixed is what memory has to offer: memory @ W_v.",
            lambda x, memory, W_q, W_k, W_v: _attend(x @ W_q, memory @ W_k, x @ W_v),
        ),
        Misconception(
            "the keys come from x, so x looks at itself. What is looked at is memory: memory @ "
            "W_k.",
            lambda x, memory, W_q, W_k, W_v: _attend(x @ W_q, x @ W_k, memory @ W_v),
        ),
        Misconception(
            "this is self-attention of memory; x is never read.",
            lambda x, memory, W_q, W_k, W_v: _attend(memory @ W_q, memory @ W_k, memory @ W_v),
        ),
        Misconception(
            "the scores are not divided by √d_k.",
            _other_cross_attention(lambda q, k, v: _attend_with_factor(q, k, v, 1)),
        ),
        Misconception(
            "the scores are divided by d_k instead of its square root.",
            _other_cross_attention(lambda q, k, v: _attend_with_factor(q, k, v, 1 / q.size(-1))),
        ),
        Misconception(
            "the scores are multiplied by √d_k; they should be divided by it.",
            _other_cross_attention(lambda q, k, v: _attend_with_factor(q, k, v, q.size(-1) ** 0.5)),
        ),
        Misconception(
            "the root is of d_model, the width of the tokens; it should be of d_k, the width of "
            "the queries and keys.",
            lambda x, memory, W_q, W_k, W_v: _attend_with_factor(
                x @ W_q, memory @ W_k, memory @ W_v, x.size(-1) ** -0.5
            ),
        ),
        Misconception(
            "the softmax runs over the queries, the tokens of x. It should run over the keys, the "
            "tokens of memory: softmax(-1).",
            _other_cross_attention(lambda q, k, v: _scores(q, k).softmax(-2) @ v),
        ),
        Misconception(
            "the softmax runs over the batch. It should run over the keys, the tokens of memory: "
            "softmax(-1).",
            _other_cross_attention(lambda q, k, v: _scores(q, k).softmax(0) @ v),
        ),
        Misconception(
            "the values are mixed by the logarithms of the weights: softmax, not log_softmax.",
            _other_cross_attention(lambda q, k, v: _scores(q, k).log_softmax(-1) @ v),
        ),
        Misconception(
            "the scores are divided into √d_k: the division is upside down.",
            _other_cross_attention(lambda q, k, v: (1 / _scores(q, k)).softmax(-1) @ v),
        ),
        Misconception(
            "the root is of the number of tokens of x; it should be of d_k, the width of the "
            "queries and keys.",
            _other_cross_attention(lambda q, k, v: _attend_with_factor(q, k, v, q.size(1) ** -0.5)),
        ),
        Misconception(
            "the root is of the number of tokens of memory; it should be of d_k, the width of the "
            "queries and keys.",
            _other_cross_attention(lambda q, k, v: _attend_with_factor(q, k, v, k.size(1) ** -0.5)),
        ),
        Misconception(
            "query @ key does not fit: the key needs its rows as columns, key.mT, so that each "
            "query meets each key.",
            _other_cross_attention(lambda q, k, v: _attend(q, k.mT, v)),
        ),
        Misconception(
            "the exponentials are not divided by their sum, so the weights of a query do not sum "
            "to one.",
            _other_cross_attention(lambda q, k, v: _exponentials(_scores(q, k)) @ v),
        ),
        Misconception(
            "the softmax is missing: the scores mix the values as they are.",
            _other_cross_attention(lambda q, k, v: _scores(q, k) @ v),
        ),
        Misconception(
            "these are the weights; they still have to mix the values, weights @ value.",
            _other_cross_attention(lambda q, k, v: _scores(q, k).softmax(-1)),
        ),
        Misconception(
            "the keys are mixed; it should be the values, memory @ W_v.",
            _other_cross_attention(lambda q, k, v: _attend(q, k, k)),
        ),
        Misconception(
            "keys and values have changed places: memory @ W_k is compared, memory @ W_v is mixed.",
            _other_cross_attention(lambda q, k, v: _attend(q, v, k)),
        ),
        Misconception(
            "W_q and W_k have changed places: x @ W_q asks, memory @ W_k answers.",
            lambda x, memory, W_q, W_k, W_v: _attend(x @ W_k, memory @ W_q, memory @ W_v),
        ),
    ),
    first_step="Ask who looks and who is looked at: x @ W_q, memory @ W_k, memory @ W_v.",
)
