"""Edits change the named heads, and nothing else."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

import attnviz as av
from attnviz.layers import MultiHeadAttention
from attnviz.models import BertConfig, BertEncoder


class WrittenOut(nn.Module):
    """Causal multi-head attention by hand, with dropout on the weights."""

    def __init__(self, dropout=0.0):
        super().__init__()
        self.dropout = nn.Dropout(dropout)

    def forward(self, q, k, v):
        scores = q @ k.mT / q.size(-1) ** 0.5
        hidden = torch.ones_like(scores).triu(1).bool()
        weights = scores.masked_fill(hidden, -torch.inf).softmax(-1)
        return self.dropout(weights) @ v


class Fused(nn.Module):
    def __init__(self, dropout=0.0):
        super().__init__()
        self.dropout = dropout

    def forward(self, q, k, v):
        p = self.dropout if self.training else 0.0
        return F.scaled_dot_product_attention(q, k, v, dropout_p=p, is_causal=True)


def qkv(*shape):
    torch.manual_seed(0)
    return tuple(torch.randn(shape, requires_grad=True) for _ in range(3))


def by_hand(q, k, v, changes):
    """The attention with some heads' weights changed, written out."""
    hidden = torch.ones(q.size(-2), k.size(-2)).triu(1).bool()
    weights = (q @ k.mT / q.size(-1) ** 0.5).masked_fill(hidden, -torch.inf).softmax(-1)
    heads = [changes.get(h, lambda w: w)(weights[:, h]) for h in range(q.size(1))]
    return torch.stack(heads, 1) @ v


CHANGES = {
    "off": av.off,
    "uniform": av.uniform,
    "only": av.only(0),
    "temperature": av.temperature(3.0),
    "own function": lambda weights: 0.5 * weights + 0.5 * torch.eye(weights.size(-1)),
}


@pytest.mark.parametrize("attention", [WrittenOut, Fused])
class TestOneAttention:
    @pytest.mark.parametrize("name", CHANGES)
    def test_output_and_gradients_are_those_of_the_changed_weights(self, attention, name):
        model, inputs = attention(), qkv(2, 3, 6, 4)
        with av.edit(model, {(0, 1): CHANGES[name]}):
            mine = model(*inputs)
        theirs = by_hand(*inputs, {1: CHANGES[name]})
        torch.testing.assert_close(mine, theirs, atol=1e-5, rtol=1e-5)
        upstream = torch.randn_like(mine)
        for a, b in zip(
            torch.autograd.grad(mine, inputs, upstream),
            torch.autograd.grad(theirs, inputs, upstream),
            strict=True,
        ):
            torch.testing.assert_close(a, b, atol=1e-5, rtol=1e-5)

    def test_other_heads_stay_bit_for_bit(self, attention):
        model, inputs = attention(), qkv(2, 3, 6, 4)
        plain = model(*inputs)
        with av.edit(model, {(0, 1): av.uniform}):
            edited = model(*inputs)
        assert torch.equal(plain[:, [0, 2]], edited[:, [0, 2]])
        assert not torch.allclose(plain[:, 1], edited[:, 1])

    def test_a_layer_alone_means_all_its_heads(self, attention):
        model, inputs = attention(), qkv(2, 3, 6, 4)
        with av.edit(model, {0: av.uniform}):
            edited = model(*inputs)
        torch.testing.assert_close(edited, by_hand(*inputs, dict.fromkeys(range(3), av.uniform)))

    def test_outer_edits_come_first(self, attention):
        model, inputs = attention(), qkv(1, 2, 4, 4)
        first, second = av.only(0), lambda w: 0.5 * w + 0.5 * av.uniform(w)
        with av.edit(model, {(0, 0): first}), av.edit(model, {(0, 0): second}):
            edited = model(*inputs)
        both = by_hand(*inputs, {0: lambda w: second(first(w))})
        torch.testing.assert_close(edited, both)

    def test_a_capture_around_it_shows_the_changed_weights(self, attention):
        model, inputs = attention(), qkv(2, 3, 6, 4)
        with av.capture(model) as seen, av.edit(model, {(0, 1): av.only(0)}):
            model(*inputs)
        assert torch.equal(seen[0].weights[:, 1, :, 0], torch.ones(2, 6))
        assert seen[0].weights[:, 0, :, 0].min() < 1
        assert torch.equal(seen[0].row(3), seen[0].weights[:, :, 3])
        assert seen[0].overview(2)[:, 1].tolist() == [[[1, 0], [1, 0]]] * 2

    def test_gradients_reach_the_changed_weights(self, attention):
        model, inputs = attention(), qkv(2, 3, 6, 4)
        seen_by = av.capture(model, with_gradients=True)
        with seen_by as seen, av.edit(model, {(0, 1): av.uniform}):
            output = model(*inputs)
        output.sum().backward()
        torch.testing.assert_close(output, by_hand(*inputs, {1: av.uniform}))
        expected = inputs[2].detach().sum(-1)[:, :, None].expand(2, 3, 6, 6)
        torch.testing.assert_close(seen[0].weights.grad, expected)

    def test_dropout_still_works_on_changed_weights(self, attention):
        torch.manual_seed(0)
        model = attention(dropout=0.5).train()
        ones = torch.ones(1, 1, 400, 400)
        with av.edit(model, {(0, 0): av.uniform}):
            output = model(ones, ones, ones)[0, 0, :, 0]
        assert output.std() > 0.01  # some were dropped
        assert abs(output.mean() - 1) < 0.05  # and the others made up for it


@pytest.fixture
def model():
    torch.manual_seed(0)
    return BertEncoder(BertConfig(50, 32, 3, 4, 64, 30, dropout=0.1)).eval()


IDS = torch.arange(12).view(2, 6)


class TestWholeModels:
    @pytest.mark.parametrize("training", [False, True])
    @pytest.mark.parametrize("need_weights", [False, True])
    def test_layers_below_stay_bit_for_bit(self, model, training, need_weights):
        model.train(training)

        def run(change):
            torch.manual_seed(1)
            with av.capture(model) as seen, av.edit(model, {(1, 2): change}):
                model(IDS, need_weights=need_weights)
            return [r.weights for r in seen]

        plain, edited = run(lambda weights: weights), run(av.off)
        assert torch.equal(plain[0], edited[0])
        assert torch.equal(plain[1][:, [0, 1, 3]], edited[1][:, [0, 1, 3]])
        assert not edited[1][:, 2].any()
        assert not torch.equal(plain[2], edited[2])

    def test_the_model_is_as_before_when_the_block_ends(self, model):
        before = model(IDS).last_hidden_state
        with av.edit(model, {0: av.off}):
            assert not torch.equal(model(IDS).last_hidden_state, before)
        assert torch.equal(model(IDS).last_hidden_state, before)

    def test_in_every_pass(self, model):
        with av.capture(model) as seen, av.edit(model, {(1, 0): av.off}):
            model(IDS)
            model(IDS[:, :3])
        assert [bool(r.weights[:, 0].any()) for r in seen] == [True, False, True] * 2

    def test_of_torchs_own_encoder_despite_its_fast_path(self):
        torch.manual_seed(0)
        layer = nn.TransformerEncoderLayer(16, 2, 32, batch_first=True)
        model, x = (
            nn.TransformerEncoder(layer, 2, enable_nested_tensor=False).eval(),
            torch.rand(1, 5, 16),
        )
        with torch.no_grad():
            plain = model(x)
            with av.edit(model, {(1, 0): av.off, (1, 1): av.off}):
                edited = model(x)
            first, second = model.layers
            y = first(x)
            y = second.norm1(y + second.self_attn.out_proj.bias)  # attention adds only its bias
            expected = second.norm2(y + second._ff_block(y))
        assert not torch.allclose(plain, edited)
        torch.testing.assert_close(edited, expected, atol=1e-5, rtol=1e-5)

    def test_of_cross_attention(self):
        torch.manual_seed(0)
        model, x, memory = MultiHeadAttention(8, 2), torch.randn(1, 3, 8), torch.randn(1, 5, 8)
        with av.edit(model, {0: av.only(4)}):
            edited, _ = model(x, memory)
        expected, _ = model(x, memory[:, 4:])  # one key is all there is
        torch.testing.assert_close(edited, expected)

    def test_of_grouped_queries(self):
        q, k, v = torch.randn(1, 4, 5, 8), torch.randn(1, 2, 5, 8), torch.randn(1, 2, 5, 8)

        class Grouped(nn.Module):
            def forward(self, q, k, v):
                return F.scaled_dot_product_attention(q, k, v, enable_gqa=True)

        model = Grouped()
        with av.edit(model, {(0, 3): av.only(2), (0, 1): av.only(0)}):
            edited = model(q, k, v)
        torch.testing.assert_close(edited[0, 3], v[0, 1, 2].expand(5, 8))
        torch.testing.assert_close(edited[0, 1], v[0, 0, 0].expand(5, 8))
        assert torch.equal(edited[:, [0, 2]], model(q, k, v)[:, [0, 2]])


class TestBadEdits:
    @pytest.mark.parametrize(
        ("change", "error", "message"),
        [
            (lambda w: w * 2, ValueError, r"head 1 must return rows that sum to 1.*sums to 2"),
            (lambda w: w * torch.nan, ValueError, "sums to nan"),
            (lambda w: w[:, :3], ValueError, r"must keep the shape .*\(2, 6, 6\), got \(2, 3, 6\)"),
            (lambda w: None, ValueError, "must return a tensor, got NoneType"),
            (lambda w: w + "1", ValueError, "the edit of head 1 raised TypeError: "),
            (lambda w: w[9], IndexError, "out of bounds"),
        ],
    )
    @pytest.mark.parametrize("need_weights", [False, True])
    def test_weights_that_are_none(self, model, change, error, message, need_weights):
        with pytest.raises(error, match=message), av.edit(model, {(0, 1): change}):
            model(IDS, need_weights=need_weights)
        model(IDS)  # nothing of it stays

    def test_a_head_that_does_not_exist(self, model):
        message = r"head 4 of layer 1, which has 4 heads \(0 to 3\)"
        with pytest.raises(ValueError, match=message), av.edit(model, {(1, 4): av.off}):
            model(IDS)

    def test_a_layer_that_does_not_exist(self, model):
        message = "names layer 3, but .* only 3 attentions"
        with pytest.raises(ValueError, match=message), av.edit(model, {(3, 0): av.off}):
            model(IDS)

    @pytest.mark.parametrize(
        ("changes", "error", "message"),
        [
            ({}, TypeError, "changes must be a dict"),
            ([((0, 0), av.off)], TypeError, "changes must be a dict"),
            ({(0, 0): 0.5}, TypeError, r"at \(0, 0\) must be a function, got 0\.5"),
            ({(0, -1): av.off}, ValueError, r"counted from 0 or .* got \(0, -1\)"),
            ({(0, 1, 2): av.off}, ValueError, r"got \(0, 1, 2\)"),
            ({"layer 0": av.off}, ValueError, "'layer 0', which is no module of the model"),
            ({(None, 0): av.off}, ValueError, r"got \(None, 0\)"),
            ({True: av.off}, ValueError, "got True"),
        ],
    )
    def test_what_is_no_edit(self, model, changes, error, message):
        with pytest.raises(error, match=message):
            av.edit(model, changes).__enter__()

    def test_what_is_no_model(self):
        with pytest.raises(TypeError, match=r"model must be a torch\.nn\.Module, got str"):
            av.edit("bert", {0: av.off}).__enter__()
