"""A model and its tokenizer in one file, and back."""

import json
import time

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file

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

    def test_numbers_that_are_none_are_not_saved(self, tmp_path):
        spoilt = model()
        spoilt.output_bias.data[3] = float("nan")
        with pytest.raises(ValueError, match="output_bias must hold finite numbers alone, and d"):
            save_bert(tmp_path / "a", spoilt, TOKENIZER)
        spoilt.output_bias.data[3] = 1e6
        with pytest.raises(ValueError, match=r"finite numbers .* not in torch\.float16"):
            save_bert(tmp_path / "a", spoilt, TOKENIZER, half=True)
        assert not list(tmp_path.iterdir())
        save_bert(tmp_path / "a", spoilt, TOKENIZER)
        assert load_bert(tmp_path / "a")[0].output_bias[3] == 1e6

    def test_another_safetensors_file(self, tmp_path):
        save_file({"x": torch.zeros(3)}, tmp_path / "a")
        with pytest.raises(ValueError, match="is no model that save_bert wrote"):
            load_bert(tmp_path / "a")


def change(file, about=None, weights=None, drop=()):
    """Write a saved model anew, with other words about it and other weights."""
    with safe_open(file, "pt") as opened:
        said = {name: text for name, text in opened.metadata().items() if name not in drop}
    save_file(load_file(file) | (weights or {}), file, said | (about or {}))


def config_with(**sizes):
    return {"config": json.dumps(vars(BertConfig.modern(**SIZES)) | sizes)}


TABLE = "encoder.token_embedding.weight"
MATRIX = "encoder.blocks.1.attention.qkv_proj.weight"
DAMAGES = {
    "no configuration": ({"about": {}, "drop": ["config"]}, "it has no 'config'"),
    "no JSON": ({"about": {"config": "{"}}, "no model that save_bert wrote"),
    "a list": ({"about": {"config": "[]"}}, "no model that save_bert wrote"),
    "a size that is a text": ({"about": config_with(d_ff="12")}, "no model that save_bert wrote"),
    "an unknown choice": ({"about": config_with(width=3)}, "width"),
    "20,000 layers": ({"about": config_with(n_layers=20_000)}, "weights of 2 layers, not of 20000"),
    "10^18 layers": ({"about": config_with(n_layers=10**18)}, "weights of 2 layers, not of 1000"),
    "a layer less": ({"about": config_with(n_layers=1)}, "weights of 2 layers, not of 1"),
    "10^12 wide": ({"about": config_with(d_model=2 * 10**12)}, "overflowed"),
    "10^40 wide": ({"about": config_with(d_model=2 * 10**40)}, "no model that save_bert wrote"),
    "10^15 pieces": ({"about": config_with(vocab_size=10**15)}, "as many pieces as the model"),
    "10^15 labels": (
        {"about": {"kind": '["BertForTokenClassification", {"n_labels": 1000000000000000}]'}},
        "no model that save_bert wrote",
    ),
    "another kind": ({"about": {"kind": '["Llama", {}]'}}, "Llama"),
    "a tokenizer that is none": ({"about": {"tokenizer": "{}"}}, "its tokenizer cannot be read"),
    "a tokenizer cut off": (
        {"about": {"tokenizer": TOKENIZER.to_str()[:200]}}, "its tokenizer cannot be read"
    ),
    "a tokenizer of others": (
        {"about": {"tokenizer": wordpiece_tokenizer([*SPECIAL, "a"]).to_str()}},
        "as many pieces as the model, 14, got 6",
    ),
    "a weight more": ({"weights": {"more": torch.ones(2)}, "drop": ["checksum"]}, "more"),
    "a weight of another size": (
        {"weights": {MATRIX: torch.ones(3, 3)}, "drop": ["checksum"]}, "size mismatch"
    ),
    "a nan": ({"weights": {MATRIX: torch.full((24, 8), float("nan"))}}, f"{MATRIX} must hold"),
    "zeros": ({"weights": {MATRIX: torch.zeros(24, 8)}}, "as their checksum shows"),
    "another number": ({"weights": {MATRIX: torch.eye(24, 8)}}, "as their checksum shows"),
    "zeros in an older file": (
        {"weights": {MATRIX: torch.zeros(24, 8)}, "drop": ["checksum"]}, f"{MATRIX} is zero all ov"
    ),
    "all zeros in an older file": (
        {"weights": {TABLE: torch.zeros(14, 8)}, "drop": ["checksum"]}, f"{TABLE} is zero all over"
    ),
}  # fmt: skip


class TestDamage:
    @pytest.mark.slow
    @pytest.mark.parametrize("damage", DAMAGES)
    def test_is_named_with_the_file_and_at_once(self, tmp_path, damage):
        how, message = DAMAGES[damage]
        file = tmp_path / "bert.safetensors"
        save_bert(file, model(), TOKENIZER)
        change(file, **how)
        begun = time.perf_counter()
        with pytest.raises(ValueError, match=r"bert\.safetensors is no model that save_bert") as e:
            load_bert(file)
        assert message in str(e.value)
        assert time.perf_counter() - begun < 5  # seconds, on the busiest machine

    @pytest.mark.parametrize("place", [0.3, 0.6, 0.9, 0.999])
    def test_any_byte_of_the_weights(self, tmp_path, place):
        file = tmp_path / "bert.safetensors"
        save_bert(file, model(), TOKENIZER, half=True)
        data = bytearray(file.read_bytes())
        begins = 8 + int.from_bytes(data[:8], "little")  # after the header
        data[begins + int(place * (len(data) - begins))] ^= 1
        file.write_bytes(data)
        with pytest.raises(ValueError, match="weights are damaged, as their checksum shows"):
            load_bert(file)

    def test_a_file_of_an_older_version_is_read(self, tmp_path):
        saved = model()  # its branches end in matrices that are zero yet
        save_bert(tmp_path / "a", saved, TOKENIZER)
        change(tmp_path / "a", drop=["checksum", "kind"])
        assert load_bert(tmp_path / "a")[0](IDS).logits.equal(saved(IDS).logits)
        save_bert(tmp_path / "a", saved, TOKENIZER)  # and may be replaced

    def test_what_is_zero_in_truth_comes_back(self, tmp_path):
        saved = model()
        saved.encoder.blocks[1].attention.qkv_proj.weight.data.zero_()
        save_bert(tmp_path / "a", saved, TOKENIZER)
        assert load_bert(tmp_path / "a")[0](IDS).logits.equal(saved(IDS).logits)
