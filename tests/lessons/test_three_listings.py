"""What appendix A's checks of whole models say of smaller bugs and of what is no model."""

import re

import pytest
import torch
from planted.three_listings import Looking, Reverser, Wide, differs, with_training
from torch import nn

import attnviz as av
from attnviz.lessons import three_listings as lesson

pytestmark = pytest.mark.slow  # each repair is tried with thirty properties


@pytest.mark.parametrize(
    ("name", "bug", "diagnosis"),
    [
        ("repaired_transformer", lambda: Reverser(causal="one too far"), "can read the answer"),
        ("repaired_transformer", Wide, "4 heads of width 8"),
        ("repaired_bert", lambda: Looking(segments="mask"), "word table"),
    ],
    ids=["mask one too far", "width of heads", "only segment 1 is a word"],
)
def test_a_smaller_bug_is_named_too(name, bug, diagnosis):
    assert diagnosis in getattr(lesson, name)(bug).reason


def test_an_attempt_leaves_no_case_in_another_mode():
    lesson.source_matters(differs)
    verdict = lesson.source_matters(with_training)
    assert "by chance" in verdict.reason


def test_a_repair_reports_how_many_properties_fail():
    verdict = lesson.repaired_transformer(lambda: Reverser(n_heads=8, d_ff=4, embed="words"))
    found = re.match(r"(\d+) of (\d+) properties fail", verdict.reason)
    assert 3 <= int(found[1]) < int(found[2]) == len(lesson.repaired_transformer.properties)


@pytest.mark.parametrize("name", ["repaired_transformer", "repaired_wrapper", "repaired_bert"])
def test_what_the_lesson_goes_on_with_has_all_properties(name):
    repair = getattr(lesson, name)
    assert repair(repair.reference), repair(repair.reference)


@pytest.mark.parametrize(
    ("build", "words"),
    [
        (lambda: nn.Linear(2, 2), "the model raised"),
        (lambda: 1 / 0, "it raised ZeroDivisionError"),
        (lambda: Reverser, "the class"),
        (lambda: None, "it returned nothing"),
    ],
    ids=["other inputs", "an error", "a class", "nothing"],
)
def test_what_is_no_model_is_named(build, words):
    verdict = lesson.repaired_transformer(build)
    assert verdict.status == "wrong"
    assert words in verdict.reason


def unwritten():
    raise NotImplementedError


@pytest.mark.parametrize("stub", [..., unwritten], ids=["dots", "not implemented"])
def test_other_stubs_are_known(stub):
    assert lesson.repaired_bert(stub).status == "not yet"


def test_a_repair_that_is_no_function_is_refused():
    with pytest.raises(TypeError, match="takes your function, got int"):
        lesson.repaired_bert(3)


def test_the_readers_random_numbers_are_left_alone():
    av.seed(0)
    lesson.source_matters(differs)
    after = torch.rand(1)
    av.seed(0)
    assert after.equal(torch.rand(1))
