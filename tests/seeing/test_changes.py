"""The ready-made changes, on weights with a hidden future."""

import pytest
import torch

import attnviz as av

SCORES = torch.randn(2, 5, 5, generator=torch.Generator().manual_seed(0))
WEIGHTS = SCORES.masked_fill(torch.ones(5, 5).triu(1).bool(), -torch.inf).softmax(-1)
EMPTY = WEIGHTS.clone()
EMPTY[:, 2] = 0  # a query that may attend to nothing

CHANGES = {
    "off": av.off,
    "uniform": av.uniform,
    "only": av.only(1),
    "temperature": av.temperature(0.5),
    "mask": av.mask(torch.tensor([True, False, True, True, False])),
}


@pytest.mark.parametrize("name", CHANGES)
@pytest.mark.parametrize("weights", [WEIGHTS, EMPTY], ids=["causal", "with an empty row"])
class TestEveryChange:
    def test_gives_rows_that_sum_to_one_or_nothing(self, name, weights):
        changed = CHANGES[name](weights)
        sums = changed.sum(-1)
        assert changed.shape == weights.shape
        assert torch.all((sums == 0) | ((sums - 1).abs() < 1e-5))

    def test_never_shows_the_future(self, name, weights):
        assert not CHANGES[name](weights).triu(1).any()

    def test_lets_a_finite_gradient_through(self, name, weights):
        leaf = weights.clone().requires_grad_()
        changed = CHANGES[name](leaf)
        if changed.requires_grad:
            changed.square().sum().backward()
            assert leaf.grad.isfinite().all()

    def test_leaves_its_argument_alone(self, name, weights):
        before = weights.clone()
        CHANGES[name](weights)
        assert torch.equal(weights, before)


def test_off_attends_to_nothing():
    assert not av.off(WEIGHTS).any()


def test_uniform_attends_to_all_that_may_be_seen_alike():
    torch.testing.assert_close(av.uniform(WEIGHTS)[0, 3], torch.tensor([0.25] * 4 + [0.0]))


def test_only_attends_to_one_key():
    assert av.only(1)(WEIGHTS)[0].tolist() == [[0] * 5] + [[0, 1, 0, 0, 0]] * 4
    assert av.only(-1)(WEIGHTS)[0, 4].tolist() == [0, 0, 0, 0, 1]


@pytest.mark.parametrize("t", [0.1, 0.5, 1, 2, 30])
def test_temperature_divides_the_scores(t):
    hidden = torch.ones(5, 5).triu(1).bool()
    expected = (SCORES / t).masked_fill(hidden, -torch.inf).softmax(-1)
    torch.testing.assert_close(av.temperature(t)(WEIGHTS), expected)


def test_mask_shares_out_what_it_hides():
    allowed = torch.tensor([True, False, True, True, True])
    changed = av.mask(allowed)(WEIGHTS)
    assert not changed[..., 1].any()
    expected = WEIGHTS[0, 3] * allowed
    torch.testing.assert_close(changed[0, 3], expected / expected.sum())


def test_mask_for_each_query():
    changed = av.mask(torch.eye(5).bool())(WEIGHTS)
    torch.testing.assert_close(changed, torch.eye(5).expand(2, 5, 5))


@pytest.mark.parametrize(
    ("make", "error", "message"),
    [
        (lambda: av.only("cat"), TypeError, "key must be a whole number, got 'cat'"),
        (lambda: av.only(True), TypeError, "got True"),
        (lambda: av.only(5)(WEIGHTS), ValueError, r"only\(5\) names a key .* among the 5"),
        (lambda: av.temperature(0), ValueError, "temperature must be positive, got 0"),
        (lambda: av.temperature(float("nan")), ValueError, "must be positive, got nan"),
        (lambda: av.mask(torch.ones(5)), TypeError, r"bool tensor.*got torch\.float32"),
        (lambda: av.mask([True]), TypeError, "bool tensor.*got list"),
        (lambda: av.mask(torch.ones(4).bool())(WEIGHTS), ValueError, r"\(5, 5\), got \(4,\)"),
    ],
)
def test_what_is_no_change(make, error, message):
    with pytest.raises(error, match=message):
        make()
