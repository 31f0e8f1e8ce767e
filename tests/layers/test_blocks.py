"""The encoder block against torch's own layer."""

import pytest
import torch
from torch import nn

from attnviz.layers import EncoderBlock, padding_mask


def same_weights(d_model, n_heads, d_ff):
    mine = EncoderBlock(d_model, n_heads, d_ff).eval()
    theirs = nn.TransformerEncoderLayer(
        d_model, n_heads, d_ff, dropout=0, activation="gelu", batch_first=True
    ).eval()
    for parameter in mine.parameters():
        nn.init.normal_(parameter, std=0.3)
    theirs.load_state_dict(
        {
            "self_attn.in_proj_weight": mine.attention.qkv_proj.weight,
            "self_attn.in_proj_bias": mine.attention.qkv_proj.bias,
            "self_attn.out_proj.weight": mine.attention.out_proj.weight,
            "self_attn.out_proj.bias": mine.attention.out_proj.bias,
            "linear1.weight": mine.widen.weight,
            "linear1.bias": mine.widen.bias,
            "linear2.weight": mine.narrow.weight,
            "linear2.bias": mine.narrow.bias,
            "norm1.weight": mine.attention_norm.weight,
            "norm1.bias": mine.attention_norm.bias,
            "norm2.weight": mine.feed_forward_norm.weight,
            "norm2.bias": mine.feed_forward_norm.bias,
        }
    )
    return mine, theirs


@pytest.mark.parametrize("seed", [0, 1, 2])
@pytest.mark.parametrize("padded", [False, True])
def test_output_and_gradient_are_those_of_torch(seed, padded):
    torch.manual_seed(seed)
    mine, theirs = same_weights(d_model=15, n_heads=3, d_ff=22)
    x = torch.randn(2, 7, 15, requires_grad=True)
    x2 = x.detach().clone().requires_grad_()
    mask = padding_mask([7, 4]) if padded else None
    mixed, weights = mine(x, mask)
    mixed2 = theirs(x2, src_key_padding_mask=~mask[:, 0] if padded else None)
    assert weights is None
    torch.testing.assert_close(mixed, mixed2, atol=1e-5, rtol=1e-4)
    upstream = torch.randn_like(mixed)
    mixed.backward(upstream)
    mixed2.backward(upstream)
    torch.testing.assert_close(x.grad, x2.grad, atol=1e-4, rtol=1e-3)


def test_weights_come_when_asked_for():
    block = EncoderBlock(8, 2, 16)
    _, weights = block(torch.randn(3, 5, 8), need_weights=True)
    assert weights.shape == (3, 2, 5, 5)


def test_dropout_is_off_in_eval_mode():
    block, x = EncoderBlock(8, 2, 16, dropout=0.5).eval(), torch.randn(1, 4, 8)
    assert torch.equal(block(x)[0], block(x)[0])


def test_dropout_is_on_the_weights_and_on_both_branches(monkeypatch):
    block = EncoderBlock(8, 2, 16, dropout=0.5).train()
    assert block.attention.dropout == 0.5
    seen = []
    monkeypatch.setattr(block.dropout, "forward", lambda x: seen.append(x) or 0 * x)
    x = torch.randn(1, 4, 8)
    attended = block.attention_norm(x)  # with every branch dropped, only the norms are left
    assert torch.equal(block(x)[0], block.feed_forward_norm(attended))
    assert len(seen) == 2
