"""Texts as windows without padding, and batches that are the same for whoever asks."""

import pytest
import torch

from attnviz.data import load_reviews, pack, shuffled, train_wordpiece, wordpiece_tokenizer
from attnviz.data.wordpiece import SPECIAL

TOKENIZER = wordpiece_tokenizer([*SPECIAL, *"abcdefgh"])
CLS, SEP = 2, 3


class TestPack:
    def test_texts_one_behind_the_other(self):
        windows = pack(["a b c", "d", "e f g h"], TOKENIZER, 4)
        assert windows.tolist() == [[CLS, 5, 6, 7], [CLS, SEP, 8, SEP], [CLS, 9, 10, 11]]

    def test_what_does_not_fill_a_window_is_dropped(self):
        assert pack(["a b c d e"], TOKENIZER, 7).tolist() == [[CLS, 5, 6, 7, 8, 9, SEP]]
        assert pack(["a b c d e f g"], TOKENIZER, 7).tolist() == [[CLS, 5, 6, 7, 8, 9, 10]]

    def test_a_text_longer_than_many_windows(self):
        windows = pack([" ".join("abcdefgh" * 50)], TOKENIZER, 9)
        assert windows.shape == (50, 9)
        assert (windows[:, 1:] == torch.arange(5, 13)).all()

    @pytest.mark.slow
    def test_every_piece_of_real_reviews_in_order(self, monkeypatch):
        monkeypatch.setattr("attnviz.data.packing._AT_ONCE", 50)  # fewer than there are
        texts = [r.text for r in load_reviews("validation")[:120]]
        tokenizer = train_wordpiece(texts, 500)
        windows = pack(texts, tokenizer, 64)
        assert (windows[:, 0] == CLS).all()
        stream = [i for t in texts for i in [*tokenizer.encode(t).ids[1:]]]  # [SEP] is its last
        n = windows.size(0) * 63
        assert windows[:, 1:].flatten().tolist() == stream[:n]
        assert len(stream) - n < 63

    @pytest.mark.parametrize(
        ("texts", "length", "error", "message"),
        [
            ([], 8, ValueError, "at least one window of 8 pieces, got 0 texts with 0 pieces"),
            (["a b"], 8, ValueError, "got 1 texts with 3 pieces"),
            (["a b"], 1, ValueError, "length must be at least 2, got 1"),
            ("a b c", 4, TypeError, "got one str"),
        ],
    )
    def test_bad_input(self, texts, length, error, message):
        with pytest.raises(error, match=message):
            pack(texts, TOKENIZER, length)


class TestShuffled:
    @pytest.mark.parametrize("seed", range(3))
    def test_each_row_once_before_any_comes_again(self, seed):
        batch_of = shuffled(torch.arange(12)[:, None], 4, seed)
        for epoch in range(3):
            seen = torch.cat([batch_of(3 * epoch + i) for i in range(3)])
            assert seen.flatten().sort().values.equal(torch.arange(12))

    def test_epochs_and_seeds_differ(self):
        rows = torch.arange(100)
        first = shuffled(rows, 100)
        assert not first(0).equal(first(1))
        assert not first(0).equal(shuffled(rows, 100, seed=1)(0))
        assert not first(1).equal(shuffled(rows, 100, seed=1)(0))

    def test_in_any_order_and_from_any_process(self):
        rows = torch.arange(50)
        one, other = shuffled(rows, 7, 3), shuffled(rows, 7, 3)
        forwards = [one(step) for step in range(20)]
        backwards = [other(step) for step in reversed(range(20))]
        assert all(a.equal(b) for a, b in zip(forwards, reversed(backwards), strict=True))

    def test_the_rest_of_an_epoch_is_left_for_another(self):
        assert len(shuffled(torch.arange(10), 4)(2)) == 4

    @pytest.mark.parametrize("size", [0, -1, 11])
    def test_bad_sizes(self, size):
        with pytest.raises(ValueError, match=f"between 1 and 10, the number of rows, got {size}"):
            shuffled(torch.arange(10), size)
