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


SINKS = torch.linspace(-2, 2, 10).view(2, 5, 1)  # a score for each row, of what is no key


def with_sinks(scores):
    """The softmax beside the sinks, without their column."""
    return torch.cat([scores, SINKS], -1).softmax(-1)[..., :-1]


HIDDEN = torch.ones(5, 5).triu(1).bool()
BESIDE_SINKS = with_sinks(SCORES.masked_fill(HIDDEN, -torch.inf))


class TestBesideSinks:
    """Each change alters what the keys share, and leaves the share of no key as it is."""

    @pytest.mark.parametrize("name", CHANGES)
    def test_is_the_change_of_what_the_keys_share(self, name):
        shared = BESIDE_SINKS.sum(-1, keepdim=True)
        expected = CHANGES[name](BESIDE_SINKS / shared) * shared
        torch.testing.assert_close(CHANGES[name](BESIDE_SINKS), expected)

    @pytest.mark.parametrize("name", ["uniform", "temperature"])
    def test_keeps_the_rest(self, name):
        rest = 1 - BESIDE_SINKS.sum(-1)
        torch.testing.assert_close(1 - CHANGES[name](BESIDE_SINKS).sum(-1), rest)

    def test_temperature_divides_the_scores_of_the_keys(self):
        for rows, changed, scores in zip(
            BESIDE_SINKS.flatten(0, 1), av.temperature(0.5)(BESIDE_SINKS).flatten(0, 1),
            SCORES.masked_fill(HIDDEN, -torch.inf).flatten(0, 1), strict=True,
        ):  # fmt: skip
            powers = [(s / 0.5).exp() for s in scores]
            expected = [float(p / sum(powers)) * float(rows.sum()) for p in powers]
            assert changed.tolist() == pytest.approx(expected, abs=1e-6)

    def test_a_query_left_without_keys_gives_all_to_no_key(self):
        assert not av.mask(~torch.eye(5).bool())(BESIDE_SINKS)[:, 0].any()
        assert not av.only(3)(BESIDE_SINKS)[:, :3].any()

    def test_rounding_is_no_rest(self):
        weights = torch.randn(1, 40, 300).softmax(-1).bfloat16()
        assert weights.float().sum(-1).ne(1).any()
        assert av.only(0)(weights)[..., 0].eq(1).all()


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
