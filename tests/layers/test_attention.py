"""Attention against torch's own: forward, gradients, masks, biases, odd sizes, bfloat16."""

import itertools
import math

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from attnviz.layers import (
    MultiHeadAttention,
    alibi,
    attention_weights,
    causal_mask,
    combine_masks,
    padding_mask,
    rotate,
    scaled_dot_product_attention,
)

SEEDS = [0, 1, 2]
# relative to outputs of size one; bfloat16 keeps 8 bits
TOLERANCE = {torch.float32: 1e-5, torch.bfloat16: 3e-2}


def random(*shape, dtype=torch.float32):
    return torch.randn(shape).to(dtype).requires_grad_()


def assert_close(a, b, tolerance):
    torch.testing.assert_close(a, b, atol=tolerance, rtol=tolerance)


def masks_for(batch, n_queries, n_keys):
    lengths = torch.randint(1, n_keys + 1, (batch,))
    some_empty = torch.rand(batch, n_queries, n_keys) < 0.5
    some_empty[0, 0] = False  # a query that may attend to nothing
    return {
        "none": None,
        "padding": padding_mask(lengths, n_keys),
        "causal": causal_mask(n_queries, n_keys),
        "both": combine_masks(causal_mask(n_queries, n_keys), padding_mask(lengths, n_keys)),
        "fully masked rows": some_empty,
    }


MASKS = ["none", "padding", "causal", "both", "fully masked rows"]


class TestScaledDotProductAttention:
    @pytest.mark.parametrize("seed", SEEDS)
    @pytest.mark.parametrize("mask", MASKS)
    @pytest.mark.parametrize("dtype", TOLERANCE)
    def test_output_and_gradients_are_those_of_torch(self, seed, mask, dtype):
        torch.manual_seed(seed)
        query, key, value = random(3, 5, 7), random(3, 9, 7), random(3, 9, 4)
        low = [t.detach().to(dtype).requires_grad_() for t in (query, key, value)]
        mask = masks_for(3, 5, 9)[mask]
        mine, weights = scaled_dot_product_attention(*low, mask)
        theirs = F.scaled_dot_product_attention(query, key, value, mask)
        assert mine.dtype == weights.dtype == dtype
        assert_close(mine.float(), theirs, TOLERANCE[dtype])
        upstream = torch.randn_like(theirs)
        mine.backward(upstream.to(dtype))
        theirs.backward(upstream)
        for a, b in zip(low, (query, key, value), strict=True):
            assert_close(a.grad.float(), b.grad, 3 * TOLERANCE[dtype])

    def test_rows_of_the_weights_sum_to_one(self):
        weights = attention_weights(random(2, 4, 8), random(2, 6, 8))
        assert_close(weights.sum(-1), torch.ones(2, 4), 1e-6)

    def test_a_query_that_may_see_nothing_gets_zeros_and_finite_gradients(self):
        query, key, value = random(1, 3, 4), random(1, 3, 4), random(1, 3, 4)
        mask = torch.tensor([[True, False, False], [False] * 3, [True] * 3])
        mixed, weights = scaled_dot_product_attention(query, key, value, mask)
        assert torch.equal(weights[0, 1], torch.zeros(3))
        assert torch.equal(mixed[0, 1], torch.zeros(4))
        mixed.sum().backward()
        assert all(torch.isfinite(t.grad).all() for t in (query, key, value))

    def test_masked_keys_get_exactly_nothing(self):
        weights = attention_weights(random(4, 8), random(4, 8), causal_mask(4))
        assert torch.equal(weights.triu(1), torch.zeros(4, 4))

    def test_masked_keys_get_nothing_even_beside_very_low_scores(self):
        query, key = torch.tensor([[1.0]]), torch.tensor([[-1e6], [-2e6], [0.0]])
        weights = attention_weights(query, key, torch.tensor([[True, True, False]]))
        assert weights.tolist() == [[1, 0, 0]]

    def test_any_leading_dimensions(self):
        query = random(2, 3, 4, 5, 6)
        mixed, _ = scaled_dot_product_attention(query, query, query)
        assert_close(mixed, F.scaled_dot_product_attention(query, query, query), 1e-6)

    def test_permuting_the_tokens_permutes_the_output(self):
        x, order = random(1, 6, 8), torch.randperm(6)
        mixed, _ = scaled_dot_product_attention(x, x, x)
        shuffled = x[:, order]
        mixed_shuffled, _ = scaled_dot_product_attention(shuffled, shuffled, shuffled)
        assert_close(mixed_shuffled, mixed[:, order], 1e-6)

    @pytest.mark.parametrize(
        ("shapes", "message"),
        [
            (((2, 3, 4), (2, 3, 5), (2, 3, 4)), "same d_k.*4 and 5"),
            (((2, 3, 4), (1, 3, 4), (1, 3, 4)), r"leading.*\(2, 3, 4\) and \(1, 3, 4\)"),
            (((4,), (4,), (4,)), r"n_queries, d_k"),
            (((3, 4), (5, 4), (6, 4)), r"value.*\(5,\).*got \(6,\)"),
            (((2, 3, 4), (2, 5, 4), (1, 5, 4)), r"value.*\(2, 5\).*got \(1, 5\)"),
        ],
    )
    def test_shapes_that_do_not_fit_are_named(self, shapes, message):
        with pytest.raises(ValueError, match=message):
            scaled_dot_product_attention(*(random(*s) for s in shapes))

    @pytest.mark.parametrize("mask", [torch.ones(3, 3), torch.ones(3, 3).long(), [[True]]])
    def test_a_mask_that_is_not_bool_is_a_type_error(self, mask):
        with pytest.raises(TypeError, match="mask must be a bool tensor, True where"):
            attention_weights(random(3, 4), random(3, 4), mask)

    @pytest.mark.parametrize("shape", [(3,), (3, 4), (2, 3, 5), (1, 1), (5, 1), (7, 3, 5)])
    def test_a_mask_of_the_wrong_shape_is_never_stretched_in_silence(self, shape):
        query, key = random(2, 2, 3, 4), random(2, 2, 5, 4)
        with pytest.raises(ValueError, match=r"mask must be \(query, key\) = \(3, 5\)"):
            attention_weights(query, key, torch.ones(shape, dtype=torch.bool))


def same_weights(d_model, n_heads, bias=True):
    """Our layer and torch's with the same weights."""
    mine = MultiHeadAttention(d_model, n_heads, bias=bias)
    theirs = nn.MultiheadAttention(d_model, n_heads, bias=bias, batch_first=True)
    for parameter in mine.parameters():  # biases too should have something to do
        nn.init.normal_(parameter, std=0.3)
    with torch.no_grad():
        theirs.in_proj_weight.copy_(mine.qkv_proj.weight)
        theirs.out_proj.weight.copy_(mine.out_proj.weight)
        if bias:
            theirs.in_proj_bias.copy_(mine.qkv_proj.bias)
            theirs.out_proj.bias.copy_(mine.out_proj.bias)
    return mine, theirs


def torch_mask(mask, batch, n_heads, n_queries, n_keys):
    """The mask as nn.MultiheadAttention wants it: True where attending is forbidden."""
    if mask is None:
        return None
    full = mask.expand(batch, n_queries, n_keys)
    return ~full.repeat_interleave(n_heads, dim=0)


class TestMultiHeadAttention:
    @pytest.mark.slow
    @pytest.mark.parametrize("seed", SEEDS)
    @pytest.mark.parametrize("mask", MASKS[:-1])  # torch's own module gives nan for empty rows
    @pytest.mark.parametrize("cross", [False, True])
    @pytest.mark.parametrize("need_weights", [False, True])
    def test_output_weights_and_gradients_are_those_of_torch(self, seed, mask, cross, need_weights):
        torch.manual_seed(seed)
        batch, n_queries, n_keys, d_model, n_heads = 3, 5, 7 if cross else 5, 21, 3
        mine, theirs = same_weights(d_model, n_heads, bias=seed != 1)
        x = random(batch, n_queries, d_model)
        memory = random(batch, n_keys, d_model) if cross else None
        mask = masks_for(batch, n_queries, n_keys)[mask]
        mixed, weights = mine(x, memory, mask, need_weights)
        x2 = x.detach().clone().requires_grad_()
        memory2 = memory.detach().clone().requires_grad_() if cross else x2
        forbidden = torch_mask(mask, batch, n_heads, n_queries, n_keys)
        mixed2, weights2 = theirs(
            x2, memory2, memory2, attn_mask=forbidden, average_attn_weights=False
        )
        assert_close(mixed, mixed2, 1e-5)
        if need_weights:
            assert_close(weights, weights2, 1e-5)
        else:
            assert weights is None
        upstream = torch.randn_like(mixed)
        mixed.backward(upstream)
        mixed2.backward(upstream)
        assert_close(x.grad, x2.grad, 1e-4)
        assert_close(mine.qkv_proj.weight.grad, theirs.in_proj_weight.grad, 1e-4)
        assert_close(mine.out_proj.weight.grad, theirs.out_proj.weight.grad, 1e-4)
        if cross:
            assert_close(memory.grad, memory2.grad, 1e-4)

    @pytest.mark.parametrize("dtype", TOLERANCE)
    def test_both_ways_agree_on_fully_masked_rows(self, dtype):
        mine = MultiHeadAttention(16, 4).to(dtype)
        x, mask = random(2, 6, 16, dtype=dtype), masks_for(2, 6, 6)["fully masked rows"]
        grads = []
        for need_weights in (False, True):
            mixed, _ = mine(x, mask=mask, need_weights=need_weights)
            grads.append((mixed, *torch.autograd.grad(mixed.sum(), [x, *mine.parameters()])))
        assert all(torch.isfinite(g).all() for g in grads[0])
        for fused, written_out in zip(*grads, strict=True):
            scale = written_out.abs().max().item() or 1
            assert_close(fused / scale, written_out / scale, TOLERANCE[dtype])
        assert_close(grads[0][0][0, 0], mine.out_proj.bias, TOLERANCE[dtype])

    def test_a_mask_for_each_head(self):
        mine = MultiHeadAttention(8, 2)
        mask = torch.stack([torch.eye(4), torch.ones(4, 4)]).bool()[None]  # (1, heads, query, key)
        _, weights = mine(random(3, 4, 8), mask=mask, need_weights=True)
        assert_close(weights[:, 0], torch.eye(4).expand(3, 4, 4), 1e-6)
        assert (weights[:, 1] > 0).all()

    def test_a_three_dimensional_mask_is_for_the_batch_not_for_the_heads(self):
        mine = MultiHeadAttention(8, 2)  # as many heads as batch items, where mistakes hide
        mask = torch.stack([torch.eye(4), torch.ones(4, 4)]).bool()  # (batch, query, key)
        _, weights = mine(random(2, 4, 8), mask=mask, need_weights=True)
        assert_close(weights[0], torch.eye(4).expand(2, 4, 4), 1e-6)
        assert (weights[1] > 0).all()

    def test_weights_are_not_computed_unless_asked_for(self, monkeypatch):
        calls = []
        original = F.scaled_dot_product_attention
        monkeypatch.setattr(
            F, "scaled_dot_product_attention", lambda *a: calls.append(1) or original(*a)
        )
        mine = MultiHeadAttention(8, 2)
        assert mine(random(1, 3, 8))[1] is None
        assert calls == [1]

    def test_dropout_works_on_the_weights_in_training_only(self):
        mine, x = MultiHeadAttention(64, 4, dropout=0.5), random(2, 8, 64)
        for need_weights in (False, True):
            assert not torch.equal(
                mine.train()(x, need_weights=need_weights)[0], mine(x, need_weights=need_weights)[0]
            )
            assert torch.equal(
                mine.eval()(x, need_weights=need_weights)[0], mine(x, need_weights=need_weights)[0]
            )
        _, weights = mine.train()(x, need_weights=True)
        assert_close(weights.sum(-1), torch.ones(2, 4, 8), 1e-6)  # shown as before the dropout

    @pytest.mark.parametrize("bias", [True, False])
    def test_initial_weights_are_those_of_torch(self, bias):
        torch.manual_seed(0)
        theirs = nn.MultiheadAttention(600, 2, bias=bias)
        mine = MultiHeadAttention(600, 2, bias=bias)
        pairs = [
            (mine.qkv_proj.weight, theirs.in_proj_weight),
            (mine.out_proj.weight, theirs.out_proj.weight),
        ]
        for a, b in pairs:
            assert abs(a.std() / b.std() - 1) < 0.01
            assert abs(a.abs().max() / b.abs().max() - 1) < 0.01
        if bias:
            assert mine.qkv_proj.bias.abs().max() == mine.out_proj.bias.abs().max() == 0

    @pytest.mark.parametrize(("d_model", "n_heads"), [(10, 3), (8, 0), (0, 2), (8, -2)])
    def test_heads_that_do_not_divide_the_width(self, d_model, n_heads):
        with pytest.raises(ValueError, match=f"got d_model={d_model} and n_heads={n_heads}"):
            MultiHeadAttention(d_model, n_heads)

    def test_a_dropout_that_is_no_probability(self):
        for dropout in (-0.1, 1, 1.5):
            with pytest.raises(ValueError, match=rf"dropout must be in \[0, 1\), got {dropout}"):
                MultiHeadAttention(8, 2, dropout=dropout)

    @pytest.mark.parametrize(
        ("arguments", "message"),
        [
            ({"x": random(3, 8)}, r"x must be \(batch, token, d_model=8\), got \(3, 8\)"),
            ({"x": random(2, 3, 6)}, r"x must be .* got \(2, 3, 6\)"),
            ({"x": random(2, 3, 8), "memory": random(2, 3, 6)}, r"memory must be .*\(2, 3, 6\)"),
            ({"x": random(2, 3, 8), "memory": random(1, 3, 8)}, "memory has batch size 1, x has 2"),
        ],
    )
    def test_tokens_of_the_wrong_shape(self, arguments, message):
        with pytest.raises(ValueError, match=message):
            MultiHeadAttention(8, 2)(**arguments)

    @pytest.mark.parametrize("need_weights", [False, True])
    def test_bad_masks_fail_alike_on_both_ways(self, need_weights):
        mine, x = MultiHeadAttention(8, 2), random(2, 3, 8)
        with pytest.raises(TypeError, match=r"mask must be a bool tensor.*torch.float32"):
            mine(x, mask=torch.zeros(3, 3), need_weights=need_weights)
        with pytest.raises(ValueError, match=r"mask must be .*\(3, 3\).*got \(3, 4\)"):
            mine(x, mask=torch.ones(3, 4, dtype=torch.bool), need_weights=need_weights)
        with pytest.raises(ValueError, match=r"mask must be .*\(2, 3, 3\).*got \(5, 3, 3\)"):
            mine(x, mask=torch.ones(5, 3, 3, dtype=torch.bool), need_weights=need_weights)
        with pytest.raises(TypeError, match=r"mask must be a bool tensor.*list"):
            mine(x, mask=[[True] * 3] * 3, need_weights=need_weights)


def shapes_of_a_bias(batch, n_heads, n_queries, n_keys):
    full = (batch, n_heads, n_queries, n_keys)
    for dimensions in range(5):
        yield from itertools.product(*((1, n) for n in full[4 - dimensions :]))


class TestBias:
    @pytest.mark.parametrize("seed", SEEDS)
    @pytest.mark.parametrize("mask", ["none", "causal"])
    @pytest.mark.parametrize("need_weights", [False, True])
    def test_output_weights_and_gradients_are_those_of_torch(self, seed, mask, need_weights):
        torch.manual_seed(seed)
        mine, theirs = same_weights(21, 3)
        x, bias = random(2, 5, 21), random(3, 5, 5)
        x2, bias2 = (t.detach().clone().requires_grad_() for t in (x, bias))
        mask = masks_for(2, 5, 5)[mask]
        added = bias2 if mask is None else bias2.masked_fill(~mask, -math.inf)
        mixed, weights = mine(x, mask=mask, need_weights=need_weights, bias=bias)
        mixed2, weights2 = theirs(
            x2, x2, x2, attn_mask=added.repeat(2, 1, 1), average_attn_weights=False
        )
        assert_close(mixed, mixed2, 1e-5)
        if need_weights:
            assert_close(weights, weights2, 1e-5)
        upstream = torch.randn_like(mixed)
        mixed.backward(upstream)
        mixed2.backward(upstream)
        assert_close(x.grad, x2.grad, 1e-4)
        assert_close(bias.grad, bias2.grad, 1e-4)

    @pytest.mark.slow
    @pytest.mark.parametrize("mask", MASKS)
    @pytest.mark.parametrize("dtype", TOLERANCE)
    def test_both_ways_agree_for_every_shape_of_bias_and_mask(self, mask, dtype):
        torch.manual_seed(0)
        mine, x = MultiHeadAttention(12, 3).to(dtype), random(2, 4, 12, dtype=dtype)
        mask = masks_for(2, 4, 4)[mask]
        for shape in shapes_of_a_bias(2, 3, 4, 4):
            bias, results = torch.randn(shape, dtype=dtype), []
            for need_weights in (False, True):
                mixed, _ = mine(x, mask=mask, need_weights=need_weights, bias=bias)
                grads = torch.autograd.grad(mixed.sum(), [x, *mine.parameters()])
                results.append((mixed, *grads))
            for fused, written_out in zip(*results, strict=True):
                assert torch.isfinite(fused).all()
                scale = written_out.abs().max().item() or 1
                assert_close(fused / scale, written_out / scale, 2 * TOLERANCE[dtype])

    @pytest.mark.parametrize("shape", [(1, 1, 5), (2, 1, 1, 5), (2, 3, 4, 5), (1, 3, 4, 5), (4, 5)])
    @pytest.mark.parametrize("need_weights", [False, True])
    def test_every_shape_of_mask_with_a_bias(self, shape, need_weights):
        torch.manual_seed(0)
        mine, x, memory = MultiHeadAttention(12, 3), random(2, 4, 12), random(2, 5, 12)
        mask, bias = torch.rand(shape) < 0.5, torch.randn(3, 4, 5)
        full = (mask[:, None] if len(shape) == 3 else mask).expand(2, 3, 4, 5)
        wanted, _ = mine(x, memory, full, need_weights, bias.expand(2, 3, 4, 5))
        assert_close(mine(x, memory, mask, need_weights, bias)[0], wanted, 1e-6)

    @pytest.mark.parametrize("need_weights", [False, True])
    @pytest.mark.parametrize("dtype", TOLERANCE)
    def test_a_query_that_may_see_nothing_gets_zeros_also_with_a_bias(self, need_weights, dtype):
        mine, x = MultiHeadAttention(16, 4).to(dtype), random(2, 6, 16, dtype=dtype)
        bias = alibi(4, 6).requires_grad_()
        mask = masks_for(2, 6, 6)["fully masked rows"]
        mixed, weights = mine(x, mask=mask, need_weights=need_weights, bias=bias)
        assert torch.equal(mixed[0, 0], mine.out_proj.bias)  # what the projection makes of zeros
        if need_weights:
            assert torch.equal(weights[0, :, 0], torch.zeros(4, 6))
        mixed.sum().backward()
        grads = [x.grad, bias.grad, *(p.grad for p in mine.parameters())]
        assert all(torch.isfinite(grad).all() for grad in grads)

    @pytest.mark.parametrize("need_weights", [False, True])
    def test_a_float32_bias_serves_a_bfloat16_layer(self, need_weights):
        mine, x = MultiHeadAttention(16, 4), random(2, 6, 16)
        exact, _ = mine(x, need_weights=need_weights, bias=alibi(4, 6))
        mixed, weights = mine.bfloat16()(x.bfloat16(), need_weights=need_weights, bias=alibi(4, 6))
        assert mixed.dtype == torch.bfloat16
        assert weights is None or weights.dtype == torch.bfloat16
        assert_close(mixed.float(), exact, 3e-2)

    def test_whole_numbers_will_do(self):
        mine, x = MultiHeadAttention(8, 2), random(2, 5, 8)
        bias = torch.arange(25).view(5, 5) % 4
        for need_weights in (False, True):
            wanted, _ = mine(x, need_weights=need_weights, bias=bias.float())
            assert_close(mine(x, need_weights=need_weights, bias=bias)[0], wanted, 1e-6)

    @pytest.mark.parametrize("shape", [(2, 4), (4, 5, 4), (2, 3, 4, 4), (2, 1, 2, 4, 4), (5,)])
    @pytest.mark.parametrize("need_weights", [False, True])
    def test_a_bias_that_does_not_fit_is_refused_on_both_ways(self, shape, need_weights):
        mine, x = MultiHeadAttention(8, 2), random(1, 4, 8)
        with pytest.raises(ValueError, match=r"bias must broadcast to \(1, 2, 4, 4\), got \("):
            mine(x, need_weights=need_weights, bias=torch.zeros(shape))

    @pytest.mark.parametrize("need_weights", [False, True])
    def test_a_mask_is_no_bias(self, need_weights):
        mine, x = MultiHeadAttention(8, 2), random(2, 4, 8)
        with pytest.raises(TypeError, match=r"bias must hold numbers.*torch.bool; give a mask"):
            mine(x, need_weights=need_weights, bias=causal_mask(4))


class TestRotary:
    @pytest.mark.parametrize("cross", [False, True])
    @pytest.mark.parametrize(("need_weights", "base"), [(False, 10_000.0), (True, 100.0)])
    def test_queries_and_keys_are_turned_and_values_are_not(self, cross, need_weights, base):
        mine = MultiHeadAttention(24, 3, rotary=True, rotary_base=base)
        x, memory = random(2, 5, 24), random(2, 7, 24) if cross else None
        mixed, weights = mine(x, memory, need_weights=need_weights)
        source = memory if cross else x
        w_q, w_k, w_v = mine.qkv_proj.weight.chunk(3)
        heads = []
        for h in range(3):
            rows = slice(8 * h, 8 * h + 8)
            query, key, value = x @ w_q[rows].T, source @ w_k[rows].T, source @ w_v[rows].T
            query, key = rotate(query, base=base), rotate(key, base=base)
            head, its_weights = scaled_dot_product_attention(query, key, value)
            heads.append(head)
            if need_weights:
                assert_close(weights[:, h], its_weights, 1e-5)
        assert_close(mixed, torch.cat(heads, -1) @ mine.out_proj.weight.T, 1e-5)

    def test_only_the_distance_counts(self):
        mine, x = MultiHeadAttention(16, 2, rotary=True), random(1, 4, 16)
        mask = torch.zeros(9, 9).bool()
        mask[5:, 5:] = True
        shifted, _ = mine(torch.cat([random(1, 5, 16), x], 1), mask=mask)
        assert_close(shifted[:, 5:], mine(x)[0], 1e-5)

    def test_heads_of_odd_width_are_refused_at_once(self):
        with pytest.raises(ValueError, match="heads of even width, got d_model=6 and n_heads=2"):
            MultiHeadAttention(6, 2, rotary=True)
        assert not MultiHeadAttention(6, 2).rotary
