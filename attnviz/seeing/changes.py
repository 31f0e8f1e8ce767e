"""Ready-made changes for `edit`: functions from a head's weights to other weights.

Each takes and returns one head's weights, (batch, query, key). Places with weight zero, such as the
future under a causal mask, stay zero. Where a share of a row goes to no key (the record's `rest`),
that share stays, and what the keys get is changed: only `off`, and a change that leaves a query no
key at all, give the whole row to none.
"""

import torch
from torch import Tensor

from attnviz.checks import check_number, check_whole
from attnviz.seeing.record import Change
from attnviz.tensors import check_bool


def off(weights: Tensor) -> Tensor:
    """Switch the head off: nothing is attended to, and its output is zero."""
    return weights * 0


def uniform(weights: Tensor) -> Tensor:
    """Attend to every key alike that had any weight (Voita et al. 2019 compare with such heads)."""
    return _normalise((weights > 0).to(weights.dtype)) * _shared(weights)


def only(key: int) -> Change:
    """Attend to one key alone; queries that may not see it attend to nothing.

    key: its position; negative numbers count from the end.
    Raises TypeError when key is no whole number; when used, ValueError when there is no such key.
    """
    key = check_whole("key", key)

    def change(weights: Tensor) -> Tensor:
        n_keys = weights.size(-1)
        if not -n_keys <= key < n_keys:
            raise ValueError(f"only({key}) names a key that is not among the {n_keys}")
        chosen = (weights > 0).to(weights.dtype) * 0
        chosen[..., key] = (weights[..., key] > 0).to(weights.dtype)
        return chosen * _shared(weights)

    return change


def temperature(t: float) -> Change:
    """Divide the scores by t: below 1 sharpens the weights, above 1 flattens them.

    Raises ValueError when t is not positive, TypeError when it is no number.
    """
    check_number("temperature", t, "positive", lambda t: t > 0)  # t itself may have a gradient

    def change(weights: Tensor) -> Tensor:
        seen = weights > 0
        largest = weights.amax(-1, keepdim=True).clamp_min(1e-30)
        relative = (weights / largest).masked_fill(~seen, 1)  # 1 has a finite gradient
        return _normalise(relative.pow(1 / t) * seen) * _shared(weights)

    return change


def mask(allowed: Tensor) -> Change:
    """Hide keys, and share their weight among those that are left.

    allowed: bool, True where a query may attend; (key,) for all queries alike, or (query, key).
    Raises TypeError when allowed is not a bool tensor; when used, ValueError when it does not fit.
    """
    check_bool("allowed", allowed, "a bool tensor, True where a query may attend")

    def change(weights: Tensor) -> Tensor:
        if tuple(allowed.shape) not in (tuple(weights.shape[-1:]), tuple(weights.shape[-2:])):
            raise ValueError(
                f"allowed must be (key,) or (query, key) = {tuple(weights.shape[-2:])}, "
                f"got {tuple(allowed.shape)}"
            )
        return _normalise(weights * allowed.to(weights.device)) * _shared(weights)

    return change


def _shared(weights: Tensor) -> Tensor:
    """What the keys of each row share, (..., 1): 1 without sinks, as far as rounding tells, and
    where the weights are nan, which a change may hide."""
    sums = weights.sum(-1, keepdim=True, dtype=torch.promote_types(weights.dtype, torch.float32))
    rounding = max(1e-5, torch.finfo(weights.dtype).eps)
    return torch.where((sums - 1).abs() > rounding, sums, 1).to(weights.dtype)


def _normalise(weights: Tensor) -> Tensor:
    return weights / weights.sum(-1, keepdim=True).clamp_min(1e-30)
