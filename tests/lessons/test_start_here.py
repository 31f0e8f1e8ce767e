"""The warm-up's check passes another solution and names each planted bug."""

import pytest

from attnviz.lessons.start_here import next_token_score


def test_an_independent_solution_passes():
    assert next_token_score(lambda w: sum(w[i, i + 1] for i in range(len(w) - 1)) / (len(w) - 1))


@pytest.mark.parametrize(
    ("bug", "diagnosis"),
    [
        (lambda w: w[1:, :-1].trace() / (len(w) - 1), "token before"),
        (lambda w: w.trace() / len(w), "to themselves"),
        (lambda w: w[:-1, 1:].trace() / len(w), "one less"),
        (lambda w: w[:-1, 1:].trace(), "adds the weights up"),
    ],
)
def test_a_planted_bug_is_named(bug, diagnosis):
    verdict = next_token_score(bug)
    assert verdict.status == "wrong"
    assert diagnosis in verdict.reason


def test_a_stub_is_told_where_to_start():
    assert next_token_score(lambda weights: ...).status == "not yet"
