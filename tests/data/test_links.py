"""Our sentences with the links between their words."""

import json
from collections import Counter
from pathlib import Path

import pytest
from tokenizers import pre_tokenizers

FILE = Path(__file__).parents[2] / "data" / "links.jsonl"
SENTENCES = [json.loads(line) for line in FILE.read_text(encoding="utf-8").splitlines()]
TAGS = {
    *("ADJ", "ADV", "AUX", "CONJ", "DET", "NOUN", "NUM"),
    *("PART", "POSS", "PREP", "PRON", "PUNCT", "VERB"),
}
ENDS = {  # relation: the tags that its two words may have
    "determiner": ({"DET"}, {"NOUN"}),
    "object": ({"VERB"}, {"NOUN"}),
    "possessive": ({"POSS"}, {"NOUN"}),
    "preposition": ({"PREP"}, {"NOUN", "PRON"}),
}
LEAST = {"determiner": 200, "object": 100, "possessive": 50, "preposition": 100}


def gaps(relation):
    """How many words further the second word of each link stands."""
    return [
        second - first for one in SENTENCES for name, first, second in one["links"]
        if name == relation
    ]  # fmt: skip


def test_there_are_enough_sentences_and_none_twice():
    assert len(SENTENCES) >= 120
    assert len({tuple(one["words"]) for one in SENTENCES}) == len(SENTENCES)


def test_every_word_has_a_tag_that_is_known():
    for one in SENTENCES:
        assert one.keys() == {"words", "tags", "links"}
        assert len(one["tags"]) == len(one["words"]), one["words"]
    assert {tag for one in SENTENCES for tag in one["tags"]} == TAGS


def test_a_word_that_can_be_only_one_thing_has_the_same_tag_everywhere():
    tags = {}
    for one in SENTENCES:
        for word, tag in zip(one["words"], one["tags"], strict=True):
            tags.setdefault(word.lower(), set()).add(tag)
    for word in ("the", "a", "of", "and", "his", "her", "two", ".", ","):
        assert len(tags[word]) == 1, word


def test_words_are_split_as_a_bert_does():
    cut = pre_tokenizers.BertPreTokenizer()
    for one in SENTENCES:
        words = [word for word, _ in cut.pre_tokenize_str(" ".join(one["words"]))]
        assert words == one["words"]


def test_links_join_words_of_the_right_kinds():
    for one in SENTENCES:
        assert one["links"], one["words"]
        for relation, first, second in one["links"]:
            assert 0 <= first < second < len(one["words"])
            kinds = one["tags"][first], one["tags"][second]
            for kind, allowed in zip(kinds, ENDS[relation], strict=True):
                assert kind in allowed, (one["words"], relation, first, second)


@pytest.mark.parametrize("relation", sorted(ENDS))
def test_a_word_has_one_link_of_a_kind(relation):
    for one in SENTENCES:
        firsts = [first for name, first, _ in one["links"] if name == relation]
        assert len(set(firsts)) == len(firsts)


@pytest.mark.parametrize("tag", ["DET", "POSS", "PREP"])
def test_every_word_that_must_belong_to_a_noun_does(tag):
    relation = {"DET": "determiner", "POSS": "possessive", "PREP": "preposition"}[tag]
    for one in SENTENCES:
        tagged = [i for i, t in enumerate(one["tags"]) if t == tag]
        assert tagged == [first for name, first, _ in one["links"] if name == relation]


@pytest.mark.parametrize("relation", sorted(ENDS))
def test_no_fixed_distance_finds_most_links(relation):
    found = gaps(relation)
    assert len(found) >= LEAST[relation]
    assert max(Counter(found).values()) < 0.5 * len(found)
    assert len(set(found)) >= 4
