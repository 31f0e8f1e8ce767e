"""Attention with fewer heads, beside the whole one with the others switched off."""

import pytest
import torch
from torch import nn

import attnviz as av
from attnviz.layers import MultiHeadAttention, keep_heads


def layer(seed, **options):
    torch.manual_seed(seed)
    return MultiHeadAttention(24, 6, **options).eval()


@pytest.mark.parametrize("seed", [0, 1, 2])
@pytest.mark.parametrize("heads", [[0], [5, 2], [1, 2, 3, 4, 5]])
@pytest.mark.parametrize("options", [{}, {"bias": False}, {"rotary": True}])
class TestKeepHeads:
    def test_it_is_the_layer_with_the_other_heads_off(self, seed, heads, options):
        whole, x = layer(seed, **options), torch.randn(3, 7, 24)
        mask = torch.ones(3, 1, 7, dtype=torch.bool)
        mask[1, 0, 4:] = False
        off = {(0, head): av.off for head in range(6) if head not in heads}
        with torch.no_grad(), av.edit(nn.Sequential(whole), off):
            wanted, _ = whole(x, mask=mask)
        got, weights = keep_heads(whole, heads)(x, mask=mask, need_weights=True)
        torch.testing.assert_close(got, wanted)
        torch.testing.assert_close(weights, whole(x, mask=mask, need_weights=True)[1][:, heads])

    def test_it_learns_as_those_heads_do(self, seed, heads, options):
        whole, x = layer(seed, **options), torch.randn(2, 5, 24)
        fewer = keep_heads(whole, heads)
        off = {(0, head): av.off for head in range(6) if head not in heads}
        with av.edit(nn.Sequential(whole), off):
            whole(x)[0].square().sum().backward()
        fewer(x)[0].square().sum().backward()
        columns = torch.cat([torch.arange(4) + 4 * head for head in heads])
        wanted = whole.qkv_proj.weight.grad.view(3, 24, 24)[:, columns].flatten(0, 1)
        torch.testing.assert_close(fewer.qkv_proj.weight.grad, wanted, atol=1e-4, rtol=1e-4)


def test_the_old_layer_stays_and_the_new_one_is_smaller():
    whole = layer(0)
    before = {name: p.clone() for name, p in whole.state_dict().items()}
    fewer = keep_heads(whole, [3])
    assert all(p.equal(before[name]) for name, p in whole.state_dict().items())
    assert sum(p.numel() for p in fewer.parameters()) == 4 * 24 * 4 + 3 * 4 + 24
    assert repr(fewer.qkv_proj).startswith("Linear(in_features=24, out_features=12")


def test_all_heads_are_the_whole_layer():
    whole, x = layer(1), torch.randn(2, 5, 24)
    torch.testing.assert_close(keep_heads(whole, [5, 3, 1, 0, 2, 4])(x)[0], whole(x)[0])


def test_fewer_heads_twice():
    whole, x = layer(1), torch.randn(2, 5, 24)
    twice, once = keep_heads(keep_heads(whole, [4, 0, 2]), [2, 0]), keep_heads(whole, [2, 4])
    torch.testing.assert_close(twice(x)[0], once(x)[0])


@pytest.mark.parametrize("heads", [[], [1, 1], [6], [-1]])
def test_bad_input(heads):
    with pytest.raises(ValueError, match="at least one of 0 to 5, each once, got"):
        keep_heads(layer(0), heads)
