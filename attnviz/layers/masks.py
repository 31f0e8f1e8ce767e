"""Attention masks: bool tensors, True where a query may attend to a key."""

from collections.abc import Sequence

import torch
from torch import Tensor

from attnviz.checks import check_whole
from attnviz.tensors import check_bool, check_values


def padding_mask(lengths: Sequence[int] | Tensor, n_keys: int | None = None) -> Tensor:
    """Let every query see the real tokens of its sequence and none of the padding behind them.

    lengths: (batch,) number of real tokens in each sequence.
    n_keys:  padded length; the longest of the lengths when not given.
    Returns (batch, 1, n_keys) bool; the 1 stands for every query.
    Raises ValueError for lengths that are negative, longer than n_keys or not a list of numbers,
    TypeError for an n_keys that is no whole number or lengths that are no numbers at all.
    """
    try:
        lengths = torch.as_tensor(lengths)
    except (TypeError, ValueError, RuntimeError) as error:
        raise TypeError(f"lengths must be a list of whole numbers: {error}") from error
    if lengths.dim() != 1 or lengths.is_floating_point() or lengths.dtype == torch.bool:
        raise ValueError(
            "lengths must be a list of whole numbers, one for each sequence, "
            f"got shape {tuple(lengths.shape)} of {lengths.dtype}"
        )
    check_values("lengths", lengths)
    longest = int(lengths.max()) if len(lengths) else 0
    n_keys = longest if n_keys is None else check_whole("n_keys", n_keys)
    if longest > n_keys or (len(lengths) and int(lengths.min()) < 0):
        raise ValueError(f"lengths must be between 0 and n_keys={n_keys}, got {lengths.tolist()}")
    positions = torch.arange(n_keys, device=lengths.device)
    return (positions < lengths[:, None])[:, None, :]


def causal_mask(
    n_queries: int, n_keys: int | None = None, device: torch.device | str | None = None
) -> Tensor:
    """Let every token see itself and what came before it.

    n_queries: number of queries.
    n_keys:    number of keys, n_queries when not given; with more keys than queries the queries
               are the last tokens of the sequence, as in decoding with a cache.
    device:    where the mask is needed; the CPU when not given.
    Returns (n_queries, n_keys) bool.
    Raises ValueError with fewer keys than queries, whose first rows could see nothing; TypeError
    for what are no whole numbers.
    """
    n_queries = check_whole("n_queries", n_queries)
    n_keys = n_queries if n_keys is None else check_whole("n_keys", n_keys)
    if not 0 <= n_queries <= n_keys:
        raise ValueError(
            f"n_keys must be at least n_queries, got n_queries={n_queries}, n_keys={n_keys}"
        )
    ones = torch.ones(n_queries, n_keys, dtype=torch.bool, device=device)
    return ones.tril(n_keys - n_queries)


def combine_masks(*masks: Tensor | None) -> Tensor | None:
    """Allow only what every mask allows; None allows everything.

    masks: bool tensors of shapes that broadcast, such as (query, key) and (batch, 1, key).
    Returns their logical and, or None when all are None.
    Raises TypeError for a mask that is not bool, ValueError for shapes that do not fit together.
    """
    combined = None
    for mask in masks:
        if mask is None:
            continue
        _check_is_bool(mask)
        try:
            combined = mask if combined is None else combined & mask
        except RuntimeError as error:
            shapes = [tuple(m.shape) for m in masks if m is not None]
            raise ValueError(f"masks must broadcast against each other, got {shapes}") from error
    return combined


def check_mask(mask: Tensor, shape: Sequence[int]) -> None:
    """Raise unless mask is bool and fits attention scores of this shape (..., query, key).

    A mask has two dimensions (query, key) or as many as the scores; anything between would be
    aligned with the wrong dimension in silence. Only a dimension of 1 is stretched.
    """
    _check_is_bool(mask)
    shape = tuple(shape)
    fits = mask.dim() in (2, len(shape)) and all(
        have in (1, want) for have, want in zip(mask.shape, shape[-mask.dim() :], strict=True)
    )
    if not fits or mask.size(-1) != shape[-1]:
        full = "" if len(shape) == 2 else f" or {shape} (a dimension other than the last may be 1)"
        raise ValueError(f"mask must be (query, key) = {shape[-2:]}{full}, got {tuple(mask.shape)}")


def _check_is_bool(mask: Tensor) -> None:
    check_bool("mask", mask, "a bool tensor, True where a query may attend")
