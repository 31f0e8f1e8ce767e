"""Teaching a small model what a large one says, not only what is right."""

import torch.nn.functional as F
from torch import Tensor


def distillation_loss(student: Tensor, teacher: Tensor, temperature: float = 2.0) -> Tensor:
    """How far a student's probabilities are from a teacher's, both softened.

    student, teacher: logits (..., label), of the same shape; the teacher's get no gradient.
    temperature: both are divided by it, so that the labels that the teacher finds unlikely count,
                 too.
    Returns a scalar: the mean of KL(teacher ‖ student), times temperature², which keeps the
    gradient's size the same at any temperature.
    Raises ValueError for shapes that differ, or a temperature that is not positive.
    Source: Hinton et al. 2015, "Distilling the Knowledge in a Neural Network", section 2.
    """
    if student.shape != teacher.shape:
        raise ValueError(
            f"student and teacher must have the same shape, got {tuple(student.shape)} "
            f"and {tuple(teacher.shape)}"
        )
    if temperature <= 0:
        raise ValueError(f"temperature must be above 0, got {temperature}")
    log_p, log_q = (
        (logits / temperature).flatten(0, -2).log_softmax(-1)
        for logits in (student, teacher.detach())
    )
    return temperature**2 * F.kl_div(log_p, log_q, log_target=True, reduction="batchmean")
