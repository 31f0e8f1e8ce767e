"""Small classifiers and batches for the tests of what is made of them."""

import pytest
import torch

from attnviz.models import BertEncoder, BertForSequenceClassification


@pytest.fixture
def classifier():
    """From a configuration to a classifier of three labels."""

    def make(config, seed=0, pooling="mean"):
        torch.manual_seed(seed)
        return BertForSequenceClassification(BertEncoder(config), 3, pooling).eval()

    return make


@pytest.fixture
def batch():
    """Ids below 50 and a mask, each row a token shorter than the one before."""

    def make(n, length):
        ids = torch.randint(50, (n, length))
        lengths = torch.arange(length, length - n, -1).clamp(min=1)
        return ids, torch.arange(length) < lengths[:, None]

    return make
