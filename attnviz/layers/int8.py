"""Layers that hold their weights in 8 bits."""

from typing import Any

import torch
from torch import Tensor, nn

from attnviz.checks import check_kind
from attnviz.tensors import check_floats, check_int64, check_values, extremes

_MOST = 127  # the largest number used: as far above zero as below


class Int8Linear(nn.Module):
    """A linear layer that multiplies int8 with int8, in inference.

    linear: the layer that it stands for, on the CPU.
    exact:  (n,) int64: columns of the input that stay float32, with their weights. A few columns of
            a Transformer's states are many times larger than the rest; rounded along, they would
            leave the others only a few of the 255 steps.
    There is a scale for each row of weights and one for each token, found anew in each call. Fast
    only under `torch.compile`, which joins the rounding with the operations around it.
    Raises TypeError for what is no linear layer or no int64 tensor, ValueError for a layer that is
    not on the CPU, or columns that are not there.
    Source: Dettmers et al. 2022, "LLM.int8()", section 3.
    """

    def __init__(self, linear: nn.Linear, exact: Tensor):
        super().__init__()
        check_kind("linear", linear, nn.Linear)
        check_int64("exact", exact)
        check_values("exact", exact)
        weight = linear.weight.detach().clone()  # (out, in)
        if weight.device.type != "cpu":
            raise ValueError(f"linear must be on the CPU, got one on {weight.device}")
        low, high = extremes(exact, weight.size(1))
        if low < 0 or high >= weight.size(1):
            raise ValueError(
                f"exact must be columns 0 to {weight.size(1) - 1}, got {exact.tolist()}"
            )
        self.register_buffer("exact", exact)
        self._columns = tuple(exact.tolist())
        self.register_buffer("exact_weight", weight[:, exact].T.contiguous())  # (n, out)
        weight[:, exact] = 0
        scale, rounded = _rounded(weight)
        self.register_buffer("scale", scale)
        self.register_buffer("rounded", rounded.T.contiguous())  # (in, out)
        self.register_buffer("bias", None if linear.bias is None else linear.bias.detach().clone())
        self.register_buffer("kept", torch.ones(weight.size(1)).index_fill(0, exact, 0))

    def _load_from_state_dict(self, *args: Any) -> None:
        super()._load_from_state_dict(*args)
        self._columns = tuple(self.exact.tolist())  # as Python numbers for the compiler

    def forward(self, x: Tensor) -> Tensor:
        """x: (..., in) float32. Returns (..., out), without a gradient."""
        check_floats("x", x)
        scale, rounded = _rounded(x * self.kept)  # by token
        product = torch._int_mm(rounded.flatten(0, -2), self.rounded)  # int32
        y = product.unflatten(0, x.shape[:-1]) * (scale[..., None] * self.scale)
        for column, weight in zip(self._columns, self.exact_weight, strict=True):
            y = y + x[..., column, None] * weight  # compiled, it is one loop with the lines around
        return y if self.bias is None else y + self.bias


class Int8Embedding(nn.Module):
    """Vectors in 8 bits, with a scale for each.

    embedding: what it stands for.
    Raises TypeError for what is no embedding.
    """

    def __init__(self, embedding: nn.Embedding):
        super().__init__()
        check_kind("embedding", embedding, nn.Embedding)
        scale, rounded = _rounded(embedding.weight.detach())
        self.register_buffer("scale", scale)
        self.register_buffer("rounded", rounded)

    def forward(self, ids: Tensor) -> Tensor:
        """ids: any shape. Returns their vectors (..., d_model) in float32."""
        return self.rounded[ids] * self.scale[ids][..., None]


def _rounded(x: Tensor) -> tuple[Tensor, Tensor]:
    """A scale for each row of x (..., n), and the row in whole numbers of that scale."""
    scale = x.abs().amax(-1).clamp(min=1e-12) / _MOST  # (...); a row of zeros stays zero
    return scale, (x * (1 / scale[..., None])).round().to(torch.int8)
