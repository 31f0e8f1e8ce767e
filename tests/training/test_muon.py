"""Muon against torch's own, and its orthogonal steps against the singular values themselves."""

import pytest
import torch
from torch import nn

from attnviz.training.muon import Muon, orthogonal

SHAPES = [(6, 8), (8, 6), (7, 7), (1, 5), (40, 9)]


def five_times(s):
    for _ in range(5):
        s = 3.4445 * s - 4.7750 * s**3 + 2.0315 * s**5
    return s


class TestOrthogonal:
    @pytest.mark.parametrize("shape", SHAPES)
    @pytest.mark.parametrize("seed", range(3))
    def test_it_is_the_polynomial_of_the_singular_values(self, shape, seed):
        torch.manual_seed(seed)
        matrix = torch.randn(shape)
        u, s, vt = torch.linalg.svd(matrix.double(), full_matrices=False)
        wanted = u @ torch.diag(five_times(s / s.norm())) @ vt
        torch.testing.assert_close(orthogonal(matrix).double(), wanted, atol=1e-4, rtol=1e-4)

    def test_directions_become_equally_strong(self):
        torch.manual_seed(0)
        matrix = torch.randn(30, 4) @ torch.diag(torch.tensor([100.0, 10.0, 3.0, 1.0]))
        strengths = torch.linalg.svdvals(orthogonal(matrix))
        assert strengths.min() > 0.65
        assert strengths.max() < 1.25

    def test_a_direction_that_is_missing_stays_so(self):
        torch.manual_seed(0)
        strengths = torch.linalg.svdvals(orthogonal(torch.randn(8, 3) @ torch.randn(3, 12)))
        assert strengths[:3].min() > 0.65
        assert strengths[3:].max() < 1e-3

    def test_nothing_stays_nothing(self):
        assert torch.equal(orthogonal(torch.zeros(3, 5)), torch.zeros(3, 5))

    def test_size_and_dtype_do_not_matter(self):
        matrix = torch.randn(5, 9, generator=torch.Generator().manual_seed(0))
        torch.testing.assert_close(orthogonal(1e4 * matrix), orthogonal(matrix))
        rounded = orthogonal(matrix.bfloat16())
        assert rounded.dtype == torch.bfloat16
        torch.testing.assert_close(rounded.float(), orthogonal(matrix), atol=0.03, rtol=0.03)


class TestMuon:
    @pytest.mark.parametrize("shape", SHAPES)
    @pytest.mark.parametrize("choices", [{}, {"momentum": 0.5, "weight_decay": 0.0}])
    def test_its_steps_are_those_of_torch(self, shape, choices):
        torch.manual_seed(0)
        start = torch.randn(shape)
        mine, theirs = (nn.Parameter(start.clone()) for _ in range(2))
        one = Muon([mine], 0.03, **choices)
        other = torch.optim.Muon([theirs], 0.03, **choices, adjust_lr_fn="match_rms_adamw")
        for _ in range(6):
            mine.grad = torch.randn(shape)
            theirs.grad = mine.grad.clone()
            one.step()
            other.step()
        moved = (theirs - start).norm()
        assert (mine - theirs).norm() < 0.03 * moved  # torch works in bfloat16
        assert moved > 0.01

    def test_a_matrix_without_gradient_is_left(self):
        left, moved = nn.Parameter(torch.ones(2, 3)), nn.Parameter(torch.ones(2, 3))
        moved.grad = torch.ones(2, 3)
        Muon([left, moved]).step()
        assert torch.equal(left, torch.ones(2, 3))
        assert not torch.isclose(moved, torch.ones(2, 3)).any()

    def test_bad_input(self):
        p = nn.Parameter(torch.ones(2, 3))
        with pytest.raises(ValueError, match=r"params must be matrices, got one of \(4,\)"):
            Muon([p, nn.Parameter(torch.ones(4))])
        with pytest.raises(ValueError, match=r"momentum must be in \[0, 1\), got 1"):
            Muon([p], momentum=1)
        with pytest.raises(ValueError, match=r"must not be negative, got -1 and 0\.1"):
            Muon([p], -1)
        with pytest.raises(ValueError, match="closure is not supported"):
            Muon([p]).step(lambda: 0)
