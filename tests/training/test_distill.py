"""The loss of a student beside its definition."""

import pytest
import torch
import torch.nn.functional as F

from attnviz.training import distillation_loss


@pytest.mark.parametrize("seed", [0, 1, 2])
@pytest.mark.parametrize("shape", [(5, 2), (3, 4, 7)])
@pytest.mark.parametrize("temperature", [1.0, 2.0, 5.0])
def test_it_is_the_mean_divergence_of_softened_probabilities(seed, shape, temperature):
    torch.manual_seed(seed)
    student, teacher = torch.randn(2, *shape, dtype=torch.float64)
    p, q = (student / temperature).softmax(-1), (teacher / temperature).softmax(-1)
    wanted = temperature**2 * (q * (q / p).log()).sum(-1).mean()
    torch.testing.assert_close(distillation_loss(student, teacher, temperature), wanted)


def test_at_one_its_gradient_is_that_of_cross_entropy_with_the_teachers_probabilities():
    student, teacher = torch.randn(4, 3, requires_grad=True), torch.randn(4, 3, requires_grad=True)
    distillation_loss(student, teacher, 1.0).backward()
    (wanted,) = torch.autograd.grad(F.cross_entropy(student, teacher.softmax(-1).detach()), student)
    torch.testing.assert_close(student.grad, wanted)
    assert teacher.grad is None


def test_a_student_that_agrees_has_no_loss():
    logits = torch.randn(6, 4)
    assert distillation_loss(logits, logits + 3).abs() < 1e-6


def test_bad_input():
    with pytest.raises(ValueError, match=r"same shape, got \(2, 3\) and \(2, 4\)"):
        distillation_loss(torch.zeros(2, 3), torch.zeros(2, 4))
    with pytest.raises(ValueError, match="temperature must be above 0, got 0"):
        distillation_loss(torch.zeros(2, 3), torch.zeros(2, 3), 0)
