"""Sentences and what follows them, or comes from another text."""

import pytest
import torch

from attnviz.data import (
    load_reviews,
    next_sentence_pairs,
    split_sentences,
    train_wordpiece,
    wordpiece_tokenizer,
)
from attnviz.data.wordpiece import SPECIAL

LETTERS = "abcdefghij."
TOKENIZER = wordpiece_tokenizer([*SPECIAL, *LETTERS])
PAD, CLS, SEP = 0, 2, 3
TEXTS = ["a b. c d. e.", "f g. h.", "i j."]


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def read(row):
    """A row as the letters of A and of B."""
    text = "".join(TOKENIZER.id_to_token(i) for i in row.tolist() if i)
    first, second, end = text.removeprefix("[CLS]").split("[SEP]")
    assert not end
    return first, second


class TestSentences:
    @pytest.mark.parametrize(
        ("text", "sentences"),
        [
            ("One. Two! Three? Four", ["One.", "Two!", "Three?", "Four"]),
            ('He said "no." Then left.', ['He said "no.', "Then left."]),
            ("A line\nanother", ["A line", "another"]),
            ("No end", ["No end"]),
            ("", []),
            (" \n ", []),
        ],
    )
    def test_where_they_end(self, text, sentences):
        assert split_sentences(text) == sentences


class TestPairs:
    def test_each_sentence_but_the_last_of_a_text_is_a_first_one(self):
        ids = next_sentence_pairs(TEXTS, TOKENIZER, 12, seeded()).input_ids
        assert [read(row)[0] for row in ids] == ["ab.", "cd.", "fg."]

    @pytest.mark.parametrize("seed", range(8))
    def test_the_label_is_true(self, seed):
        pairs = next_sentence_pairs(TEXTS, TOKENIZER, 12, seeded(seed))
        follows = {"ab.": "cd.", "cd.": "e.", "fg.": "h."}
        text_of = {s.replace(" ", ""): i for i, t in enumerate(TEXTS) for s in t.split(". ")}
        text_of = {s if s.endswith(".") else f"{s}.": i for s, i in text_of.items()}
        for row, label in zip(pairs.input_ids, pairs.next_labels.tolist(), strict=True):
            first, second = read(row)
            if label == 0:
                assert follows[first] == second
            else:
                assert text_of[first] != text_of[second]

    @pytest.mark.slow
    def test_half_of_them_are_real_and_others_come_from_everywhere(self):
        texts = [r.text for r in load_reviews("validation")[:100]]
        tokenizer = train_wordpiece(texts, 500)
        pairs = next_sentence_pairs(texts, tokenizer, 64, seeded())
        assert len(pairs.next_labels) > 800
        assert pairs.next_labels.float().mean() == pytest.approx(0.5, abs=0.06)
        others = pairs.input_ids[pairs.next_labels == 1]
        seconds = {
            tuple(row[t.bool()].tolist())
            for row, t in zip(others, pairs.token_type_ids[pairs.next_labels == 1], strict=True)
        }
        assert len(seconds) > 0.5 * len(others)

    def test_masks_and_types(self):
        pairs = next_sentence_pairs(TEXTS, TOKENIZER, 12, seeded())
        for ids, mask, types in zip(*pairs[:3], strict=True):
            assert mask.equal(ids != PAD)
            middle = ids.tolist().index(SEP)
            assert (types[: middle + 1] == 0).all()
            assert types.equal((torch.arange(12) > middle).long() * mask)

    @pytest.mark.parametrize("length", [5, 6, 7, 8, 20])
    def test_too_long_sentences_lose_their_ends(self, length):
        texts = ["a b c d e f. g.", "h. i j a b c d e f g h."]
        for seed in range(6):
            pairs = next_sentence_pairs(texts, TOKENIZER, length, seeded(seed))
            assert pairs.input_ids.shape == (2, length)
            for row in pairs.input_ids:
                first, second = read(row)
                assert first
                assert second
                assert any(
                    first == s.replace(" ", "")[: len(first)] for s in ("a b c d e f.", "h.")
                )

    def test_the_same_seed_gives_the_same(self):
        first, second, other = (
            next_sentence_pairs(TEXTS * 9, TOKENIZER, 12, seeded(s)) for s in (3, 3, 4)
        )
        assert all(a.equal(b) for a, b in zip(first, second, strict=True))
        assert not first.next_labels.equal(other.next_labels)


class TestBadInput:
    @pytest.mark.parametrize("texts", [[], [""], ["a. b."], ["a.", "b."]])
    def test_nothing_to_pair(self, texts):
        with pytest.raises(ValueError, match="at least two, and one of them of two sentences"):
            next_sentence_pairs(texts, TOKENIZER, 12, seeded())

    def test_no_room(self):
        with pytest.raises(ValueError, match=r"length must be at least 5, .* got 4"):
            next_sentence_pairs(TEXTS, TOKENIZER, 4, seeded())

    def test_one_text(self):
        with pytest.raises(TypeError, match="got one str"):
            next_sentence_pairs("a. b.", TOKENIZER, 12, seeded())
