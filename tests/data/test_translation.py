"""Sentence pairs in the form of Multi30k and WMT: from a file to batches and back."""

import json
from pathlib import Path

import pytest
import torch

from attnviz.data import SentencePairs, load_translation

SENTENCES = Path(__file__).parents[2] / "data" / "sentences.jsonl"
PAIRS = [
    ("A dog runs.", "Ein Hund läuft."),
    ("The old man sleeps.", "Der alte Mann schläft."),
    ("Two girls eat.", "Zwei Mädchen essen Brötchen."),
]


def write(path, rows):
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


@pytest.fixture(scope="module")
def data():
    return SentencePairs(PAIRS, vocabulary=80)


class TestLoading:
    @pytest.mark.parametrize("as_text", [False, True])
    def test_one_object_a_line(self, tmp_path, as_text):
        file = write(tmp_path / "pairs.jsonl", [{"en": e, "de": d} for e, d in PAIRS])
        assert load_translation(str(file) if as_text else file) == PAIRS

    def test_sentences_that_stand_together_under_translation(self, tmp_path):
        rows = [{"id": i, "translation": {"de": d, "en": e}} for i, (e, d) in enumerate(PAIRS)]
        assert load_translation(write(tmp_path / "wmt.jsonl", rows)) == PAIRS

    def test_the_other_way_round(self, tmp_path):
        file = write(tmp_path / "pairs.jsonl", [{"en": e, "de": d} for e, d in PAIRS])
        swapped = [(d, e) for e, d in PAIRS]
        assert load_translation(file, languages=("de", "en")) == swapped

    def test_the_sentences_of_this_project(self):
        pairs = load_translation(SENTENCES)
        assert len(pairs) == 72
        assert pairs[0] == ("A dog runs across the field.", "Ein Hund läuft über das Feld.")

    def test_a_file_that_is_not_there(self, tmp_path):
        with pytest.raises(FileNotFoundError, match=r"no file .*missing\.jsonl"):
            load_translation(tmp_path / "missing.jsonl")

    def test_a_language_that_is_not_there(self, tmp_path):
        file = write(tmp_path / "pairs.jsonl", [{"en": "A dog.", "de": "Ein Hund."}])
        with pytest.raises(KeyError, match="no language 'fr'"):
            load_translation(file, languages=("en", "fr"))

    def test_without_a_network_it_says_so(self, monkeypatch):
        import datasets

        def refuse(*arguments, **options):
            raise OSError("no route to host")

        monkeypatch.setattr(datasets, "load_dataset", refuse)
        with pytest.raises(ConnectionError, match=r"bentrevett/multi30k.*is there a network"):
            load_translation("bentrevett/multi30k")

    def test_the_split_is_passed_on(self, monkeypatch):
        import datasets

        def load_dataset(name, split):
            assert (name, split) == ("some/captions", "validation")
            return datasets.Dataset.from_list([{"en": e, "de": d} for e, d in PAIRS])

        monkeypatch.setattr(datasets, "load_dataset", load_dataset)
        assert load_translation("some/captions", "validation") == PAIRS


class TestSentencePairs:
    def test_padding_is_0_in_both(self, data):
        assert data.source[0] == data.target[0] == "[pad]"
        assert data.target[data.start] == "[start]"
        assert data.target[data.end] == "[end]"
        assert len(data.source) <= 80
        assert len(data.target) <= 80

    def test_a_batch_is_padded_and_the_target_has_start_and_end(self, data):
        source, target = data.batch(PAIRS)
        assert source.dtype == target.dtype == torch.int64
        assert len(source) == len(target) == 3
        assert (target[:, 0] == data.start).all()
        assert ((target == data.end).sum(1) == 1).all()
        for row in target.tolist():
            after = row[row.index(data.end) + 1 :]
            assert not any(after)
        assert (source[:, -1] != 0).any()  # no longer than the longest

    def test_what_was_encoded_can_be_read(self, data):
        _, target = data.batch(PAIRS)
        assert [data.read(row) for row in target.tolist()] == [de for _, de in PAIRS]

    def test_reading_stops_at_the_end(self, data):
        _, target = data.batch(PAIRS[:1])
        ids = target[0].tolist()
        assert data.read([*ids, *ids]) == PAIRS[0][1]
        assert data.read(ids[1:]) == PAIRS[0][1]

    def test_unknown_letters_do_no_harm(self, data):
        source, _ = data.batch([("Ω dog", "Ω Hund")])
        assert data.source.index("[unknown]") in source[0].tolist()

    def test_a_frequent_word_becomes_one_piece(self):
        data = SentencePairs([("dog dog dog cat", "Hund Hund")] * 5, vocabulary=100)
        assert any("dog" in piece for piece in data.source)

    @pytest.mark.parametrize("n", [1000, 1001, 2500])
    def test_of_the_longest_words_the_parts_are_learned(self, n):
        data = SentencePairs([("ab" * n + " cd", "x")], vocabulary=40)
        assert "▁cd" in data.source
        assert not any(len(piece) > 1001 for piece in data.source)
        assert data.batch([("ab" * n, "x")])[0].size(1) < n

    def test_no_pairs(self):
        with pytest.raises(ValueError, match="at least one pair"):
            SentencePairs([])
