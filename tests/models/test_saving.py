"""A model and its tokenizer in one file, and back."""

import pytest
import torch

from attnviz.data import wordpiece_tokenizer
from attnviz.data.wordpiece import SPECIAL
from attnviz.models import (
    BertConfig,
    BertEncoder,
    BertForPreTraining,
    BertForQuestionAnswering,
    BertForSequenceClassification,
    BertForTokenClassification,
    load_bert,
    save_bert,
)

TOKENIZER = wordpiece_tokenizer([*SPECIAL, *"abcdefgh", "##s"])
SIZES = {"vocab_size": 14, "d_model": 8, "n_layers": 2, "n_heads": 2, "d_ff": 12, "max_len": 9}
IDS = torch.tensor([[2, 5, 4, 7, 3]])


def model(kind=BertConfig.modern, **others):
    torch.manual_seed(0)
    return BertForPreTraining(kind(**SIZES | others)).eval()


class TestThereAndBack:
    @pytest.mark.parametrize("kind", [BertConfig, BertConfig.modern])
    def test_the_same_model(self, tmp_path, kind):
        saved = model(kind)
        save_bert(tmp_path / "a.safetensors", saved, TOKENIZER)
        loaded, tokenizer = load_bert(tmp_path / "a.safetensors")
        assert loaded(IDS).logits.equal(saved(IDS).logits)
        assert loaded.config == saved.config
        assert not loaded.training
        assert tokenizer.to_str() == TOKENIZER.to_str()
        assert tokenizer.encode("abs").ids == TOKENIZER.encode("abs").ids

    @pytest.mark.parametrize(
        ("kind", "choices"),
        [
            (BertForSequenceClassification, {"n_labels": 3, "pooling": "mean"}),
            (BertForSequenceClassification, {"n_labels": 2, "pooling": "first"}),
            (BertForTokenClassification, {"n_labels": 5}),
            (BertForQuestionAnswering, {}),
        ],
    )
    def test_the_same_model_with_a_head_for_a_task(self, tmp_path, kind, choices):
        saved = kind(BertEncoder(BertConfig(**SIZES)), **choices).eval()
        save_bert(tmp_path / "a.safetensors", saved, TOKENIZER)
        loaded, tokenizer = load_bert(tmp_path / "a.safetensors")
        assert type(loaded) is kind
        assert loaded(IDS).logits.equal(saved(IDS).logits)
        assert not loaded.training
        assert tokenizer.to_str() == TOKENIZER.to_str()

    def test_half_takes_half_the_space_and_is_near(self, tmp_path):
        saved = model(d_model=64, d_ff=256)
        for name in ("whole", "half"):
            save_bert(tmp_path / name, saved, TOKENIZER, half=name == "half")
        whole, half = ((tmp_path / name).stat().st_size for name in ("whole", "half"))
        assert half < 0.55 * whole
        loaded, _ = load_bert(tmp_path / "half")
        assert loaded.output_bias.dtype == torch.float32
        torch.testing.assert_close(loaded(IDS).logits, saved(IDS).logits, atol=1e-2, rtol=1e-2)

    def test_it_can_be_trained_on(self, tmp_path):
        save_bert(tmp_path / "a", model(), TOKENIZER)
        loaded, _ = load_bert(tmp_path / "a")
        loaded(IDS, labels=IDS).loss.backward()
        assert loaded.output_bias.grad.norm() > 0


class TestWhatWasThere:
    def test_it_stays_when_writing_fails(self, tmp_path, monkeypatch):
        file = tmp_path / "a"
        save_bert(file, model(), TOKENIZER)
        before = file.read_bytes()

        def full(self, data):
            with self.open("wb") as opened:
                opened.write(data[:50])
            raise OSError(28, "No space left on device")

        monkeypatch.setattr("pathlib.Path.write_bytes", full)
        with pytest.raises(OSError, match="No space left"):
            save_bert(file, model(), TOKENIZER)
        assert file.read_bytes() == before
        assert [f.name for f in tmp_path.iterdir()] == ["a"]


class TestBadInput:
    def test_another_vocabulary(self, tmp_path):
        with pytest.raises(ValueError, match="as many pieces as the model, 15, got 14"):
            save_bert(tmp_path / "a", model(vocab_size=15), TOKENIZER)
        assert not (tmp_path / "a").exists()

    def test_another_kind_of_model(self, tmp_path):
        with pytest.raises(
            TypeError, match=r"must be one of BertForPreTraining, .* got BertEncoder"
        ):
            save_bert(tmp_path / "a", BertEncoder(BertConfig(**SIZES)), TOKENIZER)
        assert not (tmp_path / "a").exists()

    def test_no_file(self, tmp_path):
        with pytest.raises(FileNotFoundError, match="there is no model in"):
            load_bert(tmp_path / "a")

    def test_a_damaged_file(self, tmp_path):
        save_bert(tmp_path / "a", model(), TOKENIZER)
        data = (tmp_path / "a").read_bytes()
        for damaged in (data[: len(data) // 2], b"", b"x" * 100):
            (tmp_path / "a").write_bytes(damaged)
            with pytest.raises(ValueError, match="is no model that save_bert wrote"):
                load_bert(tmp_path / "a")

    def test_another_safetensors_file(self, tmp_path):
        from safetensors.torch import save_file

        save_file({"x": torch.zeros(3)}, tmp_path / "a")
        with pytest.raises(ValueError, match="is no model that save_bert wrote"):
            load_bert(tmp_path / "a")
