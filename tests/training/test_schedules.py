"""Schedules: factors of the learning rate at the places that matter."""

import pytest

from attnviz.training import inverse_sqrt, warmup_linear

NEAR = {"abs": 1e-9}


class TestWarmupLinear:
    def test_it_rises_and_falls_in_straight_lines(self):
        factor = warmup_linear(0.2)
        for progress, wanted in [(0, 0), (0.1, 0.5), (0.2, 1), (0.6, 0.5), (0.8, 0.25), (1, 0)]:
            assert factor(progress) == pytest.approx(wanted, **NEAR)

    def test_without_a_warmup_it_only_falls(self):
        assert [warmup_linear(0)(p) for p in (0, 0.25, 1)] == [1, 0.75, 0]

    def test_with_nothing_else_it_only_rises(self):
        assert [warmup_linear(1)(p) for p in (0, 0.25, 1)] == [0, 0.25, 1]

    def test_unless_told_otherwise_it_warms_up_for_a_tenth(self):
        assert warmup_linear()(0.05) == pytest.approx(0.5)
        assert warmup_linear()(0.1) == pytest.approx(1)

    def test_it_is_never_negative(self):
        assert warmup_linear(0.3)(1 + 1e-9) == 0

    @pytest.mark.parametrize("warmup", [-0.1, 1.1, float("nan")])
    def test_a_share_that_is_none(self, warmup):
        with pytest.raises(ValueError, match=f"warmup must be between 0 and 1, got {warmup}"):
            warmup_linear(warmup)


class TestInverseSqrt:
    def test_it_rises_in_a_line_and_falls_as_the_inverse_root(self):
        factor = inverse_sqrt(0.16)
        for progress, wanted in [(0, 0), (0.08, 0.5), (0.16, 1), (0.64, 0.5), (1, 0.4)]:
            assert factor(progress) == pytest.approx(wanted, **NEAR)

    def test_it_is_the_formula_of_the_paper_divided_by_its_peak(self):
        steps, warmup_steps = 1000, 130
        rates = [min(n**-0.5, n * warmup_steps**-1.5) for n in range(1, steps + 1)]
        factor = inverse_sqrt(warmup_steps / steps)
        for n, rate in enumerate(rates, 1):
            assert factor(n / steps) == pytest.approx(rate / max(rates))

    def test_unless_told_otherwise_it_warms_up_for_a_tenth(self):
        assert inverse_sqrt()(0.1) == pytest.approx(1)
        assert inverse_sqrt()(0.4) == pytest.approx(0.5)

    @pytest.mark.parametrize("warmup", [-0.1, 1.1])
    def test_a_share_that_is_none(self, warmup):
        with pytest.raises(ValueError, match=f"warmup must be between 0 and 1, got {warmup}"):
            inverse_sqrt(warmup)

    def test_without_a_warmup_it_would_start_at_infinity(self):
        with pytest.raises(ValueError, match="warmup must be more than 0, got 0"):
            inverse_sqrt(0)
