"""Results at some places only: the same numbers and gradients as all results, cut afterwards."""

import pytest
import torch
from torch import nn

from attnviz.layers import EncoderBlock, MultiHeadAttention, alibi, rotate

AT = torch.tensor([[0, 6, 3], [5, 5, 1]])  # also twice the same


def cut(x, at=AT):
    return torch.stack([row[places] for row, places in zip(x, at, strict=True)])


def with_weights(layer):
    for parameter in layer.parameters():
        nn.init.normal_(parameter, std=0.3)
    return layer


def tokens(seed=0):
    return torch.randn(2, 7, 12, generator=torch.Generator().manual_seed(seed), requires_grad=True)


def mask_of(kind):
    if kind == "none":
        return None, None
    if kind == "keys":
        mask = torch.ones(2, 1, 7, dtype=torch.bool)
        mask[0, :, 4:] = mask[1, :, 0] = False
        return mask, mask
    mask = torch.rand(2, 7, 7, generator=torch.Generator().manual_seed(1)) < 0.6
    mask[0, 6] = False  # a row with nothing to see
    return mask, cut(mask)


@pytest.fixture(autouse=True)
def seeded():
    torch.manual_seed(0)


@pytest.mark.parametrize("need_weights", [False, True])
@pytest.mark.parametrize("rotary", [False, True])
@pytest.mark.parametrize("mask", ["none", "keys", "each"])
class TestAgainstAll:
    def test_attention(self, mask, rotary, need_weights):
        layer = with_weights(MultiHeadAttention(12, 3, rotary=rotary))
        for_all, for_some = mask_of(mask)
        x, y = tokens(), tokens()
        all_of_it, weights = layer(x, mask=for_all, need_weights=need_weights)
        some, their_weights = layer(y, mask=for_some, need_weights=need_weights, at=AT)
        torch.testing.assert_close(some, cut(all_of_it), atol=1e-5, rtol=1e-4)
        if need_weights:
            wanted = cut(weights.transpose(1, 2)).transpose(1, 2)
            torch.testing.assert_close(their_weights, wanted)
        cut(all_of_it).square().sum().backward()
        some.square().sum().backward()
        torch.testing.assert_close(y.grad, x.grad, atol=1e-4, rtol=1e-4)

    @pytest.mark.parametrize("pre_norm", [False, True])
    def test_block(self, mask, rotary, need_weights, pre_norm):
        block = with_weights(EncoderBlock(12, 3, 20, pre_norm=pre_norm, rotary=rotary))
        for_all, for_some = mask_of(mask)
        x, y = tokens(), tokens()
        all_of_it, _ = block(x, for_all, need_weights)
        some, _ = block(y, for_some, need_weights, at=AT)
        torch.testing.assert_close(some, cut(all_of_it), atol=1e-5, rtol=1e-4)
        cut(all_of_it).square().sum().backward()
        some.square().sum().backward()
        torch.testing.assert_close(y.grad, x.grad, atol=1e-4, rtol=1e-4)


class TestRest:
    def test_a_bias_for_each_place(self):
        layer = with_weights(MultiHeadAttention(12, 3))
        at = torch.tensor([[1, 4], [1, 4]])
        bias = alibi(3, 7)
        wanted = cut(layer(tokens(), bias=bias)[0], at)
        torch.testing.assert_close(layer(tokens(), bias=bias[:, [1, 4]], at=at)[0], wanted)

    def test_no_places(self):
        at = torch.empty(2, 0, dtype=torch.int64)
        assert EncoderBlock(12, 3, 20)(tokens(), at=at)[0].shape == (2, 0, 12)

    def test_positions_of_each_row(self):
        x, at = torch.randn(2, 3, 7, 4), AT
        wanted = torch.stack([rotate(x)[i][:, at[i]] for i in range(2)])
        some = torch.stack([x[i][:, at[i]] for i in range(2)])
        torch.testing.assert_close(rotate(some, at[:, None]), wanted)

    @pytest.mark.parametrize("rotary", [False, True])
    def test_bfloat16_autocast_is_near(self, rotary):
        layer = with_weights(MultiHeadAttention(12, 3, rotary=rotary))
        with torch.autocast("cpu", torch.bfloat16):
            near, _ = layer(tokens(), bias=alibi(3, 7))
        exact, _ = layer(tokens(), bias=alibi(3, 7))
        torch.testing.assert_close(near.float(), exact, atol=0.05, rtol=0.05)

    def test_in_autocast_on_a_cpu_the_fused_kernel_gets_float32(self, monkeypatch):
        seen = []
        kernel = torch.nn.functional.scaled_dot_product_attention

        def spy(query, *others):
            seen.append((query.dtype, torch.is_autocast_enabled("cpu")))
            return kernel(query, *others)

        monkeypatch.setattr(torch.nn.functional, "scaled_dot_product_attention", spy)
        with torch.autocast("cpu", torch.bfloat16):
            MultiHeadAttention(12, 3)(tokens())
        assert seen == [(torch.float32, False)]

    @pytest.mark.parametrize(
        ("at", "error", "message"),
        [
            (torch.zeros(2, 1), TypeError, "at must be int64, got torch.float32"),
            (torch.zeros(3, 1, dtype=torch.int64), ValueError, r"\(batch=2, n\), got \(3, 1\)"),
            (torch.zeros(2, dtype=torch.int64), ValueError, r"\(batch=2, n\), got \(2,\)"),
            (torch.tensor([[7], [0]]), ValueError, "between 0 and 6, got 0 to 7"),
            (torch.tensor([[-1], [0]]), ValueError, "between 0 and 6, got -1 to 0"),
        ],
    )
    def test_bad_places(self, at, error, message):
        with pytest.raises(error, match=message):
            MultiHeadAttention(12, 3)(tokens(), at=at)

    def test_not_with_a_memory(self):
        with pytest.raises(ValueError, match="give it without memory"):
            MultiHeadAttention(12, 3)(tokens(), tokens(), at=AT)
