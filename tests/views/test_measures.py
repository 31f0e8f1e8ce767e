"""What a head does, in numbers: each measure against a loop that says what it means."""

import math

import numpy as np
import pytest

from attnviz.views.measures import SEPARATORS, measures

KEYS = ["[CLS]", "the", "cat", "[SEP]", "a", "dog", "[SEP]"]
POSITIONS = {"previous token", "itself", "distance (tokens)"}


def some_weights(heads=3, n=7, seed=0):
    return np.random.default_rng(seed).dirichlet(np.ones(n), (heads, n)).astype("float32")


def mean(values):
    values = list(values)
    return sum(values) / len(values) if values else 0


def by_loops(head, queries):
    """The measures of one head's rows, (query, key), which belong to these queries."""
    rows = [(q, row) for q, row in zip(queries, head.tolist(), strict=True) if any(row)]
    separators = [k for k, key in enumerate(KEYS) if key == "[SEP]"]
    return {
        "previous token": mean(row[q - 1] for q, row in rows if q > 0),
        "first token": mean(row[0] for _, row in rows),
        "[SEP]": mean(sum(row[k] for k in separators) for _, row in rows),
        "itself": mean(row[q] for q, row in rows),
        "entropy (bits)": mean(-sum(w * math.log2(w) for w in row if w > 0) for _, row in rows),
        "distance (tokens)": mean(
            sum(w * abs(q - k) for k, w in enumerate(row)) for q, row in rows
        ),
    }


def expect_as_by_loops(weights, queries):
    found = measures(weights, np.array(queries), KEYS, same=True)
    for head, rows in enumerate(weights):
        wanted = by_loops(rows, queries)
        assert found.keys() == wanted.keys()
        for name, value in wanted.items():
            assert found[name][head] == pytest.approx(value, abs=1e-5), (name, head)
    for values in found.values():
        assert values.dtype == np.float32
        assert values.shape == (len(weights),)


class TestEachMeasure:
    def test_of_all_queries(self):
        expect_as_by_loops(some_weights(), range(len(KEYS)))

    @pytest.mark.parametrize("queries", [[1, 4, 5], [0, 3, 6], [6], [0]])
    def test_of_some_queries(self, queries):
        expect_as_by_loops(some_weights()[:, queries], queries)

    @pytest.mark.parametrize("empty", [[0], [2, 3], [1, 6], list(range(7))])
    def test_queries_that_see_nothing_do_not_count(self, empty):
        weights = some_weights()
        weights[1, empty] = 0
        expect_as_by_loops(weights, range(len(KEYS)))

    def test_heads_with_a_known_habit(self):
        n = len(KEYS)
        previous, itself, first, even = np.zeros((4, n, n), np.float32)
        previous[range(1, n), range(n - 1)] = previous[0, 0] = 1
        itself[range(n), range(n)] = 1
        first[:, 0] = 1
        even[:] = 1 / n
        weights = np.stack([previous, itself, first, even])
        found = measures(weights, np.arange(n), KEYS, same=True)
        assert found["previous token"][0] == 1
        assert found["itself"].tolist()[1] == 1
        assert found["first token"][2] == 1
        assert found["[SEP]"][3] == pytest.approx(2 / 7)
        assert found["entropy (bits)"] == pytest.approx([0, 0, 0, math.log2(n)])
        assert found["distance (tokens)"][:3] == pytest.approx([6 / 7, 0, 3])

    def test_no_entropy_is_below_zero(self):
        # weights that bfloat16 rounded up
        rows = np.eye(7, dtype=np.float32)[None] * np.float32(1.008)
        assert measures(rows, np.arange(7), KEYS, same=True)["entropy (bits)"][0] == 0


class TestWhatThereIsToMeasure:
    def test_cross_attention_has_no_positions(self):
        found = measures(some_weights(), np.arange(7), KEYS, same=False)
        assert found.keys() == {"first token", "[SEP]", "entropy (bits)"}

    def test_queries_need_not_be_as_many_as_keys(self):
        rows = np.random.default_rng(0).dirichlet(np.ones(7), (2, 3)).astype("float32")
        found = measures(rows, np.arange(3), KEYS, same=False)
        assert found["first token"] == pytest.approx(rows[:, :, 0].mean(1))

    @pytest.mark.parametrize("separator", sorted(SEPARATORS))
    def test_separators_are_named_as_in_the_text(self, separator):
        found = measures(some_weights(n=2), np.arange(2), ["a", separator], same=True)
        assert found[separator] == pytest.approx(some_weights(n=2)[:, :, 1].mean(1))
        assert found.keys() == POSITIONS | {"first token", "entropy (bits)", separator}

    def test_without_a_separator_there_is_no_such_measure(self):
        found = measures(some_weights(n=2), np.arange(2), ["a", "b"], same=True)
        assert found.keys() == POSITIONS | {"first token", "entropy (bits)"}

    def test_one_token_has_no_token_before_it(self):
        found = measures(np.ones((1, 1, 1), np.float32), np.arange(1), ["a"], same=True)
        assert found["previous token"] == 0
