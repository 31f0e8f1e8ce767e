"""What a model says, against numbers computed here from the model itself."""

import pytest
import tokenizers as tk
import torch
import torch.nn.functional as F
from torch import nn

import attnviz as av
from attnviz.apps import saying
from attnviz.apps.reading import Vocabulary, read

TEXT = "the [MASK] sat on the [MASK] mat"
NAMES = {0: "bad", 1: "so-so", 2: "<i>good</i>"}
CHANGES = {(0, 1): av.off, (1, 2): av.temperature(4.0)}


def both(model, tokenizer, text=TEXT):
    """Two readings, before and after the changes, and the vocabulary."""
    vocabulary = Vocabulary(tokenizer)
    return read(model, vocabulary, text), read(model, vocabulary, text, CHANGES), vocabulary


def run(model, tokenizer, text=TEXT, changes=None):
    """The model's output, without anything of the app."""
    inputs = tokenizer(text, return_tensors="pt")
    if "token_type_ids" in inputs and type(model).__name__.startswith("Distil"):
        inputs.pop("token_type_ids")
    with torch.no_grad():
        if changes is None:
            return model(**inputs)
        with av.edit(model, changes):
            return model(**inputs)


def strongest(old, new, n=saying.SHOWN):
    """Places of the n largest numbers before or after."""
    return sorted(range(len(old)), key=lambda i: -max(old[i], new[i]))[:n]


class TestKind:
    @pytest.mark.parametrize("kernel", ["sdpa", "eager"])
    @pytest.mark.parametrize(
        ("kind", "wanted"),
        [
            ("masked words", "masked words"),
            ("roberta", "masked words"),
            ("token labels", "token labels"),
            ("classes", "classes"),
            ("similarity", "similarity"),
            ("next token", "next token"),
            ("grouped queries", "next token"),
        ],
    )
    def test_models_of_transformers(self, make, kind, wanted, kernel):
        model, tokenizer = make(kind, kernel)
        before, _, vocabulary = both(model, tokenizer)
        assert saying.kind_of(before, vocabulary, model.config) == wanted

    def test_our_own(self, make_ours):
        for words, wanted in [(False, "similarity"), (True, "masked words")]:
            model, tokenizer = make_ours(words)
            before, _, vocabulary = both(model, tokenizer)
            assert saying.kind_of(before, vocabulary, model.config) == wanted
            assert saying.kind_of(before, vocabulary) == wanted

    def test_vectors_that_are_wider_than_the_vocabulary_are_no_words(self, make_ours, tokenizers):
        class States(nn.Module):
            def __init__(self, encoder):
                super().__init__()
                self.encoder = encoder

            def forward(self, input_ids):
                return self.encoder(input_ids).last_hidden_state

        encoder, tokenizer = make_ours(d_model=240)
        before, _, vocabulary = both(States(encoder), tokenizer)
        assert before.output.size(-1) > vocabulary.size
        assert saying.kind_of(before, vocabulary) == "similarity"

    def test_a_tokenizer_with_a_token_that_the_model_lacks(self, make, tokenizers):
        model, tokenizer = make("next token")
        more = type(tokenizer)(tokenizer_object=tk.Tokenizer.from_str(tokenizers.of_bytes.to_str()))
        more.add_special_tokens({"pad_token": "<pad>"})
        assert len(more) == model.config.vocab_size + 1
        before, _, vocabulary = both(model, more)
        assert saying.kind_of(before, vocabulary, model.config) == "next token"

    def test_a_decoder_whose_tokenizer_has_a_mask(self, make):
        model, _ = make("grouped queries")
        _, tokenizer = make("masked words")
        before, _, vocabulary = both(model, tokenizer)
        assert vocabulary.mask is not None
        assert saying.kind_of(before, vocabulary, model.config) == "next token"

    def test_anything_else(self, make_ours):
        class Pair(nn.Module):
            def __init__(self, encoder):
                super().__init__()
                self.encoder = encoder

            def forward(self, input_ids):
                return (self.encoder(input_ids).last_hidden_state,)

        encoder, tokenizer = make_ours()
        before, _, vocabulary = both(Pair(encoder), tokenizer)
        assert saying.kind_of(before, vocabulary) == ""


class TestWords:
    @pytest.mark.parametrize("kernel", ["sdpa", "eager"])
    def test_masked_words_are_the_model_s(self, make, kernel):
        model, tokenizer = make("masked words", kernel)
        before, after, vocabulary = both(model, tokenizer)
        said = saying.words(before, after, vocabulary, "masked words")
        old, new = (run(model, tokenizer, changes=c).logits[0].softmax(-1) for c in (None, CHANGES))
        assert [title for title, _ in said] == ["token 2, [MASK]", "token 6, [MASK]"]
        for place, (_, rows) in zip([2, 6], said, strict=True):
            wanted = [
                (tokenizer.convert_ids_to_tokens(i), float(old[place, i]), float(new[place, i]))
                for i in strongest(old[place], new[place])
            ]
            assert rows == wanted
            assert any(was != now for _, was, now in rows)

    @pytest.mark.parametrize("kind", ["next token", "grouped queries"])
    @pytest.mark.parametrize("kernel", ["sdpa", "eager"])
    def test_the_next_token_is_the_model_s(self, make, kind, kernel):
        model, tokenizer = make(kind, kernel)
        before, after, vocabulary = both(model, tokenizer)
        (said,) = saying.words(before, after, vocabulary, "next token")
        old, new = (
            run(model, tokenizer, changes=c).logits[0, -1].softmax(-1) for c in (None, CHANGES)
        )
        chosen = strongest(old, new)
        assert said[0] == "the next token"
        assert [row[1:] for row in said[1]] == [(float(old[i]), float(new[i])) for i in chosen]
        assert [row[0] for row in said[1]] == [vocabulary.token(i) for i in chosen]

    def test_at_most_three_masks(self, make):
        model, tokenizer = make("masked words")
        before, after, vocabulary = both(model, tokenizer, "[MASK] [MASK] [MASK] [MASK]")
        said = saying.words(before, after, vocabulary, "masked words")
        assert [title.split(",")[0] for title, _ in said] == ["token 1", "token 2", "token 3"]

    def test_a_text_without_a_mask(self, make):
        model, tokenizer = make("masked words")
        before, after, vocabulary = both(model, tokenizer, "the cat")
        assert saying.words(before, after, vocabulary, "masked words") == []

    def test_a_model_of_one_s_own(self, make_ours):
        model, tokenizer = make_ours(words=True)
        before, after, vocabulary = both(model, tokenizer)
        said = saying.words(before, after, vocabulary, "masked words")
        with torch.no_grad():
            old = model(torch.tensor([tokenizer.encode(TEXT).ids]))[0, 2].softmax(-1)
        title, rows = said[0]
        assert title == "token 2, [MASK]"
        for token, was, _ in rows:
            assert was == pytest.approx(float(old[tokenizer.token_to_id(token)]))


class TestLabels:
    @pytest.mark.parametrize("kernel", ["sdpa", "eager"])
    def test_classes_are_the_model_s(self, make, kernel):
        model, tokenizer = make("classes", kernel, id2label=NAMES)
        before, after, _ = both(model, tokenizer)
        ((title, rows),) = saying.labels(before, after, model.config, "classes")
        old, new = (run(model, tokenizer, changes=c).logits[0].softmax(-1) for c in (None, CHANGES))
        assert title == "class"
        assert rows == [(NAMES[i], float(old[i]), float(new[i])) for i in strongest(old, new)]
        assert sum(was for _, was, _ in rows) == pytest.approx(1)
        assert any(was != now for _, was, now in rows)

    def test_labels_that_do_not_exclude_one_another(self, make):
        model, tokenizer = make("classes", problem_type="multi_label_classification")
        before, after, _ = both(model, tokenizer)
        ((_, rows),) = saying.labels(before, after, model.config, "classes")
        wanted = run(model, tokenizer).logits[0].sigmoid()
        assert sorted(was for _, was, _ in rows) == pytest.approx(sorted(wanted.tolist()))

    def test_a_single_score_is_no_probability(self, make):
        model, tokenizer = make("classes", num_labels=1)
        before, after, _ = both(model, tokenizer)
        ((title, rows),) = saying.labels(before, after, model.config, "classes")
        old, new = (float(run(model, tokenizer, changes=c).logits) for c in (None, CHANGES))
        assert (title, rows) == ("score", [("LABEL_0", old, new)])
        assert old != new

    def test_without_a_configuration_they_have_numbers(self, make):
        model, tokenizer = make("classes")
        before, after, _ = both(model, tokenizer)
        ((_, rows),) = saying.labels(before, after, None, "classes")
        assert sorted(row[0] for row in rows) == ["class 0", "class 1", "class 2"]

    @pytest.mark.parametrize("kernel", ["sdpa", "eager"])
    def test_the_label_of_each_token_is_the_model_s(self, make, kernel):
        model, tokenizer = make("token labels", kernel, id2label=NAMES)
        before, after, _ = both(model, tokenizer)
        ((_, rows),) = saying.labels(before, after, model.config, "token labels")
        old, new = (run(model, tokenizer, changes=c).logits[0].softmax(-1) for c in (None, CHANGES))
        wanted = []
        for token, was, now in zip(before.text.tokens, old, new, strict=True):
            best = dict.fromkeys([was.argmax().item(), now.argmax().item()])
            wanted += [(f"{token}: {NAMES[i]}", was[i].item(), now[i].item()) for i in best]
        assert rows == wanted

    def test_a_label_that_an_edit_brings_up_is_shown_beside_the_old_one(self, make):
        model, tokenizer = make("token labels", id2label=NAMES)
        before, after, _ = both(model, tokenizer, "the cat")
        after.output.logits[0, 1] = torch.tensor([0.0, 0.0, 50.0])
        before.output.logits[0, 1] = torch.tensor([9.0, 0.0, 0.0])
        ((_, rows),) = saying.labels(before, after, model.config, "token labels")
        names = [row[0] for row in rows if row[0].startswith("the: ")]
        assert names == ["the: bad", "the: <i>good</i>"]
        assert rows[2][2] == pytest.approx(1)


class TestSimilarity:
    def test_it_is_the_cosine_of_mean_vectors(self, make):
        model, tokenizer = make("similarity")
        vocabulary = Vocabulary(tokenizer)
        texts = ["the cat sat on the mat", "a dog saw the cat"]
        one, other = (read(model, vocabulary, text) for text in texts)
        means = [run(model, tokenizer, text).last_hidden_state[0].mean(0) for text in texts]
        wanted = torch.dot(*(F.normalize(mean, dim=0) for mean in means))
        assert saying.similarity(one, other) == pytest.approx(wanted.item(), abs=1e-6)
        assert saying.similarity(one, one) == pytest.approx(1)

    def test_of_half_precision(self, make):
        model, tokenizer = make("similarity")
        one = read(model.bfloat16(), Vocabulary(tokenizer), "the cat")
        assert saying.similarity(one, one) == pytest.approx(1, abs=1e-6)
