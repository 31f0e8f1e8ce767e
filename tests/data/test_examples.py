"""Written data sets: what is in ours, and what is refused."""

import json
from collections import Counter
from pathlib import Path

import pytest
from tokenizers import pre_tokenizers

from attnviz.data import load_entities, load_questions

FOLDER = Path(__file__).parents[2] / "data"
ENTITIES, QUESTIONS = FOLDER / "entities.jsonl", FOLDER / "questions.jsonl"
TAGGED = {"words": ["Ada", "sang"], "tags": ["B-PER", "O"], "split": "train"}
ASKED = {"context": "Ada sang.", "question": "Who sang?", "answer": "Ada", "start": 0}


def write(path, *rows):
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


class TestEntities:
    def test_enough_sentences_and_none_in_both_splits(self):
        train, test = (load_entities(ENTITIES, split) for split in ("train", "test"))
        assert len(train) >= 300
        assert len(test) >= 80
        words = [tuple(sentence.words) for sentence in [*train, *test]]
        assert len(set(words)) == len(words)

    def test_each_type_is_there_often_enough(self):
        for split, least in (("train", 50), ("test", 15)):
            tags = Counter(tag for one in load_entities(ENTITIES, split) for tag in one.tags)
            begun = {tag[2:]: n for tag, n in tags.items() if tag.startswith("B-")}
            assert begun.keys() == {"PER", "LOC", "ORG", "WORK"}
            assert min(begun.values()) >= least

    @pytest.mark.parametrize("split", ["train", "test"])
    def test_tags_go_on_only_with_what_was_begun(self, split):
        for words, tags in load_entities(ENTITIES, split):
            for before, tag in zip(["O", *tags], tags, strict=False):
                assert not tag.startswith("I-") or before[2:] == tag[2:], words

    @pytest.mark.parametrize("split", ["train", "test"])
    def test_words_are_split_as_a_bert_does(self, split):
        cut = pre_tokenizers.BertPreTokenizer()
        for words, _ in load_entities(ENTITIES, split):
            assert [word for word, _ in cut.pre_tokenize_str(" ".join(words))] == words

    @pytest.mark.parametrize(
        ("change", "message"),
        [
            ({"tags": ["O"]}, "2 words, but 1 tags"),
            ({"tags": ["PER", "O"]}, "a tag must be O, B-… or I-…, got 'PER'"),
            ({"split": "test"}, r"split must be one of \['test'\]"),
        ],
    )
    def test_a_line_that_does_not_fit(self, tmp_path, change, message):
        with pytest.raises(ValueError, match=message):
            load_entities(write(tmp_path / "some.jsonl", TAGGED | change))

    def test_a_missing_file(self, tmp_path):
        with pytest.raises(FileNotFoundError, match="there is no file"):
            load_entities(tmp_path / "none.jsonl")


class TestQuestions:
    def test_enough_questions_and_no_text_in_both_splits(self):
        train, test = (load_questions(QUESTIONS, split) for split in ("train", "test"))
        assert len(train) >= 300
        assert len(test) >= 80
        assert not {one.context for one in train} & {one.context for one in test}
        asked = [(one.context, one.question) for one in [*train, *test]]
        assert len(set(asked)) == len(asked)

    @pytest.mark.parametrize("split", ["train", "test"])
    def test_answers_begin_and_end_at_words(self, split):
        for one in load_questions(QUESTIONS, split):
            text, end = f" {one.context} ", one.start + len(one.answer)
            assert not text[one.start].isalnum(), one  # what stands before and behind
            assert not text[end + 1].isalnum(), one
            assert one.answer == one.answer.strip()

    @pytest.mark.parametrize("split", ["train", "test"])
    def test_answers_stand_everywhere_in_their_texts(self, split):
        questions = load_questions(QUESTIONS, split)
        thirds = [int(3 * one.start / len(one.context)) for one in questions]
        assert min(thirds.count(i) for i in range(3)) > 0.2 * len(thirds)

    def test_a_question_and_where_its_answer_stands(self, tmp_path):
        file = write(tmp_path / "some.jsonl", ASKED | {"split": "train"}, ASKED | {"split": "test"})
        file.write_text("\n" + file.read_text() + "\n\n")  # blank lines do not matter
        assert load_questions(file) == [tuple(ASKED.values())]

    @pytest.mark.parametrize("change", [{"start": 4}, {"answer": "Eve"}, {"answer": ""}])
    def test_an_answer_that_does_not_stand_there(self, tmp_path, change):
        file = write(tmp_path / "some.jsonl", ASKED | {"split": "train"} | change)
        with pytest.raises(ValueError, match="the answer must stand at place"):
            load_questions(file)
