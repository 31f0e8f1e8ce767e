"""Small written data sets: sentences with the names in them, questions with their answers."""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

from attnviz.data.reading import check_row, read_rows

_TAG = re.compile(r"O|[BI]-.+")
_QUESTION = {"context": str, "question": str, "answer": str, "start": int}


class TaggedSentence(NamedTuple):
    """words: of one sentence, punctuation apart.

    tags: as many, in the form of CoNLL-2003: B-PER begins a name, I-PER goes on with it, O is none.
    """

    words: list[str]
    tags: list[str]


class Question(NamedTuple):
    """context: a short text.   question: about it.   answer: a part of the text.

    start: the place of the answer's first character in the text.
    """

    context: str
    question: str
    answer: str
    start: int


def load_entities(file: str | Path, split: str = "train") -> list[TaggedSentence]:
    """Sentences with tagged names, from a file with one JSON object a line.

    file:  with {"words": ["Ada", "sang"], "tags": ["B-PER", "O"], "split": "train"} in each line.
    split: which of them.
    Raises FileNotFoundError for a file that is not there, ValueError for a split without any line,
    or for a line that is no such object, that has not as many tags as words, or tags in another
    form.
    """
    sentences = []
    for place, row in _rows(file, split, {"words": list, "tags": list}):
        words, tags = row["words"], row["tags"]
        if len(words) != len(tags):
            raise ValueError(f"{place}: {len(words)} words, but {len(tags)} tags: {words}")
        if wrong := [tag for tag in tags if not _TAG.fullmatch(tag)]:
            raise ValueError(f"{place}: a tag must be O, B-… or I-…, got {wrong[0]!r}: {words}")
        sentences.append(TaggedSentence(words, tags))
    return sentences


def load_questions(file: str | Path, split: str = "train") -> list[Question]:
    """Questions whose answers stand in a text, from a file with one JSON object a line.

    file:  with the keys context, question, answer, start and split, in the form of SQuAD.
    split: which of them.
    Raises FileNotFoundError for a file that is not there, ValueError for a split without any line,
    or for a line that is no such object, or whose answer does not stand where start says.
    """
    questions = []
    for place, row in _rows(file, split, _QUESTION):
        one = Question(*(row[key] for key in _QUESTION))
        end = one.start + len(one.answer)
        if one.start < 0 or not one.answer or one.context[one.start : end] != one.answer:
            raise ValueError(
                f"{place}: the answer must stand at place {one.start} of its context, "
                f"got {one.answer!r}"
            )
        questions.append(one)
    return questions


def _rows(
    file: str | Path, split: str, fields: dict[str, type]
) -> Iterator[tuple[str, dict[str, Any]]]:
    """The rows of a split, each with its place, their fields checked."""
    there = set()
    for place, row in read_rows(file):
        check_row(place, row, {"split": str})
        there.add(row["split"])
        if row["split"] == split:
            check_row(place, row, fields)
            yield place, row
    if split not in there:
        raise ValueError(f"split must be one of {sorted(there)} in {file}, got {split!r}")
