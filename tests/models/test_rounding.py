"""A classifier in 8 bits says nearly what it said before."""

import pytest
import torch
from safetensors.torch import save_file

from attnviz.layers import Int8Linear
from attnviz.models import BertConfig, to_int8

SIZES = {"vocab_size": 900, "d_model": 64, "n_layers": 2, "n_heads": 4, "d_ff": 96, "max_len": 40}


@pytest.mark.parametrize("make", [BertConfig, BertConfig.modern], ids=["2018", "modern"])
@pytest.mark.parametrize("seed", range(3))
def test_it_says_nearly_the_same(make, seed, classifier, batch):
    model = classifier(make(**SIZES | {"branches_from_zero": False}), seed)
    ids, mask = batch(8, 21)
    small = to_int8(model, *batch(8, 21))
    with torch.no_grad():
        right, given = model(ids, mask).logits, small(ids, mask).logits
    assert not given.equal(right)  # it was rounded
    assert torch.cosine_similarity(given, right, -1).min() > 0.99
    assert sum(isinstance(layer, Int8Linear) for layer in small.modules()) == 8


def test_the_model_itself_is_left_as_it_is(classifier, batch):
    model = classifier(BertConfig(**SIZES))
    before = {name: weight.clone() for name, weight in model.state_dict().items()}
    ids, mask = batch(8, 21)
    right = model(ids, mask).logits
    to_int8(model, ids, mask)
    assert model(ids, mask).logits.equal(right)
    assert all(weight.equal(before[name]) for name, weight in model.state_dict().items())


def test_the_columns_that_are_far_larger_stay_exact(classifier, batch):
    model = classifier(BertConfig(**SIZES))
    with torch.no_grad():
        model.encoder.embedding_norm.bias[17] = 60.0
    ids, mask = batch(8, 21)
    x = model.encoder._embed(ids, None)
    right = model.encoder.blocks[0].attention.qkv_proj(x)
    errors = []
    for n in (0, 1):
        layer = to_int8(model, ids, mask, n).encoder.blocks[0].attention.qkv_proj
        errors.append((layer(x) - right).norm())
    assert layer.exact.tolist() == [17]
    assert errors[1] < 0.2 * errors[0]


def test_its_file_is_small_and_can_be_loaded(tmp_path, classifier, batch):
    model = classifier(BertConfig(**SIZES | {"vocab_size": 4_000}))
    small = to_int8(model, *batch(8, 21))
    for name, one in {"whole": model, "small": small}.items():
        save_file(one.state_dict(), tmp_path / name)
    assert (tmp_path / "whole").stat().st_size > 3 * (tmp_path / "small").stat().st_size
    again = to_int8(classifier(model.encoder.config, seed=5), *batch(8, 21))
    again.load_state_dict(small.state_dict())
    ids, mask = batch(8, 21)
    assert again(ids, mask).logits.equal(small(ids, mask).logits)


@pytest.mark.slow
def test_compiled_it_says_the_same(classifier, batch):
    small = to_int8(classifier(BertConfig(**SIZES)), *batch(8, 21))
    ids, mask = batch(8, 21)
    with torch.inference_mode():
        compiled = torch.compile(small)(ids, mask).logits
        torch.testing.assert_close(compiled, small(ids, mask).logits, atol=0.02, rtol=0.02)


def test_bad_input(classifier, batch):
    with pytest.raises(TypeError, match="BertForSequenceClassification, got Linear"):
        to_int8(torch.nn.Linear(2, 2), *batch(8, 21))
    with pytest.raises(ValueError, match="pooling='mean', got pooling='first'"):
        to_int8(classifier(BertConfig(**SIZES), pooling="first"), *batch(8, 21))
    with pytest.raises(ValueError, match="must be on the CPU, got one on meta"):
        to_int8(classifier(BertConfig(**SIZES)).to("meta"), *batch(8, 21))
    with pytest.raises(ValueError, match="exact must be at least 0, got -1"):
        to_int8(classifier(BertConfig(**SIZES)), *batch(8, 21), exact=-1)
