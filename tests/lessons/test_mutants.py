"""Checks catch wrong answers that a machine makes: a sample each time, all of them rarely."""

from collections import Counter
from importlib import import_module

import pytest
from mutants import mutants_of
from mutation import judged, lessons
from test_checks import CHECKS

EVERY = 8  # of so many mutants one is tried each time


def answers(lesson):
    return import_module(f"right.{lesson}")


EXERCISES = [(lesson, name) for lesson in lessons() for name in answers(lesson).INPUTS]

pytestmark = pytest.mark.filterwarnings("ignore")  # mutants divide by zero
every_exercise = pytest.mark.parametrize(("lesson", "name"), EXERCISES)


def test_every_exercise_but_the_repairs_has_its_right_answers():
    asked = {key for key, check in CHECKS.items() if not hasattr(check, "properties")}
    assert asked <= set(EXERCISES)


@pytest.mark.slow
@pytest.mark.parametrize(("lesson", "name"), CHECKS)
def test_right_answers_in_other_styles_pass(lesson, name):
    assert len(answers(lesson).RIGHT[name]) >= 4
    for answer in answers(lesson).RIGHT[name]:
        verdict = CHECKS[lesson, name](answer)
        assert verdict, f"{answer.__name__}: {verdict}"


def good_enough(found, lesson):
    """No mutant passes, but those that are known to be right; no diagnosis is false."""
    by_outcome = {}
    for one in found:
        by_outcome.setdefault(one.outcome, set()).add(one.what)
    known = {what for group in answers(lesson).EQUIVALENT.values() for what in group}
    assert by_outcome.get("equivalent", set()) <= known
    assert not by_outcome.get("survived")
    assert not by_outcome.get("misnamed")


@pytest.mark.slow
@every_exercise
def test_a_sample_of_mutants_is_caught(lesson, name):
    good_enough(judged(lesson, name, every=EVERY), lesson)


OUTCOMES = Counter()  # of all lessons, which one process goes through


@pytest.mark.slow
@pytest.mark.rare
@pytest.mark.parametrize("lesson", lessons())
def test_all_mutants_are_caught(lesson):
    for name in answers(lesson).INPUTS:
        found = judged(lesson, name)
        good_enough(found, lesson)
        OUTCOMES.update(one.outcome for one in found)


@pytest.mark.slow
@pytest.mark.rare
def test_of_most_mutants_more_is_said_than_where_they_differ():
    told = OUTCOMES["named"] + OUTCOMES["observed"]
    run = told + OUTCOMES["raised"] + OUTCOMES["caught"]
    assert run >= 1500
    assert told >= 0.6 * run


def test_a_mutant_is_one_change():
    def right(x, y):
        return (x - 1) @ y.mT

    found = {mutant.what for mutant in mutants_of(right)}
    assert "right: return (x + 1) @ y.mT" in found
    assert "right: return (x - 0) @ y.mT" in found
    assert "right: return (x - 1) @ y" in found
    assert "right: return y.mT @ (x - 1)" in found
    assert "right: return (y - 1) @ y.mT" in found
    assert len(found) == len(mutants_of(right))
