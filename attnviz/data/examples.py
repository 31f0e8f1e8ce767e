"""Small written data sets: sentences with the names in them, questions with their answers."""

import json
import re
from pathlib import Path
from typing import Any, NamedTuple

_TAG = re.compile(r"O|[BI]-.+")


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
    or for a line that has not as many tags as words, or tags in another form.
    """
    sentences = [TaggedSentence(row["words"], row["tags"]) for row in _rows(file, split)]
    for words, tags in sentences:
        if len(words) != len(tags):
            raise ValueError(f"{file}: {len(words)} words, but {len(tags)} tags: {words}")
        if wrong := [tag for tag in tags if not _TAG.fullmatch(tag)]:
            raise ValueError(f"{file}: a tag must be O, B-… or I-…, got {wrong[0]!r}: {words}")
    return sentences


def load_questions(file: str | Path, split: str = "train") -> list[Question]:
    """Questions whose answers stand in a text, from a file with one JSON object a line.

    file:  with the keys context, question, answer, start and split, in the form of SQuAD.
    split: which of them.
    Raises FileNotFoundError for a file that is not there, ValueError for a split without any line,
    or for an answer that does not stand where start says.
    """
    questions = [
        Question(row["context"], row["question"], row["answer"], row["start"])
        for row in _rows(file, split)
    ]
    for one in questions:
        if not one.answer or not one.context.startswith(one.answer, one.start):
            raise ValueError(
                f"{file}: the answer must stand at place {one.start} of its context, "
                f"got {one.answer!r}"
            )
    return questions


def _rows(file: str | Path, split: str) -> list[dict[str, Any]]:
    if not Path(file).is_file():
        raise FileNotFoundError(f"there is no file {file}")
    lines = Path(file).read_text(encoding="utf-8").splitlines()
    rows = [json.loads(line) for line in lines if line.strip()]
    chosen = [row for row in rows if row["split"] == split]
    if not chosen:
        there = sorted({row["split"] for row in rows})
        raise ValueError(f"split must be one of {there} in {file}, got {split!r}")
    return chosen
