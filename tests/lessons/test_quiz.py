"""A quiz asks, remembers what was chosen, and can be read without a browser."""

import pytest

from attnviz.lessons import predict


def test_reads_as_text():
    quiz = predict("How many?", ["one", "two"], answer=1, because="Count them.")
    assert repr(quiz) == "Predict: How many?\n  ( ) one\n  ( ) two"
    assert quiz.chosen is None


@pytest.mark.parametrize(
    ("options", "answer", "message"),
    [
        (["one"], 0, "two or more"),
        ("yes or no", 0, "two or more"),
        (["one", "two"], 2, "between 0 and 1, got 2"),
        (["one", "two"], -1, "got -1"),
    ],
)
def test_needs_options_and_one_of_them_as_answer(options, answer, message):
    with pytest.raises(ValueError, match=message):
        predict("How many?", options, answer, because="")
