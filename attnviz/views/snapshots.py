"""Checks of what a training run leaves behind: attention at several steps, and losses."""

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray

from attnviz.checks import check_whole
from attnviz.views.inputs import to_array
from attnviz.views.source import Layer, check_layers, check_one_size

A_STEP = "a whole number of steps"


def check_snapshots(snapshots: Mapping[int, object], item: int) -> dict[int, list[Layer]]:
    """Return the layers of each snapshot in rising order of steps, or raise; see `scrubber`."""
    wanted = "snapshots must be a dict from the number of steps done to the attention then"
    if not isinstance(snapshots, Mapping):
        raise TypeError(f"{wanted}, got {type(snapshots).__name__}")
    if not snapshots:
        raise ValueError(f"{wanted}, got none")
    steps = {
        check_whole("a key of snapshots", step, wanted=A_STEP): seen
        for step, seen in snapshots.items()
    }
    if min(steps) < 0:
        raise ValueError(f"a key of snapshots must be at least 0 steps, got {min(steps)}")
    checked = {}
    for step in sorted(steps):
        try:
            checked[step] = check_layers(steps[step], item)
            check_one_size(checked[step])
        except (TypeError, ValueError, IndexError) as error:
            raise type(error)(f"snapshots[{step}]: {error}") from error
    first, *others = checked
    for step in others:
        if (one := _about(checked[first])) != (other := _about(checked[step])):
            raise ValueError(
                "all snapshots must have the same layers, heads and sizes, but "
                f"snapshots[{first}] has {one} and snapshots[{step}] {other}"
            )
    return checked


def check_losses(losses: ArrayLike) -> NDArray[np.float64]:
    """Return losses as an array (step,), or raise TypeError or ValueError."""
    wanted = "losses must be a list with one number for each step"
    try:
        values = to_array(losses)
    except (TypeError, ValueError, RuntimeError) as error:
        raise TypeError(f"{wanted}: {error}") from error
    if values.dtype.kind not in "fiu":
        raise TypeError(f"{wanted}, got {type(losses).__name__} of {values.dtype}")
    if values.ndim != 1:
        raise ValueError(f"{wanted}, got shape {values.shape}")
    if len(wrong := np.flatnonzero(~np.isfinite(values))):
        raise ValueError(f"losses must be finite, got {values[wrong[0]]} at losses[{wrong[0]}]")
    return values.astype(np.float64)


def _about(layers: Sequence[Layer]) -> str:
    """How many layers, heads and tokens there are, in words."""
    heads = [layer.heads for layer in layers]
    heads = heads[0] if len(set(heads)) == 1 else heads
    size = f"{layers[0].n_queries} × {layers[0].n_keys} weights"
    return f"{len(layers)} layer{'s' * (len(layers) > 1)} of {heads} heads with {size}"
