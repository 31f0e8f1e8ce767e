"""Attention rollout against the same by hand."""

import pytest
import torch

import attnviz as av
from attnviz.layers import MultiHeadAttention
from attnviz.models import BertConfig, BertEncoder


@pytest.fixture
def seen():
    torch.manual_seed(0)
    model = BertEncoder(BertConfig(50, 32, 3, 4, 64, 30)).eval()
    with av.capture(model) as seen:
        model(torch.arange(10).view(2, 5))
    return seen


def test_multiplies_the_mean_weights_with_half_a_residual(seen):
    result = av.rollout(seen)
    for item in range(2):
        expected = torch.eye(5)
        for record in seen:
            mean = sum(record.weights[item, head] for head in range(4)) / 4
            expected = (
                torch.stack([(row + torch.eye(5)[i]) / 2 for i, row in enumerate(mean)]) @ expected
            )
        torch.testing.assert_close(result[item], expected)


def test_rows_sum_to_one(seen):
    torch.testing.assert_close(av.rollout(seen).sum(-1), torch.ones(2, 5))


def test_one_layer_that_attends_to_itself_changes_nothing():
    model = MultiHeadAttention(8, 2)
    with av.capture(model) as seen:
        model(torch.randn(1, 4, 8), mask=torch.eye(4).bool())
    torch.testing.assert_close(av.rollout(seen)[0], torch.eye(4))


def test_gradients_flow_through_it():
    model = MultiHeadAttention(8, 2)
    with av.capture(model, with_gradients=True) as seen:
        model(torch.randn(1, 4, 8))
    av.rollout(seen).square().sum().backward()
    assert model.qkv_proj.weight.grad.abs().sum() > 0


def test_needs_self_attentions_of_one_pass_and_one_size(seen):
    model = MultiHeadAttention(8, 2)
    with av.capture(model) as cross:
        model(torch.randn(1, 4, 8), torch.randn(1, 6, 8))
    with av.capture(model) as passes:
        model(torch.randn(1, 5, 8))
        model(torch.randn(1, 5, 8))
    with pytest.raises(ValueError, match="at least one attention, got none"):
        av.rollout([])
    with pytest.raises(ValueError, match=r"self-attentions of 4 × 4 tokens, got <attention 0"):
        av.rollout(cross)
    with pytest.raises(ValueError, match="of 5 × 5 tokens"):
        av.rollout([*seen, *cross])
    with pytest.raises(ValueError, match="one pass, got several"):
        av.rollout(passes)
