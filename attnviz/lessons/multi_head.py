"""The exercises of lesson 02, with the mistakes that their checks recognise."""

import torch
from torch import Tensor

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


split_heads = Exercise(
    name="split_heads",
    reference=_split,
    cases=tuple((*_random(shape), n) for shape, n in [((2, 5, 6), 2), ((1, 4, 12), 3)]),
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
    ),
    first_step="Try x.unflatten(-1, (n_heads, -1)) and print its shape.",
)

merge_heads = Exercise(
    name="merge_heads",
    reference=_merge,
    cases=tuple(_random(shape) for shape in [(2, 3, 5, 4), (1, 2, 4, 6)]),
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
    ),
    first_step="Undo the split backwards: first transpose, then flatten.",
)


def _multi_head(x: Tensor, W_q: Tensor, W_k: Tensor, W_v: Tensor, W_o: Tensor, n: int) -> Tensor:
    return _merge(_attend(_split(x @ W_q, n), _split(x @ W_k, n), _split(x @ W_v, n))) @ W_o


def _scores_over_root_of_d_model(
    x: Tensor, W_q: Tensor, W_k: Tensor, W_v: Tensor, W_o: Tensor, n: int
) -> Tensor:
    query, key, value = (_split(x @ W, n) for W in (W_q, W_k, W_v))
    return _merge((query @ key.mT / x.size(-1) ** 0.5).softmax(-1) @ value) @ W_o


def _softmax_over_heads(
    x: Tensor, W_q: Tensor, W_k: Tensor, W_v: Tensor, W_o: Tensor, n: int
) -> Tensor:
    query, key, value = (_split(x @ W, n) for W in (W_q, W_k, W_v))
    return _merge((query @ key.mT / query.size(-1) ** 0.5).softmax(1) @ value) @ W_o


def _reshaped(x: Tensor, W_q: Tensor, W_k: Tensor, W_v: Tensor, W_o: Tensor, n: int) -> Tensor:
    def split(x: Tensor) -> Tensor:
        return x.reshape(x.size(0), n, x.size(1), -1)

    return _attend(split(x @ W_q), split(x @ W_k), split(x @ W_v)).reshape(x.shape) @ W_o


multi_head_attention = Exercise(
    name="multi_head_attention",
    reference=_multi_head,
    cases=(
        (*_random((2, 5, 6), *[(6, 6)] * 4), 2),
        (*_random((1, 4, 12), *[(12, 12)] * 4), 3),
    ),
    misconceptions=(
        Misconception(
            "the scores are divided by √d_model. A head's dot products have only d_k = d_model / "
            "n_heads terms, so the root is of that.",
            _scores_over_root_of_d_model,
        ),
        Misconception(
            "this is one wide head: split query, key and value before they meet.",
            lambda x, W_q, W_k, W_v, W_o, n: _attend(x @ W_q, x @ W_k, x @ W_v) @ W_o,
        ),
        Misconception(
            "the softmax runs over the heads. Each head shares out its own unit of attention among "
            "the keys: softmax(-1).",
            _softmax_over_heads,
        ),
        Misconception(
            "the heads are cut and glued with a bare reshape, which mixes tokens with heads; use "
            "your split_heads and merge_heads.",
            _reshaped,
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

cross_attention = Exercise(
    name="cross_attention",
    reference=lambda x, memory, W_q, W_k, W_v: _attend(x @ W_q, memory @ W_k, memory @ W_v),
    cases=tuple(_random((1, n, 4), (1, m, 4), *[(4, 4)] * 3) for n, m in [(3, 5), (6, 2), (4, 4)]),
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
    ),
    first_step="Ask who looks and who is looked at: x @ W_q, memory @ W_k, memory @ W_v.",
)
