"""Files for ONNX Runtime say what the model says."""

from concurrent.futures import ThreadPoolExecutor

import pytest
import torch

from attnviz.models import (
    BertConfig,
    OnnxClassifier,
    export_onnx,
    onnx_memory,
    round_onnx,
)

pytestmark = pytest.mark.slow
RARE = pytest.mark.rare
SIZES = {"vocab_size": 50, "d_model": 32, "n_layers": 2, "n_heads": 4, "d_ff": 64, "max_len": 40}


@pytest.mark.parametrize("make", [BertConfig, BertConfig.modern], ids=["2018", "modern"])
@pytest.mark.parametrize("seed", [0, pytest.param(1, marks=RARE), pytest.param(2, marks=RARE)])
def test_the_file_says_what_the_model_says_at_any_size(tmp_path, make, seed, classifier, batch):
    model = classifier(make(**SIZES), seed)
    exported = OnnxClassifier(export_onnx(model, tmp_path / "model.onnx"))
    for shape in ((3, 11), (1, 40), (8, 1), (1, 2)):
        ids, mask = batch(*shape)
        with torch.no_grad():
            torch.testing.assert_close(
                exported(ids, mask).logits, model(ids, mask).logits, atol=1e-5, rtol=1e-4
            )


def test_with_8_bits_the_file_is_small_and_says_nearly_the_same(tmp_path, classifier, batch):
    sizes = {"d_model": 64, "d_ff": 256, "vocab_size": 4_000}
    model = classifier(BertConfig.modern(**SIZES | sizes))
    whole = export_onnx(model, tmp_path / "whole.onnx")
    small = round_onnx(whole, tmp_path / "small.onnx")
    assert whole.stat().st_size > 3 * small.stat().st_size
    ids, mask = batch(16, 30)
    with torch.no_grad():
        right = model(ids, mask).logits
    given = OnnxClassifier(small)(ids, mask).logits
    assert not given.equal(right)  # it was rounded
    assert torch.cosine_similarity(given, right, -1).min() > 0.99


def test_memory_is_at_least_that_of_the_weights(tmp_path, classifier):
    sizes = {"d_model": 64, "vocab_size": 200_000}  # 51 MB, more than a session takes by itself
    whole = export_onnx(classifier(BertConfig(**SIZES | sizes)), tmp_path / "whole.onnx")
    small = round_onnx(whole, tmp_path / "small.onnx")
    assert whole.stat().st_size < onnx_memory(whole) < 4 * whole.stat().st_size
    assert small.stat().st_size < onnx_memory(small) < 0.6 * onnx_memory(whole)


def test_another_model_is_refused(tmp_path, classifier):
    with pytest.raises(TypeError, match="BertForSequenceClassification, got Linear"):
        export_onnx(torch.nn.Linear(2, 2), tmp_path / "model.onnx")
    with pytest.raises(ValueError, match="pooling='mean', got pooling='first'"):
        export_onnx(classifier(BertConfig(**SIZES), pooling="first"), tmp_path / "model.onnx")
    assert not list(tmp_path.iterdir())


def test_several_texts_at_once_on_a_thread_each(tmp_path, classifier, batch):
    model = classifier(BertConfig(**SIZES))
    exported = OnnxClassifier(export_onnx(model, tmp_path / "model.onnx"), n_threads=1)
    texts = [batch(1, length) for length in range(1, 31)]
    with ThreadPoolExecutor(2) as pool, torch.no_grad():
        given = [*pool.map(lambda text: exported(*text).logits, texts)]
        right = [model(*text).logits for text in texts]
    torch.testing.assert_close(given, right, atol=1e-5, rtol=1e-4)
    with pytest.raises(ValueError, match="n_threads must be at least 1, got 0"):
        OnnxClassifier(tmp_path / "model.onnx", n_threads=0)


def test_a_file_that_is_not_there_is_named_and_none_is_lost(tmp_path, classifier):
    with pytest.raises(FileNotFoundError, match=r"none\.onnx"):
        OnnxClassifier(tmp_path / "none.onnx")
    with pytest.raises(FileNotFoundError, match=r"none\.onnx"):
        round_onnx(tmp_path / "none.onnx", tmp_path / "small.onnx")
    with pytest.raises(FileNotFoundError, match=r"none\.onnx"):
        onnx_memory(tmp_path / "none.onnx")
    path = export_onnx(classifier(BertConfig(**SIZES)), tmp_path / "model.onnx")
    before = path.read_bytes()
    with pytest.raises(ValueError, match=r"another path .*model\.onnx"):
        round_onnx(path, tmp_path / "." / "model.onnx")
    assert path.read_bytes() == before
