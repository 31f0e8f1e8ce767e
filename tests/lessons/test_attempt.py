"""A reader's function is tried on copies, for a limited time, and leaves no trace."""

import random
import signal
import sys
import threading
import time
from _thread import interrupt_main
from fractions import Fraction

import numpy as np
import pytest
import torch
from torch import nn

from attnviz.lessons.attempt import Endless, Remark, quote, tried
from attnviz.lessons.exact import ExactExercise
from attnviz.lessons.exercise import Exercise

GIVEN = {
    "list": [3, 4],
    "list of lists": [[3], [4]],
    "dict": {"a": [1]},
    "set": {1, 2},
    "tensor": torch.zeros(2),
    "tensor in a list": [torch.zeros(2)],
    "array": np.zeros(2),
    "model": nn.Linear(2, 1),
}


def spoil(value):
    """Change something within it."""
    if isinstance(value, nn.Module):
        nn.init.ones_(value.weight)
    elif isinstance(value, dict):
        value["a"].append(2)
    elif isinstance(value, set):
        value.add(3)
    elif isinstance(value, list) and not isinstance(value[0], int):
        spoil(value[0])
    elif isinstance(value, list):
        value.insert(0, 2)
    else:
        value[0] = 1
    return 0


@pytest.mark.parametrize("kind", GIVEN)
def test_a_changed_argument_is_said_and_the_next_attempt_meets_it_as_it_was(kind):
    case = (GIVEN[kind],)
    assert tried(lambda value: 0, case) == 0
    for _ in range(2):
        assert "changed its argument" in tried(spoil, case).text


def test_a_model_may_be_put_into_another_mode_and_the_next_attempt_meets_it_as_it_was():
    case = (nn.Dropout(0.5),)
    assert tried(lambda model: model.eval().training, case) is False
    assert tried(lambda model: model.training, case) is True


def forever():
    while True:
        pass


def forever_whatever_comes():
    while True:
        try:
            len([1]) / 0
        except:  # noqa: E722
            time.monotonic()


def forever_in_torch():
    x = torch.zeros(3)
    while True:
        x = x + 1


def endless_generator():
    while True:
        yield 1


@pytest.mark.parametrize(
    "attempt", [forever, forever_whatever_comes, forever_in_torch, endless_generator]
)
def test_what_never_ends_is_stopped(attempt):
    begun = time.monotonic()
    assert isinstance(tried(attempt, (), 0.2), Endless)
    assert time.monotonic() - begun < 5


def test_it_is_told_on_which_input():
    assert "an end for 3, [1, 2], and was" in tried(lambda *_: forever(), (3, [1, 2]), 0.1).text


def test_what_calls_the_function_that_it_was_given_endlessly_is_stopped():
    def ask(next_logits):
        while True:
            next_logits([0])

    assert isinstance(tried(ask, (lambda ids: torch.zeros(3),), 0.2), Endless)


@pytest.mark.slow
def test_what_ends_about_when_the_time_is_up_is_one_or_the_other_and_never_both():
    def work(seconds):
        end = time.perf_counter() + seconds
        while time.perf_counter() < end:
            pass
        return 1

    for i in range(40):
        outcome = tried(work, (0.015 + 0.00025 * i,), 0.02)
        assert outcome == 1 or isinstance(outcome, Endless)
    time.sleep(0.05)  # nothing is on its way any more


@pytest.mark.slow
def test_however_often_it_is_stopped_nothing_is_left_locked_or_on_its_way():
    for i in range(600):
        outcome = tried(forever, (), 0.0005 + 0.000005 * i)
        assert isinstance(outcome, Endless)
    assert threading.active_count() == 1
    assert sys.getswitchinterval() == pytest.approx(0.005)


@pytest.mark.slow
def test_a_check_stops_at_the_first_input_without_end():
    check = Exercise("double", lambda x: 2 * x, tuple((i,) for i in range(9)), (), "Start.")
    begun = time.monotonic()
    verdict = check(lambda x: forever())
    assert time.monotonic() - begun < 10
    assert verdict.status == "wrong"
    assert "did not come to an end for 0" in verdict.reason
    assert check(lambda x: x + x)


def test_ctrl_c_still_interrupts():
    # a test's process may ignore it
    usual = signal.signal(signal.SIGINT, signal.default_int_handler)
    threading.Timer(0.2, interrupt_main).start()
    try:
        with pytest.raises(KeyboardInterrupt):
            tried(forever, (), 10)
    finally:
        signal.signal(signal.SIGINT, usual)


def test_exit_is_a_finding_and_no_end_of_the_notebook():
    assert isinstance(tried(lambda: exit(), ()), SystemExit)


def test_random_numbers_and_settings_stay():
    def attempt():
        torch.manual_seed(5)
        np.random.seed(5)
        random.seed(5)
        torch.set_grad_enabled(False)
        torch.set_default_dtype(torch.float64)
        return 1

    torch.manual_seed(0), np.random.seed(0), random.seed(0)
    tried(attempt, ())
    drawn = torch.rand(1).item(), np.random.rand(), random.random()
    torch.manual_seed(0), np.random.seed(0), random.seed(0)
    assert drawn == (torch.rand(1).item(), np.random.rand(), random.random())
    assert torch.is_grad_enabled()
    assert torch.get_default_dtype() == torch.float32


def test_values_are_quoted_so_that_a_line_can_hold_them():
    assert quote(torch.zeros(5, 5)) == "a tensor (5, 5)"
    assert quote(nn.Linear(2, 1)) == "a Linear"
    assert quote(forever) == "forever"
    assert len(quote("x" * 500)) == 160


class TestChecks:
    def test_a_check_whose_reference_raises_is_broken_and_passes_nobody(self):
        check = Exercise("broken", lambda x: x.gone, ((1,),), (), "Start.")
        with pytest.raises(RuntimeError, match="the check of broken is broken: 'int' object has"):
            check(lambda x: x.gone)

    @pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
    def test_half_precision_is_judged_by_its_own_steps(self, dtype):
        x = torch.linspace(-3, 3, 35).view(5, 7)
        check = Exercise("softmax", lambda x: x.softmax(-1), ((x,),), (), "Start.")
        assert check(lambda x: x.to(dtype).softmax(-1))
        assert not check(lambda x: x.to(dtype).softmax(0))
        assert not check(lambda x: x.softmax(-1) + 4e-3)

    @pytest.mark.parametrize(
        "right", [(1, 2), [1, 2], np.array([1, 2]), (np.int64(1), torch.tensor(2)), (1.0, 2.0)]
    )
    def test_two_numbers_are_two_numbers_whatever_holds_them(self, right):
        check = Exercise("pair", lambda: torch.tensor([1, 2]), ((),), (), "Start.")
        assert check(lambda: right)

    def test_two_tensors_where_two_are_asked_and_where_one_is(self):
        pair = Exercise("pair", lambda x: torch.stack([x, 2 * x]), ((torch.ones(3),),), (), "Go.")
        assert pair(lambda x: (x, x + x))
        assert "2 things, which do not make one tensor" in pair(lambda x: (x, x[1:])).reason
        one = Exercise("one", lambda x: x, ((torch.ones(3),),), (), "Go.")
        assert "returned 2 things; return only the one" in one(lambda x: (x, x)).reason

    @pytest.mark.parametrize("right", [0.5, Fraction(1, 2), np.float32(0.5), torch.tensor(0.5)])
    def test_one_number_is_one_number(self, right):
        assert Exercise("half", lambda: torch.tensor(0.5), ((),), (), "Start.")(lambda: right)
        assert ExactExercise("half", lambda: 0.5, ((),), (), "Start.")(lambda: right)

    def test_bytes_are_the_numbers_in_them(self):
        check = ExactExercise("utf8", lambda text: list(text.encode()), (("é",),), (), "Start.")
        assert check(lambda text: text.encode())
        assert not check(lambda text: text)

    def test_a_float_is_no_whole_number_and_named(self):
        check = ExactExercise("count", len, (("ab",),), (), "Start.")
        assert "returned 2.0 (float) where 2 (int) is right" in check(lambda x: 2.0).reason

    def test_a_class_is_no_function(self):
        check = Exercise("double", lambda x: 2 * x, ((1,),), (), "Start.")
        with pytest.raises(TypeError, match="takes your function, got the class float"):
            check(float)


def test_nothing_returned_is_a_remark():
    assert tried(lambda: None, ()) == Remark("it returned nothing: does it end with a return?")


def test_one_that_prints_is_told_to_return():
    def prints(x):
        print(2 * x)

    assert "printed something, but returned nothing" in tried(prints, (1,)).text


def test_what_is_printed_is_shown_once_and_not_for_each_input(capsys):
    def talks(x):
        print("x is", x)
        return 2 * x

    twice = ExactExercise("twice", lambda x: 2 * x, ((1,), (2,), (3,)), (), "Add.")
    assert twice(talks)
    assert capsys.readouterr().out == "x is 1\n"
