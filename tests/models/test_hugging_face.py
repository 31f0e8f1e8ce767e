"""Folders in Hugging Face's form, of today and of 2018."""

import json

import pytest
import torch
import transformers
from safetensors.torch import load_file

from attnviz.models import load_hugging_face, load_hugging_face_encoder, load_minilm
from attnviz.models.hugging_face import _minilm_folder

IDS = torch.tensor([[2, 7, 4, 9, 3]])


@pytest.fixture
def model():
    torch.manual_seed(1)
    config = transformers.BertConfig(
        vocab_size=40,
        hidden_size=16,
        num_hidden_layers=3,
        num_attention_heads=2,
        intermediate_size=20,
        max_position_embeddings=10,
        layer_norm_eps=1e-6,
    )
    return transformers.BertForPreTraining(config).eval()


@pytest.fixture
def folder(model, tmp_path):
    model.save_pretrained(tmp_path)
    return tmp_path


def as_of_2018(folder):
    """As google's checkpoints were converted: a pickle, gamma and beta, few settings."""
    state = load_file(folder / "model.safetensors")
    state = {
        n.replace("LayerNorm.weight", "LayerNorm.gamma").replace(
            "LayerNorm.bias", "LayerNorm.beta"
        ): t
        for n, t in state.items()
    }
    state["bert.embeddings.position_ids"] = torch.arange(10)[None]
    torch.save(state, folder / "pytorch_model.bin")
    (folder / "model.safetensors").unlink()
    settings = json.loads((folder / "config.json").read_text())
    for name in ("model_type", "architectures", "hidden_act"):
        settings.pop(name, None)
    (folder / "config.json").write_text(json.dumps(settings))


class TestReading:
    @pytest.mark.parametrize("old", [False, True])
    def test_the_model_is_the_same(self, model, folder, old):
        if old:
            as_of_2018(folder)
        ours, theirs = load_hugging_face(folder)(IDS), model(IDS)
        torch.testing.assert_close(ours.logits, theirs.prediction_logits, atol=1e-5, rtol=0)
        torch.testing.assert_close(ours.next_logits, theirs.seq_relationship_logits)

    def test_its_settings(self, folder):
        config = load_hugging_face(folder).config
        assert (config.n_layers, config.d_ff, config.eps) == (3, 20, 1e-6)

    def test_without_a_next_sentence_head(self, model, tmp_path):
        words = transformers.BertForMaskedLM(model.config).eval()
        words.save_pretrained(tmp_path)
        ours = load_hugging_face(tmp_path)
        assert ours.pooler is None
        torch.testing.assert_close(ours(IDS).logits, words(IDS).logits, atol=1e-5, rtol=0)

    def test_the_encoder_alone(self, model, folder):
        hidden = load_hugging_face_encoder(folder)(IDS).last_hidden_state
        wanted = model.bert(IDS).last_hidden_state
        torch.testing.assert_close(hidden, wanted, atol=1e-5, rtol=0)

    def test_minilm_by_its_folder(self):
        ours, minilm = load_hugging_face_encoder(_minilm_folder()), load_minilm()[0]
        assert ours(IDS).last_hidden_state.equal(minilm(IDS).last_hidden_state)

    def test_half_precision_becomes_float32(self, model, tmp_path):
        model.half().save_pretrained(tmp_path)
        assert load_hugging_face(tmp_path).output_bias.dtype == torch.float32


class TestBadInput:
    def test_no_folder(self, tmp_path):
        with pytest.raises(FileNotFoundError, match=r"config\.json"):
            load_hugging_face(tmp_path / "nowhere")

    @pytest.mark.parametrize("text", ["", "{", "[]", "null", '{"a": "\xe9"}'])
    def test_settings_that_are_no_object(self, folder, text):
        (folder / "config.json").write_bytes(text.encode("latin-1"))
        with pytest.raises(ValueError, match=r"config\.json must be a JSON object"):
            load_hugging_face(folder)

    def test_settings_may_begin_with_a_byte_order_mark(self, folder):
        settings = (folder / "config.json").read_text()
        (folder / "config.json").write_text(settings, encoding="utf-8-sig")
        assert load_hugging_face(folder)

    def test_no_weights(self, folder):
        (folder / "model.safetensors").unlink()
        with pytest.raises(FileNotFoundError, match=r"neither model.safetensors nor pytorch_model"):
            load_hugging_face(folder)

    def test_no_masked_word_head(self):
        with pytest.raises(ValueError, match="load_hugging_face_encoder reads the encoder alone"):
            load_hugging_face(_minilm_folder())

    @pytest.mark.parametrize(
        ("setting", "value", "message"),
        [
            ("model_type", "gpt2", "must be of a BERT, got model_type 'gpt2'"),
            ("hidden_act", "relu", "exact GELU can be read, got 'relu'"),
            ("num_hidden_layers", 4, "not those of this model"),
            ("hidden_size", 32, "not those of this model"),
            ("hidden_size", "32", "must be of a BERT: d_model must be a whole number, got '32'"),
            ("layer_norm_eps", None, "must be of a BERT: eps must be at least 0"),
        ],
    )
    def test_other_settings(self, folder, setting, value, message):
        settings = json.loads((folder / "config.json").read_text()) | {setting: value}
        (folder / "config.json").write_text(json.dumps(settings))
        with pytest.raises(ValueError, match=message):
            load_hugging_face(folder)
