"""Texts with a label each: cut, padded and drawn."""

import pytest
import torch

from attnviz.data import encode_texts, labelled_batches, padded, wordpiece_tokenizer
from attnviz.data.wordpiece import SPECIAL

TOKENIZER = wordpiece_tokenizer([*SPECIAL, *"abcdefgh"])
CLS, SEP = 2, 3
ROWS = [[CLS, 5, SEP], [CLS, 6, 7, 8, SEP], [CLS, SEP], [CLS, 9, 10, SEP]]
LABELS = torch.tensor([0, 1, 2, 3])


class TestEncodeTexts:
    def test_short_texts_stay_as_they_are(self):
        assert encode_texts(["a b", "c"], TOKENIZER, 4) == [[CLS, 5, 6, SEP], [CLS, 7, SEP]]

    @pytest.mark.parametrize(
        ("length", "expected"),
        [
            (8, [CLS, 5, 8, 9, 10, 11, 12, SEP]),
            (9, [CLS, 5, 7, 8, 9, 10, 11, 12, SEP]),
            (4, [CLS, 11, 12, SEP]),
        ],
    )
    def test_of_long_texts_the_first_quarter_and_the_end(self, length, expected):
        assert encode_texts(["a b c d e f g h"], TOKENIZER, length) == [expected]

    def test_just_long_enough(self):
        whole = [CLS, *range(5, 13), SEP]
        assert encode_texts(["a b c d e f g h"], TOKENIZER, 10) == [whole]

    @pytest.mark.parametrize(
        ("texts", "length", "error", "message"),
        [
            ("a b", 8, TypeError, "several texts, such as a list, got one str"),
            (["a b"], 3, ValueError, "length must be at least 4, got 3"),
        ],
    )
    def test_bad_input(self, texts, length, error, message):
        with pytest.raises(error, match=message):
            encode_texts(texts, TOKENIZER, length)


class TestPadded:
    def test_ids_and_where_they_are_real(self):
        ids, mask = padded(ROWS[:3])
        assert ids.tolist() == [[CLS, 5, SEP, 0, 0], ROWS[1], [CLS, SEP, 0, 0, 0]]
        assert mask.dtype == torch.bool
        assert mask.sum(1).tolist() == [3, 5, 2]
        assert mask.equal(ids != 0)


class TestBatches:
    def test_each_text_once_with_its_own_label(self):
        batch_of = labelled_batches(ROWS, LABELS, 2)
        seen = {}
        for step in (0, 1):
            batch = batch_of(step)
            assert batch.keys() == {"input_ids", "mask", "labels"}
            for ids, mask, label in zip(*batch.values(), strict=True):
                seen[label.item()] = ids[mask].tolist()
        assert seen == dict(enumerate(ROWS))

    def test_padded_no_further_than_needed(self):
        batch = labelled_batches(ROWS[:1] * 2, LABELS[:2], 2)(0)
        assert batch["input_ids"].shape == (2, 3)

    def test_the_same_step_and_seed_give_the_same(self):
        one, two, other = (labelled_batches(ROWS, LABELS, 4, seed) for seed in (0, 0, 1))
        for step in (3, 0):
            assert one(step)["labels"].equal(two(step)["labels"])
        orders = [
            [batch_of(step)["labels"].tolist() for step in range(4)] for batch_of in (one, other)
        ]
        assert orders[0] != orders[1]

    def test_fewer_texts_than_a_batch(self):
        assert len(labelled_batches(ROWS, LABELS, 16)(5)["labels"]) == 4

    @pytest.mark.parametrize(
        ("rows", "labels", "message"),
        [
            (ROWS, LABELS[:3], "labels must be as many as rows, 4, got 3"),
            ([], LABELS[:0], "batch_size must be between 1 and 0"),
        ],
    )
    def test_bad_input(self, rows, labels, message):
        with pytest.raises(ValueError, match=message):
            labelled_batches(rows, labels, 2)
