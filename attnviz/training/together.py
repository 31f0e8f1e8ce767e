"""Several optimizers that work as one, such as Muon for matrices and AdamW for the rest."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import nn

from attnviz.training.muon import Muon


class Together(torch.optim.Optimizer):
    """Optimizers, each for its own parameters, that step, forget gradients and are saved as one.

    optimizers: at least one.
    Raises ValueError for none, or a parameter that two of them have.
    """

    def __init__(self, optimizers: Sequence[torch.optim.Optimizer]):
        self.parts = list(optimizers)
        if not self.parts:
            raise ValueError("optimizers must hold at least one, got none")
        groups = [group for one in self.parts for group in one.param_groups]
        parameters = [p for group in groups for p in group["params"]]
        if len(set(map(id, parameters))) < len(parameters):
            raise ValueError("optimizers must have parameters of their own, but two share some")
        super().__init__(parameters, {})
        self._share()

    def _share(self) -> None:
        """Let its groups be those of the parts: who changes a rate here changes it there."""
        self.param_groups = [group for one in self.parts for group in one.param_groups]

    def step(self, closure: None = None) -> None:
        """One step of each."""
        if closure is not None:
            raise ValueError("closure is not supported: each optimizer would call it")
        for one in self.parts:
            one.step()

    def state_dict(self) -> dict[str, Any]:
        return {"parts": [one.state_dict() for one in self.parts]}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Raises ValueError when it is of other optimizers."""
        parts = state_dict.get("parts", ())
        if len(parts) != len(self.parts):
            raise ValueError(
                f"state_dict must be of {len(self.parts)} optimizers, got one of {len(parts)}"
            )
        for one, state in zip(self.parts, parts, strict=True):  # before anything is changed
            here = [len(group["params"]) for group in one.param_groups]
            there = [len(group["params"]) for group in state["param_groups"]]
            if here != there:
                raise ValueError(f"state_dict must be of {here} parameters, got {there}")
        for one, state in zip(self.parts, parts, strict=True):
            one.load_state_dict(state)
        self._share()


def muon_and_adamw(
    model: nn.Module,
    lr: float = 2e-2,
    *,
    momentum: float = 0.95,
    betas: tuple[float, float] = (0.9, 0.98),
    weight_decay: float = 0.1,
) -> Together:
    """Muon for the matrices of a model's blocks, AdamW for embeddings, biases and norms.

    model: a parameter is a matrix of a block when it has two dimensions and stands in a module
           list called `blocks`.
    lr:    the learning rate of both; Muon's steps are scaled to the size of AdamW's.
    Muon makes each step's change orthogonal, so that no direction of a matrix is neglected.
    Raises ValueError for a model without such matrices.
    Source: Jordan et al. 2024, "Muon"; the scale as in Liu et al. 2025, "Muon is scalable for LLM
    training", section 2.2.
    """
    named = dict(model.named_parameters())
    matrices = [p for name, p in named.items() if "blocks." in name and p.dim() == 2]
    if not matrices:
        raise ValueError("model must have matrices in a module list called blocks, and has none")
    theirs = set(map(id, matrices))
    rest = [p for p in named.values() if id(p) not in theirs]
    muon = Muon(matrices, lr, momentum=momentum, weight_decay=weight_decay)
    fused = all(p.device.type in ("cpu", "cuda") for p in rest)
    adamw = torch.optim.AdamW(rest, lr, betas, weight_decay=weight_decay, fused=fused)
    return Together([muon, adamw])
