"""The encoder and the decoder block against torch's own layers."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from attnviz.layers import (
    DecoderBlock,
    EncoderBlock,
    alibi,
    causal_mask,
    padding_mask,
)

SEEDS = [0, 1, 2]
ACTIVATIONS = {"gelu": F.gelu, "relu": F.relu}
ENCODER = {  # torch's names: ours
    "self_attn.in_proj_": "attention.qkv_proj.",
    "self_attn.out_proj.": "attention.out_proj.",
    "linear1.": "widen.",
    "linear2.": "narrow.",
    "norm1.": "attention_norm.",
    "norm2.": "feed_forward_norm.",
}
DECODER = ENCODER | {
    "multihead_attn.in_proj_": "cross_attention.qkv_proj.",
    "multihead_attn.out_proj.": "cross_attention.out_proj.",
    "norm2.": "cross_attention_norm.",
    "norm3.": "feed_forward_norm.",
}


@pytest.fixture(autouse=True)
def seeded():
    torch.manual_seed(0)


def assert_close(a, b, tolerance):
    torch.testing.assert_close(a, b, atol=tolerance, rtol=10 * tolerance)


def ours(name, table):
    """What a parameter of torch's layer is called in ours."""
    for theirs, mine in table.items():
        if name.startswith(theirs):
            return mine + name.removeprefix(theirs)
    raise KeyError(name)


def same_weights(mine, theirs, table):
    for parameter in mine.parameters():  # norms and biases too should have something to do
        nn.init.normal_(parameter, std=0.3)
    theirs.load_state_dict(
        {name: mine.get_parameter(ours(name, table)) for name in theirs.state_dict()}
    )


def encoders(d_model=15, n_heads=3, d_ff=22, activation="gelu", pre_norm=False):
    mine = EncoderBlock(
        d_model, n_heads, d_ff, activation=ACTIVATIONS[activation], pre_norm=pre_norm
    )
    theirs = nn.TransformerEncoderLayer(
        d_model, n_heads, d_ff, 0, activation, batch_first=True, norm_first=pre_norm
    )
    same_weights(mine, theirs, ENCODER)
    return mine, theirs


def decoders(d_model=15, n_heads=3, d_ff=22, activation="gelu", pre_norm=False):
    mine = DecoderBlock(
        d_model, n_heads, d_ff, activation=ACTIVATIONS[activation], pre_norm=pre_norm
    )
    theirs = nn.TransformerDecoderLayer(
        d_model, n_heads, d_ff, 0, activation, batch_first=True, norm_first=pre_norm
    )
    same_weights(mine, theirs, DECODER)
    return mine, theirs


def twins(*shape):
    """Two equal tensors, each with a gradient of its own."""
    x = torch.randn(shape, requires_grad=True)
    return x, x.detach().clone().requires_grad_()


def assert_same_gradients(mine, theirs, table, tolerance=1e-4):
    for name, parameter in theirs.named_parameters():
        assert_close(mine.get_parameter(ours(name, table)).grad, parameter.grad, tolerance)


class TestEncoderBlock:
    @pytest.mark.parametrize("seed", SEEDS)
    @pytest.mark.parametrize("padded", [False, True])
    @pytest.mark.parametrize("pre_norm", [False, True])
    @pytest.mark.parametrize("activation", ACTIVATIONS)
    def test_output_and_gradients_are_those_of_torch(self, seed, padded, pre_norm, activation):
        torch.manual_seed(seed)
        mine, theirs = encoders(activation=activation, pre_norm=pre_norm)
        x, x2 = twins(2, 7, 15)
        mask = padding_mask([7, 4]) if padded else None
        mixed, weights = mine(x, mask)
        mixed2 = theirs(x2, src_key_padding_mask=~mask[:, 0] if padded else None)
        assert weights is None
        assert_close(mixed, mixed2, 1e-5)
        upstream = torch.randn_like(mixed)
        mixed.backward(upstream)
        mixed2.backward(upstream)
        assert_close(x.grad, x2.grad, 1e-4)
        assert_same_gradients(mine, theirs, ENCODER)

    def test_unless_told_otherwise_it_normalises_after_and_bends_with_a_gelu(self):
        block, x = EncoderBlock(8, 2, 16), torch.randn(2, 3, 8)
        explicit = EncoderBlock(8, 2, 16, activation=F.gelu, pre_norm=False)
        explicit.load_state_dict(block.state_dict())
        assert torch.equal(block(x)[0], explicit(x)[0])
        assert_close(block(x)[0].mean(-1), torch.zeros(2, 3), 1e-6)

    def test_weights_come_when_asked_for(self):
        block, x = EncoderBlock(8, 2, 16), torch.randn(3, 5, 8)
        mixed, weights = block(x, need_weights=True)
        assert weights.shape == (3, 2, 5, 5)
        assert_close(mixed, block(x)[0], 1e-6)

    @pytest.mark.parametrize("need_weights", [False, True])
    def test_a_bias_reaches_the_attention(self, need_weights):
        block, x = EncoderBlock(8, 2, 16), torch.randn(3, 5, 8)
        far = -1e4 * (1 - torch.eye(5))  # nothing but oneself can be seen
        alone, _ = block(x, torch.eye(5).bool(), need_weights)
        assert_close(block(x, None, need_weights, far)[0], alone, 1e-5)
        assert not torch.allclose(block(x, bias=alibi(2, 5))[0], block(x)[0], atol=1e-4)

    def test_with_rotary_positions_it_knows_the_order_and_without_it_does_not(self):
        x, order = torch.randn(1, 6, 8), torch.tensor([3, 0, 5, 1, 4, 2])
        for rotary in (False, True):
            block = EncoderBlock(8, 2, 16, rotary=rotary)
            same = torch.allclose(block(x[:, order])[0], block(x)[0][:, order], atol=1e-5)
            assert same is not rotary

    def test_dropout_is_off_in_eval_mode(self):
        block, x = EncoderBlock(8, 2, 16, dropout=0.5).eval(), torch.randn(1, 4, 8)
        assert torch.equal(block(x)[0], block(x)[0])

    def test_dropout_is_on_the_weights_and_on_both_branches(self, monkeypatch):
        block = EncoderBlock(8, 2, 16, dropout=0.5).train()
        assert block.attention.dropout == 0.5
        seen = []
        monkeypatch.setattr(block.dropout, "forward", lambda x: seen.append(x) or 0 * x)
        x = torch.randn(1, 4, 8)
        attended = block.attention_norm(x)  # with every branch dropped, only the norms are left
        assert torch.equal(block(x)[0], block.feed_forward_norm(attended))
        assert len(seen) == 2

    @pytest.mark.parametrize("pre_norm", [False, True])
    def test_bfloat16_stays_near_float32(self, pre_norm):
        mine, _ = encoders(pre_norm=pre_norm)
        x = torch.randn(2, 7, 15)
        exact = mine(x, padding_mask([7, 4]))[0]
        rounded = mine.bfloat16()(x.bfloat16(), padding_mask([7, 4]))[0]
        assert rounded.dtype == torch.bfloat16
        assert (rounded.float() - exact).abs().max() < 0.05 * exact.abs().max()


class TestDecoderBlock:
    @pytest.mark.parametrize("seed", SEEDS)
    @pytest.mark.parametrize("padded", [False, True])
    @pytest.mark.parametrize("causal", [False, True])
    @pytest.mark.parametrize("pre_norm", [False, True])
    def test_output_and_gradients_are_those_of_torch(self, seed, padded, causal, pre_norm):
        torch.manual_seed(seed)
        activation = "relu" if seed else "gelu"
        mine, theirs = decoders(activation=activation, pre_norm=pre_norm)
        (x, x2), (memory, memory2) = twins(2, 5, 15), twins(2, 7, 15)
        mask = causal_mask(5) if causal else None
        memory_mask = padding_mask([7, 4]) if padded else None
        decoded, weights, cross_weights = mine(x, memory, mask, memory_mask)
        assert weights is None
        assert cross_weights is None
        decoded2 = theirs(
            x2,
            memory2,
            tgt_mask=~mask if causal else None,
            memory_key_padding_mask=~memory_mask[:, 0] if padded else None,
        )
        assert_close(decoded, decoded2, 1e-5)
        upstream = torch.randn_like(decoded)
        decoded.backward(upstream)
        decoded2.backward(upstream)
        assert_close(x.grad, x2.grad, 1e-4)
        assert_close(memory.grad, memory2.grad, 1e-4)
        assert_same_gradients(mine, theirs, DECODER)

    @pytest.mark.parametrize("pre_norm", [False, True])
    @pytest.mark.parametrize("need_weights", [False, True])
    def test_tokens_that_may_see_nothing_stay_finite(self, pre_norm, need_weights):
        mine, theirs = decoders(pre_norm=pre_norm)
        (x, x2), (memory, memory2) = twins(2, 5, 15), twins(2, 7, 15)
        memory_mask = padding_mask([7, 0])  # the second source is empty
        mask = causal_mask(5).clone()
        mask[2] = False
        decoded, weights, cross_weights = mine(x, memory, mask, memory_mask, need_weights)
        decoded2 = theirs(x2, memory2, tgt_mask=~mask, memory_key_padding_mask=~memory_mask[:, 0])
        decoded.sum().backward()
        for made in (decoded, x.grad, memory.grad, *(p.grad for p in mine.parameters())):
            assert torch.isfinite(made).all()
        fine = torch.isfinite(decoded2)
        assert fine.any()
        assert_close(decoded[fine], decoded2[fine], 1e-5)
        if need_weights:
            assert weights[:, :, 2].abs().max() == cross_weights[1].abs().max() == 0

    def test_both_kinds_of_weights_come_when_asked_for(self):
        block, x, memory = DecoderBlock(8, 2, 16), torch.randn(3, 4, 8), torch.randn(3, 6, 8)
        masks = causal_mask(4), padding_mask([6, 2, 5])
        decoded, weights, cross_weights = block(x, memory, *masks, need_weights=True)
        assert weights.shape == (3, 2, 4, 4)
        assert cross_weights.shape == (3, 2, 4, 6)
        assert torch.equal(weights, weights.tril())
        assert torch.equal(cross_weights[1, :, :, 2:], torch.zeros(2, 4, 4))
        assert_close(decoded, block(x, memory, *masks)[0], 1e-6)

    def test_rotary_positions_are_those_of_the_decoded_tokens_alone(self):
        block = DecoderBlock(8, 2, 16, rotary=True)
        assert block.attention.rotary
        assert not block.cross_attention.rotary
        x, memory = torch.randn(1, 4, 8), torch.randn(1, 6, 8)
        assert_close(block(x, memory)[0], block(x, memory.flip(1))[0], 1e-5)
        assert not torch.allclose(block(x, memory)[0].flip(1), block(x.flip(1), memory)[0])

    def test_dropout_is_on_all_weights_and_on_all_three_branches(self, monkeypatch):
        block = DecoderBlock(8, 2, 16, dropout=0.5).train()
        assert block.attention.dropout == block.cross_attention.dropout == 0.5
        seen = []
        monkeypatch.setattr(block.dropout, "forward", lambda x: seen.append(x) or 0 * x)
        x = torch.randn(1, 4, 8)
        left = block.cross_attention_norm(block.attention_norm(x))
        decoded, _, _ = block(x, torch.randn(1, 3, 8))
        assert torch.equal(decoded, block.feed_forward_norm(left))
        assert len(seen) == 3

    def test_options_reach_every_part(self):
        block = DecoderBlock(8, 2, 16, activation=F.relu, eps=0.1, pre_norm=True)
        norms = [m for m in block.modules() if isinstance(m, nn.LayerNorm)]
        assert [norm.eps for norm in norms] == [0.1] * 3
        assert block.activation is F.relu
        assert block.pre_norm

    @pytest.mark.parametrize("pre_norm", [False, True])
    def test_bfloat16_stays_near_float32(self, pre_norm):
        mine, _ = decoders(pre_norm=pre_norm)
        x, memory = torch.randn(2, 5, 15), torch.randn(2, 7, 15)
        masks = causal_mask(5), padding_mask([7, 4])
        exact = mine(x, memory, *masks)[0]
        rounded = mine.bfloat16()(x.bfloat16(), memory.bfloat16(), *masks)[0]
        assert rounded.dtype == torch.bfloat16
        assert (rounded.float() - exact).abs().max() < 0.05 * exact.abs().max()

    def test_a_memory_of_another_batch(self):
        with pytest.raises(ValueError, match="memory has batch size 3, x has 2"):
            DecoderBlock(8, 2, 16)(torch.randn(2, 4, 8), torch.randn(3, 4, 8))

    def test_heads_that_do_not_divide_the_width(self):
        with pytest.raises(ValueError, match="d_model=10 and n_heads=3"):
            DecoderBlock(10, 3, 16)
