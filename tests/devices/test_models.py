"""Every model on a device: forward and backward, tasks, search, writing, files."""

import copy

import pytest
import torch
import transformers
from comparing import assert_same, assert_works, to
from tokenizers import Tokenizer
from tokenizers.models import WordLevel

from attnviz.models import (
    GPT,
    BertConfig,
    BertEncoder,
    BertForPreTraining,
    BertForQuestionAnswering,
    BertForSequenceClassification,
    BertForTokenClassification,
    GPTConfig,
    OnnxClassifier,
    Transformer,
    TransformerConfig,
    beam_search,
    export_onnx,
    generate,
    greedy_search,
    load_bert,
    load_hugging_face,
    load_hugging_face_encoder,
    next_probabilities,
    save_bert,
    to_int8,
    translation_loss,
)

pytestmark = pytest.mark.slow

SIZES = {"vocab_size": 30, "d_model": 16, "n_layers": 2, "n_heads": 4, "d_ff": 32, "max_len": 12}
PLAIN, MODERN = BertConfig(**SIZES), BertConfig.modern(**SIZES)
IDS = torch.tensor([[2, 7, 4, 9, 3], [2, 8, 3, 0, 0]])
MASK = IDS != 0
MASKED = torch.tensor([[-100, 7, -100, 9, -100], [-100, 8, -100, -100, -100]])


def transformer(**options):
    sizes = {"d_model": 16, "n_heads": 4, "d_ff": 32, "max_len": 12}
    return Transformer(TransformerConfig(12, 14, **sizes, **options)).eval()


def gpt():
    return GPT(GPTConfig(**SIZES)).eval()


class TestTransformer:
    source, target = (
        torch.tensor([[3, 4, 5, 6], [7, 8, 0, 0]]),
        torch.tensor([[1, 9, 2], [1, 2, 0]]),
    )

    @pytest.mark.parametrize("pre_norm", [False, True])
    def test_learns(self, device, pre_norm):
        def run(model, source, target):
            output = model(source, target[:, :-1], need_weights=True)
            return output, translation_loss(output.logits, target[:, 1:], 0.1)

        assert_works(device, run, transformer(pre_norm=pre_norm), (self.source, self.target))

    def test_translates_greedily(self, device):
        def run(model, source):
            return greedy_search(model, source, 1, 2, 8)

        assert_works(device, run, transformer(), (self.source,))

    def test_translates_with_a_beam(self, device):
        def run(model, source):
            return beam_search(model, source, 1, 2, 8, width=3, length_penalty=0.6)

        assert_works(device, run, transformer(), (self.source[0],))


class TestBert:
    @pytest.mark.parametrize("config", [PLAIN, MODERN])
    def test_encodes(self, device, config):
        def run(model, ids, mask, at):
            weights = model(ids, mask, need_weights=True)
            return weights, model(ids, mask, at=at).last_hidden_state, model(ids)

        inputs = IDS, MASK, torch.tensor([[0, 3], [1, 0]])
        assert_works(device, run, BertEncoder(config).eval(), inputs)

    def test_tells_two_sentences_apart(self, device):
        types = torch.tensor([[0, 0, 0, 1, 1], [0, 0, 1, 1, 1]])
        assert_works(
            device,
            lambda model, *given: model(*given).last_hidden_state,
            BertEncoder(PLAIN).eval(),
            (IDS, MASK, types),
        )

    @pytest.mark.parametrize("need_logits", [True, False])
    @pytest.mark.parametrize("config", [PLAIN, MODERN])
    def test_learns_from_hidden_words(self, device, config, need_logits):
        follows = torch.tensor([0, 1]) if config.next_sentence else None

        def run(model, ids, mask, labels, follows):
            return model(ids, mask, labels=labels, next_labels=follows, need_logits=need_logits)

        inputs = IDS, MASK, MASKED, follows
        assert_works(device, run, BertForPreTraining(config).eval(), inputs)

    def test_guesses_all_words(self, device):
        model = BertForPreTraining(PLAIN).eval()
        assert_works(device, lambda model, *given: model(*given), model, (IDS, MASK))

    @pytest.mark.parametrize(
        ("make", "labels"),
        [
            (lambda body: BertForSequenceClassification(body, 3), [2, 0]),
            (lambda body: BertForSequenceClassification(body, 3, "mean"), [2, 0]),
            (
                lambda body: BertForTokenClassification(body, 3),
                [[-100, 2, 1, 0, -100], [-100, 1, -100, -100, -100]],
            ),
            (BertForQuestionAnswering, [[1, 3], [1, 1]]),
        ],
        ids=["first", "mean", "tokens", "answers"],
    )
    def test_learns_a_task(self, device, make, labels):
        def run(model, ids, mask, labels):
            return model(ids, mask, labels=labels)

        model = make(BertEncoder(PLAIN)).eval()
        assert_works(device, run, model, (IDS, MASK, torch.tensor(labels)))

    def test_starts_on_the_device(self, device):
        with device:
            model = BertForPreTraining(MODERN)
        assert {p.device.type for p in model.parameters()} == {device.type}
        assert model(IDS.to(device)).logits.isfinite().all()


class TestGPT:
    ids = torch.tensor([[5, 7, 4, 9, 3], [0, 0, 2, 8, 3]])
    mask = torch.tensor([[True] * 5, [False, False, True, True, True]])

    def test_learns(self, device):
        def run(model, ids, mask):
            labels = ids.masked_fill(~mask, -100)
            return model(ids, mask, labels, need_weights=True), model(ids, labels=ids)

        assert_works(device, run, gpt(), (self.ids, self.mask))

    @pytest.mark.parametrize("use_cache", [False, True])
    def test_writes(self, device, use_cache):
        def run(model, ids, mask):
            padded = generate(model, ids, 4, mask, use_cache=use_cache)
            return padded, generate(model, ids[:1], 7, use_cache=use_cache)

        assert_works(device, run, gpt(), (self.ids, self.mask))

    def test_draws_the_same_words_with_the_same_generator(self, device):
        def run(model, ids):
            generator = torch.Generator().manual_seed(1)
            return generate(
                model, ids, 6, temperature=0.9, top_k=20, top_p=0.9, generator=generator
            )

        assert_works(device, run, gpt(), (self.ids,))

    def test_draws_without_a_generator(self, device):
        model, ids = gpt().to(device), self.ids.to(device)
        torch.manual_seed(1)
        once = generate(model, ids, 6, temperature=1.0)
        torch.manual_seed(1)
        assert torch.equal(generate(model, ids, 6, temperature=1.0), once)

    @pytest.mark.parametrize("choice", [{"temperature": 0}, {"top_k": 3}, {"top_p": 0.7}])
    def test_chooses_among_probabilities(self, device, choice):
        assert_works(device, lambda x: next_probabilities(x, **choice), None, (torch.randn(2, 9),))


class TestFiles:
    tokenizer = Tokenizer(WordLevel({f"w{i}": i for i in range(30)}, unk_token="w0"))

    @pytest.mark.parametrize("half", [False, True])
    def test_a_model_of_the_device_is_saved_and_comes_back(self, device, tmp_path, half):
        model = BertForPreTraining(PLAIN).eval()
        save_bert(
            tmp_path / "model.safetensors",
            copy.deepcopy(model).to(device),
            self.tokenizer,
            half=half,
        )
        loaded, _ = load_bert(tmp_path / "model.safetensors")
        assert {p.device.type for p in loaded.parameters()} == {"cpu"}
        there = loaded.to(device)(to(IDS, device)).logits
        torch.testing.assert_close(
            there.detach().cpu(), model(IDS).logits.detach(), atol=1e-2 if half else 1e-4, rtol=1e-3
        )

    def test_weights_of_hugging_face(self, device, tmp_path):
        config = transformers.BertConfig(
            vocab_size=30,
            hidden_size=16,
            num_hidden_layers=2,
            num_attention_heads=4,
            intermediate_size=32,
            max_position_embeddings=12,
        )
        transformers.BertForPreTraining(config).save_pretrained(tmp_path)
        model = load_hugging_face(tmp_path)
        assert_works(device, lambda model, *given: model(*given), model, (IDS, MASK))
        encoder = load_hugging_face_encoder(tmp_path)
        assert_works(device, lambda model, ids: model(ids, need_weights=True), encoder, (IDS,))

    def test_a_file_for_onnx_runtime_answers_where_it_is_asked(self, device, tmp_path):
        model = BertForSequenceClassification(BertEncoder(PLAIN), 3, "mean").eval()
        answer = OnnxClassifier(export_onnx(model, tmp_path / "model.onnx"))
        there = answer(*to((IDS, MASK), device))
        assert_same(there.logits, model(IDS, MASK).logits.detach(), device)

    def test_typical_texts_for_8_bits_may_be_anywhere(self, device):
        model = BertForSequenceClassification(BertEncoder(PLAIN), 3, "mean").eval()
        before, after = to_int8(model, IDS, MASK), to_int8(model, *to((IDS, MASK), device))
        assert torch.equal(after(IDS, MASK).logits, before(IDS, MASK).logits)

    def test_what_is_made_for_cpus_says_so(self, device, tmp_path):
        model = BertForSequenceClassification(BertEncoder(PLAIN), 3, "mean").to(device)
        with pytest.raises(ValueError, match=r"on the CPU, got one on .*: model.cpu()"):
            to_int8(model, IDS.to(device), MASK.to(device))
        with pytest.raises(ValueError, match=r"on the CPU, got one on .*: model.cpu()"):
            export_onnx(model, tmp_path / "model.onnx")
