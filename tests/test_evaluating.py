"""A model without dropout, for a while."""

import pytest
import torch
from torch import nn

from attnviz.evaluating import evaluating


@pytest.fixture
def model():
    """In training mode, but for its last layer."""
    model = nn.Sequential(nn.Dropout(0.5), nn.Linear(4, 4), nn.Dropout(0.5)).train()
    model[2].eval()
    return model


def modes(model):
    return [module.training for module in model.modules()]


def test_without_dropout_inside_and_as_before_behind(model):
    x = torch.ones(3, 4)
    before = modes(model)
    with evaluating(model):
        assert not any(modes(model))
        assert model(x).equal(model[1](x))
    assert modes(model) == before == [True, True, True, False]


def test_as_before_after_an_error_too(model):
    before = modes(model)
    with pytest.raises(RuntimeError), evaluating(model):
        raise RuntimeError
    assert modes(model) == before
