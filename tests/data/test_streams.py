"""Texts that are read one after another, and their batches, the same for any number of reads."""

import json

import pytest
import torch

from attnviz.data import pack, wordpiece_tokenizer
from attnviz.data.streams import apart, stream_texts, streamed_batches
from attnviz.data.wordpiece import SPECIAL

TOKENIZER = wordpiece_tokenizer([*SPECIAL, *"abcdefgh"])
TEXTS = [" ".join("abcdefgh"[i % 8] for i in range(start, start + 5)) for start in range(60)]


class TestTexts:
    @pytest.mark.parametrize("kind", ["txt", "jsonl", "json"])
    def test_from_a_file_again_and_again(self, tmp_path, kind):
        file = tmp_path / f"corpus.{kind}"
        lines = TEXTS if kind == "txt" else [json.dumps({"text": text}) for text in TEXTS]
        file.write_text("\n".join(lines))
        texts = stream_texts(file)
        assert list(texts()) == TEXTS
        assert list(texts()) == TEXTS

    def test_another_column(self, tmp_path):
        file = tmp_path / "corpus.jsonl"
        file.write_text(json.dumps({"id": 3, "body": "a b"}))
        assert list(stream_texts(file, column="body")()) == ["a b"]
        with pytest.raises(KeyError, match=r"no column 'text', only \['body', 'id'\]"):
            list(stream_texts(file)())

    def test_a_file_that_is_not_there(self, tmp_path):
        with pytest.raises(FileNotFoundError, match="there is no file"):
            stream_texts(tmp_path / "none.txt")

    def test_a_dataset_that_cannot_be_reached(self, monkeypatch):
        def unreachable(*args, **kwargs):
            raise ConnectionError("no network")

        monkeypatch.setattr("datasets.load_dataset", unreachable)
        with pytest.raises(ConnectionError, match="cannot read 'someone/corpus': no network"):
            list(stream_texts("someone/corpus")())

    def test_a_dataset_of_the_hub_is_streamed(self, monkeypatch):
        asked = []

        def rows(*args, **kwargs):
            asked.append((args, kwargs))
            return iter([{"text": "a"}, {"text": "b"}])

        monkeypatch.setattr("datasets.load_dataset", rows)
        assert list(stream_texts("someone/corpus", "validation")()) == ["a", "b"]
        assert asked == [(("someone/corpus",), {"split": "validation", "streaming": True})]

    def test_apart(self):
        texts = [f"text {i}" for i in range(2000)]
        kept, held_out = apart(lambda: iter(texts))
        assert sorted([*kept(), *held_out()]) == sorted(texts)
        assert len(list(held_out())) == pytest.approx(100, abs=30)
        assert list(held_out()) == list(held_out())


class TestBatches:
    def test_every_window_once_before_the_texts_begin_anew(self):
        batch_of = streamed_batches(lambda: iter(TEXTS), TOKENIZER, 9, 5)
        windows = pack(TEXTS, TOKENIZER, 9)
        n = len(windows) // 5
        seen = torch.cat([batch_of(step) for step in range(n)])
        everything = sorted(map(tuple, windows.tolist()))
        found = sorted(map(tuple, seen.tolist()))
        rest = list(everything)
        for window in found:
            rest.remove(window)
        assert len(rest) == len(windows) - 5 * n

    def test_the_same_in_any_order(self):
        one = streamed_batches(lambda: iter(TEXTS), TOKENIZER, 9, 5, seed=3)
        other = streamed_batches(lambda: iter(TEXTS), TOKENIZER, 9, 5, seed=3)
        forwards = [one(step) for step in range(20)]  # beyond the end of the texts
        for step in (17, 3, 4, 19, 0):
            assert other(step).equal(forwards[step])

    def test_parts_of_a_step_and_a_later_step_read_no_text_twice(self):
        read = []

        def texts():
            for text in TEXTS:
                read.append(text)
                yield text

        batch_of = streamed_batches(texts, TOKENIZER, 9, 5)
        for step in (0, 0, 0, 1, 1, 4, 4):
            batch_of(step)
        assert read == TEXTS

    def test_shuffled_by_the_seed(self):
        one, other = (
            streamed_batches(lambda: iter(TEXTS), TOKENIZER, 9, 5, seed)(0) for seed in (0, 1)
        )
        assert not one.equal(other)

    def test_few_texts_fill_a_batch_by_coming_again(self):
        batch = streamed_batches(lambda: iter(["a b c d e f g h"]), TOKENIZER, 9, 3)(0)
        assert batch.shape == (3, 9)

    def test_texts_at_the_end_that_are_too_short_for_a_window_stop_nothing(self, monkeypatch):
        monkeypatch.setattr("attnviz.data.streams._AT_ONCE", 2)
        batch_of = streamed_batches(lambda: iter([*TEXTS[:4], "a"]), TOKENIZER, 9, 2)
        assert all(batch_of(step).shape == (2, 9) for step in range(10))

    @pytest.mark.parametrize("texts", [[], ["a b"]])
    def test_too_few_texts(self, texts):
        with pytest.raises(ValueError, match="must fill"):
            streamed_batches(lambda: iter(texts), TOKENIZER, 9, 3)(0)
