"""Exercises whose results must be the same: what passes, what is recognised, what is said."""

from collections import Counter

import numpy as np
import pytest

from attnviz.lessons.exact import ExactExercise
from attnviz.lessons.exercise import Misconception

check = ExactExercise(
    name="split",
    reference=lambda text: {word: i for i, word in enumerate(text.split())},
    cases=(("a b",), ("c",)),
    misconceptions=(
        Misconception("it counts from one.", lambda t: {w: i + 1 for i, w in enumerate(t.split())}),
        Misconception("it raises.", lambda t: {}["a"]),
    ),
    first_step="Print text.split().",
)
listed = ExactExercise("two", lambda n: [n, [n]], ((1,), (2,)), (), "Return a list.")
given = ExactExercise("first", lambda words: words[:1], (([3, 4],),), (), "Take a slice.")


@pytest.mark.parametrize(
    "attempt",
    [
        lambda n: (n, (n,)),
        lambda n: [n, np.array([n])],
        lambda n: (x for x in [n, [n]]),
    ],
)
def test_lists_tuples_arrays_and_generators_are_the_same(attempt):
    assert listed(attempt)


def test_a_counter_is_a_dict():
    assert check(lambda text: Counter({word: i for i, word in enumerate(text.split())}))


def test_text_is_not_the_list_of_its_letters():
    letters = ExactExercise("letters", list, (("ab",),), (), "Use list.")
    assert letters(lambda text: tuple(text))
    assert letters(lambda text: text).status == "wrong"
    assert listed(lambda n: [float(n), [True]]).status == "wrong"


@pytest.mark.parametrize("stub", [..., lambda text: ...])
def test_a_stub_is_not_wrong(stub):
    verdict = check(stub)
    assert verdict.status == "not yet"
    assert "check.split.hint()" in verdict.reason


def not_written(text):
    raise NotImplementedError


def test_not_implemented_is_a_stub():
    assert check(not_written).status == "not yet"


@pytest.mark.parametrize(
    ("attempt", "reason"),
    [
        (lambda t: {w: 1 + i for i, w in enumerate(t.split())}, "it counts from one."),
        (lambda t: {}["b"], "it raises."),
        (lambda t: 1 / 0, "it raised ZeroDivisionError: division by zero"),
        (lambda t: None, "it returned nothing"),
        (lambda t: {}, "it is empty. For 'a b' it returned {} where {'a': 0, 'b': 1} is right."),
        (lambda t: {"a": 0, "b": 1}, "For 'c' it returned {'a': 0, 'b': 1} where {'c': 0} is"),
        (lambda t: "x" * 1000, "xxx… where"),
    ],
)
def test_what_is_wrong_is_said(attempt, reason):
    verdict = check(attempt)
    assert verdict.status == "wrong"
    assert reason in verdict.reason
    assert len(verdict.reason) < 400


class Odd:
    def __eq__(self, other):
        raise ValueError("cannot be compared")

    __hash__ = None


def test_what_cannot_be_compared_is_wrong():
    assert listed(lambda n: Odd()).status == "wrong"


def test_arguments_stay_as_they_are():
    def eats(words):
        words.pop()
        return words

    assert "in place" in given(eats).reason
    assert given(lambda words: words[:1])


def test_what_is_no_function_is_refused():
    with pytest.raises(TypeError, match="the check of two takes your function, got int"):
        listed(3)
