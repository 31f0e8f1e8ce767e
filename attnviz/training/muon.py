"""Muon, an optimizer for matrices: each step turns its matrix equally far in all directions."""

from collections.abc import Iterable

import torch
from torch import Tensor

_A, _B, _C = 3.4445, -4.7750, 2.0315  # of the polynomial, from Jordan et al. 2024


class Muon(torch.optim.Optimizer):
    """Gradient descent with momentum, whose steps are made orthogonal.

    params:   matrices.
    lr:       the learning rate; a step's root mean square is 0.2 of it, about that of AdamW.
    momentum: share of the old mean gradient in the new one (Nesterov's).
    weight_decay: as in AdamW.
    The steps are those of `torch.optim.Muon` with `adjust_lr_fn="match_rms_adamw"`. That one works
    in bfloat16, which is slow where the processor has no units for it, and through the whole
    matrix; this one in float32, and but for the last product through the smaller square.
    Raises ValueError for a parameter that is no matrix, or numbers out of range.
    Source: Jordan et al. 2024, "Muon"; the scale as in Liu et al. 2025, "Muon is scalable for LLM
    training", section 2.2.
    """

    def __init__(
        self,
        params: Iterable[Tensor],
        lr: float = 2e-2,
        *,
        momentum: float = 0.95,
        weight_decay: float = 0.1,
    ):
        if not 0 <= momentum < 1:
            raise ValueError(f"momentum must be in [0, 1), got {momentum}")
        if lr < 0 or weight_decay < 0:
            raise ValueError(
                f"lr and weight_decay must not be negative, got {lr} and {weight_decay}"
            )
        super().__init__(params, {"lr": lr, "momentum": momentum, "weight_decay": weight_decay})
        for group in self.param_groups:
            for p in group["params"]:
                if p.dim() != 2:
                    raise ValueError(f"params must be matrices, got one of {tuple(p.shape)}")

    @torch.no_grad()
    def step(self, closure: None = None) -> None:
        """Change each matrix that has a gradient."""
        if closure is not None:
            raise ValueError("closure is not supported")
        for group in self.param_groups:
            momentum = group["momentum"]
            for p in group["params"]:
                if p.grad is None:
                    continue
                state = self.state[p]
                if not state:
                    state["momentum_buffer"] = torch.zeros_like(p)
                mean = state["momentum_buffer"]
                mean.lerp_(p.grad, 1 - momentum)
                change = orthogonal(p.grad.lerp(mean, momentum))
                scale = 0.2 * max(p.shape) ** 0.5
                p.mul_(1 - group["lr"] * group["weight_decay"])
                p.add_(change, alpha=-group["lr"] * scale)


def orthogonal(matrix: Tensor, steps: int = 5) -> Tensor:
    """A matrix with the same directions and nearly the same strength in each of them.

    matrix: (m, n).   steps: how often the polynomial is applied.
    With matrix = U S Vᵀ this is U p(S) Vᵀ, where p brings all but very small ones near 1 (0.7 to
    1.2 with five steps). Source: Jordan et al. 2024, "Muon" (a Newton–Schulz iteration).
    Each step x ← (a + b g + c g²) x with g = x xᵀ multiplies from the left by a symmetric matrix
    that commutes with g. So the steps can follow g alone, the smaller square, and meet x last.
    """
    wide = matrix.size(0) <= matrix.size(1)
    x = matrix.float() if wide else matrix.float().T
    x = x / x.norm().clamp(min=1e-7)
    g = x @ x.T
    whole = None  # product of all steps
    for i in range(steps):
        step = torch.addmm(g, g, g, beta=_B, alpha=_C)
        step.diagonal().add_(_A)
        whole = step if whole is None else step @ whole
        if i < steps - 1:
            g = step @ g @ step
    x = (whole @ x).to(matrix.dtype)
    return x if wide else x.T
