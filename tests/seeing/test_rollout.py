"""Attention rollout against the same by hand."""

import pytest
import torch

import attnviz as av
from attnviz.layers import MultiHeadAttention
from attnviz.models import BertConfig, BertEncoder
from attnviz.seeing import AttentionRecord
from attnviz.views.source import check_layers


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


def written(*weights, **other):
    """A record for each tensor of weights, in a row."""
    return [
        AttentionRecord(i, 0, f"layer.{i}", "self", written_out=w, **other)
        for i, w in enumerate(weights)
    ]


def test_what_goes_to_no_key_makes_the_residual_the_larger_part():
    torch.manual_seed(0)
    layers = [torch.rand(2, 3, 4, 4) / 8 for _ in range(3)]
    result = av.rollout(written(*layers, sinks=True))
    for item in range(2):
        vectors = torch.eye(4)  # each token's own, with the value of each token one of them
        for layer in layers:
            added = vectors + sum(layer[item]) / 3 @ vectors
            vectors = added / added.sum(-1, keepdim=True)
        torch.testing.assert_close(result[item], vectors)


def test_a_layer_that_attends_to_no_key_changes_nothing():
    one, none = torch.rand(1, 2, 4, 4).softmax(-1), torch.zeros(1, 2, 4, 4)
    first = av.rollout(written(one, sinks=True))
    torch.testing.assert_close(av.rollout(written(one, none, sinks=True)), first)


def test_windows_are_refused_with_their_places_and_sizes():
    windows = written(torch.eye(4).expand(8, 2, 4, 4), torch.eye(4).expand(2, 2, 4, 4))
    message = r"layer\.1 has a batch of 2 and layer\.0 of 8: attention within windows.*seen\[1\]"
    with pytest.raises(ValueError, match=message):
        av.rollout(windows)
    assert check_layers([windows[1]], item=0)  # what the message advises to look at


def test_the_choice_that_an_error_advises_works(seen):
    model = MultiHeadAttention(8, 2)
    with av.capture(model) as others:
        model(torch.randn(2, 5, 8), torch.randn(2, 6, 8))
        model(torch.randn(2, 4, 8))
    cross, shorter = others
    shorter.pass_number = 0
    for mixed in ([*seen, cross], [cross, *seen], [*seen, shorter], [*seen, cross, shorter]):
        with pytest.raises(ValueError, match="choose those that go together") as error:
            av.rollout(mixed)
        chosen = eval(str(error.value).split("together: ")[1], {"seen": mixed})
        assert av.rollout(chosen).shape == (2, 5, 5)


def test_of_several_passes_one_is_to_be_chosen():
    model = MultiHeadAttention(8, 2)
    with av.capture(model) as seen:
        for _ in range(2):
            model(torch.randn(1, 5, 8))
    with pytest.raises(ValueError, match="got several passes") as error:
        av.rollout(seen)
    chosen = eval(str(error.value).split("such as ")[1], {"seen": seen})
    assert chosen == [seen[0]]


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
