"""Every check of every lesson passes independent solutions and names every planted bug.

Each lesson's table stands in planted/, under the name of its module in attnviz/lessons.
"""

from importlib import import_module
from pathlib import Path

import pytest

import attnviz.lessons as lessons

MODULES = {path.stem for path in Path(lessons.__file__).parent.glob("*.py")} - {"exercise"}


def checks_of(lesson):
    """The module's checks by name: what is called with the reader's function and has a name."""
    module = import_module(f"attnviz.lessons.{lesson}")
    return {
        name: check
        for name, check in vars(module).items()
        if hasattr(check, "first_step") and not isinstance(check, type)
    }


CHECKS = {(lesson, name): c for lesson in sorted(MODULES) for name, c in checks_of(lesson).items()}
TABLES = {lesson: import_module(f"planted.{lesson}") for lesson in {lesson for lesson, _ in CHECKS}}
PLANTED = [(lesson, *row) for lesson in sorted(TABLES) for row in TABLES[lesson].PLANTED]

every_check = pytest.mark.parametrize(("lesson", "name"), CHECKS)


def test_the_lessons_checks_are_found():
    assert len(TABLES) >= 7
    assert len(CHECKS) >= 28


@pytest.mark.parametrize("lesson", sorted(TABLES))
def test_every_exercise_has_a_solution_here(lesson):
    assert checks_of(lesson).keys() == TABLES[lesson].SOLUTIONS.keys()
    assert len(checks_of(lesson)) >= (1 if lesson == "start_here" else 4)


@pytest.mark.slow
@every_check
def test_an_independent_solution_passes(lesson, name):
    verdict = CHECKS[lesson, name](TABLES[lesson].SOLUTIONS[name])
    assert verdict, verdict


@every_check
def test_a_stub_is_told_nothing_but_whom_to_ask(lesson, name):
    check = CHECKS[lesson, name]
    verdict = check(lambda *arguments: ...)
    assert verdict.status == "not yet"
    assert f"check.{name}.hint()" in verdict.reason
    assert check.hint().reason == check.first_step


@pytest.mark.slow
@pytest.mark.parametrize(
    ("lesson", "name", "bug", "diagnosis"),
    PLANTED,
    ids=[f"{lesson}, {name}: {word}" for lesson, name, _, word in PLANTED],
)
def test_a_planted_bug_is_named(lesson, name, bug, diagnosis):
    verdict = CHECKS[lesson, name](bug)
    assert verdict.status == "wrong"
    assert diagnosis in verdict.reason


@every_check
def test_every_known_mistake_is_planted(lesson, name):
    diagnoses = [word for exercise, _, word in TABLES[lesson].PLANTED if exercise == name]
    check = CHECKS[lesson, name]
    known = check.properties if hasattr(check, "properties") else check.misconceptions
    for mistake in known:
        assert sum(word in mistake.says for word in diagnoses) == 1, mistake.says
