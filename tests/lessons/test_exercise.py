"""Checks pass what is right, name known mistakes, and never fall over the reader's code."""

import numpy as np
import pytest
import torch

from attnviz.lessons.exercise import Exercise, Misconception
from attnviz.lessons.verdict import Verdict, _matrices

double = Exercise(
    name="double",
    reference=lambda x: 2 * x,
    cases=((torch.tensor([[1.0, 2.0]]),), (torch.tensor([[3.0]]),)),
    misconceptions=(Misconception("that is the square.", lambda x: x**2),),
    first_step="Start with x.",
)


@pytest.mark.parametrize(
    "right",
    [
        lambda x: x + x,
        lambda x: (x * 2).numpy(),
        lambda x: (x * 2).tolist(),
        lambda x: (x * 2).requires_grad_(),
        lambda x: (x * 2).bfloat16(),
        lambda x: x * 2 + 1e-5,
    ],
)
def test_any_right_way_passes(right):
    verdict = double(right)
    assert verdict
    assert repr(verdict) == "✓ double, passed: right on all 2 inputs."


def raises(error):
    def attempt(x):
        raise error

    return attempt


@pytest.mark.parametrize("stub", [lambda x: ..., raises(NotImplementedError()), ...])
def test_a_stub_is_not_yet_solved_and_gives_nothing_away(stub):
    verdict = double(stub)
    assert verdict.status == "not yet"
    assert "check.double.hint()" in verdict.reason
    assert "Start with x." not in verdict.reason
    assert repr(double.hint()) == "→ double, hint: Start with x."


@pytest.mark.parametrize(
    "attempt",
    [raises(NotImplementedError("softmax of integers")), lambda x: x.long().softmax(-1)],
)
def test_an_error_of_that_class_with_a_text_is_no_stub(attempt):
    verdict = double(attempt)
    assert verdict.status == "wrong"
    assert "it raised NotImplementedError: " in verdict.reason


def test_the_first_step_follows_what_no_known_mistake_explains():
    assert double(lambda x: 2 * x + 1).reason.endswith("where 2.0000 is right. Start with x.")
    assert "Start" not in double(lambda x: x * x).reason


def test_a_known_mistake_is_named_even_where_it_is_sometimes_right():
    assert double(lambda x: x * x).reason == "that is the square."  # right for 2, wrong for 1


@pytest.mark.parametrize(
    ("attempt", "reason"),
    [
        (lambda x: 2 * x + 1e-3, r"differ, most at"),
        (
            lambda x: (2 * x).to_sparse(),
            "must return a tensor of numbers, but it returned a Tensor",
        ),
        (lambda x: 2 * x + 0.5, r"differ, most at [0, 0]: 2.5000 where 2.0000 is right"),
        (lambda x: (2 * x).T, "must return shape (1, 2) here, but it returned (2, 1)"),
        (lambda x: x > 0, "must return float32, but it returned bool"),
        (lambda x: x / 0, "nan or infinity"),
        (lambda x: "twice", "must return a tensor of numbers, but it returned a str"),
        (lambda x: [[1], [1, 2]], "must return a tensor of numbers, but it returned a list"),
        (lambda x: None, "returned nothing: does it end with a return?"),
        (lambda x: (2 * x, x), "returned 2 things"),
        (lambda x: x @ x, "it raised RuntimeError: "),
        (lambda x: x.mul_(2), "changed its argument in place"),
        (lambda x: x + "1", "it raised TypeError"),
    ],
)
def test_other_mistakes_are_described(attempt, reason):
    verdict = double(attempt)
    assert verdict.status == "wrong"
    assert reason in verdict.reason


def test_a_mistake_is_named_although_another_spoils_one_input():
    cases = ((torch.tensor([5.0, 4.0]),), (torch.tensor([200.0]),))
    said = Misconception("that is the exponential.", lambda x: x.double().exp().float())
    exercise = Exercise("log", torch.log, cases, (said,), "Start.")
    assert exercise(lambda x: x.exp().where(x < 88, torch.nan)).reason == said.says


def test_single_numbers_are_described_too():
    total = Exercise("total", torch.sum, ((torch.ones(3),),), (), "Add them up.")
    assert "it returned 4.0000 where 3.0000 is right." in total(lambda x: x.sum() + 1).reason
    assert "no list of one here, but it returned (1,)" in total(lambda x: x.sum(0, True)).reason


def test_a_mistake_in_one_case_only_is_found():
    assert double(lambda x: 2 * x if len(x[0]) == 2 else x).status == "wrong"


def test_the_verdict_keeps_the_first_results_that_differ():
    verdict = double(lambda x: 2 * x if len(x[0]) == 2 else x)
    assert (verdict.yours, verdict.right) == (3, 6)


def test_whole_numbers_are_no_truth_values():
    mask = Exercise("mask", lambda x: x > 0, ((torch.ones(2),),), (), "Compare.")
    assert "must return bool, but it returned int" in mask(lambda x: (x > 0).long()).reason


def test_of_a_batch_the_item_that_differs_is_drawn():
    yours, right = np.zeros((3, 2, 2)), np.zeros((3, 2, 2))
    yours[1] = 7
    assert _matrices(yours, right)[0].tolist() == [[7, 7], [7, 7]]


@pytest.mark.parametrize("yours", [np.zeros((0, 0)), np.zeros((0, 3, 3)), np.full((2, 2), np.nan)])
def test_results_that_cannot_be_drawn_are_not(yours):
    assert "<img" not in Verdict("double", "wrong", "", yours, np.eye(2))._repr_html_()


def test_wrong_results_are_shown_beside_right_ones():
    html = double(lambda x: 3 * x)._repr_html_()
    assert "<img" in html
    assert 'alt="your result beside the right one' in html


def test_words_from_the_readers_code_are_no_markup():
    html = double(raises(ValueError("<script>")))._repr_html_()
    assert "<script>" not in html
    assert "&lt;script&gt;" in html


def test_only_functions_can_be_checked():
    with pytest.raises(TypeError, match="check of double takes your function, got Tensor"):
        double(torch.ones(2))


@pytest.mark.parametrize("attempt", [lambda: 1, lambda x, y: x, lambda *, x: x])
def test_a_function_of_other_parameters_is_told_which_they_should_be(attempt):
    reason = double(attempt).reason
    assert reason.endswith("), but is called with (x): write def double(x).")


def test_one_that_takes_more_by_itself_may():
    assert double(lambda x, factor=2: factor * x)
    assert double(lambda *things: 2 * things[0])
