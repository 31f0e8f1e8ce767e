"""A text through a model: its tokens, its output and attention, and the model left as it was."""

import pytest
import tokenizers as tk
import torch
from torch import nn

import attnviz as av
from attnviz.apps.reading import Vocabulary, read

TEXT = "the cat sat on the [MASK]"
CPU = torch.device("cpu")
SINGLE = ["masked words", "token labels", "similarity", "classes", "next token", "grouped queries"]


def tokens_of(tokenizer, text):
    return Vocabulary(tokenizer).tokenize(text, CPU).tokens


class TestVocabulary:
    def test_both_kinds_of_tokenizer_give_the_same(self, tokenizers):
        own = Vocabulary(tokenizers.wordpiece).tokenize(TEXT, CPU)
        theirs = Vocabulary(tokenizers.bert).tokenize(TEXT, CPU)
        assert own.tokens == theirs.tokens
        assert own.tokens == ["[CLS]", "the", "cat", "sat", "on", "the", "[MASK]", "[SEP]"]
        assert own.ids == theirs.ids == tokenizers.wordpiece.encode(TEXT).ids
        for one in (own, theirs):
            assert one.inputs["input_ids"].dtype == torch.int64
            assert one.inputs["input_ids"].tolist() == [own.ids]
        assert theirs.inputs["attention_mask"].tolist() == [[1] * len(own.ids)]

    @pytest.mark.parametrize("name", ["of_bytes", "gpt"])
    def test_tokens_of_bytes_are_letters_again(self, tokenizers, name):
        text = "the naïve café 猫 שלום on the mat"
        tokens = tokens_of(getattr(tokenizers, name), text)
        assert tokens[0] == "the"
        assert tokens[-1] == "␣mat"
        assert "".join(tokens).replace("␣", " ") == text
        assert any("é" in token for token in tokens)

    def test_parts_of_a_letter_stay_as_the_tokenizer_writes_them(self, tokenizers):
        vocabulary = Vocabulary(tokenizers.of_bytes)
        seen = vocabulary.tokenize("a 🙂", CPU)
        assert len(seen.tokens) == len(seen.ids) > 3
        assert seen.tokens[:2] == ["a", "␣"]
        assert all(seen.tokens)
        assert not any("\ufffd" in token for token in seen.tokens)
        assert len(set(seen.tokens)) == len(set(seen.ids))

    def test_a_line_break_and_several_spaces_can_be_seen(self, tokenizers):
        tokens = tokens_of(tokenizers.of_bytes, "the\nmat   on")
        assert "".join(tokens) == "the↵mat␣␣␣on"

    def test_the_mark_of_a_word_s_beginning(self):
        tokenizer = tk.Tokenizer(tk.models.BPE({"▁the": 0, "▁": 1, "x": 2}, []))
        vocabulary = Vocabulary(tokenizer)
        assert [vocabulary.token(i) for i in range(3)] == ["␣the", "␣", "x"]

    def test_a_letter_of_maltese_is_no_space(self):
        tokenizer = tk.Tokenizer(tk.models.WordLevel({"Ġ": 0, "Ġan": 1, "": 2}, "Ġ"))
        vocabulary = Vocabulary(tokenizer)
        assert [vocabulary.token(i) for i in range(3)] == ["Ġ", "Ġan", ""]

    @pytest.mark.parametrize("name", ["wordpiece", "bert", "of_bytes", "gpt"])
    def test_an_id_that_the_tokenizer_does_not_know(self, tokenizers, name):
        assert Vocabulary(getattr(tokenizers, name)).token(9999) == "#9999"

    def test_the_mask(self, tokenizers):
        mask = tokenizers.wordpiece.token_to_id("[MASK]")
        assert Vocabulary(tokenizers.wordpiece).mask == Vocabulary(tokenizers.bert).mask == mask
        roberta = tk.Tokenizer(tk.models.WordLevel({"a": 0, "<mask>": 1}, "a"))
        assert Vocabulary(roberta).mask == 1
        assert Vocabulary(tokenizers.of_bytes).mask is None
        assert Vocabulary(tokenizers.gpt).mask is None

    def test_a_mask_whose_id_is_zero_is_one(self):
        assert Vocabulary(tk.Tokenizer(tk.models.WordLevel({"[MASK]": 0}, "[MASK]"))).mask == 0

    def test_padding_is_left_away(self, tokenizers):
        padded = tk.Tokenizer.from_str(tokenizers.wordpiece.to_str())
        padded.enable_padding(length=20)
        assert tokens_of(padded, TEXT) == tokens_of(tokenizers.wordpiece, TEXT)

    @pytest.mark.parametrize("name", ["wordpiece", "bert", "of_bytes", "gpt"])
    @pytest.mark.parametrize("text", ["", "   ", "\n"])
    def test_an_empty_text_is_refused(self, tokenizers, name, text):
        with pytest.raises(ValueError, match="the text has no tokens: write something"):
            tokens_of(getattr(tokenizers, name), text)

    @pytest.mark.parametrize("thing", [None, "bert-base-uncased", {"the": 0}, torch.nn.Identity()])
    def test_what_is_no_tokenizer(self, thing):
        with pytest.raises(
            TypeError, match="tokenizer must be one of .*, got " + type(thing).__name__
        ):
            Vocabulary(thing)


@pytest.mark.parametrize("kernel", ["sdpa", "eager"])
@pytest.mark.parametrize("kind", SINGLE)
class TestOutput:
    def test_it_is_the_model_s_own(self, make, kind, kernel):
        model, tokenizer = make(kind, kernel)
        found = read(model, Vocabulary(tokenizer), TEXT)
        inputs = tokenizer(TEXT, return_tensors="pt")
        if kind == "classes":
            inputs.pop("token_type_ids", None)  # which DistilBERT does not take
        with torch.no_grad():
            wanted = model(**inputs, output_attentions=kernel == "eager")
        name = "last_hidden_state" if kind == "similarity" else "logits"
        assert torch.equal(getattr(found.output, name), getattr(wanted, name))
        assert len(found.seen) == 2
        for record, weights in zip(found.seen, wanted.attentions or (), strict=False):
            assert torch.allclose(record.weights, weights, atol=1e-6)

    def test_with_changes_it_is_that_of_an_edit(self, make, kind, kernel):
        model, tokenizer = make(kind, kernel)
        changes = {(0, 1): av.off, (1, 2): av.temperature(3.0)}
        found = read(model, Vocabulary(tokenizer), TEXT, changes)
        inputs = tokenizer(TEXT, return_tensors="pt")
        if kind == "classes":
            inputs.pop("token_type_ids", None)
        with torch.no_grad(), av.edit(model, changes), av.capture(model) as seen:
            wanted = model(**inputs)
        name = "last_hidden_state" if kind == "similarity" else "logits"
        assert torch.equal(getattr(found.output, name), getattr(wanted, name))
        assert not torch.equal(getattr(found.output, name), getattr(model(**inputs), name))
        for here, there in zip(found.seen, seen, strict=True):
            assert torch.equal(here.weights, there.weights)


class Recorder(nn.Module):
    """Our encoder, with whatever arguments its forward names."""

    def __init__(self, encoder):
        super().__init__()
        self.encoder, self.heard = encoder, {}

    def forward(self, input_ids, attention_mask=None, other=3):
        self.heard = {"attention_mask": attention_mask, "other": other}
        return self.encoder(input_ids)


class OtherName(nn.Module):
    def __init__(self, encoder):
        super().__init__()
        self.encoder = encoder

    def forward(self, tokens):
        return self.encoder(tokens)


class TestCalling:
    def test_a_model_gets_the_inputs_that_it_names(self, make_ours, tokenizers):
        model = Recorder(make_ours()[0])
        read(model, Vocabulary(tokenizers.bert), TEXT)
        assert model.heard["attention_mask"].tolist() == [[1] * 8]
        assert model.heard["other"] == 3

    def test_a_model_that_calls_them_otherwise_gets_the_ids(self, make_ours):
        encoder, tokenizer = make_ours()
        found = read(OtherName(encoder), Vocabulary(tokenizer), TEXT)
        ids = torch.tensor([tokenizer.encode(TEXT).ids])
        wanted = encoder(ids).last_hidden_state
        assert torch.equal(found.output.last_hidden_state, wanted)

    def test_the_encoder_of_an_encoder_decoder_is_read(self, make):
        for kind in ("t5", "marian", "bart"):
            model, tokenizer = make(kind)
            found = read(model.get_encoder(), Vocabulary(tokenizer), TEXT)
            assert {record.kind for record in found.seen} == {"self"}


def modes(model):
    return {name: module.training for name, module in model.named_modules()}


def hooks(model):
    kinds = ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks")
    return [len(getattr(module, kind)) for module in model.modules() for kind in kinds]


class TestTheModelIsLeftAsItWas:
    @pytest.fixture
    def model(self, make):
        model, _ = make("masked words", hidden_dropout_prob=0.5, attention_probs_dropout_prob=0.5)
        model.train()
        model.bert.encoder.layer[0].eval()
        model.bert.embeddings.dropout.train(False)
        return model

    @pytest.mark.parametrize("changes", [{}, {(0, 1): av.off}])
    def test_after_reading(self, model, tokenizers, changes):
        before = modes(model), hooks(model), torch.get_rng_state()
        parameters = {name: p.clone() for name, p in model.named_parameters()}
        assert len(set(before[0].values())) == 2
        read(model, Vocabulary(tokenizers.bert), TEXT, changes)
        assert (modes(model), hooks(model)) == before[:2]
        assert torch.equal(torch.get_rng_state(), before[2])
        for name, parameter in model.named_parameters():
            assert torch.equal(parameter, parameters[name])
            assert parameter.grad is None
            assert parameter.requires_grad

    def test_after_an_error(self, model, tokenizers):
        before = modes(model), hooks(model)

        def fail(weights):
            raise RuntimeError("on purpose")

        with pytest.raises(RuntimeError, match="on purpose"):
            read(model, Vocabulary(tokenizers.bert), TEXT, {(1, 0): fail})
        assert (modes(model), hooks(model)) == before
        assert torch.is_grad_enabled()

    def test_dropout_is_off_meanwhile(self, model, tokenizers):
        vocabulary = Vocabulary(tokenizers.bert)
        one, other = (read(model, vocabulary, TEXT).output.logits for _ in range(2))
        assert torch.equal(one, other)
        assert torch.equal(one, model.eval()(**tokenizers.bert(TEXT, return_tensors="pt")).logits)

    def test_no_gradients_are_kept(self, model, tokenizers):
        found = read(model, Vocabulary(tokenizers.bert), TEXT)
        assert not found.output.logits.requires_grad
        assert not found.seen[0].weights.requires_grad
        assert torch.is_grad_enabled()


class TestRefused:
    @pytest.mark.parametrize("kind", [*SINGLE, "roberta"])
    def test_a_text_that_is_too_long(self, make, tokenizers, kind):
        model, tokenizer = make(kind)
        most = tokenizers.longest - 2 * (kind == "roberta")  # which counts from after its padding
        word, ends = (" on", 0) if tokenizer is tokenizers.gpt else (" cat", 2)
        vocabulary = Vocabulary(tokenizer)
        assert len(read(model, vocabulary, word * (most - ends)).text.ids) == most
        reason = f"the text has {most + 1} tokens, but the model reads at most {most}"
        with pytest.raises(ValueError, match=reason):
            read(model, vocabulary, word * (most - ends + 1))

    def test_a_text_that_is_too_long_for_our_encoder(self, make_ours):
        model, tokenizer = make_ours(max_len=10)
        with pytest.raises(ValueError, match="has 11 tokens, but the model reads at most 10"):
            read(model, Vocabulary(tokenizer), "cat " * 9)

    @pytest.mark.parametrize("kind", ["t5", "marian", "bart"])
    def test_an_encoder_with_a_decoder(self, make, kind):
        model, tokenizer = make(kind)
        name = type(model).__name__
        with pytest.raises(ValueError, match=rf"{name} is an encoder and a decoder.*get_encoder"):
            read(model, Vocabulary(tokenizer), TEXT)

    def test_a_tokenizer_of_another_model(self, make, tokenizers):
        model, _ = make("masked words", vocab_size=20)
        with pytest.raises(ValueError, match=r"the id \d+, but the model knows only 20 tokens"):
            read(model, Vocabulary(tokenizers.bert), TEXT)

    @pytest.mark.parametrize("thing", [None, "bert", lambda ids: ids])
    def test_what_is_no_model(self, tokenizers, thing):
        reason = f"model must be a torch.nn.Module, got {type(thing).__name__}"
        with pytest.raises(TypeError, match=reason):
            read(thing, Vocabulary(tokenizers.bert), TEXT)

    def test_a_model_without_attention(self, tokenizers):
        with pytest.raises(ValueError, match="no attention was seen"):
            read(nn.Embedding(200, 8), Vocabulary(tokenizers.bert), TEXT)
