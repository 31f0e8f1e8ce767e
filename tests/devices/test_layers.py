"""Every layer on a device: the numbers of the CPU, forward and backward, all of them there."""

import pytest
import torch
from comparing import assert_same, assert_works
from torch import nn

from attnviz import layers

pytestmark = pytest.mark.slow

LENGTHS = torch.tensor([5, 3])


def numbers(*shape):
    return torch.randn(*shape, requires_grad=True)


def attention(**options):
    return layers.MultiHeadAttention(16, 4, **options).eval()


class TestFunctions:
    def test_attention_with_a_mask(self, device):
        qkv = numbers(2, 5, 8), numbers(2, 5, 8), numbers(2, 5, 6)
        mask = torch.ones(5, 5, dtype=torch.bool).tril(-1)  # the first row sees nothing
        assert_works(device, layers.scaled_dot_product_attention, inputs=(*qkv, mask))

    def test_weights_with_mask_and_bias(self, device):
        mask, bias = torch.rand(2, 3, 5, 5) > 0.3, layers.alibi(3, 5)
        inputs = numbers(2, 3, 5, 8), numbers(2, 3, 5, 8), mask, bias
        assert_works(device, layers.attention_weights, inputs=inputs)

    def test_masks_are_made_where_they_are_needed(self, device):
        causal = layers.causal_mask(3, 5, device=device)
        padding = layers.padding_mask(LENGTHS.to(device))
        both = layers.combine_masks(causal, padding)
        wanted = layers.causal_mask(3, 5) & layers.padding_mask(LENGTHS)
        assert_same(both, wanted, device)

    def test_rotary_positions(self, device):
        assert_works(device, layers.rotate, inputs=(numbers(2, 5, 8),))
        assert_works(device, layers.rotate, inputs=(numbers(2, 5, 8), torch.arange(3, 8)))

    def test_rotary_positions_may_stay_on_the_cpu(self, device):
        x, positions = torch.randn(5, 8), torch.arange(3, 8)
        assert_same(layers.rotate(x.to(device), positions), layers.rotate(x, positions), device)


class TestMultiHeadAttention:
    @pytest.mark.parametrize("need_weights", [False, True])
    @pytest.mark.parametrize("shape", [None, (5, 5), (2, 1, 5), (2, 5, 5), (2, 4, 5, 5)])
    def test_under_masks_of_every_form(self, device, shape, need_weights):
        mask = None if shape is None else torch.rand(shape) > 0.3
        inputs = numbers(2, 5, 16), mask

        def run(layer, x, mask):
            return layer(x, mask=mask, need_weights=need_weights)

        assert_works(device, run, attention(), inputs)

    @pytest.mark.parametrize("need_weights", [False, True])
    def test_with_alibi_rotary_positions_and_a_mask(self, device, need_weights):
        inputs = numbers(2, 5, 16), layers.causal_mask(5), layers.alibi(4, 5)

        def run(layer, x, mask, bias):
            return layer(x, mask=mask, need_weights=need_weights, bias=bias)

        assert_works(device, run, attention(rotary=True, bias=False), inputs)

    def test_across_to_a_memory(self, device):
        inputs = numbers(2, 5, 16), numbers(2, 7, 16), torch.rand(2, 1, 7) > 0.3
        assert_works(device, lambda layer, *given: layer(*given, True), attention(), inputs)

    @pytest.mark.parametrize("rotary", [False, True])
    def test_at_some_places_alone(self, device, rotary):
        inputs = numbers(2, 5, 16), torch.tensor([[4, 0], [1, 1]])
        assert_works(device, lambda layer, x, at: layer(x, at=at), attention(rotary=rotary), inputs)

    def test_with_dropout_in_training(self, device):
        layer = attention(dropout=0.5).train().to(device)
        x = torch.randn(1, 5, 16, device=device)
        torch.manual_seed(1)
        once = layer(x)[0]
        torch.manual_seed(1)
        assert_same(layer(x)[0], once.detach().cpu(), device)
        assert not torch.equal(layer(x)[0], once)

    def test_with_fewer_heads(self, device):
        def run(layer, x):
            fewer = layers.keep_heads(layer, [2, 0])
            assert fewer.out_proj.weight.device.type == layer.out_proj.weight.device.type
            return fewer(x)

        assert_works(device, run, attention(), (torch.randn(2, 5, 16),))


class TestBlocks:
    @pytest.mark.parametrize("options", [{}, {"pre_norm": True}, {"rotary": True, "dropout": 0.1}])
    def test_an_encoder_block(self, device, options):
        block = layers.EncoderBlock(16, 4, 32, **options).eval()
        inputs = numbers(2, 5, 16), layers.padding_mask(LENGTHS), torch.tensor([[0], [2]])
        assert_works(device, lambda block, x, mask, _: block(x, mask, True), block, inputs)
        assert_works(device, lambda block, x, mask, at: block(x, mask, at=at), block, inputs)

    @pytest.mark.parametrize("need_weights", [False, True])
    def test_a_decoder_block(self, device, need_weights):
        masks = layers.causal_mask(4), layers.padding_mask(LENGTHS)
        inputs = numbers(2, 4, 16), numbers(2, 5, 16), *masks
        block = layers.DecoderBlock(16, 4, 32).eval()
        assert_works(device, lambda block, *given: block(*given, need_weights), block, inputs)


class TestEightBits:
    def test_an_embedding(self, device):
        embedding = nn.Embedding(9, 8)
        ids, eight = torch.tensor([[1, 8]]), layers.Int8Embedding(embedding)
        assert_works(device, lambda layer, ids: layer(ids), eight, (ids,))
        moved = layers.Int8Embedding(embedding.to(device))
        assert_same(moved(ids.to(device)), eight(ids), device)

    def test_a_linear_layer_is_for_the_cpu_and_says_so(self, device):
        with pytest.raises(ValueError, match=f"must be on the CPU, got one on {device.type}"):
            layers.Int8Linear(nn.Linear(8, 8).to(device), torch.tensor([0]))
