"""The same computation on the CPU and on a device, compared."""

import copy

import pytest
import torch
from torch import Tensor
from torch.utils._pytree import tree_flatten, tree_map_only


def to(thing, device):
    """Tensors, however nested, on a device; what asked for gradients still does."""

    def move(tensor):
        return tensor.detach().to(device).requires_grad_(tensor.requires_grad)

    return tree_map_only(Tensor, move, thing)


def assert_same(there, here, device):
    """What was computed on the device is there, and the same as on the CPU up to rounding."""
    (there, form), (here, wanted) = tree_flatten(there), tree_flatten(here)
    assert form == wanted
    for one, other in zip(there, here, strict=True):
        if not isinstance(one, Tensor):
            assert one == (pytest.approx(other) if isinstance(other, float) else other)
            continue
        assert one.device.type == device.type
        torch.testing.assert_close(one.cpu(), other, atol=1e-4, rtol=1e-4, equal_nan=True)


def assert_works(device, run, module=None, inputs=()):
    """Run something on the CPU and on the device; results and gradients must be the same.

    run: takes the inputs, after the module if there is one; returns tensors, however nested.
    """
    here, there = (_results(where, run, module, inputs) for where in ("cpu", device))
    assert_same(there, here, device)


def _results(device, run, module, inputs):
    inputs = to(inputs, device)
    if module is not None:
        module = copy.deepcopy(module).to(device)
        inputs = (module, *inputs)
    outputs = run(*inputs)
    floating = [
        t for t in tree_flatten(outputs)[0] if isinstance(t, Tensor) and t.grad_fn is not None
    ]
    if floating:
        sum(t.square().sum() for t in floating).backward()
    asked = [*(module.parameters() if module else ()), *tree_flatten(inputs)[0]]
    gradients = [t.grad for t in asked if isinstance(t, Tensor) and t.grad is not None]
    return outputs, gradients
