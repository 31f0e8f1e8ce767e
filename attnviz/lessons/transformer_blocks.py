"""The exercises of lesson 04, with the mistakes that their checks recognise."""

from collections.abc import Callable

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from attnviz.layers.attention import attention_weights
from attnviz.lessons.drawing import Draw, drawn
from attnviz.lessons.exercise import Exercise, Misconception

Branch = Callable[[Tensor], Tensor]


def _random(*shapes: tuple[int, ...]) -> tuple[Tensor, ...]:
    generator = torch.Generator().manual_seed(sum(map(sum, shapes)))
    return tuple(torch.randn(shape, generator=generator) for shape in shapes)


def _branch(weight: Tensor) -> Branch:
    return lambda x: (x @ weight).tanh()


def _drawn_branch(draw: Draw, d_model: int) -> Branch:
    """One that bends, and that mixes the tokens as attention does."""
    weight, bias = draw.tensor(d_model, d_model), draw.tensor(d_model)
    return lambda x: (x @ weight + x.mean(-2, keepdim=True) + bias).tanh()


def _drawn_tokens(draw: Draw, d_model: int) -> Tensor:
    n, batch = draw.sizes(2)
    return draw.tensor(*draw.choice([(n, d_model), (batch, n, d_model)]), scale=2)


def _residual_stack(x: Tensor, branches: list[Branch]) -> Tensor:
    for branch in branches:
        x = x + branch(x)
    return x


def _without_residual(x: Tensor, branches: list[Branch]) -> Tensor:
    for branch in branches:
        x = branch(x)
    return x


def _from_the_start(x: Tensor, branches: list[Branch]) -> Tensor:
    h = x
    for branch in branches:
        h = x + branch(h)
    return h


def _doubled(x: Tensor, branches: list[Branch]) -> Tensor:
    for branch in branches:
        x = branch(x)
        x = x + x
    return x


def _added_before(x: Tensor, branches: list[Branch]) -> Tensor:
    for branch in branches:
        x = branch(x + x)
    return x


def _multiplied(x: Tensor, branches: list[Branch]) -> Tensor:
    for branch in branches:
        x = x * branch(x)
    return x


def _returned_too_early(x: Tensor, branches: list[Branch]) -> Tensor:
    return _residual_stack(x, branches[:1])


def _subtracted(x: Tensor, branches: list[Branch]) -> Tensor:
    for branch in branches:
        x = x - branch(x)
    return x


def _stack_case(draw: Draw) -> tuple[Tensor, list[Branch]]:
    d_model = draw.randint(2, 7)
    branches = [_drawn_branch(draw, d_model) for _ in range(draw.choice([1, 2, 3, 5]))]
    return _drawn_tokens(draw, d_model), branches


residual_stack = Exercise(
    name="residual_stack",
    reference=_residual_stack,
    cases=(
        (*_random((4, 6)), [_branch(w) for w in _random((6, 6), (6, 6), (6, 6))]),
        (*_random((3, 4)), [_branch(w) for w in _random((4, 4), (4, 4))]),
        *drawn(8, _stack_case),
    ),
    misconceptions=(
        Misconception(
            "each branch replaces what it was given: nothing is added, so this is the stack "
            "without residual connections. Put x + before branch(x).",
            _without_residual,
        ),
        Misconception(
            "every branch's result is added to the very first x, so what the branches before it "
            "found is thrown away. Add it to what this branch was given.",
            _from_the_start,
        ),
        Misconception(
            "all branches read the very first x: they stand side by side. Each should read the sum "
            "that the one before it left behind.",
            lambda x, branches: x + sum(branch(x) for branch in branches),
        ),
        Misconception(
            "there is a single residual connection around the whole stack; each branch needs one "
            "of its own.",
            lambda x, branches: x + _without_residual(x, branches),
        ),
        Misconception(
            "the loop ends after its first turn: is the return indented too far?",
            _returned_too_early,
        ),
        Misconception(
            "the last branch is never called: the loop should run over all of them.",
            lambda x, branches: _residual_stack(x, branches[:-1]),
        ),
        Misconception(
            "the first branch is never called: the loop should run over all of them.",
            lambda x, branches: _residual_stack(x, branches[1:]),
        ),
        Misconception(
            "the branches run in the opposite order; branches[0] comes first.",
            lambda x, branches: _residual_stack(x, branches[::-1]),
        ),
        Misconception(
            "the branch's result is added to itself, because x was overwritten before the sum. "
            "Write x = x + branch(x) in one line.",
            _doubled,
        ),
        Misconception(
            "the sum is taken before the branch, not after it: the branch should read x, and its "
            "result should be added to x.",
            _added_before,
        ),
        Misconception(
            "x is multiplied by the branch's result; a residual connection adds.",
            _multiplied,
        ),
        Misconception(
            "the branch's result is subtracted from x; a residual connection adds.",
            _subtracted,
        ),
        Misconception(
            "what the first branches wrote is lost: only the last one's result is added to x. Each "
            "branch should read the sum that the one before it left behind.",
            lambda x, branches: x + branches[-1](x),
        ),
        Misconception(
            "x came back as it was: no branch has been called.",
            lambda x, branches: x,
        ),
    ),
    first_step="Start with a loop over the branches; inside, one line gives x its new value.",
)


def _deviation(x: Tensor, dim: int | tuple[int, ...] = -1) -> Tensor:
    return x - x.mean(dim, keepdim=True)


def _normalised(x: Tensor, eps: float, dim: int | tuple[int, ...] = -1) -> Tensor:
    d = _deviation(x, dim)
    return d / (d.square().mean(dim, keepdim=True) + eps).sqrt()


def _unbiased(x: Tensor) -> Tensor:
    return x.var(-1, keepdim=True)


def _layer_norm(x: Tensor, gain: Tensor, shift: Tensor, eps: float = 1e-5) -> Tensor:
    return _normalised(x, eps) * gain + shift


def _tokens_to_normalise(draw: Draw) -> tuple[Tensor, Tensor, Tensor, float]:
    """Of all sizes, with an eps that counts; sometimes the numbers of one token are all equal."""
    batch, n, d_model = draw.sizes(3, range(2, 8))
    x = draw.tensor(batch, n, d_model, scale=draw.choice([0.3, 1, 5])) + draw.choice([-3, 0, 1])
    if draw.random() < 0.4:
        x[draw.randrange(batch), draw.randrange(n)] = draw.choice([-2.0, 0, 4.0])
    return x, draw.tensor(d_model), draw.tensor(d_model), draw.choice([1e-5, 1e-3, 0.1, 0.7])


layer_norm = Exercise(
    name="layer_norm",
    reference=_layer_norm,
    cases=(
        (*_random((2, 3, 6), (6,), (6,)), 1e-5),
        (*(t * s for t, s in zip(_random((3, 2, 5), (5,), (5,)), (2e-3, 1, 1), strict=True)), 1e-5),
        (torch.full((1, 2, 4), 3.0), *_random((4,), (4,)), 1e-5),
        *drawn(8, _tokens_to_normalise),
    ),
    misconceptions=(
        Misconception(
            "right for most tokens, but one whose numbers are all equal has variance 0, and 0 / 0 "
            "is nan. Add eps to the variance.",
            lambda x, gain, shift, eps: _normalised(x, 0.0) * gain + shift,
        ),
        Misconception(
            "two things at once: the variance is divided by d − 1 (the default of torch's std and "
            "var), and eps is added after the root. Divide by d, and put eps inside.",
            lambda x, gain, shift, eps: _deviation(x) / (_unbiased(x).sqrt() + eps) * gain + shift,
        ),
        Misconception(
            "the variance is divided by d − 1, the default of torch's std and var. LayerNorm "
            "divides by d: say correction=0, or take the mean of the squares.",
            lambda x, gain, shift, eps: _deviation(x) / (_unbiased(x) + eps).sqrt() * gain + shift,
        ),
        Misconception(
            "eps is added to the standard deviation; it should be added to the variance, inside "
            "the root. For small vectors that is a large difference.",
            lambda x, gain, shift, eps: (
                _deviation(x) / (x.var(-1, correction=0, keepdim=True).sqrt() + eps) * gain + shift
            ),
        ),
        Misconception(
            "the mean runs over the tokens, so each token depends on all the others. It should run "
            "over the features of one token: dim=-1.",
            lambda x, gain, shift, eps: _normalised(x, eps, -2) * gain + shift,
        ),
        Misconception(
            "the mean runs over the batch, so a sequence depends on which others it stands with. "
            "It should run over the features of one token: dim=-1.",
            lambda x, gain, shift, eps: _normalised(x, eps, 0) * gain + shift,
        ),
        Misconception(
            "the mean runs over batch and tokens: that is batch normalisation. It should run over "
            "the features of one token: dim=-1.",
            lambda x, gain, shift, eps: _normalised(x, eps, (0, 1)) * gain + shift,
        ),
        Misconception(
            "the mean runs over tokens and features together; each token should be normalised "
            "alone: dim=-1.",
            lambda x, gain, shift, eps: _normalised(x, eps, (-2, -1)) * gain + shift,
        ),
        Misconception(
            "the mean runs over everything (no dim was given); it should run over the features of "
            "one token: dim=-1, keepdim=True.",
            lambda x, gain, shift, eps: _normalised(x, eps, (0, 1, 2)) * gain + shift,
        ),
        Misconception(
            "the means have shape (batch, token) and do not fit beside x: keepdim=True keeps a "
            "last dimension of 1.",
            lambda x, gain, shift, eps: (
                (x - x.mean(-1)) / (x.var(-1, correction=0, keepdim=True) + eps).sqrt()
            ),
        ),
        Misconception(
            "the normalising is right, but gain and shift were both forgotten: "
            "normalised * gain + shift.",
            lambda x, gain, shift, eps: _normalised(x, eps),
        ),
        Misconception(
            "the shift was forgotten: add it after the gain.",
            lambda x, gain, shift, eps: _normalised(x, eps) * gain,
        ),
        Misconception(
            "the gain was forgotten: multiply by it before the shift is added.",
            lambda x, gain, shift, eps: _normalised(x, eps) + shift,
        ),
        Misconception(
            "the shift is added first, so the gain stretches it too. Multiply first.",
            lambda x, gain, shift, eps: (_normalised(x, eps) + shift) * gain,
        ),
        Misconception(
            "gain and shift have changed places: multiply by the gain, add the shift.",
            lambda x, gain, shift, eps: _normalised(x, eps) * shift + gain,
        ),
        Misconception(
            "the shift is subtracted; add it.",
            lambda x, gain, shift, eps: _normalised(x, eps) * gain - shift,
        ),
        Misconception(
            "x is subtracted from its mean, so every deviation has the wrong sign: it is x minus "
            "its mean.",
            lambda x, gain, shift, eps: _normalised(-x, eps) * gain + shift,
        ),
        Misconception(
            "the mean is added to x; it is subtracted from it.",
            lambda x, gain, shift, eps: (
                (x + x.mean(-1, keepdim=True))
                / (x.var(-1, correction=0, keepdim=True) + eps).sqrt()
                * gain
                + shift
            ),
        ),
        Misconception(
            "the gain is added; it should stretch: multiply by it.",
            lambda x, gain, shift, eps: _normalised(x, eps) + gain + shift,
        ),
        Misconception(
            "eps is not used: something else is added to the variance, 1e-5 perhaps. Models have "
            "an eps of their own, so take the one that is given.",
            lambda x, gain, shift, eps: _layer_norm(x, gain, shift, 1e-5),
        ),
        Misconception(
            "the deviations are divided by the variance; it should be by its root, the standard "
            "deviation.",
            lambda x, gain, shift, eps: (
                _deviation(x) / (x.var(-1, correction=0, keepdim=True) + eps) * gain + shift
            ),
        ),
        Misconception(
            "the deviations are divided by the root of the sum of their squares, so each token "
            "gets length 1. It is their mean: divide the sum by d.",
            lambda x, gain, shift, eps: (
                _deviation(x) / (_deviation(x).square().sum(-1, keepdim=True) + eps).sqrt() * gain
                + shift
            ),
        ),
        Misconception(
            "the squares are not averaged: each deviation is divided by its own size, which leaves "
            "little more than its sign. Take their mean over the features.",
            lambda x, gain, shift, eps: (
                _deviation(x) / (_deviation(x).square() + eps).sqrt() * gain + shift
            ),
        ),
        Misconception(
            "below the root stands the mean square of x itself. The variance is the mean square of "
            "the deviations, x minus its mean.",
            lambda x, gain, shift, eps: (
                _deviation(x) / (x.square().mean(-1, keepdim=True) + eps).sqrt() * gain + shift
            ),
        ),
        Misconception(
            "the deviations are multiplied by the standard deviation; they are divided by it.",
            lambda x, gain, shift, eps: (
                _deviation(x) * (x.var(-1, correction=0, keepdim=True) + eps).sqrt() * gain + shift
            ),
        ),
        Misconception(
            "the mean is not subtracted: x itself is divided, not its deviation from the mean.",
            lambda x, gain, shift, eps: (
                x / (x.var(-1, correction=0, keepdim=True) + eps).sqrt() * gain + shift
            ),
        ),
        Misconception(
            "this is RMSNorm: x over the root of its mean square, no mean subtracted. Many newer "
            "models use it, but LayerNorm subtracts the mean first.",
            lambda x, gain, shift, eps: (
                x / (x.square().mean(-1, keepdim=True) + eps).sqrt() * gain + shift
            ),
        ),
        Misconception(
            "the mean is subtracted, but the result is not divided by the standard deviation yet.",
            lambda x, gain, shift, eps: _deviation(x) * gain + shift,
        ),
    ),
    first_step="Start with x - x.mean(-1, keepdim=True) and print its shape.",
)


def _feed_forward(x: Tensor, W_1: Tensor, b_1: Tensor, W_2: Tensor, b_2: Tensor) -> Tensor:
    return (x @ W_1 + b_1).relu() @ W_2 + b_2


def _network_case(draw: Draw) -> tuple[Tensor, ...]:
    batch, n, d_model, d_ff = draw.sizes(4, range(2, 10))
    shapes = (batch, n, d_model), (d_model, d_ff), (d_ff,), (d_ff, d_model), (d_model,)
    return tuple(draw.tensor(*shape) for shape in shapes)


feed_forward = Exercise(
    name="feed_forward",
    reference=_feed_forward,
    cases=(
        _random((2, 3, 4), (4, 8), (8,), (8, 4), (4,)),
        _random((2, 5, 3), (3, 7), (7,), (7, 3), (3,)),
        *drawn(8, _network_case),
    ),
    misconceptions=(
        Misconception(
            "there is no bend between the two layers, so together they are a single matrix. Put a "
            "ReLU after the first.",
            lambda x, W_1, b_1, W_2, b_2: (x @ W_1 + b_1) @ W_2 + b_2,
        ),
        Misconception(
            "the ReLU stands behind the second layer; it belongs between the two. Behind it, a "
            "branch could only ever add positive numbers to the tokens.",
            lambda x, W_1, b_1, W_2, b_2: ((x @ W_1 + b_1) @ W_2 + b_2).relu(),
        ),
        Misconception(
            "there is a ReLU behind both layers; only the first has one, as what is added to the "
            "tokens may be negative.",
            lambda x, W_1, b_1, W_2, b_2: ((x @ W_1 + b_1).relu() @ W_2 + b_2).relu(),
        ),
        Misconception(
            "the ReLU comes before the first layer; it belongs behind it.",
            lambda x, W_1, b_1, W_2, b_2: (x.relu() @ W_1 + b_1) @ W_2 + b_2,
        ),
        Misconception(
            "the first bias is added behind the ReLU; it belongs inside, where it decides at which "
            "point each unit bends.",
            lambda x, W_1, b_1, W_2, b_2: ((x @ W_1).relu() + b_1) @ W_2 + b_2,
        ),
        Misconception(
            "this is a GELU; the exercise asks for the ReLU of the first Transformer.",
            lambda x, W_1, b_1, W_2, b_2: F.gelu(x @ W_1 + b_1) @ W_2 + b_2,
        ),
        Misconception(
            "positive numbers are set to 0, and negative ones stay; it is the other way round.",
            lambda x, W_1, b_1, W_2, b_2: (x @ W_1 + b_1).clamp(max=0) @ W_2 + b_2,
        ),
        Misconception(
            "the negative numbers have lost their sign; a ReLU sets them to 0.",
            lambda x, W_1, b_1, W_2, b_2: (x @ W_1 + b_1).abs() @ W_2 + b_2,
        ),
        Misconception(
            "both biases were forgotten.",
            lambda x, W_1, b_1, W_2, b_2: (x @ W_1).relu() @ W_2,
        ),
        Misconception(
            "the first bias, b_1, was forgotten.",
            lambda x, W_1, b_1, W_2, b_2: (x @ W_1).relu() @ W_2 + b_2,
        ),
        Misconception(
            "the second bias, b_2, was forgotten.",
            lambda x, W_1, b_1, W_2, b_2: (x @ W_1 + b_1).relu() @ W_2,
        ),
        Misconception(
            "the first bias is subtracted; add it.",
            lambda x, W_1, b_1, W_2, b_2: (x @ W_1 - b_1).relu() @ W_2 + b_2,
        ),
        Misconception(
            "the second bias is subtracted; add it.",
            lambda x, W_1, b_1, W_2, b_2: (x @ W_1 + b_1).relu() @ W_2 - b_2,
        ),
        Misconception(
            "what is added does not fit. x @ W_1 has d_ff numbers for each token, and so has b_1; "
            "behind W_2 there are d_model again, and b_2 has as many.",
            lambda x, W_1, b_1, W_2, b_2: (x @ W_1 + b_2).relu() @ W_2 + b_1,
        ),
        Misconception(
            "x was added: that is the residual connection, which belongs to the block around the "
            "network. Return only what is to be added.",
            lambda x, W_1, b_1, W_2, b_2: x + (x @ W_1 + b_1).relu() @ W_2 + b_2,
        ),
        Misconception(
            "the first product does not fit. W_1 is (d_model, d_ff) and stands on the right as it "
            "is, x @ W_1; neither its transpose (nn.Linear stores its matrix that way round) nor "
            "W_2 belongs there.",
            lambda x, W_1, b_1, W_2, b_2: x @ W_1.T,
        ),
        Misconception(
            "the second product does not fit. W_2 is (d_ff, d_model) and stands on the right as it "
            "is; neither its transpose nor W_1 belongs there.",
            lambda x, W_1, b_1, W_2, b_2: (x @ W_1 + b_1).relu() @ W_2.T,
        ),
        Misconception(
            "this is the inner layer, of width d_ff; W_2 and b_2 still have to bring it back to "
            "d_model.",
            lambda x, W_1, b_1, W_2, b_2: (x @ W_1 + b_1).relu(),
        ),
    ),
    first_step="Start with x @ W_1 + b_1: it must have d_ff numbers for each token.",
)


def _block_case(n_tokens: int, d_model: int, d_ff: int) -> tuple:
    """Tokens, an attention, a feed-forward network, and two norms that can be told apart."""
    square = (d_model, d_model)
    x, W_q, W_k, W_v = _random((n_tokens, d_model), square, square, square)
    W_1, W_2, gain_1, gain_2 = _random((d_model, d_ff), (d_ff, d_model), (d_model,), (d_model,))
    return (
        3 * x + 1,
        lambda x: attention_weights(x @ W_q, x @ W_k) @ x @ W_v,
        lambda x: (x @ W_1).relu() @ W_2,
        lambda x: F.layer_norm(x, (d_model,)) * gain_1,
        lambda x: F.layer_norm(x, (d_model,)) * gain_2 + 0.5,
    )


def _drawn_norm(draw: Draw, d_model: int) -> Branch:
    gain, shift = draw.tensor(d_model), draw.tensor(d_model)
    return lambda x: F.layer_norm(x, (d_model,), gain, shift)


def _drawn_block(draw: Draw) -> tuple:
    d_model = draw.randint(2, 7)
    branches = _drawn_branch(draw, d_model), _drawn_branch(draw, d_model)
    norms = _drawn_norm(draw, d_model), _drawn_norm(draw, d_model)
    return _drawn_tokens(draw, d_model), *branches, *norms


def _pre_norm(
    x: Tensor, attention: Branch, feed_forward: Branch, norm_1: Branch, norm_2: Branch
) -> Tensor:
    x = x + attention(norm_1(x))
    return x + feed_forward(norm_2(x))


def _post_norm(
    x: Tensor, attend: Branch, forward: Branch, norm_1: Branch, norm_2: Branch
) -> Tensor:
    x = norm_1(x + attend(x))
    return norm_2(x + forward(x))


def _normed_residual(
    x: Tensor, attend: Branch, forward: Branch, norm_1: Branch, norm_2: Branch
) -> Tensor:
    x = norm_1(x)
    x = norm_2(x + attend(x))
    return x + forward(x)


pre_norm_block = Exercise(
    name="pre_norm_block",
    reference=_pre_norm,
    cases=(_block_case(5, 6, 12), _block_case(3, 4, 10), *drawn(8, _drawn_block)),
    misconceptions=(
        Misconception(
            "this is the post-LN block: the norms come after the sums. In pre-LN each norm stands "
            "before its branch, and the sum is left alone.",
            _post_norm,
        ),
        Misconception(
            "x was overwritten by its own norm, so the normalised x is what the branch is added "
            "to. Only the branch should see the norm: x + attention(norm_1(x)).",
            _normed_residual,
        ),
        Misconception(
            "in the attention's half x was overwritten by its norm, so the normalised x is what "
            "the attention's result is added to. Only the branch should see the norm: "
            "x + attention(norm_1(x)).",
            lambda x, att, ff, n_1, n_2: _pre_norm(n_1(x), att, ff, lambda h: h, n_2),
        ),
        Misconception(
            "in the feed-forward network's half x was overwritten by its norm, so the normalised x "
            "is what the network's result is added to. Only the branch should see the norm: "
            "x + feed_forward(norm_2(x)).",
            lambda x, att, ff, n_1, n_2: _residual_stack(n_2(x + att(n_1(x))), [ff]),
        ),
        Misconception(
            "the attention's half is pre-LN, but the other one post-LN: norm_2 stands behind the "
            "sum. It belongs before the feed-forward network.",
            lambda x, att, ff, n_1, n_2: n_2(_pre_norm(x, att, ff, n_1, lambda h: h)),
        ),
        Misconception(
            "the attention's half is post-LN: norm_1 stands behind the sum. It belongs before the "
            "attention.",
            lambda x, att, ff, n_1, n_2: _residual_stack(n_1(x + att(x)), [lambda h: ff(n_2(h))]),
        ),
        Misconception(
            "no residual connection is left: each branch replaces x. Add x to both.",
            lambda x, att, ff, n_1, n_2: ff(n_2(att(n_1(x)))),
        ),
        Misconception(
            "the attention has no residual connection: x + is missing in the first line.",
            lambda x, att, ff, n_1, n_2: _residual_stack(att(n_1(x)), [lambda h: ff(n_2(h))]),
        ),
        Misconception(
            "the feed-forward network has no residual connection: the sum is missing in the "
            "second line.",
            lambda x, att, ff, n_1, n_2: ff(n_2(x + att(n_1(x)))),
        ),
        Misconception(
            "the second sum goes back to the x that came into the block, so what the attention "
            "found reaches the output only through the feed-forward network.",
            lambda x, att, ff, n_1, n_2: x + ff(n_2(x + att(n_1(x)))),
        ),
        Misconception(
            "both branches read the x that came into the block; the feed-forward network should "
            "read the sum that the attention left. (Some large models do this on purpose, as "
            "parallel blocks, to save time.)",
            lambda x, att, ff, n_1, n_2: x + att(n_1(x)) + ff(n_2(x)),
        ),
        Misconception(
            "the norms have changed places: norm_1 belongs to the attention.",
            lambda x, att, ff, n_1, n_2: _pre_norm(x, att, ff, n_2, n_1),
        ),
        Misconception(
            "norm_1 is used twice; each branch has a norm of its own.",
            lambda x, att, ff, n_1, n_2: _pre_norm(x, att, ff, n_1, n_1),
        ),
        Misconception(
            "norm_2 is used twice; each branch has a norm of its own.",
            lambda x, att, ff, n_1, n_2: _pre_norm(x, att, ff, n_2, n_2),
        ),
        Misconception(
            "the attention is used twice; the second half belongs to the feed-forward network.",
            lambda x, att, ff, n_1, n_2: _pre_norm(x, att, att, n_1, n_2),
        ),
        Misconception(
            "the feed-forward network is used twice; the first half belongs to the attention.",
            lambda x, att, ff, n_1, n_2: _pre_norm(x, ff, ff, n_1, n_2),
        ),
        Misconception(
            "neither branch is normalised: the norms are never called.",
            lambda x, att, ff, n_1, n_2: _residual_stack(x, [att, ff]),
        ),
        Misconception(
            "the attention reads x without its norm.",
            lambda x, att, ff, n_1, n_2: _pre_norm(x, att, ff, lambda h: h, n_2),
        ),
        Misconception(
            "the feed-forward network reads x without its norm.",
            lambda x, att, ff, n_1, n_2: _pre_norm(x, att, ff, n_1, lambda h: h),
        ),
        Misconception(
            "the norms are put on what the branches return; they belong on what the branches are "
            "given.",
            lambda x, att, ff, n_1, n_2: _residual_stack(
                x, [lambda h: n_1(att(h)), lambda h: n_2(ff(h))]
            ),
        ),
        Misconception(
            "the feed-forward network comes first; the attention should.",
            lambda x, att, ff, n_1, n_2: _pre_norm(x, ff, att, n_2, n_1),
        ),
        Misconception(
            "there is one norm too many, behind the last sum. A pre-LN model has such a norm only "
            "once, behind its last block.",
            lambda x, att, ff, n_1, n_2: n_2(_pre_norm(x, att, ff, n_1, n_2)),
        ),
        Misconception(
            "the attention is missing: its half of the block is never run.",
            lambda x, att, ff, n_1, n_2: x + ff(n_2(x)),
        ),
        Misconception(
            "the branches have changed places, but not the norms: the attention comes first, with "
            "norm_1, and then the feed-forward network, with norm_2.",
            lambda x, att, ff, n_1, n_2: _pre_norm(x, ff, att, n_1, n_2),
        ),
        Misconception(
            "what the branches return is subtracted; a residual connection adds.",
            lambda x, att, ff, n_1, n_2: _subtracted(
                x, [lambda h: att(n_1(h)), lambda h: ff(n_2(h))]
            ),
        ),
        Misconception(
            "the attention's result is subtracted; a residual connection adds.",
            lambda x, att, ff, n_1, n_2: _pre_norm(x, lambda h: -att(h), ff, n_1, n_2),
        ),
        Misconception(
            "the feed-forward network's result is subtracted; a residual connection adds.",
            lambda x, att, ff, n_1, n_2: _pre_norm(x, att, lambda h: -ff(h), n_1, n_2),
        ),
        Misconception(
            "the attention is never called: what is added to x is norm_1(x) itself.",
            lambda x, att, ff, n_1, n_2: _pre_norm(x, lambda h: h, ff, n_1, n_2),
        ),
        Misconception(
            "the feed-forward network is never called: what is added to x is norm_2(x) itself.",
            lambda x, att, ff, n_1, n_2: _pre_norm(x, att, lambda h: h, n_1, n_2),
        ),
        Misconception(
            "the block ends after the attention; the feed-forward network is missing.",
            lambda x, att, ff, n_1, n_2: x + att(n_1(x)),
        ),
    ),
    first_step="Start with the attention's half: x plus what the attention makes of norm_1(x).",
)


def _count(d_model: int, d_ff: int) -> int:
    attention = 4 * (d_model * d_model + d_model)
    feed_forward = 2 * d_model * d_ff + d_ff + d_model
    return attention + feed_forward + 4 * d_model


def _widths(draw: Draw) -> tuple[int, int]:
    d_model, d_ff = draw.sizes(2, range(2, 40))
    return d_model, d_ff


class _Formula(Exercise):
    """A formula in two widths. Of a wrong one it can be said which of its terms are wrong."""

    def _seen(self, pairs: list) -> str | None:
        if len(pairs) == len(self.cases) and not any(yours.array.ndim for yours, _ in pairs):
            off = np.array([float(yours.array - right.array) for yours, right in pairs])
            terms = np.array([[d * d, d * d_ff, d_ff * d_ff, d, d_ff, 1] for d, d_ff in self.cases])
            counts = np.linalg.lstsq(terms, off, rcond=None)[0].round().astype(int)
            if counts.any() and np.allclose(terms @ counts, off):
                return _terms_in_words(counts.tolist())
        return super()._seen(pairs)


def _terms_in_words(counts: list[int]) -> str:
    names = (
        " · d_model · d_model",
        " · d_model · d_ff",
        " · d_ff · d_ff",
        " · d_model",
        " · d_ff",
        "",
    )
    terms = list(zip(counts, names, strict=True))
    many = " and ".join(f"{count}{name}" for count, name in terms if count > 0)
    few = " and ".join(f"{-count}{name}" for count, name in terms if count < 0)
    said = [f"{many} too many" if many else "", f"{few} too few" if few else ""]
    return f"whatever the widths, it counts {', and '.join(filter(None, said))}."


count_parameters = _Formula(
    name="count_parameters",
    reference=_count,
    cases=((8, 32), (6, 10), (64, 100), (1, 1), (5, 3), *drawn(6, _widths)),
    misconceptions=(
        Misconception(
            "that is right only when d_ff is 4 · d_model; use d_ff as it is given.",
            lambda d, d_ff: _count(d, 4 * d),
        ),
        Misconception(
            "no bias is counted: each of the six linear layers has one, as wide as its output.",
            lambda d, d_ff: _count(d, d_ff) - 5 * d - d_ff,
        ),
        Misconception(
            "these are the weight matrices alone; the biases and the two LayerNorms are missing.",
            lambda d, d_ff: 4 * d * d + 2 * d * d_ff,
        ),
        Misconception(
            "one of the attention's four projections is missing: query, key, value, and W_o, which "
            "mixes the heads.",
            lambda d, d_ff: _count(d, d_ff) - d * d - d,
        ),
        Misconception(
            "4 · d_model are missing. Two things have that size: the biases of the four "
            "projections, and the two LayerNorms with a gain and a shift each.",
            lambda d, d_ff: _count(d, d_ff) - 4 * d,
        ),
        Misconception(
            "each LayerNorm has a gain and a shift, and there are two LayerNorms: half of that is "
            "missing.",
            lambda d, d_ff: _count(d, d_ff) - 2 * d,
        ),
        Misconception(
            "the feed-forward network has two matrices, one to widen and one to narrow; only one "
            "is counted.",
            lambda d, d_ff: _count(d, d_ff) - d * d_ff,
        ),
        Misconception(
            "the biases of the feed-forward network are missing: d_ff for the first layer, d_model "
            "for the second.",
            lambda d, d_ff: _count(d, d_ff) - d_ff - d,
        ),
        Misconception(
            "both biases of the feed-forward network are counted as d_ff; the second layer ends in "
            "d_model numbers.",
            lambda d, d_ff: _count(d, d_ff) - d + d_ff,
        ),
        Misconception(
            "both biases of the feed-forward network are counted as d_model; the first layer ends "
            "in d_ff numbers.",
            lambda d, d_ff: _count(d, d_ff) + d - d_ff,
        ),
        Misconception(
            "this counts the attention alone; the feed-forward network and the norms are missing.",
            lambda d, d_ff: 4 * d * d + 4 * d,
        ),
        Misconception(
            "this counts the feed-forward network alone; the attention and the norms are missing.",
            lambda d, d_ff: 2 * d * d_ff + d_ff + d,
        ),
    ),
    first_step="Start with the attention: four square matrices, each with a bias.",
)
