"""What counts as a number, and how a refusal sounds."""

from fractions import Fraction

import numpy as np
import pytest
import torch

from attnviz.checks import (
    check_at_least_0,
    check_kind,
    check_number,
    check_one_of,
    check_positive,
    check_rate,
    check_share,
    check_whole,
    whole_or_none,
)


@pytest.mark.parametrize("value", [3, np.int8(3), np.array(3), torch.tensor(3)])
def test_whole_numbers_become_pythons(value):
    assert check_whole("n", value) == whole_or_none(value) == 3
    assert type(check_whole("n", value)) is int


NO_WHOLE = [3.0, True, np.True_, "3", None, np.array(True), np.array([3]), Fraction(3)]
NO_WHOLE += [torch.tensor(x) for x in (True, [3], 3.0)] + [torch.tensor(3, device="meta")]


@pytest.mark.parametrize("value", NO_WHOLE)
def test_what_is_no_whole_number(value):
    assert whole_or_none(value) is None
    with pytest.raises(TypeError, match=r"^n must be a whole number, got .* \(\w+\)$"):
        check_whole("n", value)


@pytest.mark.parametrize(
    ("bounds", "value", "message"),
    [
        ((1,), 0, "n must be at least 1, got 0"),
        ((0, 4), 5, "n must be between 0 and 4, got 5"),
        ((0, 4), np.int64(-1), "n must be between 0 and 4, got -1"),
    ],
)
def test_bounds_of_whole_numbers(bounds, value, message):
    with pytest.raises(ValueError, match=f"^{message}$"):
        check_whole("n", value, *bounds)


@pytest.mark.parametrize("value", [0.5, np.float32(0.5), torch.tensor(0.5), Fraction(1, 2)])
def test_numbers_become_pythons(value):
    for check in (check_rate, check_share, check_positive, check_at_least_0):
        assert check("x", value) == 0.5
        assert type(check("x", value)) is float


@pytest.mark.parametrize("value", [True, "1", None, [1], 1j, torch.ones(1), np.True_])
def test_what_is_no_number(value):
    with pytest.raises(TypeError, match=r"^x must be in \[0, 1\), got .* \(\w+\)$"):
        check_rate("x", value)


@pytest.mark.parametrize(
    ("check", "kept", "refused"),
    [
        (check_rate, [0, 0.99], [1, -0.1]),
        (check_share, [0, 1], [1.1, -0.1]),
        (check_positive, [1e-9, 7], [0, -1, float("inf")]),
        (check_at_least_0, [0, 7], [-1, float("inf")]),
    ],
)
def test_bounds_of_numbers(check, kept, refused):
    assert [check("x", value) for value in kept] == kept
    for value in [*refused, float("nan")]:
        with pytest.raises(ValueError, match=rf"^x must be .*, got {value}$"):
            check("x", value)


def test_a_number_with_bounds_of_its_own():
    assert check_number("x", 2, "even", lambda x: x % 2 == 0) == 2
    with pytest.raises(ValueError, match=r"^x must be even, got 3$"):
        check_number("x", 3, "even", lambda x: x % 2 == 0)


def test_names_and_classes():
    check_one_of("split", "train", ("train", "test"))
    for value in ("all", None, ["train"], 0):
        with pytest.raises(ValueError, match="split must be one of 'train', 'test', got"):
            check_one_of("split", value, ("train", "test"))
    check_kind("x", 3, int)
    with pytest.raises(TypeError, match="x must be of the class int, got str"):
        check_kind("x", "3", int)
