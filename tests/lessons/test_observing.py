"""What a check says of a wrong result before it says where it differs, and only if it is so."""

import numpy as np
import pytest
import torch

from attnviz.lessons.drawing import drawn
from attnviz.lessons.exact import ExactExercise
from attnviz.lessons.exercise import Exercise
from attnviz.lessons.observing import how_large, seen_in_numbers
from attnviz.lessons.observing_lists import seen_in_lists

SHAPES = [(2, 3, 4, 5), (1, 2, 3, 3), (4, 3, 5, 2), (3, 1, 2, 6)]


def results(shapes=SHAPES):
    draw = np.random.default_rng(0)
    return [draw.normal(size=shape) for shape in shapes]


def shares():
    return [np.exp(r) / np.exp(r).sum(-1, keepdims=True) for r in results()]


def first_only(axis):
    def spoilt(right):
        wrong = right.copy()
        wrong.swapaxes(0, axis)[1:] += np.random.default_rng(1).normal(
            size=wrong.swapaxes(0, axis)[1:].shape
        )
        return wrong

    return spoilt


def wrong_at(places):
    def spoilt(right):
        wrong = right.copy()
        wrong[..., places] += np.random.default_rng(1).normal(size=wrong[..., places].shape)
        return wrong

    return spoilt


def last_wrong(right):
    wrong = right.copy()
    wrong[..., -1] += np.random.default_rng(1).normal(size=wrong.shape[:-1])
    return wrong


@pytest.mark.parametrize(
    ("spoilt", "words"),
    [
        (lambda r: r.swapaxes(-1, -2), "last two dimensions swapped"),
        (lambda r: 0.5 * r, "all of it is 0.5 times the right answer"),
        (lambda r: -r, "opposite sign"),
        (lambda r: 0 * r, "all of it is zero"),
        (lambda r: r + 1, "the right answer plus 1"),
        (lambda r: r / r.shape[-1], "multiplied by one number, another one for each input"),
        (lambda r: r + r.shape[-1], "one number is added, another one for each input"),
        (lambda r: np.roll(r, 1, -2), "one place too late along dimension -2"),
        (lambda r: np.roll(r, -1, -1), "one place too early along dimension -1"),
        (lambda r: np.flip(r, -1), "opposite order along dimension -1"),
        (first_only(0), "only the first along dimension -4 is right"),
        (first_only(1), "only the first along dimension -3 is right"),
        (first_only(2), "only the first along dimension -2 is right"),
        (wrong_at(slice(0, None, 2)), "along dimension -1 places 0, 2, 4, … are wrong"),
        (wrong_at(slice(1, None, 2)), "along dimension -1 places 1, 3, 5, … are wrong"),
        (last_wrong, "only the last along dimension -1 is wrong"),
    ],
)
def test_what_is_so_of_all_results_is_said(spoilt, words):
    right = results()
    assert words in seen_in_numbers([(spoilt(r), r) for r in right])


@pytest.mark.parametrize("kind", ["nothing in common", "one of them otherwise", "all nan"])
def test_nothing_is_said_that_is_not_so(kind):
    right = results()
    yours = [np.random.default_rng(i).normal(size=r.shape) for i, r in enumerate(right, 7)]
    if kind == "one of them otherwise":
        yours = [0.5 * r for r in right[:-1]] + yours[-1:]
    if kind == "all nan":
        yours = [np.full_like(r, np.nan) for r in right]
    assert seen_in_numbers(list(zip(yours, right, strict=True))) is None


def test_rows_that_do_not_sum_to_one_and_columns_that_do():
    right = shares()
    of_columns = [np.exp(r) / np.exp(r).sum(-2, keepdims=True) for r in results()]
    pairs = list(zip(of_columns, right, strict=True))
    assert seen_in_numbers(pairs) == "its rows do not sum to one, but its columns do."
    pairs = [(2 * r, r) for r in right]
    assert seen_in_numbers(pairs) == "its rows do not sum to one."
    pairs = [(np.flip(r, -1), r) for r in right]
    assert "rows" not in seen_in_numbers(pairs)


def test_a_mask_that_is_inverted():
    right = [r > 0 for r in results()]
    assert seen_in_numbers([(~r, r) for r in right]) == "True and False have changed places."


def test_of_single_numbers_it_takes_three_to_tell():
    right = [np.array(x) for x in (1.0, 2.0, 5.0)]
    twice = [(2 * r, r) for r in right]
    assert "2 times" in seen_in_numbers(twice)
    assert seen_in_numbers(twice[:2]) is None
    assert seen_in_numbers([(r**2, r) for r in right]) is None


@pytest.mark.parametrize(
    ("spoilt", "says"),
    [
        (lambda r: (), "it is empty."),
        (lambda r: r[:-1], "the last one is missing."),
        (lambda r: r[1:], "the first one is missing."),
        (lambda r: (*r, 9), "there is one too many at the end."),
        (lambda r: (9, *r), "there is one too many at the beginning."),
        (lambda r: r[::-1], "it is in the opposite order."),
        (lambda r: tuple(sorted(r)), "the right ones are there in another order."),
        (lambda r: (r[0], *r[:2], *r[1:]), "some come twice in a row."),
        (lambda r: tuple(x + 1 for x in r), "every number is one too large."),
        (lambda r: tuple(x - 1 for x in r), "every number is one too small."),
        (lambda r: (*r[:-1], 9, 9), None),
        (lambda r: (*r[:-1], 0), "only the last one is wrong."),
        (lambda r: (0, *r[1:]), "only the first one is wrong."),
        (lambda r: (r[0], 0, *r[2:]), "only one of them is wrong."),
        (lambda r: tuple(x + i for i, x in enumerate(r)), "only the first one is right."),
        (lambda r: list(r), None),
    ],
)
def test_what_is_so_of_all_lists_is_said(spoilt, says):
    right = [(3, 5, 4, 8), (7, 2, 9)]
    found = seen_in_lists([(spoilt(r), r) for r in right])
    assert found == says


def test_of_lists_of_tuples_the_wrong_place_of_each_is_named():
    right = [((1, 2, "a"), (3, 4, "b")), ((5, 6, "c"),)]
    yours = [tuple((a, b + 1, c) for a, b, c in one) for one in right]
    assert (
        seen_in_lists(list(zip(yours, right, strict=True)))
        == "of each item only number 2 is wrong."
    )
    yours[1] = ((9, 9, "c"),)
    assert seen_in_lists(list(zip(yours, right, strict=True))) is None


@pytest.mark.parametrize(
    ("spoilt", "says"),
    [
        (lambda r: {}, "it is empty."),
        (lambda r: {key: n + 1 for key, n in r.items()}, "its keys are right"),
        (lambda r: {key: n for key, n in r.items() if key != "a"}, "some keys are missing"),
        (lambda r: r | {"z": 1}, "some keys do not belong"),
        (lambda r: {key + key: n for key, n in r.items()}, "none of its keys"),
    ],
)
def test_so_is_what_is_so_of_all_counts(spoilt, says):
    right = [{"a": 1, "b": 2}, {"a": 3, "c": 1, "d": 1}]
    assert seen_in_lists([(spoilt(r), r) for r in right]).startswith(says)


def test_wrong_where_the_result_is_long():
    twice = ExactExercise("twice", lambda x: [*x, *x], (([1],), ([1, 2, 3],)), (), "Twice.")
    reason = twice(lambda x: [*x, *(x if len(x) < 2 else [0, x[1], 0])]).reason
    assert reason.startswith("it is right where the result has at most 2, and wrong where")


def test_what_is_too_long_is_said_where_nothing_better_is_seen():
    doubled = ExactExercise("doubled", lambda x: [*x, *x], (([1, 2],), ([3],)), (), "Twice.")
    assert "it is too long wherever it is wrong. For" in doubled(lambda x: 3 * [0, *x]).reason
    assert "too short" in doubled(lambda x: [x[0] + 1]).reason
    assert "it goes on too long: its beginning is right." in doubled(lambda x: 3 * [*x]).reason
    shortened = ExactExercise("half", lambda x: x[:4], (([1, 2, 3, 4, 5],),), (), "Cut.")
    assert "it ends too early." in shortened(lambda x: x[:2]).reason


def test_single_numbers_that_are_too_large():
    right = [np.array(x) for x in (1.0, 2.0, 5.0)]
    assert "too large" in how_large([(r + r**2, r) for r in right])
    assert "too small" in how_large([(r - r**2 - 1, r) for r in right])
    assert how_large([(r + (-1) ** i, r) for i, r in enumerate(right)]) is None


def test_results_that_differ_in_kind_alone_are_no_multiples():
    right = [r > 0 for r in results()]
    assert seen_in_numbers([(r.astype(float), r) for r in right]) is None


def scale(x, by, mask):
    return x * by * mask


def draw_scale(draw):
    rows, columns = draw.sizes(2)
    return draw.tensor(rows, columns), draw.uniform(2, 3), draw.allowed(rows, columns)


scaled = Exercise("scaled", scale, drawn(5, draw_scale), (), "Multiply.")


@pytest.mark.parametrize(
    ("attempt", "argument"),
    [
        (lambda x, by, mask: x * by, "mask"),
        (lambda x, by, mask: (x * mask).sin(), "by"),
        (lambda x, by, mask: x.sign() * by * mask, None),
    ],
)
def test_an_argument_that_makes_no_difference_is_named(attempt, argument):
    reason = scaled(attempt).reason
    assert (f"it does not depend on {argument}:" in reason) == (argument is not None)
    assert "he numbers differ" in reason


def test_so_is_a_function():
    def of_both(x, one, other):
        return one(x) + other(x)

    def draw(draw):
        return draw.tensor(*draw.sizes(2)), lambda x: x.sin(), lambda x: x.cos()

    both = Exercise("both", of_both, drawn(4, draw), (), "Add.")
    assert "does not depend on other:" in both(lambda x, one, other: one(x) + x).reason


def test_so_is_one_of_text():
    cut = ExactExercise(
        "cut", lambda text, n: text[:n], (("attention", 3), ("head", 2), ("key", 1)), (), "Slice."
    )
    assert "it does not depend on n:" in cut(lambda text, n: text[:4]).reason


def test_what_is_drawn_is_the_same_each_time_and_never_like_the_last():
    first, again = drawn(5, draw_scale), drawn(5, draw_scale)
    assert all(torch.equal(a[0], b[0]) for a, b in zip(first, again, strict=True))
    assert len({tuple(case[0].shape) for case in first}) > 3
    assert all(len(set(case[0].shape)) == 2 for case in first)
    assert all(case[2].any(-1).all() for case in first)
