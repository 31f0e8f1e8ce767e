"""A verdict shows itself, gives the function to go on with, and can be stored."""

import pickle

import pytest
import torch

from attnviz.lessons import verdict as verdicts
from attnviz.lessons.exercise import Exercise
from attnviz.lessons.repair import Property, Repair

double = Exercise("double", lambda x: 2 * x, ((torch.ones(2, 3),),), (), "Start with x.")


@pytest.fixture
def shown(monkeypatch):
    shown = []
    monkeypatch.setattr(verdicts, "display", shown.append)
    return shown


def test_what_passed_is_used(shown):
    def mine(x):
        return x + x

    assert double(mine).use() is mine
    (verdict,) = shown
    assert repr(verdict).endswith("right on all 1 inputs. The lesson goes on with yours.")


@pytest.mark.parametrize("attempt", [lambda x: ..., lambda x: x, ...])
def test_else_the_packages_is_used_and_it_is_said(attempt, shown):
    assert double(attempt).use() is double.reference
    (verdict,) = shown
    assert "goes on with the package's until yours passes." in repr(verdict)


def test_a_repaired_model_is_used_in_the_same_way(shown):
    width = Property("it must be one wide.", lambda model: model.out_features == 1)
    one_wide = Repair("one_wide", (width,), "Count.", lambda: torch.nn.Linear(2, 1))
    assert one_wide(lambda: torch.nn.Linear(2, 2)).use() is one_wide.reference
    mine = torch.nn.LazyLinear
    assert one_wide(lambda: mine(1)).use() is not one_wide.reference
    assert len(shown) == 2


def test_a_stored_verdict_is_as_it_was_and_says_how_to_go_on():
    verdict = double(lambda x: x)
    stored = pickle.loads(pickle.dumps(verdict))
    assert repr(stored) == repr(verdict)
    assert stored._repr_html_() == verdict._repr_html_()
    with pytest.raises(RuntimeError, match=r"call check.double\(double\).use\(\) again"):
        stored.use()


def test_a_hint_has_no_function_to_use():
    with pytest.raises(RuntimeError, match="holds no function"):
        double.hint().use()
